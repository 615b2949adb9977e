/** What two remapping units make of the same tables and accesses, and the differences that the specification explains. */
import { Random } from '../../test/properties/random.ts'
import { type Case, device, type Mode, place, randomCase } from './cases.ts'
import { List } from './list.ts'
import { onQemu, onVitrine, type Unit, units } from './run.ts'

export const base = 0xfed9_0000
export const register = {
  command: 0x18, status: 0x1c, root: 0x20, fault: 0x34, queueHead: 0x80, queueTail: 0x88, queueAddress: 0x90, interruptTable: 0xb8,
} as const
export const bits = {
  setRoot: 1 << 30, translation: 1 << 31, queue: 1 << 26, interrupts: 1 << 25, setInterruptTable: 1 << 24,
} as const
export const edu = {
  base: 0xe000_0000, interrupts: 0x24, raise: 0x60, acknowledge: 0x64, source: 0x80, destination: 0x88, count: 0x90, command: 0x98,
  buffer: 0x4_0000,
} as const
const dataLength = 32
/** In the root table address register: tables of scalable mode. In that of the queue: descriptors of 32 bytes, which they take. */
const scalableTables = 0x400
const wideDescriptors = 0x800
const queueBytes = 4096
/** What the device has to write, and what memory has: another word for each case. */
const patterns = { written: 0xc0de_0000, memory: 0x1234_0000 } as const

export function configure(list: List, offset: number, value: number): void {
  list.port(0xcf8, (0x8000_0000 | (device << 8) | offset) >>> 0).port(0xcfc, value)
}

function transfer(list: List, memory: bigint, inDevice: number, toMemory: boolean): void {
  const [source, destination] = toMemory ? [BigInt(inDevice), memory] : [memory, BigInt(inDevice)]
  list.wide(edu.base + edu.source, source).wide(edu.base + edu.destination, destination).wide(edu.base + edu.count, BigInt(dataLength))
  list.wide(edu.base + edu.command, toMemory ? 3n : 1n).await(edu.base + edu.command, 0, 1)
}

class Script {
  readonly list = new List()
  readonly #unit: Unit
  readonly #mode: Mode
  #tail = 0

  constructor(unit: Unit, mode: Mode) {
    this.#unit = unit
    this.#mode = mode
    const { list } = this
    configure(list, 0x10, edu.base)
    configure(list, 4, 6)
    for (let word = 0; word < dataLength / 4; word++) list.store(place.source + word * 4, patterns.written + word)
    transfer(list, BigInt(place.source), edu.buffer, false)
    list.wide(base + register.queueAddress, BigInt(place.queue | (mode === 'scalable' ? wideDescriptors : 0)))
    list.store(base + register.command, bits.queue)
    list.await(base + register.status, bits.queue, bits.queue)
    list.wide(base + register.root, BigInt(place.root | (mode === 'scalable' ? scalableTables : 0)))
    list.store(base + register.command, bits.queue | bits.setRoot)
    list.await(base + register.status, bits.setRoot, bits.setRoot)
    this.#translate(true)
  }

  #translate(on: boolean): void {
    const value = bits.queue | (on ? bits.translation : 0)
    this.list.store(base + register.command, value).await(base + register.status, on ? bits.translation : 0, bits.translation)
  }

  /** Global invalidation of context entries, of PASIDs, then of translations, and a wait. */
  #invalidate(): void {
    const isScalable = this.#mode === 'scalable'
    const [pasids, size] = isScalable ? [[0x37n], 32] : [[], 16]
    for (const low of [0x11n, ...pasids, 0x12n, (1n << 32n) | 0x25n]) {
      const at = place.queue + this.#tail
      this.list.wide(at, low).wide(at + 8, (low & 15n) === 5n ? BigInt(place.check + 0x800) : 0n)
      if (isScalable) this.list.wide(at + 16, 0n).wide(at + 24, 0n)
      this.#tail = (this.#tail + size) % queueBytes
    }
    this.list.store(place.check + 0x800, 0).store(base + register.queueTail, this.#tail).await(place.check + 0x800, 1, 1)
  }

  add({ quads, address, write, target }: Case, index: number): void {
    const { list } = this
    const { records, recordCount } = this.#unit
    list.clear(place.root, place.end - place.root)
    for (const [at, value] of quads) list.store(at, Number(value & 0xffff_ffffn)).store(at + 4, Number(value >> 32n))
    list.store(target, patterns.memory + index)
    this.#invalidate()
    transfer(list, address, edu.buffer + (write ? 0 : 1024), write)
    for (let record = 0; record < recordCount; record++) {
      for (let word = 0; word < 4; word++) list.say(base + records + record * 16 + word * 4)
      list.store(base + records + record * 16 + 12, 0x8000_0000)
    }
    list.say(base + register.fault).store(base + register.fault, 1)
    if (write) list.say(target)
    else {
      this.#translate(false)
      transfer(list, BigInt(place.check), edu.buffer + 1024, true)
      list.say(place.check)
      this.#translate(true)
    }
    list.line()
  }
}

