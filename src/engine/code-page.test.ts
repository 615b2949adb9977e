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
