/**
 * AMD-V of one CPU: VMRUN and #VMEXIT, what is intercepted, virtual interrupts and the global interrupt flag. AMD APM vol. 2, "Secure
 * Virtual Machine".
 */
import { cr0, cr4, efer, halvesOfWide, join, split, is64 } from '../../cpu/bits.ts'
import { nonMaskableInterrupt, softwareInterrupt, type CpuEvent } from '../../cpu/event.ts'
import { Fault, generalProtection, vector } from '../../cpu/fault.ts'
import { interceptNames, interceptNumber } from '../../cpu/intercepts.ts'
import { at } from '../../cpu/layout.ts'
import { checkCr0, checkCr3, checkCr4 } from '../../cpu/control.ts'
import { eferWritable } from '../../cpu/msr.ts'
import { readSlot, slotOf } from '../../cpu/msr-table.ts'
import { activity } from '../../cpu/reset.ts'
import { flag, readRflags, writeRflags } from '../../cpu/rflags.ts'
import { VmExit, type PortAccess, type Taken, type Virtualization, type VirtualizedCpu } from '../../cpu/virtualization.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import { exitCode, fillMask, instructionIntercepts, intercept3, mwaitArmed } from './exit-codes.ts'
import { eventOf, infoOf } from './event-info.ts'
import type { GuestEvent, GuestListener } from '../../cpu/guest-event.ts'
import { entryEvent, exitEvent, failureEvent, pointersRule, reportPointers, reportRule } from './report.ts'
import { allBroken, firstBroken, ruleWords, type RuleContext } from './rules.ts'
import * as cleanBits from './clean-bits.ts'
import * as smm from './smm.ts'
import { svmWord } from './state.ts'
import * as virtualNmi from './virtual-nmi.ts'
import { eventInfo, fetchedBytes, nestedControl, offsetOf, tlbControl, virtualExtension, virtualInterrupt } from './vmcb.ts'
import type { VmcbFieldName } from './vmcb.ts'
import { VmcbWriters } from './writers.ts'
import { vmcbCopies, type VmcbCopies } from './world-switch.ts'

const index = {
  guestMode: at.guestMode >> 2, space: at.translationSpace >> 2, secondStage: at.secondStage >> 2, gate: at.interruptGate >> 2,
  mask: at.interceptMask >> 2, shadow: at.interruptShadow >> 2, activity: at.activity >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2,
  pendingNmi: at.pendingNmi >> 2, pendingSmi: at.pendingSmi >> 2, pendingDebug: at.pendingDebug >> 2,
  cr0: at.cr0 >> 2, efer: at.efer >> 2, cpl: at.cpl >> 2,
  pat: at.msrPat >> 2, debugctl: at.msrDebugctl >> 2,
  lastBranch: at.lastBranch >> 2, dr7: (at.dr >> 2) + 14, interruptPending: at.interruptPending >> 2,
  rax: at.gpr >> 2,
} as const

/** Words of a VMCB that every world switch uses. */
const inVmcb = {
  brFrom: offsetOf.brFrom >> 2, brTo: offsetOf.brTo >> 2, debugctl: offsetOf.debugctl >> 2, eventInjection: offsetOf.eventInjection >> 2,
  exitCode: offsetOf.exitCode >> 2, exitInfo1: offsetOf.exitInfo1 >> 2, exitInfo2: offsetOf.exitInfo2 >> 2,
  exitInterrupt: offsetOf.exitInterrupt >> 2, exitInterruptError: offsetOf.exitInterruptError >> 2, gPat: offsetOf.gPat >> 2,
  interruptState: offsetOf.interruptState >> 2, lastExceptionFrom: offsetOf.lastExceptionFrom >> 2,
  lastExceptionTo: offsetOf.lastExceptionTo >> 2, nextRip: offsetOf.nextRip >> 2, rflags: offsetOf.rflags >> 2,
  virtualInterrupt: offsetOf.virtualInterrupt >> 2,
} as const

const blockedBySmi = 4
const instructionShadow = 3
const dr7GD = 1n << 13n
const vmCr = 0xc0010114
const redirectInit = 2n
/** Error code of #SX. */
const causedByInit = 1
const tscRatioMsr = 0xc0000104
const tscRatioOne = 1n << 32n

/** What an exit has to say besides code and EXITINFO. */
interface Detail {
  /** nRIP: exits of instructions. */
  readonly nextRip?: bigint
  /** Decode assists: the bytes of the instruction. */
  readonly bytes?: boolean
}

export class Svm implements Virtualization {
  private readonly cpu: VirtualizedCpu
  private readonly words: Uint32Array
  readonly mmu: Mmu
  observer: GuestListener | undefined
  private readonly physical: PhysicalMemory
  private readonly mask = new Uint32Array(4)
  private readonly maskFor = new Uint32Array(6)
  private readonly context: { -readonly [Key in keyof RuleContext]: RuleContext[Key] }
  private readonly offers: Readonly<Record<'nrips' | 'decode' | 'pauseFilter' | 'pauseThreshold', boolean>>

