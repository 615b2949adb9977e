/** A device's ports when there are remapping units: each request goes through the one that has its requester in its scope. */
import type { DmaPort, DmaResult, MsiPort } from '../devices/ports.ts'
import { everything, type Translation } from './caches.ts'
import {
  hex, interruptRange, isInterruptAddress, memoryPort, type MemoryPort, type RemappedInterrupt, type SourceId, sourceText, type UnitEvent,
} from './ports.ts'
import type { RemappingUnit } from './unit.ts'

/** Pages that a requester remembers, and interrupts: powers of two. */
const rememberedPages = 512
const pageSize = 4096
const rememberedInterrupts = 8

export interface RequesterOptions {
  /** Who it is at the moment of the request. */
  requester: () => SourceId
  unitFor: (source: SourceId) => RemappingUnit
  memory: DmaPort
}

/**
 * Pages of 4 KiB that were translated, with the places of their RAM: a request that they serve looks nothing up and makes no
 * object. Of large pages the last one is kept whole beside them.
 */
class KnownPages {
  readonly #memory: MemoryPort
  readonly #numbers = new Float64Array(rememberedPages)
  readonly #places = new Int32Array(rememberedPages)
  /** 1: readable, 2: writable. */
  readonly #rights = new Uint8Array(rememberedPages)
  /** The epoch in which each was remembered. */
  readonly #epochs = new Float64Array(rememberedPages).fill(-1)
  #large: Translation | undefined
  #largeEpoch = -1
  #mapGeneration = -1

  constructor(memory: MemoryPort) {
    this.#memory = memory
  }

  /** The place of the page of an address that allows an access; 0: nobody knows. */
  find(epoch: number, address: number, right: number): number {
    if (this.#mapGeneration !== this.#memory.mapGeneration) this.forget()
    const number = Math.floor(address / pageSize)
    const slot = number & (rememberedPages - 1)
    if (this.#epochs[slot] === epoch && this.#numbers[slot] === number && (this.#rights[slot] & right) !== 0) return this.#places[slot]
    return this.#large !== undefined && this.#largeEpoch === epoch ? this.#findInLarge(this.#large, epoch, address, right) : 0
  }
  /** The place of the page, now remembered; 0: it is no memory, and nobody remembers it. */
  add(epoch: number, address: number, page: Translation): number {
    if (page.size > pageSize) {
      this.#large = page
      this.#largeEpoch = epoch
    }
    const output = address + (page.output - page.input)
    const place = this.#memory.pagePlace(output | 0, Math.floor(output / 2 ** 32))
    if (place === 0) return 0
    const number = Math.floor(address / pageSize)
    const slot = number & (rememberedPages - 1)
    this.#numbers[slot] = number
    this.#places[slot] = place
    this.#rights[slot] = (page.readable ? 1 : 0) | (page.writable ? 2 : 0)
    this.#epochs[slot] = epoch
    return place
  }
  forget(): void {
    this.#mapGeneration = this.#memory.mapGeneration
    this.#epochs.fill(-1)
    this.#large = undefined
  }

  #findInLarge(page: Translation, epoch: number, address: number, right: number): number {
    const inside = address >= page.input && address < page.input + page.size && !isInterruptAddress(address)
    return inside && (right === 1 ? page.readable : page.writable) ? this.add(epoch, address, page) : 0
  }
}

export class RemappedDma implements DmaPort {
  readonly #requester: () => SourceId
  readonly #unitFor: (source: SourceId) => RemappingUnit
  readonly #memory: MemoryPort
  readonly #pages: KnownPages
  #source = -1
  #unit: RemappingUnit | undefined

  constructor({ requester, unitFor, memory }: RequesterOptions) {
    this.#requester = requester
    this.#unitFor = unitFor
    this.#memory = memoryPort(memory)
    this.#pages = new KnownPages(this.#memory)
  }

  read(address: number, into: Uint8Array): DmaResult {
    return this.#access(address, into, false)
  }
  write(address: number, from: Uint8Array): DmaResult {
    return this.#access(address, from, true)
  }

  #access(address: number, bytes: Uint8Array, write: boolean): DmaResult {
    const source = this.#requester()
    const unit = this.#unitFor(source)
    if (source !== this.#source || unit !== this.#unit) this.#become(source, unit)
    const { length } = bytes
    for (let done = 0; done < length;) {
      const at = address + done
      const inPage = at & (pageSize - 1)
      const page = this.#pages.find(unit.caches.epoch, at, write ? 2 : 1)
      if (page === 0) {
        const result = this.#unknown(unit, source, at, bytes.subarray(done), write)
        if (typeof result !== 'number') return result
        done += result
        continue
      }
      const count = Math.min(length - done, pageSize - inPage)
      if (write) this.#memory.writePlace(page + inPage, bytes, done, count)
      else this.#memory.readPlace(page + inPage, bytes, done, count)
      done += count
    }
    return 'ok'
  }

