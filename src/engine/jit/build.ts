/**
 * Regions to a WebAssembly module: in the thread that runs the machine, or in another one, which gets what it needs as plain data. Which
 * one it is, and when a module is ready, changes nothing of a run but its speed.
 */
import { mode as codeMode } from '../../cpu/mode.ts'
import { Decoder } from '../../decode/decoder.ts'
import type { KeptTemplates } from '../../decode/templates.ts'
import { OpcodeTables } from '../../decode/tables.ts'
import { registry } from '../../isa/rows.ts'
import { encodeModule } from '../../wasm/module.ts'
import { hotSpecs } from '../hot-specs.ts'
import { encodeHandlersAhead } from '../interpreter.ts'
import { SharedImports } from '../shared-functions.ts'
import { warmKeys } from '../warm.ts'
import type { Block, BoundInstruction } from './discover.ts'
import { bindInstruction } from './known-code.ts'
import { packPlans, type PackedPlans, type RegionPlan } from './plan.ts'
import { RegionFunction } from './region.ts'

export interface BuiltModule {
  readonly module: WebAssembly.Module
  readonly size: number
  /** Bytes of the pool that its regions share. */
  readonly poolSize: number
  /** Of those that are worth it: region i is the export `r{i}`. */
  readonly plans: PackedPlans
  /** The module as it was encoded, for whoever keeps it. */
  readonly bytes: Uint8Array
}

/** A region to be made: its plan as far as it is known before, and its blocks. */
export interface RegionOrder extends Pick<RegionPlan, 'mode' | 'pages' | 'instructions' | 'code'> {
  readonly name: string
  readonly blocks: readonly Block[]
}

/** Undefined: none of them is worth it. `memoryPages`: size of the machine's linear memory. */
export function buildModule(
  orders: readonly RegionOrder[],
  memoryPages: number,
  helperNumber: (name: string) => number,
): BuiltModule | undefined {
  let pool = 0
  const shared = new SharedImports(1)
  const bodies = orders.map(({ name, mode, blocks, pages }) => {
    const wide = (mode & codeMode.codeMask) === codeMode.code64
    const body = new RegionFunction({ name, wide, blocks, pages: [...pages], pool, helperNumber, shared })
    body.build()
    if (body.useless) return undefined
    body.finish()
    pool += body.poolSize
    return body
  })
  const useful = bodies.flatMap((body, i) => (body ? [{ body, i }] : []))
  if (useful.length === 0) return undefined
  const bytes = encodeModule({
    imports: [{ module: 'env', name: 'helper', parameters: ['i32', 'i32'], result: 'i32' }, ...shared.list()],
    importGlobals: ['pool'],
    memory: { minimum: memoryPages, maximum: memoryPages },
    functions: useful.map(({ body }) => body),
    exports: useful.map(({ i }, index) => ({ name: `r${i}`, functionIndex: 1 + shared.count + index })),
  })
  const plans = orders.map(({ mode, pages, instructions, code }, i): RegionPlan | undefined => {
    const body = bodies[i]
    if (!body) return undefined
    const exits = Int32Array.from(body.exits.flatMap(({ remaining, offset }) => [remaining, offset]))
    return { mode, pages, instructions, code, exits, pool: body.input.pool }
  })
  return { module: new WebAssembly.Module(bytes), size: bytes.length, poolSize: pool, plans: packPlans(plans), bytes }
}

// ---- for another thread ----

/** What every region's code depends on. */
export interface BuilderSetup {
  readonly pages: number
  /** CPU features of the model that decide what bytes mean. */
  readonly features: readonly string[]
  readonly helpers: Readonly<Record<string, number>>
  /** Of the interpreter. */
  readonly hotThreshold: number
}

/** A region to be made, as plain data for another thread. */
export interface Blueprint extends Omit<RegionOrder, 'blocks'> {
  /** Of each block `blockWords` words: see `packBlock`; then the offset and block of each of its returns. Few arrays are sent quickly. */
  readonly blocks: Int32Array
}
const blockWords = 7
const blockFlag = { branches: 1, calls: 2, stops: 4 } as const

/** Without how hot it is, which has served its purpose. */
function packBlock({ start, next, taken, end, branches, calls, stops, returns, instructions }: Block): number[] {
  const flags = (branches ? blockFlag.branches : 0) | (calls ? blockFlag.calls : 0) | (stops ? blockFlag.stops : 0)
  return [start, next, taken, end, flags, instructions.length, returns.length, ...returns.flatMap(({ offset, block }) => [offset, block])]
}
function unpackBlocks(words: Int32Array, instructions: readonly BoundInstruction[]): Block[] {
  const blocks: Block[] = []
  let first = 0
  for (let at = 0; at < words.length;) {
    const [start, next, taken, end, flags, count, sites] = words.subarray(at, at + blockWords)
    at += blockWords
    const returns = Array.from({ length: sites }, (_, i) => ({ offset: words[at + 2 * i], block: words[at + 2 * i + 1] }))
    at += 2 * sites
    blocks.push({
      start, heat: 0, next, taken, end, returns,
      instructions: instructions.slice(first, first + count),
      branches: (flags & blockFlag.branches) !== 0,
      calls: (flags & blockFlag.calls) !== 0,
      stops: (flags & blockFlag.stops) !== 0,
    })
    first += count
  }
  return blocks
}

