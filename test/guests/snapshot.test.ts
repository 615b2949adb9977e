/** A machine saved in the middle of a boot of Linux goes on as if nothing had happened: in itself, in another one, with another engine. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Machine, MachineOptions } from '../../src/api.ts'
import { MemoryStore } from '../../src/devices/testing/memory-store.ts'
import { decodeState, encodeState } from '../../src/embedder/state-file.ts'
import { createMachine } from '../../src/machine.ts'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'

const debian = debianKernel('cloud')
const kernel = readFileSync(debian.image)
const init = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
while true; do dd if=/dev/hwrng bs=64k count=1 2>/dev/null | dd of=/dev/vda bs=64k seek=$((i % 16)) 2>/dev/null; sync; i=$((i + 1)); done
`
const initrd = initramfs({ init, modules: moduleFiles(debian, ['virtio_pci', 'virtio_blk', 'virtio_rng']) })

function make(engine: MachineOptions['engine']): Machine {
  return createMachine({
    kernel, initrd, engine, commandLine: 'console=ttyS0 quiet', cpus: 2, memory: 256 << 20, chipset: 'q35', seed: 3,
    iommus: [{ model: 'vtd', properties: {} }],
    devices: [{ name: 'virtio-blk-pci', properties: { drive: 'd' } }, { name: 'virtio-rng-pci', properties: {} }],
    drives: [{ id: 'd', format: 'raw', snapshot: true, store: new MemoryStore(new Uint8Array(1 << 20)) }],
  })
}

function runTo(machine: Machine, retired: number, piece = Infinity): Machine {
  while (machine.retired < retired) {
    const { kind } = machine.run({ maxInstructions: Math.min(retired - machine.retired, piece) })
    assert.equal(kind, 'budget')
  }
  return machine
}

/** Instructions: while the kernel starts; when the programs have long been at work; and the end. */
const [early, late, end] = [300e6, 1450e6, 1550e6]

test('saved early and late, with two processors and a disk that is written to', () => {
  const machine = runTo(make('jit'), early)
  const first = decodeState(Buffer.concat(encodeState(machine.saveState())))
  runTo(machine, late)
  const second = machine.saveState()
  assert.ok(second.disks[0].units.length > 0, 'nothing is written yet')
  const lateHash = machine.stateHash()
  const endHash = runTo(machine, end).stateHash()

  machine.restoreState(second)
  assert.equal(machine.stateHash(), lateHash)
  assert.equal(runTo(machine, end, 3_333_333).stateHash(), endHash)
  const interpreted = make('interpreter')
  interpreted.restoreState(second)
  assert.equal(runTo(interpreted, end).stateHash(), endHash)
  const other = make('jit')
  other.restoreState(first)
  assert.equal(runTo(other, late).stateHash(), lateHash)
})
