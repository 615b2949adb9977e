/**
 * AMD-V of one CPU: its VMCBs, the answers to what the processor asks while a guest runs, and the global interrupt flag. AMD APM vol. 2,
 * "Secure Virtual Machine".
 */
import { halvesOfWide, join, split } from '../../cpu/bits.ts'
import type { CpuEvent } from '../../cpu/event.ts'
import { generalProtection } from '../../cpu/fault.ts'
import type { GuestEvent, GuestListener } from '../../cpu/guest-event.ts'
import { at } from '../../cpu/layout.ts'
import { eferWritable } from '../../cpu/msr.ts'
import { slotOf } from '../../cpu/msr-table.ts'
import type { PortAccess, Taken, Virtualization, VirtualizedCpu, VmExit } from '../../cpu/virtualization.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import { Avic } from './avic.ts'
import { vmrun } from './entry.ts'
import { exception, passes, shutdown, takeEvents, takesInit, wakes } from './events.ts'
import { leaveGuest } from './exit.ts'
import { intercept, portAccess, taskSwitch, type TaskSource } from './intercepts.ts'
import { failureEvent, reportRule } from './report.ts'
import { allBroken, ruleWords, type RuleContext } from './rules.ts'
import * as smm from './smm.ts'
import { svmWord } from './state.ts'
import { offsetOf, virtualExtension, virtualInterrupt, type VmcbFieldName } from './vmcb.ts'
import { stateWords } from './words.ts'
import { VmcbWriters } from './writers.ts'
import { vmcbCopies, type VmcbCopies } from './world-switch.ts'

const index = stateWords

const tscRatioMsr = 0xc0000104
const tscRatioOne = 1n << 32n

export class Svm implements Virtualization {
  readonly cpu: VirtualizedCpu
  readonly words: Uint32Array
  readonly mmu: Mmu
  readonly physical: PhysicalMemory
  readonly avic: Avic
  observer: GuestListener | undefined
  readonly offers: Readonly<Record<'nrips' | 'decode' | 'pauseFilter' | 'pauseThreshold' | 'writeTraps' | 'idleHlt' | 'avic'
    | 'x2avic', boolean>>
  /** Of the model: fields stay as they were while their clean bit says so. */
  readonly strictCleanBits: boolean
  /** Where the TSC_RATIO MSR lies; -1: the model has none. */
  readonly ratioWord: number

  /** The mask of intercepts, and the vectors from which it was made. */
  readonly mask = new Uint32Array(4)
  readonly maskFor = new Uint32Array(6)
  /** What the rules look at, as VMRUN last accepted it. */
  readonly accepted = new Uint32Array(ruleWords.length + 1)
  readonly context: { -readonly [Key in keyof RuleContext]: RuleContext[Key] }
  /** The event that EVENTINJ ordered: its delivery is not intercepted; exceptions that come up in it are. */
  injecting: CpuEvent | undefined

  constructor(cpu: VirtualizedCpu, mmu: Mmu) {
    this.cpu = cpu
    this.words = cpu.state.words
    this.mmu = mmu
    this.physical = mmu.physical
    this.avic = new Avic(this)
    const has = (name: string): boolean => cpu.model.has(name)
    this.context = { model: cpu.model, eferBits: eferWritable(cpu.model), hostCr0: 0, hostPae: false }
    this.strictCleanBits = has('strict_clean_bits')
    this.ratioWord = has('tsc_scale') ? (at.msrMisc >> 2) + slotOf(tscRatioMsr) * 2 : -1
    this.offers = { nrips: has('nrip_save'), decode: has('decodeassists'), pauseFilter: has('pausefilter'),
      pauseThreshold: has('pfthreshold'), idleHlt: has('idle_hlt'), avic: has('avic'), x2avic: has('x2avic'),
      // nothing in CPUID says so: since the first processors with virtualized VMLOAD and VMSAVE
      writeTraps: has('v_vmsave_vmload') }
  }

  /** Made when they are first needed. */
  get copies(): VmcbCopies {
    return this.#copies ?? (this.#copies = vmcbCopies(this.physical.memory, this.cpu.model.linearBits,
      this.cpu.model.has('shstk')))
  }
  #copies: VmcbCopies | undefined

  // ---- VMCBs in memory ----

  /** Word index of the VMCB at a physical address whose page is about to be read, and written if `write`. #GP where there is no RAM. */
  vmcbAt(lo: number, hi: number, write: boolean): number {
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
  operand(): { lo: number; hi: number } {
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
  writers: VmcbWriters | undefined
  noteWriters(vmcb: number): void {
    if (!this.observer) return
    this.writers ??= new VmcbWriters(this.physical, () => this.cpu.storingRip)
    this.writers.watch(vmcb)
  }
  /** Every rule that the VMCB breaks. */
  failure(start: number, vmcb: number): GuestEvent {
    const view = { words: this.words, start }
    const broken = allBroken(view, this.context).map(rule => reportRule(rule, view, this.context, this.writers?.of(vmcb)))
    return failureEvent(this.cpu, vmcb, this.cpu.state.rip, broken)
  }

  // ---- world switches ----

  vmrun(): void {
    vmrun(this)
  }
  exit(exit: VmExit): void {
    leaveGuest(this, exit)
  }

  getVmcb(): number {
    return Number(this.getWide(svmWord.vmcb))
  }
  setWide(at32: number, value: bigint): void {
    split(value)
    this.words[at32] = halvesOfWide.low
    this.words[at32 + 1] = halvesOfWide.high
  }
  getWide(at32: number): bigint {
    return join(this.words[at32], this.words[at32 + 1])
  }
  putWide(start: number, name: VmcbFieldName, value: bigint): void {
    this.setWide(start + (offsetOf[name] >> 2), value)
  }

  // ---- while a guest runs ----

  intercept(number: number): VmExit | undefined {
    return intercept(this, number)
  }
  portAccess(access: PortAccess): VmExit | undefined {
    return portAccess(this, access)
  }
  taskSwitch(selector: number, source: TaskSource, error: number | undefined, resume: boolean): void {
    taskSwitch(this, selector, source, error, resume)
  }
  exception(event: CpuEvent): void {
    exception(this, event)
  }
  passes(vector: number): boolean {
    return passes(this, vector)
  }
  delivered(): void {}
  shutdown(during: CpuEvent): boolean {
    return shutdown(this, during)
  }
  takeEvents(shadow: boolean): Taken {
    return takeEvents(this, shadow)
  }
  wakes(): boolean {
    return wakes(this)
  }
  takesInit(): 'accepted' | 'held' | 'exit' {
    return takesInit(this)
  }
  get trapsWrite(): boolean {
    return this.words[svmWord.writeTrap] !== 0
  }
  get wantsInterrupts(): boolean {
    return this.avic.isOn ? this.avic.hasInterrupt() : (this.words[svmWord.virtualInterrupt] & virtualInterrupt.irq) !== 0
  }
  doorbell(): void {
    if (this.avic.isOn) this.avic.doorbell()
  }
  readMsr(index: number): bigint | undefined {
    return this.avic.readMsr(index)
  }
  writeMsr(index: number, value: bigint): boolean | undefined {
    return this.avic.writeMsr(index, value)
  }

  readTpr(): number | undefined {
    const control = this.words[svmWord.virtualInterrupt]
    return control & virtualInterrupt.masking || this.avic.isOn ? control & virtualInterrupt.tprMask : undefined
  }
  writeTpr(value: number): boolean {
    const { words } = this
    if (this.avic.isOn) {
      this.avic.writeTpr(value)
      return true
    }
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
