/**
 * The CPUs of a machine, which take turns: one has its state in the state area, the others' states are parked, and what reaches them
 * meanwhile (INIT, SIPI, NMI, SMI) waits. Intel SDM vol. 3, "Multiple-Processor Initialization".
 */
import { activity, initState, startupState } from '../cpu/reset.ts'
import { at, stateBase, stateSize, type FieldName } from '../cpu/layout.ts'
import { flag } from '../cpu/rflags.ts'
import { blockedByNmi, blockedBySmi, inSmm } from '../cpu/smm.ts'
import type { Core } from '../engine/core.ts'
import type { Cpu } from '../engine/cpu.ts'
import type { Lapic, LapicSignals } from '../interrupts/lapic.ts'
import type { VirtualClock } from '../platform/clock.ts'

/** Virtual nanoseconds that a CPU runs before the next one gets its turn. */
const quantum = 20_000
/** CPUs that are halted with interrupts off wait so many virtual nanoseconds for an NMI, of a watchdog say. */
const longestNmiPeriod = 10e9

/** A CPU, and what can reach it while another one's state is loaded. */
export interface CpuSlot {
  cpu: Cpu
  parked: Uint8Array
  /** The same memory. */
  parkedWords: Uint32Array
  nmi: boolean
  smi: boolean
  init: boolean
  startup: number
}

/** What the CPUs see of the machine around them. */
export interface ProcessorSurroundings {
  readonly core: Core
  readonly clock: VirtualClock
  lapic(index: number): Lapic
  /** Another CPU's state has been loaded. */
  switched(): void
}

export class Processors {
  readonly slots: CpuSlot[] = []
  /** Whose state is loaded. */
  current = 0
  /** Whose turn it is or was last, and when that is over: a limit of run() that falls into a turn does not end it. */
  last = 0
  turnEnd = 0
  private readonly around: ProcessorSurroundings
  private readonly core: Core

  constructor(around: ProcessorSurroundings) {
    this.around = around
    this.core = around.core
  }

  add(cpu: Cpu): void {
    const parkedWords = new Uint32Array(stateSize / 4)
    this.slots.push({ cpu, parked: new Uint8Array(parkedWords.buffer), parkedWords, nmi: false, smi: false, init: false, startup: -1 })
    this.core.running ??= cpu
  }

  /** Whose state is loaded. */
  get cpu(): Cpu {
    return this.slots[this.current].cpu
  }
  get loaded(): Uint8Array {
    return new Uint8Array(this.core.memory.buffer, stateBase, stateSize)
  }
  /** Instructions retired by all. */
  get retired(): number {
    let sum = 0
    for (const slot of this.slots) sum += slot.cpu.retired
    return sum
  }

  /** Loads the state of CPU `index`; with one CPU it never leaves the state area. */
  switchTo(index: number): void {
    if (index !== this.current) {
      const area = this.loaded
      this.slots[this.current].parked.set(area)
      area.set(this.slots[index].parked)
      this.current = index
      this.core.running = this.slots[index].cpu
      this.core.mmu.switchCpu(index)
    }
    this.takeSignals(this.slots[index])
    this.around.switched()
    this.cpu.interruptChanged()
  }

  private takeSignals(slot: CpuSlot): void {
    const { state } = this.core
    const init = slot.init && !inSmm(state) ? (slot.cpu.virt?.takesInit() ?? 'accepted') : 'held'
    if (init === 'exit') slot.init = false
    if (init === 'accepted') this.init(slot)
    if (slot.startup >= 0) {
      if (state.activity === activity.waitForSipi) this.startUp(slot)
      slot.startup = -1
    }
    if (slot.nmi) {
      slot.nmi = false
      slot.cpu.nmi()
    }
    if (slot.smi) {
      slot.smi = false
      slot.cpu.smi()
    }
  }
  private init(slot: CpuSlot): void {
    const { cpu } = slot
    slot.init = false
    initState(this.core.state, cpu.model, cpu.index === 0)
    this.around.lapic(cpu.index).initReset()
    this.core.mmu.flushAll()
    cpu.stateChanged()
  }
  private startUp({ cpu, startup }: CpuSlot): void {
    if (cpu.guest) return cpu.guest.startup?.(startup)
    startupState(this.core.state, startup)
    cpu.stateChanged()
  }

