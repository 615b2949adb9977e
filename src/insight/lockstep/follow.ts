/**
 * Leads our machine along the path that QEMU took, as its log tells it, and says where the two first part.
 *
 * QEMU's run is fixed; ours follows. What comes from outside the CPU (time, ports, device memory, interrupts) is taken from QEMU and
 * counted, so that only the CPU and the MMU are compared, and our devices need not resemble QEMU's at all.
 */
import type { CpuRegisters, Machine } from '../../api.ts'
import { decodeInstruction } from '../disassemble.ts'
import type { DecodedInstruction } from '../disassemble.ts'
import { attributesOf, stateOfRecord } from './qemu-trace.ts'
import type { TraceEvent, TraceRecord } from './qemu-trace.ts'
import { excuse, linearAddress } from './repair.ts'
import { History } from './report.ts'
import type { Parting } from './report.ts'
import { codeSizeOf, differences, GENERAL, linearRip, stateOfRegisters } from './state.ts'
import type { Difference, PeerState } from './state.ts'

/** What is needed of a machine. `step` must not take interrupts: they come from the trace. */
export type FollowedMachine = Pick<Machine, 'step' | 'registers' | 'setRegisters' | 'readPhysical' | 'writePhysical' | 'translate'>

export interface FollowOptions {
  /** Whether a physical address is RAM or ROM: alike in both machines. Reads from anything else are taken from QEMU. */
  isMemory: (physical: number) => boolean
  /** Instructions shown before the parting. */
  history?: number
  /** Registers that are not compared. */
  ignore?: ReadonlySet<string>
  /** How many differing loads from RAM to take over and go on (DMA, or a store that went wrong before): each is told. */
  allowLoads?: number
  onRepair?: (cause: string, instruction: string, count: number) => void
}

const SELECTORS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const
const RF = 0x10000n

export class TraceFollower {
  readonly #machine: FollowedMachine
  readonly #options: FollowOptions
  readonly #history: History
  readonly #ignore: ReadonlySet<string>
  readonly repairs = new Map<string, number>()
  /** Our registers before the next instruction; equal to QEMU's. */
  #before: CpuRegisters | undefined
  #allowLoads: number
  /** QEMU stays at a REP: its iterations are awaited, then ours does them all. */
  #repeating = false
  /** Instructions compared. A REP counts once. */
  count = 0

  constructor(machine: FollowedMachine, options: FollowOptions) {
    this.#machine = machine
    this.#options = options
    this.#history = new History(options.history ?? 20)
    this.#ignore = options.ignore ?? new Set()
    this.#allowLoads = options.allowLoads ?? 0
  }

  /** Gives our machine all registers of the record. Memory is the caller's to copy. */
  start(record: TraceRecord): void {
    const { gpr, rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr, idtr } = record
    const segments = this.#machine.registers().segments
    for (const name of SELECTORS) segments[name] = segmentOf(record, name)
    this.#machine.setRegisters({ gpr: [...gpr], rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr: { ...gdtr }, idtr: { ...idtr }, segments })
    if (record.xmm) this.#machine.setRegisters({ xmm: record.xmm.map((each) => ({ ...each })), mxcsr: record.mxcsr ?? 0x1f80 })
    this.#before = this.#machine.registers()
  }

