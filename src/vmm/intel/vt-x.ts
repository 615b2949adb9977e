/** VT-x as a hypervisor drives it. Intel SDM vol. 3, "Virtual Machine Control Structures", "VM Entries", "VM Exits". */
import { entryBit, exitBit, pinBit, primaryBit, secondaryBit, tertiaryBit } from '../../virt/vmx/controls.ts'
import { entryFailure, reason } from '../../virt/vmx/exit-reasons.ts'
import type { FieldName } from '../../virt/vmx/fields.ts'
import type { ApicAssist, ApicHelp, AssistHost } from '../apic/assist.ts'
import type { AnyExit } from '../exits.ts'
import { place, selector } from '../layout.ts'
import { msrBitmap } from '../msr-maps.ts'
import type { PagePool } from '../page-pool.ts'
import { register, type HardwarePort } from '../port.ts'
import { hostVector, type Processor } from '../processor.ts'
import { addressOf } from '../root-code.ts'
import { allRights, ept } from '../second-stage.ts'
import { deliverReal } from '../shadow/real-mode.ts'
import { isShadowed, type ShadowOptions } from '../shadow/shadow.ts'
import { Tags } from '../tags.ts'
import type { PendingEvent, Vcpu } from '../vcpu.ts'
import { pauseLoop, segmentNames, type EntryFailure, type Intercepts, type SystemRegister, type Virtualizer } from '../virtualizer.ts'
import { readExit } from './exit.ts'
import { DescriptorTable, PostedApic } from './virtual-apic.ts'
import { failure, noLink, pointerInstruction, Vmcs } from './vmcs.ts'

const msr = { featureControl: 0x3a, basic: 0x480, misc: 0x485, truePin: 0x48d, truePrimary: 0x48e, trueExit: 0x48f, trueEntry: 0x490,
  secondary: 0x48b, tertiary: 0x492 } as const
const vmxe = 0x2000n
const cr0Always = 0x20n // NE
const pagingEnable = 1n << 31n
const protectedMode = 1n
const efer = { lme: 0x100n, lma: 0x400n } as const
const interruptFlag = 0x200n
const taskSwitched = 8n
const oneAddress = 0n
const oneVpid = 1n
const everyVpid = 2n
const oneVpidNotGlobal = 3n
const pageFault = 1 << 14
const virtual86Rights = 0xf3n
/** VM, and IOPL 3: CLI, STI, PUSHF, POPF and IRET do as in real mode. */
const virtual86Flags = 0x23000n
const everyBit = 0xffff_ffff_ffff_ffffn
const interruptType = { interrupt: 0, nmi: 2, exception: 3, software: 4 } as const
const valid = 0x80000000
const apicModes = {
  disabled: 0,
  xapic: secondaryBit.virtualizeApicAccesses | secondaryBit.apicRegisterVirtualization | secondaryBit.virtualInterruptDelivery,
  x2apic: secondaryBit.virtualizeX2apic | secondaryBit.apicRegisterVirtualization | secondaryBit.virtualInterruptDelivery,
} as const
const everyApicMode = apicModes.xapic | apicModes.x2apic

const capital = (name: string): string => name[0].toUpperCase() + name.slice(1)

/** The guest-state field of a register. */
function fieldOf(name: SystemRegister): FieldName {
  const segment = segmentNames.find(each => name.startsWith(each) && /^(Selector|Base|Limit|Attributes)$/.test(name.slice(each.length)))
  return `guest${capital(segment ? name.replace('Attributes', 'AccessRights') : name)}` as FieldName
}
const fieldNames = new Map<SystemRegister, FieldName>()
const fieldFor = (name: SystemRegister): FieldName => {
  let field = fieldNames.get(name)
  if (!field) fieldNames.set(name, (field = fieldOf(name)))
  return field
}

/** Control words as they were last written: a hypervisor need not read them back. */
interface Controls {
  pin: number
  primary: number
  secondary: number
  entry: number
  exceptions: number
  cr0Mask: bigint
  cr4Mask: bigint
}

