/**
 * Random blocks of instructions do the same however they are executed: as one run of records, instruction by instruction, compiled, and cut
 * into quanta. The instructions are those of the recorded vectors; no expectation comes from here but that all ways agree.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CoreVectorEngine } from '../vectors/core-engine.ts'
import { readVectors, type Vector } from '../vectors/format.ts'
import { vectorFiles } from '../vectors/runner.ts'
import { WINDOW } from '../vectors/state.ts'
import { Random } from './random.ts'

const groups = ['arithmetic', 'bit', 'move', 'shift', 'multiply-divide', 'stack', 'string', 'sse-integer', 'sse-float', 'mmx', 'x87']
const blockCount = 250
const nanoseconds = 3000
/** R15 counts the turns of a loop, in 32-bit code a word of memory, unless the block changes it: then time ends it. */
const counter = (WINDOW + 0x1800).toString(16).match(/../g)!.reverse().map(byte => parseInt(byte, 16))
const turns = { 64: [0x41, 0xbf, 3, 0, 0, 0], 32: [0xc7, 0x05, ...counter, 3, 0, 0, 0] } as const
const decrement = { 64: [0x41, 0xff, 0xcf], 32: [0xff, 0x0d, ...counter] } as const

const pool: Vector[] = []
/** In 32-bit code the bytes of the others mean something, too. */
const pool32: Vector[] = []
for (const { group, path } of vectorFiles())
  if (groups.includes(group) || group === 'legacy32') {
    const seen = new Set<string>()
    for (const vector of readVectors(path)) {
      if (!seen.has(vector.text)) (vector.mode === 64 ? pool : pool32).push(vector)
      seen.add(vector.text)
    }
  }

/** Instructions in a row, some jumped over by a condition, all of them turned around a few times. */
function block(random: Random, mode: 64 | 32 = 64): Vector {
  const code: number[] = [...turns[mode]]
  const texts: string[] = []
  const first = random.pick(mode === 64 ? pool : pool32)
  const group = random.chance(2) ? random.pick(groups) : undefined
  const all = mode === 64 || random.chance(3) ? pool : pool32
  const candidates = group && all === pool ? all.filter(vector => vector.group === group) : all
  for (let i = 0; i < 3 + random.below(14); i++) {
    const { code: bytes, text } = random.pick(candidates)
    if (random.chance(4)) {
      code.push(0x70 | random.below(16), bytes.length)
      texts.push('jcc')
    }
    code.push(...bytes)
    texts.push(text)
  }
  code.push(...decrement[mode], 0x0f, 0x85)
  const back = turns[mode].length - (code.length + 4)
  code.push(back & 0xff, (back >> 8) & 0xff, 0xff, 0xff)
  return { ...first, code: Uint8Array.from(code), text: texts.join('; '), features: [] }
}

for (const mode of [64, 32] as const)
  test(`blocks of ${mode}-bit code give the same state in every way of executing`, () => agree(mode))

function agree(mode: 64 | 32): void {
  const engines = (['run', 'step', 'jit'] as const).map(way => new CoreVectorEngine(way, 'amd'))
  const stops = new Map<string, number>()
  for (let seed = 1; seed <= blockCount; seed++) {
    const vector = block(new Random(seed), mode)
    const [expected, ...others] = engines.map(engine => engine.runBlock(vector, nanoseconds))
    stops.set(expected.stop, (stops.get(expected.stop) ?? 0) + 1)
    others.forEach((found, i) => assert.deepEqual(found, expected, `block ${seed} in ${engines[i + 1].name}: ${vector.text}`))
  }
  const { regions } = engines[2].core.jit!.statistics
  assert.ok(regions > blockCount / 2, `${regions} regions`)
  for (const stop of mode === 64 ? ['time', 'halted', 'event'] : ['halted', 'event'])
    assert.ok(stops.has(stop), `no block ended with '${stop}'`)
}

test('quanta of any length end at the same instructions', () => {
  const engine = new CoreVectorEngine('run', 'intel')
  for (let seed = 1; seed <= 30; seed++) {
    const vector = block(new Random(seed * 7919))
    const whole = engine.runBlock(vector, nanoseconds)
    if (whole.stop !== 'halted') continue
    for (const length of [1, 7, 50])
      assert.deepEqual(engine.runBlock(vector, nanoseconds, length), whole, `quanta of ${length}: ${vector.text}`)
  }
})
