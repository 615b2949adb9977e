/** AMD-V as a hypervisor drives it. AMD APM vol. 2, "Secure Virtual Machine". */
import { exitCode, instructionIntercepts, intercept3 } from '../../virt/svm/exit-codes.ts'
import { eventInfo, eventType, fetchedBytes, nestedControl, tlbControl, virtualInterrupt, type VmcbFieldName } from '../../virt/svm/vmcb.ts'
import type { InterceptName } from '../../cpu/intercepts.ts'
import type { ApicAssist } from '../apic/assist.ts'
import type { AnyExit } from '../exits.ts'
import { msrPermissionMap } from '../msr-maps.ts'
import type { PagePool } from '../page-pool.ts'
import { register, type HardwarePort } from '../port.ts'
import type { Processor } from '../processor.ts'
import { addressOf } from '../root-code.ts'
import { npt } from '../second-stage.ts'
import { isShadowed, type ShadowOptions } from '../shadow/shadow.ts'
import { Tags } from '../tags.ts'
import type { PendingEvent, Vcpu } from '../vcpu.ts'
import { pauseLoop, segmentNames, type EntryFailure, type Intercepts, type SystemRegister, type Virtualizer } from '../virtualizer.ts'
import { readExit } from './exit.ts'
import { VirtualInterrupt } from './virtual-interrupt.ts'
import { Vmcb } from './vmcb.ts'

const msr = { efer: 0xc0000080, vmHsavePa: 0xc0010117 } as const
const svme = 0x1000n
const svmLeaf = 0x8000000a
const interruptFlag = 0x200n
const taskSwitch = 8n
const pcidEnable = 1n << 17n
/** CPUID: pause filter, and its threshold. */
const pauseFilters = 0x1400
const pageFault = 1 << 14
const allIo = 3

/** The four instructions' intercepts that no guest is without, and what this hypervisor wants to see. */
const always: readonly InterceptName[] = ['cpuid', 'hlt', 'invlpga', 'vmrun', 'vmmcall', 'vmload', 'vmsave', 'stgi', 'clgi', 'skinit',
  'monitor', 'mwait', 'xsetbv', 'rdpmc', 'invd']

const isSegmentField = (name: string): boolean => segmentNames.some(each => name === `${each}Attributes`)
/** VT-x's access rights and the VMCB's attributes: the same bits, without the hole of four. */
const toAttributes = (rights: bigint): bigint => (rights & 0x10000n ? 0n : (rights & 0xffn) | ((rights >> 4n) & 0xf00n))
const fromAttributes = (attributes: bigint): bigint => (attributes & 0xffn) | ((attributes & 0xf00n) << 4n)

function fieldOf(name: SystemRegister): VmcbFieldName {
  return name === 'pat' ? 'gPat' : (name as VmcbFieldName)
}

export class AmdV implements Virtualizer {
  readonly vendor = 'amd'
  readonly format = npt
  readonly hasPreemptionTimer = false
  readonly apicHelp = 'priority'
  readonly sendsIpis = false
  shadowOptions: ShadowOptions = { pagedRealMode: true, physicalBits: 36 }
  /** The others go with VMLOAD and VMSAVE. */
  readonly switchedMsrs = [0xc0000103]
  private readonly hardware: HardwarePort
  private readonly pool: PagePool
  private readonly tags = new Map<Processor, Tags>()
  /** Whose part VMLOAD has loaded last. */
  private readonly loaded = new Map<Processor, Vcpu>()
  private readonly ioMap: number
  private hasPauseFilter = false
  private readonly msrMap: number

  constructor(hardware: HardwarePort, pool: PagePool) {
    this.hardware = hardware
    this.pool = pool
    this.ioMap = pool.takeRun(allIo)!
    this.msrMap = pool.takeRun(2)!
    hardware.memory.write(this.ioMap, new Uint8Array(allIo * 4096).fill(0xff))
    hardware.memory.write(this.msrMap, msrPermissionMap())
  }

