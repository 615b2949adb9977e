/**
 * Who listens to deliveries is told of each, also of those that are quick otherwise: the fault of an instruction and INT n whose handlers
 * were reached before.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine, type VitrineMachine } from '../machine.ts'

const image = 0x100000
const gdt = 0x180
const idt = 0x200
/** In which a machine begins that is given code alone. */
const codeSelector = 0x18
const turns = 500
const divideError = 0x60
const softwareInterrupt = 0x70
const user = 0x78

/** Once to level 3 and back: from then on the first level knows both privileges' translations, and deliveries are quick. */
const start = [
  0x0f, 0x01, 0x14, 0x25, 0x80, 0x00, 0x10, 0x00, // LGDT [100080h]
  0x0f, 0x01, 0x1c, 0x25, 0x90, 0x00, 0x10, 0x00, // LIDT [100090h]
  0xb9, user & 0xff, 0, 0x10, 0, 0x41, 0xbb, 2, 0, 0, 0, 0x48, 0x0f, 0x07, // MOV ECX,user; MOV R11D,2; SYSRETQ
]
const loop = [
  0xbc, 0, 0, 0x20, 0, 0xb9, turns & 0xff, turns >> 8, 0, 0, // MOV ESP,200000h; MOV ECX,turns
  0x31, 0xd2, 0xf6, 0xf2, 0xcd, 0x20, // loop: XOR EDX,EDX; DIV DL; INT 20h
  0xff, 0xc9, 0x75, 0xf6, 0xf4, // DEC ECX; JNZ loop; HLT
]

function program(): Uint8Array {
  const bytes = new Uint8Array(idt + 0x21 * 16)
  const view = new DataView(bytes.buffer)
  const pseudoDescriptor = (at: number, limit: number, base: number): void => {
    view.setUint16(at, limit, true)
    view.setBigUint64(at + 2, BigInt(image + base), true)
  }
  const gate = (vector: number, handler: number): void => {
    view.setUint16(idt + vector * 16, handler, true)
    view.setUint32(idt + vector * 16 + 2, 0x8e00_0000 | codeSelector, true) // present, an interrupt gate
    view.setUint16(idt + vector * 16 + 6, image >>> 16, true)
  }
  bytes.set([...start, ...loop])
  bytes.set([0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xcf], divideError) // ADD QWORD [RSP],2; IRETQ
  bytes.set([0x48, 0xcf], softwareInterrupt) // IRETQ
  bytes.set([0x0f, 0x05], user) // SYSCALL
  pseudoDescriptor(0x80, 39, gdt)
  pseudoDescriptor(0x90, 0x21 * 16 - 1, idt)
  view.setBigUint64(gdt + codeSelector, 0x0020_9b00_0000_0000n, true)
  view.setBigUint64(gdt + codeSelector + 8, 0x0000_9300_0000_0000n, true)
  gate(0, divideError)
  gate(0x20, softwareInterrupt)
  return bytes
}

for (const engine of ['interpreter', 'jit'] as const)
  test(`each exception and each INT is told of (${engine})`, () => {
    const machine = createMachine({ memory: 4 << 20, engine, raw: { image: program(), at: image, mode: 'long64' } }) as VitrineMachine
    machine.core.jit?.compileEagerly()
    // the first GiB, for programs too
    machine.writePhysical(0x10000, new Uint8Array(BigUint64Array.of(0x11007n).buffer))
    machine.writePhysical(0x11000, new Uint8Array(BigUint64Array.of(0x87n).buffer))
    const { state } = machine.core
    state.efer |= 1n // SCE
    state.msrStar = BigInt(codeSelector) << 32n
    state.msrLstar = BigInt(image + start.length)
    machine.setRegisters({ cr3: 0x10000n })
    const heard: number[] = []
    machine.onDelivery = ({ vector }) => void heard.push(vector)
    assert.deepEqual(machine.run(), { kind: 'idle' })
    assert.deepEqual(heard, Array.from({ length: turns }, () => [0, 0x20]).flat())
    assert.equal(machine.retired, 8 + turns * 7 + 1)
  })
