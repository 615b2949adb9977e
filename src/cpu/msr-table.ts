/**
 * Model-specific registers as a table: index, name, reset value, what may be written. Intel SDM vol. 4, "Model-Specific Registers"; AMD
 * APM vol. 2, appendix "MSR Cross-Reference".
 */
import type { CpuModel } from './model.ts'
import type { FieldName } from './layout.ts'
import type { CpuState } from './state.ts'
import type { Processor } from './processor.ts'
import { canonicalFor } from './bits.ts'
import { lastBranchMsrs } from './last-branch.ts'
import { isCetControl } from './control-flow.ts'
import { supportedXss } from './xsave-layout.ts'
import { amdCounterMsrs } from './pmu-amd.ts'
import { intelCounterMsrs, resetCounters } from './pmu-intel.ts'

/** One register. A check or effect answers false for #GP. */
export interface Msr {
  readonly index: number
  readonly name: string
  /** Only for this vendor, or only when the model has a feature. */
  readonly vendor?: CpuModel['vendor']
  readonly feature?: string
  readonly when?: (model: CpuModel) => boolean
  readonly reset?: bigint | ((model: CpuModel) => bigint)
  /** Bits that WRMSR may set; others raise #GP when they change nothing else says. Absent: the register is read-only. */
  readonly writable?: bigint
  /** The bits that a write keeps; the others that may be set are lost. Absent: all. */
  readonly keeps?: bigint
  /** Where it is kept: a field of the state, or (absent) a slot of msrMisc. 'none': nowhere, reads give the reset value. */
  readonly field?: ScalarField | 'none'
  readonly accepts?: (value: bigint, cpu: Processor) => boolean
  /** RDMSR raises #GP. */
  readonly writeOnly?: true
  readonly read?: (cpu: Processor) => bigint
  readonly write?: (cpu: Processor, value: bigint) => boolean
}

type ScalarField = Extract<FieldName, 'msrStar' | 'msrLstar' | 'msrCstar' | 'msrFmask' | 'msrKernelGsBase' | 'msrSysenterCs'
  | 'msrSysenterEsp' | 'msrSysenterEip' | 'msrTscAux' | 'msrTscAdjust' | 'msrPat' | 'msrPkrs' | 'msrXss' | 'msrDebugctl'
  | 'smbase' | 'efer' | 'msrUCet' | 'msrSCet' | 'msrSspTable'>

const all = 0xffff_ffff_ffff_ffffn
const low32 = 0xffff_ffffn
const intel = { vendor: 'GenuineIntel' } as const
const amd = { vendor: 'AuthenticAMD' } as const

const canonical = (value: bigint, cpu: Processor): boolean => canonicalFor(value, cpu.model.linearBits)
const isMemoryType = (type: number): boolean => type === 0 || type === 1 || type === 4 || type === 5 || type === 6
const bytesOf = (value: bigint): number[] => Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(i * 8)) & 0xffn))
const memoryTypes = (value: bigint): boolean => bytesOf(value).every(isMemoryType)
/** PAT has also UC- (7). */
const patTypes = (value: bigint): boolean => bytesOf(value).every(type => type === 7 || isMemoryType(type))

const constant = (index: number, name: string, reset: Msr['reset'],
  rest: Partial<Msr> = {}): Msr => ({ index, name, reset, field: 'none', ...rest })
const stored = (index: number, name: string, writable: bigint, rest: Partial<Msr> = {}): Msr => ({ index, name, writable, ...rest })
/** A command that does nothing here: accepts what `writable` allows, cannot be read. */
const command = (index: number, name: string, writable: bigint, rest: Partial<Msr> = {}): Msr =>
  ({ index, name, writable, field: 'none', writeOnly: true, ...rest })
/** Accepts what `writable` allows and forgets it. */
const ignored = (index: number, name: string, writable: bigint,
  rest: Partial<Msr> = {}): Msr => ({ index, name, writable, field: 'none', ...rest })
const many = (count: number, row: (i: number) => Msr): Msr[] => Array.from({ length: count }, (_, i) => row(i))

const variableRanges = 8
const machineCheckBanks = 6
const fixedRanges: readonly (readonly [number, string])[] = [
  [0x250, 'IA32_MTRR_FIX64K_00000'], [0x258, 'IA32_MTRR_FIX16K_80000'], [0x259, 'IA32_MTRR_FIX16K_A0000'],
  ...Array.from({ length: 8 }, (_, i): [number, string] => [0x268 + i, `IA32_MTRR_FIX4K_${(0xc0 + i * 8).toString(16).toUpperCase()}000`]),
]

