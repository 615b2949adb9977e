/**
 * The guest's CPUID is the hypervisor's word: here the processor has another name and no SSE4.2.
 *
 *   npx node examples/cpuid-masking.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'

const sse42 = 1 << 20

export function cpuidMasking(cpu: 'intel' | 'amd'): { before: boolean; after: boolean; name: string } {
  const seen: bigint[] = []
  let before = false
  const vmm = createVmm({
    cpu,
    handlers: {
      cpuid: ({ leaf, subleaf }) => {
        const real = vmm.cpuid(leaf, subleaf)
        if (leaf === 0) return { ...real, ebx: 0x73616c47, edx: 0x43207365, ecx: 0x21215550 } // Glas, s CP, U!!
        if (leaf !== 1) return real
        before = (real.ecx & sse42) !== 0
        return { ...real, ecx: real.ecx & ~sse42 }
      },
      hypercall: ({ arguments: [b, c, d] }) => {
        seen.push(b, c, d)
        return { result: 0n }
      },
      halt: () => 'stop',
    },
  })
  createGuest64(vmm, { code: a => a.mov('rax', 0).op('cpuid').hypercall().mov('rax', 1).op('cpuid').hypercall().op('hlt') })
  vmm.run()
  const letters = [seen[0], seen[2], seen[1]].flatMap(word => [0n, 8n, 16n, 24n].map(shift => Number((word >> shift) & 0xffn)))
  return { before, after: (Number(seen[4]) & sse42) !== 0, name: String.fromCharCode(...letters) }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, cpuidMasking(cpu))