export class VtX implements Virtualizer {
  readonly vendor = 'intel'
  readonly format = ept
  readonly hasPreemptionTimer = true
  shadowOptions: ShadowOptions = { pagedRealMode: false, physicalBits: 36 }
  readonly switchedMsrs = [0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103]
  private readonly hardware: HardwarePort
  private readonly pool: PagePool
  private readonly currents = new Map<Processor, Vmcs>()
  private readonly controls = new WeakMap<Vmcs, Controls>()
  private readonly tags = new Map<Processor, Tags>()
  private readonly bitmap: number
  /** The MSR bitmap of guests whose x2APIC is virtualized, and the page that marks accesses to an APIC. */
  private x2apicBitmap: number | undefined
  private apicAccessPage: number | undefined
  private readonly apicsMapped = new WeakMap<object, Set<number>>()
  sendsIpis = false
  private revision = 0
  private timerShift = 0
  private capabilities: Record<'pin' | 'primary' | 'secondary' | 'exit' | 'entry', bigint> | undefined

  constructor(hardware: HardwarePort, pool: PagePool) {
    this.hardware = hardware
    this.pool = pool
    this.bitmap = pool.take()
    hardware.memory.write(this.bitmap, msrBitmap())
  }

  // ---- processors ----

  prepare(processor: Processor): void {
    const { memory } = this.hardware
    processor.perform('readCr4')
    processor.perform('writeCr4', processor.port.get(0) | vmxe)
    if (!(processor.rdmsr(msr.featureControl) & 1n)) processor.wrmsr(msr.featureControl, 5n)
    this.revision = Number(processor.rdmsr(msr.basic) & 0x7fffffffn)
    this.timerShift = Number(processor.rdmsr(msr.misc) & 31n)
    this.capabilities ??= { pin: processor.rdmsr(msr.truePin), primary: processor.rdmsr(msr.truePrimary),
      secondary: processor.rdmsr(msr.secondary), exit: processor.rdmsr(msr.trueExit), entry: processor.rdmsr(msr.trueEntry) }
    const tertiaryThere = Number(this.capabilities.primary >> 32n) & primaryBit.tertiaryControls
    this.sendsIpis = tertiaryThere !== 0 && (Number(processor.rdmsr(msr.tertiary)) & tertiaryBit.ipiVirtualization) !== 0
    this.shadowOptions = { pagedRealMode: false, physicalBits: processor.cpuid(0x80000008).eax & 0xff }
    memory.write32(processor.places.root, this.revision)
    const failed = pointerInstruction(processor, 'vmxon', BigInt(processor.places.root))
    if (failed) throw new Error(`VMXON: ${failed}`)
    this.tags.set(processor, new Tags(0xffff))
  }

  /** What is wanted and what must be, as far as it may be. SDM vol. 3, appendix "VMX Capability Reporting Facility". */
  private allowed(group: keyof NonNullable<VtX['capabilities']>, wanted: number): number {
    const capability = this.capabilities![group]
    const must = Number(capability & 0xffffffffn)
    const may = Number(capability >> 32n)
    return ((wanted | must) & may) >>> 0
  }

  // ---- VMCSs ----

  create(): Vmcs {
    const region = this.pool.take()
    this.hardware.memory.write32(region, this.revision)
    const vmcs = new Vmcs(region, this.currents)
    return vmcs
  }
  destroy(vcpu: Vcpu): void {
    const vmcs = this.of(vcpu)
    vmcs.clear()
    this.pool.give(vmcs.region)
  }
  private of(vcpu: Vcpu): Vmcs {
    if (vcpu.control.kind !== 'vmcs') throw new Error(`${vcpu.name} has no VMCS`)
    return vcpu.control
  }