/** A row with a `write`, so that the run loop looks anew: branches are recorded in single steps. */
function writeDebugctl(cpu: Processor, value: bigint): boolean {
  if (value & ~0xffc3n) return false
  cpu.state.msrDebugctl = value
  return true
}

const physicalMask = (cpu: Processor): bigint => (1n << BigInt(cpu.model.physicalBits)) - 1n

/** IA32_SPEC_CTRL.BHI_DIS_S: where it exists, kernels need no loop that clears branch history at each system call. */
const bhiDisS = 1n << 10n

/** IA32_ARCH_CAPABILITIES: this processor speculates nothing, so it has none of the vulnerabilities. Enhanced IBRS. */
const archCapabilities = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 17, 20, 24, 26, 27, 62].reduce((bits, bit) => bits | (1n << BigInt(bit)), 0n)

/** Rights change at once: another translation context. */
function writePkrs(cpu: Processor, value: bigint): boolean {
  if (value & ~low32) return false
  cpu.state.msrPkrs = value
  cpu.stateChanged()
  return true
}

const vmCr = { lock: 8n, svmDisable: 0x10n } as const
const svmEnable = 1n << 12n

/** LOCK keeps itself and SVMDIS; SVMDIS cannot be set while EFER.SVME is. AMD APM vol. 2, "VM_CR MSR". */
function writeVmCr(cpu: Processor, value: bigint): boolean {
  if (!cpu.model.has('svm') || value & ~0x1fn) return false
  const { msrMisc, efer } = cpu.state
  const slot = slotOf(0xc0010114)
  const kept = msrMisc[slot] & vmCr.lock ? vmCr.lock | vmCr.svmDisable : 0n
  const next = (value & ~kept) | (msrMisc[slot] & kept)
  if (next & vmCr.svmDisable && efer & svmEnable) return false
  msrMisc[slot] = next
  return true
}

const miscEnable = { writable: 0x4_00c5_0809n, readOnly: 0x1880n } as const
function writeMiscEnable(cpu: Processor, value: bigint): boolean {
  if (value & ~(miscEnable.writable | miscEnable.readOnly)) return false
  const slot = slotOf(0x1a0)
  const { msrMisc } = cpu.state
  msrMisc[slot] = (value & miscEnable.writable) | (msrMisc[slot] & miscEnable.readOnly)
  return true
}

const mtrrs: readonly Msr[] = [
  constant(0xfe, 'IA32_MTRRCAP', BigInt(variableRanges) | 0x500n, { feature: 'mtrr' }),
  ...many(variableRanges, i => stored(0x200 + i * 2, `IA32_MTRR_PHYSBASE${i}`, all,
    { feature: 'mtrr', accepts: (value, cpu) => isMemoryType(Number(value & 0xffn)) && (value & ~physicalMask(cpu)) === 0n
    && (value & 0xf00n) === 0n })),
  ...many(variableRanges, i => stored(0x201 + i * 2, `IA32_MTRR_PHYSMASK${i}`, all,
    { feature: 'mtrr', accepts: (value, cpu) => (value & ~physicalMask(cpu)) === 0n && (value & 0x7ffn) === 0n })),
  ...fixedRanges.map(([index, name]) => stored(index, name, all, { feature: 'mtrr', accepts: memoryTypes })),
  stored(0x2ff, 'IA32_MTRR_DEF_TYPE', 0xcffn, { feature: 'mtrr', accepts: value => isMemoryType(Number(value & 0xffn)) }),
  stored(0x277, 'IA32_PAT', all, { feature: 'pat', field: 'msrPat', reset: 0x0007040600070406n, accepts: patTypes }),
]

const machineCheck: readonly Msr[] = [
  constant(0x179, 'IA32_MCG_CAP', BigInt(machineCheckBanks) | 0x100n, { feature: 'mca' }),
  stored(0x17a, 'IA32_MCG_STATUS', 7n, { feature: 'mca' }),
  stored(0x17b, 'IA32_MCG_CTL', all, { feature: 'mca', reset: all, accepts: value => value === 0n || value === all }),
  stored(0x0, 'IA32_P5_MC_ADDR', all, { feature: 'mce' }),
  stored(0x1, 'IA32_P5_MC_TYPE', all, { feature: 'mce' }),
  ...many(machineCheckBanks, i => stored(0x400 + i * 4, `IA32_MC${i}_CTL`, all,
    { feature: 'mca', reset: all, accepts: value => value === 0n || value === all })),
  ...many(machineCheckBanks, i => stored(0x401 + i * 4, `IA32_MC${i}_STATUS`, all,
    { feature: 'mca', accepts: (value, cpu) => value === 0n || cpu.model.vendor === 'AuthenticAMD' })),
  ...many(machineCheckBanks, i => stored(0x402 + i * 4, `IA32_MC${i}_ADDR`, all, { feature: 'mca' })),
  ...many(machineCheckBanks, i => stored(0x403 + i * 4, `IA32_MC${i}_MISC`, all, { feature: 'mca' })),
]

