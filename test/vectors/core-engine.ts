/** Runs vectors on the engine itself, through whichever way of executing is asked for. */
import { resetState } from '../../src/cpu/reset.ts'
import { readRflags, writeRflags } from '../../src/cpu/rflags.ts'
import { attribute } from '../../src/cpu/bits.ts'
import { segment } from '../../src/cpu/layout.ts'
import type { CpuEvent } from '../../src/cpu/event.ts'
import type { Core } from '../../src/engine/core.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import type { Cpu, CpuStop } from '../../src/engine/cpu.ts'
import type { Fault, Vector } from './format.ts'
import type { VectorEngine } from './runner.ts'
import { abridgedTag, CODE, CODE_PAGE, copyState, ENVIRONMENT, fullTag, GS_BASE, WINDOW, WINDOW_SIZE, type State } from './state.ts'

/** Physical addresses. */
const tables = {
  pml4: 0x1000, pdpt: 0x2000, directory: 0x3000, window: 0x4000, code: 0x5000,
  kernelPdpt: 0x7000, kernelDirectory: 0x8000, kernelTable: 0x9000,
  descriptors: 0xa000, idt: 0xb000, stack: 0xc000, handlers: 0xd000, windowPages: 0x10000, codePage: 0x12000,
}
/**
 * The kernel's pages, which users cannot reach: descriptors (GDT, then the TSS), IDT, stack and one handler of 16 bytes for each vector.
 */
const kernel = 0xffff_8000_0000_0000n
const linear = {
  gdt: kernel, tss: kernel + 0x800n, idt: kernel + 0x1000n, stack: kernel + 0x2000n, stackTop: kernel + 0x3000n,
  handlers: kernel + 0x3000n,
} as const
const gates = { count: 256, breakpoint: 3, overflow: 4, handlerBytes: 16 } as const
const kernelCode = 0x10
const flat = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5 } as const

/**
 * `run`: as in a normal run; `step`: every instruction by itself, the way slow accesses go; `jit`: compiled, together with the INT3 that
 * follows.
 */
export type Way = 'run' | 'step' | 'jit'

export interface BlockRun {
  stop: CpuStop
  retired: number
  time: number
  vector: number | undefined
  error: number | undefined
  address: bigint | undefined
  state: State
}

const halt = 0xf4
/** Of a compiled run, which the INT3 ends. */
const enoughTime = 1_000_000

export class CoreVectorEngine implements VectorEngine {
  readonly name: string
  readonly core: Core
  private readonly cpu: Cpu
  private readonly way: Way
  private event: CpuEvent | undefined
  private readonly quad = new Uint8Array(8)

  constructor(way: Way, model = 'intel') {
    this.name = way === 'jit' ? `compiler (${model})` : `interpreter (${way}, ${model})`
    this.way = way
    const { core, cpu } = bareCpu(model, { memory: 2 << 20, jit: way === 'jit' })
    if (core.jit) core.jit.compileEverything()
    this.core = core
    this.cpu = cpu
    cpu.onEvent = event => {
      this.event = event
      cpu.stopRequested = true
      return false
    }
    resetState(core.state, cpu.model, true)
    this.build()
  }

