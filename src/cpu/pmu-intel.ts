/**
 * Architectural performance monitoring of Intel's processors: which version a model has, CPUID leaf 0AH, the registers. Intel SDM vol. 3,
 * "Architectural Performance Monitoring"; vol. 4. Counted are instructions, core cycles and reference cycles; CPUID says of all other
 * architectural events that they are not available.
 */
import { recordFormatOf } from './last-branch.ts'
import type { CounterSet, CpuModel } from './model.ts'
import type { Msr } from './msr-table.ts'
import type { CpuState } from './state.ts'
import type { Processor } from './processor.ts'
import { changeCounters, firstFixed, loadGlobalControl, overflowStatus, readCounter, statusBit, writeCounter, writeSelect } from './pmu.ts'

const fixed = 3
const core2: CounterSet = { version: 2, general: 2, fixed, width: 40 }
const nehalem: CounterSet = { version: 3, general: 4, fixed, width: 48 }
const sandyBridge: CounterSet = { ...nehalem, fullWidth: true }
const skylake: CounterSet = { ...sandyBridge, version: 4 }
/** Silicon's fourth fixed counter counts pipeline slots. */
const icelake: CounterSet = { ...skylake, version: 5, general: 8 }

/** By family 6 model number; what is not listed is newer. */
const byModel: readonly (readonly [CounterSet, readonly number[]])[] = [
  [core2, [0x0f, 0x17]],
  [nehalem, [0x1a, 0x1e, 0x2e, 0x25, 0x2c]],
  [sandyBridge, [0x2a, 0x2d, 0x3a, 0x3e, 0x3c, 0x3f, 0x45, 0x3d, 0x47, 0x4f]],
  [skylake, [0x4e, 0x5e, 0x55, 0x8e, 0x9e]],
]

/** Of family 6, `model` as displayed. */
export const intelCounters = (model: number): CounterSet => byModel.find(([, models]) => models.includes(model))?.[0] ?? icelake

/** Architectural events by bit of EBX: core cycles, instructions, reference cycles are there; caches, branches, slots are not. */
const absentEvents = 0b1111_1000
const eventBits = (version: number): number => (version >= 5 ? 8 : 7)

/** CPUID leaf 0AH. */
export function counterLeaf({ version, general, fixed, width }: CounterSet): readonly [number, number, number, number] {
  if (version === 0) return [0, 0, 0, 0]
  const bits = eventBits(version)
  const anyThreadIsGone = version >= 5 ? 1 << 15 : 0
  return [
    version | (general << 8) | (width << 16) | (bits << 24), absentEvents & ((1 << bits) - 1),
    version >= 5 ? (1 << fixed) - 1 : 0, fixed | (width << 5) | anyThreadIsGone,
  ]
}

const ones = (count: number): bigint => (1n << BigInt(count)) - 1n
const counterBits = ({ general, fixed }: CounterSet): bigint => ones(general) | (ones(fixed) << 32n)
/** IA32_PERF_GLOBAL_CTRL: the bits of counters that are there. */
export const globalControlBits = counterBits
/** After RESET the general counters are enabled, as if there were no such register. */
export function resetCounters(state: CpuState, { version, general }: CounterSet): void {
  for (const field of ['pmcControl', 'pmcValue', 'pmcMark'] as const) state[field].fill(0n)
  state.pmcFixedControl = 0n
  state.pmcGlobalControl = version === 0 ? 0n : ones(general)
  state.pmcStatus = 0n
}

const bufferOverflow = 1n << 62n
const conditionChanged = 1n << 63n
/** AnyThread (bit 21) means the one thread that a core has. */
const anyThread = 1n << 21n
const selectBits = ({ version }: CounterSet): bigint => (version >= 3 && version < 5 ? 0xffff_ffffn : 0xffff_ffffn & ~anyThread)
const fixedControlBits = ({ version, fixed }: CounterSet): bigint =>
  Array.from({ length: fixed }, (_, i) => (version >= 3 && version < 5 ? 15n : 11n) << BigInt(4 * i)).reduce((all, each) => all | each, 0n)
const statusBits = (set: CounterSet): bigint =>
  counterBits(set) | bufferOverflow | (set.version >= 4 ? statusBit.frozen : conditionChanged)

const setOf = (cpu: Processor): CounterSet => cpu.model.counters
const version = (least: number): Pick<Msr, 'vendor' | 'when'> =>
  ({ vendor: 'GenuineIntel', when: model => model.counters.version >= least })
