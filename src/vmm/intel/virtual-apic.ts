/**
 * A vCPU's APIC in the processor's hands: the virtual-APIC page and the posted-interrupt descriptor as the hypervisor keeps them in memory.
 * Intel SDM vol. 3, "APIC Virtualization and Virtual Interrupts", "Posted-Interrupt Processing", "IPI Virtualization".
 */
import type { PriorityRegisters, PriorityState } from '../../interrupts/lapic-priority.ts'
import type { Lapic } from '../../interrupts/lapic.ts'
import type { ApicAssist, AssistHost } from '../apic/assist.ts'
import type { PagePool } from '../page-pool.ts'
import type { MemoryPort } from '../port.ts'
import { hostVector, type Processor } from '../processor.ts'
import type { Vcpu } from '../vcpu.ts'
import type { VtX } from './vt-x.ts'

/** Offsets of registers on the page. */
const at = { tpr: 0x80, isr: 0x100, tmr: 0x180, irr: 0x200, icr: 0x300, icrHigh: 0x310 } as const
/** Registers, by number, whose value on the page is the APIC's: the guest reads them with no exit. */
const mirrored = [0x02, 0x03, 0x0d, 0x0e, 0x0f, 0x28, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e] as const
const noX2apic: readonly number[] = [0x0e]

/** The posted-interrupt descriptor: 256 requests, then ON, SN, NV and NDST. */
export const posted = { controlAt: 32, destinationAt: 36, outstanding: 1, suppressed: 2, vectorShift: 16 } as const

const highestOf = (words: readonly number[]): number => {
  for (let i = 7; i >= 0; i--) if (words[i] !== 0) return i * 32 + 31 - Math.clz32(words[i])
  return -1
}

/** A register of 256 bits: eight words, 16 bytes apart on the page. */
class PageBits {
  private readonly memory: MemoryPort
  private readonly base: number
  constructor(memory: MemoryPort, base: number) {
    this.memory = memory
    this.base = base
  }
  get words(): number[] {
    return Array.from({ length: 8 }, (_, i) => this.memory.read32(this.base + i * 16))
  }
  has(vector: number): boolean {
    return ((this.memory.read32(this.base + (vector >> 5) * 16) >>> (vector & 31)) & 1) !== 0
  }
  set(vector: number, on: boolean): void {
    const place = this.base + (vector >> 5) * 16
    const word = this.memory.read32(place)
    this.memory.write32(place, (on ? word | (1 << (vector & 31)) : word & ~(1 << (vector & 31))) >>> 0)
  }
  add(index: number, bits: number): void {
    const place = this.base + index * 16
    this.memory.write32(place, (this.memory.read32(place) | bits) >>> 0)
  }
  highest(): number {
    return highestOf(this.words)
  }
  store(words: readonly number[]): void {
    words.forEach((word, i) => this.memory.write32(this.base + i * 16, word >>> 0))
  }
}

/** Of a guest's vCPUs: where the processor finds the descriptor of the one with an APIC ID. */
export class DescriptorTable {
  readonly page: number
  readonly last: number
  private readonly pool: PagePool
  private users: number
  constructor(pool: PagePool, count: number) {
    this.pool = pool
    this.page = pool.take()
    this.last = count - 1
    this.users = count
  }
  /** By one of its vCPUs. */
  release(): void {
    if (--this.users === 0) this.pool.give(this.page)
  }
  set(id: number, descriptor: number): void {
    this.pool.memory.write64(this.page + id * 8, BigInt(descriptor) | 1n)
  }
}

export class PostedApic implements ApicAssist, PriorityRegisters {
  readonly page: number
  readonly descriptor: number
  readonly irr: PageBits
  readonly isr: PageBits
  readonly tmr: PageBits
  readonly statistics = { posted: 0, notified: 0, taken: 0 }
  /** Vectors whose end exits: those of level-triggered interrupts. */
  readonly eoiExits = new BigUint64Array(4)
  readonly table: DescriptorTable | undefined
  private readonly memory: MemoryPort
  private readonly pool: PagePool
  private readonly virtualizer: VtX
  private readonly host: AssistHost
  private vcpu: Vcpu | undefined
  private lapic: Lapic | undefined
  /** What the control structure says of the APIC's mode and place. */
  private configured: string | undefined
  private eoiKnown = false
  private endedVector = -1

  /** `table`: the processors send the guest's IPIs by themselves. */
  constructor(virtualizer: VtX, pool: PagePool, host: AssistHost, table: DescriptorTable | undefined) {
    this.virtualizer = virtualizer
    this.host = host
    this.pool = pool
    this.memory = pool.memory
    this.table = table
    this.page = pool.take()
    this.descriptor = pool.take()
    this.irr = new PageBits(this.memory, this.page + at.irr)
    this.isr = new PageBits(this.memory, this.page + at.isr)
    this.tmr = new PageBits(this.memory, this.page + at.tmr)
    this.setControl(posted.suppressed, hostVector.posted)
  }
  release(): void {
    for (const page of [this.page, this.descriptor]) this.pool.give(page)
    this.table?.release()
  }
  get priority(): PriorityRegisters {
    return this
  }
  get base(): number | undefined {
    return this.lapic?.mmioBase
  }
  attach(vcpu: Vcpu, lapic: Lapic): void {
    this.vcpu = vcpu
    this.lapic = lapic
    this.table?.set(lapic.id, this.descriptor)
    this.changed()
  }

  // ---- what the APIC keeps on the page

