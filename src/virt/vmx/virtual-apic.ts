/**
 * APIC virtualization: TPR shadow, the virtual-APIC page, virtualized accesses by memory and MSR, virtual interrupts, posted interrupts.
 * Intel SDM vol. 3, chapter "APIC Virtualization and Virtual Interrupts".
 */
import { VmExit } from '../../cpu/virtualization.ts'
import { ApicPage, apicOffset as offset } from '../apic-page.ts'
import { primaryBit, secondaryBit, tertiaryBit } from './controls.ts'
import { reason } from './exit-reasons.ts'
import { at as field, type FieldName } from './fields.ts'
import type { VmxUnit } from './unit.ts'

const eoiBitmaps: readonly FieldName[] = ['eoiExitBitmap0', 'eoiExitBitmap1', 'eoiExitBitmap2', 'eoiExitBitmap3']
/** Of `vmxTrap`: there is one; below it reason and qualification. */
const trapBit = 1n << 63n
/** ON and SN of a posted-interrupt descriptor. */
const [outstanding, suppressed] = [1, 2]
const accessType = { read: 0, write: 1, fetch: 2, guestPhysical: 15 } as const

/** A read with register virtualization takes these from the page; others exit. */
const readable: ReadonlySet<number> = new Set([
  0x20, 0x30, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0,
  ...[0x100, 0x180, 0x200].flatMap(first => Array.from({ length: 8 }, (_, i) => first + i * 16)),
])
/** Writes that go to the page and then cause an APIC-write exit (some are virtualized instead). */
const writable: ReadonlySet<number> = new Set([
  0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0,
])

export class VirtualApic extends ApicPage {
  private readonly unit: VmxUnit

  constructor(unit: VmxUnit) {
    super()
    this.unit = unit
  }

  private get page(): bigint {
    return this.unit.current.get('virtualApicAddress')
  }
  protected read(register: number): number {
    return this.unit.readPhysical32(this.page + BigInt(register))
  }
  protected write(register: number, value: number): void {
    this.unit.writePhysical32(this.page + BigInt(register), value)
  }
  private has(bit: number): boolean {
    return this.unit.isOn('secondary', bit)
  }
  private get delivers(): boolean {
    return this.has(secondaryBit.virtualInterruptDelivery)
  }

  // ---- guest interrupt status: RVI and SVI ----

  private get rvi(): number {
    return this.unit.current.get32(field.guestInterruptStatus) & 0xff
  }
  private set rvi(value: number) {
    const { current } = this.unit
    current.set32(field.guestInterruptStatus, (current.get32(field.guestInterruptStatus) & 0xff00) | value)
  }
  private get svi(): number {
    return (this.unit.current.get32(field.guestInterruptStatus) >> 8) & 0xff
  }
  private set svi(value: number) {
    const { current } = this.unit
    current.set32(field.guestInterruptStatus, (current.get32(field.guestInterruptStatus) & 0xff) | (value << 8))
  }

  // ---- TPR and PPR ----

  get tpr(): number {
    return this.read(offset.tpr) & 0xff
  }
  /** MOV to CR8, and writes to the page: then TPR virtualization. */
  writeTpr(value: number): void {
    this.write(offset.tpr, value)
    this.virtualizeTpr()
  }
  private virtualizeTpr(): void {
    if (this.delivers) this.virtualizePpr()
    else if (this.isBelowThreshold()) this.trap(reason.tprBelowThreshold, 0n)
  }
  /** VTPR's class is below the threshold; without virtual-interrupt delivery that is an exit. */
  isBelowThreshold(): boolean {
    const { unit } = this
    if (!unit.isOn('primary', primaryBit.tprShadow) || this.delivers) return false
    return ((this.tpr >> 4) & 15) < (unit.current.get32(field.tprThreshold) & 15)
  }
  private virtualizePpr(): void {
    const { tpr, svi } = this
    this.write(offset.ppr, tpr >> 4 >= svi >> 4 ? tpr : svi & 0xf0)
    this.unit.cpu.interruptChanged()
  }

  /** At VM entry: PPR virtualization; posted interrupts are not looked at. */
  entered(): void {
    if (this.delivers) this.virtualizePpr()
  }

  // ---- virtual interrupts ----

