/**
 * A running vCPU moves to another processor, step by step; and what happens to a hypervisor that forgets the first of these steps.
 *
 *   npx node examples/migration.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'
import { failure, pointerInstruction } from '../src/vmm/intel/vmcs.ts'

export function migration(cpu: 'intel' | 'amd'): { steps: string[]; sum: bigint; wrong: string[] } {
  const steps: string[] = []
  const wrong: string[] = []
  let sum = 0n
  const vmm = createVmm({ cpu, cpus: 2 })
  const { vcpu } = createGuest64(vmm, {
    name: 'traveller', vcpus: [{ pinned: [0] }],
    code: a => a.mov('rbx', 0).mov('rcx', 500_000).label('loop').add('rbx', 'rcx').sub('rcx', 1).if('ne', 'loop').hypercall(),
    handlers: {
      hypercall: ({ arguments: [value] }) => {
        sum = value
        return 'stop'
      },
    },
  })
  createGuest64(vmm, { // this one shows the mistake, on processor 1, while the traveller is active on processor 0
    name: 'careless', vcpus: [{ pinned: [1] }], code: a => a.hypercall(),
    handlers: {
      hypercall: (_exit, { processor }) => {
        try {
          vmm.virtualizer.load(vcpu, processor!)
        } catch (error) {
          wrong.push((error as Error).message)
        }
        if (vcpu.control.kind === 'vmcb') return 'stop'
        pointerInstruction(processor!, 'vmptrld', BigInt(vcpu.control.region)) // the processor does not know better
        processor!.perform('vmlaunch')
        wrong.push(failure(processor!)!)
        pointerInstruction(processor!, 'vmptrld', BigInt((vmm.vcpus[1].control as typeof vcpu.control).region))
        return 'stop'
      },
    },
  })
  vmm.onEvent = event => {
    if (event.kind !== 'migration' || event.vcpu !== vcpu) return
    const { step, processor } = event
    steps.push(`${step} ${step === 'asked' ? `${event.from} → ${event.to}` : `${processor}${'how' in event ? ` by ${event.how}` : ''}`}`)
  }
  vmm.run(400_000)
  steps.length = 0
  vmm.migrate(vcpu, 1)
  vmm.run()
  return { steps, sum, wrong }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, migration(cpu))
