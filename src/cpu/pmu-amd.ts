/**
 * The registers of AMD's performance counters: four, or with PerfCtrExtCore six of which the first four have their old addresses, too. AMD
 * APM vol. 2, "Performance Monitoring Counters". Counted are retired instructions (event 0C0H) and cycles not halted (076H).
 */
import type { CounterSet } from './model.ts'
import type { Msr } from './msr-table.ts'
import { readCounter, writeCounter, writeSelect } from './pmu.ts'

const legacy = 4
const extended = 6

export const amdCounters = (hasExtension: boolean): CounterSet =>
  ({ version: 0, general: hasExtension ? extended : legacy, fixed: 0, width: 48 })

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

export const amdCounterMsrs: readonly Msr[] = [
  ...each(legacy, i => select(0xc0010000 + i, i)), ...each(legacy, i => counter(0xc0010004 + i, i)),
  ...each(extended, i => select(0xc0010200 + 2 * i, i, { feature: 'perfctr_core' })),
  ...each(extended, i => counter(0xc0010201 + 2 * i, i, { feature: 'perfctr_core' })),
]

/** The counter that RDPMC's ECX names; undefined: #GP. */
export const amdCounterNumber = ({ general }: CounterSet, ecx: number): number | undefined => (ecx < general ? ecx : undefined)