  constructor(cpu: VirtualizedCpu, mmu: Mmu) {
    this.cpu = cpu
    this.words = cpu.state.words
    this.mmu = mmu
    this.physical = mmu.physical
    const has = (name: string): boolean => cpu.model.has(name)
    this.context = { model: cpu.model, eferBits: eferWritable(cpu.model), hostCr0: 0, hostPae: false }
    this.strictCleanBits = has('strict_clean_bits')
    this.ratioWord = has('tsc_scale') ? (at.msrMisc >> 2) + slotOf(tscRatioMsr) * 2 : -1
    this.offers = { nrips: has('nrip_save'), decode: has('decodeassists'), pauseFilter: has('pausefilter'),
      pauseThreshold: has('pfthreshold') }
  }

  /** Made when they are first needed. */
  get copies(): VmcbCopies {
    return this.#copies ?? (this.#copies = vmcbCopies(this.physical.memory, this.cpu.model.linearBits))
  }
  #copies: VmcbCopies | undefined

  // ---- VMCBs in memory ----

  /** Word index of the VMCB at a physical address whose page is about to be read, and written if `write`. #GP where there is no RAM. */
  private vmcbAt(lo: number, hi: number, write: boolean): number {
    const place = this.physical.pagePlace(lo | 0, hi)
    if (place === 0) {
      this.cpu.log(`a VMCB at 0x${(hi * 2 ** 32 + lo).toString(16)}, where there is no RAM: #GP`)
      throw generalProtection()
    }
    if (write) {
      if (this.writers) this.writers.byProcessor(() => this.physical.aboutToWrite(place, 4096))
      else this.physical.aboutToWrite(place, 4096)
    }
    return (place + (lo & 0xfff)) >>> 2
  }

  /** The operand of VMRUN, VMLOAD and VMSAVE: rAX, checked. */
  private operand(): { lo: number; hi: number } {
    const { words } = this
    const lo = words[index.rax]
    const hi = this.cpu.operation.addressSize === 64 ? words[index.rax + 1] : 0
    if (lo & 0xfff || hi * 2 ** 32 + lo >= 2 ** this.cpu.model.physicalBits) throw generalProtection()
    return { lo, hi }
  }

  /** VMLOAD and VMSAVE: with virtualized VMLOAD and VMSAVE the guest's address is guest-physical. */
  operandVmcb(write: boolean): number {
    const { lo, hi } = this.operand()
    const { words } = this
    const virtual = words[index.guestMode] !== 0 && words[svmWord.virtualExtensions] & virtualExtension.vmloadVmsave
    if (!virtual) {
      const start = this.vmcbAt(lo, hi, write)
      this.noteWriters(hi * 2 ** 32 + lo)
      return start
    }
    const second = this.mmu.secondStage!
    second.linearLo = 0
    if (!second.page(lo | 0, hi | 0, write ? 2 : 1, false)) throw second.exit()
    return this.vmcbAt(second.lo, second.hi, write)
  }

  /** While somebody listens: who writes to the VMCBs that the processor was given. */
  private writers: VmcbWriters | undefined
  private noteWriters(vmcb: number): void {
    if (!this.observer) return
    this.writers ??= new VmcbWriters(this.physical, () => this.cpu.storingRip)
    this.writers.watch(vmcb)
  }
  /** Every rule that the VMCB breaks. */
  private failure(start: number, vmcb: number): GuestEvent {
    const view = { words: this.words, start }
    const broken = allBroken(view, this.context).map(rule => reportRule(rule, view, this.context, this.writers?.of(vmcb)))
    return failureEvent(this.cpu, vmcb, this.cpu.state.rip, broken)
  }

  // ---- VMRUN ----

  vmrun(): void {
    const { words } = this
    const { lo, hi } = this.operand()
    const start = this.vmcbAt(lo, hi, true)
    this.noteWriters(hi * 2 ** 32 + lo)
    words[svmWord.vmcb] = lo
    words[svmWord.vmcb + 1] = hi
    const cached = this.strictCleanBits ? cleanBits.putIn(words, start, lo, hi) : undefined
    const entered = this.enter(start, hi * 2 ** 32 + lo)
    if (cached) cleanBits.takeOut(words, start, cached)
    if (entered) this.inject(start)
  }
  /** Of the model: fields stay as they were while their clean bit says so. */
  private readonly strictCleanBits: boolean

