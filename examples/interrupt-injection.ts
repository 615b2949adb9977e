/**
 * A clock for a guest: an interrupt every 50 microseconds. While the guest holds interrupts off, the hypervisor waits
 * for an interrupt window.
 *
 *   npx node examples/interrupt-injection.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'

const vector = 0x30
const period = 50_000

export function interruptInjection(cpu: 'intel' | 'amd'): { ticks: bigint; windows: number; halts: number } {
  let ticks = 0n
  const vmm = createVmm({
    cpu,
    handlers: {
      halt: () => 'wait',
      hypercall: ({ arguments: [count] }) => {
        ticks = count
        return 'stop'
      },
    },
  })
  const { vcpu } = createGuest64(vmm, {
    interrupts: { [vector]: 'tick' },
    code: a => a.mov('rbx', 0)
      .mov('rcx', 60_000).label('deaf').sub('rcx', 1).if('ne', 'deaf') // interrupts are off: the first one has to wait
      .label('loop').op('sti', 'hlt', 'cli').cmp('rbx', 5).if('ne', 'loop').hypercall()
      .label('tick').add('rbx', 1).op('iretq'),
  })
  const tick = (): void => {
    if (vcpu.state === 'stopped') return
    vmm.interrupt(vcpu, vector)
    vmm.at(vmm.now() + period, tick)
  }
  vmm.at(vmm.now() + period, tick)
  vmm.run()
  const count = (kind: 'window' | 'halt'): number => vcpu.statistics.exits.get(kind)?.count ?? 0
  return { ticks, windows: count('window'), halts: count('halt') }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, interruptInjection(cpu))
