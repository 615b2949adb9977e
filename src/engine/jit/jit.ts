/**
 * Decides what is compiled and when: arrivals at records are counted by the interpreter; hot ones become entries of regions, several
 * regions
 * a WebAssembly module. A region replaces the handler of its entry's record, so nothing that refers to the record needs to change.
 */
import { isCompiled } from '../../cpu/mode.ts'
import { Decoder } from '../../decode/decoder.ts'
import type { OpcodeTables } from '../../decode/tables.ts'
import { recordField } from '../../decode/record.ts'
import { hotCounterCount, hotCounters } from '../../memory/map.ts'
import type { CodeCache } from '../code-cache.ts'
import { helperNames } from '../helper-table.ts'
import type { Interpreter } from '../interpreter.ts'
import type { SharedFunctions } from '../shared-functions.ts'
import {
  blueprintOf, buildModule, orderOf, rowFeatures, type BackgroundBuilder, type BuiltModule, type KeptModule, type RegionOrder,
} from './build.ts'
import { Discovery, type Block, type CodeView, type Limits } from './discover.ts'
import { Installer } from './installer.ts'
import { KnownCode } from './known-code.ts'
import { CodeLibrary, type CodePlace, type LibraryModule, type LibraryRegion, type PlaceOf } from './library.ts'
import { expectedPath } from './structure.ts'
import { trapFunction } from './trap.ts'

/** What is compiled at a time: a module costs about 45 KB and 0.2 ms whatever it holds, and nobody should wait for more than 20 ms. */
const batch = { regions: 8, instructions: 500 } as const
/** Runs that a request waits for others. */
const patience = 20
/** Live modules at the most; then all code is dropped and what is hot is compiled again. */
const mostModules = 2500

/**
 * So many instructions before the time at which an earlier run made a region it is looked for, and compiled: a quarter of a second of the
 * fastest code, and more of most. A large store then costs no run what only others need.
 */
const ahead = 600e6

/** While a run is like earlier ones, what they did not compile has to become so many times as hot before it is looked at. */
const likeEarlierFactor = 64
/** Otherwise code of a page that they have looked at. */
const familiarFactor = 4
/**
 * A run is like earlier ones as long as what becomes hot is often at hand: of what is not, so much goes by for each that is. In a boot like
 * the last it is every fourth; after another program has begun, so much at most until it is noticed.
 */
const missesPerHit = 8
const mostMisses = 128
/** Templates of records are looked at after so many instructions, and kept for later runs when there are so many times as many. */
const keptEvery = 500e6
const grownEnough = 1.25
/** Code of a page that was dropped so often becomes hot before its regions are installed again. */
const mostDrops = 16

interface Request {
  readonly page: number
  readonly offset: number
  readonly mode: number
  readonly name: string
  readonly blocks: readonly Block[]
  /** Pages of its code: distance from the entry's page, and place. */
  readonly pages: ReadonlyMap<number, number>
  /** Of the code cache, about these pages, when the code was looked at. */
  readonly drops: number
  readonly flushes: number
}

interface Prepared {
  readonly request: Request
  readonly record: number
  readonly order: RegionOrder
}

/** Number of the counter of arrivals at a record; the interpreter counts in the same (MainFunction.countArrival). */
const hotCounterOf = (record: number): number => (record >>> 5) & (hotCounterCount - 1)

/** Places of the pages around `page`. */
function askingOnce(page: number, pageAt: PlaceOf): PlaceOf {
  const places = new Map([[0, page]])
  return distance => {
    let place = places.get(distance)
    if (place === undefined) places.set(distance, (place = pageAt(distance)))
    return place
  }
}

const sizeOf = (blocks: readonly Block[]): number => blocks.reduce((sum, block) => sum + block.instructions.length, 0)

export interface JitStatistics {
  regions: number
  modules: number
  instructions: number
  bytes: number
  milliseconds: number
}