const counting = (index: number, name: string, least: number, read: NonNullable<Msr['read']>, legal: (set: CounterSet) => bigint,
  write: (cpu: Processor, value: bigint) => void): Msr => ({
  index, name, ...version(least), field: 'none', read,
  write: (cpu, value) => {
    if (value & ~legal(setOf(cpu))) return false
    write(cpu, value)
    return true
  },
})
const rows = (count: number, row: (i: number) => Msr): Msr[] => Array.from({ length: count }, (_, i) => {
  const each = row(i)
  return { ...each, when: model => each.when!(model) && i < (each.name.includes('FIXED') ? model.counters.fixed : model.counters.general) }
})

const anyValue = ones(64)
/** IA32_PMC0 takes 32 bits, with their sign; IA32_A_PMC0 all that the counter has, where IA32_PERF_CAPABILITIES.FW_WRITE says so. */
const fullWidthWrites = 1n << 13n
const capabilities = (model: CpuModel): bigint =>
  (model.counters.fullWidth ? fullWidthWrites : 0n) | BigInt(recordFormatOf(model))

const setStatus = (next: (status: bigint, value: bigint) => bigint) => (cpu: Processor, value: bigint): void =>
  changeCounters(cpu, () => {
    cpu.state.pmcStatus = next(cpu.state.pmcStatus, value)
  })

export const intelCounterMsrs: readonly Msr[] = [
  ...rows(8, i => counting(0xc1 + i, `IA32_PMC${i}`, 1, cpu => readCounter(cpu, i), () => anyValue,
    (cpu, value) => writeCounter(cpu, i, BigInt.asIntN(32, value)))),
  ...rows(8, i => ({ ...counting(0x4c1 + i, `IA32_A_PMC${i}`, 1, cpu => readCounter(cpu, i), ({ width }) => ones(width),
    (cpu, value) => writeCounter(cpu, i, value)), when: model => model.has('pdcm') && model.counters.fullWidth === true })),
  ...rows(8, i => counting(0x186 + i, `IA32_PERFEVTSEL${i}`, 1, cpu => cpu.state.pmcControl[i], selectBits,
    (cpu, value) => writeSelect(cpu, i, value))),
  ...rows(3, i => counting(0x309 + i, `IA32_FIXED_CTR${i}`, 2, cpu => readCounter(cpu, firstFixed + i), () => anyValue,
    (cpu, value) => writeCounter(cpu, firstFixed + i, value))),
  counting(0x38d, 'IA32_FIXED_CTR_CTRL', 2, cpu => cpu.state.pmcFixedControl, fixedControlBits,
    (cpu, value) => changeCounters(cpu, () => {
      cpu.state.pmcFixedControl = value
    })),
  counting(0x38f, 'IA32_PERF_GLOBAL_CTRL', 2, cpu => cpu.state.pmcGlobalControl, counterBits,
    (cpu, value) => loadGlobalControl(cpu, value)),
  { index: 0x38e, name: 'IA32_PERF_GLOBAL_STATUS', ...version(2), field: 'none', read: overflowStatus },
  counting(0x390, 'IA32_PERF_GLOBAL_OVF_CTRL', 2, () => 0n, statusBits, setStatus((status, value) => status & ~value)),
  counting(0x391, 'IA32_PERF_GLOBAL_STATUS_SET', 4, () => 0n, statusBits, setStatus((status, value) => status | value)),
  { index: 0x392, name: 'IA32_PERF_GLOBAL_INUSE', ...version(4), field: 'none', read: inUse },
  { index: 0x345, name: 'IA32_PERF_CAPABILITIES', feature: 'pdcm', field: 'none', read: cpu => capabilities(cpu.model) },
]

/** Selects that name an event, fixed counters that count for somebody, and (bit 63) any that interrupts. */
function inUse({ state, model: { counters } }: Processor): bigint {
  let bits = 0n
  for (let i = 0; i < counters.general; i++) {
    if (state.pmcControl[i] & 0xffn) bits |= 1n << BigInt(i)
    if (state.pmcControl[i] & (1n << 20n)) bits |= 1n << 63n
  }
  for (let i = 0; i < counters.fixed; i++) {
    const control = state.pmcFixedControl >> BigInt(4 * i)
    if (control & 3n) bits |= 1n << BigInt(32 + i)
    if (control & 8n) bits |= 1n << 63n
  }
  return bits
}

/** The counter that RDPMC's ECX names; undefined: #GP. */
export function intelCounterNumber({ version, general, fixed }: CounterSet, ecx: number): number | undefined {
  const isFixed = ecx >>> 16 === 0x4000
  const index = ecx & 0xffff
  if (version === 0 || (!isFixed && ecx >>> 16 !== 0)) return undefined
  if (index >= (isFixed ? fixed : general)) return undefined
  return isFixed ? firstFixed + index : index
}