  load(vcpu: Vcpu, processor: Processor): void {
    const vmcs = this.of(vcpu)
    const isNew = !this.controls.has(vmcs)
    if (isNew) vmcs.clear(processor)
    const arrives = vmcs.processor !== processor
    vmcs.makeCurrent(processor)
    vcpu.processor = processor
    if (isNew) this.fill(vcpu, vmcs)
    if (arrives) this.arrive(vcpu, vmcs, processor)
    else this.checkTag(vcpu, vmcs, processor)
    if (vcpu.flush) this.flush(vcpu, processor)
    else if (vcpu.flushLocal) this.invvpid(processor, oneVpidNotGlobal, this.tags.get(processor)!.of(vcpu).tag)
    vcpu.flushLocal = false
    if (vcpu.shadow?.isReal) this.beReal(vcpu, vmcs)
  }
  /** The host's part differs from processor to processor, and so do the VPIDs. */
  private arrive(vcpu: Vcpu, vmcs: Vmcs, processor: Processor): void {
    processor.perform('readCr4')
    vmcs.write('hostCr4', processor.port.get(0))
    vmcs.write('hostTrSelector', BigInt(selector.firstTss + processor.index * 16))
    vmcs.write('hostTrBase', BigInt(processor.places.tss))
    vmcs.write('hostRsp', BigInt(processor.places.stackTop))
    this.tags.get(processor)!.renew(vcpu)
    // what was cached here of the guest's memory may be old
    vcpu.flush = true
    this.checkTag(vcpu, vmcs, processor)
  }
  private checkTag(vcpu: Vcpu, vmcs: Vmcs, processor: Processor): void {
    const { tag, fresh, flushAll } = this.tags.get(processor)!.of(vcpu)
    if (flushAll) this.invvpid(processor, everyVpid, 0)
    if (fresh) vmcs.write('vpid', BigInt(tag))
  }
  private flush(vcpu: Vcpu, processor: Processor): void {
    vcpu.flush = false
    this.invvpid(processor, oneVpid, this.tags.get(processor)!.of(vcpu).tag)
    const { root } = vcpu.guest.stage
    if (root === undefined) return
    processor.perform('invept', 1n, processor.operand(root, 0n))
    const failed = failure(processor)
    if (failed) throw new Error(`INVEPT: ${failed}`)
  }
  private invvpid(processor: Processor, type: bigint, vpid: number, linear = 0n): void {
    processor.perform('invvpid', type, processor.operand(BigInt(vpid), linear))
    const failed = failure(processor)
    if (failed) throw new Error(`INVVPID: ${failed}`)
  }
  forget(vcpu: Vcpu, linear: bigint): void {
    const { processor } = this.of(vcpu)
    // of an address that is not canonical nothing is cached
    if (!processor || BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== linear) return
    this.invvpid(processor, oneAddress, this.tags.get(processor)!.of(vcpu).tag, linear)
  }
  unload(vcpu: Vcpu): void {
    this.of(vcpu).clear()
    vcpu.processor = undefined
  }
  tag(vcpu: Vcpu): number {
    return Number(this.of(vcpu).read('vpid'))
  }

  /** Everything but what `arrive` writes. The guest starts as a processor does after reset; who creates it says what differs. */
  private fill(vcpu: Vcpu, vmcs: Vmcs): void {
    const { root } = vcpu.guest.stage
    const nested = root === undefined ? 0 : secondaryBit.ept | secondaryBit.unrestrictedGuest
    const controls: Controls = {
      pin: this.allowed('pin', pinBit.externalInterruptExiting | pinBit.nmiExiting | pinBit.preemptionTimer),
      primary: this.allowed('primary', primaryBit.tscOffsetting | primaryBit.hltExiting | primaryBit.mwaitExiting | primaryBit.rdpmcExiting
        | primaryBit.unconditionalIoExiting | primaryBit.msrBitmaps | primaryBit.monitorExiting | primaryBit.secondaryControls),
      secondary: this.allowed('secondary', nested | secondaryBit.rdtscp | secondaryBit.vpid | secondaryBit.invpcid),
      entry: this.allowed('entry', entryBit.loadDebug | entryBit.loadPat | entryBit.loadEfer),
      exceptions: 0,
      cr0Mask: root === undefined ? everyBit : cr0Always | 0x60000000n,
      cr4Mask: root === undefined ? everyBit : vmxe,
    }
    this.controls.set(vmcs, controls)
    const exit = this.allowed('exit', exitBit.saveDebug | exitBit.host64 | exitBit.savePat | exitBit.loadPat | exitBit.saveEfer
      | exitBit.loadEfer | exitBit.savePreemptionTimer)
    const fields: Partial<Record<FieldName, number | bigint>> = {
      pinControls: controls.pin, primaryControls: controls.primary, secondaryControls: controls.secondary, exitControls: exit,
      entryControls: controls.entry, exceptionBitmap: 0, msrBitmap: this.bitmap, vmcsLinkPointer: noLink,
      ...(root === undefined ? {} : { eptp: root }),
      cr0Mask: controls.cr0Mask, cr0Shadow: 0x10n, cr4Mask: controls.cr4Mask, cr4Shadow: 0n, tscOffset: 0n,
      hostCr0: 0x80000031n, hostCr3: place.pageTables, hostCsSelector: selector.code, hostSsSelector: selector.data,
      hostDsSelector: selector.data, hostEsSelector: selector.data, hostGdtrBase: place.gdt, hostIdtrBase: place.idt,
      hostEfer: 0x500n, hostPat: 0x0007040600070406n, hostRip: addressOf.nop,
      guestCr0: 0x30n, guestCr4: vmxe, guestDr7: 0x400n, guestRflags: 2n, guestPat: 0x0007040600070406n, guestGdtrLimit: 0xffff,
      guestIdtrLimit: 0xffff, guestLdtrAccessRights: 0x82, guestTrAccessRights: 0x8b, guestLdtrLimit: 0xffff, guestTrLimit: 0xffff,
      guestCsAccessRights: 0x9b, guestCsLimit: 0xffff,
    }
    for (const name of ['Es', 'Ss', 'Ds', 'Fs', 'Gs'] as const)
      Object.assign(fields, { [`guest${name}AccessRights`]: 0x93, [`guest${name}Limit`]: 0xffff })
    for (const [name, value] of Object.entries(fields)) vmcs.write(name as FieldName, BigInt(value))
    vmcs.write('preemptionTimer', 0xffffffffn)
    if (!vcpu.shadow) return
    this.setIntercepts(vcpu, vcpu.intercepts)
    this.setPaging(vcpu)
  }

