/**
 * Memory as TypeScript helpers see it: linear addresses, checked and translated, at once. Intel SDM vol. 3, "Access Rights"; an access
 * that crosses pages checks both before a byte changes.
 */
import { Fault, vector } from '../cpu/fault.ts'
import type { LinearMemory, Privilege } from '../cpu/processor.ts'
import { helperScratch, tlbDataEntries } from '../memory/map.ts'
import { accessFlag, type Mmu } from './mmu.ts'
import { access, word } from './paging.ts'

const whoFlags: Record<Privilege, number> = { current: 0, supervisor: accessFlag.supervisor, user: accessFlag.user }

export class MmuLinearMemory implements LinearMemory {
  private readonly mmu: Mmu
  private readonly words: Int32Array
  private readonly bytes: Uint8Array
  private readonly view: DataView
  /** Takes BigInts apart without making new ones. */
  private readonly wide = new BigInt64Array(1)
  private readonly halves = new Int32Array(this.wide.buffer)

  constructor(mmu: Mmu) {
    this.mmu = mmu
    this.words = mmu.physical.words
    this.bytes = mmu.physical.bytes
    this.view = new DataView(this.bytes.buffer)
  }

  read8(address: bigint, as: Privilege = 'current'): number {
    return this.bytes[this.readable(address, 1, as)]
  }
  read16(address: bigint, as: Privilege = 'current'): number {
    return this.view.getUint16(this.readable(address, 2, as), true)
  }
  read32(address: bigint, as: Privilege = 'current'): number {
    return this.view.getUint32(this.readable(address, 4, as), true)
  }
  read64(address: bigint, as: Privilege = 'current'): bigint {
    return this.view.getBigUint64(this.readable(address, 8, as), true)
  }

  write8(address: bigint, value: number, as: Privilege = 'current'): void {
    const place = this.writable(address, 1, as)
    this.bytes[place] = value
    if (place === helperScratch) this.writeScratch(1, as)
  }
  write16(address: bigint, value: number, as: Privilege = 'current'): void {
    const place = this.writable(address, 2, as)
    this.view.setUint16(place, value, true)
    if (place === helperScratch) this.writeScratch(2, as)
  }
  write32(address: bigint, value: number, as: Privilege = 'current'): void {
    const place = this.writable(address, 4, as)
    this.view.setUint32(place, value, true)
    if (place === helperScratch) this.writeScratch(4, as)
  }
  write64(address: bigint, value: bigint, as: Privilege = 'current'): void {
    const place = this.writable(address, 8, as)
    this.view.setBigUint64(place, value, true)
    if (place === helperScratch) this.writeScratch(8, as)
  }

  probeWrite(address: bigint, length: number, as: Privilege = 'current'): void {
    this.probe(address, length, access.write, as)
  }
  probeRead(address: bigint, length: number, as: Privilege = 'current'): void {
    this.probe(address, length, access.read, as)
  }

  placeForRead(address: bigint, as: Privilege = 'current'): number {
    return this.place(address, access.read, as)
  }
  placeForWrite(address: bigint, as: Privilege = 'current'): number {
    return this.place(address, access.write, as)
  }
  /** Gates, descriptors and frames of events, whoever runs: in the kernel's first level, if that is known. */
  knownPlace(low: number, high: number, write: boolean): number {
    const table = this.words[write ? word.kernelTables + 1 : word.kernelTables]
    return table === 0 ? 0 : this.firstLevel(table, low | 0, high | 0, 1)
  }

  copyElement(from: number, to: number, size: number): boolean {
    const source = this.firstLevel(this.words[word.tlbRead], from | 0, 0, size)
    const target = source === 0 ? 0 : this.firstLevel(this.words[word.tlbWrite], to | 0, 0, size)
    if (target === 0) return false
    const { bytes } = this
    if (size === 1) bytes[target] = bytes[source]
    else bytes.copyWithin(target, source, source + size)
    return true
  }

  placeForBulkWrite(address: bigint): number {
    const place = this.place(address, access.write, 'current')
    if (place !== 0) return place
    return this.mmu.forgetCode() ? this.place(address, access.write, 'current') : 0
  }