  hasVirtualInterrupt(): boolean {
    if (!this.delivers) return false
    const ppr = this.read(offset.ppr) & 0xff
    return this.rvi >> 4 > ppr >> 4
  }
  /** Virtual-interrupt delivery: from VIRR to VISR. */
  takeVirtualInterrupt(): number {
    const vector = this.rvi
    this.setBit(offset.isr, vector, true)
    this.svi = vector
    this.write(offset.ppr, vector & 0xf0)
    this.setBit(offset.irr, vector, false)
    this.rvi = this.highest(offset.irr)
    return vector
  }

  /** EOI virtualization; may be followed by a virtualized-EOI exit. */
  private virtualizeEoi(): void {
    const vector = this.svi
    this.setBit(offset.isr, vector, false)
    this.svi = this.highest(offset.isr)
    this.virtualizePpr()
    const exits = (this.unit.current.get(eoiBitmaps[vector >> 6]) >> BigInt(vector & 63)) & 1n
    if (exits) this.trap(reason.virtualizedEoi, BigInt(vector))
  }
  private virtualizeSelfIpi(vector: number): void {
    this.setBit(offset.irr, vector, true)
    if (vector > this.rvi) this.rvi = vector
    this.unit.cpu.interruptChanged()
  }

  /** Posted-interrupt processing: ON is cleared, PIR goes to VIRR. */
  processPosted(): void {
    const { unit } = this
    const descriptor = unit.current.get('postedInterruptDescriptor')
    unit.writePhysical32(descriptor + 32n, unit.readPhysical32(descriptor + 32n) & ~1)
    for (let i = 0; i < 8; i++) {
      const at = descriptor + BigInt(i * 4)
      const requests = unit.readPhysical32(at)
      if (requests === 0) continue
      unit.writePhysical32(at, 0)
      this.write(offset.irr + i * 16, this.read(offset.irr + i * 16) | requests)
      const top = i * 32 + 31 - Math.clz32(requests)
      if (top > this.rvi) this.rvi = top
    }
    unit.cpu.interruptChanged()
  }

  // ---- IPI virtualization. Intel SDM vol. 3, "IPI Virtualization" ----

  private get sendsIpis(): boolean {
    return this.unit.isOn('tertiary', tertiaryBit.ipiVirtualization)
  }
  /** Fixed, physical, edge, to one destination, and no reserved bit. */
  private isPlainIpi(value: number): boolean {
    return (value & 0xffffbf00 & ~0x5000) === 0
  }
  /** WRMSR of the ICR in x2APIC mode. Undefined: #GP. */
  private writeWideIcr(value: bigint): true | undefined {
    const low = Number(value & 0xffffffffn)
    if (low & 0xfff33000) return undefined
    this.unit.writePhysical64(this.page + BigInt(offset.icr), value)
    if (!this.isPlainIpi(low) || !this.virtualizeIpi(Number(value >> 32n), low & 0xff)) this.trap(reason.apicWrite, BigInt(offset.icr))
    return true
  }
  /** Posts the vector to the virtual processor with that APIC ID. False: the hypervisor has to. */
  private virtualizeIpi(destination: number, vector: number): boolean {
    const { unit } = this
    if (vector < 16 || destination > unit.current.get32(field.lastPidPointerIndex)) return false
    const pointer = unit.readPhysical64(unit.current.get('pidPointerTable') + BigInt(destination) * 8n)
    if ((pointer & 0x3fn) !== 1n || pointer >> BigInt(unit.model.physicalBits) !== 0n) return false
    const descriptor = pointer & ~0x3fn
    const at = descriptor + BigInt((vector >> 5) * 4)
    unit.writePhysical32(at, unit.readPhysical32(at) | (1 << (vector & 31)))
    const control = unit.readPhysical32(descriptor + 32n)
    if (control & (outstanding | suppressed)) return true
    unit.writePhysical32(descriptor + 32n, control | outstanding)
    unit.cpu.apic.notify?.(unit.readPhysical32(descriptor + 36n) >>> 0, (control >>> 16) & 0xff)
    return true
  }

  // ---- accesses ----

  /** An exit after the access: the instruction completes first. */
  private trap(basic: number, qualification: bigint): void {
    this.unit.state.vmxTrap = trapBit | (BigInt(basic) << 32n) | qualification
  }