  // ---- entry and exit ----

  enter(vcpu: Vcpu): EntryFailure | undefined {
    const vmcs = this.of(vcpu)
    const processor = vmcs.processor!
    if (vcpu.shadow?.betweenModes) return { reason: 'CR0.PE = 1 and CS is one of real mode: not without unrestricted guests' }
    processor.instructions++
    const standing = processor.port.execute(addressOf[vmcs.launched ? 'vmresume' : 'vmlaunch'])
    if (standing === 'guest') {
      vmcs.launched = true
      return undefined
    }
    // it may be back already, from the delivery of what was injected: then RAX and RCX are the guest's, and VMREAD takes them
    const { port } = processor
    const [rax, rcx] = [port.get(register.rax), port.get(register.rcx)]
    const said = failure(processor)
    if (said) return { reason: `${vmcs.launched ? 'VMRESUME' : 'VMLAUNCH'}: ${said}` }
    const exitReason = Number(vmcs.read('exitReason'))
    if (exitReason & entryFailure) {
      const what = (exitReason & 0xffff) === reason.msrLoading ? 'MSR loading' : 'invalid guest state'
      return { reason: `VM entry: exit reason ${exitReason & 0xffff} (${what}), qualification ${vmcs.read('exitQualification')}` }
    }
    vmcs.launched = true
    port.set(register.rax, rax)
    port.set(register.rcx, rcx)
    return undefined
  }
  /** Virtual-8086 mode in place of real mode. SDM vol. 3, "Checks on Guest Segment Registers". */
  private beReal(vcpu: Vcpu, vmcs: Vmcs): void {
    for (const name of ['Cs', 'Ds', 'Es', 'Ss', 'Fs', 'Gs'] as const) {
      vmcs.write(`guest${name}Base`, vmcs.read(`guest${name}Selector`) << 4n)
      vmcs.write(`guest${name}Limit`, 0xffffn)
      vmcs.write(`guest${name}AccessRights`, virtual86Rights)
    }
    vmcs.write('guestRflags', vmcs.read('guestRflags') | virtual86Flags)
    if (vcpu.shadow!.realIdtLimit !== undefined) return
    vcpu.shadow!.realIdtLimit = Number(vmcs.read('guestIdtrLimit'))
    // every INT n raises #GP
    vmcs.write('guestIdtrLimit', 0n)
  }
  exit(vcpu: Vcpu): AnyExit {
    return readExit(vcpu, this.of(vcpu))
  }
  advance(vcpu: Vcpu): void {
    const vmcs = this.of(vcpu)
    const length = vcpu.instructionLength === undefined ? vmcs.read('exitInstructionLength') : BigInt(vcpu.instructionLength)
    vcpu.instructionLength = undefined
    vmcs.write('guestRip', vmcs.read('guestRip') + length)
    if (vcpu.exit?.kind === 'halt') vmcs.write('guestInterruptibility', 0n)
  }
  instructionBytes(): undefined {
    return undefined
  }