  readShadow(address: bigint, size: 4 | 8, user: boolean): bigint {
    if (size === 8 && (address & 0xfffn) > 0xff8n)
      return this.readShadow(address, 4, user) | (this.readShadow(address + 4n, 4, user) << 32n)
    const place = this.shadowPlace(address, access.read, user)
    const from = place === 0 ? helperScratch : place
    if (place === 0) this.mmu.physical.fetch(this.mmu.physicalLo | (this.halves[0] & 0xfff), this.mmu.physicalHi, from, size)
    return size === 8 ? this.view.getBigUint64(from, true) : BigInt(this.view.getUint32(from, true))
  }
  writeShadow(address: bigint, size: 4 | 8, value: bigint, user: boolean): void {
    if (size === 8 && (address & 0xfffn) > 0xff8n) {
      this.probeShadow(address, 8, user)
      this.writeShadow(address, 4, value & 0xffffffffn, user)
      return this.writeShadow(address + 4n, 4, value >> 32n, user)
    }
    const place = this.shadowPlace(address, access.write, user)
    const plain = place !== 0 && this.mmu.physical.pageFlags[place >>> 12] === 0
    const to = plain ? place : helperScratch
    if (size === 8) this.view.setBigUint64(to, value, true)
    else this.view.setUint32(to, Number(value & 0xffffffffn), true)
    if (!plain) this.mmu.physical.store(this.mmu.physicalLo | (this.halves[0] & 0xfff), this.mmu.physicalHi, to, size)
  }
  probeShadow(address: bigint, length: number, user: boolean): void {
    const end = address + BigInt(length)
    for (let at = address; at < end; at = (at | 0xfffn) + 1n) this.shadowPlace(at, access.write, user)
  }
  /** 0: it is not RAM. */
  private shadowPlace(address: bigint, what: number, user: boolean): number {
    this.split(address)
    const lo = this.halves[0]
    if (!this.mmu.translateShadow(lo, this.halves[1], what, user)) throw this.fault()
    const page = this.mmu.physical.pagePlace(this.mmu.physicalLo, this.mmu.physicalHi)
    return page === 0 ? 0 : (page + (lo & 0xfff)) >>> 0
  }

  /** Linear-memory address of the bytes; of a copy in scratch when they are not one piece of RAM. */
  private readable(address: bigint, size: number, as: Privilege): number {
    this.split(address)
    const lo = this.halves[0]
    const hi = this.halves[1]
    if (as === 'current') {
      const place = this.firstLevel(this.words[word.tlbRead], lo, hi, size)
      if (place !== 0) return place
    }
    const flags = size | whoFlags[as]
    if ((lo & 0xfff) + size <= 4096) {
      const place = this.mmu.plainRead(lo, hi, flags)
      if (place > 0) return place
      if (place < 0) throw this.fault()
    }
    if (!this.mmu.readNow(lo, hi, flags, helperScratch)) throw this.fault()
    return helperScratch
  }

  /** Where the bytes may be written at once; scratch when writeScratch must write them out. Faults before anything changes. */
  private writable(address: bigint, size: number, as: Privilege): number {
    this.split(address)
    const lo = this.halves[0]
    const hi = this.halves[1]
    if (as === 'current') {
      const place = this.firstLevel(this.words[word.tlbWrite], lo, hi, size)
      if (place !== 0) return place
    }
    if ((lo & 0xfff) + size > 4096) return helperScratch
    const place = this.mmu.plainWrite(lo, hi, size | whoFlags[as])
    if (place < 0) throw this.fault()
    return place === 0 ? helperScratch : place
  }

  /** The address is still in `halves`. */
  private writeScratch(size: number, as: Privilege): void {
    const lo = this.halves[0]
    const hi = this.halves[1]
    if (!this.mmu.writeNow(lo, hi, size | whoFlags[as], helperScratch)) throw this.fault()
  }

  private firstLevel(table: number, lo: number, hi: number, size: number): number {
    const slot = (table >>> 2) + ((lo >>> 12) & (tlbDataEntries - 1)) * 4
    const hit = this.words[slot] === (lo & ~0xfff) && this.words[slot + 1] === hi && (lo & 0xfff) + size <= 4096
    return hit ? (this.words[slot + 2] + (lo & 0xfff)) >>> 0 : 0
  }

  private probe(address: bigint, length: number, what: number, as: Privilege): void {
    for (let done = 0; done < length; ) {
      this.split(address + BigInt(done))
      const lo = this.halves[0]
      const hi = this.halves[1]
      if (!this.mmu.translate(lo, hi, what, whoFlags[as])) throw this.fault()
      done += 4096 - (lo & 0xfff)
    }
  }

  private place(address: bigint, what: number, as: Privilege): number {
    this.split(address)
    const lo = this.halves[0]
    const hi = this.halves[1]
    if (as === 'current') {
      const known = this.firstLevel(this.words[what === access.write ? word.tlbWrite : word.tlbRead], lo, hi, 1)
      if (known !== 0) return known
    }
    const flags = 1 | whoFlags[as]
    const place = what === access.write ? this.mmu.plainWrite(lo, hi, flags) : this.mmu.plainRead(lo, hi, flags)
    if (place < 0) throw this.fault()
    return place
  }

  /** Outside long mode linear addresses have 32 bits. */
  private split(address: bigint): void {
    this.wide[0] = address
    if (!this.mmu.longMode) this.halves[1] = 0
  }

  private fault(): Fault {
    const words = this.words
    // the delivery of an event must see what it is
    if (words[word.faultVector] === vector.EXIT) return this.mmu.secondStage!.exit()
    const isPage = words[word.faultVector] === 14
    const address = isPage ? this.view.getBigUint64(word.faultAddress * 4, true) : undefined
    return new Fault(words[word.faultVector], words[word.faultError], address)
  }
}
