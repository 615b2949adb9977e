/** For tests: a CPU state, physical memory and hand-made page tables, with paging set up as Intel SDM vol. 3, "Paging", describes. */
import { createCpuState, type CpuState } from '../cpu/state.ts'
import { mode } from '../cpu/mode.ts'
import { stateBase, stateSize } from '../cpu/layout.ts'
import type { LogUnhandled } from '../devices/ports.ts'
import { createLinearMemory } from '../memory/linear.ts'
import { backingBase, tlbBase, tlbDataEntries, tlbEntrySize, tlbFetchEntries, tlbSets, tlbSetSize } from '../memory/map.ts'
import { PhysicalMemory, type RamRange } from '../memory/physical.ts'
import { MmuControl } from './control.ts'
import { MmuLinearMemory } from './linear-memory.ts'
import { Mmu } from './mmu.ts'
import type { PagingModel } from './paging.ts'

export const MiB = 2 ** 20
export const GiB = 2 ** 30

/** Bits of entries. */
export const P = 1n, W = 2n, U = 4n, A = 0x20n, D = 0x40n, PS = 0x80n, G = 0x100n, NX = 1n << 63n
export const key = (number: number): bigint => BigInt(number) << 59n

export const CR0 = { PE: 1n, WP: 1n << 16n, PG: 1n << 31n } as const
export const CR4 = {
  PSE: 0x10n, PAE: 0x20n, PGE: 0x80n, LA57: 1n << 12n, PCIDE: 1n << 17n,
  SMEP: 1n << 20n, SMAP: 1n << 21n, PKE: 1n << 22n, PKS: 1n << 24n,
} as const
export const EFER = { LME: 0x100n, LMA: 0x400n, NXE: 0x800n } as const

// Views of one memory serve all tests of a file: creating 4 GiB of address space is not free.
const memory = createLinearMemory(backingBase + 64 * MiB)

export interface TestMachine {
  state: CpuState
  physical: PhysicalMemory
  mmu: Mmu
  control: MmuControl
  linear: MmuLinearMemory
  log: string[]
}

export interface TestOptions {
  ram?: RamRange[]
  model?: Partial<PagingModel>
  cpus?: number
}

export function testMachine(options: TestOptions = {}): TestMachine {
  const bytes = new Uint8Array(memory.buffer)
  bytes.fill(0, stateBase, stateBase + stateSize)
  bytes.fill(0, tlbBase, tlbBase + tlbSets * tlbSetSize)
  bytes.fill(0, backingBase)
  const log: string[] = []
  const report: LogUnhandled = (device, what) => void log.push(`${device}: ${what}`)
  const physical = new PhysicalMemory({ memory, ram: options.ram ?? [{ base: 0, size: 16 * MiB }], log: report })
  const model = { physicalBits: 46, hugePages: true, pse36: true, globalReservedInTables: false, ...options.model }
  const state = createCpuState(memory)
  state.eflags = 2
  const mmu = new Mmu({ physical, model, cpus: options.cpus })
  return { state, physical, mmu, control: new MmuControl(mmu, model), linear: new MmuLinearMemory(mmu), log }
}

export function write64(machine: TestMachine, address: number, value: bigint): void {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true)
  machine.physical.write(address, bytes)
}
export function write32(machine: TestMachine, address: number, value: bigint): void {
  write64(machine, address, (read64(machine, address) & ~0xffffffffn) | value)
}
export function read64(machine: TestMachine, address: number): bigint {
  const bytes = new Uint8Array(8)
  machine.physical.peek(address, bytes)
  return new DataView(bytes.buffer).getBigUint64(0, true)
}

export type PagingKind = 'none' | 'bits32' | 'pae' | 'level4' | 'level5'

/** Tables lie from 1 MiB on; the root is at `root`. Calls controlWritten, so nothing stays cached. */
export const root = 0x100000

export function setPaging(machine: TestMachine, kind: PagingKind, extra: { cr0?: bigint; cr4?: bigint; efer?: bigint } = {}): void {
  const { state, control } = machine
  const long = kind === 'level4' || kind === 'level5'
  const old = [state.cr0, state.cr4, state.efer] as const
  state.cr3 = BigInt(root)
  state.cr0 = CR0.PE | (kind === 'none' ? 0n : CR0.PG) | (extra.cr0 ?? 0n)
  state.cr4 = (long || kind === 'pae' ? CR4.PAE : 0n) | (kind === 'level5' ? CR4.LA57 : 0n) | (extra.cr4 ?? 0n)
  state.efer = (long ? EFER.LME | EFER.LMA : 0n) | (extra.efer ?? 0n)
  state.mode = long ? mode.code64 | mode.stack32 : mode.code32 | mode.stack32
  control.cr3Written(false)
  control.controlWritten(...old)
  control.flushAll()
}

