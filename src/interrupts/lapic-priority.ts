/**
 * Which vectors wait, which are in service, and which may interrupt: IRR, ISR, TMR, TPR and PPR of a local APIC.
 * Intel SDM vol. 3, "Interrupt Acceptance for Fixed Interrupts" and "Task and Processor Priorities".
 */
import { VectorSet } from './vector-set.ts'

export interface PriorityState {
  tpr: number
  irr: number[]
  isr: number[]
  tmr: number[]
}

/** What an APIC keeps its vectors in: registers of its own, or a page that a processor reads and writes too. */
export interface PriorityRegisters {
  /** Task priority: eight bits. */
  tpr: number
  readonly irr: VectorBits
  readonly isr: VectorBits
  readonly tmr: VectorBits
  readonly processorPriority: number
  readonly pending: number
  clearVectors(): void
  request(vector: number, level: boolean): void
  take(vector: number): void
  end(): number
  saveState(): PriorityState
  restoreState(state: PriorityState): void
}

/** 256 bits in eight words. */
export interface VectorBits {
  readonly words: ArrayLike<number>
  has(vector: number): boolean
}

export class InterruptPriority implements PriorityRegisters {
  tpr = 0
  readonly irr = new VectorSet()
  readonly isr = new VectorSet()
  readonly tmr = new VectorSet()

  /** All but the TPR, which stays reachable as CR8 when the APIC is disabled. */
  clearVectors(): void {
    for (const set of [this.irr, this.isr, this.tmr]) set.clear()
  }

  /** PPR: the TPR, or the class of the highest vector in service when that is higher. */
  get processorPriority(): number {
    const inService = Math.max(this.isr.highest(), 0) & 0xf0
    return (this.tpr & 0xf0) >= inService ? this.tpr : inService
  }

  /** The highest waiting vector whose class is above the processor's priority, or -1. */
  get pending(): number {
    const vector = this.irr.highest()
    return vector >= 0 && vector >>> 4 > this.processorPriority >>> 4 ? vector : -1
  }

  request(vector: number, level: boolean): void {
    this.irr.add(vector)
    if (level) this.tmr.add(vector)
    else this.tmr.remove(vector)
  }

  /** `vector` is dispatched to the processor. */
  take(vector: number): void {
    this.irr.remove(vector)
    this.isr.add(vector)
  }

  /** EOI: the vector that is no longer in service, or -1. */
  end(): number {
    const vector = this.isr.highest()
    if (vector >= 0) this.isr.remove(vector)
    return vector
  }

  saveState(): PriorityState {
    return { tpr: this.tpr, irr: [...this.irr.words], isr: [...this.isr.words], tmr: [...this.tmr.words] }
  }

  restoreState(state: PriorityState): void {
    this.tpr = state.tpr
    this.irr.words.set(state.irr)
    this.isr.words.set(state.isr)
    this.tmr.words.set(state.tmr)
  }
}
