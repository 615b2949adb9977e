/**
 * Runs programs by chance on a bare CPU, interpreted or compiled: code and data in pages that are not neighbours in physical memory.
 */
import { resetState } from '../../src/cpu/reset.ts'
import type { CpuState } from '../../src/cpu/state.ts'
import type { BackgroundBuilder } from '../../src/engine/jit/build.ts'
import type { Cpu } from '../../src/engine/cpu.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import { Random } from './random.ts'

/** Linear address of the code. */
export const base = 0x400000n
export const codePages = 6
/** Linear address of the data, eight pages with the stack at their end. */
export const data = base + 0x10000n
export const dataBytes = 0x8000
const place = { tables: 0x1000, code: 0x10000, data: 0x40000 } as const

/** Pages of code in an order of their own. */
const physicalPage = (page: number): number => place.code + ((page * 5 + 3) % 16) * 4096

const log = (): undefined => undefined

export interface Outcome {
  stop: string
  seen: [bigint, number][]
  faults: unknown[]
  mode: number
  [other: string]: unknown
}

export interface Program {
  readonly code: Uint8Array
  /** Virtual time that it gets. */
  readonly nanoseconds: number
  /** What the data begin with. */
  readonly data?: Uint8Array
  /** Offsets in the code of instructions that may fault, and their lengths: a fault is noted, and the program goes on behind them. */
  readonly mayFault?: ReadonlyMap<number, number>
  /** Registers and segments, after a reset: all else is long mode at level 0. */
  start(state: CpuState, random: Random): void
}

export class Rig {
  readonly core
  readonly cpu: Cpu
  /** Translations are forgotten between two quanta: then compiled code leaves at its accesses. */
  readonly forgets: boolean
  constructor(jit: boolean, everything: boolean, background?: BackgroundBuilder, forgets = false) {
    this.forgets = forgets
    const { core, cpu } = bareCpu('intel', { jit, hotThreshold: 8, log, background })
    this.core = core
    this.cpu = cpu
    if (everything) this.core.jit?.compileEverything()
    else this.core.jit?.compileEagerly()
  }

  /** `watched`: instructions of this page of code are counted by address. */
  run(program: Program, seed: number, quantum: number, watched?: number): Outcome {
    const { core, cpu } = this
    const { state, physical } = core
    const { nanoseconds } = program
    const entry = (at: number, value: number): void => {
      physical.write(at, new Uint8Array(new BigUint64Array([BigInt(value)]).buffer))
    }
    physical.write(0, new Uint8Array(1 << 20))
    entry(place.tables, place.tables + 0x1003)
    entry(place.tables + 0x1000, place.tables + 0x2003)
    entry(place.tables + 0x2000 + 16, place.tables + 0x3003)
    for (let page = 0; page < codePages; page++) {
      entry(place.tables + 0x3000 + page * 8, physicalPage(page) | 3)
      physical.write(physicalPage(page), program.code.slice(page * 4096, page * 4096 + 4096))
    }
    const dataPage = (page: number): number => place.data + ((page * 3) % 8) * 4096
    for (let page = 0; page < 8; page++) {
      entry(place.tables + 0x3000 + (16 + page) * 8, dataPage(page) | 3)
      if (program.data) physical.write(dataPage(page), program.data.slice(page * 4096, page * 4096 + 4096))
    }
    resetState(state, cpu.model, true)
    Object.assign(state, { cr0: 0x80000011n, cr4: 0x20n, cr3: BigInt(place.tables), efer: 0xd00n, cpl: 0, rip: base, activity: 0 })
    program.start(state, new Random(seed))
    core.mmu.flushAll()
    cpu.stateChanged()
    const retired = cpu.retired
    const start = cpu.reached
    const counts = new Map<bigint, number>()
    const first = Number(base >> 12n)
    const count = (): false => {
      if (Number((state.rip - base) >> 12n) === watched) counts.set(state.rip, (counts.get(state.rip) ?? 0) + 1)
      return false
    }
    // the interpreter is told of all pages: what it counts is what is expected
    const pages = core.jit ? new Set([first + (watched ?? 0)]) : { has: () => true }
    cpu.watchCode(watched === undefined ? undefined : { pages, before: count })
    const faults: unknown[] = []
    cpu.onEvent = ({ vector, error, address }) => {
      faults.push([vector, error, vector === 14 ? address : undefined, state.rip])
      const length = program.mayFault?.get(Number(state.rip - base))
      if (length !== undefined) state.rip += BigInt(length)
      return length === undefined
    }
    let stop = 'time'
    for (let now = start; stop === 'time' && cpu.reached - start < nanoseconds; now = cpu.reached) {
      stop = cpu.execute(now, Math.min(quantum, nanoseconds - (now - start)))
      if (this.forgets) core.mmu.flushAll()
      core.jit?.compile()
      core.jit?.tick(cpu.retired)
    }
    const memory = new Uint8Array(dataBytes)
    physical.peek(place.data, memory)
    const flags = [state.flagZero === 0n, state.flagSign < 0n, state.flagCarry]
    const segments = [[...state.segSelector], [...state.segAttributes], [...state.segLimit], [...state.segBase]]
    const seen = [...counts].sort(([a], [b]) => Number(a - b))
    const time = cpu.reached - start
    return {
      stop, faults, seen, rip: state.rip, gpr: [...state.gpr], flags, segments, mode: state.mode, retired: cpu.retired - retired, time,
      memory,
    }
  }
}