/** Puts the bytes of the instruction at an offset into an array. */
export type CodeCopier = (offset: number, length: number, into: Uint8Array, at: number) => void

/** `pages`: distances of the pages of its code. */
export function orderOf(
  name: string,
  mode: number,
  blocks: readonly Block[],
  pages: Iterable<number>,
  copy: CodeCopier,
): RegionOrder {
  const all = blocks.flatMap(block => block.instructions)
  const instructions = Int32Array.from(all.flatMap(({ offset, length }) => [offset, length]))
  const code = new Uint8Array(all.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const { offset, length } of all) {
    copy(offset, length, code, at)
    at += length
  }
  return { name, mode, blocks, pages: Int32Array.from(pages), instructions, code }
}
export function blueprintOf({ name, mode, blocks, pages, instructions, code }: RegionOrder): Blueprint {
  return { name, mode, blocks: Int32Array.from(blocks.flatMap(packBlock)), pages, instructions, code }
}

/** What another thread does with them. */
export class Builder {
  private readonly setup: BuilderSetup
  private readonly tables: OpcodeTables
  private readonly decoder: Decoder

  constructor(setup: BuilderSetup) {
    const features = new Set(setup.features)
    this.setup = setup
    const offers = (feature: string): boolean => features.has(feature)
    this.tables = new OpcodeTables(registry, offers)
    this.decoder = new Decoder(this.tables, offers)
  }

  private readonly helperNumber = (helper: string): number => {
    const number = this.setup.helpers[helper]
    if (number === undefined) throw new Error(`the helper '${helper}' has no number`)
    return number
  }

  build(blueprints: readonly Blueprint[]): BuiltModule | undefined {
    return buildModule(blueprints.map(blueprint => this.read(blueprint)), this.setup.pages, this.helperNumber)
  }

  /** Handlers of the interpreter that are likely to be wanted, as bytes of a module. */
  handlers(): Omit<HandlerModule, 'module'> & { readonly bytes: Uint8Array } {
    const { hotThreshold, pages } = this.setup
    const specs = hotSpecs(this.tables, warmKeys)
    const { bytes, writers } = encodeHandlersAhead(specs, { hotThreshold, pages, helperNumber: this.helperNumber })
    return { bytes, keys: warmKeys, writers }
  }

  private read({ name, mode, blocks, pages, instructions, code }: Blueprint): RegionOrder {
    let at = 0
    const all = Array.from({ length: instructions.length / 2 }, (_, i) => {
      const [offset, length] = instructions.subarray(2 * i, 2 * i + 2)
      const decoded = this.decoder.decode(code, at, length, mode)
      if (decoded.result !== 'ok' || decoded.length !== length) throw new Error(`${name}: other bytes at offset ${offset} than discovered`)
      at += length
      return bindInstruction(this.decoder, decoded, offset, mode)
    })
    return { name, mode, blocks: unpackBlocks(blocks, all), pages, instructions, code }
  }
}

export type { KeptTemplates }

/** A module that an earlier run has made, without its code. */
export interface KeptModule extends Pick<BuiltModule, 'poolSize' | 'plans'> {
  /** When that was: instructions that the machine had retired. */
  readonly made: number
}

/** Handlers of the interpreter (`encodeHandlersAhead`). */
export interface HandlerModule {
  readonly module: WebAssembly.Module
  readonly keys: readonly string[]
  readonly writers: readonly string[]
}

export type BuilderAnswer =
  | { readonly handlers: HandlerModule }
  /** Of an earlier run. */
  | { readonly templates: KeptTemplates }
  | { readonly id: number; readonly built: BuiltModule | undefined }
  /** Some more modules of earlier runs, in the order in which they were made there. Their code comes when it is wanted. */
  | { readonly kept: readonly KeptModule[] }
  /** `number`: its place among all of them. Without a module: its code is lost. */
  | { readonly number: number; readonly module: WebAssembly.Module | undefined }

/** Another thread that builds modules. */
export interface BackgroundBuilder {
  /** It may have modules of earlier runs: it is started with the machine. */
  readonly keeps?: boolean
  /** Called once, before anything else. */
  start(setup: BuilderSetup): void
  /** `made`: instructions that the machine has retired. */
  submit(id: number, blueprints: readonly Blueprint[], made: number): void
  /** One that keeps: the machine waits for a module of an earlier run. */
  want?(number: number): void
  /** The same of all before this one, which will be wanted soon. */
  wantAllBefore?(number: number): void
  /** For later runs. */
  keepTemplates?(templates: KeptTemplates): void
  /** What became ready since the last call. Must cost next to nothing when nothing did. */
  take(): readonly BuilderAnswer[]
  /** Why it builds no more: what was submitted and not taken is lost. */
  readonly failure?: string | undefined
}

/** All features that rows of instructions ask for. */
export const rowFeatures = (): readonly string[] => [...new Set(registry.flatMap(row => row.feature ?? []))]