  /** The checks, and the guest's state in place of the host's; false: refused. */
  private enter(start: number, vmcb: number): boolean {
    const { cpu, words } = this
    const nextRip = cpu.operation.nextRip
    const vmrunRip = this.observer ? cpu.state.rip : 0n
    this.context.hostCr0 = words[index.cr0]
    if (!this.isAsAccepted(start)) {
      const broken = firstBroken({ words, start }, this.context)
      if (broken) {
        if (this.observer) this.observer(this.failure(start, vmcb))
        return this.refuse(start, nextRip, broken.title)
      }
      this.accept(start)
    }

    this.copies.saveHost(0)
    words[svmWord.hostRflags] = readRflags(cpu.state)
    this.setWide(svmWord.hostRip, nextRip)
    this.copies.loadControls(start * 4)
    this.takeControls(start)
    this.copies.loadGuest(start * 4)
    this.loadFlags(start)
    words[index.guestMode] = 1
    words[svmWord.globallyHeld] = 0
    words[index.space] = words[svmWord.asid]
    words[index.secondStage] = words[svmWord.nestedControl] & nestedControl.enable
    if (!this.flush(start) || !this.enterPaging()) {
      // the host's registers as they were; RFLAGS has not been given up
      this.leave(nextRip)
      if (this.observer) this.observer(failureEvent(cpu, vmcb, vmrunRip, [reportPointers({ words, start })]))
      return this.refuse(start, nextRip, pointersRule)
    }
    cpu.interruptChanged()
    if (this.observer) this.observer(entryEvent(cpu, vmcb, { words, start }))
    return true
  }

  /** What the rules look at, as VMRUN last accepted it: then they are not asked again. */
  private readonly accepted = new Uint32Array(ruleWords.length + 1)
  private isAsAccepted(start: number): boolean {
    const { words, accepted } = this
    if (accepted[ruleWords.length] !== words[index.cr0]) return false
    for (let i = 0; i < ruleWords.length; i++) if (accepted[i] !== words[start + ruleWords[i]]) return false
    return true
  }
  private accept(start: number): void {
    const { words, accepted } = this
    for (let i = 0; i < ruleWords.length; i++) accepted[i] = words[start + ruleWords[i]]
    accepted[ruleWords.length] = words[index.cr0]
  }

  /** #VMEXIT(INVALID): nothing was loaded. */
  private refuse(start: number, nextRip: bigint, why: string): false {
    const { cpu, words } = this
    cpu.log(`VMRUN: VMEXIT_INVALID, ${why}`)
    this.putWide(start, 'exitCode', -1n)
    for (const name of ['exitInfo1', 'exitInfo2', 'exitInterrupt'] as const) this.putWide(start, name, 0n)
    words[svmWord.globallyHeld] = 1
    words[index.gate] = 2
    words[index.rip] = Number(nextRip & 0xffffffffn)
    words[index.rip + 1] = Number(nextRip >> 32n)
    return false
  }

  /** What follows from the controls: the mask of intercepts, when interrupts are looked at, MSRs that are switched. */
  private takeControls(start: number): void {
    const { words, mask, maskFor } = this
    const first = svmWord.crIntercepts
    let same = true
    for (let i = 0; i < 6; i++) {
      const value = words[first + i * 2]
      if (maskFor[i] !== value) {
        maskFor[i] = value
        same = false
      }
    }
    if (!same) fillMask(mask, maskFor)
    for (let i = 0; i < 4; i++) words[index.mask + i] = mask[i]
    const masking = words[svmWord.virtualInterrupt] & virtualInterrupt.masking
    words[index.gate] = masking === 0 ? 0 : words[svmWord.hostRflags] & flag.IF ? 1 : 2
    const nested = (words[svmWord.nestedControl] & nestedControl.enable) !== 0
    if (nested) this.exchange(index.pat, svmWord.hostPat, start + (offsetOf.gPat >> 2))
    if (words[svmWord.virtualExtensions] & virtualExtension.lbr) {
      this.exchange(index.debugctl, svmWord.hostDebugctl, start + (offsetOf.debugctl >> 2))
      this.exchange(index.lastBranch, svmWord.hostBrFrom, start + (offsetOf.brFrom >> 2))
      this.exchange(index.lastBranch + 2, svmWord.hostBrTo, start + (offsetOf.brTo >> 2))
      this.exchange(index.lastBranch + 4, svmWord.hostLastExceptionFrom, start + (offsetOf.lastExceptionFrom >> 2))
      this.exchange(index.lastBranch + 6, svmWord.hostLastExceptionTo, start + (offsetOf.lastExceptionTo >> 2))
    }
    const pause = words[start + (offsetOf.pauseThreshold >> 2)]
    words[svmWord.pauseThreshold] = pause & 0xffff
    words[svmWord.pauseFilter] = pause >>> 16
    words[svmWord.pauseCount] = pause >>> 16
    virtualNmi.enter(words)
    words[svmWord.tscRatio] = this.ratioWord < 0 ? 0 : words[this.ratioWord]
    words[svmWord.tscRatio + 1] = this.ratioWord < 0 ? 1 : words[this.ratioWord + 1]
  }
  /** Where the TSC_RATIO MSR lies; -1: the model has none. */
  private readonly ratioWord: number
  private exchange(register: number, host: number, guest: number): void {
    const { words } = this
    words[host] = words[register]
    words[host + 1] = words[register + 1]
    words[register] = words[guest]
    words[register + 1] = words[guest + 1]
  }
  private giveBack(register: number, host: number, guest: number): void {
    const { words } = this
    words[guest] = words[register]
    words[guest + 1] = words[register + 1]
    words[register] = words[host]
    words[register + 1] = words[host + 1]
  }