  // ---- registers ----

  read(vcpu: Vcpu, name: SystemRegister): bigint {
    if (vcpu.shadow && isShadowed(name)) return vcpu.shadow.get(name)
    return this.of(vcpu).read(fieldFor(name))
  }
  write(vcpu: Vcpu, name: SystemRegister, value: bigint): void {
    if (vcpu.shadow && isShadowed(name)) {
      vcpu.shadow.set(name, value)
      return this.setPaging(vcpu)
    }
    if (name === 'cr0') this.writeControl(vcpu, 0, value)
    else if (name === 'cr4') this.writeControl(vcpu, 4, value)
    else if (name === 'efer') this.writeEfer(vcpu, value)
    else this.of(vcpu).write(fieldFor(name), value)
  }
  readControl(vcpu: Vcpu, number: 0 | 4): bigint {
    if (vcpu.shadow) return vcpu.shadow.get(number === 0 ? 'cr0' : 'cr4')
    const vmcs = this.of(vcpu)
    const mask = number === 0 ? this.controls.get(vmcs)!.cr0Mask : vmxe
    const [value, shadow] = number === 0 ? [vmcs.read('guestCr0'), vmcs.read('cr0Shadow')] : [vmcs.read('guestCr4'), vmcs.read('cr4Shadow')]
    return (value & ~mask) | (shadow & mask)
  }
  writeControl(vcpu: Vcpu, number: 0 | 4, value: bigint): void {
    const vmcs = this.of(vcpu)
    if (number === 4) {
      vmcs.write('cr4Shadow', value)
      return vmcs.write('guestCr4', value | vmxe)
    }
    const held = this.controls.get(vmcs)!.cr0Mask & taskSwitched // while it is ours
    vmcs.write('cr0Shadow', value)
    vmcs.write('guestCr0', (value & ~0x60000000n) | cr0Always | held)
    this.switchLongMode(vcpu, vmcs, value, vmcs.read('guestEfer'))
  }
  private writeEfer(vcpu: Vcpu, value: bigint): void {
    const vmcs = this.of(vcpu)
    vmcs.write('guestEfer', value)
    this.switchLongMode(vcpu, vmcs, vmcs.read('guestCr0'), value)
  }
  setPaging(vcpu: Vcpu, only?: 'cr3'): void {
    const vmcs = this.of(vcpu)
    const shadow = vcpu.shadow!
    if (only) return vmcs.write('guestCr3', shadow.hardware('cr3'))
    vmcs.write('cr0Shadow', shadow.get('cr0'))
    vmcs.write('cr4Shadow', shadow.get('cr4'))
    vmcs.write('guestCr0', shadow.hardware('cr0') | cr0Always | (vcpu.fpuTrapped ? taskSwitched : 0n))
    vmcs.write('guestCr3', shadow.hardware('cr3'))
    vmcs.write('guestCr4', shadow.hardware('cr4') | vmxe)
    this.setExceptions(vcpu, vcpu.intercepts.exceptions | (vcpu.fpuTrapped ? 1 << 7 : 0))
    const value = shadow.hardware('efer')
    this.switchLongMode(vcpu, vmcs, shadow.hardware('cr0'), value)
  }
  setFaultAddress(vcpu: Vcpu, address: bigint): void {
    this.of(vcpu).processor!.perform('writeCr2', address)
  }
  /** Paging with EFER.LME = 1 is IA-32e mode: the entry control and EFER.LMA have to say so. */
  private switchLongMode(_vcpu: Vcpu, vmcs: Vmcs, cr0: bigint, value: bigint): void {
    const controls = this.controls.get(vmcs)!
    const long = (cr0 & (pagingEnable | protectedMode)) === (pagingEnable | protectedMode) && (value & efer.lme) !== 0n
    vmcs.write('guestEfer', long ? value | efer.lma : value & ~efer.lma)
    const before = Number(vmcs.read('entryControls'))
    controls.entry = long ? before | entryBit.guest64 : before & ~entryBit.guest64
    if (controls.entry !== before) vmcs.write('entryControls', BigInt(controls.entry >>> 0))
  }

  // ---- events ----