  /** Takes the next record; answers where the machines part, if they do. */
  feed(record: TraceRecord): Parting | undefined {
    const before = this.#before
    if (!before) {
      this.start(record)
      return undefined
    }
    const quiet = record.events.length === 0
    if (quiet && record.rip === before.rip) {
      // QEMU writes a record for a block that it then does not execute (it was asked to look up), and one for each iteration of REP.
      if (this.#repeating || equal(record, before)) return undefined
      this.#repeating = this.#decode(before).repeats
      if (this.#repeating) return undefined
    }
    this.#repeating = false
    this.#history.push(placeOf(before, this.count))
    const unsupported = this.#execute(before, record)
    let after = this.#machine.registers()
    if (unsupported !== undefined) return this.#part(unsupported, before, after, record, [])
    if (!equal(record, after)) {
      const parting = this.#explain(before, after, record)
      if (parting) return parting
      after = this.#machine.registers()
    }
    this.#before = after
    this.count++
    return undefined
  }

  /** Brings our machine to where the record is: usually one step. Answers what it cannot do, as text. */
  #execute(before: CpuRegisters, record: TraceRecord): string | undefined {
    if (record.smm) return 'QEMU entered system-management mode, which this cannot follow (run it with -M pc,smm=off)'
    const last = record.events.at(-1)
    const early = record.events.some((event) => event.kind === 'interrupt' && event !== last)
    if (early) return 'an interrupt and then an exception were delivered at once'
    const interrupt = last?.kind === 'interrupt' ? last : undefined
    const stopped = interrupt ? this.#stepBeforeInterrupt(before, interrupt) : this.#step(before)
    if (stopped !== undefined) return stopped
    for (const event of record.events) if (event.kind === 'exception') this.#raise(event, record)
    if (interrupt) return this.#deliver(record)
    return undefined
  }

  /** One instruction; all iterations of a REP. */
  #step(before: CpuRegisters): string | undefined {
    const stop = this.#machine.step()
    if (stop && stop.kind !== 'breakpoint') return `our machine stopped: ${JSON.stringify(stop)}`
    if (this.#machine.registers().rip !== before.rip) return undefined
    if (!this.#decode(before).repeats) return undefined
    while (this.#machine.registers().rip === before.rip) {
      const count = this.#machine.registers().gpr[1]
      this.#machine.step()
      if (this.#machine.registers().gpr[1] === count) break // a fault that returned to itself, or an engine that stands still
    }
    return undefined
  }

  /** The instruction that ran last before an interrupt: it may not have run at all, or only some iterations of it. */
  #stepBeforeInterrupt(before: CpuRegisters, interrupt: TraceEvent): string | undefined {
    const at = interrupt.at
    if (!at) return 'an interrupt without the registers on delivery'
    const instruction = this.#decode(before)
    if (at.rip !== before.rip) {
      if (instruction.mnemonic !== 'hlt' && instruction.mnemonic !== 'mwait') return this.#step(before)
      this.#machine.setRegisters({ rip: at.rip }) // ours would sleep: only the trace can wake it
      return undefined
    }
    if (!instruction.repeats || at.gpr[1] === before.gpr[1]) return undefined
    const gpr = [...before.gpr]
    gpr[1] = before.gpr[1] - at.gpr[1]
    this.#machine.setRegisters({ gpr })
    const stopped = this.#step(before)
    const done = this.#machine.registers().gpr
    done[1] = at.gpr[1]
    this.#machine.setRegisters({ gpr: done, rip: before.rip })
    return stopped
  }

  /** An exception that QEMU raised in fetching the next instruction, before it wrote a record for it: ours needs a step for that. */
  #raise(event: TraceEvent, record: TraceRecord): void {
    const now = this.#machine.registers()
    if (!equal(record, now) && event.at?.rip === now.rip) this.#machine.step()
  }

  /** Takes an interrupt, or a fault with an error code, as QEMU took it: the new registers are in the record, the frame holds ours. */
  #deliver(record: TraceRecord, error?: bigint): string | undefined {
    const old = this.#machine.registers()
    const rflags = error === undefined ? old.rflags & ~RF : old.rflags | RF
    const frame = [old.rip, BigInt(old.segments.cs.selector), rflags, old.gpr[4], BigInt(old.segments.ss.selector)]
    const long = (record.efer & 0x400n) !== 0n
    const real = (record.cr0 & 1n) === 0n
    const size = long ? 8 : real ? 2 : 4
    const inner = (old.segments.cs.selector & 3) !== (record.segments.cs.selector & 3)
    const base = long ? 0n : record.segments.ss.base
    const items = long || (!real && inner) ? frame : frame.slice(0, 3)
    if (error !== undefined && !real) items.unshift(error)
    for (const [i, value] of items.entries()) {
      const linear = base + record.gpr[4] + BigInt(i * size)
      const physical = this.#machine.translate(linear)
      if (physical === undefined) return `an interrupt was delivered to a stack at ${linear.toString(16)}, which is not mapped here`
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setBigUint64(0, value, true)
      this.#machine.writePhysical(physical, bytes.subarray(0, size))
    }
    const segments = { ...old.segments, cs: segmentOf(record, 'cs'), ss: segmentOf(record, 'ss') }
    const gpr = [...old.gpr]
    gpr[4] = record.gpr[4]
    this.#machine.setRegisters({ rip: record.rip, rflags: record.rflags, segments, gpr })
    if (error === undefined) this.#note('interrupt', '')
    return undefined
  }

