/**
 * What laziness saves: of four guests one uses the FPU. Eagerly its registers are switched with every vCPU, lazily at their first use.
 *
 *   npx node examples/lazy-fpu.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'
import { FairPolicy } from '../src/vmm/policy.ts'

export interface FpuCost {
  switches: number
  saves: number
  loads: number
  traps: number
  /** What XMM0 was at the end: 2 to the power of 40, if nobody has disturbed it. */
  xmm0: bigint
}

export function lazyFpu(cpu: 'intel' | 'amd', lazyFpu: boolean): FpuCost {
  let xmm0 = 0n
  const vmm = createVmm({
    cpu, lazyFpu, policy: new FairPolicy(20_000),
    handlers: {
      hypercall: ({ arguments: [value] }) => {
        xmm0 = value || xmm0
        return 'stop'
      },
    },
  })
  for (const name of ['integers', 'more integers', 'yet more']) {
    createGuest64(vmm, { name, code: a => a.mov('rbx', 0).mov('rcx', 200_000).label('loop').sub('rcx', 1).if('ne', 'loop').hypercall() })
  }
  createGuest64(vmm, {
    name: 'vectors',
    code: a => a.mov('rax', 1).mov64ToXmm0('rax').mov('rdx', 40)
      .label('double').doubleXmm0().mov('rcx', 4000).label('wait').sub('rcx', 1).if('ne', 'wait').sub('rdx', 1).if('ne', 'double')
      .movXmm0To64('rbx').hypercall(),
  })
  vmm.run()
  const sum = (name: 'fpuSaves' | 'fpuLoads' | 'fpuTraps'): number =>
    vmm.vcpus.reduce((all, { statistics }) => all + statistics.units[name], 0)
  return { switches: vmm.cpus[0].statistics.switches, saves: sum('fpuSaves'), loads: sum('fpuLoads'), traps: sum('fpuTraps'), xmm0 }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu,
  { eager: lazyFpu(cpu, false), lazy: lazyFpu(cpu, true) })
