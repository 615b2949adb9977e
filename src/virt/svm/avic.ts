/**
 * AVIC: the APIC of a guest as a page of memory that the processor knows. Accesses to its registers by memory and MSR, task priority, the
 * virtual interrupts that follow from the page, doorbells. AMD APM vol. 2, "Advanced Virtual Interrupt Controller", "x2AVIC".
 */
import { join } from '../../cpu/bits.ts'
import { generalProtection } from '../../cpu/fault.ts'
import { at } from '../../cpu/layout.ts'
import { VmExit } from '../../cpu/virtualization.ts'
import { ApicPage, apicOffset as offset, icrBit } from '../apic-page.ts'
import { sendIpi, type IpiTables } from './avic-ipi.ts'
import { avicRegister } from './avic-registers.ts'
import { exitCode } from './exit-codes.ts'
import { avicMode, svmWord } from './state.ts'
import type { Svm } from './svm.ts'
import { offsetOf, physicalTableIndex, virtualInterrupt, type VmcbFieldName } from './vmcb.ts'

const doorbell = at.doorbell >> 2
const accessPage = at.apicAccessPage >> 2
/** What nested paging gives for the guest's APIC page: an address beyond all physical ones, so it can be no other page's. */
export const avicPage = { lo: 0, hi: 1 << 20 } as const

const pointers = [
  [svmWord.avicBar, 'apicBar'], [svmWord.avicBackingPage, 'apicBackingPage'], [svmWord.avicLogicalTable, 'apicLogicalTable'],
  [svmWord.avicPhysicalTable, 'apicPhysicalTable'],
] as const

const isWrite = 1n << 32n
/** Of ICRH in xAPIC mode: the others are reserved. */
const destinationBits = 0xff000000
const selfShorthand = 1 << icrBit.shorthandShift

export class Avic extends ApicPage implements IpiTables {
  private readonly unit: Svm
  private readonly words: Uint32Array

  constructor(unit: Svm) {
    super()
    this.unit = unit
    this.words = unit.words
  }

  // ---- world switches ----

  /** What a VMCB asks for. */
  private modeIn(start: number): number {
    const { offers } = this.unit
    const control = this.words[start + (offsetOf.virtualInterrupt >> 2)]
    if (!offers.avic || !(control & virtualInterrupt.avicEnable)) return avicMode.off
    return offers.x2avic && control & virtualInterrupt.x2avicEnable ? avicMode.msrs : avicMode.page
  }
  /** The pointer of a VMCB that leads to no RAM: the rules, which look at the VMCB alone, have let it pass. */
  missing(start: number): VmcbFieldName | undefined {
    const mode = this.modeIn(start)
    if (mode === avicMode.off) return undefined
    const asked = ['apicBackingPage', 'apicPhysicalTable', ...(mode === avicMode.page ? ['apicLogicalTable'] as const : [])] as const
    return asked.find(name => this.place(start + (offsetOf[name] >> 2)) === 0)
  }

  /** VMRUN, when the other controls are there. Interrupts are evaluated; V_TPR is the VMCB's, whatever the page says. */
  enter(start: number): void {
    const { words } = this
    const mode = this.modeIn(start)
    if (mode === avicMode.off) return
    words[svmWord.avic] = mode
    for (const [word, field] of pointers) {
      words[word] = words[start + (offsetOf[field] >> 2)]
      words[word + 1] = words[start + (offsetOf[field] >> 2) + 1]
    }
    if (mode === avicMode.page) {
      words[accessPage] = avicPage.lo | 1
      words[accessPage + 1] = avicPage.hi
    }
    this.evaluate()
  }
  /** Where guests of an ASID found their APIC at the last VMRUN, for what may be cached. */
  private readonly bars = new Map<number, number>()
  /**
   * True when it is elsewhere now, or nowhere: what is cached of the ASID would lead to an APIC that is not there, or to memory where one
   * is. The manual leaves open what hardware does then; hypervisors that switch AVIC off do not always ask for it.
   */
  hasMoved(asid: number): boolean {
    const { words, bars } = this
    if (words[svmWord.avic] !== avicMode.page) return bars.delete(asid)
    const bar = words[svmWord.avicBar + 1] * 2 ** 32 + words[svmWord.avicBar]
    if (bars.get(asid) === bar) return false
    bars.set(asid, bar)
    return true
  }
  /** #VMEXIT. */
  leave(): void {
    const { words } = this
    if (words[svmWord.avic] === avicMode.off) return
    words[svmWord.avic] = avicMode.off
    words[accessPage] = 0
    words[accessPage + 1] = 0
  }
  get isOn(): boolean {
    return this.words[svmWord.avic] !== avicMode.off
  }
  get isX2apic(): boolean {
    return this.words[svmWord.avic] === avicMode.msrs
  }

