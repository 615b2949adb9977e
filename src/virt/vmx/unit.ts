/**
 * VT-x of one CPU: which VMCS is current, whether a guest runs and by which controls, and the answers to what the processor asks while it
 * does. Intel SDM vol. 3, "Virtual-Machine Control Structures", "VMX Non-Root Operation".
 */
import { cr4Writable } from '../../cpu/control.ts'
import { eferLow, efer } from '../../cpu/bits.ts'
import type { CpuEvent } from '../../cpu/event.ts'
import { at as state } from '../../cpu/layout.ts'
import type { CpuModel } from '../../cpu/model.ts'
import { after, type After } from '../../cpu/processor.ts'
import { arithmeticFlags, flag, readRflags, writeRflags } from '../../cpu/rflags.ts'
import type { CpuState } from '../../cpu/state.ts'
import { VmExit, type PortAccess, type Taken, type Virtualization, type VirtualizedCpu } from '../../cpu/virtualization.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import type { GuestListener } from '../../cpu/guest-event.ts'
import { explain } from './checker.ts'
import { maskedControlRead, maskedControlWrite, interceptsPort, interceptInstruction, interceptTaskSwitch } from './intercepts.ts'
import { absentFields, allowed1, capabilityMsrs, groups, primaryBit, secondaryBit, type GroupName } from './controls.ts'
import { inactiveShift, vmxFlag, type ExitDetails } from './guest-flags.ts'
import {
  exceptionPasses, interceptException, isQuiet, noteDelivered, notifyExit, takeGuestEvents, tripleFault, wakesGuest,
} from './events.ts'
import { EntryView } from './entry-view.ts'
import { leaveGuest } from './exit.ts'
import { reason } from './exit-reasons.ts'
import { at as field, fieldOf, type VmcsField } from './fields.ts'
import type { BrokenRule } from './rule.ts'
import { leaveForSmm, returnFromSmm } from './smm.ts'
import { vmcsCopies, type VmcsCopies } from './state-copy.ts'
import { nextDeadline } from './timer.ts'
import { Translations, type TranslationsOfMachine } from './translations.ts'
import { VirtualApic } from './virtual-apic.ts'
import { Vmcs } from './vmcs.ts'

const noVmcs = 0xffff_ffff_ffff_ffffn
const waitForSipi = 3
const placeWord = state.vmcsPlace >> 2
const pointerWord = state.vmcsPointer >> 2

/** What the unit needs of the CPU besides what helpers see. */
export interface VmxCpu extends VirtualizedCpu {
  readonly mmu: Mmu
  /** Of the instruction whose access came up. */
  readonly instructionLength: number
  /** The run ends at the next border: the machine has something to do. */
  stopRequested: boolean
}

export class VmxUnit implements Virtualization {
  readonly cpu: VmxCpu
  readonly state: CpuState
  readonly model: CpuModel
  readonly physical: PhysicalMemory
  readonly view: EntryView
  readonly translations: Translations
  /** Made when VMX operation is first entered. */
  copies!: VmcsCopies
  readonly apic: VirtualApic
  readonly ripWord = state.rip >> 2
  observer: GuestListener | undefined
  /** For the observer: of the VMLAUNCH or VMRESUME that runs. */
  entryRip = 0n
  /** The event that a VM entry injects, while it does. */
  injecting: CpuEvent | undefined

  /** The controls of the guest that runs. */
  pin = 0
  primary = 0
  secondary = 0
  tertiary = 0
  exitControls = 0
  entryControls = 0
  exceptionBitmap = 0
  private readonly capabilities: ReadonlyMap<number, bigint>
  private readonly absentFields: ReadonlySet<string>
  private known = new Map<number, Vmcs>()
  private currentKnown: Vmcs | undefined

