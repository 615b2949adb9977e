/** RDMSR and WRMSR. Intel SDM vol. 2, "RDMSR", "WRMSR"; vol. 4, "Model-Specific Registers". */
import { canonicalFor, cr0, cr0Low, efer } from './bits.ts'
import { at, segment } from './layout.ts'
import type { CpuModel } from './model.ts'
import { isOffered, msrTable, readSlot, resetValue, slotOf, type Msr } from './msr-table.ts'
import type { Processor } from './processor.ts'

/** TSC ticks are virtual nanoseconds. */
export function readTsc(cpu: Processor): bigint {
  const time = BigInt.asUintN(64, BigInt(cpu.now()) + cpu.state.tscOffset)
  return cpu.guest ? cpu.guest.guestTsc(time) : time
}

/** Moving the TSC moves TSC_ADJUST by as much, and the other way round. */
function moveTsc(cpu: Processor, by: bigint): void {
  const { state } = cpu
  state.tscOffset = BigInt.asUintN(64, state.tscOffset + by)
  state.msrTscAdjust = BigInt.asUintN(64, state.msrTscAdjust + by)
}

/** Bits of EFER that the model has. */
export function eferWritable(model: CpuModel): number {
  let writable = 0
  if (model.has('syscall')) writable |= efer.SCE
  if (model.has('lm')) writable |= efer.LME | efer.LMA
  if (model.has('nx')) writable |= efer.NXE
  if (model.has('svm')) writable |= efer.SVME
  if (model.has('fxsr_opt')) writable |= efer.FFXSR
  if (model.has('tce')) writable |= efer.TCE
  if (model.has('autoibrs')) writable |= efer.AUTOIBRS
  return writable
}

const vmCr = 0xc0010114
const svmDisabled = 1n << 4n

function writeEfer(cpu: Processor, value: bigint): boolean {
  const { state, model } = cpu
  if (value & ~BigInt(eferWritable(model))) return false
  if (value & BigInt(efer.SVME) && readSlot(state, vmCr) & svmDisabled) return false
  const old = state.efer
  if ((old ^ value) & BigInt(efer.LME) && cr0Low(state) & cr0.PG) return false
  state.efer = (value & ~BigInt(efer.LMA)) | (old & BigInt(efer.LMA))
  cpu.translation.controlWritten(state.cr0, state.cr4, old)
  cpu.stateChanged()
  return true
}

/** FS and GS bases are the hidden parts of the segments. */
const baseOf = (index: number, name: string, segment: number): Msr => ({
  index, name, feature: 'lm',
  read: cpu => cpu.state.segBase[segment],
  write: (cpu, value) => {
    if (!canonicalFor(value, cpu.model.linearBits)) return false
    cpu.state.segBase[segment] = value
    return true
  },
})

const special: readonly Msr[] = [
  { index: 0x10, name: 'IA32_TIME_STAMP_COUNTER', feature: 'tsc', read: readTsc,
    write: (cpu, value) => (moveTsc(cpu, value - readTsc(cpu)), true) },
  { index: 0x3b, name: 'IA32_TSC_ADJUST', feature: 'tsc_adjust', read: cpu => cpu.state.msrTscAdjust,
    write: (cpu, value) => (moveTsc(cpu, value - cpu.state.msrTscAdjust), true) },
  { index: 0xc0000080, name: 'IA32_EFER', read: cpu => cpu.state.efer, write: writeEfer },
  baseOf(0xc0000100, 'IA32_FS_BASE', 4),
  baseOf(0xc0000101, 'IA32_GS_BASE', 5),
]

const rows = new Map<number, Msr[]>()
for (const row of [...special, ...msrTable]) {
  const others = rows.get(row.index)
  if (others) others.push(row)
  else rows.set(row.index, [row])
}

/** Rows that a model has, as far as they were asked for. */
const offered = new WeakMap<CpuModel, Map<number, Msr | undefined>>()
function find(model: CpuModel, index: number): Msr | undefined {
  let known = offered.get(model)
  if (!known) offered.set(model, (known = new Map()))
  let row = known.get(index)
  if (row === undefined && !known.has(index) && rows.has(index)) {
    row = rows.get(index)!.find(each => isOffered(each, model))
    known.set(index, row)
  }
  return row
}

/** Registers that are a canonical address and nothing else, by their words of the state. */
const addresses: ReadonlyMap<number, number> = new Map([
  [0xc0000100, (at.segBase >> 2) + segment.fs * 2], [0xc0000101, (at.segBase >> 2) + segment.gs * 2],
  [0xc0000102, at.msrKernelGsBase >> 2],
])
/** Where such a register lies; 0: it is another one, not there, or a guest's, whose hypervisor may want it. */
export function addressRegister(cpu: Processor, index: number): number {
  const place = addresses.get(index)
  return place !== undefined && cpu.guest === undefined && find(cpu.model, index) ? place : 0
}

const isApic = (index: number): boolean => index === 0x1b || index === 0x6e0 || (index >= 0x800 && index <= 0x8ff)

/** The value, or undefined for #GP. */
export function readMsr(cpu: Processor, index: number): bigint | undefined {
  const virtual = cpu.guest?.readMsr?.(index)
  if (virtual !== undefined) return virtual
  if (isApic(index)) return cpu.apic.readMsr(index)
  const row = find(cpu.model, index)
  if (!row) {
    const capability = cpu.virt?.capability?.(index)
    if (capability !== undefined) return capability
    cpu.log(`RDMSR ${index.toString(16)}: not there, #GP`)
    return undefined
  }
  if (row.writeOnly) return undefined
  if (row.read) return row.read(cpu)
  if (row.field === 'none') return resetValue(row, cpu.model)
  return row.field ? cpu.state[row.field] : cpu.state.msrMisc[slotOf(index)]
}

const debugctl = 0x1d9
/** IA32_DEBUGCTL, as hypervisors restore it after each exit, has this value already. */
export function isAlreadyThere(cpu: Processor, index: number, value: bigint): boolean {
  return index === debugctl && cpu.state.msrDebugctl === value
}

/** Its write is only stored: no interrupt, no deadline and no other translation can follow. */
export const isStorage = (index: number): boolean => storage.has(index)
const isBase = (index: number): boolean => index === 0xc0000100 || index === 0xc0000101
const storage: ReadonlySet<number> = new Set([...rows].filter(([index, each]) => isBase(index) || each.every(row => !row.write))
  .map(([index]) => index))

/** False for #GP. */
export function writeMsr(cpu: Processor, index: number, value: bigint): boolean {
  const virtual = cpu.guest?.writeMsr?.(index, value) ?? (cpu.guest?.writeMsr ? undefined : false)
  if (virtual !== false) return virtual === true
  if (isApic(index)) return cpu.apic.writeMsr(index, value)
  const row = find(cpu.model, index)
  if (!row) {
    cpu.log(`WRMSR ${index.toString(16)} = ${value.toString(16)}: not there, #GP`)
    return false
  }
  if (row.write) return row.write(cpu, value)
  if (row.writable === undefined || value & ~row.writable) return false
  if (row.accepts && !row.accepts(value, cpu)) return false
  if (row.field === 'none') return true
  const kept = row.keeps === undefined ? value : value & row.keeps
  if (row.field) cpu.state[row.field] = kept
  else cpu.state.msrMisc[slotOf(index)] = kept
  return true
}