  /** Our registers differ: takes over what is excused, and answers the parting for the rest. */
  #explain(before: CpuRegisters, after: CpuRegisters, record: TraceRecord): Parting | undefined {
    const ours = stateOfRegisters(after)
    const found = differences(ours, stateOfRecord(record), this.#ignore)
    if (found.length === 0) return undefined
    const instruction = this.#decode(before)
    if (this.#otherModel(instruction, before, record)) return undefined
    const state = stateOfRegisters(before)
    const cause = excuse(instruction, state, found, (linear) => this.#isDevice(linear)) ?? this.#allowedLoad(instruction, found)
    if (cause === undefined) return this.#part(this.#whatDiffers(instruction, state, found, record), before, after, record, found)
    this.#adopt(found, record)
    this.#note(cause, instruction.text)
    return undefined
  }

  /**
   * RDMSR or WRMSR faulted on one side only: the CPU models have different registers. QEMU is right, as CPUID told software QEMU's model.
   * What our fault pushed lies below the stack pointer, where nothing is kept in ring 0.
   */
  #otherModel(instruction: DecodedInstruction, before: CpuRegisters, record: TraceRecord): boolean {
    if (instruction.mnemonic !== 'rdmsr' && instruction.mnemonic !== 'wrmsr') return false
    const now = this.#machine.registers()
    const past = before.rip + BigInt(instruction.length)
    const theirs = record.events.find((event) => event.kind === 'exception')
    const oursFaulted = record.rip === past && now.rip !== past
    const theirsFaulted = now.rip === past && theirs?.vector === 13
    if (!oursFaulted && !theirsFaulted) return false
    const { gpr, rip, rflags, segments } = before
    this.#machine.setRegisters({ gpr, rip, rflags, segments })
    if (theirsFaulted && this.#deliver(record, 0n) !== undefined) return false
    if (oursFaulted) this.#adopt(differences(stateOfRegisters(this.#machine.registers()), stateOfRecord(record)), record)
    this.#note(`${instruction.mnemonic} of another model`, `${instruction.mnemonic} ${gpr[1].toString(16)}`)
    return true
  }

  #allowedLoad(instruction: DecodedInstruction, found: readonly Difference[]): string | undefined {
    const loads = instruction.memory.some(({ reads }) => reads)
    if (this.#allowLoads <= 0 || !loads || found.some(({ name }) => name === 'rip')) return undefined
    this.#allowLoads--
    return 'load from memory'
  }

  #isDevice(linear: bigint): boolean {
    const physical = this.#machine.translate(linear)
    return physical !== undefined && !this.#options.isMemory(physical)
  }

  #whatDiffers(instruction: DecodedInstruction, before: PeerState, found: readonly Difference[], record: TraceRecord): string {
    const parts = [`${found.map(({ name }) => name).join(', ')} after "${instruction.text}"`]
    for (const event of record.events) parts.push(`QEMU delivered ${event.text.split('IP=')[0].trim()}`)
    for (const operand of instruction.memory.filter(({ reads }) => reads)) {
      const linear = linearAddress(operand, before)
      const physical = linear === undefined ? undefined : this.#machine.translate(linear)
      if (linear !== undefined) parts.push(`it reads linear ${linear.toString(16)}, physical ${physical?.toString(16) ?? 'not mapped'}`)
    }
    return parts.join('; ')
  }