  /** From here on GIF is 0 and IF is 1 in root mode: interrupts end a guest, and are taken when the hypervisor sets GIF. */
  prepare(processor: Processor): void {
    processor.wrmsr(msr.efer, processor.rdmsr(msr.efer) | svme)
    processor.wrmsr(msr.vmHsavePa, BigInt(processor.places.root))
    processor.perform('clgi')
    processor.perform('sti')
    processor.heldBy = 'GIF'
    this.shadowOptions = { pagedRealMode: true, physicalBits: processor.cpuid(0x80000008).eax & 0xff }
    const { ebx, edx } = processor.cpuid(svmLeaf)
    this.hasPauseFilter = (edx & pauseFilters) === pauseFilters
    this.tags.set(processor, new Tags(ebx - 1))
  }

  // ---- VMCBs ----

  create(): Vmcb {
    return new Vmcb(this.pool.take(), this.hardware.memory)
  }
  destroy(vcpu: Vcpu): void {
    this.unload(vcpu)
    this.pool.give(this.of(vcpu).page)
  }
  private of(vcpu: Vcpu): Vmcb {
    if (vcpu.control.kind !== 'vmcb') throw new Error(`${vcpu.name} has no VMCB`)
    return vcpu.control
  }

  load(vcpu: Vcpu, processor: Processor): void {
    const vmcb = this.of(vcpu)
    if (vmcb.processor && vmcb.processor !== processor) {
      throw new Error(`${vcpu.name}: its FS, GS, TR and system-call MSRs are in processor ${vmcb.processor.index}: VMSAVE there first`)
    }
    if (vmcb.read('asid') === 0n) this.fill(vcpu, vmcb)
    const before = this.loaded.get(processor)
    if (before !== vcpu) {
      if (before) this.save(before, processor)
      processor.perform('vmload', BigInt(vmcb.page))
      this.loaded.set(processor, vcpu)
    }
    if (vmcb.processor !== processor) this.tags.get(processor)!.renew(vcpu)
    vmcb.processor = processor
    vcpu.processor = processor
    const { tag, fresh, flushAll } = this.tags.get(processor)!.of(vcpu)
    if (fresh) vmcb.set('asid', tag)
    const flush = vcpu.flush ? tlbControl.flushAsid : vcpu.flushLocal ? tlbControl.flushAsidNonGlobal : tlbControl.nothing
    vmcb.set('tlbControl', flushAll ? tlbControl.flushAll : fresh ? tlbControl.nothing : flush)
    vcpu.flush = false
    vcpu.flushLocal = false
  }
  private save(vcpu: Vcpu, processor: Processor): void {
    processor.perform('vmsave', BigInt(this.of(vcpu).page))
    this.loaded.delete(processor)
  }
  unload(vcpu: Vcpu): void {
    const vmcb = this.of(vcpu)
    if (vmcb.processor && this.loaded.get(vmcb.processor) === vcpu) this.save(vcpu, vmcb.processor)
    vmcb.processor = undefined
    vcpu.processor = undefined
  }
  tag(vcpu: Vcpu): number {
    return this.of(vcpu).get('asid')
  }

