/**
 * System management mode on tiny real-mode guests. Expectations: Intel SDM vol. 3, "System Management Mode" (SMRAM State Save Map and Intel
 * 64 Architecture, SMI Handler Execution Environment, Exiting From SMM); AMD APM vol. 2, "System-Management Mode".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineOptions } from '../api.ts'
import { VitrineMachine } from '../machine.ts'

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff]
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)]
const out8 = (port: number, value: number): number[] => [0xba, ...word(port), 0xb0, value, 0xee]
const out32 = (port: number, value: number): number[] => [0xba, ...word(port), 0x66, 0xb8, ...dword(value), 0x66, 0xef]
/** In the handler: store a byte or dword at an absolute address, with 66h and 67h prefixes in code of 16 bits. */
const store8 = (address: number, value: number): number[] => [0x67, 0xc6, 0x05, ...dword(address), value]
const store32 = (address: number, value: number): number[] => [0x67, 0x66, 0xc7, 0x05, ...dword(address), ...dword(value)]
const increment = (address: number): number[] => [0x67, 0x66, 0xff, 0x05, ...dword(address)]
const rsm = [0x0f, 0xaa]
const hlt = 0xf4
const exit = (status: number): number[] => out8(0xf4, status)
const enableCommandSmi = out32(0x630, 0x21)
const commandSmi = out8(0xb2, 0x55)

const origin = 0x7c00
const smbase = 0x30000
const count = 0x5000

interface Guest {
  readonly machine: VitrineMachine
  run(): ReturnType<VitrineMachine['run']>
  read32(address: number): number
  read64(address: number): bigint
}

/** A q35 whose handler at the first SMBASE is `handler`. */
function guest(program: readonly number[], handler: readonly number[], more: MachineOptions = {}): Guest {
  const machine = new VitrineMachine({
    raw: { image: Uint8Array.from(program), at: origin, mode: 'real16' }, memory: 4 << 20, chipset: 'q35',
    devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x1' } }], ...more,
  })
  machine.writePhysical(smbase + 0x8000, Uint8Array.from(handler))
  const view = (address: number, bytes: number): DataView => new DataView(machine.readPhysical(address, bytes).buffer)
  return {
    machine, run: () => machine.run({ untilTime: machine.now + 1e9, maxInstructions: 10_000 }),
    read32: address => view(address, 4).getUint32(0, true), read64: address => view(address, 8).getBigUint64(0, true),
  }
}

const setRegisters = [0x66, 0xb9, ...dword(0x11223344), 0x66, 0xbf, ...dword(0x55667788), 0xf9] // mov ecx; mov edi; stc

test('an SMI saves the state in each vendor\'s format, and RSM takes back what the handler made of it', () => {
  const maps = {
    intel: { rcx: 0xff64, rdi: 0xff94, rip: 0xffd8, rflags: 0xffe8, cr0: 0xfff8, cs: 0xffac, smbase: 0xfef8, revision: 0x30101 },
    amd: { rcx: 0xfff0, rdi: 0xffc0, rip: 0xff78, rflags: 0xff70, cr0: 0xff58, cs: 0xfe10, smbase: 0xff00, revision: 0x30064 },
  }
  for (const model of ['intel', 'amd'] as const) {
    const map = maps[model]
    const before = [...enableCommandSmi, ...setRegisters, ...commandSmi]
    // the handler puts 7 into the saved RCX: mov al, cl is the exit status
    const program = [...before, 0x88, 0xc8, 0xba, ...word(0xf4), 0xee]
    const { run, read32, read64 } = guest(program, [...store32(smbase + map.rcx, 7), ...increment(count), ...rsm], { cpu: { model } })
    assert.deepEqual(run(), { kind: 'debug-exit', status: (7 << 1) | 1 })
    assert.equal(read32(count), 1)
    assert.equal(read64(smbase + map.rdi), 0x55667788n)
    assert.equal(read64(smbase + map.rip), BigInt(origin + before.length))
    assert.equal(read32(smbase + map.rflags) & 3, 3)
    assert.equal(read32(smbase + 0xfefc), map.revision)
    assert.equal(read32(smbase + map.smbase), smbase)
    assert.equal(read32(smbase + map.cs) & 0xffff, 0)
  }
})

test('the handler runs from SMBASE + 8000h with flat segments, interrupts off and paging off', () => {
  const { machine, run } = guest([...enableCommandSmi, ...commandSmi, ...exit(1)], [hlt])
  assert.equal(run().kind, 'idle')
  const { segments, rip, rflags, cr0, cr4, efer, dr } = machine.registers()
  assert.equal(segments.cs.selector, 0x3000)
  assert.equal(segments.cs.base, 0x30000n)
  assert.equal(segments.ds.limit, 0xffffffff)
  assert.equal(rip, 0x8001n)
  assert.equal(rflags, 2n)
  assert.equal(cr0 & 0x8000000dn, 0n)
  assert.deepEqual([cr4, efer, dr[7]], [0n, 0n, 0x400n])
})

