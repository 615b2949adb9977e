/**
 * A device of four registers where the guest has no memory: each access exits, decoded, and is answered by a few lines.
 *
 *   npx node examples/mmio-emulation.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { mem } from '../src/vmm/assembler.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'

const device = 0x10000000

/** Registers 0 and 4 are factors; register 8 is their product. */
export function mmioEmulation(cpu: 'intel' | 'amd'): { product: bigint; log: string[] } {
  const registers = new Map<number, bigint>()
  const at = (offset: number): bigint => registers.get(offset) ?? 0n
  const log: string[] = []
  let product = 0n
  const vmm = createVmm({
    cpu,
    handlers: {
      mmioWrite: ({ address, size, value }) => {
        log.push(`write ${size} at ${address - device}: ${value}`)
        registers.set(address - device, value)
        return 'done'
      },
      mmioRead: ({ address, size }) => {
        log.push(`read ${size} at ${address - device}`)
        return { value: address - device === 8 ? at(0) * at(4) : at(address - device) }
      },
      hypercall: ({ arguments: [value] }) => {
        product = value
        return 'stop'
      },
    },
  })
  createGuest64(vmm, {
    code: a => a.mov('r12', device).mov('rax', 6).store32(mem('r12', 0), 'rax').mov('rax', 7).store32(mem('r12', 4), 'rax')
      .load32('rbx', mem('r12', 8)).hypercall(),
  })
  vmm.run()
  return { product, log }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, mmioEmulation(cpu))