  // ---- the backing page ----

  /** Of the page at which these words point: linear address; 0 where there is no RAM. */
  private place(word: number): number {
    const { words } = this
    return this.unit.physical.pagePlace(words[word] & ~0xfff, words[word + 1] | 0)
  }
  protected read(register: number): number {
    return this.wordAt(this.place(svmWord.avicBackingPage), register)
  }
  protected write(register: number, value: number): void {
    this.putWord(this.place(svmWord.avicBackingPage), register, value)
  }
  /** VMRUN has seen that the pages of the VMCB are there. */
  private wordAt(place: number, byte: number): number {
    return place === 0 ? 0 : this.words[(place + byte) >>> 2] | 0
  }
  private putWord(place: number, byte: number, value: number): void {
    if (place === 0) return
    this.unit.physical.aboutToWrite(place + byte, 4)
    this.words[(place + byte) >>> 2] = value
  }

  // ---- priorities and virtual interrupts ----

  /**
   * What the page asks for, looked at when the manual says so: at VMRUN, when a doorbell rings, when the guest changes IRR, ISR or TPR. An
   * IRR that another processor changes without a doorbell is seen at the next of these.
   */
  private evaluate(): void {
    const { words } = this
    const task = words[svmWord.virtualInterrupt] & virtualInterrupt.tprMask
    const service = this.highest(offset.isr) & 0xf0
    const tpr = this.read(offset.tpr) & 0xff
    const priority = service > task << 4 ? service : tpr >> 4 === task ? tpr : task << 4
    if ((this.read(offset.ppr) & 0xff) !== priority) this.write(offset.ppr, priority)
    words[svmWord.avicPriority] = priority
    words[svmWord.avicRequest] = this.highest(offset.irr)
    words[doorbell] = 0
  }
  private changed(): void {
    this.evaluate()
    this.unit.cpu.interruptChanged()
  }

  /** A doorbell rings. While another processor had its turn, it left word of it. */
  doorbell(): void {
    this.changed()
  }
  takeDoorbell(): void {
    if (this.words[doorbell] !== 0) this.changed()
  }

  /** An interrupt waits that the priority lets through. Changes nothing, so it can be asked at any time. */
  hasInterrupt(): boolean {
    const { words } = this
    const request = words[doorbell] === 0 ? words[svmWord.avicRequest] : this.highest(offset.irr)
    return request >> 4 > words[svmWord.avicPriority] >> 4
  }
  /** Its vector, which moves from IRR to ISR. */
  take(): number {
    const vector = this.words[svmWord.avicRequest]
    this.setBit(offset.irr, vector, false)
    this.setBit(offset.isr, vector, true)
    this.evaluate()
    return vector
  }

  /** MOV to CR8: the priority, and the page's register with a sub-class of 0. */
  writeTpr(priority: number): void {
    this.write(offset.tpr, priority << 4)
    this.setPriority(priority)
  }
  private setPriority(priority: number): void {
    const { words } = this
    words[svmWord.virtualInterrupt] = (words[svmWord.virtualInterrupt] & ~virtualInterrupt.tprMask) | priority
    this.changed()
  }

  /** A level-triggered one is the hypervisor's: it stays in service. */
  private endOfInterrupt(): void {
    const vector = this.highest(offset.isr)
    if (vector === 0) return
    if (this.hasBit(offset.tmr, vector)) return this.trap(exitCode.avicNoAccel, isWrite | BigInt(offset.eoi), BigInt(vector))
    this.setBit(offset.isr, vector, false)
    this.changed()
  }

  // ---- interprocessor interrupts ----

