/**
 * Where a turn ends inside a block that is longer than the interpreter's run: code was first reached in its middle, so the run that begins
 * before ends there, and the block goes through. An instruction begins while there is time, whichever engine executes it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../../machine.ts'

const image = 0x100000
const stringBytes = 250
/** INC EBP: what comes after the middle. */
const rest = Array.from({ length: 12 }, () => [0xff, 0xc5]).flat()

/** What a turn of the loop begins with; virtual nanoseconds of each of these instructions. */
const programs: Readonly<Record<string, { code: readonly number[]; times: readonly number[] }>> = {
  'an instruction that reads the time': { code: [0x0f, 0x31], times: [21] }, //       rdtsc
  'a helper that is called inside': { code: [0x0f, 0x21, 0xc6], times: [21] }, // mov rsi, dr0
  'a string': { // mov rdi, rbx; mov cl, 250; rep stosb, with 16 bytes a nanosecond
    code: [0x48, 0x89, 0xdf, 0xb1, stringBytes, 0xf3, 0xaa], times: [1, 1, 1 + Math.ceil(stringBytes / 16)],
  },
}

for (const [what, { code, times }] of Object.entries(programs))
  for (const engine of ['interpreter', 'jit'] as const)
    test(`after ${what}, a turn ends where its time is over (${engine})`, () => {
      const start = [
        0x31, 0xc9, 0xbb, 0, 0, 0x20, 0, // xor ecx, ecx; mov ebx, 200000h
        0xeb, code.length, //               jmp middle
      ]
      const loop = [...code, ...rest]
      const program = Uint8Array.from([...start, ...loop, 0xeb, -(loop.length + 2)])
      const machine = new VitrineMachine({ memory: 4 << 20, engine, raw: { image: program, at: image, mode: 'long64' } })
      machine.core.jit?.compileEagerly()

      const once = [1, 1, 1, ...Array.from({ length: rest.length / 2 + 1 }, () => 1)]
      const turn = [...times, ...once.slice(3)]
      let time = 0
      let retired = 0
      const timeOfNext = (): number => (retired < once.length ? once[retired] : turn[(retired - once.length) % turn.length])
      for (let until = 100_000; until <= 700_000; until += until < 600_000 ? 100_000 : 997) {
        machine.run({ untilTime: until })
        for (; time < until; retired++) time += timeOfNext()
        assert.deepEqual([machine.retired, machine.now], [retired, time], `until ${until}`)
      }
      if (engine === 'jit') assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing was compiled')
    })
