/**
 * Compiled regions by the instructions that they were made of: of this run, and of earlier ones. Code that comes back - after it was
 * dropped, at another place in memory, in the next run - needs neither discovery nor a compiler.
 */
import { entryFilterSize, entryIndex } from '../code-cache.ts'
import type { RegionPlan } from './build.ts'

/** Regions of a module; the module itself may still be in the making. */
export interface LibraryModule {
  readonly poolSize: number
  readonly regions: LibraryRegion[]
  module: WebAssembly.Module | undefined
  /** An earlier run has made it. */
  readonly isKept: boolean
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

export interface LibraryRegion {
  readonly of: LibraryModule
  readonly number: number
  readonly plan: RegionPlan
  /** Where it was wanted before its module was ready. */
  readonly wanted: CodePlace[]
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

const keyOf = (offset: number, firstByte: number): number => (offset << 8) | firstByte

export class CodeLibrary {
  /** Linear memory. */
  private readonly bytes: Uint8Array
  private readonly byStart = new Map<number, LibraryRegion[]>()
  /** By `entryIndex`, 1: some region may begin so. */
  readonly filter = new Uint8Array(entryFilterSize)
  modules = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** Without a module it is one of an earlier run, and will be ready later. */
  add(poolSize: number, plans: readonly (RegionPlan | undefined)[], module?: WebAssembly.Module): LibraryModule {
    const of: LibraryModule = { poolSize, regions: [], module, isKept: module === undefined, instances: [] }
    this.modules++
    plans.forEach((plan, number) => {
      if (!plan) return
      const key = keyOf(plan.instructions[0], plan.code[0])
      const region: LibraryRegion = { of, number, plan, wanted: [] }
      of.regions.push(region)
      const others = this.byStart.get(key)
      if (others) others.push(region)
      else this.byStart.set(key, [region])
      this.filter[entryIndex(plan.instructions[0], plan.code[0])] = 1
    })
    return of
  }

  clear(): void {
    this.byStart.clear()
    this.filter.fill(0)
    this.modules = 0
  }

  /** Whether a region may begin with the instruction at `offset` of the page at `page`: the first instructions are compared, no more. */
  mayStart(page: number, offset: number, mode: number): boolean {
    const all = this.byStart.get(keyOf(offset, this.bytes[page + offset]))
    return all?.some(({ plan }) => plan.mode === mode && this.startsLike(plan, page)) ?? false
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
    return all ? all.filter(({ plan }) => plan.mode === mode && this.agrees(plan, distance => (distance === 0 ? page : 0))) : none
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