  constructor(cpu: VmxCpu, physical: PhysicalMemory, shared: TranslationsOfMachine) {
    this.cpu = cpu
    this.state = cpu.state
    this.model = cpu.model
    this.physical = physical
    this.view = new EntryView(cpu.model, cr4Writable(cpu.model), address => this.readPhysical32(address))
    this.translations = new Translations(this, shared)
    this.apic = new VirtualApic(this)
    this.capabilities = capabilityMsrs(cpu.model, cr4Writable(cpu.model))
    this.absentFields = absentFields(cpu.model)
  }
  /** The field of an encoding, if the model has it. */
  fieldOf(encoding: number): VmcsField | undefined {
    const found = fieldOf(encoding)
    return found && this.absentFields.has(found.name) ? undefined : found
  }

  // ---- operation ----

  get inOperation(): boolean {
    return (this.state.vmxFlags & vmxFlag.operation) !== 0
  }
  get inGuest(): boolean {
    return this.state.guestMode !== 0
  }
  setOperation(on: boolean): void {
    const { state: cpuState } = this
    cpuState.vmxFlags = on ? vmxFlag.operation : 0
    cpuState.vmcsPlace = 0
    if (on) this.copies ??= vmcsCopies(this.physical.memory)
    cpuState.fixedCr0 = on ? 0x80000021 : 0
    cpuState.fixedCr4 = on ? 0x2000 : 0
  }
  offers(group: GroupName, bit: number): boolean {
    return (allowed1(this.model, groups[group]) & bit) !== 0
  }

  // ---- VMCSs ----

  setCurrent(pointer: bigint): void {
    this.state.vmcsPointer = pointer
    this.currentKnown = undefined
    this.state.vmcsPlace = 0
  }
  /** From now on generated code reads and writes the current VMCS by itself: in root operation, until something changes. */
  publish(vmcs: Vmcs): void {
    this.state.words[placeWord] = vmcs.plainPlace
  }
  /** VMCLEAR: what is cached goes, the launch state is clear. */
  clear(pointer: bigint): void {
    const vmcs = this.vmcsAt(pointer)
    this.known.delete(Number(pointer))
    if (vmcs) {
      vmcs.launched = false
      vmcs.touched()
    }
    if (this.state.vmcsPointer === pointer) this.setCurrent(noVmcs)
  }
  forgetAll(): void {
    this.known.clear()
    this.currentKnown = undefined
    this.state.vmcsPlace = 0
  }
  private vmcsAt(pointer: bigint): Vmcs | undefined {
    const address = Number(pointer)
    let vmcs = this.known.get(address)
    if (vmcs) return vmcs
    const place = this.physical.pagePlace(Number(pointer & 0xffffffffn) | 0, Number(pointer >> 32n) | 0)
    if (place === 0) return undefined
    vmcs = new Vmcs(this.physical, address, place >>> 2)
    this.known.set(address, vmcs)
    return vmcs
  }
  currentOrNone(): Vmcs | undefined {
    const { words } = this.state
    const known = this.currentKnown
    if (known && known.addressLow === words[pointerWord] && known.addressHigh === words[pointerWord + 1]) return known
    const pointer = this.state.vmcsPointer
    if (pointer === noVmcs) return undefined
    this.currentKnown = this.vmcsAt(pointer)
    return this.currentKnown
  }
  get current(): Vmcs {
    const vmcs = this.currentOrNone()
    if (!vmcs) throw new Error('a guest runs without a current VMCS')
    return vmcs
  }
  /** The shadow VMCS of the guest that runs. */
  shadow(): Vmcs | undefined {
    const pointer = this.current.get('vmcsLinkPointer')
    return pointer === noVmcs ? undefined : this.vmcsAt(pointer)
  }

  /** Takes the controls of the current VMCS: at VM entry, and after a snapshot was restored. */
  loadControls(): void {
    const vmcs = this.current
    this.pin = vmcs.get32(field.pinControls)
    this.primary = vmcs.get32(field.primaryControls)
    this.secondary = this.primary & primaryBit.secondaryControls ? vmcs.get32(field.secondaryControls) : 0
    this.tertiary = this.primary & primaryBit.tertiaryControls ? vmcs.get32(field.tertiaryControls) : 0
    this.exitControls = vmcs.get32(field.exitControls)
    this.entryControls = vmcs.get32(field.entryControls)
    this.exceptionBitmap = vmcs.get32(field.exceptionBitmap)
  }
  restored(): void {
    this.forgetAll()
    if (this.inOperation) this.copies ??= vmcsCopies(this.physical.memory)
    if (!this.inGuest) return
    this.loadControls()
    this.translations.resume()
  }

