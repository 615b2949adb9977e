/** A virtual processor: who it is, in which state, the parts of it that control structures do not hold, and what it has cost. */
import type { ApicAssist } from './apic/assist.ts'
import type { AnyExitKind, Exit } from './exits.ts'
import type { Guest } from './guest.ts'
import { register, type RegisterName } from './port.ts'
import type { Processor } from './processor.ts'
import type { Shadow } from './shadow/shadow.ts'
import type { ControlStructure, Intercepts, SystemRegister, Virtualizer } from './virtualizer.ts'

/**
 * created → ready ⇄ running, running → exited → ready | waiting | stopped, waiting → ready; moving: on its way to another processor; any →
 * destroyed.
 */
export type VcpuState = 'created' | 'ready' | 'running' | 'exited' | 'waiting' | 'moving' | 'stopped' | 'destroyed'

const arrows: Readonly<Record<VcpuState, readonly VcpuState[]>> = {
  created: ['ready', 'waiting', 'destroyed'],
  ready: ['running', 'moving', 'stopped', 'destroyed', 'exited'],
  running: ['exited'],
  exited: ['ready', 'waiting', 'stopped', 'running', 'moving'],
  waiting: ['ready', 'stopped', 'moving', 'destroyed'],
  moving: ['ready', 'waiting'],
  stopped: ['ready', 'destroyed'],
  destroyed: [],
}

/** An event to be injected at the next entry. */
export interface PendingEvent {
  readonly type: 'interrupt' | 'nmi' | 'exception' | 'software'
  readonly vector: number
  readonly error?: number
  /** Of the instruction that raised a software interrupt or exception. */
  readonly length?: number
}

/** Where a vCPU's interrupts come from: a local APIC, or a list. */
export interface InterruptSource {
  pending(): boolean
  /** The vector of the most urgent one, which is in service now. */
  acknowledge(): number
  /** One more, from the hypervisor. */
  raise(vector: number): void
}

/** Interrupts in the order in which they came. */
class InterruptList implements InterruptSource {
  private readonly vectors: number[] = []
  raise(vector: number): void {
    this.vectors.push(vector)
  }
  pending(): boolean {
    return this.vectors.length > 0
  }
  acknowledge(): number {
    return this.vectors.shift()!
  }
}

/** Exits of one kind. */
export interface ExitCount {
  count: number
  /** Virtual nanoseconds from the exit to the next entry, or to the choice of another vCPU. */
  time: number
}

/** What a vCPU has done and what that has cost, in virtual nanoseconds. */
export class VcpuStatistics {
  entries = 0
  /** Virtual nanoseconds in the guest. */
  guestTime = 0
  /** Time slices it was given, changes of a processor to it, moves between processors, events injected. */
  slices = 0
  switches = 0
  migrations = 0
  injected = 0
  readonly exits = new Map<AnyExitKind, ExitCount>()
  /** Times that units were saved and loaded. */
  readonly units = { fpuSaves: 0, fpuLoads: 0, fpuTraps: 0, debugSwitches: 0, msrSwitches: 0 }

  exit(kind: AnyExitKind, time: number): void {
    const entry = this.exits.get(kind)
    if (!entry) this.exits.set(kind, { count: 1, time })
    else {
      entry.count++
      entry.time += time
    }
  }
}

/**
 * One virtual processor. Registers may be read and written while it does not run; `become` throws where the figure of states has no
 * arrow.
 */