  /** The guest starts as a processor does after reset; who creates it says what differs. Clean bits stay 0: every field is read. */
  private fill(vcpu: Vcpu, vmcb: Vmcb): void {
    const { root } = vcpu.guest.stage
    vmcb.set('asid', 1)
    const { intr, nmi, ioio, msr: msrs, shutdown } = intercept3
    vmcb.set('intercepts3', [intr, nmi, ioio, msrs, shutdown].reduce<number>((bits, bit) => bits | (1 << bit), 0))
    for (const name of always) this.intercept(vmcb, name, true)
    vmcb.set('virtualInterrupt', virtualInterrupt.masking)
    const fields: Partial<Record<VmcbFieldName, number | bigint>> = {
      iopmBase: this.ioMap, msrpmBase: this.msrMap, nestedControl: root === undefined ? 0 : nestedControl.enable, nestedCr3: root ?? 0n,
      efer: svme, cr0: 0x10n, dr6: 0xffff0ff0n, dr7: 0x400n, rflags: 2n, gPat: 0x0007040600070406n,
      gdtrLimit: 0xffff, idtrLimit: 0xffff, csAttributes: 0x9b, csLimit: 0xffff, ldtrAttributes: 0x82, ldtrLimit: 0xffff,
        trAttributes: 0x8b,
      trLimit: 0xffff,
    }
    for (const name of ['es', 'ss', 'ds', 'fs', 'gs'] as const)
      Object.assign(fields, { [`${name}Attributes`]: 0x93, [`${name}Limit`]: 0xffff })
    for (const [name, value] of Object.entries(fields)) vmcb.write(name as VmcbFieldName, BigInt(value))
    if (!vcpu.shadow) return
    this.setIntercepts(vcpu, vcpu.intercepts)
    this.setPaging(vcpu)
  }
  private intercept(vmcb: Vmcb, name: InterceptName, on: boolean): void {
    const row = instructionIntercepts[name]
    if (!row) throw new Error(`AMD-V has no intercept of ${name}`)
    const field = row.vector === 0x0c ? 'intercepts3' : row.vector === 0x10 ? 'intercepts4' : 'intercepts5'
    const word = vmcb.get(field)
    vmcb.set(field, on ? word | (1 << row.bit) : word & ~(1 << row.bit))
  }

  // ---- entry and exit ----

  enter(vcpu: Vcpu): EntryFailure | undefined {
    const vmcb = this.of(vcpu)
    const processor = vmcb.processor!
    vmcb.write('rax', vcpu.registers[register.rax])
    processor.port.set(register.rax, BigInt(vmcb.page))
    processor.instructions++
    const standing = processor.port.execute(addressOf.vmrun)
    if (standing === 'guest') return undefined
    return vmcb.read('exitCode') === BigInt.asUintN(64, BigInt(exitCode.invalid)) ? { reason: 'VMRUN: VMEXIT_INVALID' } : undefined
  }
  exit(vcpu: Vcpu): AnyExit {
    const vmcb = this.of(vcpu)
    vcpu.registers[register.rax] = vmcb.read('rax')
    vmcb.set('eventInjection', 0)
    vmcb.set('tlbControl', tlbControl.nothing)
    return readExit(vcpu, vmcb)
  }
  advance(vcpu: Vcpu): void {
    const vmcb = this.of(vcpu)
    const next = vcpu.exit?.raw.code === exitCode.ioio ? vmcb.read('exitInfo2') : vmcb.read('nextRip')
    if (next === 0n) throw new Error(`${vcpu.name}: the processor does not say where the instruction of ${vcpu.exit?.raw.name} ends`)
    vmcb.write('rip', next)
    vmcb.write('interruptState', vmcb.read('interruptState') & ~1n)
  }
  instructionBytes(vcpu: Vcpu): Uint8Array | undefined {
    const vmcb = this.of(vcpu)
    const bytes = new Uint8Array(vmcb.get('fetchedLength') & 15)
    this.hardware.memory.read(vmcb.page + fetchedBytes, bytes)
    return bytes.length > 0 ? bytes : undefined
  }

  // ---- registers ----

