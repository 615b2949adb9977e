/** A device's ports when there are remapping units: each request goes through the one that has its requester in its scope. */
import type { DmaPort, DmaResult, MsiPort } from '../devices/ports.ts'
import type { Translation } from './caches.ts'
import { hex, interruptRange, isInterruptAddress, type SourceId, sourceText, type UnitEvent } from './ports.ts'
import type { RemappingUnit } from './unit.ts'

/** Pages that a requester remembers: rings and buffers of one device take turns. A power of two. */
const remembered = 16

export interface RequesterOptions {
  /** Who it is at the moment of the request. */
  requester: () => SourceId
  unitFor: (source: SourceId) => RemappingUnit
  memory: DmaPort
}

export class RemappedDma implements DmaPort {
  readonly #options: RequesterOptions
  readonly #memory: DmaPort
  readonly #pages: (Translation | undefined)[] = new Array(remembered).fill(undefined)
  #source = -1
  #unit: RemappingUnit | undefined
  #epoch = -1

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
    if (source !== this.#source || unit !== this.#unit || unit.caches.epoch !== this.#epoch) this.#forget(source, unit)
    const page = this.#pages[(address / 4096) & (remembered - 1)]
    if (page && !unit.onEvent && (write ? page.writable : page.readable)) {
      const offset = address - page.input
      if (offset >= 0 && offset + bytes.length <= page.size && !reachesInterrupts(address, bytes.length))
        return write ? this.#memory.write(page.output + offset, bytes) : this.#memory.read(page.output + offset, bytes)
    }
    return this.#inPieces(unit, source, address, bytes, write)
  }

  #forget(source: SourceId, unit: RemappingUnit): void {
    this.#source = source
    this.#unit = unit
    this.#epoch = unit.caches.epoch
    this.#pages.fill(undefined)
  }

  /** Page by page; what came before a fault has happened. */
  #inPieces(unit: RemappingUnit, source: SourceId, address: number, bytes: Uint8Array, write: boolean): DmaResult {
    for (let done = 0; done < bytes.length;) {
      const at = address + done
      if (isInterruptAddress(at)) return interruptAccess(unit, source, at, bytes.subarray(done), write)
      const page = this.#pageFor(unit, source, at, write)
      if (!page) return 'blocked'
      const end = at < interruptRange.first ? Math.min(page.input + page.size, interruptRange.first) : page.input + page.size
      const length = Math.min(bytes.length - done, end - at)
      const target = page.output + (at - page.input)
      if (page.size > 2 ** 40 && unit.isProtected(target, length)) return 'blocked'
      unit.onEvent?.(accessEvent(unit, source, at, length, write, page))
      const piece = bytes.subarray(done, done + length)
      const result = write ? this.#memory.write(target, piece) : this.#memory.read(target, piece)
      if (result !== 'ok') return result
      done += length
    }
    return 'ok'
  }

  #pageFor(unit: RemappingUnit, source: SourceId, address: number, write: boolean): Translation | undefined {
    if (!unit.translating) return untranslated
    const walked = unit.translate({ source, address, write })
    if ('fault' in walked) return undefined
    // A walk may have made the caches forget others.
    if (unit.caches.epoch !== this.#epoch) this.#forget(source, unit)
    const { translation } = walked
    if (translation.size <= 2 ** 40) this.#pages[(address / 4096) & (remembered - 1)] = translation
    return translation
  }
}

const untranslated: Translation = { input: 0, size: 2 ** 53, output: 0, readable: true, writable: true, userAllowed: true }

function accessEvent(unit: RemappingUnit, source: SourceId, at: number, length: number, write: boolean, page: Translation): UnitEvent {
  const asked = `${write ? 'write' : 'read'} of ${length} bytes at ${hex(at)} by ${sourceText(source)}`
  const context = unit.caches.context(source)
  const domain = context === undefined || context.kind === 'scalable' ? '' : ` by domain ${context.domain}`
  const how = !unit.translating ? 'is not translated' : page.size > 2 ** 40 ? 'passes through'
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

/** A message elsewhere than in the interrupt range is a write like any other. */
export function remappedMsi(options: RequesterOptions & { checksSource: boolean }): MsiPort {
  const { requester, unitFor, checksSource } = options
  const dma = new RemappedDma(options)
  const bytes = new Uint8Array(4)
  return {
    signal: (address, data) => {
      const source = requester()
      if (isInterruptAddress(address)) return unitFor(source).interrupt(checksSource ? source : undefined, address, data)
      new DataView(bytes.buffer).setUint32(0, data, true)
      dma.write(address, bytes)
    },
  }
}