  private loadFlags(start: number): void {
    const { words } = this
    writeRflags(this.cpu.state, words[start + (offsetOf.rflags >> 2)])
    const long = words[index.efer] & efer.LME && words[index.cr0] & cr0.PG
    words[index.efer] = (words[index.efer] & ~efer.LMA) | (long ? efer.LMA : 0)
    words[index.cr0] |= cr0.ET
    if (!(words[index.cr0] & cr0.PE)) words[index.cpl] = 0
    else if (words[index.eflags] & flag.VM) words[index.cpl] = 3
    const shadow = words[start + (offsetOf.interruptState >> 2)] & 1
    words[index.shadow] = (words[index.shadow] & ~instructionShadow) | shadow
    this.cpu.shadowCast()
    words[index.activity] = activity.running
    words[index.pendingDebug] = 0
  }

  /** TLB_CONTROL. */
  private flush(start: number): true {
    const { mmu } = this
    const asid = this.words[svmWord.asid]
    switch ((this.words[start + (offsetOf.tlbControl >> 2)]) & 0xff) {
      case tlbControl.flushAll:
        mmu.flushAll()
        break
      case tlbControl.flushAsid:
      case tlbControl.flushAsidNonGlobal:
        mmu.flushOther(asid, (this.words[start + (offsetOf.tlbControl >> 2)] & 4) === 0)
        mmu.secondStage?.flush(asid)
    }
    return true
  }

  /** The guest's paging takes effect; false when its PDPTEs have reserved bits. */
  private enterPaging(): boolean {
    const { cpu, words } = this
    const pae = words[index.cr0] & cr0.PG && words[at.cr4 >> 2] & cr4.PAE && !(words[index.efer] & efer.LMA)
    if (pae) {
      try {
        cpu.translation.cr3Written(true)
      } catch (fault) {
        if (!(fault instanceof Fault)) throw fault
        return false
      }
    }
    cpu.stateChanged()
    return true
  }

  /** EVENTINJ, after the guest's state is there and before its first instruction. */
  private inject(start: number): void {
    const { cpu, words } = this
    const info = words[start + (offsetOf.eventInjection >> 2)]
    if (!(info & eventInfo.valid)) return
    const next = this.offers.nrips ? this.getWide(start + (offsetOf.nextRip >> 2)) : cpu.state.rip
    this.injecting = eventOf(info, words[start + (offsetOf.eventInjectionError >> 2)], cpu.state.rip, next)
    cpu.deliver(this.injecting)
    this.injecting = undefined
  }
  /** Its delivery is not intercepted; exceptions that come up in it are. */
  private injecting: CpuEvent | undefined

  // ---- #VMEXIT ----

  exit(exit: VmExit): void {
    const { cpu, words } = this
    const start = this.vmcbAt(words[svmWord.vmcb], words[svmWord.vmcb + 1], true)
    const detail = (exit.more ?? {}) as Detail
    words[start + inVmcb.exitCode] = exit.reason
    words[start + inVmcb.exitCode + 1] = 0
    this.setWide(start + inVmcb.exitInfo1, exit.info1)
    this.setWide(start + inVmcb.exitInfo2, exit.info2)
    const during = exit.during as CpuEvent | undefined
    words[start + inVmcb.exitInterrupt] = during ? infoOf(during) : 0
    words[start + inVmcb.exitInterruptError] = during?.error ?? 0
    if (this.offers.nrips) this.setWide(start + inVmcb.nextRip, detail.nextRip ?? 0n)
    if (this.offers.decode) this.putBytes(start, detail.bytes === true)

    words[start + inVmcb.rflags] = readRflags(cpu.state)
    words[start + inVmcb.rflags + 1] = 0
    words[start + inVmcb.interruptState] = words[index.shadow] & instructionShadow ? 1 : 0
    virtualNmi.leave(words)
    words[start + inVmcb.virtualInterrupt] = words[svmWord.virtualInterrupt]
    words[start + inVmcb.eventInjection] &= ~eventInfo.valid
    if (words[svmWord.nestedControl] & nestedControl.enable) this.giveBack(index.pat, svmWord.hostPat, start + inVmcb.gPat)
    if (words[svmWord.virtualExtensions] & virtualExtension.lbr) {
      this.giveBack(index.debugctl, svmWord.hostDebugctl, start + inVmcb.debugctl)
      this.giveBack(index.lastBranch, svmWord.hostBrFrom, start + inVmcb.brFrom)
      this.giveBack(index.lastBranch + 2, svmWord.hostBrTo, start + inVmcb.brTo)
      this.giveBack(index.lastBranch + 4, svmWord.hostLastExceptionFrom, start + inVmcb.lastExceptionFrom)
      this.giveBack(index.lastBranch + 6, svmWord.hostLastExceptionTo, start + inVmcb.lastExceptionTo)
    }
    this.copies.saveGuest(start * 4)
    if (this.strictCleanBits) cleanBits.keep(words, start, words[svmWord.vmcb], words[svmWord.vmcb + 1])
    if (this.observer) {
      this.writers?.exited(this.getVmcb())
      this.observer(exitEvent(cpu, this.getVmcb(), { words, start }))
    }
    this.leave(this.getWide(svmWord.hostRip))
    writeRflags(cpu.state, words[svmWord.hostRflags] & ~flag.VM)
    words[index.shadow] &= ~instructionShadow
    cpu.shadowCast()
    cpu.singleStep(false)
    // VMRUN has completed: the host's trap flag was set when it began
    if (words[svmWord.hostRflags] & flag.TF) words[index.pendingDebug] |= 0x4000
    cpu.interruptChanged()
  }

