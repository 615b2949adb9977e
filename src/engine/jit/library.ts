/**
 * Compiled regions by the instructions that they were made of: of this run, and of earlier ones. Code that comes back - after it was
 * dropped, at another place in memory, in the next run - needs neither discovery nor a compiler.
 */
import { EntryFilter } from '../code-cache.ts'
import { packedPlans, type PackedPlan, type PackedPlans, type RegionPlan } from './plan.ts'

/** Regions of a module; the module itself may still be in the making. */
export interface LibraryModule {
  readonly poolSize: number
  readonly regions: LibraryRegion[]
  module: WebAssembly.Module | undefined
  /** An earlier run has made it: its number among those. */
  readonly keptAs: number | undefined
  /** It is not wanted yet: its regions are found when code becomes hot, not when it is decoded. */
  early: boolean
  readonly instances: ModuleInstance[]
}

/** A module's code with a pool: each of its regions can be installed in one place at a time. */
export interface ModuleInstance {
  readonly exports: Readonly<Record<string, unknown>>
  /** Linear address of its pool. */
  readonly pool: number
  /** Of the code cache, when the pool was allocated: afterwards it is gone. */
  readonly flushes: number
  /** Regions that are installed. */
  readonly used: Set<number>
}

export class LibraryRegion {
  readonly of: LibraryModule
  readonly packed: PackedPlan
  /** Where it may begin, while its module is early. */
  readonly seen: CodePlace[] = []
  /** Where it was wanted before its module was ready. */
  readonly wanted: CodePlace[] = []

  constructor(of: LibraryModule, packed: PackedPlan) {
    this.of = of
    this.packed = packed
  }
  get number(): number {
    return this.packed.number
  }
  get plan(): RegionPlan {
    return this.packed.unpack()
  }
}

/** The instruction at an offset of the page at a place in linear memory. */
export interface CodePlace {
  readonly page: number
  readonly offset: number
  readonly mode: number
}

/** Place of the page at a distance from the entry's page; 0 when it is not at hand. */
export type PlaceOf = (distance: number) => number

/** Instructions that decide whether a whole region is worth a comparison. */
const compared = 3
/** Places that are remembered of a region whose module is early. */
const mostSeen = 8

const keyOf = (offset: number, firstByte: number): number => (offset << 8) | firstByte

export class CodeLibrary {
  /** Linear memory. */
  private readonly bytes: Uint8Array
  private readonly byStart = new Map<number, LibraryRegion[]>()
  readonly filter = new EntryFilter()
  modules = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** A module that is ready, or one of an earlier run, by its number, which will be. */
  add(poolSize: number, plans: PackedPlans, code: WebAssembly.Module | number): LibraryModule {
    const [module, keptAs] = typeof code === 'number' ? [undefined, code] : [code, undefined]
    const of: LibraryModule = { poolSize, regions: [], module, keptAs, early: false, instances: [] }
    this.modules++
    for (const packed of packedPlans(plans)) {
      const region = new LibraryRegion(of, packed)
      of.regions.push(region)
      const key = keyOf(packed.offset, packed.firstByte)
      const others = this.byStart.get(key)
      if (others) others.push(region)
      else this.byStart.set(key, [region])
      this.filter.add(packed.offset, packed.firstByte)
    }
    return of
  }
  remove({ regions }: LibraryModule): void {
    this.modules--
    for (const region of regions) {
      const others = this.byStart.get(keyOf(region.packed.offset, region.packed.firstByte))
      others?.splice(others.indexOf(region), 1)
    }
  }

  clear(): void {
    this.byStart.clear()
    this.filter.clear()
    this.modules = 0
  }

  /**
   * Whether a region may begin with the instruction at `offset` of the page at `page`: the first instructions are compared, no more. What
   * is early remembers the place.
   */
  mayStart(page: number, offset: number, mode: number): boolean {
    let may = false
    for (const { of, packed, seen } of this.byStart.get(keyOf(offset, this.bytes[page + offset])) ?? none) {
      if (packed.mode !== mode || !this.beginsLike(packed, page + offset) || !this.startsLike(packed.unpack(), page)) continue
      if (!of.early) may = true
      else if (seen.length < mostSeen && !seen.some(place => place.page === page)) seen.push({ page, offset, mode })
    }
    return may
  }
  /** The same of up to four bytes of the first instruction, without a look at the plan. Beyond the page may be what is not its. */
  private beginsLike({ firstWord, firstLength }: PackedPlan, at: number): boolean {
    const { bytes } = this
    const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
    const length = Math.min(firstLength, 4096 - (at & 4095))
    return ((word ^ firstWord) & (length < 4 ? (1 << (8 * length)) - 1 : -1)) === 0
  }
  private startsLike({ instructions, code }: RegionPlan, page: number): boolean {
    let at = 0
    for (let i = 0; i < Math.min(instructions.length, 2 * compared); i += 2)
      for (let from = instructions[i], end = from + instructions[i + 1]; from < end; from++, at++)
        if (from >= 0 && from < 4096 && this.bytes[page + from] !== code[at]) return false
    return true
  }

  /** Regions that begin with the instruction at `offset` of the page at `page`, as far as a look at that page tells. */
  startingAt(page: number, offset: number, mode: number): readonly LibraryRegion[] {
    const all = this.byStart.get(keyOf(offset, this.bytes[page + offset]))
    return all ? all.filter(({ packed, plan }) => packed.mode === mode && this.agrees(plan, distance => (distance === 0 ? page : 0))) : none
  }
  /** Every page of its code is at hand, and has its instructions. */
  fits(plan: RegionPlan, placeOf: PlaceOf): boolean {
    return plan.pages.every(distance => placeOf(distance) !== 0) && this.agrees(plan, placeOf)
  }

  /** The instructions in pages that are at hand are its. */
  private agrees({ instructions, code }: RegionPlan, placeOf: PlaceOf): boolean {
    let at = 0
    let distance = NaN
    let page = 0
    for (let i = 0; i < instructions.length; i += 2) {
      const offset = instructions[i]
      const end = offset + instructions[i + 1]
      for (let from = offset; from < end; from++, at++) {
        if (from >> 12 !== distance) {
          distance = from >> 12
          page = placeOf(distance)
        }
        if (page !== 0 && this.bytes[page + (from & 4095)] !== code[at]) return false
      }
    }
    return true
  }
}
const none: readonly LibraryRegion[] = []
