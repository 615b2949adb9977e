/** Puts compiled regions in place: fills their pools with what they have to know of it, and makes them the handlers of their entries. */
import { recordField, recordSize } from '../../decode/record.ts'
import type { CodeCache } from '../code-cache.ts'
import type { Interpreter } from '../interpreter.ts'
import type { SharedFunctions } from '../shared-functions.ts'
import type { CodePlace, LibraryModule, LibraryRegion, ModuleInstance, PlaceOf } from './library.ts'
import { exitEntrySize, exitField, pageWordSize } from './pool.ts'
import type { RegionPlan } from './plan.ts'

/** Pools begin at records' alignment. */
const pooled = (size: number): number => Math.ceil(size / recordSize) * recordSize

export class Installer {
  private readonly memory: WebAssembly.Memory
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  private readonly code: CodeCache
  private readonly interpreter: Interpreter
  private readonly helper: (number: number, record: number) => number
  private readonly shared: SharedFunctions
  /** Instances that live: each costs about 45 KB. */
  instances = 0
  /** By the record of its entry. */
  private readonly installed = new Map<number, { instance: ModuleInstance; number: number }>()

  constructor(memory: WebAssembly.Memory, code: CodeCache, interpreter: Interpreter, helper: Installer['helper'], shared: SharedFunctions) {
    this.memory = memory
    this.bytes = new Uint8Array(memory.buffer)
    this.words = new Int32Array(memory.buffer)
    this.code = code
    this.interpreter = interpreter
    this.helper = helper
    this.shared = shared
  }

  /** `region` fits there, and its module is ready. False: there is no room for one more. */
  install(region: LibraryRegion, { page, offset, mode }: CodePlace, placeOf: PlaceOf): boolean {
    const record = this.code.recordAt(page, offset, mode)
    if (record === 0) return false
    this.code.installed.untrap(record)
    if (this.code.installed.has(record)) return false
    const { plan, number } = region
    const instance = this.instanceFor(region.of, number)
    const handler = this.interpreter.install(instance.exports[`r${number}`])
    if (handler === undefined) return false
    this.fill(plan, instance.pool + plan.pool, record, placeOf)
    instance.used.add(number)
    this.installed.set(record, { instance, number })
    this.code.installed.install(record, [...plan.pages].map(placeOf), handler)
    return true
  }

  /** The region of this entry is gone. */
  dropped(record: number): void {
    const installed = this.installed.get(record)
    installed?.instance.used.delete(installed.number)
    this.installed.delete(record)
  }
  /** All are gone. */
  flushed(): void {
    this.installed.clear()
    this.instances = 0
  }

  private instanceFor(of: LibraryModule, number: number): ModuleInstance {
    const { flushes } = this.code
    const found = of.instances.find(instance => instance.flushes === flushes && !instance.used.has(number))
    if (found) return found
    const pool = this.code.allocate(pooled(of.poolSize))
    const own = { memory: this.memory, helper: this.helper, pool: new WebAssembly.Global({ value: 'i32', mutable: false }, pool) }
    const env = Object.assign(Object.create(this.shared.environment) as object, own)
    const { exports } = new WebAssembly.Instance(of.module!, { env })
    const instance: ModuleInstance = { exports, pool, flushes, used: new Set() }
    if (of.instances.length > 0 && of.instances[0].flushes !== flushes) of.instances.length = 0
    of.instances.push(instance)
    this.instances++
    return instance
  }

  private fill(plan: RegionPlan, pool: number, entry: number, placeOf: PlaceOf): void {
    const { pages, instructions, exits, mode } = plan
    const copy = this.code.copyForInterpreter(entry)
    const first = instructions[0]
    // of every instruction: who writes to its bytes has to find it
    for (let i = 2; i < instructions.length; i += 2) this.recordOf(instructions[i], mode, placeOf)
    pages.forEach((distance, i) => (this.words[(pool + i * pageWordSize) >> 2] = this.code.tableFor(placeOf(distance), mode)))
    let at = pool + pages.length * pageWordSize
    for (let i = 0; i < exits.length; i += 2, at += exitEntrySize) {
      const offset = exits[i + 1]
      const record = offset === first ? copy : this.recordOf(offset, mode, placeOf)
      const set = (field: number, value: number): void => void (this.words[(at + field) >> 2] = value)
      set(exitField.record, record)
      set(exitField.remaining, exits[i])
      set(exitField.offset, offset)
      set(exitField.left, this.bytes[record + recordField.left])
      set(exitField.counters, this.countersOf(record))
    }
  }

  private recordOf(offset: number, mode: number, placeOf: PlaceOf): number {
    const distance = offset >> 12
    const page = placeOf(distance)
    const record = this.code.recordAt(page, offset & 4095, mode)
    return record !== 0 ? record : this.code.crossingAt(page, offset & 4095, mode, placeOf(distance + 1))
  }

  /** The record that counts the ways of a branch: behind its guard when it crosses a page. */
  countersOf(record: number): number {
    return this.code.isGuard(record) ? record + recordSize : record
  }
}