export class Vcpu {
  /** Its number among all vCPUs. */
  readonly id: number
  /** Whose it is. */
  readonly guest: Guest
  /** For people. */
  readonly name: string
  /** General registers by number; RSP lies in the control structure: use `get` and `set`. */
  readonly registers = new BigUint64Array(16)
  /** VMCS or VMCB. */
  readonly control: ControlStructure
  /** The processor on which the control structure, or a register that belongs to this vCPU, is. */
  processor: Processor | undefined
  /** On which processors it may run. */
  affinity: ReadonlySet<number> | undefined
  /** Its share of processors beside others: 1024 is usual. */
  weight = 1024
  /** Runs in virtual nanoseconds, divided by the weight: what fairness is about. For the policy. */
  virtualRuntime = 0
  /** Where its interrupts come from. */
  interrupts: InterruptSource = new InterruptList()
  /** What the processor does of its APIC, if it does. */
  apic: ApicAssist | undefined
  /** To be injected before anything else: what an exit interrupted, and exceptions for the guest. */
  event: PendingEvent | undefined
  /** Interrupts that were taken from their source, and whose delivery a fault has interrupted. */
  readonly deferred: number[] = []
  /** Of the instruction that exited, where the hypervisor has decoded it. */
  instructionLength: number | undefined
  /** An NMI waits. */
  nmi = false
  /** It has halted with interrupts off: only an NMI ends its wait. */
  deaf = false
  /** Its translations are to be forgotten before it goes on. */
  flush = true
  /** The same of those that are not global. */
  flushLocal = false
  /** Its page tables, where the processor has no second stage. */
  shadow: Shadow | undefined
  /** Whether the first use of the FPU, or of debug registers, exits. */
  fpuTrapped = false
  debugTrapped = false
  /** It is to stop at its next exit. */
  stopping = false
  /** AMD: CR0.TS as the guest wrote it, while the one in the VMCB is ours. */
  taskSwitched = false
  /** What it exits on, of what is a choice. */
  intercepts: Intercepts = { exceptions: 0, pause: false, translation: false, timestamp: false, priority: false }
  /** What an instruction does to a device after it has read from it: asked next. */
  followUp: Exit | undefined
  /** The exit that waits for an answer. */
  exit: Exit | undefined
  /** What it has done. */
  readonly statistics = new VcpuStatistics()
  private readonly virtualizer: Virtualizer
  private current: VcpuState = 'created'

  constructor(id: number, guest: Guest, name: string, virtualizer: Virtualizer) {
    this.id = id
    this.guest = guest
    this.name = name
    this.virtualizer = virtualizer
    this.control = virtualizer.create(this)
  }

  /** Where it is in the figure of `VcpuState`. */
  get state(): VcpuState {
    return this.current
  }
  /** Throws where the figure has no such arrow. */
  become(next: VcpuState): void {
    if (!arrows[this.current].includes(next)) throw new Error(`${this.name} is ${this.current}: it cannot become ${next}`)
    this.current = next
  }

  /** Something waits that ends its wait. */
  get wakes(): boolean {
    return this.nmi || (!this.deaf && this.interrupts.pending())
  }
  /** An interrupt waits that the hypervisor has to inject. */
  get wantsInjection(): boolean {
    return this.deferred.length > 0 || (this.apic ? this.apic.external() : this.interrupts.pending())
  }

  // ---- registers ----

  /**
   * A register; segment attributes in the format of VT-x's access rights. Throws while the vCPU is active nowhere (then use
   * `Vmm.setRegisters`).
   */
  get(name: RegisterName | SystemRegister): bigint {
    if (name === 'rsp' || !(name in register)) return this.virtualizer.read(this, name as SystemRegister)
    return this.registers[register[name as RegisterName]]
  }
  /** Writes a register; the same holds. */
  set(name: RegisterName | SystemRegister, value: bigint): void {
    if (name === 'rsp' || !(name in register)) this.virtualizer.write(this, name as SystemRegister, value)
    else this.registers[register[name as RegisterName]] = value
  }
  /** CR0 or CR4 as the guest sees it. */
  seenControl(number: 0 | 4): bigint {
    return this.virtualizer.readControl(this, number)
  }
  /** By number, as instructions encode it. */
  general(number: number): bigint {
    return number === register.rsp ? this.virtualizer.read(this, 'rsp') : this.registers[number]
  }
  /** By number, 64 bits. */
  setGeneral(number: number, value: bigint): void {
    if (number === register.rsp) this.virtualizer.write(this, 'rsp', value)
    else this.registers[number] = value
  }
}