  #adopt(found: readonly Difference[], record: TraceRecord): void {
    const now = this.#machine.registers()
    const change: Partial<CpuRegisters> = {}
    for (const { name } of found) {
      const register = GENERAL.indexOf(name)
      const segment = SELECTORS.find((each) => name === each || name.startsWith(`${each}_`))
      const vector = /^xmm(\d+)$/.exec(name)
      if (register >= 0) {
        change.gpr ??= [...now.gpr]
        change.gpr[register] = record.gpr[register]
      } else if (segment) {
        change.segments ??= { ...now.segments }
        change.segments[segment] = segmentOf(record, segment)
      } else if (vector && record.xmm) {
        change.xmm ??= [...now.xmm]
        change.xmm[Number(vector[1])] = { ...record.xmm[Number(vector[1])] }
      } else if (name === 'mxcsr') {
        change.mxcsr = record.mxcsr
      } else if (/^[gi]dtr/.test(name)) {
        change.gdtr = { ...record.gdtr }
        change.idtr = { ...record.idtr }
      } else if (isPlain(name)) {
        change[name] = record[name]
      } else {
        throw new Error(`no way to take over register ${name}`)
      }
    }
    this.#machine.setRegisters(change)
  }

  #note(cause: string, instruction: string): void {
    const count = (this.repairs.get(cause) ?? 0) + 1
    this.repairs.set(cause, count)
    this.#options.onRepair?.(cause, instruction, this.count)
  }

  #decode(at: CpuRegisters): DecodedInstruction {
    const state = stateOfRegisters(at)
    const bytes = this.readLinear(linearRip(state), 15) ?? new Uint8Array(0)
    return decodeInstruction(bytes, codeSizeOf(at), at.rip)
  }

  /** Memory of our machine by linear address, up to the first page that is not mapped. */
  readLinear(linear: bigint, length: number): Uint8Array | undefined {
    const bytes: number[] = []
    while (bytes.length < length) {
      const at = linear + BigInt(bytes.length)
      const physical = this.#machine.translate(at)
      if (physical === undefined) break
      const part = Math.min(length - bytes.length, 0x1000 - Number(at & 0xfffn))
      bytes.push(...this.#machine.readPhysical(physical, part))
    }
    return bytes.length > 0 ? Uint8Array.from(bytes) : undefined
  }

  #part(why: string, before: CpuRegisters, after: CpuRegisters, record: TraceRecord, found: Difference[]): Parting {
    const left = stateOfRegisters(after)
    const history = this.#history.list()
    return { count: this.count, why, before: stateOfRegisters(before), left, right: stateOfRecord(record), differences: found, history }
  }
}

type Plain = 'rip' | 'rflags' | 'efer' | 'cr0' | 'cr2' | 'cr3' | 'cr4'
const isPlain = (name: string): name is Plain => /^(rip|rflags|efer|cr[0234])$/.test(name)

function placeOf(registers: CpuRegisters, count: number): { count: number; rip: bigint; linear: bigint; codeSize: 16 | 32 | 64 } {
  const codeSize = codeSizeOf(registers)
  const linear = codeSize === 64 ? registers.rip : (registers.segments.cs.base + registers.rip) & 0xffffffffn
  return { count, rip: registers.rip, linear, codeSize }
}

function segmentOf(record: TraceRecord, name: (typeof SELECTORS)[number]): CpuRegisters['segments']['cs'] {
  const { selector, base, limit, flags } = record.segments[name]
  return { selector, base, limit, attributes: attributesOf(flags) }
}

/** The quick comparison of each instruction. It may say "unequal" of states that are not: `differences` has the last word. */
function equal(record: TraceRecord, ours: CpuRegisters): boolean {
  if (record.rip !== ours.rip || (record.rflags & ~RF) !== (ours.rflags & ~RF)) return false
  const count = record.codeSize === 64 ? 16 : 8
  for (let i = 0; i < count; i++) if (record.gpr[i] !== ours.gpr[i]) return false
  if (record.cr0 !== ours.cr0 || record.cr2 !== ours.cr2 || record.cr3 !== ours.cr3) return false
  if (record.cr4 !== ours.cr4 || record.efer !== ours.efer) return false
  for (const name of SELECTORS) if (record.segments[name].selector !== ours.segments[name].selector) return false
  if (record.segments.fs.base !== ours.segments.fs.base || record.segments.gs.base !== ours.segments.gs.base) return false
  if (record.codeSize !== 64) {
    for (const name of ['cs', 'ss', 'ds', 'es'] as const) if (record.segments[name].base !== ours.segments[name].base) return false
  }
  for (const [i, { low, high }] of (record.xmm ?? []).entries()) if (low !== ours.xmm[i].low || high !== ours.xmm[i].high) return false
  return record.gdtr.base === ours.gdtr.base && record.idtr.base === ours.idtr.base
}