  /** The wires from CPU `index`'s local APIC. */
  signals(index: number): LapicSignals {
    return {
      intrChanged: () => {
        if (index === this.current) this.slots[index]?.cpu.interruptChanged()
      },
      nmi: () => {
        const slot = this.slots[index]
        if (index === this.current) slot.cpu.nmi()
        else slot.nmi = true
      },
      smi: () => {
        const slot = this.slots[index]
        if (index === this.current) slot.cpu.smi()
        else slot.smi = true
      },
      init: () => {
        const slot = this.slots[index]
        slot.init = true
        slot.startup = -1
        if (index === this.current) slot.cpu.stopRequested = true
      },
      startup: vector => {
        this.slots[index].startup = vector
      },
      doorbell: () => {
        if (index === this.current) this.cpu.guest?.doorbell?.()
        else this.slots[index].parkedWords[(at.doorbell - stateBase) >> 2] = 1
      },
    }
  }

  /** A field of a CPU, wherever its state lies. */
  fieldOf(index: number, name: FieldName): bigint {
    if (this.slots.length === 0) return 0n
    if (index === this.current) return new DataView(this.core.memory.buffer).getBigUint64(at[name], true)
    const { parked } = this.slots[index]
    return new DataView(parked.buffer).getBigUint64(at[name] - stateBase, true)
  }
  /** The same of a field of 32 bits, or the low half of a wider one. */
  private wordOf(index: number, name: FieldName): number {
    if (index === this.current) return this.core.state.words[at[name] >> 2]
    return this.slots[index].parkedWords[(at[name] - stateBase) >> 2]
  }

  /** Whether a CPU has anything to do: running, or about to be woken. */
  private isBusy(index: number): boolean {
    const slot = this.slots[index]
    const state = this.wordOf(index, 'activity')
    if (state === activity.running || slot.nmi || slot.smi) return true
    const blocked = this.wordOf(index, 'interruptShadow')
    const smm = (blocked & blockedBySmi) !== 0
    const guest = (this.wordOf(index, 'guestMode') & 1) !== 0
    const holdsInit = smm || (!guest && (this.wordOf(index, 'vmxFlags') & 1) !== 0)
    if (slot.init && !holdsInit) return true
    if (guest && state !== activity.waitForSipi) return this.guestWakes(index)
    if (state === activity.waitForSipi) return slot.startup >= 0
    if (state !== activity.halt) return false
    if (this.wordOf(index, 'pendingSmi') !== 0 && !smm) return true
    if (this.wordOf(index, 'pendingDebug') !== 0) return true
    if (this.wordOf(index, 'pendingNmi') !== 0 && !(blocked & blockedByNmi)) return true
    // GIF is 0
    if (this.wordOf(index, 'interruptGate') === 2) return false
    return this.around.lapic(index).hasInterrupt() && (this.wordOf(index, 'eflags') & flag.IF) !== 0
  }
  /** Only the guest's controls tell what wakes it. */
  private guestWakes(index: number): boolean {
    this.switchTo(index)
    const virt = this.slots[index].cpu.virt!
    return virt.wakes() || virt.nextDeadline() <= this.around.clock.now()
  }
  /** When a halted guest is to be looked at, whatever devices do. */
  guestDeadline(): number {
    let first = Infinity
    this.slots.forEach(({ cpu }, index) => {
      if (!cpu.virt || this.wordOf(index, 'guestMode') === 0) return
      this.switchTo(index)
      first = Math.min(first, cpu.virt.nextDeadline())
    })
    return first
  }

  /** Since when they are deaf, as far as it was noticed. It says only why a run ends, and is no part of the state. */
  private deafSince: number | undefined
  /** At this time no CPU has anything to do. */
  stand(now: number): void {
    if (!this.areDeaf) this.deafSince = undefined
    else this.deafSince ??= now
  }
  /** Nothing that is under way will end it: a watchdog's NMI would have come. */
  standForGood(now: number): boolean {
    return this.deafSince !== undefined && now - this.deafSince >= longestNmiPeriod
  }
  /** No interrupt of a device ends what the CPUs wait for: all are outside of guests, and halted with IF or GIF 0, or wait for a SIPI. */
  private get areDeaf(): boolean {
    return this.slots.every((_, index) => {
      if (this.wordOf(index, 'guestMode') !== 0) return false
      const state = this.wordOf(index, 'activity')
      const off = (this.wordOf(index, 'eflags') & flag.IF) === 0 || this.wordOf(index, 'interruptGate') === 2
      return state === activity.waitForSipi || (state === activity.halt && off)
    })
  }

  /** The CPU whose turn it is: round robin among those that have something to do; -1 when all are halted. */
  next(now: number): number {
    if (now < this.turnEnd && this.isBusy(this.last)) return this.last
    const count = this.slots.length
    for (let i = 1; i <= count; i++) {
      const index = (this.last + i) % count
      if (!this.isBusy(index)) continue
      this.last = index
      this.turnEnd = now + quantum
      this.deafSince = undefined
      return index
    }
    this.turnEnd = 0
    return -1
  }
}