  private put(address: number, value: bigint): void {
    new DataView(this.quad.buffer).setBigUint64(0, value, true)
    this.core.physical.write(address, this.quad)
  }
  private build(): void {
    const user = 7n
    const supervisor = 3n
    this.put(tables.pml4, BigInt(tables.pdpt) | user)
    this.put(tables.pml4 + 256 * 8, BigInt(tables.kernelPdpt) | supervisor)
    this.put(tables.kernelPdpt, BigInt(tables.kernelDirectory) | supervisor)
    this.put(tables.kernelDirectory, BigInt(tables.kernelTable) | supervisor)
    for (let page = 0; page < 4; page++) this.put(tables.kernelTable + page * 8, BigInt(tables.descriptors + page * 4096) | supervisor)
    this.put(tables.pdpt, BigInt(tables.directory) | user)
    this.put(tables.directory + (WINDOW >> 21) * 8, BigInt(tables.window) | user)
    this.put(tables.directory + (CODE_PAGE >> 21) * 8, BigInt(tables.code) | user)
    for (let page = 0; page < WINDOW_SIZE / 4096; page++)
      this.put(tables.window + page * 8, BigInt(tables.windowPages + page * 4096) | user)
    this.put(tables.code, BigInt(tables.codePage) | user)
    this.put(tables.descriptors + kernelCode, 0x00af9b000000ffffn)
    this.put(tables.descriptors + (ENVIRONMENT.cs32 & ~7), 0x00cffb000000ffffn)
    this.put(tables.descriptors + (ENVIRONMENT.data & ~7), 0x00cff3000000ffffn)
    this.put(tables.descriptors + (ENVIRONMENT.cs64 & ~7), 0x00affb000000ffffn)
    this.put(tables.descriptors + 0x804, linear.stackTop)
    this.put(tables.descriptors + 0x860, 0xffffn << 48n) // no I/O permission map: a user has no ports
    for (let gate = 0; gate < gates.count; gate++) this.putGate(gate)
    this.core.physical.write(tables.codePage, new Uint8Array(4096).fill(0xcc))
    this.core.physical.write(tables.handlers, new Uint8Array(4096).fill(halt))
    const { state } = this.core
    Object.assign(state, {
      cr0: ENVIRONMENT.cr0, cr4: ENVIRONMENT.cr4, xcr0: ENVIRONMENT.xcr0, cr3: BigInt(tables.pml4), efer: 0xd01n, cpl: 3,
      gdtrBase: linear.gdt, gdtrLimit: 0x37, idtrBase: linear.idt, idtrLimit: gates.count * 16 - 1,
    })
    state.segSelector[segment.tr] = 0x40
    state.segBase[segment.tr] = linear.tss
    state.segLimit[segment.tr] = 0x67
    state.segAttributes[segment.tr] = 0x8b
    state.segLimit[segment.ldtr] = 0
    state.segAttributes[segment.ldtr] = attribute.unusable
  }
  /** As Linux sets them: users may raise #BP and #OF themselves, nothing else. */
  private putGate(gate: number): void {
    const handler = linear.handlers + BigInt(gate * gates.handlerBytes)
    const level = gate === gates.breakpoint || gate === gates.overflow ? 3n : 0n
    const low = (handler & 0xffffn) | (BigInt(kernelCode) << 16n) | ((0x8en | (level << 5n)) << 40n) | (((handler >> 16n) & 0xffffn) << 48n)
    this.put(tables.idt + gate * 16, low)
    this.put(tables.idt + gate * 16 + 8, handler >> 32n)
  }

  refuses(vector: Vector): string | undefined {
    const missing = vector.features.filter(feature => !this.cpu.model.has(feature))
    if (missing.length > 0) return `the model has no ${missing.join(', ')}`
    if (vector.vendor && vector.vendor !== this.cpu.model.vendor) return `defined by ${vector.vendor} only`
    return undefined
  }

  run(vector: Vector): State | Fault {
    const { core, cpu } = this
    this.load(vector)
    this.event = undefined
    cpu.stopRequested = false
    if (this.way === 'step') cpu.stepOne()
    else if (this.way === 'run') this.runOne()
    else this.runCompiled()
    let trap = core.state.cpl === 0 ? this.leaveHandler() : undefined
    if (trap === gates.breakpoint && this.way === 'jit' && !isInside(core.state.rip - 1n, vector)) {
      core.state.rip-- // the INT3 behind the instruction, or where it jumped to
      trap = undefined
    }
    const after = this.read(vector)
    if (trap !== undefined) return { vector: trap, state: after }
    const event = this.event as CpuEvent | undefined
    if (!event || (this.way === 'jit' && after.rip !== vector.before.rip)) return after
    return { vector: event.vector, errorCode: event.error, address: event.vector === 14 ? event.address : undefined, state: after }
  }

  private runOne(): void {
    const { cpu } = this
    for (const retired = cpu.retired; cpu.retired === retired && !this.event; ) {
      if (cpu.execute(cpu.reached, 1) !== 'time') break
    }
  }
  /** Compiles what is at RIP and runs it to its end: the INT3, whose handler halts, or an exception. */
  private runCompiled(): void {
    this.compile()
    this.cpu.execute(this.cpu.reached, enoughTime)
  }
  private compile(): void {
    const { core } = this
    const { state } = core
    const place = core.mmu.fetchPlace(Number(state.rip & 0xffffffffn) | 0, 0) >>> 0
    core.jit!.request((place & ~4095) >>> 0, place & 4095, state.mode, state.rip)
    core.jit!.compile()
  }

  /**
   * Runs several instructions, to the INT3 behind them or an exception, for so many nanoseconds at the most. Says all that another way
   * must agree with.
   */
  runBlock(vector: Vector, nanoseconds: number, quantum = nanoseconds): BlockRun {
    const { core, cpu } = this
    this.load(vector)
    this.event = undefined
    cpu.stopRequested = false
    if (this.way === 'jit') this.compile()
    cpu.watchCode(this.way === 'step' ? { pages: { has: () => true }, before: () => false } : undefined)
    const start = cpu.reached
    const retired = cpu.retired
    let stop = cpu.execute(start, quantum)
    while (stop === 'time' && cpu.reached - start < nanoseconds) stop = cpu.execute(cpu.reached, quantum)
    const counts = { stop, retired: cpu.retired - retired, time: cpu.reached - start }
    if (core.state.cpl === 0) this.leaveHandler()
    const event = this.event as CpuEvent | undefined
    return { ...counts, vector: event?.vector, error: event?.error, address: event?.address, state: this.read(vector) }
  }