  /** Whether a load or store of the APIC-access page is virtualized; else it is an exit. */
  allows(at: number, size: number, write: boolean): boolean {
    const register = at & 0xff0
    return (at & 15) + size <= 4 && (write ? this.writesPage(register) : this.readsPage(register))
  }
  private readsPage(register: number): boolean {
    if (this.has(secondaryBit.apicRegisterVirtualization)) return readable.has(register)
    return this.unit.isOn('primary', primaryBit.tprShadow) && register === offset.tpr
  }
  /** What the store means beyond itself follows when the instruction is complete. */
  writePage(at: number, size: number, value: number): void {
    this.putBytes(at, size, value)
    this.written(at)
  }
  private writesPage(register: number): boolean {
    if (this.has(secondaryBit.apicRegisterVirtualization)) return writable.has(register)
    if (register === offset.tpr) return this.unit.isOn('primary', primaryBit.tprShadow)
    if (register === offset.icr && this.sendsIpis) return true
    return this.delivers && (register === offset.eoi || register === offset.icr)
  }

  /** APIC-write emulation. */
  private written(at: number): void {
    const register = at & 0xff0
    switch (register) {
      case offset.tpr:
        this.write(offset.tpr, this.read(offset.tpr) & 0xff)
        return this.virtualizeTpr()
      case offset.eoi:
        if (!this.delivers) break
        this.write(offset.eoi, 0)
        return this.virtualizeEoi()
      case offset.icr: {
        const value = this.read(offset.icr)
        if (this.sendsIpis && this.isPlainIpi(value) && this.virtualizeIpi(this.read(offset.icrHigh) >>> 24, value & 0xff)) return
        if (!this.delivers) break
        const isSelf = (value & 0x000c0000) === 0x00040000 && (value & 0xfff0f700 & ~0xc0000 & ~0x4000) === 0 && (value & 0xff) >= 16
        if (!isSelf) break
        return this.virtualizeSelfIpi(value & 0xff)
      }
      case offset.icrHigh:
        this.write(offset.icrHigh, this.read(offset.icrHigh) & 0xff000000)
        return
    }
    this.trap(reason.apicWrite, BigInt(at & 0xfff))
  }
  accessExit(at: number, write: boolean): VmExit {
    const qualification = BigInt((at & 0xfff) | ((write ? accessType.write : accessType.read) << 12))
    return new VmExit(reason.apicAccess, qualification, 0n, { length: this.unit.cpu.instructionLength })
  }

  fetchExit(at: number): VmExit {
    return new VmExit(reason.apicAccess, BigInt(at | (accessType.fetch << 12)))
  }
  /** A paging structure lies on the page. */
  tableExit(): VmExit {
    return new VmExit(reason.apicAccess, BigInt(accessType.guestPhysical << 12))
  }

  // ---- x2APIC mode ----

  /** RDMSR that the bitmap let pass; undefined: the MSR itself. */
  readMsr(index: number): bigint | undefined {
    if (!this.has(secondaryBit.virtualizeX2apic) || index >>> 8 !== 8) return undefined
    const register = (index & 0xff) << 4
    if (!this.has(secondaryBit.apicRegisterVirtualization) && register !== offset.tpr) return undefined
    const low = this.unit.readPhysical64(this.page + BigInt(register))
    return low
  }
  /** True: done. Bits that are reserved make the caller raise #GP: undefined stands for it. */
  writeMsr(index: number, value: bigint): boolean | undefined {
    if (!this.has(secondaryBit.virtualizeX2apic) || index >>> 8 !== 8) return false
    const register = (index & 0xff) << 4
    if (register === offset.tpr) {
      if (value >> 8n) return undefined
      this.unit.writePhysical64(this.page + BigInt(offset.tpr), value)
      this.virtualizeTpr()
      return true
    }
    if (register === offset.icr && this.sendsIpis) return this.writeWideIcr(value)
    if (!this.delivers) return false
    if (register === offset.eoi) {
      if (value !== 0n) return undefined
      this.write(offset.eoi, 0)
      this.virtualizeEoi()
      return true
    }
    if (register === offset.selfIpi) {
      if (value >> 8n) return undefined
      this.write(offset.selfIpi, Number(value))
      if ((Number(value) & 0xff) >= 16) this.virtualizeSelfIpi(Number(value) & 0xff)
      else this.trap(reason.apicWrite, BigInt(offset.selfIpi))
      return true
    }
    return false
  }
}

