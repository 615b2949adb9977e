/**
 * The registers of AMD's performance counters: four, or with PerfCtrExtCore six of which the first four have their old addresses, too. AMD
 * APM vol. 2, "Performance Monitoring Counters". PerfMonV2 has one register that switches them all and one that says which overflowed.
 * Counted are retired instructions (event 0C0H) and cycles not halted (076H).
 */
import type { CounterSet } from './model.ts'
import type { Msr } from './msr-table.ts'
import type { Processor } from './processor.ts'
import { changeCounters, loadGlobalControl, overflowStatus, readCounter, writeCounter, writeSelect } from './pmu.ts'

const legacy = 4
const extended = 6

export const amdCounters = (hasExtension: boolean, hasGlobal: boolean): CounterSet =>
  ({ version: hasGlobal ? 2 : 0, general: hasExtension ? extended : legacy, fixed: 0, width: 48 })

const amd = { vendor: 'AuthenticAMD' } as const
const select = (index: number, i: number, rest: Partial<Msr> = amd): Msr => ({
  index, name: `PERF_CTL${i}`, ...rest, field: 'none', read: cpu => cpu.state.pmcControl[i],
  write: (cpu, value) => (writeSelect(cpu, i, value), true),
})
const counter = (index: number, i: number, rest: Partial<Msr> = amd): Msr => ({
  index, name: `PERF_CTR${i}`, ...rest, field: 'none', read: cpu => readCounter(cpu, i),
  write: (cpu, value) => (writeCounter(cpu, i, value), true),
})
const each = (count: number, row: (i: number) => Msr): Msr[] => Array.from({ length: count }, (_, i) => row(i))

const v2 = { feature: 'perfmon_v2', field: 'none' } as const
const everyCounter = (cpu: Processor): bigint => (1n << BigInt(cpu.model.counters.general)) - 1n
const globalMsrs: readonly Msr[] = [
  { index: 0xc0000300, name: 'PerfCntrGlobalStatus', ...v2, read: overflowStatus, write: () => true },
  { index: 0xc0000301, name: 'PerfCntrGlobalCtl', ...v2, read: cpu => cpu.state.pmcGlobalControl,
    write: (cpu, value) => {
      if (value & ~everyCounter(cpu)) return false
      loadGlobalControl(cpu, value)
      return true
    } },
  { index: 0xc0000302, name: 'PerfCntrGlobalStatusClr', ...v2, read: () => 0n,
    write: (cpu, value) => {
      changeCounters(cpu, () => {
        cpu.state.pmcStatus &= ~value
      })
      return true
    } },
]

export const amdCounterMsrs: readonly Msr[] = [
  ...each(legacy, i => select(0xc0010000 + i, i)), ...each(legacy, i => counter(0xc0010004 + i, i)),
  ...each(extended, i => select(0xc0010200 + 2 * i, i, { feature: 'perfctr_core' })),
  ...each(extended, i => counter(0xc0010201 + 2 * i, i, { feature: 'perfctr_core' })),
  ...globalMsrs,
]

/** The counter that RDPMC's ECX names; undefined: #GP. */
export const amdCounterNumber = ({ general }: CounterSet, ecx: number): number | undefined => (ecx < general ? ecx : undefined)
