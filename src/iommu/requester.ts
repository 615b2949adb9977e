/** A device's ports when there are remapping units: each request goes through the one that has its requester in its scope. */
import type { DmaPort, DmaResult, MsiPort } from '../devices/ports.ts'
import { everything, type Translation } from './caches.ts'
import { hex, interruptRange, isInterruptAddress, type RemappedInterrupt, type SourceId, sourceText, type UnitEvent } from './ports.ts'
import type { RemappingUnit } from './unit.ts'

/** Pages that a requester remembers, and interrupts: powers of two. */
const rememberedPages = 512
const rememberedInterrupts = 8

export interface RequesterOptions {
  /** Who it is at the moment of the request. */
  requester: () => SourceId
  unitFor: (source: SourceId) => RemappingUnit
  memory: DmaPort
}

export class RemappedDma implements DmaPort {
  readonly #options: RequesterOptions
  readonly #memory: DmaPort
  readonly #pages: (Translation | undefined)[] = new Array(rememberedPages).fill(undefined)
  /** The epoch in which each was remembered. */
  readonly #epochs = new Float64Array(rememberedPages).fill(-1)
  #source = -1
  #unit: RemappingUnit | undefined

  constructor(options: RequesterOptions) {
    this.#options = options
    this.#memory = options.memory
  }

  read(address: number, into: Uint8Array): DmaResult {
    return this.#access(address, into, false)
  }
  write(address: number, from: Uint8Array): DmaResult {
    return this.#access(address, from, true)
  }

  #access(address: number, bytes: Uint8Array, write: boolean): DmaResult {
    const source = this.#options.requester()
    const unit = this.#options.unitFor(source)
    if (source !== this.#source || unit !== this.#unit) this.#become(source, unit)
    const page = this.#remembered(unit, address, write)
    if (page) {
      const offset = address - page.input
      if (offset + bytes.length <= page.size && !reachesInterrupts(address, bytes.length))
        return write ? this.#memory.write(page.output + offset, bytes) : this.#memory.read(page.output + offset, bytes)
    }
    return this.#inPieces(unit, source, address, bytes, write)
  }

  #become(source: SourceId, unit: RemappingUnit): void {
    this.#source = source
    this.#unit = unit
    this.#epochs.fill(-1)
  }

  #remembered(unit: RemappingUnit, address: number, write: boolean): Translation | undefined {
    const slot = (address / 4096) & (rememberedPages - 1)
    if (this.#epochs[slot] !== unit.caches.epoch || unit.onEvent) return undefined
    const page = this.#pages[slot]
    if (!page || !(write ? page.writable : page.readable)) return undefined
    return address >= page.input && address < page.input + page.size ? page : undefined
  }

  /** Page by page, those that follow each other in memory at once; what came before a fault has happened. */
  #inPieces(unit: RemappingUnit, source: SourceId, address: number, bytes: Uint8Array, write: boolean): DmaResult {
    const last = address + bytes.length
    let known: Translation | undefined
    for (let at = address; at < last;) {
      if (isInterruptAddress(at)) return interruptAccess(unit, source, at, bytes.subarray(at - address), write)
      const page = known ?? this.#pageFor(unit, source, at, write)
      if (!page) return 'blocked'
      known = undefined
      const shift = page.output - page.input
      let end = page.input + page.size
      while (end < last && !known) {
        const next = this.#remembered(unit, end, write)
        if (!next) break
        if (next.input === end && next.output === end + shift) end += next.size
        else known = next
      }
      if (at < interruptRange.first && end > interruptRange.first) end = interruptRange.first
      if (end > last) end = last
      if (page.size === everything && unit.isProtected(at, end - at)) return 'blocked'
      unit.onEvent?.(accessEvent(unit, source, at, end - at, write, page))
      const piece = bytes.subarray(at - address, end - address)
      const result = write ? this.#memory.write(at + shift, piece) : this.#memory.read(at + shift, piece)
      if (result !== 'ok') return result
      at = end
    }
    return 'ok'
  }

  #pageFor(unit: RemappingUnit, source: SourceId, address: number, write: boolean): Translation | undefined {
    const known = this.#remembered(unit, address, write)
    if (known) return known
    if (!unit.translating) return this.#remember(unit, address, untranslated)
    const walked = unit.translate({ source, address, write })
    if ('fault' in walked) return undefined
    return this.#remember(unit, address, walked.translation)
  }

  /** Protected memory is looked for at each access that is not translated. */
  #remember(unit: RemappingUnit, address: number, page: Translation): Translation {
    if (page.size === everything && unit.protectsMemory) return page
    const slot = (address / 4096) & (rememberedPages - 1)
    this.#pages[slot] = page
    this.#epochs[slot] = unit.caches.epoch
    return page
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

const reachesInterrupts = (address: number, length: number): boolean =>
  address <= interruptRange.last && address + length > interruptRange.first

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
  readonly #options: RequesterOptions
  readonly #checksSource: boolean
  readonly #dma: RemappedDma
  readonly #bytes = new Uint8Array(4)
  readonly #known: (KnownInterrupt | undefined)[] = new Array(rememberedInterrupts).fill(undefined)

  constructor(options: RequesterOptions & { checksSource: boolean }) {
    this.#options = options
    this.#checksSource = options.checksSource
    this.#dma = new RemappedDma(options)
  }

  signal(address: number, data: number): void {
    const source = this.#options.requester()
    const unit = this.#options.unitFor(source)
    if (!isInterruptAddress(address)) return this.#write(address, data)
    const slot = (address >>> 5) & (rememberedInterrupts - 1)
    const known = this.#known[slot]
    const same = known && known.address === address && known.data === data && known.source === source && known.unit === unit
    if (same && known.epoch === unit.caches.interruptEpoch && !unit.onEvent) return unit.deliver(known.message)
    const message = unit.interrupt(this.#checksSource ? source : undefined, address, data)
    this.#known[slot] = message && { address, data, source, unit, epoch: unit.caches.interruptEpoch, message }
  }

  #write(address: number, data: number): void {
    new DataView(this.#bytes.buffer).setUint32(0, data, true)
    this.#dma.write(address, this.#bytes)
  }
}