  #become(source: SourceId, unit: RemappingUnit): void {
    this.#source = source
    this.#unit = unit
    this.#pages.forget()
  }

  /** An address that the requester does not remember: how many bytes went there, or how the request ends. */
  #unknown(unit: RemappingUnit, source: SourceId, at: number, bytes: Uint8Array, write: boolean): number | DmaResult {
    if (isInterruptAddress(at)) return interruptAccess(unit, source, at, bytes, write)
    const page = this.#translate(unit, source, at, write)
    if (!page) return 'blocked'
    let end = Math.min(at + bytes.length, page.input + page.size)
    if (at < interruptRange.first && end > interruptRange.first) end = interruptRange.first
    if (page.size === everything && unit.isProtected(at, end - at)) return 'blocked'
    unit.onEvent?.(accessEvent(unit, source, at, end - at, write, page))
    const part = bytes.subarray(0, end - at)
    const output = at + (page.output - page.input)
    const result = write ? this.#memory.write(output, part) : this.#memory.read(output, part)
    return result === 'ok' ? part.length : result
  }

  /** Protected memory is looked for at each access that is not translated. */
  #translate(unit: RemappingUnit, source: SourceId, address: number, write: boolean): Translation | undefined {
    const walked = unit.translating ? unit.translate({ source, address, write }) : { translation: untranslated }
    if ('fault' in walked) return undefined
    const { translation } = walked
    if (!unit.onEvent && !(translation.size === everything && unit.protectsMemory))
      this.#pages.add(unit.caches.epoch, address, translation)
    return translation
  }
}

const untranslated: Translation = { input: 0, size: everything, output: 0, readable: true, writable: true, userAllowed: true }

function accessEvent(unit: RemappingUnit, source: SourceId, at: number, length: number, write: boolean, page: Translation): UnitEvent {
  const asked = `${write ? 'write' : 'read'} of ${length} bytes at ${hex(at)} by ${sourceText(source)}`
  const context = unit.caches.context(source)
  const domain = context === undefined || context.kind === 'scalable' ? '' : ` by domain ${context.domain}`
  const how = !unit.translating ? 'is not translated' : page.size === everything ? 'passes through'
    : `is at ${hex(page.output + (at - page.input))}${domain}, in a page of ${page.size / 1024} KiB`
  return { kind: 'dma', source, words: `${asked} ${how}` }
}

function interruptAccess(unit: RemappingUnit, source: SourceId, address: number, bytes: Uint8Array, write: boolean): DmaResult {
  if (!write || bytes.length !== 4 || address % 4 !== 0) return unit.refuseInterruptAccess(source, address, write)
  unit.interrupt(source, address, new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true))
  return 'ok'
}

interface KnownInterrupt {
  address: number
  data: number
  source: SourceId
  unit: RemappingUnit
  epoch: number
  message: RemappedInterrupt
}

/** A message elsewhere than in the interrupt range is a write like any other. */
export class RemappedMsi implements MsiPort {
  readonly #requester: () => SourceId
  readonly #unitFor: (source: SourceId) => RemappingUnit
  readonly #checksSource: boolean
  readonly #dma: RemappedDma
  readonly #bytes = new Uint8Array(4)
  readonly #known: (KnownInterrupt | undefined)[] = new Array(rememberedInterrupts).fill(undefined)

  constructor(options: RequesterOptions & { checksSource: boolean }) {
    this.#requester = options.requester
    this.#unitFor = options.unitFor
    this.#checksSource = options.checksSource
    this.#dma = new RemappedDma(options)
  }

  signal(address: number, data: number): void {
    const source = this.#requester()
    const unit = this.#unitFor(source)
    if (!isInterruptAddress(address)) return this.#write(address, data)
    const slot = (address >>> 5) & (rememberedInterrupts - 1)
    const known = this.#known[slot]
    const same = known && known.address === address && known.data === data && known.source === source && known.unit === unit
    if (same && known.epoch === unit.caches.interruptEpoch) return unit.deliver(known.message)
    const message = unit.interrupt(this.#checksSource ? source : undefined, address, data)
    this.#known[slot] = unit.onEvent ? undefined : message && { address, data, source, unit, epoch: unit.caches.interruptEpoch, message }
  }

  #write(address: number, data: number): void {
    new DataView(this.#bytes.buffer).setUint32(0, data, true)
    this.#dma.write(address, this.#bytes)
  }
}
