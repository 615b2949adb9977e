/**
 * Last-branch records of Intel's processors: a stack of sources and targets. Intel SDM vol. 3, "Last Branch, Interrupt, and Exception
 * Recording", and the sections on the families of processors.
 */
import type { CpuModel } from './model.ts'
import type { Msr } from './msr-table.ts'
import type { CpuState } from './state.ts'

const mostRecords = 32

/** IA32_PERF_CAPABILITIES[5:0]: where the flags of a record are - in the source, there with those of transactions, in INFO. */
const recordFormat = { source: 3, sourceWithTransactions: 4, info: 5 } as const
/** By family 6 model number: Nehalem to Ivy Bridge, Haswell and Broadwell, Skylake to Ice Lake. */
const stacks: readonly (readonly [depth: number, format: number, models: readonly number[]])[] = [
  [16, recordFormat.source, [0x1a, 0x1e, 0x2e, 0x25, 0x2c, 0x2a, 0x2d, 0x3a, 0x3e]],
  [16, recordFormat.sourceWithTransactions, [0x3c, 0x3f, 0x45, 0x3d, 0x47, 0x4f]],
  [32, recordFormat.info, [0x4e, 0x5e, 0x55, 0x8e, 0x9e, 0x6a, 0x6c, 0x7d, 0x7e]],
]

function stackOf({ vendor, identity: { signature } }: CpuModel): readonly [depth: number, format: number] {
  const model = ((signature >> 12) & 0xf0) | ((signature >> 4) & 15)
  if (vendor !== 'GenuineIntel' || ((signature >> 8) & 15) !== 6) return [0, 0]
  const [depth, format] = stacks.find(([, , models]) => models.includes(model)) ?? [0, 0]
  return [depth, format]
}
/** Records of the model's stack; 0: it has none of this kind. */
export const stackDepth = (model: CpuModel): number => stackOf(model)[0]
/** As IA32_PERF_CAPABILITIES[5:0] says it. */
export const recordFormatOf = (model: CpuModel): number => stackOf(model)[1]
/** Of a source in the formats that have flags there: it was predicted wrongly. Nothing is. */
const mispredicted = 1n << 63n
/** What of LBR_SELECT is obeyed: branches that end at CPL 0, or above, are not recorded. */
const select = { privileged: 1n, user: 2n } as const

export function pushRecord(state: CpuState, depth: number, from: bigint, to: bigint): void {
  const { lastBranches } = state
  if (state.lastBranchSelect & (state.cpl === 0 ? select.privileged : select.user)) return
  const top = Number(state.lastBranchTop + 1n) % depth
  state.lastBranchTop = BigInt(top)
  lastBranches[top] = depth === mostRecords ? from : from & ~mispredicted
  lastBranches[mostRecords + top] = to
  lastBranches[2 * mostRecords + top] = 0n
}

const bits57 = (value: bigint): boolean => BigInt.asIntN(57, value) === BigInt.asIntN(64, value)

/** `part`: 0 sources, 1 targets, 2 what else is known of the branch. */
const record = (first: number, part: number, i: number, name: string): Msr => ({
  index: first + i, name: `MSR_LASTBRANCH_${i}_${name}`, field: 'none',
  when: model => stackDepth(model) > (part === 2 ? Math.max(i, 16) : i),
  read: cpu => cpu.state.lastBranches[part * mostRecords + i],
  write: (cpu, value) => {
    if (part !== 2 && !bits57(value)) return false
    cpu.state.lastBranches[part * mostRecords + i] = value
    return true
  },
})
const hasStack = (model: CpuModel): boolean => stackDepth(model) !== 0

export const lastBranchMsrs: readonly Msr[] = [
  { index: 0x1c8, name: 'MSR_LBR_SELECT', field: 'none', when: hasStack, read: cpu => cpu.state.lastBranchSelect, write: (cpu, value) => {
    if (value >> 10n) return false
    cpu.state.lastBranchSelect = value
    return true
  } },
  { index: 0x1c9, name: 'MSR_LASTBRANCH_TOS', field: 'none', when: hasStack, read: cpu => cpu.state.lastBranchTop, write: (cpu, value) => {
    cpu.state.lastBranchTop = value & BigInt(stackDepth(cpu.model) - 1)
    return true
  } },
  ...['MSR_LER_FROM_LIP', 'MSR_LER_TO_LIP'].map((name, i): Msr => ({ index: 0x1dd + i, name, field: 'none', when: hasStack,
    read: cpu => cpu.state.lastBranch[2 + i], write: (cpu, value) => {
      if (!bits57(value)) return false
      cpu.state.lastBranch[2 + i] = value
      return true
    } })),
  ...Array.from({ length: mostRecords }, (_, i) =>
    [record(0x680, 0, i, 'FROM_IP'), record(0x6c0, 1, i, 'TO_IP'), record(0xdc0, 2, i, 'INFO')]).flat(),
]
