/**
 * The smallest hypervisor: a guest of three instructions that matter, and an answer to each of its exits.
 *
 *   npx node examples/hello-exit.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'

export function helloExit(cpu: 'intel' | 'amd'): string[] {
  const vmm = createVmm({ cpu })
  const { vcpu } = createGuest64(vmm, { code: a => a.mov('rax', 0).op('cpuid').mov('rax', 0x48).out(0x10).op('hlt') })
  const seen: string[] = []
  for (;;) {
    const end = vmm.run()
    if (end.kind !== 'exit') return [...seen, end.kind]
    const { exit } = end
    seen.push(`${exit.kind}: the processor calls it ${exit.raw.name}`)
    switch (exit.kind) {
      case 'cpuid': vmm.answer(vcpu, 'cpuid', { eax: 0, ebx: 0x6c6c6548, ecx: 0x6f, edx: 0 }); break
      case 'portWrite': vmm.answer(vcpu, 'portWrite', 'done'); break
      case 'halt': vmm.answer(vcpu, 'halt', 'stop'); break
      default: throw new Error(end.explanation)
    }
  }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, helloExit(cpu))