  // ---- results of VMX instructions ----

  succeed(): After {
    this.setFlags(0)
    return after.next
  }
  failInvalid(): After {
    this.setFlags(flag.CF)
    return after.next
  }
  /** VMfailValid, or VMfailInvalid when there is no current VMCS to hold the error's number. */
  fail(error: number): After {
    const vmcs = this.currentOrNone()
    if (!vmcs) return this.failInvalid()
    this.setFlags(flag.ZF)
    vmcs.set64(field.instructionError, BigInt(error))
    vmcs.touched()
    return after.next
  }
  private setFlags(flags: number): void {
    writeRflags(this.state, (readRflags(this.state) & ~arithmeticFlags) | flags)
  }

  // ---- memory ----

  private readonly buffer = new Uint8Array(8)
  private readonly bufferView = new DataView(this.buffer.buffer)
  /** The dword at a physical address; all ones where nothing is. Signed. */
  readPhysical32(address: bigint): number {
    return this.readPhysicalAt(Number(address & 0xffffffffn) | 0, Number(address >> 32n) | 0)
  }
  /** The same, of halves. */
  readPhysicalAt(lo: number, hi: number): number {
    const place = this.physical.pagePlace(lo, hi)
    if (place !== 0) return this.physical.words[(place + (lo & 0xffc)) >>> 2]
    this.physical.read((hi >>> 0) * 2 ** 32 + (lo >>> 0), this.buffer.subarray(0, 4))
    return this.bufferView.getInt32(0, true)
  }
  readPhysical64(address: bigint): bigint {
    return BigInt(this.readPhysical32(address) >>> 0) | (BigInt(this.readPhysical32(address + 4n) >>> 0) << 32n)
  }
  writePhysical64(address: bigint, value: bigint): void {
    this.bufferView.setBigUint64(0, value, true)
    this.physical.write(Number(address), this.buffer)
  }
  writePhysical32(address: bigint, value: number): void {
    this.bufferView.setInt32(0, value, true)
    this.physical.write(Number(address), this.buffer.subarray(0, 4))
  }
  /** Bit `number` of a bitmap at a physical address. */
  testBit(bitmap: bigint, number: number): boolean {
    return ((this.readPhysical32(bitmap + BigInt((number >>> 5) * 4)) >>> (number & 31)) & 1) !== 0
  }
  codeBytes(): Uint8Array {
    return this.cpu.codeBytes(15)
  }

  // ---- the guest ----

  isOn(word: 'pin' | 'primary' | 'secondary' | 'tertiary', bit: number): boolean {
    return (this[word] & bit) !== 0
  }
  /** An exit that the instruction which runs causes. */
  instructionExit(basic: number, qualification = 0n, details?: ExitDetails): VmExit {
    const { length } = this.cpu.operation
    return new VmExit(basic, qualification, 0n, details ? { length, ...details } : { length })
  }
  get guestIsLong(): boolean {
    return (eferLow(this.state) & efer.LMA) !== 0
  }
  eptpChanged(): void {
    this.translations.enter()
  }
  /** Every rule of VM entry that the current VMCS breaks. */
  explain(): Record<'controls' | 'host' | 'guest', BrokenRule[]> {
    this.view.look(this.current, (eferLow(this.state) & efer.LMA) !== 0)
    return { controls: explain(this.view, 'controls'), host: explain(this.view, 'host'), guest: explain(this.view, 'guest') }
  }

  // ---- what the processor asks ----

