/**
 * The local APIC of one CPU: its registers as software sees them in xAPIC and x2APIC mode, and acceptance of interrupts. Its parts are in
 * files beside it: mode and base address, priority, local vector table, timer, interrupt command, errors.
 * Intel SDM vol. 3, "Advanced Programmable Interrupt Controller (APIC)". Not there: APR, RRD, CMCI, suppression of EOI broadcasts.
 */
import type { AccessSize, DeviceState, InterruptPin, LogUnhandled, MmioHandler, Stateful } from '../devices/ports.ts'
import type { ApicBus, ApicBusMember } from './bus.ts'
import { ApicBase, type LapicMode } from './lapic-base.ts'
import { matchesX2apic, matchesXapic, x2apicLogicalId } from './lapic-destination.ts'
import { ErrorStatus, type ErrorState } from './lapic-errors.ts'
import { InterruptCommand } from './lapic-icr.ts'
import type { InterruptAcknowledger, LapicOptions, LapicSignals } from './lapic-options.ts'
import { LocalVectorTable } from './lapic-lvt.ts'
import type { LvtState } from './lapic-lvt.ts'
import { InterruptPriority } from './lapic-priority.ts'
import type { PriorityRegisters, PriorityState } from './lapic-priority.ts'
import { LapicTimer } from './lapic-timer.ts'
import type { LapicTimerState, TimerMode } from './lapic-timer.ts'
import {
  esrBits, lapicRegisters, lvt, lvtBits, msrApicBase, msrTscDeadline, msrX2apicFirst, msrX2apicLast, timerModeShift,
} from './lapic-registers.ts'
import type { LapicRegister } from './lapic-registers.ts'
import { broadcastDestination, deliveryMode } from './message.ts'
import type { InterruptMessage } from './message.ts'

export type { InterruptAcknowledger, LapicOptions, LapicSignals } from './lapic-options.ts'

export type { LapicMode } from './lapic-base.ts'

const softwareEnable = 0x100
const timerModes: readonly TimerMode[] = ['oneShot', 'periodic', 'tscDeadline']

interface LapicState extends ErrorState {
  apicBase: string
  xapicId: number
  ldr: number
  dfr: number
  svr: number
  icr: number
  icrHigh: number
  lvt: LvtState
  priority: PriorityState
  extIntLatched: boolean
  timer: LapicTimerState
}

