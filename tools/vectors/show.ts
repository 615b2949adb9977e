/** Prints vectors for people, what goes in and what comes out: npx node tools/vectors/show.ts GROUP|FILE [TEXT] [--limit N] */
import { commandLine, refuse } from '../command.ts'
import { isFault, readVectors } from '../../test/vectors/format.ts'
import type { Vector } from '../../test/vectors/format.ts'
import { describeVector } from '../../test/vectors/runner.ts'
import { backgroundState } from '../../test/vectors/state.ts'
import type { State } from '../../test/vectors/state.ts'

/** Everything in which two states differ, flattened to names. */
function differences(from: State, to: State): string {
  const flat = (state: State): Map<string, string> => {
    const map = new Map<string, string>()
    const walk = (name: string, value: unknown): void => {
      if (value instanceof Uint8Array) return
      if (typeof value === 'object' && value !== null) for (const [key, inner] of Object.entries(value)) walk(name ? `${name}.${key}`
        : key, inner)
      else map.set(name, (value as number | bigint).toString(16))
    }
    walk('', state)
    return map
  }
  const [a, b] = [flat(from), flat(to)]
  const list = [...b].filter(([name, value]) => a.get(name) !== value).map(([name, value]) => `${name}=${value}`)
  to.memory.forEach((byte, i) => {
    if (from.memory[i] !== byte) list.push(`[${i.toString(16)}]=${byte.toString(16)}`)
  })
  return list.join(' ')
}

function show(vector: Vector): void {
  const { after, before } = vector
  console.log(describeVector(vector))
  console.log('  in:  ' + differences(backgroundState(vector.mode), before))
  const fault = isFault(after) ? `#${after.vector} error ${after.errorCode?.toString(16)} address ${after.address?.toString(16)} ` : ''
  console.log(`  out: ${fault}${differences(before, isFault(after) ? after.state : after)} (flags mask ${vector.flagsMask.toString(16)})`)
}

const { positionals, values } = commandLine(import.meta.url, {
  allowPositionals: true, options: { limit: { type: 'string', default: '20' } },
})
const [group, text = ''] = positionals
if (!group) refuse(import.meta.filename, 'a group or a file is needed')
const path = group.includes('/') ? group : `${import.meta.dirname}/../../test/vectors/data/${group}.vec`
let left = Number(values.limit)
for (const vector of readVectors(path)) {
  if (!vector.text.includes(text)) continue
  if (left-- <= 0) break
  show(vector)
}