const system: readonly Msr[] = [
  stored(0x174, 'IA32_SYSENTER_CS', all, { feature: 'sep', field: 'msrSysenterCs', keeps: low32 }),
  stored(0x175, 'IA32_SYSENTER_ESP', all, { feature: 'sep', field: 'msrSysenterEsp', accepts: canonical }),
  stored(0x176, 'IA32_SYSENTER_EIP', all, { feature: 'sep', field: 'msrSysenterEip', accepts: canonical }),
  stored(0xc0000081, 'IA32_STAR', all, { feature: 'syscall', field: 'msrStar' }),
  stored(0xc0000082, 'IA32_LSTAR', all, { feature: 'lm', field: 'msrLstar', accepts: canonical }),
  stored(0xc0000083, 'IA32_CSTAR', all, { feature: 'lm', field: 'msrCstar', accepts: canonical }),
  stored(0xc0000084, 'IA32_FMASK', all, { feature: 'syscall', field: 'msrFmask', keeps: low32 }),
  stored(0xc0000102, 'IA32_KERNEL_GS_BASE', all, { feature: 'lm', field: 'msrKernelGsBase', accepts: canonical }),
  stored(0xc0000103, 'IA32_TSC_AUX', low32, { feature: 'rdtscp', field: 'msrTscAux' }),
  { index: 0x1d9, name: 'IA32_DEBUGCTL', field: 'msrDebugctl', read: cpu => cpu.state.msrDebugctl, write: writeDebugctl },
  ...['LastBranchFromIP', 'LastBranchToIP', 'LastIntFromIP', 'LastIntToIP'].map((name, i): Msr =>
    ({ index: 0x1db + i, name, ...amd, field: 'none', read: cpu => cpu.state.lastBranch[i] })),
  stored(0xda0, 'IA32_XSS', all, { feature: 'xsaves', field: 'msrXss',
    accepts: (value, cpu) => (value & ~supportedXss(cpu.model)) === 0n }),
  { index: 0x6e1, name: 'IA32_PKRS', feature: 'pks', field: 'msrPkrs', write: writePkrs },
  // Software writes 0, executes CPUID and reads the revision: ours is always there.
  ignored(0x8b, 'IA32_BIOS_SIGN_ID', all, { reset: model => (model.vendor === 'GenuineIntel' ? 0xd0003f5_00000000n : 0x0a101148n) }),
  ignored(0x79, 'IA32_BIOS_UPDT_TRIG', all, intel),
  // Speculation controls: nothing speculates, so they are storage and commands do nothing.
  stored(0x48, 'IA32_SPEC_CTRL', 0x407n, { feature: 'spec_ctrl', accepts: (value, cpu) => !(value & bhiDisS)
    || cpu.model.has('bhi_ctrl') }),
  stored(0x48, 'SPEC_CTRL', 0x7n, { feature: 'amd_ibrs' }),
  command(0x49, 'IA32_PRED_CMD', 0x1n, { feature: 'spec_ctrl' }),
  command(0x49, 'PRED_CMD', 0x1n, { feature: 'amd_ibpb' }),
  command(0x10b, 'IA32_FLUSH_CMD', 0x1n, { feature: 'flush_l1d' }),
]

