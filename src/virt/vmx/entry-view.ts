/** What the rules of VM entry look at: the VMCS, the processor's capabilities, and conditions that several rules share. */
import { canonicalFor } from '../../cpu/bits.ts'
import type { CpuModel } from '../../cpu/model.ts'
import { allowed1, eptVpidCapabilities, groups, primaryBit, secondaryBit, entryBit, exitBit, type GroupName } from './controls.ts'
import { at, vmcsRevision, type FieldName } from './fields.ts'
import type { Vmcs } from './vmcs.ts'

const rflagsVm = 1 << 17
const cr0PG = 0x80000000
const cr0PE = 1
const cr4PAE = 1 << 5

/** Made once a CPU; `look` takes the present VMCS. */
export class EntryView {
  readonly model: CpuModel
  readonly cr4Writable: bigint
  readonly eptCapabilities: bigint
  /** The processor is in IA-32e mode at VM entry. */
  hostIsLong = true
  vmcs!: Vmcs
  pin = 0
  primary = 0
  /** 0 unless the primary controls activate them. */
  secondary = 0
  /** The low half: the other has no controls. */
  tertiary = 0
  exit = 0
  entry = 0
  /** Reads physical memory for rules that look at what a field points to. */
  readonly readPhysical32: (address: bigint) => number
  private readonly allowed: Record<GroupName, number>

  constructor(model: CpuModel, cr4Writable: bigint, readPhysical32: (address: bigint) => number) {
    this.model = model
    this.cr4Writable = cr4Writable
    this.eptCapabilities = eptVpidCapabilities(model)
    this.readPhysical32 = readPhysical32
    this.allowed = Object.fromEntries(
      Object.entries(groups).map(([name, group]) => [name, allowed1(model, group)]),
    ) as Record<GroupName, number>
  }

  look(vmcs: Vmcs, hostIsLong: boolean): void {
    this.vmcs = vmcs
    this.hostIsLong = hostIsLong
    this.pin = vmcs.get32(at.pinControls)
    this.primary = vmcs.get32(at.primaryControls)
    this.secondary = this.primary & primaryBit.secondaryControls ? vmcs.get32(at.secondaryControls) : 0
    this.tertiary = this.primary & primaryBit.tertiaryControls ? vmcs.get32(at.tertiaryControls) : 0
    this.exit = vmcs.get32(at.exitControls)
    this.entry = vmcs.get32(at.entryControls)
  }

  /** The low 32 bits of a field, unsigned. */
  n(name: FieldName): number {
    return this.vmcs.get32(at[name]) >>> 0
  }
  /** The high 32 bits, signed. */
  high(name: FieldName): number {
    return this.vmcs.get32(at[name] + 1)
  }
  isAllOnes(name: FieldName): boolean {
    return (this.vmcs.get32(at[name]) & this.vmcs.get32(at[name] + 1)) === -1
  }
  b(name: FieldName): bigint {
    return this.vmcs.get64(at[name])
  }

  /** Bits that must be 1 and that may be 1, by the true capability MSR. */
  controlsAllowed(name: GroupName, value: number): boolean {
    const must = groups[name].trueDefault1
    const may = this.allowed[name] | groups[name].default1
    return (value & must) === must && (value & ~may) === 0
  }
  nearestControls(name: GroupName, value: number): bigint {
    const must = groups[name].trueDefault1
    return BigInt(((value | must) & (this.allowed[name] | groups[name].default1)) >>> 0)
  }

  has(bit: number, word: number): boolean {
    return (word & bit) !== 0
  }
  get ept(): boolean {
    return (this.secondary & secondaryBit.ept) !== 0
  }
  get unrestricted(): boolean {
    return (this.secondary & secondaryBit.unrestrictedGuest) !== 0
  }
  get host64(): boolean {
    return (this.exit & exitBit.host64) !== 0
  }
  get guest64(): boolean {
    return (this.entry & entryBit.guest64) !== 0
  }
  get v86(): boolean {
    return (this.n('guestRflags') & rflagsVm) !== 0
  }
  get paging(): boolean {
    return (this.n('guestCr0') & cr0PG) !== 0
  }
  get protectedMode(): boolean {
    return (this.n('guestCr0') & cr0PE) !== 0
  }
  /** PDPTEs are in use: PAE paging. */
  get usesPdptes(): boolean {
    return this.paging && !this.guest64 && (this.n('guestCr4') & cr4PAE) !== 0
  }

  canonical(value: bigint): boolean {
    return canonicalFor(value, this.model.linearBits)
  }
  /** No bits beyond the processor's physical-address width. */
  physical(value: bigint): boolean {
    return value >> BigInt(this.model.physicalBits) === 0n
  }
  aligned(value: bigint, bits: number): boolean {
    return (value & ((1n << BigInt(bits)) - 1n)) === 0n && this.physical(value)
  }

  // ---- event injection ----

  get revision(): number {
    return vmcsRevision
  }

  get injects(): boolean {
    return this.vmcs.get32(at.entryInterruption) < 0
  }
  get injectedType(): number {
    return (this.n('entryInterruption') >> 8) & 7
  }
  get injectedVector(): number {
    return this.n('entryInterruption') & 0xff
  }
}