export class Jit {
  /**
   * Entering and leaving a region costs as much as interpreting about this many instructions: what is expected to run in it has to be
   * longer.
   */
  private longPath = 20
  /** Compiling an instruction costs as much time as compiled code saves on so many executions of one. */
  private costPerInstruction = 8192
  /** What becomes part of a region. */
  private readonly limits: Limits = { instructions: 400, blocks: 100, depth: 10, blockLength: 100, warm: 64, rare: 100 }
  private readonly threshold: number
  readonly statistics: JitStatistics = { regions: 0, modules: 0, instructions: 0, bytes: 0, milliseconds: 0 }
  /** Set by an embedder that wants compile times: milliseconds from anywhere. They never influence the run. */
  stopwatch: () => number = () => 0
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly helperNumber: (name: string) => number
  private readonly interpreter: Interpreter
  private readonly code: CodeCache
  private readonly known: KnownCode
  private readonly library: CodeLibrary
  private readonly installer: Installer
  /** Modules of earlier runs, by the numbers that the other thread gave them. */
  private readonly kept: LibraryModule[] = []
  private readonly memoryPages: number
  private readonly offers: (feature: string) => boolean
  /** Builds modules while the machine runs. */
  private background: BackgroundBuilder | undefined
  private readonly log: (message: string) => void
  private started = false
  private pending: Request[] = []
  /** Records that were looked at as entries of regions, whatever came of it. */
  private readonly considered = new Set<number>()
  /** Pages of entries of regions that earlier runs have made: they have looked at the rest of these pages, too. */
  private readonly familiar = new Set<number>()
  /** So often may no region of an earlier run be at hand before this run is unlike them. */
  private likeness = 0
  /** Records whose regions are worth their cost only after so many arrivals. */
  private readonly postponed = new Map<number, number>()

  constructor(
    memory: WebAssembly.Memory,
    tables: OpcodeTables,
    offers: (feature: string) => boolean,
    code: CodeCache,
    interpreter: Interpreter,
    helpers: { call(number: number, record: number): number; number(name: string): number; readonly shared: SharedFunctions },
    threshold: number,
    log: (message: string) => void,
    background?: BackgroundBuilder,
  ) {
    this.words = new Int32Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.helperNumber = helpers.number
    this.interpreter = interpreter
    this.threshold = threshold
    this.installer = new Installer(memory, code, interpreter, helpers.call, helpers.shared)
    code.installed.dropped = record => {
      this.considered.delete(record)
      this.installer.dropped(record)
    }
    this.bytes = new Uint8Array(memory.buffer)
    this.code = code
    this.memoryPages = memory.buffer.byteLength / 65536
    this.background = background
    this.log = log
    this.offers = offers
    this.known = new KnownCode(new Decoder(tables, offers), this.bytes)
    this.library = new CodeLibrary(this.bytes)
    code.entryFilter = this.library.filter
    code.mayBegin = (page, offset, mode) =>
      this.library.mayStart(page, offset, mode) && code.dropsIn([page]) < mostDrops
    code.installed.trapHandler = interpreter.install(trapFunction(memory)) ?? 0
    if (background?.keeps) this.start(background)
  }