  /** The host's registers and modes. GIF is 0. */
  private leave(rip: bigint): void {
    const { cpu, words } = this
    this.copies.loadHost(0)
    this.setWide(index.rip, rip)
    words[index.cr0] |= cr0.PE
    words[index.cpl] = 0
    words[index.dr7] = 0x400
    words[index.dr7 + 1] = 0
    words[index.guestMode] = 0
    words[index.space] = 0
    words[index.secondStage] = 0
    for (let i = 0; i < 4; i++) words[index.mask + i] = 0
    words[svmWord.globallyHeld] = 1
    words[index.gate] = 2
    words[index.activity] = activity.running
    words[index.pendingDebug] = 0
    words[index.eflags] &= ~flag.VM
    const pae = words[index.cr0] & cr0.PG && words[at.cr4 >> 2] & cr4.PAE && !(words[index.efer] & efer.LMA)
    if (pae) cpu.translation.cr3Written(true)
    cpu.stateChanged()
  }

  /** Decode assists: the bytes at the guest's RIP, as far as they were fetched. */
  private putBytes(start: number, wanted: boolean): void {
    const bytes = wanted ? this.cpu.codeBytes(15) : undefined
    const to = start * 4 + offsetOf.fetchedLength
    for (let i = 0; i < 4; i++) this.words[(to >>> 2) + i] = 0
    if (!bytes) return
    const all = this.cpu.state.bytes
    all[to] = bytes.length
    all.set(bytes, start * 4 + fetchedBytes)
  }

  private getVmcb(): number {
    return Number(this.getWide(svmWord.vmcb))
  }
  private setWide(at32: number, value: bigint): void {
    split(value)
    this.words[at32] = halvesOfWide.low
    this.words[at32 + 1] = halvesOfWide.high
  }
  private getWide(at32: number): bigint {
    return join(this.words[at32], this.words[at32 + 1])
  }
  private putWide(start: number, name: VmcbFieldName, value: bigint): void {
    this.setWide(start + (offsetOf[name] >> 2), value)
  }

  // ---- intercepted instructions ----

  private instructionExit(code: number, info1 = 0n, info2 = 0n): VmExit {
    return new VmExit(code, info1, info2, { nextRip: this.cpu.operation.nextRip } satisfies Detail)
  }

  intercept(number: number): VmExit | undefined {
    const { words, cpu } = this
    const name = interceptNames[number]
    switch (name) {
      case 'readCr': return this.readCr()
      case 'writeCr': return this.writeCr()
      case 'lmsw': return this.lmsw()
      case 'clts': return words[svmWord.crIntercepts] & 0x10000 ? this.instructionExit(exitCode.writeCr0) : undefined
      case 'smsw': return this.instructionExit(exitCode.readCr0)
      case 'readDr': return this.debugAccess(cpu.operation.registers[1], cpu.operation.registers[0], false)
      case 'writeDr': return this.debugAccess(cpu.operation.registers[0], cpu.operation.registers[1], true)
      case 'rdmsr': return this.msr(false)
      case 'wrmsr': return this.msr(true)
      case 'pause': return this.pause()
      case 'invlpg': return this.instructionExit(0x79, this.offers.decode ? cpu.state.argument[0] : 0n)
      case 'invlpga': return this.instructionExit(0x7a, this.offers.decode ? this.addressIn(0) : 0n)
      case 'invpcid': return this.instructionExit(0xa2, cpu.state.argument[0], cpu.state.gpr[cpu.operation.registers[0]])
      case 'intn': return this.instructionExit(0x75, this.offers.decode ? cpu.operation.immediate & 0xffn : 0n)
      case 'mwait':
        if (!(words[svmWord.intercepts4] & (1 << 11))) return this.instructionExit(mwaitArmed.code)
    }
    const row = instructionIntercepts[name]
    if (!row) throw new Error(`nobody intercepts ${name}`)
    return this.instructionExit(row.code)
  }

