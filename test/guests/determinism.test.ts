/** The same inputs give the same run: whichever engine, and however the embedder cuts it into pieces. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { MachineOptions, StopReason } from '../../src/api.ts'
import { createMachine } from '../../src/machine.ts'
import { kernelFile, shellDisk } from './linux.ts'

interface Trace {
  stop: StopReason['kind']
  serial: string
  retired: number
  virtualTime: number
  state: string
}

const kernel = readFileSync(kernelFile('cloud'))
const initrd = shellDisk()
const typed = new TextEncoder().encode('cat /proc/interrupts /proc/uptime; bench pgfault; head -c 32 /dev/urandom | md5sum; poweroff -f\n')

/** `piece` says how many instructions the next run() may take. */
function boot(engine: MachineOptions['engine'], piece: () => number): Trace {
  const machine = createMachine({ kernel, initrd, commandLine: 'console=ttyS0', engine, memory: 512 << 20, seed: 7, noReboot: true })
  const serial = createHash('sha256')
  machine.onSerialOutput = bytes => { serial.update(bytes) }
  machine.serialInput(typed)
  let stop: StopReason
  do stop = machine.run({ maxInstructions: piece() })
  while (stop.kind === 'budget' && machine.retired < 10e9)
  return { stop: stop.kind, serial: serial.digest('hex'), retired: machine.retired, virtualTime: machine.now, state: machine.stateHash() }
}

test('a boot of Linux to power-off: twice, in one piece and in many, compiled and interpreted', () => {
  const once = boot('jit', () => 1e12)
  assert.equal(once.stop, 'power-off')
  let seed = 1
  const uneven = (): number => {
    seed = (seed * 48271) % 0x7fffffff
    return 1 + (seed % 3_000_000)
  }
  assert.deepEqual(boot('jit', uneven), once)
  assert.deepEqual(boot('interpreter', () => 1e7), once)
})
