/** What is needed to install a region, and to know that it fits: the instructions that it was made of. */

export interface RegionPlan {
  readonly mode: number
  /** Distances of the pages of its code from the entry's page. */
  readonly pages: Int32Array
  /** Of each instruction its offset from the start of the entry's page, and its length; the entry's comes first. */
  readonly instructions: Int32Array
  /** Their bytes, one after another. */
  readonly code: Uint8Array
  /** Of each entry of its exit table: instructions not executed, and the offset. */
  readonly exits: Int32Array
  /** Where its pool begins in that of its module. */
  readonly pool: number
}

/**
 * Plans of a module's regions in one array, since thousands of them go from thread to thread and most are never looked at. Of each: words
 * in all, the region's number, mode, pool, lengths of pages, instructions and exits in words and of the code in bytes, and then these.
 */
export type PackedPlans = Int32Array
const field = { size: 0, number: 1, mode: 2, pool: 3, pages: 4, instructions: 5, exits: 6, code: 7, count: 8 } as const

/** Undefined: this region is not worth one. */
export function packPlans(plans: readonly (RegionPlan | undefined)[]): PackedPlans {
  const parts = plans.flatMap((plan, number) => (plan ? [packPlan(plan, number)] : []))
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
function packPlan({ mode, pages, instructions, code, exits, pool }: RegionPlan, number: number): Int32Array {
  const before = field.count + pages.length + instructions.length + exits.length
  const words = new Int32Array(before + Math.ceil(code.length / 4))
  words.set([words.length, number, mode, pool, pages.length, instructions.length, exits.length, code.length])
  words.set(pages, field.count)
  words.set(instructions, field.count + pages.length)
  words.set(exits, field.count + pages.length + instructions.length)
  new Uint8Array(words.buffer).set(code, 4 * before)
  return words
}

/** A plan among packed ones: what it is found by is read from them, all of it when it is asked for. */
export class PackedPlan {
  private readonly words: PackedPlans
  private readonly at: number
  private plan: RegionPlan | undefined

  /** At an index of `words`. */
  constructor(words: PackedPlans, at: number) {
    this.words = words
    this.at = at
  }
  get number(): number {
    return this.words[this.at + field.number]
  }
  get mode(): number {
    return this.words[this.at + field.mode]
  }
  /** Of the entry. */
  get offset(): number {
    return this.words[this.at + field.count + this.words[this.at + field.pages]]
  }
  /** The first bytes of its first instruction, up to four of them. */
  get firstWord(): number {
    return this.words[this.codeAt()]
  }
  get firstLength(): number {
    return this.words[this.at + field.count + this.words[this.at + field.pages] + 1]
  }
  get firstByte(): number {
    return this.firstWord & 0xff
  }
  private codeAt(): number {
    const { words, at } = this
    return at + field.count + words[at + field.pages] + words[at + field.instructions] + words[at + field.exits]
  }

  unpack(): RegionPlan {
    return (this.plan ??= this.read())
  }
  private read(): RegionPlan {
    const { words, at, mode } = this
    let from = at + field.count
    const next = (length: number): Int32Array => words.subarray(from, (from += length))
    const pages = next(words[at + field.pages])
    const instructions = next(words[at + field.instructions])
    const exits = next(words[at + field.exits])
    const code = new Uint8Array(words.buffer, words.byteOffset + 4 * from, words[at + field.code])
    return { mode, pages, instructions, code, exits, pool: words[at + field.pool] }
  }
}

export function* packedPlans(words: PackedPlans): Generator<PackedPlan> {
  for (let at = 0; at < words.length; at += words[at + field.size]) yield new PackedPlan(words, at)
}