  /** A general register as an address of the instruction's size. */
  private addressIn(gpr: number): bigint {
    return BigInt.asUintN(this.cpu.operation.addressSize, this.cpu.state.gpr[gpr])
  }
  /** Decode assists: bit 63 says MOV, bits 3:0 the general register. */
  private movInfo(gpr: number): bigint {
    return this.offers.decode ? (1n << 63n) | BigInt(gpr) : 0n
  }
  private readCr(): VmExit | undefined {
    const [gpr, cr] = this.cpu.operation.registers
    if (this.words[index.cpl] !== 0 || !(this.words[svmWord.crIntercepts] & (1 << cr))) return undefined
    return this.instructionExit(exitCode.readCr0 + cr, this.movInfo(gpr))
  }
  private writeCr(): VmExit | undefined {
    const { operation, state } = this.cpu
    const [cr, gpr] = operation.registers
    const value = is64(state) ? state.gpr[gpr] : state.gpr[gpr] & 0xffffffffn
    if (cr === 3) checkCr3(this.cpu, value)
    else if (cr === 4) checkCr4(this.cpu, value)
    else if (cr === 0) {
      checkCr0(state, value)
      return this.writeCr0(value, this.movInfo(gpr))
    }
    return this.words[svmWord.crIntercepts] & (0x10000 << cr) ? this.instructionExit(exitCode.writeCr0 + cr, this.movInfo(gpr)) : undefined
  }
  /** The selective intercept leaves alone what changes only TS and MP. */
  private writeCr0(value: bigint, info: bigint): VmExit | undefined {
    const { words } = this
    if (words[svmWord.crIntercepts] & 0x10000) return this.instructionExit(exitCode.writeCr0, info)
    const changes = (Number(value & 0xffffffffn) ^ words[index.cr0]) & ~(cr0.TS | cr0.MP)
    const selective = (words[svmWord.intercepts3] & (1 << intercept3.selectiveCr0)) !== 0
    return selective && changes ? this.instructionExit(exitCode.selectiveCr0, info) : undefined
  }
  /** The selective intercept takes it also when it changes only MP or TS: so does silicon. */
  private lmsw(): VmExit | undefined {
    const { words } = this
    if (words[svmWord.crIntercepts] & 0x10000) return this.instructionExit(exitCode.writeCr0)
    const value = this.lmswValue()
    const changed = value !== this.cpu.state.cr0
    if (changed && words[svmWord.intercepts3] & (1 << intercept3.selectiveCr0) && !(words[svmWord.crIntercepts] & 0x10000))
      return this.instructionExit(exitCode.selectiveCr0)
    return this.writeCr0(value, 0n)
  }
  private lmswValue(): bigint {
    const { operation, state, memory } = this.cpu
    const source = state.argument[2] === 1n ? memory.read16(state.argument[0]) : Number(state.gpr[operation.registers[0]] & 0xffffn)
    return (state.cr0 & ~0xen) | BigInt(source & 0xf)
  }
  private debugAccess(dr: number, gpr: number, write: boolean): VmExit | undefined {
    if (!(this.words[svmWord.drIntercepts] & ((write ? 0x10000 : 1) << dr))) return undefined
    return this.instructionExit((write ? exitCode.writeDr0 : exitCode.readDr0) + dr, this.offers.decode ? BigInt(gpr) : 0n)
  }

  /** The MSR permission map: two bits an MSR, in three ranges of 2 KiB; all others are intercepted. APM vol. 2, "MSR Intercepts". */
  private msr(write: boolean): VmExit | undefined {
    const number = this.words[index.rax + 2]
    const range = number < 0x2000 ? 0 : number >>> 13 === 0xc0000000 >>> 13 ? 1 : number >>> 13 === 0xc0010000 >>> 13 ? 2 : -1
    const bit = range * 0x4000 + (number & 0x1fff) * 2 + (write ? 1 : 0)
    return range < 0 || this.mapBit(svmWord.msrpmBase, bit) ? this.instructionExit(exitCode.msr, write ? 1n : 0n) : undefined
  }
  private mapBit(base: number, bit: number): boolean {
    const lo = (this.words[base] & ~0xfff) + (bit >>> 3)
    const place = this.physical.pagePlace(lo | 0, this.words[base + 1] | 0)
    if (place === 0) return true
    return (this.cpu.state.bytes[(place + (lo & 0xfff)) >>> 0] & (1 << (bit & 7))) !== 0
  }