const intelOnly: readonly Msr[] = [
  constant(0x17, 'IA32_PLATFORM_ID', 0n, intel),
  constant(0x10a, 'IA32_ARCH_CAPABILITIES', archCapabilities, { feature: 'arch_capabilities' }),
  // Set and locked by system software. Bits: lock, VMX inside and outside SMX.
  stored(0x3a, 'IA32_FEATURE_CONTROL', 0x7n, { ...intel, accepts: (_, cpu) => !(readSlot(cpu.state, 0x3a) & 1n) }),
  // Fast strings on, automatic thermal control on, BTS and PEBS unavailable (read-only, as is that there are performance counters).
  { index: 0x1a0, name: 'IA32_MISC_ENABLE', ...intel, write: writeMiscEnable,
    reset: model => (model.counters.version === 0 ? 0x1809n : 0x1889n) },
  stored(0xe1, 'IA32_UMWAIT_CONTROL', 0xffff_fffdn, { ...intel, feature: 'waitpkg' }),
  stored(0x1b0, 'IA32_ENERGY_PERF_BIAS', 0xfn, { ...intel, reset: 6n }),
  constant(0xce, 'MSR_PLATFORM_INFO', 0xa00n, intel),
  stored(0x140, 'MISC_FEATURES_ENABLES', 0n, intel),
  { index: 0x34, name: 'MSR_SMI_COUNT', ...intel },
  constant(0x2a, 'MSR_EBL_CR_POWERON', 0n, intel),
  constant(0x198, 'IA32_PERF_STATUS', 0xa00n, intel),
  // the state that is asked for is the only one; hypervisors read and write this without asking for EIST
  stored(0x199, 'IA32_PERF_CTL', 0x1_0000_ffffn, { ...intel, reset: 0xa00n }),
  stored(0x19a, 'IA32_CLOCK_MODULATION', 0x1fn, intel),
  stored(0x19b, 'IA32_THERM_INTERRUPT', 0x1ffffffn, intel),
  constant(0x19c, 'IA32_THERM_STATUS', 0n, intel),
  constant(0x1a2, 'MSR_TEMPERATURE_TARGET', 0x640000n, intel),
]

const amdOnly: readonly Msr[] = [
  stored(0xc0010010, 'SYSCFG', 0x7ffffffn, { ...amd, reset: 0n }),
  stored(0xc0010015, 'HWCR', 0xffff_ffffn, { ...amd, reset: 1n << 24n }),
  stored(0xc001001a, 'TOP_MEM', all, { ...amd, accepts: (value, cpu) => (value & ~physicalMask(cpu)) === 0n }),
  stored(0xc001001d, 'TOP_MEM2', all, { ...amd, accepts: (value, cpu) => (value & ~physicalMask(cpu)) === 0n }),
  stored(0xc001001f, 'NB_CFG', all, amd),
  ignored(0xc0010020, 'PATCH_LOADER', all, amd),
  stored(0xc0010055, 'INTPEND', low32, amd),
  constant(0xc0010058, 'MMIO_CFG_BASE', 0n, { ...amd, writable: all }),
  stored(0xc0010061, 'PSTATE_CURRENT_LIMIT', 0n, amd),
  constant(0xc0010062, 'PSTATE_CONTROL', 0n, { ...amd, writable: 7n }),
  constant(0xc0010063, 'PSTATE_STATUS', 0n, amd),
  constant(0xc0010064, 'PSTATE_DEF0', 0n, amd),
  constant(0xc0010074, 'CPU_WATCHDOG_TIMER', 0n, { ...amd, writable: all }),
  stored(0xc0010111, 'SMM_BASE', low32, { ...amd, field: 'smbase', reset: 0x30000n }),
  stored(0xc0010112, 'SMM_ADDR', all, amd),
  stored(0xc0010113, 'SMM_MASK', all, amd),
  // There is no SVM to enable when the model does not offer it.
  { index: 0xc0010114, name: 'VM_CR', ...amd, reset: model => (model.has('svm') ? 0n : 0x18n), write: writeVmCr },
  // the processors' own manuals have 32 bits for the APIC ID, the APM has 8
  { index: 0xc001011b, name: 'AVIC_DOORBELL', feature: 'avic', field: 'none', writeOnly: true,
    write: (cpu, value) => value <= low32 && (cpu.apic.ringDoorbell?.(Number(value)), true) },
  { index: 0xc0010115, name: 'IGNNE', ...amd, writable: 1n },
  { index: 0xc0010117, name: 'VM_HSAVE_PA', feature: 'svm', writable: all,
    accepts: (value, cpu) => (value & 0xfffn) === 0n && (value & ~physicalMask(cpu)) === 0n },
  { index: 0xc0000104, name: 'TSC_RATIO', feature: 'tsc_scale', writable: 0xff_ffff_ffffn, reset: 1n << 32n },
  stored(0xc0011020, 'LS_CFG', all, amd),
  stored(0xc0011021, 'IC_CFG', all, amd),
  stored(0xc0011022, 'DC_CFG', all, amd),
  stored(0xc0011023, 'BU_CFG', all, amd),
  stored(0xc0011029, 'DE_CFG', all, { ...amd, reset: 2n }),
  stored(0xc001102a, 'BU_CFG2', all, amd),
  stored(0xc001102e, 'ZEN4_BP_CFG', all, amd),
  stored(0xc00110e3, 'ZEN2_SPECTRAL_CHICKEN', all, amd),
  constant(0xc0011004, 'CPUID_7_FEATURES', 0n, { ...amd, writable: all }),
  constant(0xc0011005, 'CPUID_EXT_FEATURES', 0n, { ...amd, writable: all }),
]

