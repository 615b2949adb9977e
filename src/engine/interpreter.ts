/**
 * The interpreter: one WebAssembly function with a `br_table` over hot handlers, and a function in a table for each other handler, compiled
 * when a record first needs it. What the code of a handler is: handler-code.ts.
 */
import { sharedFunctions, sharedNames } from '../isa/x87-functions.ts'
import { profileCounters } from '../memory/map.ts'
import type { FunctionBuilder } from '../wasm/function.ts'
import { encodeModule, type FunctionImport, type ModuleParts } from '../wasm/module.ts'
import { HandlerFunction, pseudo, type HandlerSpec } from './handler-code.ts'
import { MainFunction } from './main-function.ts'
import { SharedImports, type SharedFunctions } from './shared-functions.ts'

/** Functions of TypeScript that generated code calls, by import index. */
const imports: FunctionImport[] = [
  { module: 'env', name: 'slowRead', parameters: ['i32', 'i32', 'i32'], result: 'i32' },
  { module: 'env', name: 'slowWrite', parameters: ['i32', 'i32', 'i32'], result: 'i32' },
  { module: 'env', name: 'helper', parameters: ['i32', 'i32'], result: 'i32' },
  { module: 'env', name: 'stackAddress', parameters: ['i32', 'i32'], result: 'i32' },
  { module: 'env', name: 'segmentAddress', parameters: ['i32'], result: 'i32' },
]
/** Size of the table of handlers that are not hot. */
const mostHandlers = 16384

export interface InterpreterEnvironment {
  memory: WebAssembly.Memory
  slowRead(low: number, high: number, sizeAndFlags: number): number
  slowWrite(low: number, high: number, sizeAndFlags: number): number
  helper(number: number, record: number): number
  stackAddress(offset: number, sizeAndFlags: number): number
  segmentAddress(record: number): number
  shared: SharedFunctions
}

/** The module of the main function, as it was encoded. `writers`: keys of its handlers that write memory. */
export interface InterpreterCode {
  readonly bytes: Uint8Array
  readonly writers: readonly string[]
}
/**
 * Finds what an earlier run has made of the same source, or makes and keeps it. `name` says what the code depends on besides the source.
 */
export type InterpreterKeeper = (name: string, make: () => InterpreterCode) => InterpreterCode

const withoutKeeping: InterpreterKeeper = (_name, make) => make()

/** Numbers handlers, generates their code on demand and runs records. */
export class Interpreter {
  private readonly environment: InterpreterEnvironment
  private readonly helperNumber: (name: string) => number
  private readonly numbers = new Map<string, number>()
  private readonly writers = new Set<string>()
  private readonly table: WebAssembly.Table
  private readonly hotCount: number
  private readonly pages: number
  private readonly profile: boolean
  private readonly hotThreshold: number
  private nextCold = 0
  /** Runs from a record (an address in linear memory) until something leaves; returns a value of `leave`. */
  readonly run: (record: number) => number

  /**
   * `hotKeys`: of the handlers in the main function, which `specsOf` finds. `firstKeys`: of others that are kept with it. With `profile`,
   * no handler is hot and each counts its executions: see `executions`.
   */
  constructor(
    environment: InterpreterEnvironment,
    helperNumber: (name: string) => number,
    hotKeys: readonly string[],
    specsOf: (keys: readonly string[]) => HandlerSpec[],
    options: { profile?: boolean; hotThreshold?: number; keeper?: InterpreterKeeper; firstKeys?: readonly string[] } = {},
  ) {
    const { profile = false, hotThreshold = 0, keeper } = options
    // made in each run anew they would cost every machine what few need
    const firstKeys = keeper && !profile ? options.firstKeys ?? [] : []
    this.profile = profile
    this.hotThreshold = hotThreshold
    if (profile) hotKeys = []
    this.environment = environment
    this.helperNumber = helperNumber
    this.pages = environment.memory.buffer.byteLength / 65536
    this.table = new WebAssembly.Table({ element: 'anyfunc', initial: mostHandlers })
    this.hotCount = pseudo.count + hotKeys.length
    hotKeys.forEach((key, i) => this.numbers.set(key, pseudo.count + i))
    const { pages } = this
    const { bytes, writers } = (keeper ?? withoutKeeping)(`${pages} pages, hot at ${hotThreshold}, ${hotKeys.length} handlers`, () =>
      encodeInterpreter(specsOf(hotKeys), specsOf(firstKeys), { hotThreshold, helperNumber, pages }))
    const { exports } = this.instantiate(new WebAssembly.Module(bytes))
    this.run = exports.run as (record: number) => number
    this.number(exports, firstKeys, writers)
  }

  /** How often each handler ran, by key; only when profiling. */
  executions(): Map<string, number> {
    const view = new BigUint64Array(this.environment.memory.buffer, profileCounters, this.nextCold)
    return new Map([...this.numbers].map(([key, number]) => [key, Number(view[number - this.hotCount] ?? 0n)]))
  }

  writesMemory(spec: HandlerSpec): boolean {
    this.handlerNumber(spec)
    return this.writers.has(spec.key)
  }

  private readonly freeSlots: number[] = []
  /** Makes a compiled function a handler: its number, or undefined when the table is full. */
  install(handler: unknown): number | undefined {
    const slot = this.freeSlots.pop() ?? (this.nextCold < mostHandlers ? this.nextCold++ : undefined)
    if (slot === undefined) return undefined
    this.table.set(slot, handler)
    return this.hotCount + slot
  }
  release(number: number): void {
    this.table.set(number - this.hotCount, null)
    this.freeSlots.push(number - this.hotCount)
  }

