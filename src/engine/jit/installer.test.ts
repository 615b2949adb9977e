/** Regions that begin with an instruction across the end of a page: what they leave to the interpreter is counted once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../../machine.ts'

const image = 0x100000
/** Of the loop: its first instruction crosses the end of a page. */
const loop = 0xffe
const code = [
  0xbe, 0, 0, 0x20, 0, //          mov esi, 200000h
  0xb9, 0x20, 0x4e, 0, 0, //       mov ecx, 20000
  0xe9, 0xef, 0x0f, 0, 0, //       jmp loop
]
const body = [
  0x48, 0x03, 0x06, //       loop: add rax, [rsi]
  0x0f, 0x01, 0x3e, //             invlpg [rsi]
  0xff, 0xc9, //                   dec ecx
  0x75, 0xf6, //                   jnz loop
  0xf4, //                         hlt
]
const turns = 20_000
/** In all: three before the loop, four in each turn, HLT. */
const instructions = 3 + 4 * turns + 1

for (const engine of ['interpreter', 'jit'] as const)
  test(`a loop that begins across the end of a page, and whose translations miss, counts each instruction once (${engine})`, () => {
    const program = new Uint8Array(loop + body.length)
    program.set(code)
    program.set(body, loop)
    const machine = new VitrineMachine({ memory: 4 << 20, engine, raw: { image: program, at: image, mode: 'long64' } })
    machine.core.jit?.compileEagerly()
    for (let now = 10_000; now <= 4e6; now += 10_000) machine.run({ untilTime: now })
    if (engine === 'jit') assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing was compiled')
    assert.equal(machine.registers().gpr[1], 0n)
    assert.equal(machine.retired, instructions)
  })
