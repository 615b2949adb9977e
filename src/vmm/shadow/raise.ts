/** An exception for a guest whose paging is the hypervisor's. Intel SDM vol. 3, "Interrupt 8—Double Fault Exception (#DF)". */
import type { Vcpu } from '../vcpu.ts'

export const vector = { doubleFault: 8, generalProtection: 13, pageFault: 14 } as const
/** Classes of exceptions. */
const contributory = new Set([0, 10, 11, 12, 13])

/** The guest gets an exception, which may have come while another event was being delivered. */
export function raise(vcpu: Vcpu, which: number, error: number): 'ready' {
  const first = vcpu.event
  const isDouble = first?.type === 'exception' && (first.vector === vector.pageFault ? which === vector.pageFault || contributory.has(which)
    : contributory.has(first.vector) && contributory.has(which))
  if (first?.type === 'interrupt') vcpu.deferred.push(first.vector)
  if (first?.type === 'nmi') vcpu.nmi = true
  vcpu.event = isDouble ? { type: 'exception', vector: vector.doubleFault, error: 0 } : { type: 'exception', vector: which, error }
  return 'ready'
}
