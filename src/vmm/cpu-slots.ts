/** The processors as the parts of the hypervisor share them: in whose name they act, who is in which guest, how to call one out of it. */
import type { CpuSlot } from './cpu-slot.ts'
import type { MigrationStep, VmmEvent } from './events.ts'
import type { HardwarePort } from './port.ts'
import { hostVector } from './processor.ts'
import type { Vcpu } from './vcpu.ts'

type DistributeOmit<T, Key extends PropertyKey> = T extends unknown ? Omit<T, Key> : never
type Told = DistributeOmit<VmmEvent, 'time' | 'processor'>

export class CpuSlots {
  /** By number. */
  readonly all: readonly CpuSlot[]
  /** The one in whose name the hypervisor's code runs now. */
  present: CpuSlot
  /** Told of everything; changes nothing. */
  onEvent: ((event: VmmEvent) => void) | undefined
  private readonly hardware: HardwarePort

  constructor(hardware: HardwarePort, all: readonly CpuSlot[]) {
    this.hardware = hardware
    this.all = all
    this.present = all[0]
  }

  /** The one that is in this guest. */
  running(vcpu: Vcpu): CpuSlot | undefined {
    return this.all.find(cpu => cpu.running === vcpu)
  }
  /** The one that has its control structure. */
  holding(vcpu: Vcpu): CpuSlot | undefined {
    return this.all.find(cpu => cpu.processor === vcpu.processor)
  }

  /** An inter-processor interrupt: it comes to root mode. */
  kick(cpu: CpuSlot): void {
    if (cpu.standing) return
    if (!this.present.standing) throw new Error('no processor is in root mode: nobody can send an interrupt')
    this.present.processor.sendInterrupt(cpu.index, hostVector.kick)
  }
  /**
   * Brings those vCPUs out of the guest that are in it, and waits for that: afterwards none of them uses a translation before it is
   * entered again. What else they came out for is looked at later.
   */
  callOut(vcpus: readonly Vcpu[]): void {
    const inside = vcpus.map(vcpu => this.running(vcpu)).filter(cpu => cpu !== undefined)
    for (const cpu of inside) this.kick(cpu)
    while (inside.some(cpu => !cpu.standing)) {
      const arrival = this.hardware.run()
      if (arrival.kind !== 'root') throw new Error(`a processor that was called does not come: ${arrival.kind}`)
      const cpu = this.all[arrival.cpu]
      // the present one, and others in root mode, have their turns too
      if (cpu.standing) continue
      cpu.standing = true
      cpu.early = true
    }
  }

  tell(event: Told, time?: number): void {
    this.onEvent?.({ ...event, time: time ?? this.hardware.now, processor: this.present.index } as VmmEvent)
  }
  tellStep(vcpu: Vcpu, step: MigrationStep): void {
    this.tell({ kind: 'migration', vcpu, ...step } as Told)
  }
}
