/**
 * What a unit remembers until software invalidates it: context and PASID entries, translations, paging structures, interrupt entries
 * (Intel VT-d specification, "Caching Translation Information"). Entries carry the tags by which invalidations find them.
 */
import type { RemappingFault, SourceId } from './ports.ts'
import type { ContextEntry, PasidEntry } from './context.ts'
import type { InterruptEntry } from './interrupt-entry.ts'

/** Whose translations: those of a domain, or of one PASID in it (first stage and nested). -1: of the domain, without PASID. */
export interface Tag {
  domain: number
  pasid: number
}

/** The size of the page of a request that is not translated. */
export const everything = 2 ** 53

export interface Translation {
  input: number
  size: number
  output: number
  readable: boolean
  writable: boolean
  /** For user requests only; second-stage pages are for all. */
  userAllowed: boolean
  /** Caching mode keeps faults too. */
  fault?: RemappingFault
}

export interface Structure {
  table: number
  readable: boolean
  writable: boolean
  userAllowed: boolean
}

export interface AddressRange {
  first: number
  size: number
}

interface Space<T> extends Tag {
  entries: Map<number, T>
}

/** Entries in the order in which they came: the oldest one goes when it is full. */
const capacity = { contexts: 1024, pasids: 1024, translations: 4096, structures: 2048, interrupts: 2048 } as const

const mostLevels = 5

const spaceKey = ({ domain, pasid }: Tag): number => domain * 2 ** 21 + pasid + 1

const pageKinds = [{ size: 2 ** 12, kind: 0 }, { size: 2 ** 21, kind: 1 }, { size: 2 ** 30, kind: 2 }] as const

class TaggedCache<T> {
  readonly #spaces = new Map<number, Space<T>>()
  readonly #limit: number
  #count = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  entriesOf(tag: Tag): ReadonlyMap<number, T> | undefined {
    return this.#spaces.get(spaceKey(tag))?.entries
  }
  get(tag: Tag, key: number): T | undefined {
    return this.#spaces.get(spaceKey(tag))?.entries.get(key)
  }
  set(tag: Tag, key: number, entry: T): void {
    let space = this.#spaces.get(spaceKey(tag))
    if (!space) this.#spaces.set(spaceKey(tag), (space = { domain: tag.domain, pasid: tag.pasid, entries: new Map() }))
    if (!space.entries.has(key)) this.#count++
    space.entries.set(key, entry)
  }
  get isFull(): boolean {
    return this.#count >= this.#limit
  }
  drop(matches: (tag: Tag) => boolean): void {
    for (const [spaceId, space] of this.#spaces) {
      if (!matches(space)) continue
      this.#count -= space.entries.size
      this.#spaces.delete(spaceId)
    }
  }
  /** The entries whose spans of `span` bytes touch a range; a key is a span's number times `kinds`, and `kind`. */
  dropRange(tag: Tag, range: AddressRange, span: number, kinds: number, kind: number): void {
    const entries = this.#spaces.get(spaceKey(tag))?.entries
    if (!entries) return
    const [first, last] = [range.first, range.first + range.size - 1].map(address => Math.floor(address / span))
    const before = entries.size
    if (last - first < before) for (let number = first; number <= last; number++) entries.delete(number * kinds + kind)
    else {
      for (const key of entries.keys()) {
        const number = Math.floor(key / kinds)
        if (key % kinds === kind && number >= first && number <= last) entries.delete(key)
      }
    }
    this.#count -= before - entries.size
  }
  clear(): void {
    this.#spaces.clear()
    this.#count = 0
  }
  save(): [number, number, [number, T][]][] {
    return [...this.#spaces.values()].map(({ domain, pasid, entries }) => [domain, pasid, [...entries]])
  }
  restore(saved: [number, number, [number, T][]][]): void {
    this.clear()
    for (const [domain, pasid, entries] of saved) for (const [key, entry] of entries) this.set({ domain, pasid }, key, entry)
  }
}

export class UnitCaches {
  /** Goes up whenever something was dropped: what requesters remember of translations is over then. */
  epoch = 0
  /** The same for interrupt entries. */
  interruptEpoch = 0
  readonly #contexts = new Map<SourceId, ContextEntry>()
  /** By source and PASID. */
  readonly #pasids = new Map<number, PasidEntry>()
  readonly #translations = new TaggedCache<Translation>(capacity.translations)
  readonly #structures = new TaggedCache<Structure>(capacity.structures)
  readonly #interrupts = new Map<number, InterruptEntry>()

  // ---- context and PASID entries