  /** The I/O permission map: a bit a port; an access of several bytes tests several, those beyond FFFFH lie behind the map's end. */
  portAccess({ port, size, write, string }: PortAccess): VmExit | undefined {
    if (!(this.words[svmWord.intercepts3] & (1 << intercept3.ioio))) return undefined
    let hit = false
    for (let i = 0; i < size && !hit; i++) hit = this.mapBit(svmWord.iopmBase, port + i)
    if (!hit) return undefined
    const { operation } = this.cpu
    const bits = (write ? 0 : 1) | (string ? 4 | (string.repeats ? 8 : 0) | (this.offers.decode ? string.segment << 10 : 0) : 0)
    const info = BigInt((bits | (size << 4) | ((operation.addressSize >> 4) << 7) | (port << 16)) >>> 0)
    return this.instructionExit(exitCode.ioio, info, operation.nextRip)
  }

  /** APM vol. 2, "Pause Intercept Filtering". */
  private pause(): VmExit | undefined {
    const { words } = this
    if (!this.offers.pauseFilter || words[svmWord.pauseFilter] === 0) return this.instructionExit(0x77)
    const now = Math.floor(this.cpu.now()) >>> 0
    const elapsed = (now - words[svmWord.lastPause]) >>> 0
    words[svmWord.lastPause] = now
    const threshold = words[svmWord.pauseThreshold]
    if (this.offers.pauseThreshold && threshold !== 0 && elapsed > threshold) words[svmWord.pauseCount] = words[svmWord.pauseFilter]
    if (words[svmWord.pauseCount] === 0) return this.instructionExit(0x77)
    words[svmWord.pauseCount]--
    return undefined
  }

  // ---- events ----

  exception(event: CpuEvent): void {
    const { state } = this.cpu
    if (event === this.injecting) return
    if (!(this.words[svmWord.exceptionIntercepts] & (1 << event.vector)) || event.vector > 31) return
    const software = event.kind === 'softwareException' || event.kind === 'privilegedSoftware'
    const info2 = event.vector === vector.PF ? (event.address ?? 0n) : 0n
    if (event.vector === vector.DB) {
      // the saved DR6 and DR7 are those that a handler would see
      state.dr[6] = (state.dr[6] & ~0xfn) | (event.address ?? 0n)
      state.dr[7] &= ~dr7GD
    }
    const bytes = event.vector === vector.PF && !((event.error ?? 0) & 0x10)
    const detail: Detail = software ? { nextRip: event.nextRip, bytes } : { bytes }
    throw new VmExit(exitCode.exception0 + event.vector, BigInt(event.error ?? 0), info2, detail, event.during)
  }
  delivered(): void {}

  shutdown(during: CpuEvent): boolean {
    if (!(this.words[svmWord.intercepts3] & (1 << intercept3.shutdown))) return false
    this.exit(new VmExit(exitCode.shutdown, 0n, 0n, undefined, during.during))
    return true
  }

  taskSwitch(selector: number, source: 'jump' | 'call' | 'interrupt' | 'return', error: number | undefined): void {
    if (!(this.words[svmWord.intercepts3] & (1 << intercept3.taskSwitch))) return
    const rf = this.words[index.eflags] & flag.RF ? 1n << 48n : 0n
    const cause = source === 'return' ? 1n << 36n : source === 'jump' ? 1n << 38n : 0n
    const code = error === undefined ? 0n : (1n << 44n) | BigInt(error)
    throw new VmExit(exitCode.taskSwitch, BigInt(selector), cause | code | rf)
  }

  readTpr(): number | undefined {
    const control = this.words[svmWord.virtualInterrupt]
    return control & virtualInterrupt.masking ? control & virtualInterrupt.tprMask : undefined
  }
  writeTpr(value: number): boolean {
    const { words } = this
    const virtual = (words[svmWord.virtualInterrupt] & virtualInterrupt.masking) !== 0
    if (virtual) words[svmWord.virtualInterrupt] = (words[svmWord.virtualInterrupt] & ~virtualInterrupt.tprMask) | value
    return virtual
  }

  guestTsc(host: bigint): bigint {
    const ratio = this.getWide(svmWord.tscRatio)
    const scaled = ratio === tscRatioOne ? host : (host * ratio) >> 32n
    return BigInt.asUintN(64, scaled + this.getWide(svmWord.tscOffset))
  }

  get ownsEvents(): boolean {
    return (this.words[index.guestMode] | this.words[svmWord.globallyHeld]) !== 0
  }
  nextDeadline(): number {
    return Infinity
  }
  get holdsSmi(): boolean {
    return this.ownsEvents
  }
  enterSmm(): void {
    smm.enter(this.words)
  }
  leaveSmm(): void {
    smm.leave(this.words)
  }

  private intercepts(bit: number): boolean {
    return (this.words[svmWord.intercepts3] & (1 << bit)) !== 0
  }