/** Turned on and off here, shadow stacks and tracking make other code of calls and branches. */
const controlFlow = (index: number, name: string, field: 'msrUCet' | 'msrSCet', feature: string): Msr => ({
  index, name, feature, field,
  write: (cpu, value) => {
    if (!canonical(value, cpu) || !isCetControl(value, cpu.model.has('ibt'))) return false
    cpu.state[field] = value
    cpu.stateChanged()
    return true
  },
})
const isPointer = (value: bigint, cpu: Processor): boolean => (value & 3n) === 0n && canonical(value, cpu)
const shadowStacks: readonly Msr[] = [
  controlFlow(0x6a0, 'IA32_U_CET', 'msrUCet', 'shstk'), controlFlow(0x6a0, 'IA32_U_CET', 'msrUCet', 'ibt'),
  controlFlow(0x6a2, 'IA32_S_CET', 'msrSCet', 'shstk'), controlFlow(0x6a2, 'IA32_S_CET', 'msrSCet', 'ibt'),
  ...many(4, (i): Msr => ({ index: 0x6a4 + i, name: `IA32_PL${i}_SSP`, feature: 'shstk', field: 'none', read: cpu => cpu.state.msrPlSsp[i],
    write: (cpu, value) => {
      if (!isPointer(value, cpu)) return false
      cpu.state.msrPlSsp[i] = value
      return true
    } })),
  stored(0x6a8, 'IA32_INTERRUPT_SSP_TABLE_ADDR', all, { feature: 'shstk', field: 'msrSspTable', accepts: canonical }),
]

/** Storage and constants. Registers that do more are in msr.ts. */
export const msrTable: readonly Msr[] = [...mtrrs, ...machineCheck, ...system, ...shadowStacks, ...intelOnly, ...lastBranchMsrs,
  ...intelCounterMsrs, ...amdOnly, ...amdCounterMsrs]

const slots = new Map<number, number>()
for (const row of msrTable) if (row.field === undefined && !slots.has(row.index)) slots.set(row.index, slots.size)
const slotsUsed = slots.size

/** Slot of msrMisc of a stored register. */
export function slotOf(index: number): number {
  const slot = slots.get(index)
  if (slot === undefined) throw new Error(`MSR ${index.toString(16)} is not stored in msrMisc`)
  return slot
}

export const readSlot = (state: CpuState, index: number): bigint => state.msrMisc[slotOf(index)]

export const resetValue = (row: Msr, model: CpuModel): bigint => (typeof row.reset === 'function' ? row.reset(model) : (row.reset ?? 0n))
export const isOffered = (row: Msr, model: CpuModel): boolean => (row.vendor === undefined || row.vendor === model.vendor)
  && (row.feature === undefined || model.has(row.feature)) && (row.when === undefined || row.when(model))

/**
 * What firmware leaves in the MTRRs before it starts an operating system: write-back, and uncacheable from `uncachedFrom` (a power-of-two
 * distance
 * below 4 GiB) to 4 GiB. For boot protocols without firmware.
 */
export function setFirmwareMtrrs(state: CpuState, model: CpuModel, uncachedFrom: number): void {
  if (!model.has('mtrr')) return
  const size = BigInt(2 ** 32 - uncachedFrom)
  const valid = 0x800n
  const enabledWriteBack = 0xc06n
  const writeBack8 = 0x0606060606060606n
  state.msrMisc[slotOf(0x2ff)] = enabledWriteBack
  state.msrMisc[slotOf(0x200)] = BigInt(uncachedFrom)
  state.msrMisc[slotOf(0x201)] = (((1n << BigInt(model.physicalBits)) - 1n) & ~(size - 1n)) | valid
  for (const [index] of fixedRanges) state.msrMisc[slotOf(index)] = index === 0x259 ? 0n : writeBack8
}

/** Reset values of all of them. */
export function resetMsrs(state: CpuState, model: CpuModel): void {
  if (slotsUsed > state.msrMisc.length) throw new Error(`msrMisc has ${state.msrMisc.length} slots, the MSR table needs ${slotsUsed}`)
  for (const row of msrTable) {
    if (row.field === 'none' || !isOffered(row, model)) continue
    if (row.field) state[row.field] = resetValue(row, model)
    else state.msrMisc[slotOf(row.index)] = resetValue(row, model)
  }
  resetCounters(state, model.counters)
  state.msrPkrs = 0n
  state.msrXss = 0n
  state.msrUCet = 0n
  state.msrSCet = 0n
  state.msrPlSsp.fill(0n)
  state.msrSspTable = 0n
}
