/** The verdicts of two processors on the same VMCSs, and the differences that the manual explains. */
import { capabilitiesOf, randomCases, unlike } from './cases.ts'
import type { FieldName } from '../../src/virt/vmx/fields.ts'
import { initial, makeGuest, type Write } from './guest.ts'
import { onBochs, onVitrine } from './run.ts'

export interface Difference {
  readonly writes: readonly Write[]
  readonly ours: string
  readonly theirs: string
}

interface Explanation {
  readonly why: string
  readonly applies: (each: Difference) => boolean
}

const valueOf = ({ writes }: Difference, field: FieldName): bigint =>
  writes.find(([name]) => name === field)?.[1] ?? initial.get(field) ?? 0n
const entersOnlyThere = ({ ours, theirs }: Difference): boolean => ours.startsWith('exit 33') && theirs === 'entered'
const beyond = (value: bigint, bits: bigint): boolean => {
  const high = BigInt.asIntN(64, value) >> bits
  return high !== 0n && high !== -1n
}
/** Where Bochs is not what the manual says, or the manual leaves it open. */
export const explanations: readonly Explanation[] = [
  { why: 'in 64-bit mode bits 63:N of RIP must be equal ("Checks on Guest RIP, RFLAGS, and SSP"); Bochs 2.7 does not look',
    applies: each => entersOnlyThere(each) && beyond(valueOf(each, 'guestRip'), 48n) },
  { why: 'bits 63:17 of the pending debug exceptions must be 0 ("Checks on Guest Non-Register State"); Bochs 2.7 looks at 32 bits',
    applies: each => entersOnlyThere(each) && valueOf(each, 'guestPendingDebug') >> 32n !== 0n },
  { why: 'a usable SS is checked whatever its selector ("Checks on Guest Segment Registers"); Bochs 2.7 skips a null one in 64-bit mode',
    applies: each => entersOnlyThere(each) && (valueOf(each, 'guestSsSelector') & 0xfffcn) === 0n },
  { why: 'DPL must not be below RPL for types 0 to 11 ("Checks on Guest Segment Registers"); Bochs 2.7 leaves out type 11',
    applies: each => entersOnlyThere(each) && (['Es', 'Ds', 'Fs', 'Gs'] as const).some(name =>
      (valueOf(each, `guest${name}AccessRights`) & 0x1006fn) === 0xbn && (valueOf(each, `guest${name}Selector`) & 3n) !== 0n) },
  { why: 'with MOV SS blocking or HLT, and TF, pending BS must be 1 ("Checks on Guest Non-Register State"); Bochs 2.7 does not look',
    applies: each => entersOnlyThere(each) && (valueOf(each, 'guestRflags') & 0x100n) !== 0n
      && (valueOf(each, 'guestInterruptibility') !== 0n || valueOf(each, 'guestActivity') === 1n) },
  { why: 'in HLT only interrupts, NMI, #DB, #MC and MTF may be injected ("Checks on Guest Non-Register State"); Bochs 2.7 does not look',
    applies: each => entersOnlyThere(each) && valueOf(each, 'guestActivity') === 1n
      && [0x80000306n, 0x80000b0dn, 0x80000b0en].includes(valueOf(each, 'entryInterruption')) },
  { why: 'an injected event of type 7 with vector 0 is a pending MTF VM exit ("Injection of Pending MTF VM Exits"); Bochs 2.7 stops',
    applies: ({ ours, theirs, writes }) => ours === 'entered' && theirs === 'no answer'
      && writes.some(([name, value]) => name === 'entryInterruption' && value === 0x80000700n) },
  { why: 'two rules on guest state are broken, and the manual orders none of them: the qualification is that of either',
    applies: ({ ours, theirs }) => ours.startsWith('exit 33') && theirs.startsWith('exit 33') },
  { why: 'which MSRs a list may load is left to the model, and lists beyond the recommended length do what they like ("Loading MSRs")',
    applies: each => each.ours.startsWith('exit 34') && valueOf(each, 'entryMsrLoadAddress') !== initial.get('entryMsrLoadAddress') },
]

/** The entry's verdict: which error, which failure; a guest that was entered is one kind, whatever ended it. */
export function verdict(line: string): string {
  const [kind, , first, second] = line.split(' ')
  if (kind === 'I') return 'VMfailInvalid'
  if (kind !== 'X') return `error ${Number(`0x${first}`)}`
  const reason = Number(`0x${first}`)
  return reason & 0x80000000 ? `exit ${reason & 0xffff} qualification ${Number(`0x${second}`)}` : 'entered'
}

export interface Comparison {
  readonly total: number
  readonly outcomes: ReadonlyMap<string, number>
  readonly differences: readonly Difference[]
  readonly explained: ReadonlyMap<string, number>
}

const batch = 1000
/** By the case's number. */
const verdicts = (lines: readonly string[]): Map<number, string> => new Map(lines.filter(line => /^[FIX] /.test(line)).map(line =>
  [Number(`0x${line.split(' ')[1]}`), verdict(line)]))

/** Bochs can come to its end in a case: the rest is another run. */
async function bochsVerdicts(cases: readonly (readonly Write[])[], model: string): Promise<Map<number, string>> {
  const all = new Map<number, string>()
  for (let first = 0; first < cases.length;) {
    const found = verdicts(await onBochs(makeGuest(cases.slice(first)), model))
    for (const [i, each] of found) all.set(first + i, each)
    const reached = first + Math.max(-1, ...found.keys()) + 1
    if (reached < cases.length) all.set(reached, 'no answer')
    first = reached + 1
  }
  return all
}

export interface Question {
  readonly seed: number
  readonly cases: number
  /** Models of both. */
  readonly cpu: string
  readonly bochs: string
}

export async function compare({ seed, cases, cpu, bochs }: Question): Promise<Comparison> {
  const nothing = makeGuest([])
  const fixed = unlike(capabilitiesOf(onVitrine(nothing, cpu)), capabilitiesOf(await onBochs(nothing, bochs)))
  const [outcomes, explained, differences] = [new Map<string, number>(), new Map<string, number>(), [] as Difference[]]
  const count = (map: Map<string, number>, what: string): void => void map.set(what, (map.get(what) ?? 0) + 1)
  for (let done = 0; done < cases; done += batch) {
    const lists = randomCases(seed + done / batch, Math.min(batch, cases - done), fixed)
    const ours = verdicts(onVitrine(makeGuest(lists), cpu))
    const theirs = await bochsVerdicts(lists, bochs)
    lists.forEach((writes, i) => {
      const each = { writes, ours: ours.get(i) ?? 'nothing', theirs: theirs.get(i) ?? 'nothing' }
      count(outcomes, each.ours)
      if (each.ours === each.theirs) return
      const explanation = explanations.find(({ applies }) => applies(each))
      if (explanation) count(explained, explanation.why)
      else differences.push(each)
    })
  }
  return { total: cases, outcomes, differences, explained }
}
