/**
 * What a vCPU gets at its entry: exceptions and interrupted deliveries first, then an interrupt, or an exit as soon as one can be taken.
 * Intel SDM vol. 3, "Event Injection"; AMD APM vol. 2, "Event Injection".
 */
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

/** `tell` hears of each; `again`: an exit had interrupted its delivery. */
export function injectPending(vcpu: Vcpu, virtualizer: Virtualizer, tell: (vector: number, again: boolean) => void): void {
  const { event, interrupts } = vcpu
  if (event) {
    vcpu.event = undefined
    virtualizer.inject(vcpu, event)
    vcpu.statistics.injected++
    tell(event.vector, true)
    if (vcpu.wantsInjection) virtualizer.wantWindow(vcpu, true)
    return
  }
  if (vcpu.nmi) {
    vcpu.nmi = false
    return virtualizer.inject(vcpu, { type: 'nmi', vector: 2 })
  }
  if (!vcpu.wantsInjection) return
  if (!virtualizer.canTakeInterrupt(vcpu)) return virtualizer.wantWindow(vcpu, true)
  const vector = vcpu.deferred.shift() ?? interrupts.acknowledge()
  virtualizer.inject(vcpu, { type: 'interrupt', vector })
  vcpu.statistics.injected++
  tell(vector, false)
  virtualizer.wantWindow(vcpu, vcpu.wantsInjection)
}