test('SMBASE moves with the saved value', () => {
  const second = 0x200000
  const { machine, run, read32 } = guest(
    [...enableCommandSmi, ...commandSmi, ...commandSmi, ...exit(1)], [...store32(smbase + 0xfef8, second), ...rsm])
  machine.writePhysical(second + 0x8000, Uint8Array.from([...increment(count), ...rsm]))
  assert.equal(run().kind, 'debug-exit')
  assert.equal(read32(count), 1)
  assert.equal(read32(second + 0xfef8), second)
})

test('RSM goes back into HLT, or past it when the handler clears the flag of auto HALT restart', () => {
  // an SMI by IPI from the second processor's point of view is the same as one from outside: the machine's signal
  for (const [clear, kind] of [[false, 'idle'], [true, 'debug-exit']] as const) {
    const { machine, run, read32 } = guest([hlt, ...exit(1)], [...increment(count), ...(clear ? store8(smbase + 0xff02, 0) : []), ...rsm])
    assert.equal(run().kind, 'idle')
    machine.cpuAt().smi()
    assert.equal(run().kind, kind)
    assert.equal(read32(count), 1)
  }
})

test('an I/O instruction is restarted when the handler asks for it, and its port is told', () => {
  // once: test the count, restart only the first time
  const handler = [...increment(count), 0x67, 0x66, 0x83, 0x3d, ...dword(count), 1, 0x75, 8, ...store8(smbase + 0xff00, 0xff), ...rsm]
  const { run, read32 } = guest([...enableCommandSmi, ...commandSmi, ...exit(1)], [...handler])
  assert.equal(run().kind, 'debug-exit')
  assert.equal(read32(count), 2)
  assert.equal(read32(smbase + 0xffa4), (0xb2 << 16) | (1 << 1) | 1)
})

test('NMIs wait until the handler is left, and a second SMI too', () => {
  const nmiHandler = 0x7a00
  const { machine, run, read32 } = guest(
    [...enableCommandSmi, ...commandSmi, ...exit(1)],
    // NMI to itself through the x2APIC: it must not come here
    [0x66, 0xb9, ...dword(0x1b), 0x66, 0xb8, ...dword(0xfee00d00), 0x66, 0x31, 0xd2, 0x0f, 0x30,
      0x66, 0xb9, ...dword(0x830), 0x66, 0xb8, ...dword(0x44400), 0x0f, 0x30, ...store32(0x5100, 1), ...rsm])
  // the NMI handler copies what the SMI handler wrote last, then ends the machine
  machine.writePhysical(8, Uint8Array.from([...word(nmiHandler), 0, 0]))
  machine.writePhysical(nmiHandler, Uint8Array.from([0x66, 0xa1, ...word(0x5100), 0x66, 0xa3, ...word(0x5200), ...exit(2)]))
  assert.deepEqual(run(), { kind: 'debug-exit', status: 5 })
  assert.equal(read32(0x5200), 1)
})

test('RSM is no instruction outside of SMM, and shuts down on a reserved bit of CR4', () => {
  const { machine, run } = guest(rsm, [])
  machine.writePhysical(24, Uint8Array.from([...word(0x7a00), 0, 0]))
  machine.writePhysical(0x7a00, Uint8Array.from(exit(3)))
  assert.deepEqual(run(), { kind: 'debug-exit', status: 7 })
  const broken = guest([...enableCommandSmi, ...commandSmi], [...store32(smbase + 0xfe40, 0x80000000), ...rsm])
  assert.equal(broken.run().kind, 'triple-fault')
})

test('SMRAM is seen in SMM only, is nothing otherwise, and stays so when it is locked', () => {
  const config = (offset: number): number[] => out32(0xcf8, 0x80000000 | (offset & ~3))
  const smram = (value: number): number[] => [...config(0x9c), ...out8(0xcfd, value)]
  const read = (address: number): number[] => [0xb8, ...word(address >>> 4), 0x8e, 0xd8, 0xa0, 0, 0] // mov ax, seg; mov ds, ax; mov al, [0]
  const show = (at: number): number[] => [0x31, 0xdb, 0x8e, 0xdb, 0xa2, ...word(at)] // xor bx, bx; mov ds, bx; mov [at], al
  const program = [
    ...smram(0x48), 0xb8, ...word(0xa800), 0x8e, 0xd8, 0xc6, 0x06, 0, 0, 0x77, // open: mov byte [A8000h], 77h
    ...read(0xa8000), ...show(0x5000),
    ...smram(0x18), ...read(0xa8000), ...show(0x5001), // closed and locked
    ...smram(0x48), ...read(0xa8000), ...show(0x5002), // opening has no effect
    ...enableCommandSmi, ...commandSmi, ...exit(1),
  ]
  // mov al, [A8000h] (32-bit address); mov [5003h], al
  const { machine, run } = guest(program, [0x67, 0xa0, ...dword(0xa8000), 0x67, 0xa2, ...dword(0x5003), ...rsm])
  assert.equal(run().kind, 'debug-exit')
  assert.deepEqual([...machine.readPhysical(0x5000, 4)], [0x77, 0xff, 0xff, 0x77])
})
