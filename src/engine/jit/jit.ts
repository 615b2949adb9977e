/**
 * Decides what is compiled and when: arrivals at records are counted by the interpreter; hot ones become entries of regions, several
 * regions
 * a WebAssembly module. A region replaces the handler of its entry's record, so nothing that refers to the record needs to change.
 */
import { mode as codeMode } from '../../cpu/mode.ts'
import { Decoder } from '../../decode/decoder.ts'
import type { OpcodeTables } from '../../decode/tables.ts'
import { recordField, recordSize } from '../../decode/record.ts'
import { hotCounterCount, hotCounters } from '../../memory/map.ts'
import type { CodeCache } from '../code-cache.ts'
import { pseudo, type Interpreter } from '../interpreter.ts'
import { blueprintOf, buildModule, rowFeatures, type BackgroundBuilder, type BuiltModule } from './build.ts'
import { calledInside, exitEntrySize } from './semantics.ts'
import { Discovery, type Block, type CodeView, type Limits } from './discover.ts'
import { KnownCode } from './known-code.ts'
import { regionCounter, type RegionFunction, type RegionInput } from './region.ts'
import { expectedPath } from './structure.ts'

/** What is compiled at a time: a module costs about 45 KB and 0.2 ms whatever it holds, and nobody should wait for more than 20 ms. */
const batch = { regions: 8, instructions: 500 } as const
/** Runs that a request waits for others. */
const patience = 20
/** Live modules at the most; then all code is dropped and what is hot is compiled again. */
const mostModules = 2500

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
  readonly input: RegionInput
}

