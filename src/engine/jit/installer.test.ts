/** Regions that begin with an instruction of several records: what they leave to the interpreter is counted once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../../machine.ts'

const image = 0x100000
const turns = 20_000
/** In all: three before the loop, four in each turn, HLT. */
const instructions = 3 + 4 * turns + 1

const turn = [
  0x0f, 0x01, 0x3e, //             invlpg [rsi]
  0xff, 0xc9, //                   dec ecx
]
const programs = {
  'across the end of a page': {
    at: 0xffe,
    loop: [
      0x48, 0x03, 0x06, //         loop: add rax, [rsi]
      ...turn, 0x75, 0xf6, 0xf4, // jnz loop; hlt
    ],
  },
  'at an absolute address of 64 bits': {
    at: 0x100,
    loop: [
      0x48, 0xa1, 0, 0, 0x20, 0x80, 0, 0, 0, 0, // loop: mov rax, [80200000h]
      ...turn, 0x75, 0xef, 0xf4, //                jnz loop; hlt
    ],
  },
} as const

for (const [what, { at, loop }] of Object.entries(programs))
  for (const engine of ['interpreter', 'jit'] as const)
    test(`a loop that begins with an access ${what}, whose translations miss, counts each instruction once (${engine})`, () => {
      const program = new Uint8Array(at + loop.length)
      program.set([
        0xbe, 0, 0, 0x20, 0x80, //                        mov esi, 80200000h
        0xb9, ...new Uint8Array(Int32Array.of(turns).buffer), // mov ecx, turns
        0xe9, (at - 15) & 0xff, (at - 15) >> 8, 0, 0, //  jmp loop
      ])
      program.set(loop, at)
      const machine = new VitrineMachine({ memory: 4 << 20, engine, raw: { image: program, at: image, mode: 'long64' } })
      // the first GiB, there and again 2 GiB above
      const gibibyte = 0x83n
      machine.writePhysical(0x10000, new Uint8Array(BigUint64Array.of(0x11003n).buffer))
      machine.writePhysical(0x11000, new Uint8Array(BigUint64Array.of(gibibyte, 0n, gibibyte).buffer))
      machine.setRegisters({ cr3: 0x10000n })
      machine.core.jit?.compileEagerly()
      for (let now = 10_000; now <= 4e6; now += 10_000) machine.run({ untilTime: now })
      if (engine === 'jit') assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing was compiled')
      assert.equal(machine.registers().gpr[1], 0n)
      assert.equal(machine.retired, instructions)
    })

test('a helper that a region calls for an instruction across the end of a page sees that instruction', () => {
  const at = 0xff0
  const copied = 64
  const [source, destination] = [0x180ff0, 0x1a0ff0] // in two pages each: the helper's work
  const dword = (value: number): number[] => [...new Uint8Array(Int32Array.of(value).buffer)]
  const program = new Uint8Array(0x1010)
  program.set([0xbd, ...dword(turns), 0xe9, ...dword(at - 10)]) // mov ebp, turns; jmp loop
  program.set([
    0xbe, ...dword(source), 0xbf, ...dword(destination), 0xb9, ...dword(copied), // loop: mov esi, edi, ecx
    0xf3, 0xa4, //                                                               rep movsb
    0xff, 0xcd, 0x75, 0xeb, 0xf4, //                                             dec ebp; jnz loop; hlt
  ], at)
  const machine = new VitrineMachine({ memory: 4 << 20, engine: 'jit', raw: { image: program, at: image, mode: 'long64' } })
  machine.core.jit?.compileEagerly()
  const bytes = Uint8Array.from({ length: copied }, (_, i) => i + 1)
  machine.writePhysical(source, bytes)
  for (let now = 1000; now <= 4e5; now += 1000) machine.run({ untilTime: now })
  assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing was compiled')
  const { gpr } = machine.registers()
  assert.deepEqual([gpr[5], gpr[1], gpr[6], gpr[7]], [0n, 0n, BigInt(source + copied), BigInt(destination + copied)])
  assert.deepEqual([...machine.readPhysical(destination, copied)], [...bytes])
})