/** One line of a run: the fault that was recorded, and what became of the data. */
function verdict(mode: Mode, line: string, { recordCount }: Unit, { write }: Case, index: number): string {
  const words = line.split(' ').map(word => parseInt(word, 16))
  for (let record = 0; record < recordCount; record++) {
    const [low, high, source, last] = words.slice(record * 4, record * 4 + 4)
    if ((last & 0x8000_0000) === 0) continue
    const kind = last & 0x4000_0000 ? 'read' : 'write'
    const address = (high * 2 ** 32 + low).toString(16)
    // QEMU 7.2 has few of scalable mode's reasons.
    const what = mode === 'scalable' ? 'blocked' : `fault ${(last & 0xff).toString(16)}`
    return `${what} of a ${kind} by ${(source & 0xffff).toString(16)} at ${address}`
  }
  const data = words.at(-1)
  const status = words[recordCount * 4]
  const overflow = status & 1 ? ', overflow' : ''
  const isOld = data === patterns.memory + index
  if (write) return (data === patterns.written ? 'written' : isOld ? 'not written' : `memory has ${data?.toString(16)}`) + overflow
  return (isOld ? 'read' : 'not read') + overflow
}

export interface Difference {
  readonly summary: string
  readonly ours: string
  readonly theirs: string
}

export interface Explanation {
  readonly why: string
  readonly applies: (each: Difference) => boolean
}

/** Where QEMU is not what the specification says. */
const explanations: readonly Explanation[] = [
  { why: 'requests beyond the width are blocked in pass-through too ("Handling Requests"); QEMU 7.2 gives such devices memory as it is',
    applies: ({ summary, ours }) => /beyond the width.*; passes through/.test(summary) && ours.startsWith('fault 4 ') },
  { why: 'one entry withholds the right, and a lower one has reserved bits: nothing orders these two; QEMU stops at the first',
    applies: ({ summary, ours, theirs }) => /with fewer rights/.test(summary) && /^fault [c7] /.test(ours) && /^fault [56] /.test(theirs) },
  { why: 'requests beyond the width are blocked in pass-through too; QEMU does not look (scalable mode)',
    applies: ({ summary, ours }) => /beyond the width.*; passes through/.test(summary) && ours.startsWith('blocked') },
  { why: 'FPD keeps faults of directory and PASID entry from being recorded ("Non-Recoverable Fault Reporting"); QEMU 7.2 has not',
    applies: ({ summary, ours, theirs }) =>
      /no fault processing by the /.test(summary) && ours.startsWith('not') && theirs.startsWith('blocked') },
]

export interface Comparison {
  readonly outcomes: ReadonlyMap<string, number>
  readonly differences: readonly Difference[]
  readonly explained: ReadonlyMap<string, number>
}

export function compare({ seed, cases: count, mode = 'legacy' }: { seed: number; cases: number; mode?: Mode }): Comparison {
  const random = new Random(seed)
  const cases = Array.from({ length: count }, () => randomCase(random, mode))
  const lists = [units.vitrine, units.qemu].map(unit => {
    const script = new Script(unit, mode)
    cases.forEach((each, index) => script.add(each, index))
    return script.list.bytes
  })
  const [ours, theirs] = [onVitrine(lists[0]), onQemu(lists[1], mode === 'scalable')]
  return differencesOf(cases.map((each, index) => ({
    summary: each.summary, ours: verdict(mode, ours[index], units.vitrine, each, index),
    theirs: verdict(mode, theirs[index], units.qemu, each, index),
  })), explanations, each => each.ours.replace(/ of a .*/, ''))
}

/** Counts what came of all cases, and sorts out where two machines differ. */
export function differencesOf(
  cases: readonly Difference[], known: readonly Explanation[], outcomeOf: (each: Difference) => string,
): Comparison {
  const outcomes = new Map<string, number>()
  const explained = new Map<string, number>()
  const differences: Difference[] = []
  const count = (counts: Map<string, number>, what: string): void => void counts.set(what, (counts.get(what) ?? 0) + 1)
  for (const each of cases) {
    count(outcomes, outcomeOf(each))
    if (each.ours === each.theirs) continue
    const explanation = known.find(({ applies }) => applies(each))
    if (explanation) count(explained, explanation.why)
    else differences.push(each)
  }
  return { outcomes, differences, explained }
}