  get tpr(): number {
    return this.memory.read32(this.page + at.tpr) & 0xff
  }
  set tpr(value: number) {
    this.memory.write32(this.page + at.tpr, value)
  }
  get processorPriority(): number {
    const inService = Math.max(this.isr.highest(), 0) & 0xf0
    return (this.tpr & 0xf0) >= inService ? this.tpr : inService
  }
  /** None for the hypervisor to deliver: the processor does. */
  get pending(): number {
    return -1
  }
  clearVectors(): void {
    const none = new Array<number>(8).fill(0)
    for (const bits of [this.irr, this.isr, this.tmr]) bits.store(none)
    for (let i = 0; i < 4; i++) this.memory.write64(this.descriptor + i * 8, 0n)
    this.eoiExits.fill(0n)
    this.eoiKnown = false
    this.configured = undefined
  }
  request(vector: number, level: boolean): void {
    const changes = level !== this.tmr.has(vector)
    if (changes) {
      this.tmr.set(vector, level)
      const bit = 1n << BigInt(vector & 63)
      if (level) this.eoiExits[vector >> 6] |= bit
      else this.eoiExits[vector >> 6] &= ~bit
      this.eoiKnown = false
    }
    this.post(vector)
    // the exit at its end has to be asked for before it comes to its end
    if (this.vcpu) this.host.posted(this.vcpu, changes && level)
  }
  take(): never {
    throw new Error('the processor delivers this vCPU\'s interrupts')
  }
  end(): number {
    return this.endedVector
  }
  saveState(): PriorityState {
    return { tpr: this.tpr, irr: this.irr.words, isr: this.isr.words, tmr: this.tmr.words }
  }
  restoreState(state: PriorityState): void {
    this.tpr = state.tpr
    this.irr.store(state.irr)
    this.isr.store(state.isr)
    this.tmr.store(state.tmr)
  }

  // ---- the descriptor

  private setControl(flags: number, vector: number, destination = this.memory.read32(this.descriptor + posted.destinationAt)): void {
    const outstanding = this.memory.read32(this.descriptor + posted.controlAt) & posted.outstanding
    const low = (flags | outstanding | (vector << posted.vectorShift)) >>> 0
    this.memory.write64(this.descriptor + posted.controlAt, BigInt(low) | (BigInt(destination) << 32n))
  }
  private post(vector: number): void {
    const place = this.descriptor + (vector >> 5) * 4
    this.memory.write32(place, (this.memory.read32(place) | (1 << (vector & 31))) >>> 0)
    const control = this.memory.read32(this.descriptor + posted.controlAt)
    this.memory.write32(this.descriptor + posted.controlAt, (control | posted.outstanding) >>> 0)
    this.statistics.posted++
  }
  private get requests(): number[] {
    return Array.from({ length: 8 }, (_, i) => this.memory.read32(this.descriptor + i * 4))
  }
  wakes(): boolean {
    const vector = Math.max(this.irr.highest(), highestOf(this.requests))
    return this.external() || (vector >= 0 && vector >> 4 > this.processorPriority >> 4)
  }
  external(): boolean {
    return this.lapic?.hasInterrupt() ?? false
  }

  // ---- around the guest

  enter(processor: Processor): void {
    const vcpu = this.vcpu!
    const { mode, mmioBase } = this.lapic!
    const wanted = `${mode} ${mmioBase}`
    if (this.configured !== wanted) {
      this.virtualizer.setApic(vcpu, this, mode, mmioBase)
      this.configured = wanted
    }
    if (!this.eoiKnown) {
      this.virtualizer.setEoiExits(vcpu, this.eoiExits)
      this.eoiKnown = true
    }
    // from here on notifications come to this processor; what came before is collected after that
    this.setControl(0, hostVector.posted, processor.index << 8)
    this.collect(vcpu)
  }
  /** Requests go to the page: what the processor does when a notification comes to it in the guest. */
  private collect(vcpu: Vcpu): void {
    const control = this.memory.read32(this.descriptor + posted.controlAt)
    this.memory.write32(this.descriptor + posted.controlAt, (control & ~posted.outstanding) >>> 0)
    const { requests } = this
    const highest = highestOf(requests)
    if (highest < 0) return
    requests.forEach((bits, i) => {
      if (bits === 0) return
      this.memory.write32(this.descriptor + i * 4, 0)
      this.irr.add(i, bits)
    })
    this.virtualizer.raiseRequested(vcpu, highest)
  }
  exited(): void {}
  preempted(): void {
    this.setControl(posted.suppressed, hostVector.posted)
  }
  waits(processor: Processor): void {
    this.setControl(0, hostVector.wakeUp, processor.index << 8)
  }

  // ---- what the processor leaves to the APIC

  changed(): void {
    const lapic = this.lapic!
    const wide = lapic.mode === 'x2apic'
    if (lapic.mode === 'disabled') return
    for (const number of mirrored) {
      if (wide && noX2apic.includes(number)) continue
      const value = wide ? Number(lapic.readMsr(0x800 + number)! & 0xffffffffn) : lapic.readMmio(number << 4, 4)
      this.memory.write32(this.page + (number << 4), value >>> 0)
    }
  }
  commanded(value: bigint): void {
    this.memory.write64(this.page + at.icr, value)
  }
  written(offset: number): void {
    const lapic = this.lapic!
    const read = (register: number): number => this.memory.read32(this.page + register)
    if (lapic.mode === 'x2apic') {
      lapic.writeMsr(0x800 + (offset >> 4), offset === at.icr ? this.memory.read64(this.page + offset) : BigInt(read(offset)))
    } else {
      if (offset === at.icr) lapic.writeMmio(at.icrHigh, 4, read(at.icrHigh))
      lapic.writeMmio(offset, 4, read(offset))
    }
    this.changed()
  }
  ended(vector: number): void {
    this.endedVector = vector
    this.lapic!.endOfInterrupt()
    this.endedVector = -1
  }
}
