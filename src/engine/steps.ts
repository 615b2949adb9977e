/**
 * Exact execution of a few instructions, from copies of their records: the odd end of a quantum, and single steps, which may touch devices,
 * cross a page, or write to a page of code. ARCHITECTURE.md, "Counting".
 */
import { is64 } from '../cpu/bits.ts'
import { at } from '../cpu/layout.ts'
import type { Processor } from '../cpu/processor.ts'
import { scratchRecords } from '../memory/map.ts'
import type { AccessObserver, Mmu } from '../mmu/mmu.ts'
import { BusLocks } from './bus-locks.ts'
import type { Copies } from './copies.ts'
import type { DataWatch } from './data-watch.ts'
import type { DebugTraps } from './debug-traps.ts'
import type { GeneratedCode } from './generated-code.ts'
import type { InterruptShadow } from './interrupt-shadow.ts'
import { leave } from './leave.ts'
import type { Quantum } from './quantum.ts'
import { word } from './state-words.ts'

/** The CPU as those who step it see it. */
export interface SteppedCpu extends Processor {
  readonly dataWatch: DataWatch | undefined
  shadowed(): boolean
  /** Up to `length` bytes at RIP, as far as they can be read without side effects. */
  codeBytes(length: number): Uint8Array
  /** Generated code has left, for the reason `status`, with RIP and budget true. */
  finish(status: number): void
  deliverStoredFault(): void
}

export interface SteppingParts {
  readonly words: Int32Array
  readonly view: DataView
  readonly mmu: Mmu
  readonly generated: GeneratedCode
  readonly copies: Copies
  readonly quantum: Quantum
  readonly shadow: InterruptShadow
  readonly debug: DebugTraps
}

function both(one: AccessObserver | undefined, other: AccessObserver | undefined): AccessObserver | undefined {
  if (!one || !other) return one ?? other
  return (lo, hi, size, write) => {
    one(lo, hi, size, write)
    other(lo, hi, size, write)
  }
}

export class Steps {
  private readonly cpu: SteppedCpu
  private readonly parts: SteppingParts
  private readonly busLocks: BusLocks

  constructor(cpu: SteppedCpu, parts: SteppingParts) {
    this.cpu = cpu
    this.parts = parts
    this.busLocks = new BusLocks(parts.mmu)
  }

  /** Runs the first `count` instructions of a run. */
  ofRun(record: number, count: number): void {
    this.cpu.finish(this.execute(this.parts.copies.ofRun(record, count)))
  }
  /** Executes what has been copied, `count` instructions at the most, as if no more budget were left. */
  private execute(count: number): number {
    const { quantum } = this.parts
    const rest = quantum.putAside(count)
    const status = this.parts.generated.run(scratchRecords, count)
    quantum.takeBack(rest)
    return status
  }

  /** Executes one instruction; accesses to devices, watched and code pages are performed. */
  one(): void {
    const { cpu, busLocks } = this
    const { words, mmu, generated, copies, shadow, debug } = this.parts
    const { guest, dataWatch } = cpu
    const shadowed = cpu.shadowed()
    if (!copies.ofInstruction()) return cpu.deliverStoredFault()
    const watchesLocks = guest?.watchesBusLocks === true && busLocks.begin(cpu.codeBytes(15), is64(cpu.state))
    debug.begin(() => cpu.codeBytes(1))
    dataWatch?.begin()
    const observer = both(both(debug.observer, watchesLocks ? busLocks.noteAccess : undefined), dataWatch?.noteAccess)
    if (observer) mmu.observe(observer)
    const { length } = copies
    const { retired } = generated
    words[word.stepping] = 1
    const status = this.execute(1)
    this.end(status)
    cpu.finish(status)
    if (observer) mmu.observe(undefined)
    if (generated.retired === retired) return
    if (watchesLocks && busLocks.end()) guest.busLocked?.()
    guest?.stepped?.()
    if (shadowed && generated.retired !== shadow.at) shadow.end()
    debug.end(length, status === leave.again)
    dataWatch?.end()
  }
  private end(status: number): void {
    const { words, mmu } = this.parts
    if (status === leave.abort) mmu.dropPendingStores()
    else mmu.commitPendingStores()
    words[word.budget] -= mmu.physical.takeDeviceTime()
    words[word.stepping] = 0
  }

  /** RIP of the instruction that is stepped, also when its stores are done at its end; undefined: none is. */
  get storingRip(): bigint | undefined {
    const { words, view, copies } = this.parts
    if (!words[word.stepping]) return undefined
    return BigInt.asUintN(64, view.getBigUint64(at.codePage, true) + BigInt(copies.offset))
  }
  /** Of the instruction that is stepped. */
  get instructionLength(): number {
    return this.parts.copies.length
  }
}