  intercept(number: number): VmExit | undefined {
    return interceptInstruction(this, number)
  }
  portAccess(access: PortAccess): VmExit | undefined {
    return interceptsPort(this, access)
  }
  exception(event: CpuEvent): void {
    interceptException(this, event)
  }
  passes(vector: number, error: number): boolean {
    return exceptionPasses(this, vector, error)
  }
  delivered(): void {
    noteDelivered(this)
  }
  neverDelivered(): VmExit | undefined {
    return notifyExit(this)
  }
  shutdown(): boolean {
    return tripleFault(this)
  }
  taskSwitch(selector: number, source: 'jump' | 'call' | 'interrupt' | 'return'): void {
    interceptTaskSwitch(this, selector, source)
  }
  readTpr(): number | undefined {
    return this.isOn('primary', primaryBit.tprShadow) ? this.apic.tpr >> 4 : undefined
  }
  writeTpr(value: number): boolean {
    if (!this.isOn('primary', primaryBit.tprShadow)) return false
    this.apic.writeTpr(value << 4)
    return true
  }
  guestTsc(host: bigint): bigint {
    if (!this.isOn('primary', primaryBit.tscOffsetting)) return host
    const vmcs = this.current
    const scaled = this.isOn('secondary', secondaryBit.tscScaling) ? (host * vmcs.get('tscMultiplier')) >> 48n : host
    return BigInt.asUintN(64, scaled + vmcs.get('tscOffset'))
  }
  exit(exit: VmExit): void {
    leaveGuest(this, exit)
  }
  readControl(index: number, value: bigint): bigint {
    return maskedControlRead(this, index, value)
  }
  writeControl(index: number, value: bigint): bigint {
    return maskedControlWrite(this, index, value)
  }
  readMsr(index: number): bigint | undefined {
    return this.apic.readMsr(index)
  }
  writeMsr(index: number, value: bigint): boolean | undefined {
    return this.apic.writeMsr(index, value)
  }
  /** An instruction of the guest has retired by itself. */
  stepped(): void {
    if (this.isOn('primary', primaryBit.monitorTrapFlag)) this.state.vmxFlags |= vmxFlag.trapPending
  }
  get wantsInterrupts(): boolean {
    return this.isOn('primary', primaryBit.interruptWindowExiting) || this.apic.hasVirtualInterrupt()
  }
  get needsSteps(): boolean {
    return this.isOn('primary', primaryBit.monitorTrapFlag) || this.watchesBusLocks
  }
  get watchesBusLocks(): boolean {
    return this.isOn('secondary', secondaryBit.busLockDetection)
  }
  busLocked(): void {
    this.state.vmxFlags |= vmxFlag.busLocked
  }

  capability(index: number): bigint | undefined {
    return this.capabilities.get(index)
  }
  get ownsEvents(): boolean {
    return this.inGuest
  }
  get isQuiet(): boolean {
    return isQuiet(this)
  }
  takeEvents(shadow: boolean): Taken {
    return takeGuestEvents(this, shadow)
  }
  wakes(): boolean {
    return wakesGuest(this)
  }
  woke(activity: number): void {
    this.state.vmxFlags |= activity << inactiveShift
  }
  /** In root operation INIT is blocked; in a guest that does not wait for SIPI it is an exit. */
  takesInit(): 'accepted' | 'held' | 'exit' {
    const { state: cpuState } = this
    if (!this.inOperation) return 'accepted'
    if (cpuState.vmxFlags & vmxFlag.initTaken) {
      cpuState.vmxFlags &= ~vmxFlag.initTaken
      return 'exit'
    }
    if (!this.inGuest || cpuState.activity === waitForSipi) {
      cpuState.vmxFlags |= vmxFlag.initHeld
      return 'held'
    }
    this.exit(new VmExit(reason.init))
    return 'exit'
  }
  startup(vector: number): void {
    this.exit(new VmExit(reason.sipi, BigInt(vector)))
  }
  enterSmm(): void {
    leaveForSmm(this)
  }
  leaveSmm(): void {
    returnFromSmm(this)
  }
  unblockedNmis(): void {
    this.state.vmxFlags |= vmxFlag.iretUnblocked
  }
  nextDeadline(): number {
    return nextDeadline(this)
  }
}

