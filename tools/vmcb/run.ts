/** Runs cases on Vitrine and on Bochs, and reads what the bare hypervisor of guest.ts wrote. */
import { onBochs, onVitrine } from '../vmcs/run.ts'
import type { NamedCase } from './cases.ts'
import { makeGuest } from './guest.ts'

/** As Bochs 2.7's model `ryzen` is: without the extensions that it has not. */
export const ourModel = 'amd,-decodeassists,-umip,+monitor'

/** What changed by an exit: quadwords by their offset in the arena. */
export type Changes = ReadonlyMap<number, bigint>
export interface Outcome {
  /** One for each exit. */
  readonly exits: readonly Changes[]
  /** The exception that VMRUN, VMLOAD or VMSAVE raised; -1: the machine came to its end. */
  readonly fault?: number
}

const number = (text: string): number => parseInt(text, 16)

/** By the case's number. */
function outcomesOf(lines: readonly string[]): Map<number, Outcome> {
  const all = new Map<number, { exits: Changes[]; fault?: number }>()
  const at = (i: number): { exits: Changes[]; fault?: number } => all.get(i) ?? all.set(i, { exits: [] }).get(i)!
  for (const line of lines) {
    const [kind, index, ...rest] = line.split(' ')
    if (kind === 'E') at(number(index)).fault = number(rest[0])
    if (kind !== 'X') continue
    const changes = new Map<number, bigint>()
    for (let i = 1; i + 1 < rest.length; i += 2) changes.set(number(rest[i]), BigInt(`0x${rest[i + 1]}`))
    at(number(index)).exits.push(changes)
  }
  return all
}

export const oursOf = (cases: readonly NamedCase[], cpu: string, engine: 'jit' | 'interpreter' = 'jit'): Map<number, Outcome> =>
  outcomesOf(onVitrine(makeGuest(cases.map(({ steps }) => steps)), cpu, engine))

/** Bochs can come to its end in a case: the rest is another run. */
export async function theirsOf(cases: readonly NamedCase[], model: string): Promise<Map<number, Outcome>> {
  const all = new Map<number, Outcome>()
  for (let first = 0; first < cases.length;) {
    const found = outcomesOf(await onBochs(makeGuest(cases.slice(first).map(({ steps }) => steps)), model))
    for (const [i, each] of found) all.set(first + i, each)
    const reached = first + Math.max(-1, ...found.keys()) + 1
    if (reached < cases.length) all.set(reached, { exits: [], fault: -1 })
    first = reached + 1
  }
  return all
}