  get lastIndex(): number {
    return this.words[svmWord.avicPhysicalTable] & physicalTableIndex
  }
  registerAt(register: number): number {
    return this.read(register)
  }
  physicalEntry(word: number): number {
    return this.wordAt(this.place(svmWord.avicPhysicalTable), word * 4)
  }
  logicalEntry(word: number): number {
    return this.wordAt(this.place(svmWord.avicLogicalTable), word * 4)
  }
  isPage(lo: number, hi: number): boolean {
    return this.unit.physical.pagePlace(lo | 0, hi) !== 0
  }
  isOwnPage(lo: number, hi: number): boolean {
    return ((lo ^ this.words[svmWord.avicBackingPage]) & ~0xfff) === 0 && hi === this.words[svmWord.avicBackingPage + 1]
  }
  request(lo: number, hi: number, vector: number): void {
    const place = this.unit.physical.pagePlace(lo | 0, hi)
    const byte = offset.irr + (vector >> 5) * 16
    this.putWord(place, byte, this.wordAt(place, byte) | (1 << (vector & 31)))
  }
  requestSelf(vector: number): void {
    this.setBit(offset.irr, vector, true)
    this.changed()
  }
  ringDoorbell(apicId: number): void {
    this.unit.cpu.apic.ringDoorbell?.(apicId)
  }

  private send(low: number, high: number): void {
    const failed = sendIpi(this, low, high)
    if (failed) this.trap(exitCode.avicIncompleteIpi, join(low, high), join(failed.index, failed.id))
  }

  // ---- accesses ----

  /** An exit after the access: the instruction completes first. */
  private trap(code: number, info1: bigint, info2: bigint): void {
    const { unit, words } = this
    words[svmWord.writeTrap] = code
    unit.setWide(svmWord.trapInfo1, info1)
    unit.setWide(svmWord.trapInfo2, info2)
  }
  /** EXITINFO2 has the vector that an EOI would end. */
  private noAccel(at: number, write: boolean): VmExit {
    const register = at & 0xff0
    const vector = write && register === offset.eoi ? BigInt(this.highest(offset.isr)) : 0n
    return new VmExit(exitCode.avicNoAccel, BigInt(register) | (write ? isWrite : 0n), vector)
  }

  /** Undefined: a load or store of the page is made. Of bytes 4 to 15 of a register the manual says nothing: they exit. */
  pageExit(at: number, size: number, write: boolean): VmExit | undefined {
    const inside = (at & 15) + size <= 4
    return inside && avicRegister(at)[write ? 'write' : 'read'] !== 'fault' ? undefined : this.noAccel(at, write)
  }
  fetchExit(at: number): VmExit {
    return this.noAccel(at, false)
  }
  writePage(at: number, size: number, value: number): void {
    this.putBytes(at, size, value)
    const register = at & 0xff0
    if (register === offset.tpr) this.write(offset.tpr, this.read(offset.tpr) & 0xff)
    if (register === offset.icr) this.write(offset.icr, this.read(offset.icr) & ~icrBit.pending)
    if (register === offset.icrHigh) this.write(offset.icrHigh, this.read(offset.icrHigh) & destinationBits)
    this.written(register)
  }

  /** What the write of a register means beyond its storage. */
  private written(register: number): void {
    const { write } = avicRegister(register)
    if (write === 'trap') this.trap(exitCode.avicNoAccel, isWrite | BigInt(register), 0n)
    if (write !== 'accelerated') return
    if (register === offset.tpr) this.setPriority((this.read(offset.tpr) >> 4) & 15)
    else if (register === offset.eoi) this.endOfInterrupt()
    else this.send(this.read(offset.icr), this.read(offset.icrHigh))
  }

  // ---- MSRs 800H to 8FFH ----

  private isMsr(index: number): boolean {
    return index >>> 8 === 8 && this.isX2apic
  }
  /** RDMSR that the permission map let pass; undefined: the MSR itself. May exit. */
  readMsr(index: number): bigint | undefined {
    if (!this.isMsr(index)) return undefined
    const register = (index & 0xff) << 4
    const { msr, read } = avicRegister(register)
    if (!msr?.access.includes('r')) throw generalProtection()
    if (read === 'fault') throw this.noAccel(register, false)
    return join(this.read(register), register === offset.icr ? this.read(offset.icrHigh) : 0)
  }
  /** WRMSR. False: the MSR itself; undefined: #GP, which comes before AVIC's exits. May exit. */
  writeMsr(index: number, value: bigint): boolean | undefined {
    if (!this.isMsr(index)) return false
    const register = (index & 0xff) << 4
    const { msr, write } = avicRegister(register)
    const low = Number(value & 0xffffffffn)
    const high = Number(value >> 32n)
    if (!msr?.access.includes('w') || low & ~msr.writable || (high !== 0 && register !== offset.icr)) return undefined
    if (write === 'fault') throw this.noAccel(register, true)
    if (register === offset.selfIpi) {
      this.send(low | selfShorthand, 0)
      return true
    }
    this.write(register, low)
    if (register === offset.icr) this.write(offset.icrHigh, high)
    this.written(register)
    return true
  }
}
