/** Sends vCPUs from processor to processor, one after the other: for tests and for people who like to watch. */
import type { Vmm } from './vmm.ts'

/** Every so many virtual nanoseconds, as long as the hypervisor runs. */
export function wander(vmm: Vmm, period: number): void {
  let next = 0
  const step = (): void => {
    const alive = vmm.vcpus.filter(({ state }) => state !== 'stopped' && state !== 'destroyed')
    const vcpu = alive[next++ % Math.max(alive.length, 1)]
    if (vcpu && vcpu.state !== 'moving') vmm.migrate(vcpu, ((vcpu.processor?.index ?? next) + 1) % vmm.cpus.length)
    vmm.at(vmm.now() + period, step)
  }
  vmm.at(vmm.now() + period, step)
}