  /**
   * The instruction at `offset` of the page at `page` was reached often. `rip` names the function; `pageAt` finds the pages around it as
   * they are mapped now.
   */
  request(page: number, offset: number, mode: number, rip: bigint, pageAt: CodeView['pageAt'] = () => 0): void {
    if (!isCompiled(mode)) return
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0) return
    this.code.installed.untrap(record)
    if (this.considered.has(record) || this.code.installed.has(record)) return
    this.takeBuilt()
    if (this.fromLibrary(page, offset, mode, pageAt)) return
    const arrivals = this.words[(hotCounters >> 2) + hotCounterOf(record)]
    if (arrivals < (this.postponed.get(record) ?? 0)) return
    const factor = this.likeness > 0 ? likeEarlierFactor : this.awaited > 0 || this.familiar.has(page) ? familiarFactor : 0
    if (this.likeness > 0) this.likeness--
    if (arrivals < factor * this.threshold) return
    if (this.background && !this.started) this.start(this.background)
    const placeOf = askingOnce(page, pageAt)
    const view: CodeView = {
      pageAt: placeOf,
      branchCounts: (place, at) => this.branchCounts(this.code.tableFor(place, mode), at),
    }
    const discovery = new Discovery(this.known, mode, view, this.limits)
    const blocks = discovery.blocks(offset)
    const path = blocks.length > 0 ? expectedPath(blocks) : 0
    const needed = blocks.length > 0 ? (sizeOf(blocks) * this.costPerInstruction) / path : 0
    if (arrivals < needed) {
      this.postponed.set(record, needed)
      return
    }
    this.considered.add(record)
    if (blocks.length === 0 || !blocks[0].instructions[0].flat || path < this.longPath) return
    const pages = new Map([...discovery.pages].map(delta => [delta, placeOf(delta)]))
    const { flushes } = this.code
    this.pending.push({ page, offset, mode, name: rip.toString(16), blocks, pages, drops: this.code.dropsIn(pages.values()), flushes })
    this.waiting += sizeOf(blocks)
    if (this.pending.length >= batch.regions || this.waiting >= batch.instructions) this.compile()
  }

  /** True: a region of the library is in place, or will be when its module is ready. */
  private fromLibrary(page: number, offset: number, mode: number, pageAt: PlaceOf): boolean {
    const regions = this.library.startingAt(page, offset, mode)
    if (regions.length === 0) return false
    const placeOf = askingOnce(page, pageAt)
    const region = regions.find(({ plan }) => this.library.fits(plan, placeOf))
    if (!region) return false
    const place = { page, offset, mode }
    if (region.of.module) return this.put(region, place, placeOf)
    if (region.wanted.length === 0) this.background?.want?.(region.of.keptAs!)
    region.wanted.push(place)
    return true
  }
  private put(region: LibraryRegion, place: { page: number; offset: number; mode: number }, placeOf: PlaceOf): boolean {
    if (!this.installer.install(region, place, placeOf)) return false
    if (region.of.keptAs !== undefined) {
      this.familiar.add(place.page)
      this.likeness = Math.min(this.likeness + missesPerHit, mostMisses)
    }
    this.statistics.regions++
    this.statistics.instructions += region.plan.instructions.length / 2
    return true
  }

  /** When code becomes hot for the first time - what ends before needs no other thread - or at once when there is code of earlier runs. */
  private start(background: BackgroundBuilder): void {
    this.started = true
    background.start({
      pages: this.memoryPages,
      features: rowFeatures().filter(this.offers),
      helpers: Object.fromEntries(helperNames.map(name => [name, this.helperNumber(name)])),
      hotThreshold: this.threshold,
    })
  }

  private branchCounts(table: number, offset: number): { taken: number; notTaken: number } {
    const record = this.words[(table >> 2) + offset]
    if (record === 0) return { taken: 0, notTaken: 0 }
    const counters = this.installer.countersOf(record)
    const count = (field: number): number => this.view.getUint32(counters + field, true)
    return { taken: count(recordField.taken), notTaken: count(recordField.notTaken) }
  }

  /** Counts an arrival that no generated code has counted; true when the record has just become hot. */
  arrived(record: number): boolean {
    return (++this.words[(hotCounters >> 2) + hotCounterOf(record)] & (this.threshold - 1)) === 0
  }

  /** For tests: hot code is compiled whatever it costs. */
  compileEagerly(): void {
    this.longPath = 0
    this.costPerInstruction = 0
    this.limits.warm = 4
  }
  /** For tests: whatever is requested becomes a region, with all that can be reached. */
  compileEverything(): void {
    this.compileEagerly()
    this.limits.warm = 0
    this.limits.rare = Infinity
  }

  /** So many modules live that code should be flushed. */
  get crowded(): boolean {
    return this.installer.instances > mostModules
  }

  /** Called between runs, with the instructions retired: what waits for others to share a module with does not wait for ever. */
  tick(retired: number): void {
    this.retired = retired
    this.takeBuilt()
    this.lookAhead()
    this.keepTemplates()
    if (this.pending.length === 0) this.waited = 0
    else if (++this.waited >= patience) this.compile()
  }
  /** What a boot has learned by then is most of what the next one needs. */
  private keepTemplates(): void {
    if (this.retired < this.keepAt || !this.background?.keepTemplates) return
    this.keepAt = this.retired + keptEvery
    const { templates } = this.code
    if (templates.count < this.keptTemplates * grownEnough) return
    this.keptTemplates = templates.count
    const keys = this.interpreter.keys()
    this.background.keepTemplates(templates.keep(handler => keys.get(handler)))
  }
  private keepAt = keptEvery
  /** So many are kept. */
  private keptTemplates = 1000
  private waited = 0
  private retired = 0
  /** Instructions of what is pending. */
  private waiting = 0

  /** Compiles what is waiting. */
  compile(): void {
    const requests = this.pending
    this.pending = []
    this.waited = 0
    this.waiting = 0
    if (requests.length === 0) return
    const start = this.stopwatch()
    const prepared = requests.map(request => this.prepare(request)).filter(region => region !== undefined)
    if (prepared.length > 0 && this.background) this.submit(prepared, this.background)
    else if (prepared.length > 0) {
      const orders = prepared.map(({ order }) => order)
      this.install(prepared, buildModule(orders, this.memoryPages, this.helperNumber))
    }
    this.statistics.milliseconds += this.stopwatch() - start
  }

  // ---- in another thread ----

  private submit(prepared: Prepared[], background: BackgroundBuilder): void {
    const id = this.nextBatch++
    this.inFlight.set(id, prepared)
    background.submit(id, prepared.map(({ order }) => blueprintOf(order)), this.retired)
  }
  private nextBatch = 0
  private readonly inFlight = new Map<number, Prepared[]>()
  private takeBuilt(): void {
    const { background } = this
    if (!background || !this.started) return
    for (const answer of background.take()) {
      if ('built' in answer) {
        const prepared = this.inFlight.get(answer.id)!
        this.inFlight.delete(answer.id)
        this.install(prepared, answer.built)
      } else if ('handlers' in answer) this.interpreter.adopt(answer.handlers.module, answer.handlers.keys, answer.handlers.writers)
      else if ('templates' in answer) {
        this.code.templates.adopt(answer.templates, key => this.interpreter.knownNumber(key))
        this.keptTemplates = this.code.templates.count
      } else if ('kept' in answer) this.expect(answer.kept)
      else this.ready(this.kept[answer.number], answer.module)
    }
    if (background.failure !== undefined) this.goOnAlone(background.failure)
  }
  private expect(modules: readonly KeptModule[]): void {
    for (const { made, poolSize, plans } of modules) {
      const of = this.library.add(poolSize, plans, this.kept.length)
      of.early = true
      this.kept.push(of)
      this.madeAt.push(made)
    }
  }
  /** Of each of `kept`. */
  private readonly madeAt: number[] = []
  /** The first of them that is early. */
  private due = 0
  /** Modules before that whose code is still to come: much of what becomes hot meanwhile is in them. */
  private awaited = 0
  /** What an earlier run made at about this time is wanted soon. */
  private lookAhead(): void {
    const before = this.due
    while (this.due < this.kept.length && this.madeAt[this.due] <= this.retired + ahead) {
      const of = this.kept[this.due++]
      of.early = false
      if (!of.module) this.awaited++
      for (const { seen } of of.regions) this.trap(seen.splice(0))
    }
    if (this.due > before) this.background?.wantAllBefore?.(this.due)
  }
  private ready(of: LibraryModule, module: WebAssembly.Module | undefined): void {
    of.module = module
    // of what is early and lost, in advance
    if (!of.early || !module) this.awaited--
    // then its code is like any other
    if (!module) this.library.remove(of)
    for (const { wanted } of of.regions) this.trap(wanted.splice(0))
  }
  private trap(places: readonly CodePlace[]): void {
    for (const { page, offset, mode } of places) {
      const record = this.code.knownRecord(page, offset, mode)
      if (record !== 0) this.code.installed.trap(record, page)
    }
  }
  /** What the other thread was to build becomes hot once more, and is built here. */
  private goOnAlone(failure: string): void {
    this.log(`the thread that compiles has failed, the machine's own does it now: ${failure}`)
    this.background = undefined
    for (const prepared of this.inFlight.values())
      for (const { request, record } of prepared) if (request.flushes === this.code.flushes) this.considered.delete(record)
    this.inFlight.clear()
    this.library.clear()
  }

  /** All code was dropped: compiled code too. */
  flushed(): void {
    this.pending = []
    this.waiting = 0
    this.considered.clear()
    this.postponed.clear()
    this.familiar.clear()
    this.installer.flushed()
    if (this.library.modules > mostModules) this.library.clear()
  }

  /** The code is still what was looked at. */
  private isCurrent({ pages, drops, flushes }: Request): boolean {
    return flushes === this.code.flushes && drops === this.code.dropsIn(pages.values())
  }

  private prepare(request: Request): Prepared | undefined {
    const { page, offset, mode, blocks, pages } = request
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0) return undefined
    this.code.installed.untrap(record)
    if (this.code.installed.has(record)) return undefined
    if (!this.isCurrent(request)) {
      this.considered.delete(record)
      return undefined
    }
    const copy = (at: number, length: number, into: Uint8Array, to: number): void => {
      for (let i = 0; i < length; i++) into[to + i] = this.bytes[pages.get((at + i) >> 12)! + ((at + i) & 4095)]
    }
    return { request, record, order: orderOf(`region ${request.name}`, mode, blocks, pages.keys(), copy) }
  }

  private install(prepared: readonly Prepared[], built: BuiltModule | undefined): void {
    if (!built) return
    const of = this.library.add(built.poolSize, built.plans, built.module)
    for (const region of of.regions) {
      const { request, record } = prepared[region.number]
      const placeOf: PlaceOf = distance => request.pages.get(distance) ?? 0
      const current = request.flushes === this.code.flushes
      if (this.library.fits(region.plan, placeOf)) this.put(region, request, placeOf)
      // the record is a place of nothing when everything was forgotten
      else if (current) this.considered.delete(record)
    }
    this.statistics.modules++
    this.statistics.bytes += built.size
  }
}