export class Lapic implements MmioHandler, ApicBusMember, Stateful {
  /** Wired to the PIC's output on a PC. */
  readonly lint0: InterruptPin = { set: asserted => this.#setPin(0, asserted) }
  /** Wired to NMI on a PC. */
  readonly lint1: InterruptPin = { set: asserted => this.#setPin(1, asserted) }
  readonly timer: LapicTimer

  readonly #id: number
  readonly #bus: ApicBus
  readonly #signals: LapicSignals
  readonly #pic: InterruptAcknowledger | undefined
  readonly #version: number
  readonly #hasTscDeadline: boolean
  readonly #log: LogUnhandled

  readonly #base: ApicBase
  #xapicId = 0
  #ldr = 0
  #dfr = 0xffff_ffff
  #svr = 0xff
  readonly #priority: PriorityRegisters
  readonly #lvt = new LocalVectorTable((mode, vector, level) => this.deliver({ destination: this.id, logical: false, mode, vector, level }))
  readonly #errors = new ErrorStatus(() => this.#lvt.isMasked(lvt.error), () => this.#lvt.raise(lvt.error))
  readonly #command: InterruptCommand
  /** An ExtINT message came; the PIC was not asked yet. */
  #extIntLatched = false
  #intr = false

  constructor(options: LapicOptions) {
    this.#id = options.id
    this.#bus = options.bus
    this.#signals = options.signals
    this.#pic = options.pic
    this.#version = options.version ?? 0x0005_0014
    this.#hasTscDeadline = options.tscDeadline ?? true
    this.#log = options.log ?? (() => {})
    this.#priority = options.priority ?? new InterruptPriority()
    this.#command = new InterruptCommand(this, options.bus, this.#errors, this.#log)
    this.#base = new ApicBase(options.bootstrap, options.x2apic ?? true, options.physicalAddressBits ?? 39)
    this.timer = new LapicTimer({
      name: `lapic.${options.id}.timer`,
      clock: options.clock,
      frequency: options.timerFrequency,
      tsc: options.tsc ?? (() => BigInt(options.clock.now())),
      expired: () => this.#lvt.raise(lvt.timer),
    })
    this.#bus.attach(this)
    this.#powerUp()
  }

  // ---- towards the CPU

  /** INTR is asserted: an interrupt waits that the priority lets through. EFLAGS.IF is the CPU's business. */
  hasInterrupt(): boolean {
    return this.#intr
  }

  /** The vector that `acknowledge` would deliver from the APIC itself, or -1. Changes nothing. */
  get pendingVector(): number {
    return this.mode === 'disabled' ? -1 : this.#priority.pending
  }

  /** Takes the interrupt: its vector moves from IRR to ISR, or the PIC is asked. With nothing pending: the spurious vector. */
  acknowledge(): number {
    const vector = this.pendingVector
    if (vector >= 0) {
      this.#priority.take(vector)
      this.#update()
      return vector
    }
    if (this.#extIntPending() && this.#pic !== undefined) {
      this.#extIntLatched = false
      const external = this.#pic.acknowledge()
      this.#update()
      return external
    }
    return this.#svr & 0xff
  }

  /** As a write to the EOI register. */
  endOfInterrupt(): void {
    this.#endOfInterrupt()
  }

  /** CR8: bits 7:4 of the TPR. Works with the APIC disabled, too. */
  getTpr(): number {
    return this.#priority.tpr >>> 4
  }

  setTpr(cr8: number): void {
    this.#priority.tpr = (cr8 & 0xf) << 4
    this.#update()
  }

  get mode(): LapicMode {
    return this.#base.mode
  }

  /** Physical address of the register page; undefined while there is none (disabled, or x2APIC mode). */
  get mmioBase(): number | undefined {
    return this.#base.page
  }

  get id(): number {
    return this.mode === 'x2apic' ? this.#id : this.#xapicId
  }

  get processorPriority(): number {
    return this.#priority.processorPriority
  }

  /** A performance counter overflowed. `masks`: the entry masks itself, as on Intel's processors. */
  performanceInterrupt(masks = true): void {
    this.#lvt.raise(lvt.performance)
    if (masks) this.#lvt.entries[lvt.performance] |= lvtBits.masked
  }

  thermalInterrupt(): void {
    this.#lvt.raise(lvt.thermal)
  }

  /** What firmware leaves on the bootstrap processor: software-enabled, LINT0 = ExtINT from the PIC, LINT1 = NMI ("virtual wire mode"). */
  configureVirtualWire(): void {
    this.#svr |= softwareEnable
    this.#lvt.entries[lvt.lint0] = deliveryMode.extInt << 8
    this.#lvt.entries[lvt.lint1] = deliveryMode.nmi << 8
    this.#update()
  }

  // ---- reset

  /** Power-up or hardware reset. */
  reset(): void {
    this.#powerUp()
    this.#signals.baseChanged?.()
  }

  #powerUp(): void {
    this.#base.powerUp()
    this.#xapicId = this.#id & 0xff
    this.#resetRegisters()
  }

  /** The CPU took an INIT: all but the APIC ID and IA32_APIC_BASE is as after power-up. */
  initReset(): void {
    this.#resetRegisters()
  }

  #resetRegisters(): void {
    this.#priority.tpr = this.#ldr = 0
    this.#dfr = 0xffff_ffff
    this.#svr = 0xff
    this.#extIntLatched = false
    this.#command.reset()
    this.#errors.reset()
    this.#lvt.reset()
    this.#priority.clearVectors()
    this.timer.reset()
    this.#update()
  }

