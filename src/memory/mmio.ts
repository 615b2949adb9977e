/** Memory-mapped registers by physical address: which device answers, and how an access is split for it. */
import type { AccessSize, LogUnhandled, MmioHandler } from '../devices/ports.ts'

/** A claimed range. Keep it to remove it again. */
export interface MmioRegion {
  readonly base: number
  readonly end: number
  readonly name: string
  readonly handler: MmioHandler
  /** Virtual nanoseconds that a CPU waits for an access. */
  readonly time: number
}

/** As long as a port access: across the chipset and back. */
const usualTime = 1000

/** Pages of nothing that are reported; software that scans an address space must not fill the log. */
const reportedPages = 256

export class MmioBus {
  /** Newest first: it wins where ranges overlap. */
  private regions: MmioRegion[] = []
  private readonly reported = new Set<number>()
  private readonly log: LogUnhandled

  /** Virtual nanoseconds that all accesses so far took. */
  time = 0

  constructor(log: LogUnhandled) {
    this.log = log
  }

  add(base: number, size: number, name: string, handler: MmioHandler, time = usualTime): MmioRegion {
    if (!(size > 0) || !Number.isSafeInteger(base) || base < 0) throw new Error(`MMIO range ${name}: base ${base}, size ${size}`)
    const region = { base, end: base + size, name, handler, time }
    this.regions.unshift(region)
    return region
  }

  remove(region: MmioRegion): void {
    if (!this.regions.includes(region)) throw new Error(`MMIO range ${region.name} is not mapped`)
    this.regions = this.regions.filter(other => other !== region)
  }

  /** True when any byte of the range is claimed. */
  covers(base: number, end: number): boolean {
    return this.regions.some(region => region.base < end && base < region.end)
  }

  /** Reads `length` bytes as the device would see them asked for; false when some were claimed by nobody (they read all ones). */
  read(address: number, into: Uint8Array, offset: number, length: number): boolean {
    let claimed = true
    for (let done = 0; done < length; ) {
      const region = this.find(address + done)
      const size = region ? piece(region, address + done, length, length - done) : 1
      this.time += region?.time ?? usualTime
      let value = 0xffffffff
      if (region) value = region.handler.readMmio(address + done - region.base, size)
      else {
        this.report('read', address + done, length)
        claimed = false
      }
      for (let byte = 0; byte < size; byte++) into[offset + done + byte] = value >>> (8 * byte)
      done += size
    }
    return claimed
  }

  write(address: number, from: Uint8Array, offset: number, length: number): boolean {
    let claimed = true
    for (let done = 0; done < length; ) {
      const region = this.find(address + done)
      const size = region ? piece(region, address + done, length, length - done) : 1
      this.time += region?.time ?? usualTime
      let value = 0
      for (let byte = 0; byte < size; byte++) value |= from[offset + done + byte] << (8 * byte)
      if (region) region.handler.writeMmio(address + done - region.base, size, value >>> 0)
      else {
        this.report('write', address + done, length)
        claimed = false
      }
      done += size
    }
    return claimed
  }

  /** Says once a page that software touched what is not there. */
  report(what: string, address: number, length: number): void {
    const page = Math.floor(address / 4096)
    if (this.reported.size >= reportedPages || this.reported.has(page)) return
    this.reported.add(page)
    this.log('physical memory', `${what} of ${length} bytes at 0x${address.toString(16)}`)
  }

  private find(address: number): MmioRegion | undefined {
    for (const region of this.regions) if (address >= region.base && address < region.end) return region
    return undefined
  }
}

/**
 * An access of 1, 2 or 4 bytes goes as it is, wider ones by dwords, odd remains (of a page-crossing access) in naturally aligned pieces.
 */
function piece(region: MmioRegion, address: number, whole: number, left: number): AccessSize {
  const room = region.end - address
  if (whole === 1 || whole === 2 || whole === 4) return whole <= room && left === whole ? whole : 1
  if (whole % 4 === 0) return room >= 4 ? 4 : 1
  if (left >= 2 && address % 2 === 0 && room >= 2) return 2
  return 1
}