  takeEvents(shadow: boolean): Taken {
    const { words, cpu } = this
    if (words[svmWord.globallyHeld] !== 0) return this.takeHeldEvents()
    if (words[index.pendingSmi] && !cpu.holdInterrupts && !(words[index.shadow] & blockedBySmi)) {
      if (this.intercepts(intercept3.smi)) return this.leaveWith(exitCode.smi)
      if (!shadow) {
        cpu.enterSmm()
        return 'delivered'
      }
    }
    if (words[index.pendingDebug] || cpu.holdInterrupts) return cpu.takeHostEvents(shadow)
    if (words[index.pendingNmi] && !virtualNmi.blocksPhysical(words)) {
      if (this.intercepts(intercept3.nmi)) return this.leaveWith(exitCode.nmi)
      if (!shadow) return cpu.takeHostEvents(shadow)
    }
    if (!shadow && virtualNmi.admits(words)) {
      virtualNmi.take(words)
      return cpu.deliver(nonMaskableInterrupt)
    }
    if (words[index.interruptPending] === 0) return 'nothing'
    if (cpu.apic.hasInterrupt() && this.admitsPhysical(shadow))
      return this.intercepts(intercept3.intr) ? this.leaveWith(exitCode.intr) : cpu.takeInterrupt()
    if (!shadow && this.admitsVirtual()) return this.takeVirtual()
    return 'nothing'
  }

  /** GIF is 0: only the trap flag's traps happen; those of breakpoints are lost. APM vol. 2, "Global Interrupt Flag, STGI and CLGI". */
  private takeHeldEvents(): Taken {
    const { words, cpu } = this
    const trap = words[index.pendingDebug] & 0x4000
    words[index.pendingDebug] = trap
    return trap ? cpu.takeHostEvents(false) : 'nothing'
  }

  private leaveWith(code: number): Taken {
    this.exit(new VmExit(code))
    return 'delivered'
  }

  /** A physical interrupt: the host's IF decides if V_INTR_MASKING is set, and the guest's shadow is not in its way. */
  private admitsPhysical(shadow: boolean): boolean {
    const { words } = this
    const gate = words[index.gate]
    return gate === 1 || (gate === 0 && (words[index.eflags] & flag.IF) !== 0 && !shadow)
  }
  get wantsInterrupts(): boolean {
    return (this.words[svmWord.virtualInterrupt] & virtualInterrupt.irq) !== 0
  }
  private admitsVirtual(): boolean {
    const { words } = this
    const control = words[svmWord.virtualInterrupt]
    if (!(control & virtualInterrupt.irq) || !(words[index.eflags] & flag.IF)) return false
    if (control & virtualInterrupt.gifEnable && !(control & virtualInterrupt.gif)) return false
    const priority = (control & virtualInterrupt.priorityMask) >>> virtualInterrupt.priorityShift
    return (control & virtualInterrupt.ignoreTpr) !== 0 || priority > (control & virtualInterrupt.tprMask)
  }
  private takeVirtual(): Taken {
    const { words, cpu } = this
    if (this.intercepts(intercept3.vintr)) return this.leaveWith(exitCode.vintr)
    words[svmWord.virtualInterrupt] &= ~virtualInterrupt.irq
    const number = words[svmWord.virtualVector] & 0xff
    cpu.interruptChanged()
    return cpu.deliver({ ...softwareInterrupt(number, 0n), kind: 'external' })
  }

  wakes(): boolean {
    const { words, cpu } = this
    if (words[index.activity] !== activity.halt) return false
    if (words[svmWord.globallyHeld] !== 0) return words[index.pendingDebug] !== 0
    if (words[index.pendingDebug] !== 0 || (words[index.pendingNmi] && !virtualNmi.blocksPhysical(words))) return true
    if (virtualNmi.admits(words)) return true
    return (cpu.apic.hasInterrupt() && this.admitsPhysical(false)) || this.admitsVirtual()
  }

  takesInit(): 'accepted' | 'held' | 'exit' {
    const { words } = this
    if (words[svmWord.globallyHeld] !== 0) return 'held'
    if (words[index.guestMode] === 0 || !this.intercepts(intercept3.init)) return this.redirectsInit()
    this.exit(new VmExit(exitCode.init))
    return 'held'
  }

  /** VM_CR.R_INIT: INIT becomes #SX. APM vol. 2, "VM_CR MSR". */
  private redirectsInit(): 'accepted' | 'exit' {
    if (!(readSlot(this.cpu.state, vmCr) & redirectInit)) return 'accepted'
    this.cpu.deliver({ kind: 'exception', vector: vector.SX, error: causedByInit, address: undefined, nextRip: 0n, during: undefined })
    return 'exit'
  }

  // ---- GIF ----

  setGif(open: boolean): void {
    const { words } = this
    const control = words[svmWord.virtualInterrupt]
    if (words[index.guestMode] !== 0 && control & virtualInterrupt.gifEnable) {
      words[svmWord.virtualInterrupt] = open ? control | virtualInterrupt.gif : control & ~virtualInterrupt.gif
      return
    }
    words[svmWord.globallyHeld] = open ? 0 : 1
    if (words[index.guestMode] === 0) words[index.gate] = open ? 0 : 2
  }
}

if (interceptNumber.cpuid !== 0) throw new Error('the first intercept has bit 0')