  read(vcpu: Vcpu, name: SystemRegister): bigint {
    if (!this.of(vcpu).read('asid')) throw new Error(`${vcpu.name} was never loaded`)
    if (vcpu.shadow && isShadowed(name)) return vcpu.shadow.get(name)
    if (name === 'cr0') return this.readControl(vcpu, 0)
    const value = this.of(vcpu).read(fieldOf(name))
    return name === 'efer' ? value & ~svme : isSegmentField(name) ? fromAttributes(value) : value
  }
  write(vcpu: Vcpu, name: SystemRegister, value: bigint): void {
    if (vcpu.shadow && isShadowed(name)) {
      vcpu.shadow.set(name, value)
      return this.setPaging(vcpu)
    }
    if (name === 'cr0') return this.writeControl(vcpu, 0, value)
    this.of(vcpu).write(fieldOf(name), name === 'efer' ? value | svme : isSegmentField(name) ? toAttributes(value) : value)
    // the privilege level is a field of its own
    if (name === 'ssAttributes') this.of(vcpu).set('cpl', Number((value >> 5n) & 3n))
  }
  /** CR0.TS while it is ours is not what the guest has written. */
  readControl(vcpu: Vcpu, number: 0 | 4): bigint {
    if (vcpu.shadow) return vcpu.shadow.get(number === 0 ? 'cr0' : 'cr4')
    const vmcb = this.of(vcpu)
    if (number === 4) return vmcb.read('cr4')
    const value = vmcb.read('cr0')
    return vcpu.fpuTrapped && !vcpu.taskSwitched ? value & ~taskSwitch : value
  }
  writeControl(vcpu: Vcpu, number: 0 | 4, value: bigint): void {
    const vmcb = this.of(vcpu)
    if (number === 4) return vmcb.write('cr4', value)
    vcpu.taskSwitched = (value & taskSwitch) !== 0n
    vmcb.write('cr0', vcpu.fpuTrapped ? value | taskSwitch : value)
  }

  setPaging(vcpu: Vcpu, only?: 'cr3'): void {
    const vmcb = this.of(vcpu)
    const shadow = vcpu.shadow!
    if (only) return vmcb.write('cr3', shadow.hardware('cr3'))
    vcpu.taskSwitched = (shadow.get('cr0') & taskSwitch) !== 0n
    vmcb.write('cr0', shadow.hardware('cr0') | (vcpu.fpuTrapped ? taskSwitch : 0n))
    vmcb.write('cr3', shadow.hardware('cr3'))
    vmcb.write('cr4', shadow.hardware('cr4'))
    vmcb.write('efer', shadow.hardware('efer') | svme)
  }
  setFaultAddress(vcpu: Vcpu, address: bigint): void {
    this.of(vcpu).write('cr2', address)
  }
  /** INVLPGA knows addresses of one PCID only. */
  forget(vcpu: Vcpu, linear: bigint): void {
    const vmcb = this.of(vcpu)
    if (!vmcb.processor) return
    if (vcpu.shadow && vcpu.shadow.get('cr4') & pcidEnable) vcpu.flush = true
    else vmcb.processor.perform('invlpga', linear, vmcb.read('asid'))
  }

  // ---- events ----

