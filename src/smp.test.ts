/** Several CPUs: INIT and SIPI, IPIs of every kind, and the same order of their turns however a run is cut. Intel SDM vol. 3, "APIC". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from './machine.ts'

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff]
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)]
/** WRMSR of EDX:EAX in code of 16 bits. */
const writeMsr = (index: number, low: number, high = 0): number[] =>
  [0x66, 0xb9, ...dword(index), 0x66, 0xb8, ...dword(low), 0x66, 0xba, ...dword(high), 0x0f, 0x30]
const enableApic = [...writeMsr(0x1b, 0xfee00d00), ...writeMsr(0x80f, 0x1ff)]
const enableOther = [...writeMsr(0x1b, 0xfee00c00), ...writeMsr(0x80f, 0x1ff)]
const sendIpi = (low: number, destination = 0): number[] => writeMsr(0x830, low, destination)
const allButSelf = 0xc0000
const startOthers = [...sendIpi(allButSelf | 0x4500), ...sendIpi(allButSelf | 0x4608)] // INIT; SIPI: they start at 8000h
const wait = [0xb9, 0x00, 0x80, 0xe2, 0xfe] // mov cx, 8000h; loop $
const exit = [0xba, ...word(0xf4), 0xb0, 0x21, 0xee]

function machineOf(first: readonly number[], others: readonly number[], cpus: number): VitrineMachine {
  const machine = new VitrineMachine({
    raw: { image: Uint8Array.from(first), at: 0x7c00, mode: 'real16' }, memory: 2 << 20, cpus, engine: 'jit',
    devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x1' } }],
  })
  machine.writePhysical(0x8000, Uint8Array.from(others))
  return machine
}

test('CPUs that race for a word give the same result in one piece and in many', () => {
  // mov cx, 30000; mov ax, [5000h]; inc ax; nop; mov [5000h], ax; loop; cli; hlt: quanta end at each place of it
  const race = [0xb9, ...word(30000), 0xa1, 0x00, 0x50, 0x40, 0x90, 0xa3, 0x00, 0x50, 0xe2, 0xf6, 0xfa, 0xf4]
  const run = (piece: number): number[] => {
    const machine = machineOf([...enableApic, ...startOthers, ...race], race, 4)
    while (machine.now < 2e6) machine.run({ maxInstructions: piece, untilTime: 2e6 })
    return [...machine.readPhysical(0x5000, 2), machine.retired]
  }
  const whole = run(1e9)
  assert.ok(whole[2] > 4 * 30000 * 4)
  assert.notEqual(whole[0] | (whole[1] << 8), (4 * 30000) & 0xffff, 'some increments are lost')
  for (const piece of [777, 12_345]) assert.deepEqual(run(piece), whole)
})

test('fixed, logical, lowest-priority, self and broadcast IPIs, NMI and SMI reach the CPUs that they name', () => {
  const vectors: [number, number][] = [[2, 0x6000], [0x40, 0x6010], [0x41, 0x6020], [0x42, 0x6030], [0x43, 0x6040]]
  // each handler: lock inc byte [5000h + n] (n by handler), end of interrupt, iret
  const eoi = writeMsr(0x80b, 0)
  const handler = (cell: number, end: readonly number[]): number[] =>
    [0x66, 0x60, 0xf0, 0xfe, 0x06, ...word(cell), ...end, 0x66, 0x61, 0xcf] // pushad ... popad; iret
  // here they are: lock inc byte [5010h]; sti; hlt; jmp
  const others = [...enableOther, 0xf0, 0xfe, 0x06, ...word(0x5010), 0xfb, 0xf4, 0xeb, 0xfd]
  const first = [
    ...enableApic, ...startOthers, ...wait, ...wait, 0xfb, // sti
    ...sendIpi(0x4040, 2), // fixed, to APIC 2
    ...sendIpi(0x4841, 0x0e), // logical, cluster 0: CPUs 1 to 3
    ...sendIpi(0x4942, 0x0c), // lowest priority among 2 and 3: one of them
    ...sendIpi(0x84043), // all including self
    ...writeMsr(0x83f, 0x43), // SELF IPI
    ...sendIpi(allButSelf | 0x4400), // NMI
    ...sendIpi(0x4200, 3), // SMI, to APIC 3
    ...wait, ...exit,
  ]
  const machine = machineOf(first, others, 4)
  const cells: Record<number, number> = { 2: 0x5000, 0x40: 0x5001, 0x41: 0x5002, 0x42: 0x5003, 0x43: 0x5004 }
  vectors.forEach(([vector], index) => {
    const at = 0x6000 + index * 0x40
    machine.writePhysical(vector * 4, Uint8Array.of(...word(at), 0, 0))
    machine.writePhysical(at, Uint8Array.from(handler(cells[vector], vector === 2 ? [] : eoi)))
  })
  // the SMI handler: lock inc byte [5005h] with a 32-bit address; rsm
  machine.writePhysical(0x38000, Uint8Array.of(0xf0, 0x67, 0xfe, 0x05, ...dword(0x5005), 0x0f, 0xaa))
  assert.deepEqual(machine.run({ untilTime: 1e9 }), { kind: 'debug-exit', status: 0x43 })
  assert.equal(machine.readPhysical(0x5010, 1)[0], 3, 'CPUs started')
  // NMI to three, fixed to one, logical to three, lowest priority to one, broadcast to four and once more to self, SMI to one
  assert.deepEqual([...machine.readPhysical(0x5000, 6)], [3, 1, 3, 1, 5, 1])
})