  /** INT3 and INTO were delivered: back to what their frame says, and the vector. */
  private leaveHandler(): number {
    const { state } = this.core
    const frame = new BigUint64Array(5)
    this.core.physical.peek(tables.stack + Number(state.gpr[4] - linear.stack), new Uint8Array(frame.buffer))
    const number = Math.floor(Number(state.rip - linear.handlers) / gates.handlerBytes)
    state.rip = frame[0]
    state.segSelector[segment.cs] = Number(frame[1])
    writeRflags(state, Number(frame[2]))
    state.gpr[4] = frame[3]
    state.segSelector[segment.ss] = Number(frame[4])
    return number
  }

  private load(vector: Vector): void {
    const { state, physical } = this.core
    const { before } = vector
    for (let i = 0; i < 16; i++) {
      state.gpr[i] = before.gpr[i]
      state.vector[i * 8] = before.xmm[i].low
      state.vector[i * 8 + 1] = before.xmm[i].high
      state.vector[i * 8 + 2] = before.ymmHigh?.[i].low ?? 0n
      state.vector[i * 8 + 3] = before.ymmHigh?.[i].high ?? 0n
    }
    state.rip = before.rip
    writeRflags(state, Number(before.rflags))
    for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const) this.loadSegment(flat[name], before.selectors[name], vector.mode)
    state.mxcsr = before.mxcsr
    const { control, status, tag, st } = before.x87
    const top = (status >> 11) & 7
    state.fpControl = control
    state.fpStatus = status & ~0x3800
    state.fpTop = top
    state.fpTags = abridgedTag(tag)
    for (let i = 0; i < 8; i++) {
      state.fpr[((top + i) & 7) * 2] = BigInt.asUintN(64, st[i])
      state.fpr[((top + i) & 7) * 2 + 1] = st[i] >> 64n
    }
    state.activity = 0
    state.interruptShadow = 0
    state.pendingDebug = 0
    state.cpl = 3
    physical.write(tables.windowPages, before.memory)
    physical.write(tables.codePage + (CODE - CODE_PAGE), vector.code)
    this.cpu.stateChanged()
  }
  private loadSegment(number: number, selector: number, mode: number): void {
    const { state } = this.core
    state.segSelector[number] = selector
    state.segBase[number] = number === segment.gs && mode === 64 ? BigInt(GS_BASE) : 0n
    state.segLimit[number] = selector === 0 ? 0 : 0xffffffff
    state.segAttributes[number] = selector === 0 ? 0 : selector === 0x33 ? 0xa0fb : selector === 0x23 ? 0xc0fb : 0xc0f3
  }

  private read(vector: Vector): State {
    const { state, physical } = this.core
    const out = copyState(vector.before)
    for (let i = 0; i < 16; i++) {
      out.gpr[i] = state.gpr[i]
      out.xmm[i] = { low: state.vector[i * 8], high: state.vector[i * 8 + 1] }
    }
    out.rip = state.rip
    out.rflags = BigInt(readRflags(state))
    // The recording handler is entered through IRET to an outer level, which clears null selectors with an RPL.
    const selector = (number: number): number => (state.segSelector[number] < 4 ? 0 : state.segSelector[number])
    for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const) out.selectors[name] = selector(flat[name])
    out.mxcsr = state.mxcsr
    const status = state.fpStatus | (state.fpTop << 11)
    const st = Array.from({ length: 8 }, (_, i) => {
      const at = ((state.fpTop + i) & 7) * 2
      return state.fpr[at] | ((state.fpr[at + 1] & 0xffffn) << 64n)
    })
    out.x87 = { control: state.fpControl, status, tag: fullTag(state.fpTags, status, st), st }
    out.ymmHigh = Array.from({ length: 16 }, (_, i) => ({ low: state.vector[i * 8 + 2], high: state.vector[i * 8 + 3] }))
    physical.peek(tables.windowPages, out.memory)
    this.clearCode(vector)
    return out
  }
  /** The code page is INT3s again, also where a stack lay in it. */
  private clearCode(vector: Vector): void {
    const stackInCode = vector.before.gpr[4] - BigInt(CODE_PAGE)
    const whole = stackInCode >= -0x1000n && stackInCode < 0x2000n
    const clear = new Uint8Array(whole ? 4096 : vector.code.length).fill(0xcc)
    this.core.physical.write(whole ? tables.codePage : tables.codePage + (CODE - CODE_PAGE), clear)
  }
}

const isInside = (rip: bigint, vector: Vector): boolean => rip >= vector.before.rip && rip < vector.before.rip + BigInt(vector.code.length)
