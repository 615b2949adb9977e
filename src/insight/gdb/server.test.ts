/** The oracle is GDB itself: it drives the server over TCP, and what it prints is compared with what the fake machine holds. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import type { CpuRegisters, RunLimits, StopReason } from '../../api.ts'
import { createMachine } from '../../machine.ts'
import { rawStart } from '../lockstep/start.ts'
import type { Transport } from './protocol.ts'
import { GdbServer } from './server.ts'
import type { DebuggedMachine } from './server.ts'

const ENTRY = 0x1000

/** 64 KiB of memory and CPUs that know one instruction, NOP: RAX counts them. At 2000h the machine switches itself off. */
class NopMachine implements DebuggedMachine {
  readonly memory = new Uint8Array(0x10000).fill(0x90)
  readonly cpus: CpuRegisters[]
  retired = 0
  now = 0
  endless = false

  constructor(cpus: number) {
    this.cpus = Array.from({ length: cpus }, () => rawStart(new Uint8Array(0), ENTRY, 'long64').registers)
  }

  step(cpu = 0): StopReason | undefined {
    this.cpus[cpu].rip = this.endless ? BigInt(ENTRY) : this.cpus[cpu].rip + 1n
    this.cpus[cpu].gpr[0]++
    this.retired++
    return this.cpus[cpu].rip >= 0x2000n ? { kind: 'power-off' } : undefined
  }
  run(limits: RunLimits = {}): StopReason {
    for (let i = 0; i < Math.min(limits.maxInstructions ?? Infinity, 50_000); i++) {
      const stop = this.step()
      if (stop) return stop
    }
    return { kind: 'budget' }
  }
  registers(cpu = 0): CpuRegisters {
    return structuredClone(this.cpus[cpu])
  }
  setRegisters(change: Partial<CpuRegisters>, cpu = 0): void {
    Object.assign(this.cpus[cpu], change)
  }
  readPhysical(address: number, length: number): Uint8Array {
    return this.memory.slice(address, address + length)
  }
  writePhysical(address: number, bytes: Uint8Array): void {
    this.memory.set(bytes, address)
  }
  translate(linear: bigint): number | undefined {
    return linear < 0x10000n ? Number(linear) : undefined
  }
  describe(cpu = 0): string {
    return `CPU ${cpu} at ${this.cpus[cpu].rip.toString(16)}`
  }
}