  // ---- MSRs

  /** IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range; undefined for #GP. */
  readMsr(index: number): bigint | undefined {
    if (index === msrApicBase) return this.#base.value
    if (index === msrTscDeadline) return this.#hasTscDeadline ? this.timer.tscDeadline : undefined
    const register = this.#x2apicRegister(index)
    if (register === undefined || !register.x2apic.includes('r')) return undefined
    const low = BigInt(this.#read(register))
    return register.name === 'icr' ? low | (BigInt(this.#command.high) << 32n) : low
  }

  /** False for #GP: no such register, read-only, reserved bits, or an illegal change of mode. */
  writeMsr(index: number, value: bigint): boolean {
    if (index === msrApicBase) return this.#writeApicBase(value)
    if (index === msrTscDeadline) {
      if (this.#hasTscDeadline) this.timer.tscDeadline = value
      return this.#hasTscDeadline
    }
    const register = this.#x2apicRegister(index)
    if (register === undefined || !register.x2apic.includes('w')) return false
    const low = Number(value & 0xffff_ffffn)
    const high = Number((value >> 32n) & 0xffff_ffffn)
    if ((low & ~register.writable) !== 0 || (high !== 0 && register.name !== 'icr')) return false
    if (register.name === 'icr') this.#command.high = high
    this.#write(register, low)
    return true
  }

  #x2apicRegister(index: number): LapicRegister | undefined {
    return this.mode === 'x2apic' && index >= msrX2apicFirst && index <= msrX2apicLast ? lapicRegisters[index - msrX2apicFirst] : undefined
  }

  #writeApicBase(value: bigint): boolean {
    const old = this.#base.mode
    if (!this.#base.write(value)) return false
    this.#changeMode(old)
    this.#signals.baseChanged?.()
    return true
  }

  /** Disabling loses all state but the TPR, which stays reachable as CR8; enabling again starts as after power-up. */
  #changeMode(old: LapicMode): void {
    const { mode } = this
    if (mode === 'disabled' && old !== 'disabled') {
      const { tpr } = this.#priority
      this.#resetRegisters()
      this.#priority.tpr = tpr
    } else if (mode !== 'disabled' && old === 'disabled') {
      this.#xapicId = this.#id & 0xff
      this.#resetRegisters()
    } else {
      this.#update()
    }
  }

  // ---- MMIO

  /** Registers are 32 bits wide at multiples of 16. Narrow reads give their part; what lies between the registers reads zero. */
  readMmio(offset: number, size: AccessSize): number {
    if (this.mode !== 'xapic') return this.#noPage('read', offset, size)
    if ((offset & 0xc) !== 0) return 0
    const register = lapicRegisters[offset >>> 4]
    if (register === undefined || register.xapic === 'none') {
      this.#errors.report(esrBits.illegalRegister)
      return 0
    }
    const value = register.xapic === 'w' ? 0 : this.#read(register)
    const shifted = value >>> ((offset & 3) * 8)
    return size === 4 ? shifted : shifted & ((1 << (size * 8)) - 1)
  }

  /** Writes that are not whole aligned registers are ignored. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (this.mode !== 'xapic') return void this.#noPage('write', offset, size)
    if (size !== 4 || (offset & 0xf) !== 0) {
      this.#log('lapic', `${size}-byte write at offset 0x${offset.toString(16)}`)
      return
    }
    const register = lapicRegisters[offset >>> 4]
    if (register === undefined || register.xapic === 'none') this.#errors.report(esrBits.illegalRegister)
    else if (register.xapic !== 'r') this.#write(register, (value & register.writable) >>> 0)
  }

  #noPage(what: string, offset: number, size: AccessSize): number {
    this.#log('lapic', `${what} at offset 0x${offset.toString(16)} while ${this.mode}`)
    return 2 ** (size * 8) - 1
  }

  // ---- registers

  #read(register: LapicRegister): number {
    switch (register.name) {
      case 'id': return this.mode === 'x2apic' ? this.#id : this.#xapicId * 0x100_0000
      case 'version': return this.#version
      case 'tpr': return this.#priority.tpr
      case 'ppr': return this.processorPriority
      case 'ldr': return this.#logicalId()
      case 'dfr': return this.#dfr
      case 'svr': return this.#svr
      case 'isr': return this.#priority.isr.words[register.index]
      case 'tmr': return this.#priority.tmr.words[register.index]
      case 'irr': return this.#priority.irr.words[register.index]
      case 'esr': return this.#errors.register
      case 'icr': return this.#command.low
      case 'icrHigh': return this.#command.high
      case 'lvt': return this.#lvt.entries[register.index]
      case 'initialCount': return this.timer.initialCount
      case 'currentCount': return this.timer.currentCount
      case 'divide': return this.timer.divideRegister
      default: throw new Error(`the local APIC's ${register.name} register was read, but it is write-only`)
    }
  }

  #write(register: LapicRegister, value: number): void {
    switch (register.name) {
      case 'id': this.#xapicId = value >>> 24; break
      case 'tpr': this.#priority.tpr = value; this.#update(); break
      case 'eoi': this.#endOfInterrupt(); break
      case 'ldr': this.#ldr = value; break
      case 'dfr': this.#dfr = (value | 0x0fff_ffff) >>> 0; break
      case 'svr': this.#writeSvr(value); break
      case 'esr': this.#errors.write(); break
      case 'icr': this.#command.write(value); break
      case 'icrHigh': this.#command.high = value; break
      case 'lvt': this.#writeLvt(register.index, value); break
      case 'initialCount': this.timer.initialCount = value; break
      case 'divide': this.timer.divideRegister = value; break
      case 'selfIpi': this.#sendSelf(value); break
      default: throw new Error(`the local APIC's ${register.name} register was written, but it is read-only`)
    }
  }

  /** Disabling sets all mask bits, and they cannot be cleared while disabled. */
  #writeSvr(value: number): void {
    this.#svr = value
    if ((value & softwareEnable) === 0) this.#lvt.entries.forEach((entry, index) => this.#writeLvt(index, entry))
  }

  #writeLvt(entry: number, value: number): void {
    this.#lvt.write(entry, value, (this.#svr & softwareEnable) !== 0)
    if (entry === lvt.timer) this.#configureTimer()
    this.#update()
  }

