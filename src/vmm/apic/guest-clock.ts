/** Time for the devices of a guest: they live on the hypervisor's clock, from when the guest was made. */
import { VirtualClock } from '../../platform/clock.ts'
import type { Vmm } from '../vmm.ts'

export class GuestClock {
  readonly clock = new VirtualClock()
  /** The guest is over: nothing is due any more. */
  stopped = false
  private readonly vmm: Vmm
  private readonly begin: number
  private alarm: { at: number; cancel(): void } | undefined

  constructor(vmm: Vmm) {
    this.vmm = vmm
    this.begin = vmm.time
  }
  /** What is due happens. */
  advance(): void {
    this.clock.advanceTo(Math.max(this.clock.now(), this.vmm.time - this.begin))
  }
  /** The hypervisor is asked to come back for what is due next. */
  setAlarm(): void {
    const next = this.clock.nextDeadline()
    const at = next === undefined ? undefined : next + this.begin
    if (at === this.alarm?.at) return
    this.alarm?.cancel()
    this.alarm = undefined
    if (at === undefined) return
    const alarm = this.vmm.at(at, () => {
      this.alarm = undefined
      if (this.stopped) return
      this.advance()
      this.setAlarm()
    })
    this.alarm = { at, cancel: () => alarm.cancel() }
  }
  /** Around everything that the guest does with its devices. */
  use<T>(act: () => T): T {
    this.advance()
    const result = act()
    this.setAlarm()
    return result
  }
}