  private instantiate(module: WebAssembly.Module): WebAssembly.Instance {
    const { memory, slowRead, slowWrite, helper, stackAddress, segmentAddress, shared } = this.environment
    const own = { memory, slowRead, slowWrite, helper, stackAddress, segmentAddress, table: this.table }
    return new WebAssembly.Instance(module, { env: Object.assign(Object.create(shared.environment) as object, own) })
  }

  /** The number of the handler for a record; its code exists when this returns. */
  handlerNumber(spec: HandlerSpec): number {
    return this.numbers.get(spec.key) ?? this.compile(spec)
  }

  /** The number of a handler that is there. */
  knownNumber(key: string): number | undefined {
    return this.numbers.get(key)
  }
  /** Keys by number. */
  keys(): ReadonlyMap<number, string> {
    return new Map([...this.numbers].map(([key, number]) => [number, key]))
  }

  private compile(spec: HandlerSpec): number {
    const counters = this.profile ? profileCounters + this.nextCold * 8 : undefined
    const { hotThreshold, helperNumber, pages } = this
    const { bytes, writers } = encodeHandlers([spec], { hotThreshold, helperNumber, pages }, counters)
    return this.number(this.instantiate(new WebAssembly.Module(bytes)).exports, [spec.key], writers)
  }

  /** Handlers and shared functions that were compiled elsewhere (`encodeHandlersAhead`). Those that are here already stay. */
  adopt(module: WebAssembly.Module, keys: readonly string[], writers: readonly string[]): void {
    const { exports } = this.instantiate(module)
    this.environment.shared.adopt(exports)
    this.number(exports, keys, writers)
  }
  /** The result is the last one's. */
  private number(exports: WebAssembly.Instance['exports'], keys: readonly string[], writers: readonly string[]): number {
    for (const key of writers) this.writers.add(key)
    let number = -1
    keys.forEach((key, i) => {
      if (this.numbers.has(key)) return
      const slot = this.nextCold++
      this.table.set(slot, exports[`h${i}`])
      number = this.hotCount + slot
      this.numbers.set(key, number)
    })
    return number
  }
}

/** What the code of every handler depends on. */
export interface HandlerSetup {
  readonly hotThreshold: number
  /** Size of the machine's linear memory. */
  readonly pages: number
  helperNumber(name: string): number
}

/** The module of the main function over handlers that are hot: its export `run`, and handlers of others, as `encodeHandlers` has them. */
export function encodeInterpreter(hot: HandlerSpec[], others: readonly HandlerSpec[], setup: HandlerSetup): InterpreterCode {
  const shared = new SharedImports(imports.length)
  const main = new MainFunction('interpreter', setup.helperNumber, 'main')
  main.sharedImports = shared
  main.hotThreshold = setup.hotThreshold
  const writers = main.build(hot, 0)
  const functions = others.map(spec => handlerFunction(spec, setup, shared))
  // `types`: of the handlers that the main function calls
  const bytes = encodeModule({
    ...around([...named(functions), ['run', main]], [...imports, ...shared.list()], setup),
    types: [{ parameters: ['i32'], result: 'i32' }],
  })
  return { bytes, writers: [...writers, ...writersAmong(functions)] }
}

interface EncodedHandlers {
  readonly bytes: Uint8Array
  /** Keys of those that write memory. */
  readonly writers: string[]
}

/** A module of handlers: export `h{i}` is that of specs[i]. `counters`: of HandlerFunction. */
export function encodeHandlers(specs: readonly HandlerSpec[], setup: HandlerSetup, counters?: number): EncodedHandlers {
  const shared = new SharedImports(imports.length)
  const functions = specs.map(spec => handlerFunction(spec, setup, shared, counters))
  const bytes = encodeModule(around(named(functions), [...imports, ...shared.list()], setup))
  return { bytes, writers: writersAmong(functions) }
}

/** The same with the functions that handlers share among its own: exports by their names. */
export function encodeHandlersAhead(specs: readonly HandlerSpec[], setup: HandlerSetup): EncodedHandlers {
  const shared = new SharedImports(imports.length, sharedNames)
  const functions = specs.map(spec => handlerFunction(spec, setup, shared))
  const own = sharedFunctions(imports.length).map((body, i): NamedFunction => [sharedNames[i], body])
  return { bytes: encodeModule(around([...own, ...named(functions)], imports, setup)), writers: writersAmong(functions) }
}

function handlerFunction(
  spec: HandlerSpec, { helperNumber, hotThreshold }: HandlerSetup, shared: SharedImports, counters?: number,
): HandlerFunction {
  const body = new HandlerFunction(spec.key, helperNumber, 'record')
  body.sharedImports = shared
  body.hotThreshold = hotThreshold
  body.build(spec, counters)
  return body
}
const writersAmong = (functions: readonly HandlerFunction[]): string[] => functions.flatMap(({ name, writes }) => (writes ? [name] : []))

/** With the name of its export, if it is one. */
type NamedFunction = readonly [string | undefined, FunctionBuilder]

const named = (handlers: readonly HandlerFunction[]): NamedFunction[] => handlers.map((body, i) => [`h${i}`, body])

function around(functions: readonly NamedFunction[], imported: FunctionImport[], { pages }: HandlerSetup): ModuleParts {
  return {
    imports: imported,
    memory: { minimum: pages, maximum: pages },
    importTable: { minimum: mostHandlers },
    functions: functions.map(([, body]) => body),
    exports: functions.flatMap(([name], i) => (name === undefined ? [] : [{ name, functionIndex: imported.length + i }])),
  }
}