  /** Mode 3 is reserved: it counts as one-shot, and so does 2 without TSC-deadline support. */
  #configureTimer(): void {
    const entry = this.#lvt.entries[lvt.timer]
    const mode = timerModes[entry >>> timerModeShift] ?? 'oneShot'
    this.timer.configure(mode === 'tscDeadline' && !this.#hasTscDeadline ? 'oneShot' : mode, (entry & lvtBits.masked) !== 0)
  }

  // ---- acceptance

  /** Software-disabled APICs still take NMI, SMI, INIT and start-up messages. */
  deliver(message: InterruptMessage): void {
    if (this.mode === 'disabled') return
    switch (message.mode) {
      case deliveryMode.fixed:
      case deliveryMode.lowestPriority:
        if (this.acceptsArbitration) this.#accept(message.vector, message.level)
        break
      case deliveryMode.smi: this.#signals.smi(); break
      case deliveryMode.nmi: this.#signals.nmi(); break
      case deliveryMode.init: this.#signals.init(); break
      case deliveryMode.startup: this.#signals.startup(message.vector); break
      case deliveryMode.extInt:
        this.#extIntLatched = true
        this.#update()
        break
      default: this.#log('lapic', `message with reserved delivery mode ${message.mode}`)
    }
  }

  get acceptsArbitration(): boolean {
    return this.mode !== 'disabled' && (this.#svr & softwareEnable) !== 0
  }

  matches(message: InterruptMessage): boolean {
    if (this.mode === 'disabled') return false
    if (message.destination === broadcastDestination) return true
    return message.logical ? this.#matchesLogical(message.destination) : message.destination === this.id
  }

  #matchesLogical(destination: number): boolean {
    return this.mode === 'x2apic' ? matchesX2apic(destination, this.#logicalId()) : matchesXapic(destination, this.#ldr, this.#dfr)
  }

  #logicalId(): number {
    return this.mode === 'x2apic' ? x2apicLogicalId(this.#id) : this.#ldr
  }

  #accept(vector: number, level: boolean): void {
    if (vector < 16) {
      this.#errors.report(esrBits.receiveIllegalVector)
      return
    }
    this.#priority.request(vector, level)
    this.#update()
  }