/** Runs GDB's commands against a server for the machine; answers what GDB printed. */
async function gdb(machine: DebuggedMachine, commands: string[], cpus = 1): Promise<string> {
  const server = createServer((socket) => {
    const transport: Transport = { send: (bytes) => socket.write(bytes), onReceive: () => {}, onClose: () => {}, close: () => socket.end() }
    socket.on('data', (bytes) => transport.onReceive(bytes as Buffer))
    socket.on('close', () => transport.onClose('closed'))
    socket.on('error', () => {})
    new GdbServer(machine, transport, { cpus, schedule: setImmediate, monitor: { echo: (args) => args.join('+') } })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const all = ['set pagination off', 'set confirm off', `target remote 127.0.0.1:${port}`, ...commands]
  const child = spawn('gdb', ['-nx', '-q', '-batch', ...all.flatMap((command) => ['-ex', command])], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (output += chunk))
  await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
  server.close()
  return output
}

test('watchpoints stop behind the access, with what was there before and after', async () => {
  // MOV EAX,5; MOV [3000h],EAX; MOV EBX,[3000h]; NOP; JMP to itself
  const image = Uint8Array.from([0xb8, 5, 0, 0, 0, 0x89, 4, 0x25, 0, 0x30, 0, 0, 0x8b, 0x1c, 0x25, 0, 0x30, 0, 0, 0x90, 0xeb, 0xfe])
  for (const engine of ['jit', 'interpreter'] as const) {
    const machine = createMachine({ memory: 4 << 20, raw: { image, at: 0x100000, mode: 'long64' }, engine })
    const output = await gdb(machine, [
      'watch *(int*)0x3000', 'continue', 'p/x $pc', 'delete', 'rwatch *(short*)0x3002', 'continue', 'p/x $pc', 'delete', 'stepi', 'p/x $pc',
    ])
    assert.match(output, /Hardware watchpoint 1: .*\n[^]*Old value = 0\s+New value = 5[^]*\$1 = 0x10000c/)
    assert.match(output, /Hardware read watchpoint 2[^]*Value = 0[^]*\$2 = 0x100013[^]*\$3 = 0x100014/)
    assert.equal(machine.registers().gpr[3], 5n)
  }
})

test('registers and memory are read and written', async () => {
  const machine = new NopMachine(1)
  machine.cpus[0].gpr = machine.cpus[0].gpr.map((_, i) => BigInt(0x1111 * (i + 1)))
  machine.cpus[0].xmm[3] = { low: 0x0123456789abcdefn, high: 0xfedcba9876543210n }
  machine.cpus[0].ymmHigh[3] = { low: 0x55n, high: 0x66n << 56n }
  machine.cpus[0].cr4 = 0x6b0n
  machine.cpus[0].segments.gs.base = 0xffff888000000000n
  machine.memory.set([0xef, 0xbe, 0xad, 0xde], 0x3000)
  const output = await gdb(machine, [
    'p/x $rdx', 'p/x $rsi', 'p/x $r15', 'p/x $xmm3.uint128', 'p/x $ymm3.v2_int128', 'p/x $cr4', 'p/x $gs_base', 'p $eflags',
    'x/wx 0x3000', 'x/i $pc',
    'set $rbx = 0x1234567890abcdef', 'set $cr2 = 5', 'set {int}0x3004 = 0x11223344', 'x/wx 0x10000',
  ])
  const lines = output.split('\n')
  const printed = (text: string): void => assert.ok(lines.some((line) => line.includes(text)), `"${text}" is missing in:\n${output}`)
  printed('= 0x3333')
  printed('= 0x7777') // rsi has number 6 in the machine's order
  printed('= 0x11110')
  printed('= 0xfedcba98765432100123456789abcdef')
  printed('= {0xfedcba98765432100123456789abcdef, 0x66000000000000000000000000000055}')
  printed('= 0x6b0')
  printed('= 0xffff888000000000')
  printed('0x3000:\t0xdeadbeef')
  printed('=> 0x1000:\tnop')
  printed('Cannot access memory at address 0x10000')
  assert.equal(machine.cpus[0].gpr[3], 0x1234567890abcdefn)
  assert.equal(machine.cpus[0].cr2, 5n)
  assert.deepEqual([...machine.memory.slice(0x3004, 0x3008)], [0x44, 0x33, 0x22, 0x11])
})

test('steps, breakpoints and the end of the machine', async () => {
  const machine = new NopMachine(1)
  const output = await gdb(machine, ['stepi', 'p/x $pc', 'break *0x1100', 'continue', 'p/x $rax', 'continue'])
  assert.match(output, /= 0x1001/)
  assert.match(output, /Breakpoint 1, 0x0*1100 in/)
  assert.match(output, /= 0x100/) // 100h instructions from 1000h to 1100h, the step among them
  assert.match(output, /power-off/)
  assert.match(output, /exited normally/)
  assert.equal(machine.memory[0x1100], 0x90, 'no byte of memory was changed')
})

test('each CPU is a thread', async () => {
  const machine = new NopMachine(3)
  machine.cpus[2].gpr[1] = 0xabcdn
  const output = await gdb(machine, ['info threads', 'thread 3', 'p/x $rcx', 'set $rdx = 7'], 3)
  assert.match(output, /CPU 2/)
  assert.match(output, /= 0xabcd/)
  assert.deepEqual(machine.cpus.map(({ gpr }) => gpr[2]), [0n, 0n, 7n])
})

test('monitor commands', async () => {
  const commands = ['help', 'echo a b', 'translate 2345', 'describe', 'xp 10 4'].map((command) => `monitor ${command}`)
  const output = await gdb(new NopMachine(1), commands)
  assert.match(output, /translate ADDRESS/)
  assert.match(output, /a\+b/)
  assert.match(output, /physical 2345/)
  assert.match(output, /CPU 0 at 1000/)
  assert.match(output, /90909090/)
})

test('Ctrl-C stops a machine that runs', async () => {
  const machine = new NopMachine(1)
  machine.endless = true
  const later = 'threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()'
  const output = await gdb(machine, [`python import threading, os, signal; ${later}`, 'continue', 'p/x $pc'])
  assert.match(output, /SIGINT/)
  assert.match(output, /= 0x1000/)
  assert.ok(machine.retired > 1000)
})
