/**
 * Regions to a WebAssembly module: in the thread that runs the machine, or in another one, which gets what it needs as plain data. Which
 * one it is, and when a module is ready, changes nothing of a run but its speed.
 */
import { Decoder } from '../../decode/decoder.ts'
import { buildTables } from '../../decode/tables.ts'
import { registry } from '../../isa/rows.ts'
import { encodeModule } from '../../wasm/module.ts'
import type { Block, BoundInstruction } from './discover.ts'
import { bindInstruction } from './known-code.ts'
import { RegionFunction, type RegionInput } from './region.ts'

export interface BuiltModule {
  readonly module: WebAssembly.Module
  readonly size: number
  /** Of each region its exit table, four words an entry; undefined: it is not worth one. Region i is the export `r{i}`. */
  readonly exits: readonly (Int32Array | undefined)[]
}

/** Undefined: none of them is worth it. `pages`: size of the machine's linear memory. */
export function buildModule(inputs: readonly RegionInput[], pages: number, made?: (body: RegionFunction) => void): BuiltModule | undefined {
  const bodies = inputs.map(input => {
    const body = new RegionFunction(input)
    made?.(body)
    body.build()
    if (body.useless) return undefined
    body.finish()
    return body
  })
  const useful = bodies.flatMap((body, i) => (body ? [{ body, i }] : []))
  if (useful.length === 0) return undefined
  const bytes = encodeModule({
    imports: [{ module: 'env', name: 'helper', parameters: ['i32', 'i32'], result: 'i32' }],
    memory: { minimum: pages, maximum: pages },
    functions: useful.map(({ body }) => body),
    exports: useful.map(({ i }, index) => ({ name: `r${i}`, functionIndex: index + 1 })),
  })
  return { module: new WebAssembly.Module(bytes), size: bytes.length, exits: bodies.map(body => body?.exitWords()) }
}

// ---- for another thread ----

/** What every region's code depends on. */
export interface BuilderSetup {
  readonly pages: number
  /** CPU features of the model that decide what bytes mean. */
  readonly features: readonly string[]
  readonly helpers: Readonly<Record<string, number>>
}

/** A region to be made, as plain data. */
export interface Blueprint {
  readonly name: string
  readonly mode: number
  /** Of each block `blockWords` words: see `packBlock`; then the offset and block of each of its returns. Few arrays are sent quickly. */
  readonly blocks: Int32Array
  /** Of each instruction `instructionWords` words: offset, length, record, its field `left`, and where its ways are counted. */
  readonly instructions: Int32Array
  /** Their bytes, one after another. */
  readonly code: Uint8Array
  /** Distance of each page, and its code table. */
  readonly tables: Int32Array
  readonly entryLeft: number
  readonly exitTable: number
}
const instructionWords = 5
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

/** `distances`: of the pages of its code. */
export function blueprintOf(input: RegionInput, mode: number, distances: Iterable<number>, copy: CodeCopier): Blueprint {
  const all = input.blocks.flatMap(block => block.instructions)
  const instructions = new Int32Array(all.length * instructionWords)
  const code = new Uint8Array(all.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  all.forEach(({ offset, length }, i) => {
    const record = input.recordAt(offset)
    instructions.set([offset, length, record, input.leftOf(record), input.countersOf(record)], i * instructionWords)
    copy(offset, length, code, at)
    at += length
  })
  const blocks = Int32Array.from(input.blocks.flatMap(packBlock))
  const tables = Int32Array.from([...distances].flatMap(delta => [delta, input.tableOf(delta)]))
  const { name, entryLeft, exitTable } = input
  return { name, mode, blocks, instructions, code, tables, entryLeft, exitTable }
}

/** What another thread does with them. */
export class Builder {
  private readonly setup: BuilderSetup
  private readonly decoder: Decoder

  constructor(setup: BuilderSetup) {
    const features = new Set(setup.features)
    this.setup = setup
    this.decoder = new Decoder(buildTables(registry), feature => features.has(feature))
  }

  build(blueprints: readonly Blueprint[]): BuiltModule | undefined {
    return buildModule(blueprints.map(blueprint => this.inputOf(blueprint)), this.setup.pages)
  }

  private inputOf({ name, mode, blocks, instructions: words, code, tables, entryLeft, exitTable }: Blueprint): RegionInput {
    const records = new Map<number, number>()
    const leftOf = new Map<number, number>()
    const countersOf = new Map<number, number>()
    let at = 0
    const all = Array.from({ length: words.length / instructionWords }, (_, i) => {
      const [offset, length, record, left, counters] = words.subarray(i * instructionWords, (i + 1) * instructionWords)
      records.set(offset, record)
      leftOf.set(record, left)
      countersOf.set(record, counters)
      const decoded = this.decoder.decode(code, at, length, mode)
      if (decoded.result !== 'ok' || decoded.length !== length) throw new Error(`${name}: other bytes at offset ${offset} than discovered`)
      at += length
      return bindInstruction(this.decoder, decoded, offset, mode)
    })
    const tableOf = new Map(Array.from({ length: tables.length / 2 }, (_, i) => [tables[2 * i], tables[2 * i + 1]]))
    const { helpers } = this.setup
    return {
      name,
      blocks: unpackBlocks(blocks, all),
      recordAt: offset => records.get(offset)!,
      leftOf: record => leftOf.get(record)!,
      countersOf: record => countersOf.get(record)!,
      entryLeft,
      severalPages: tableOf.size > 1,
      tableOf: delta => tableOf.get(delta)!,
      helperNumber: helper => {
        if (helpers[helper] === undefined) throw new Error(`${name}: the helper '${helper}' has no number`)
        return helpers[helper]
      },
      exitTable,
      counters: 0,
    }
  }
}

/** Another thread that builds modules. */
export interface BackgroundBuilder {
  /** Called once, before anything else. */
  start(setup: BuilderSetup): void
  submit(id: number, blueprints: readonly Blueprint[]): void
  /** What became ready since the last call. Must cost next to nothing when nothing did. */
  take(): readonly { readonly id: number; readonly built: BuiltModule | undefined }[]
  /** Why it builds no more: what was submitted and not taken is lost. */
  readonly failure?: string | undefined
}

/** All features that rows of instructions ask for. */
export const rowFeatures = (): readonly string[] => [...new Set(registry.flatMap(row => row.feature ?? []))]