  inject(vcpu: Vcpu, { type, vector, error }: PendingEvent): void {
    const vmcb = this.of(vcpu)
    const hasError = error === undefined ? 0 : eventInfo.hasError
    if (error !== undefined) vmcb.set('eventInjectionError', error)
    vmcb.set('eventInjection', (eventInfo.valid | (eventType[type] << eventInfo.typeShift) | vector | hasError) >>> 0)
  }
  canTakeInterrupt(vcpu: Vcpu): boolean {
    const vmcb = this.of(vcpu)
    return (vmcb.read('rflags') & interruptFlag) !== 0n && (vmcb.read('interruptState') & 1n) === 0n
  }
  /** A virtual interrupt that is intercepted before it is taken. */
  wantWindow(vcpu: Vcpu, wanted: boolean): void {
    const vmcb = this.of(vcpu)
    const word = vmcb.get('virtualInterrupt')
    const request = virtualInterrupt.irq | virtualInterrupt.priorityMask | virtualInterrupt.ignoreTpr
    if (((word & virtualInterrupt.irq) !== 0) === wanted) return
    vmcb.set('virtualInterrupt', wanted ? word | request : word & ~request)
    const intercepts = vmcb.get('intercepts3')
    vmcb.set('intercepts3', wanted ? intercepts | (1 << intercept3.vintr) : intercepts & ~(1 << intercept3.vintr))
  }
  assistApics(count: number): ApicAssist[] {
    return Array.from({ length: count }, () => new VirtualInterrupt(this))
  }
  /** V_TPR, and V_IRQ for a vector; -1: none waits; undefined: V_IRQ stays as it is. */
  setVirtualInterrupt(vcpu: Vcpu, priority: number, vector: number | undefined): void {
    const vmcb = this.of(vcpu)
    const { tprMask, irq, priorityMask, priorityShift, ignoreTpr } = virtualInterrupt
    const word = (vmcb.get('virtualInterrupt') & ~tprMask) | priority
    if (vector === undefined) return vmcb.set('virtualInterrupt', word)
    const clear = word & ~(irq | priorityMask | ignoreTpr)
    vmcb.set('virtualInterrupt', vector < 0 ? clear : clear | irq | ((vector >> 4) << priorityShift))
    if (vector >= 0) vmcb.set('virtualVector', vector)
  }
  /** What is there after an exit: -1: the guest has taken it. */
  virtualInterrupt(vcpu: Vcpu): { priority: number; vector: number } {
    const vmcb = this.of(vcpu)
    const word = vmcb.get('virtualInterrupt')
    return { priority: word & virtualInterrupt.tprMask, vector: word & virtualInterrupt.irq ? vmcb.get('virtualVector') & 0xff : -1 }
  }
  setIntercepts(vcpu: Vcpu, { exceptions, pause, translation, timestamp, priority }: Intercepts): void {
    const vmcb = this.of(vcpu)
    this.setExceptions(vcpu, vmcb, exceptions, vcpu.fpuTrapped)
    const loops = pause === 'loops' && this.hasPauseFilter
    this.intercept(vmcb, 'pause', pause === true || loops)
    vmcb.set('pauseThreshold', loops ? pauseLoop.gap : 0)
    vmcb.set('pauseCount', loops ? pauseLoop.count : 0)
    this.intercept(vmcb, 'rdtsc', timestamp)
    this.intercept(vmcb, 'rdtscp', timestamp)
    this.intercept(vmcb, 'invlpg', translation || vcpu.shadow !== undefined)
    this.intercept(vmcb, 'invpcid', vcpu.shadow !== undefined)
    this.setControlIntercepts(vcpu, vmcb, vcpu.fpuTrapped, translation, priority)
  }
  private setExceptions(vcpu: Vcpu, vmcb: Vmcb, exceptions: number, fpu: boolean): void {
    vmcb.set('exceptionIntercepts', exceptions | (fpu ? 1 << 7 : 0) | (vcpu.shadow ? pageFault : 0))
  }
  private setControlIntercepts(vcpu: Vcpu, vmcb: Vmcb, cr0: boolean, cr3: boolean, cr8: boolean): void {
    const which = (vcpu.shadow ? 0x19 : 0) | (cr0 ? 1 : 0) | (cr3 ? 8 : 0) | (cr8 ? 0x100 : 0)
    vmcb.set('crIntercepts', which | (which << 16))
  }
  trapFpu(vcpu: Vcpu, on: boolean): void {
    const vmcb = this.of(vcpu)
    const value = vmcb.read('cr0')
    if (on) vcpu.taskSwitched = (value & taskSwitch) !== 0n
    vmcb.write('cr0', on || vcpu.taskSwitched ? value | taskSwitch : value & ~taskSwitch)
    this.setExceptions(vcpu, vmcb, vcpu.intercepts.exceptions, on)
    this.setControlIntercepts(vcpu, vmcb, on, vcpu.intercepts.translation, vcpu.intercepts.priority)
  }
  trapDebug(vcpu: Vcpu, on: boolean): void {
    this.of(vcpu).set('drIntercepts', on ? 0xffffffff : 0)
  }
  setSlice(): void {
    throw new Error('AMD-V has no preemption timer')
  }
}