/** Number of the counter of arrivals at a record; the interpreter counts in the same (MainFunction.countArrival). */
const hotCounterOf = (record: number): number => (record >>> 5) & (hotCounterCount - 1)

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
  private readonly memory: WebAssembly.Memory
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly helper: (number: number, record: number) => number
  private readonly helperNumber: (name: string) => number
  private readonly code: CodeCache
  private readonly interpreter: Interpreter
  private readonly known: KnownCode
  private readonly memoryPages: number
  private readonly offers: (feature: string) => boolean
  /** Builds modules while the machine runs. */
  private background: BackgroundBuilder | undefined
  private readonly log: (message: string) => void
  private started = false
  private pending: Request[] = []
  private modules = 0
  /** Records that were looked at as entries of regions, whatever came of it. */
  private readonly considered = new Set<number>()
  /** Records whose regions are worth their cost only after so many arrivals. */
  private readonly postponed = new Map<number, number>()

  constructor(
    memory: WebAssembly.Memory,
    tables: OpcodeTables,
    offers: (feature: string) => boolean,
    code: CodeCache,
    interpreter: Interpreter,
    helpers: { call(number: number, record: number): number; number(name: string): number },
    threshold: number,
    log: (message: string) => void,
    background?: BackgroundBuilder,
  ) {
    this.words = new Int32Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.helper = helpers.call
    this.helperNumber = helpers.number
    this.threshold = threshold
    code.regionDropped = record => this.considered.delete(record)
    this.memory = memory
    this.bytes = new Uint8Array(memory.buffer)
    this.code = code
    this.interpreter = interpreter
    this.memoryPages = memory.buffer.byteLength / 65536
    this.background = background
    this.log = log
    this.offers = offers
    this.known = new KnownCode(new Decoder(tables, offers), this.bytes)
  }

  /**
   * The instruction at `offset` of the page at `page` was reached often. `rip` names the function; `pageAt` finds the pages around it as
   * they are mapped now.
   */
  request(page: number, offset: number, mode: number, rip: bigint, pageAt: CodeView['pageAt'] = () => 0): void {
    if ((mode & codeMode.codeMask) !== codeMode.code64) return
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0 || this.considered.has(record)) return
    const arrivals = this.words[(hotCounters >> 2) + hotCounterOf(record)]
    if (arrivals < (this.postponed.get(record) ?? 0)) return
    if (this.background && !this.started) this.start(this.background)
    const places = new Map([[0, page]])
    const view: CodeView = {
      pageAt: delta => {
        let place = places.get(delta)
        if (place === undefined) places.set(delta, (place = pageAt(delta)))
        return place
      },
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
    const pages = new Map([...discovery.pages].map(delta => [delta, places.get(delta)!]))
    const { flushes } = this.code
    this.pending.push({ page, offset, mode, name: rip.toString(16), blocks, pages, drops: this.code.dropsIn(pages.values()), flushes })
    this.waiting += sizeOf(blocks)
    if (this.pending.length >= batch.regions || this.waiting >= batch.instructions) this.compile()
  }

  /** When code becomes hot for the first time: what ends before needs no other thread. */
  private start(background: BackgroundBuilder): void {
    this.started = true
    background.start({
      pages: this.memoryPages,
      features: rowFeatures().filter(this.offers),
      helpers: Object.fromEntries([...calledInside].map(name => [name, this.helperNumber(name)])),
    })
  }

  private branchCounts(table: number, offset: number): { taken: number; notTaken: number } {
    const record = this.words[(table >> 2) + offset]
    if (record === 0) return { taken: 0, notTaken: 0 }
    const counters = this.countersOf(record)
    const count = (field: number): number => this.view.getUint32(counters + field, true)
    return { taken: count(recordField.taken), notTaken: count(recordField.notTaken) }
  }

  /** The record that counts the ways of a branch: behind its guard when it crosses a page. */
  private countersOf(record: number): number {
    return this.view.getUint16(record, true) === pseudo.crossing ? record + recordSize : record
  }

  /** Counts an arrival that no generated code has counted; true when the record has just become hot. */
  arrived(record: number): boolean {
    return (++this.words[(hotCounters >> 2) + hotCounterOf(record)] & (this.threshold - 1)) === 0
  }

  /** Regions made from now on count their visits. */
  profile = false
  readonly profiled: { name: string; instructions: number; counters: number; blocks: readonly Block[]; body: RegionFunction }[] = []

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
    return this.modules > mostModules
  }

  /** Called between runs: what waits for others to share a module with does not wait for ever. */
  tick(): void {
    if (this.inFlight.size > 0 && this.background) this.takeBuilt(this.background)
    if (this.pending.length === 0) this.waited = 0
    else if (++this.waited >= patience) this.compile()
  }
  private waited = 0
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
    if (prepared.length > 0 && this.background && !this.profile) this.submit(prepared, this.background)
    else if (prepared.length > 0) this.install(prepared, buildModule(prepared.map(({ input }) => input), this.memoryPages, this.noteBody))
    this.statistics.milliseconds += this.stopwatch() - start
  }
  private readonly noteBody = (body: RegionFunction): void => {
    const { name, blocks, counters } = body.input
    if (this.profile) this.profiled.push({ name: name.replace('region ', ''), instructions: sizeOf(blocks), counters, blocks, body })
  }

  // ---- in another thread ----

  private submit(prepared: Prepared[], background: BackgroundBuilder): void {
    const id = this.nextBatch++
    this.inFlight.set(id, prepared)
    background.submit(id, prepared.map(({ request, input }) =>
      blueprintOf(input, request.mode, request.pages.keys(), (offset, length, into, at) => {
        for (let i = 0; i < length; i++) into[at + i] = this.bytes[request.pages.get((offset + i) >> 12)! + ((offset + i) & 4095)]
      }),
    ))
  }
  private nextBatch = 0
  private readonly inFlight = new Map<number, Prepared[]>()
  private takeBuilt(background: BackgroundBuilder): void {
    for (const { id, built } of background.take()) {
      const prepared = this.inFlight.get(id)!
      this.inFlight.delete(id)
      this.install(prepared, built)
    }
    if (background.failure !== undefined) this.goOnAlone(background.failure)
  }
  /** What the other thread was to build becomes hot once more, and is built here. */
  private goOnAlone(failure: string): void {
    this.log(`the thread that compiles has failed, the machine's own does it now: ${failure}`)
    this.background = undefined
    for (const prepared of this.inFlight.values())
      for (const { request, record } of prepared) if (request.flushes === this.code.flushes) this.considered.delete(record)
    this.inFlight.clear()
  }

  /** All code was dropped: compiled code too. */
  flushed(): void {
    this.pending = []
    this.waiting = 0
    this.considered.clear()
    this.postponed.clear()
    this.modules = 0
  }

  /** The code is still what was looked at. */
  private isCurrent({ pages, drops, flushes }: Request): boolean {
    return flushes === this.code.flushes && drops === this.code.dropsIn(pages.values())
  }

  private prepare(request: Request): Prepared | undefined {
    const { page, offset, mode, blocks, pages } = request
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0 || this.code.isRegion(record)) return undefined
    if (!this.isCurrent(request)) {
      this.considered.delete(record)
      return undefined
    }
    const entryCopy = this.code.copyForInterpreter(record)
    const input: RegionInput = {
      name: `region ${request.name}`,
      blocks,
      recordAt: at => (at === offset ? entryCopy : this.recordOf(request, at)),
      countersOf: of => this.countersOf(of),
      leftOf: of => this.bytes[of + recordField.left],
      entryLeft: this.bytes[record + recordField.left],
      severalPages: pages.size > 1,
      tableOf: delta => this.code.tableFor(pages.get(delta)!, mode),
      helperNumber: this.helperNumber,
      exitTable: this.code.allocate(sizeOf(blocks) * exitEntrySize),
      counters: this.profile ? this.code.allocate(regionCounter.size) : 0,
    }
    return { request, record, input }
  }

  private recordOf({ pages, mode }: Request, at: number): number {
    const delta = Math.floor(at / 4096)
    const page = pages.get(delta)!
    const record = this.code.recordAt(page, at & 4095, mode)
    return record !== 0 ? record : this.code.crossingAt(page, at & 4095, mode, pages.get(delta + 1)!)
  }

  private install(prepared: readonly Prepared[], built: BuiltModule | undefined): void {
    if (!built) return
    const instance = new WebAssembly.Instance(built.module, { env: { memory: this.memory, helper: this.helper } })
    prepared.forEach(({ request, record, input }, i) => {
      const exits = built.exits[i]
      if (!exits) return
      if (!this.isCurrent(request)) {
        // the record is a place of nothing when everything was forgotten
        if (request.flushes === this.code.flushes) this.considered.delete(record)
        return
      }
      if (this.code.isRegion(record)) return
      const number = this.interpreter.install(instance.exports[`r${i}`])
      if (number === undefined) return
      this.words.set(exits, input.exitTable >> 2)
      this.code.installRegion(record, [...request.pages.values()], number)
      this.statistics.regions++
      this.statistics.instructions += sizeOf(request.blocks)
    })
    this.modules++
    this.statistics.modules++
    this.statistics.bytes += built.size
  }
}