/** Sets control bits as MOV to CR0 or CR4, or WRMSR, does. */
export function setControl(machine: TestMachine, bits: { cr0?: bigint; cr4?: bigint; efer?: bigint }): void {
  const { state, control } = machine
  const old = [state.cr0, state.cr4, state.efer] as const
  state.cr0 = bits.cr0 ?? state.cr0
  state.cr4 = bits.cr4 ?? state.cr4
  state.efer = bits.efer ?? state.efer
  control.controlWritten(...old)
}

export function setCpl(machine: TestMachine, cpl: number, ac = false): void {
  machine.state.cpl = cpl
  machine.state.eflags = ac ? 0x40002 : 2
  machine.control.updateContext()
}

let nextTable = 0

/** Gives a fresh tree of tables that starts at `base`. */
export function startTables(base = root): void {
  nextTable = base + 0x1000
}

/** Maps with 4-level (5-level) tables below `top`; `leafLevel` 1 is 4 KiB. Returns the physical addresses of the entries, leaf last. */
export interface MapOptions { top?: number; levels?: number; leafLevel?: number; tables?: bigint }

export function map(machine: TestMachine, linear: bigint, leaf: bigint, options: MapOptions = {}): number[] {
  const { top = root, levels = 4, leafLevel = 1, tables = P | W | U } = options
  const entries: number[] = []
  let table = top
  for (let level = levels; ; level--) {
    const entry = table + Number((linear >> BigInt(12 + 9 * (level - 1))) & 511n) * 8
    entries.push(entry)
    if (level === leafLevel) {
      write64(machine, entry, leaf)
      return entries
    }
    if (!(read64(machine, entry) & P)) {
      write64(machine, entry, BigInt(nextTable) | tables)
      nextTable += 0x1000
    }
    table = Number(read64(machine, entry) & 0xffffffffff000n)
  }
}

export type Attempt = { place: number } | { vector: number; error: number; address: bigint } | 'needs step'

/** Makes an access as generated code would after a first-level miss. `what` adds bits to size and flags. */
export function attempt(machine: TestMachine, what: 'read' | 'write' | 'fetch', linear: bigint, sizeAndFlags = 4): Attempt {
  const { mmu, state } = machine
  const lo = Number(linear & 0xffffffffn) | 0
  const hi = Number((linear >> 32n) & 0xffffffffn) | 0
  const slow = { read: mmu.slowRead, write: mmu.slowWrite, fetch: (l: number, h: number): number => mmu.fetchPlace(l, h) }[what]
  const place = slow(lo, hi, sizeAndFlags)
  if (place !== 0) return { place: place >>> 0 }
  if (state.leaveStatus === 2) return 'needs step'
  return { vector: state.faultVector, error: state.faultError, address: state.faultVector === 14 ? state.faultAddress : 0n }
}

/** The physical address that an access reaches, or the error code of its page fault as a string such as `#PF 7`, or `#GP 0`. */
export function outcome(machine: TestMachine, what: 'read' | 'write' | 'fetch', linear: bigint, sizeAndFlags = 4): number | string {
  const result = attempt(machine, what, linear, sizeAndFlags)
  if (result === 'needs step') return result
  if ('place' in result) return machine.physical.addressOf(result.place)
  if (result.vector === 14 && result.address !== BigInt.asUintN(64, linear)) return `#PF at ${result.address.toString(16)}`
  return `${{ 12: '#SS', 13: '#GP', 14: '#PF' }[result.vector]} ${result.error.toString(16)}`
}

/** Whether the first level of the present context answers by itself, as generated code asks: `(va xor page) <=u 4096 - size`. */
export function firstLevelHit(machine: TestMachine, what: 'read' | 'write' | 'fetch', linear: bigint, size = 1): boolean {
  const { state } = machine
  const table = { read: state.tlbRead, write: state.tlbWrite, fetch: state.tlbFetch }[what]
  const entries = what === 'fetch' ? tlbFetchEntries : tlbDataEntries
  const slot = table + Number((linear >> 12n) & BigInt(entries - 1)) * tlbEntrySize
  const page = new DataView(memory.buffer).getBigUint64(slot, true)
  return (BigInt.asUintN(64, linear) ^ page) <= BigInt(4096 - size)
}

/** INVLPG of an address. */
export const invlpg = (control: MmuControl, address: bigint): void =>
  control.invlpg(Number(address & 0xffffffffn), Number(BigInt.asUintN(64, address) >> 32n))