  inject(vcpu: Vcpu, { type, vector, error, length }: PendingEvent): void {
    if (vcpu.shadow?.isReal) return deliverReal(vcpu, vector)
    const vmcs = this.of(vcpu)
    const information = (valid | (interruptType[type] << 8) | vector | (error === undefined ? 0 : 0x800)) >>> 0
    if (error !== undefined) vmcs.write('entryErrorCode', BigInt(error))
    if (type === 'software') vmcs.write('entryInstructionLength', BigInt(length ?? 0))
    vmcs.write('entryInterruption', BigInt(information))
  }
  canTakeInterrupt(vcpu: Vcpu): boolean {
    const vmcs = this.of(vcpu)
    return (vmcs.read('guestRflags') & interruptFlag) !== 0n && (vmcs.read('guestInterruptibility') & 3n) === 0n
  }
  wantWindow(vcpu: Vcpu, wanted: boolean): void {
    this.setPrimary(vcpu, primaryBit.interruptWindowExiting, wanted)
  }
  private setPrimary(vcpu: Vcpu, bit: number, on: boolean): void {
    this.setControl(vcpu, 'primary', bit, on)
  }
  private setControl(vcpu: Vcpu, word: 'pin' | 'primary' | 'secondary', bits: number, on: boolean): void {
    const vmcs = this.of(vcpu)
    const controls = this.controls.get(vmcs)!
    const next = on ? controls[word] | bits : controls[word] & ~bits
    if (next === controls[word]) return
    controls[word] = next
    vmcs.write(`${word}Controls`, BigInt(next >>> 0))
  }
  private setExceptions(vcpu: Vcpu, exceptions: number): void {
    const vmcs = this.of(vcpu)
    const controls = this.controls.get(vmcs)!
    if (vcpu.shadow) exceptions |= vcpu.shadow.isReal ? -1 : pageFault
    if (controls.exceptions === exceptions) return
    controls.exceptions = exceptions
    vmcs.write('exceptionBitmap', BigInt(exceptions >>> 0))
  }
  setIntercepts(vcpu: Vcpu, { exceptions, pause, translation, timestamp, priority }: Intercepts): void {
    this.setExceptions(vcpu, exceptions | (vcpu.fpuTrapped ? 1 << 7 : 0))
    const walks = translation || vcpu.shadow !== undefined
    this.setPrimary(vcpu, primaryBit.pauseExiting, pause === true)
    this.setControl(vcpu, 'secondary', secondaryBit.pauseLoopExiting, pause === 'loops' && this.hasPauseLoops)
    if (pause === 'loops' && this.hasPauseLoops) {
      this.of(vcpu).write('pleGap', BigInt(pauseLoop.gap))
      this.of(vcpu).write('pleWindow', BigInt(pauseLoop.window))
    }
    this.setPrimary(vcpu, primaryBit.rdtscExiting, timestamp)
    this.setPrimary(vcpu, primaryBit.cr8LoadExiting | primaryBit.cr8StoreExiting, priority)
    this.setPrimary(vcpu, primaryBit.invlpgExiting | primaryBit.cr3LoadExiting | primaryBit.cr3StoreExiting, walks)
  }
  private get hasPauseLoops(): boolean {
    return (this.allowed('secondary', secondaryBit.pauseLoopExiting) & secondaryBit.pauseLoopExiting) !== 0
  }
  // ---- the APIC ----