  context(source: SourceId): ContextEntry | undefined {
    return this.#contexts.get(source)
  }
  keepContext(source: SourceId, entry: ContextEntry): void {
    if (this.#contexts.size >= capacity.contexts) this.#forget(this.#contexts)
    this.#contexts.set(source, entry)
  }
  dropContexts(matches: (source: SourceId, entry: ContextEntry) => boolean): void {
    this.epoch++
    for (const [source, entry] of this.#contexts) if (matches(source, entry)) this.#contexts.delete(source)
  }

  pasid(source: SourceId, pasid: number): PasidEntry | undefined {
    return this.#pasids.get(source * 2 ** 20 + pasid)
  }
  keepPasid(source: SourceId, pasid: number, entry: PasidEntry): void {
    if (this.#pasids.size >= capacity.pasids) this.#forget(this.#pasids)
    this.#pasids.set(source * 2 ** 20 + pasid, entry)
  }
  dropPasids(matches: (pasid: number, entry: PasidEntry) => boolean): void {
    this.epoch++
    for (const [key, entry] of this.#pasids) if (matches(key % 2 ** 20, entry)) this.#pasids.delete(key)
  }

  // ---- translations and paging structures

  translation(tag: Tag, address: number): Translation | undefined {
    const entries = this.#translations.entriesOf(tag)
    return entries && (entries.get(Math.floor(address / 2 ** 12) * 4) ?? entries.get(Math.floor(address / 2 ** 21) * 4 + 1)
      ?? entries.get(Math.floor(address / 2 ** 30) * 4 + 2))
  }
  keepTranslation(tag: Tag, entry: Translation): void {
    // Which ones a full cache keeps is the implementation's choice; this one starts afresh.
    if (this.#translations.isFull) this.dropTranslations(() => true)
    const { size, kind } = pageKinds.find(each => each.size >= entry.size) ?? pageKinds[2]
    this.#translations.set(tag, Math.floor(entry.input / size) * 4 + kind, entry)
  }
  dropTranslations(matches: (tag: Tag) => boolean): void {
    this.epoch++
    this.#translations.drop(matches)
  }
  /** Pages of all sizes that touch a range. */
  dropPages(tag: Tag, range: AddressRange): void {
    this.epoch++
    for (const { size, kind } of pageKinds) this.#translations.dropRange(tag, range, size, 4, kind)
  }

  /** The entry of `level` on the way to an address: where the next lower table lies. */
  structure(tag: Tag, address: number, level: number): Structure | undefined {
    return this.#structures.get(tag, structureKey(address, level))
  }
  keepStructure(tag: Tag, address: number, level: number, entry: Structure): void {
    if (this.#structures.isFull) this.#structures.clear()
    this.#structures.set(tag, structureKey(address, level), entry)
  }
  dropStructures(matches: (tag: Tag) => boolean): void {
    this.#structures.drop(matches)
  }
  /** Entries above page tables on the way to a range. */
  dropWays(tag: Tag, range: AddressRange): void {
    for (let level = 2; level <= mostLevels; level++) this.#structures.dropRange(tag, range, levelSpan(level), 8, level)
  }

  /** All that requests for memory use. */
  dropAllTranslations(): void {
    this.epoch++
    for (const cache of [this.#contexts, this.#pasids, this.#translations, this.#structures]) cache.clear()
  }

  // ---- interrupt entries

  interrupt(index: number): InterruptEntry | undefined {
    return this.#interrupts.get(index)
  }
  keepInterrupt(index: number, entry: InterruptEntry): void {
    if (this.#interrupts.size >= capacity.interrupts) this.#forget(this.#interrupts)
    this.#interrupts.set(index, entry)
  }
  dropInterrupts(matches: (index: number) => boolean): void {
    this.interruptEpoch++
    for (const index of this.#interrupts.keys()) if (matches(index)) this.#interrupts.delete(index)
  }

  #forget(cache: Map<number, unknown>): void {
    this.epoch++
    this.interruptEpoch++
    for (const key of cache.keys()) return void cache.delete(key)
  }

  reset(): void {
    this.epoch++
    this.interruptEpoch++
    this.#contexts.clear()
    this.#pasids.clear()
    this.#translations.clear()
    this.#structures.clear()
    this.#interrupts.clear()
  }

  saveState(): unknown {
    return {
      contexts: [...this.#contexts], pasids: [...this.#pasids], interrupts: [...this.#interrupts],
      translations: this.#translations.save(), structures: this.#structures.save(),
    }
  }
  restoreState(state: unknown): void {
    const saved = structuredClone(state) as {
      contexts: [number, ContextEntry][]; pasids: [number, PasidEntry][]; interrupts: [number, InterruptEntry][]
      translations: Parameters<TaggedCache<Translation>['restore']>[0]; structures: Parameters<TaggedCache<Structure>['restore']>[0]
    }
    this.reset()
    for (const [key, entry] of saved.contexts) this.#contexts.set(key, entry)
    for (const [key, entry] of saved.pasids) this.#pasids.set(key, entry)
    for (const [key, entry] of saved.interrupts) this.#interrupts.set(key, entry)
    this.#translations.restore(saved.translations)
    this.#structures.restore(saved.structures)
  }
}

/** Bytes that one entry of a table of this level covers. */
export const levelSpan = (level: number): number => 2 ** (12 + 9 * (level - 1))

const structureKey = (address: number, level: number): number => Math.floor(address / levelSpan(level)) * 8 + level
