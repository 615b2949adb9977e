/**
 * Two guests that never give the processor back share it all the same: the preemption timer (Intel) or the APIC timer ends their slices.
 *
 *   npx node examples/timer-slice.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import type { Assembler } from '../src/vmm/assembler.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'
import { FairPolicy } from '../src/vmm/policy.ts'

const slice = 100_000

export function timerSlice(cpu: 'intel' | 'amd'): { shares: number[]; order: string; ends: string[] } {
  const vmm = createVmm({ cpu, policy: new FairPolicy(slice) })
  const endless = { code: (a: Assembler) => a.label('ever').jmp('ever') }
  const guests = [createGuest64(vmm, { name: 'a', ...endless }), createGuest64(vmm, { name: 'b', ...endless, vcpus: [{ weight: 3072 }] })]
  const ends = new Set<string>()
  let order = ''
  vmm.onEvent = event => {
    if (event.kind === 'switch') order += event.to.name
    if (event.kind === 'exit') ends.add(event.exit.raw.name)
  }
  vmm.run(40 * slice)
  const times = guests.map(({ vcpu }) => vcpu.statistics.guestTime)
  const sum = times[0] + times[1]
  return { shares: times.map(time => Math.round((100 * time) / sum)), order, ends: [...ends] }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, timerSlice(cpu))
