/**
 * What comes up between two instructions where no guest's controls have a say: debug traps, NMIs, interrupts, SMIs, and the end of HLT.
 * Intel SDM vol. 3, "Priority Among Concurrent Events" and "System Management Interrupt (SMI)".
 */
import { debugException, externalInterrupt, nonMaskableInterrupt, type CpuEvent } from '../cpu/event.ts'
import type { InterruptController, Processor } from '../cpu/processor.ts'
import { activity } from '../cpu/reset.ts'
import { flag } from '../cpu/rflags.ts'
import { enterSmm } from '../cpu/smm.ts'
import type { Taken } from '../cpu/virtualization.ts'
import { shadowBit, word } from './state-words.ts'

/** Virtual nanoseconds of fetching the vector of an external interrupt from the local APIC. */
const acknowledgeTime = 200
/** The same of an SMI: hundreds of cycles to save the state. */
const smiTime = 500

/** The CPU as its events see it. */
export interface InterruptibleCpu extends Processor {
  readonly apic: InterruptController
  /** Interrupts and alarms are held off. */
  readonly holdInterrupts: boolean
  shadowed(): boolean
  deliver(event: CpuEvent): 'delivered' | 'shutdown'
  /** The interrupt controller's request may have changed. */
  interruptChanged(): void
}

export class Events {
  private readonly cpu: InterruptibleCpu
  private readonly words: Int32Array

  constructor(cpu: InterruptibleCpu, words: Int32Array) {
    this.cpu = cpu
    this.words = words
  }

  private get nmiComes(): boolean {
    return this.words[word.pendingNmi] !== 0 && !(this.words[word.interruptShadow] & shadowBit.nmi)
  }
  private get interruptComes(): boolean {
    return this.words[word.interruptPending] !== 0 && (this.words[word.eflags] & flag.IF) !== 0
  }

  /** Something ends HLT. */
  wakes(): boolean {
    return this.words[word.activity] === activity.halt && (this.nmiComes || this.words[word.pendingDebug] !== 0 || this.interruptComes)
  }

  /** Delivers what is pending before the next instruction. `shadow`: STI or MOV SS blocks. */
  take(shadow: boolean): Taken {
    const { words, cpu } = this
    const traps = words[word.pendingDebug]
    if (traps && !(shadow && words[word.interruptShadow] & shadowBit.movSs)) {
      words[word.pendingDebug] = 0
      return cpu.deliver(debugException(traps))
    }
    if (cpu.holdInterrupts || shadow) return 'nothing'
    if (this.nmiComes) {
      words[word.pendingNmi] = 0
      return cpu.deliver(nonMaskableInterrupt)
    }
    if (!this.interruptComes) return 'nothing'
    if (cpu.apic.hasInterrupt()) return this.takeInterrupt()
    words[word.interruptPending] = 0
    return 'nothing'
  }
  /** Acknowledges the interrupt that the controller asks for and delivers it. */
  takeInterrupt(): Taken {
    const { cpu } = this
    cpu.spend(acknowledgeTime)
    const result = cpu.deliver(externalInterrupt(cpu.apic.acknowledge()))
    cpu.interruptChanged()
    return result
  }

  /**
   * An SMI comes before everything else that is pending, unless the processor is in SMM. It waits while STI or MOV SS shadows.
   * Where events belong to `virt`, so does the SMI: it may become an exit there, or end in `enterSmm`.
   */
  takeSmi(): void {
    const { words, cpu } = this
    const before = words[word.activity]
    if (cpu.holdInterrupts || words[word.interruptShadow] & shadowBit.smi || cpu.shadowed()) return
    if (cpu.virt?.holdsSmi) return
    if (before === activity.running || before === activity.halt) this.enterSmm()
  }
  /** Takes the latched SMI now. */
  enterSmm(): void {
    const { cpu } = this
    const { smiPort, smiRip, activity: before } = cpu.state
    this.words[word.pendingSmi] = 0
    cpu.spend(smiTime)
    const cause = { port: smiPort >>> 16, size: (smiPort >> 4) & 7, write: (smiPort & 1) === 0, rip: smiRip }
    cpu.virt?.enterSmm?.()
    enterSmm(cpu, before === activity.halt, smiPort === 0 ? undefined : cause)
  }
}