  #endOfInterrupt(): void {
    const vector = this.#priority.end()
    if (vector < 0) return
    if (this.#priority.tmr.has(vector)) {
      this.#bus.broadcastEoi(vector)
      this.#lvt.endOfInterrupt(vector)
    }
    this.#update()
  }

  #update(): void {
    const intr = this.pendingVector >= 0 || this.#extIntPending()
    if (intr === this.#intr) return
    this.#intr = intr
    this.#signals.intrChanged()
  }

  // ---- pins

  /** With the APIC disabled the pins are those of a processor without one: INTR and NMI. */
  #setPin(pin: 0 | 1, asserted: boolean): void {
    if (this.mode !== 'disabled') this.#lvt.setPin(pin, asserted)
    else {
      if (pin === 1 && asserted && !this.#lvt.pins[pin]) this.#signals.nmi()
      this.#lvt.pins[pin] = asserted
    }
    this.#update()
  }

  #extIntPending(): boolean {
    return this.mode === 'disabled' ? this.#lvt.pins[0] : this.#extIntLatched || this.#lvt.extIntAsserted
  }

  // ---- interprocessor interrupts

  /** A notification of posted interrupts, which the processor sends. `destination` as NDST of a posted-interrupt descriptor has it. */
  notify(destination: number, vector: number): void {
    this.#command.notify(destination, vector)
  }

  /** AMD: the doorbell MSR, or an IPI of a guest whose APIC the processor keeps. AMD APM vol. 2, "Doorbell Mechanism". */
  ringDoorbell(apicId: number): void {
    this.#bus.ringDoorbell(apicId)
  }

  doorbell(): void {
    this.#signals.doorbell?.()
  }

  #sendSelf(vector: number): void {
    if (vector < 16) this.#errors.report(esrBits.sendIllegalVector)
    this.#accept(vector, false)
  }

  // ---- state

  saveState(): DeviceState {
    const state: LapicState = {
      apicBase: this.#base.value.toString(), xapicId: this.#xapicId, ldr: this.#ldr, dfr: this.#dfr, svr: this.#svr,
      ...this.#errors.saveState(), icr: this.#command.low, icrHigh: this.#command.high,
      extIntLatched: this.#extIntLatched, lvt: this.#lvt.saveState(), priority: this.#priority.saveState(), timer: this.timer.saveState(),
    }
    return state
  }

  restoreState(saved: DeviceState): void {
    const state = saved as LapicState
    this.#base.value = BigInt(state.apicBase)
    this.#xapicId = state.xapicId
    this.#ldr = state.ldr
    this.#dfr = state.dfr
    this.#svr = state.svr
    this.#errors.restoreState(state)
    this.#command.low = state.icr
    this.#command.high = state.icrHigh
    this.#lvt.restoreState(state.lvt)
    this.#priority.restoreState(state.priority)
    this.#extIntLatched = state.extIntLatched
    this.timer.restoreState(state.timer)
    this.#update()
    this.#signals.baseChanged?.()
  }
}
