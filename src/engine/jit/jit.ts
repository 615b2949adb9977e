/**
 * Decides what is compiled and when: arrivals at records are counted by the interpreter; hot ones become entries of regions, several
 * regions
 * a WebAssembly module. A region replaces the handler of its entry's record, so nothing that refers to the record needs to change.
 */
import { mode as codeMode } from '../../cpu/mode.ts'
import { Decoder } from '../../decode/decoder.ts'
import type { OpcodeTables } from '../../decode/tables.ts'
import { recordField } from '../../decode/record.ts'
import { encodeModule } from '../../wasm/module.ts'
import type { CodeCache } from '../code-cache.ts'
import type { Interpreter } from '../interpreter.ts'
import { Discovery } from './discover.ts'
import { RegionFunction } from './region.ts'
import { structureOf } from './structure.ts'

/** Regions a module: a module costs about 45 KB and 0.2 ms whatever it holds. */
const batch = 6
/** Live modules at the most; then all code is dropped and what is hot is compiled again. */
const mostModules = 2500

interface Request {
  page: number
  offset: number
  mode: number
  name: string
}

export interface JitStatistics {
  regions: number
  modules: number
  instructions: number
  bytes: number
  milliseconds: number
}

export class Jit {
  /**
   * Entering and leaving a region costs as much as interpreting about this many instructions: without a loop it has to be longer. Tests
   * compile everything.
   */
  longBlock = 30
  readonly statistics: JitStatistics = { regions: 0, modules: 0, instructions: 0, bytes: 0, milliseconds: 0 }
  /** Set by an embedder that wants compile times: milliseconds from anywhere. They never influence the run. */
  stopwatch: () => number = () => 0
  private readonly memory: WebAssembly.Memory
  private readonly bytes: Uint8Array
  private readonly code: CodeCache
  private readonly interpreter: Interpreter
  private readonly decoder: Decoder
  private pending: Request[] = []
  private modules = 0

  constructor(
    memory: WebAssembly.Memory,
    tables: OpcodeTables,
    offers: (feature: string) => boolean,
    code: CodeCache,
    interpreter: Interpreter,
  ) {
    this.memory = memory
    this.bytes = new Uint8Array(memory.buffer)
    this.code = code
    this.interpreter = interpreter
    this.decoder = new Decoder(tables, offers)
  }

  /** The instruction at `offset` of the page at `page` was reached often. `rip` names the function. */
  request(page: number, offset: number, mode: number, rip: bigint): void {
    if ((mode & codeMode.codeMask) !== codeMode.code64) return
    this.pending.push({ page, offset, mode, name: rip.toString(16) })
    if (this.pending.length >= batch) this.compile()
  }

  /** So many modules live that code should be flushed. */
  get crowded(): boolean {
    return this.modules > mostModules
  }

  /** Compiles what is waiting. Call it between runs. */
  compile(): void {
    const requests = this.pending
    this.pending = []
    if (requests.length === 0) return
    const start = this.stopwatch()
    const built = requests.map(request => this.build(request)).filter(region => region !== undefined)
    if (built.length > 0) this.install(built)
    this.statistics.milliseconds += this.stopwatch() - start
  }

  /** All code was dropped: compiled code too. */
  flushed(): void {
    this.pending = []
    this.modules = 0
  }

  private build(request: Request): { request: Request; record: number; body: RegionFunction } | undefined {
    const { page, offset, mode } = request
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0 || this.code.isRegion(record)) return undefined
    const blocks = new Discovery(this.decoder, this.bytes, page, mode).blocks(offset)
    if (blocks.length === 0 || !blocks[0].instructions[0].flat) return undefined
    if (!structureOf(blocks).hasLoops && blocks[0].instructions.length < this.longBlock) return undefined
    const entryCopy = this.code.copyForInterpreter(record)
    const body = new RegionFunction({
      name: `region ${request.name}`,
      blocks,
      recordAt: at => (at === offset ? entryCopy : this.code.recordAt(page, at, mode)),
      entryLeft: this.bytes[record + recordField.left],
    })
    body.build()
    if (body.useless) return undefined
    this.statistics.instructions += blocks.reduce((sum, block) => sum + block.instructions.length, 0)
    return { request, record, body }
  }

  private install(built: { request: Request; record: number; body: RegionFunction }[]): void {
    const pages = this.memory.buffer.byteLength / 65536
    const bytes = encodeModule({
      imports: [],
      memory: { minimum: pages, maximum: pages },
      functions: built.map(region => region.body),
      exports: built.map((_, i) => ({ name: `r${i}`, functionIndex: i })),
    })
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: this.memory } })
    built.forEach(({ request, record }, i) => {
      if (this.code.isRegion(record)) return
      const number = this.interpreter.install(instance.exports[`r${i}`])
      if (number === undefined) return
      this.code.installRegion(record, request.page, number)
    })
    this.modules++
    this.statistics.modules++
    this.statistics.regions += built.length
    this.statistics.bytes += bytes.length
  }
}
