/** Exits of the same guests on two processors, field by field, and the differences that the manual explains. */
import { exitCode, exitName } from '../../src/virt/svm/exit-codes.ts'
import { vmcbFields, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { inArena, place } from './arena.ts'
import type { NamedCase } from './cases.ts'
import { explanations } from './explanations.ts'
import { oursOf, theirsOf, type Changes, type Outcome } from './run.ts'

/** One quadword or field that is not the same after an exit. */
export interface Difference {
  readonly of: NamedCase
  readonly step: number
  /** EXITCODE of both: -1 where VMRUN was refused, undefined where there was no exit. */
  readonly codes: readonly [number | undefined, number | undefined]
  /** A field of the VMCB; otherwise the page of the arena and the offset in it. */
  readonly what: string
  readonly ours: bigint | undefined
  readonly theirs: bigint | undefined
  /** Everything that changed. */
  readonly all: readonly [Changes, Changes]
}

const vmcb = place.vmcb - place.arena
const pages = Object.entries(place).filter(([, address]) => address % 0x1000 === 0 && address < place.arena + inArena.compared)
  .map(([name, address]) => [name, (address - place.arena) >> 12] as const)

/** The part of a quadword that a field is. */
function valueOf(changes: Changes, name: VmcbFieldName, before: bigint): bigint {
  const { offset, size } = vmcbFields[name]
  const quad = changes.get(vmcb + (offset & ~7))
  return quad === undefined ? before : BigInt.asUintN(size * 8, quad >> BigInt((offset & 7) * 8))
}
const fieldsAt = new Map<number, VmcbFieldName[]>()
for (const name of Object.keys(vmcbFields) as VmcbFieldName[]) {
  const at = vmcb + (vmcbFields[name].offset & ~7)
  fieldsAt.set(at, [...(fieldsAt.get(at) ?? []), name])
}

const codeOf = (changes: Changes | undefined): number | undefined =>
  changes && Number(BigInt.asIntN(64, changes.get(vmcb + vmcbFields.exitCode.offset) ?? 0n))

function differencesOf(each: NamedCase, ours: Outcome, theirs: Outcome): Difference[] {
  const found: Difference[] = []
  for (let step = 0; step < each.steps.length; step++) {
    const all = [ours.exits[step] ?? new Map(), theirs.exits[step] ?? new Map()] as const
    const common = { of: each, step, codes: [codeOf(ours.exits[step]), codeOf(theirs.exits[step])] as const, all }
    if (!ours.exits[step] || !theirs.exits[step]) {
      if (ours.exits[step] || theirs.exits[step] || ours.fault !== theirs.fault)
        found.push({ ...common, what: 'exit', ours: BigInt(ours.fault ?? -2), theirs: BigInt(theirs.fault ?? -2) })
      return found
    }
    for (const at of new Set([...all[0].keys(), ...all[1].keys()])) {
      if (all[0].get(at) === all[1].get(at)) continue
      const names = fieldsAt.get(at)
      if (!names) {
        const page = pages.find(([, number]) => number === at >> 12)?.[0] ?? 'nowhere'
        found.push({ ...common, what: `${page}+${(at & 0xfff).toString(16)}`, ours: all[0].get(at), theirs: all[1].get(at) })
        continue
      }
      for (const name of names) {
        const before = each.fields[name] ?? 0n
        const [a, b] = [valueOf(all[0], name, before), valueOf(all[1], name, before)]
        if (a !== b) found.push({ ...common, what: name, ours: a, theirs: b })
      }
    }
    // what follows would differ for the same reason
    if (found.length > 0) return found
  }
  return found
}

export interface Comparison {
  readonly total: number
  /** How many exits there were of each kind, ours. */
  readonly exits: ReadonlyMap<string, number>
  /** Of each case that differs where nothing explains it. */
  readonly differences: readonly (readonly Difference[])[]
  readonly explained: ReadonlyMap<string, number>
}

function compareOutcomes(cases: readonly NamedCase[], ours: ReadonlyMap<number, Outcome>, theirs: ReadonlyMap<number,
  Outcome>): Comparison {
  const [exits, explained, differences] = [new Map<string, number>(), new Map<string, number>(), [] as Difference[][]]
  const count = (map: Map<string, number>, what: string): void => void map.set(what, (map.get(what) ?? 0) + 1)
  const none: Outcome = { exits: [] }
  cases.forEach((each, i) => {
    const mine = ours.get(i) ?? none
    for (const changes of mine.exits) count(exits, exitName(codeOf(changes)!))
    const open = differencesOf(each, mine, theirs.get(i) ?? none).filter(difference => {
      const explanation = explanations.find(({ applies }) => applies(difference))
      if (explanation) count(explained, explanation.why)
      return !explanation
    })
    if (open.length > 0) differences.push(open)
  })
  return { total: cases.length, exits, differences, explained }
}

/** A guest that is shut down, or left in virtual-8086 mode, is the end of Bochs 2.7: it is not asked. */
const endsBochs = (each: NamedCase, { exits }: Outcome): boolean => exits.some(changes => codeOf(changes) === exitCode.shutdown
  || (valueOf(changes, 'rflags', each.fields.rflags ?? 0n) & 0x20000n) !== 0n && codeOf(changes) !== exitCode.invalid)

const batch = 1000
export async function compare(cases: readonly NamedCase[], cpu: string, bochs: string): Promise<Comparison> {
  const [asked, ours, theirs] = [[] as NamedCase[], new Map<number, Outcome>(), new Map<number, Outcome>()]
  for (let first = 0; first < cases.length; first += batch) {
    const part = cases.slice(first, first + batch)
    const outcomes = oursOf(part, cpu)
    const both = part.map((each, i) => ({ each, outcome: outcomes.get(i) ?? { exits: [] } })).filter(({ each, outcome }) =>
      !endsBochs(each, outcome))
    const found = await theirsOf(both.map(({ each }) => each), bochs)
    both.forEach(({ each, outcome }, i) => {
      ours.set(asked.length, outcome)
      theirs.set(asked.length, found.get(i) ?? { exits: [] })
      asked.push(each)
    })
  }
  return compareOutcomes(asked, ours, theirs)
}
