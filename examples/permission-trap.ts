/**
 * Rights of the second stage as a watchpoint: a page that the guest may read and not write. Each write exits, is noted, and is let through.
 *
 *   npx node examples/permission-trap.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { mem } from '../src/vmm/assembler.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'
import { readOnly } from '../src/vmm/second-stage.ts'

const page = 0x80

export function permissionTrap(cpu: 'intel' | 'amd'): { caught: string[]; value: bigint } {
  const caught: string[] = []
  const vmm = createVmm({
    cpu,
    handlers: {
      memory: ({ address, access, present }, vcpu) => {
        caught.push(`${access} at 0x${address.toString(16)}, ${present ? 'mapped' : 'not mapped'}`)
        vcpu.guest.memory.unlock(page) // the guest tries again, and may
        return 'retry'
      },
      hypercall: (_exit, vcpu) => {
        vcpu.guest.memory.lock(page, readOnly)
        return { result: 0n }
      },
      halt: () => 'stop',
    },
  })
  const { guest } = createGuest64(vmm, {
    code: a => a.mov('r12', page * 4096).hypercall() // locked from here on
      .load('rbx', mem('r12', 0x18)) // reading is allowed
      .mov('rax', 11).store(mem('r12', 0x18), 'rax') // the first write is caught
      .mov('rax', 12).store(mem('r12', 0x18), 'rax') // this one is not: the right is back
      .hypercall().mov('rax', 13).store(mem('r12', 0x20), 'rax').op('hlt'),
  })
  vmm.run()
  return { caught, value: guest.memory.read64(page * 4096 + 0x18) }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, permissionTrap(cpu))