  get apicHelp(): ApicHelp {
    const has = (group: 'pin' | 'primary' | 'secondary', bits: number): boolean =>
      (this.allowed(group, bits) & bits) === (bits | 0)
    const all = has('primary', primaryBit.tprShadow) && has('secondary', everyApicMode) && has('pin', pinBit.postedInterrupts)
    return all ? 'delivery' : 'none'
  }
  assistApics(count: number, host: AssistHost): ApicAssist[] {
    const table = this.sendsIpis ? new DescriptorTable(this.pool, count) : undefined
    return Array.from({ length: count }, () => new PostedApic(this, this.pool, host, table))
  }
  /** The controls of its mode, and where the processor finds what belongs to it. SDM vol. 3, "Virtualizing Memory-Mapped APIC Accesses". */
  setApic(vcpu: Vcpu, apic: PostedApic, mode: 'disabled' | 'xapic' | 'x2apic', base: number | undefined): void {
    const vmcs = this.of(vcpu)
    this.apicAccessPage ??= this.pool.take()
    if (base !== undefined) this.mapApic(vcpu, base, this.apicAccessPage)
    vmcs.write('virtualApicAddress', BigInt(apic.page))
    vmcs.write('apicAccessAddress', BigInt(this.apicAccessPage))
    vmcs.write('postedInterruptDescriptor', BigInt(apic.descriptor))
    vmcs.write('postedInterruptVector', BigInt(hostVector.posted))
    vmcs.write('guestInterruptStatus', BigInt((Math.max(apic.isr.highest(), 0) << 8) | Math.max(apic.irr.highest(), 0)))
    vmcs.write('exitControls', vmcs.read('exitControls') | BigInt(exitBit.acknowledgeInterrupt))
    vmcs.write('msrBitmap', BigInt(mode === 'x2apic' ? this.bitmapOfX2apic() : this.bitmap))
    this.setPrimary(vcpu, primaryBit.tprShadow, true)
    this.setControl(vcpu, 'secondary', everyApicMode & ~apicModes[mode], false)
    this.setControl(vcpu, 'secondary', apicModes[mode], true)
    this.setControl(vcpu, 'pin', pinBit.postedInterrupts, mode !== 'disabled')
    if (!apic.table) return
    vmcs.write('pidPointerTable', BigInt(apic.table.page))
    vmcs.write('lastPidPointerIndex', BigInt(apic.table.last))
    vmcs.write('tertiaryControls', mode === 'disabled' ? 0n : BigInt(tertiaryBit.ipiVirtualization))
    this.setPrimary(vcpu, primaryBit.tertiaryControls, true)
  }
  private bitmapOfX2apic(): number {
    if (this.x2apicBitmap !== undefined) return this.x2apicBitmap
    this.x2apicBitmap = this.pool.take()
    this.hardware.memory.write(this.x2apicBitmap, msrBitmap(true, this.sendsIpis))
    return this.x2apicBitmap
  }
  private mapApic(vcpu: Vcpu, base: number, page: number): void {
    const { stage } = vcpu.guest
    const mapped = this.apicsMapped.get(stage) ?? new Set()
    if (mapped.has(base)) return
    this.apicsMapped.set(stage, mapped.add(base))
    stage.map(base, page, allRights)
  }
  setEoiExits(vcpu: Vcpu, bitmap: BigUint64Array): void {
    bitmap.forEach((bits, i) => this.of(vcpu).write(`eoiExitBitmap${i}` as FieldName, bits))
  }
  /** RVI is the highest vector that is requested. */
  raiseRequested(vcpu: Vcpu, vector: number): void {
    const vmcs = this.of(vcpu)
    const status = vmcs.read('guestInterruptStatus')
    if (Number(status & 0xffn) < vector) vmcs.write('guestInterruptStatus', (status & 0xff00n) | BigInt(vector))
  }
  /** CR0.TS is ours as long as the registers of the FPU are another vCPU's. */
  trapFpu(vcpu: Vcpu, on: boolean): void {
    const vmcs = this.of(vcpu)
    const controls = this.controls.get(vmcs)!
    const seen = this.readControl(vcpu, 0)
    controls.cr0Mask = on ? controls.cr0Mask | taskSwitched : vcpu.shadow ? everyBit : controls.cr0Mask & ~taskSwitched
    vmcs.write('cr0Mask', controls.cr0Mask)
    vmcs.write('cr0Shadow', seen)
    const value = vmcs.read('guestCr0')
    vmcs.write('guestCr0', on ? value | 8n : (value & ~8n) | (seen & 8n))
    this.setExceptions(vcpu, vcpu.intercepts.exceptions | (on ? 1 << 7 : 0))
  }
  trapDebug(vcpu: Vcpu, on: boolean): void {
    this.setPrimary(vcpu, primaryBit.movDrExiting, on)
  }
  /** The timer counts when bit `timerShift` of the TSC changes; exits save what is left of it. */
  setSlice(vcpu: Vcpu, nanoseconds: number): void {
    const ticks = Math.ceil(nanoseconds / 2 ** this.timerShift)
    this.of(vcpu).write('preemptionTimer', BigInt(Math.min(Math.max(1, ticks), 0xffffffff)))
  }
}
