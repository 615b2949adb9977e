/** What becomes of pages that hold code when they are written to. Follows no manual: the guest must not see any of it but speed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../machine.ts'
import { pageFlag } from '../memory/physical.ts'

test('a page whose code ran once is data again after some writes that miss the code; the code still runs, as it is then', () => {
  const routine = 0x8000
  const program = [
    0xe8, 0xfd, 0x03, //              call 8000h
    0xb9, 0x64, 0x00, //              mov cx, 100
    0xff, 0x06, 0x00, 0x81, //        inc word [8100h]
    0xe2, 0xfa, //                    loop
    0xf4, //                          hlt
    0xc6, 0x06, 0x01, 0x80, 0x22, //  mov byte [8001h], 22h
    0xe8, 0xeb, 0x03, //              call 8000h
    0xf4, //                          hlt
  ]
  const machine = new VitrineMachine({ raw: { image: Uint8Array.from(program), at: 0x7c00, mode: 'real16' }, memory: 2 << 20 })
  machine.writePhysical(routine, Uint8Array.of(0xb0, 0x11, 0xc3)) // mov al, 11h; ret
  const { physical } = machine.core
  const holdsCode = (): boolean => (physical.pageFlags[physical.pagePlace(routine, 0) >>> 12] & pageFlag.code) !== 0
  machine.run({ maxInstructions: 10 })
  assert.ok(holdsCode())
  machine.run({ untilTime: 1e6 })
  assert.ok(!holdsCode())
  assert.deepEqual([...machine.readPhysical(0x8100, 2)], [100, 0])
  assert.equal(machine.registers().gpr[0] & 0xffn, 0x11n)
  machine.cpuAt().nmi() // ends HLT: the vector leads to the next instruction
  machine.writePhysical(8, Uint8Array.of(0x0d, 0x7c, 0, 0))
  machine.run({ untilTime: 2e6 })
  assert.equal(machine.registers().gpr[0] & 0xffn, 0x22n)
})

test('filling memory takes the same time whether its page holds decoded code or not', () => {
  const timeWith = (routine: number): number => {
    const distance = routine - 0x7c03
    const program = [
      0xe8, distance & 0xff, distance >> 8, //                         call routine
      0xbf, 0x00, 0x81, 0xb9, 0x00, 0x04, 0xf3, 0xaa, //               mov di, 8100h; mov cx, 400h; rep stosb
      0xf4, //                                                         hlt
    ]
    const machine = new VitrineMachine({ raw: { image: Uint8Array.from(program), at: 0x7c00, mode: 'real16' }, memory: 2 << 20 })
    machine.writePhysical(routine, Uint8Array.of(0xc3)) // ret
    machine.run({ maxInstructions: 5 }) // with the last of them HLT
    assert.equal(machine.readPhysical(0x84ff, 1)[0], 0)
    return machine.now
  }
  assert.equal(timeWith(0x8000), timeWith(0x9000))
})

for (const engine of ['interpreter', 'jit', 'step'] as const)
  test(`a loop that stores beside its own instructions, and into them, runs what it has stored (${engine})`, () => {
    const turns = 5000
    const program = [
      0xb9, turns & 0xff, turns >> 8, // mov cx, turns
      0x88, 0x0e, 0x0a, 0x7c, //         loop: mov [value], cl
      0x90, 0x90, //                     nop; nop
      0xb0, 0x00, //                     mov al, value
      0xb4, 0x00, //                     mov ah, 0
      0x01, 0xc3, //                     add bx, ax
      0xff, 0x06, 0x16, 0x7c, //         inc word [count]
      0xe2, 0xee, //                     loop
      0xf4, //                           hlt
      0x00, 0x00, //                     count, behind the last instruction
    ]
    const machine = new VitrineMachine({ engine, raw: { image: Uint8Array.from(program), at: 0x7c00, mode: 'real16' }, memory: 2 << 20 })
    machine.core.jit?.compileEagerly()
    machine.run({ untilTime: 1e8 })
    let sum = 0
    for (let cx = turns; cx > 0; cx--) sum += cx & 0xff
    assert.equal(machine.registers().gpr[3] & 0xffffn, BigInt(sum & 0xffff))
    assert.deepEqual([...machine.readPhysical(0x7c16, 2)], [turns & 0xff, turns >> 8])
    assert.equal(machine.retired, 1 + 7 * turns + turns + 1)
  })
