/** Local APICs, connected by a bus, for the vCPUs of a guest that has no board: with their timers, and IPIs between them. */
import { ApicBus } from '../../interrupts/bus.ts'
import { Lapic } from '../../interrupts/lapic.ts'
import type { Handlers } from '../handlers.ts'
import type { Vcpu } from '../vcpu.ts'
import type { Vmm } from '../vmm.ts'
import { assistsFor, GuestApic } from './guest-apic.ts'
import type { ApicAssist, ApicKind } from './assist.ts'
import { GuestClock } from './guest-clock.ts'

/** The APICs of one guest. `handlers` answers what accesses exit, `attach` gives a vCPU its APIC. */
export class GuestApics {
  /** Where messages of devices go: `bus.msi`. */
  readonly bus = new ApicBus()
  private readonly vmm: Vmm
  private readonly time: GuestClock
  private readonly assists: readonly ApicAssist[]
  private readonly apics = new Map<Vcpu, GuestApic>()

  /** For a guest of `count` vCPUs. `virtual`: in the processors' hands, as far as they take them. */
  constructor(vmm: Vmm, kind: ApicKind, count: number) {
    this.vmm = vmm
    this.time = new GuestClock(vmm)
    this.assists = assistsFor(vmm, kind, count)
  }
  /** The next vCPU gets its APIC, whose ID is its number. It is enabled, in xAPIC mode. */
  attach(vcpu: Vcpu): GuestApic {
    const id = this.apics.size
    const assist = this.assists[id]
    const { apicHertz } = this.vmm.hardware
    const ignored = (): void => {}
    const lapic: Lapic = new Lapic({
      id, bootstrap: id === 0, clock: this.time.clock, bus: this.bus, timerFrequency: apicHertz, tscDeadline: false,
      priority: assist?.priority,
      signals: {
        intrChanged: () => { if (lapic.hasInterrupt()) this.vmm.notify(vcpu) },
        nmi: () => {
          vcpu.nmi = true
          this.vmm.notify(vcpu)
        },
        // these vCPUs start when they are made
        smi: ignored, init: ignored, startup: ignored,
      },
    })
    const apic = new GuestApic(this.vmm, vcpu, lapic, assist, () => true)
    this.apics.set(vcpu, apic)
    return apic
  }
  /** The APIC of a vCPU; throws when it has none. */
  of(vcpu: Vcpu): GuestApic {
    const apic = this.apics.get(vcpu)
    if (!apic) throw new Error(`${vcpu.name} has no APIC`)
    return apic
  }

  /** The exits that accesses to an APIC cause; `more` is asked for all others. */
  handlers(more: Handlers = {}): Handlers {
    const { time } = this
    return {
      ...more,
      mmioRead: (exit, vcpu) => this.of(vcpu).contains(exit.address)
        ? { value: BigInt(time.use(() => this.of(vcpu).read(exit.address, exit.size as 1 | 2 | 4))) } : more.mmioRead?.(exit, vcpu),
      mmioWrite: (exit, vcpu) => {
        if (!this.of(vcpu).contains(exit.address)) return more.mmioWrite?.(exit, vcpu)
        time.use(() => this.of(vcpu).write(exit.address, exit.size as 1 | 2 | 4, Number(exit.value & 0xffffffffn)))
        return 'done'
      },
      msrRead: (exit, vcpu) => {
        if (!GuestApic.hasMsr(exit.index)) return more.msrRead?.(exit, vcpu)
        const value = time.use(() => this.of(vcpu).readMsr(exit.index))
        return value === undefined ? 'fault' : { value }
      },
      msrWrite: (exit, vcpu) => {
        if (!GuestApic.hasMsr(exit.index)) return more.msrWrite?.(exit, vcpu)
        return time.use(() => this.of(vcpu).writeMsr(exit.index, exit.value)) ? 'done' : 'fault'
      },
      control: (exit, vcpu) => {
        if (exit.register !== 8) return more.control?.(exit, vcpu)
        if (!exit.write) return { value: BigInt(this.of(vcpu).priority) }
        time.use(() => (this.of(vcpu).priority = Number(exit.value)))
        return { value: exit.value }
      },
      ...apicTraps(vcpu => this.of(vcpu), act => time.use(act)),
    }
  }
}

/** What follows accesses that the processor has made for the guest. */
export function apicTraps(of: (vcpu: Vcpu) => GuestApic, use: (act: () => void) => void): Pick<Handlers, 'apicWrite' | 'endOfInterrupt'> {
  return {
    apicWrite: ({ offset }, vcpu) => {
      use(() => of(vcpu).assist!.written(offset))
      return 'done'
    },
    endOfInterrupt: ({ vector }, vcpu) => {
      use(() => of(vcpu).assist!.ended(vector))
      return 'done'
    },
  }
}
