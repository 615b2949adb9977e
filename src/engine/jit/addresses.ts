/**
 * What a region knows of the addresses that it uses: registers that differ by a constant, and the pages found for them. Accesses to several
 * fields of a structure, or to a stack frame, then need one translation.
 */

/** A value as a root, which is any number that has not changed since it got its name, plus a constant. */
export interface Origin {
  readonly root: number
  readonly offset: number
}

/** Locals that hold a found page: where the root lies from its start, and what to add to an offset to get a place in linear memory. */
export interface KnownPage<Local> {
  readonly start: Local
  readonly base: Local
}

export interface AddressKnowledge<Local> {
  readonly registers: readonly Origin[]
  readonly segments: readonly Origin[]
  readonly pages: ReadonlyMap<number, KnownPage<Local>>
}

/** Offset 0 of the page of the region's entry. */
export const pageOrigin: Origin = { root: 0, offset: 0 }

const registerCount = 16
const segmentCount = 8
/** Pages known at a time: each is two locals. */
const mostPages = 20

/** Accesses within so many bytes share what is known. */
const neighbourhood = 512
const keysPerRoot = 2 ** 14

function keyOf({ root, offset }: Origin, write: boolean): number {
  return root * keysPerRoot + ((Math.floor(offset / neighbourhood) & (keysPerRoot / 2 - 1)) << 1) + (write ? 1 : 0)
}

export class Addresses<Node extends object, Local> {
  private readonly origins = new WeakMap<Node, Origin>()
  private readonly all: KnownPage<Local>[] = []
  private nextRoot = 1
  private registers: Origin[] = []
  private segments: Origin[] = []
  private pages = new Map<number, KnownPage<Local>>()

  constructor() {
    this.restore(undefined)
  }

  private fresh(): Origin {
    return { root: this.nextRoot++, offset: 0 }
  }

  mark(value: Node, origin: Origin): void {
    this.origins.set(value, origin)
  }
  of(value: Node): Origin | undefined {
    return this.origins.get(value)
  }
  ofRegister(index: number): Origin {
    return this.registers[index]
  }
  ofSegment(index: number): Origin {
    return this.segments[index]
  }
  setSegment(index: number): void {
    this.segments[index] = this.fresh()
  }
  setRegister(index: number, origin: Origin | undefined): void {
    this.registers[index] = origin ?? this.fresh()
  }

  /** A page that was found for an address near this one: fields far from each other are likely to lie in different pages. */
  known(origin: Origin, write: boolean): KnownPage<Local> | undefined {
    return this.pages.get(keyOf(origin, write))
  }
  /** Gives an address's page locals: free ones, those of roots that nothing is made from any more, or new ones. */
  learn(origin: Origin, write: boolean, create: () => KnownPage<Local>): KnownPage<Local> {
    const page = this.free() ?? (this.all.length < mostPages ? undefined : this.forget())
    const taken = page ?? create()
    if (!page) this.all.push(taken)
    this.pages.set(keyOf(origin, write), taken)
    return taken
  }
  private free(): KnownPage<Local> | undefined {
    const roots = new Set([0, ...this.registers.map(o => o.root), ...this.segments.map(o => o.root)])
    for (const key of this.pages.keys()) if (!roots.has(Math.floor(key / keysPerRoot))) this.pages.delete(key)
    const taken = new Set(this.pages.values())
    return this.all.find(page => !taken.has(page))
  }
  private forget(): KnownPage<Local> {
    const [key, page] = this.pages.entries().next().value!
    this.pages.delete(key)
    return page
  }

  snapshot(): AddressKnowledge<Local> {
    return { registers: [...this.registers], segments: [...this.segments], pages: new Map(this.pages) }
  }
  /** `undefined`: nothing is known. */
  restore(knowledge: AddressKnowledge<Local> | undefined): void {
    this.registers = knowledge ? [...knowledge.registers] : Array.from({ length: registerCount }, () => this.fresh())
    this.segments = knowledge ? [...knowledge.segments] : Array.from({ length: segmentCount }, () => this.fresh())
    this.pages = new Map(knowledge?.pages)
  }
}
