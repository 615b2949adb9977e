/**
 * The interrupt lines of a PC, from devices to the 8259s and the I/O APIC. GSI n is input n of the I/O APIC and, below 16, IRQ n of the
 * 8259s; but IRQ 0 is input 2. ACPI, "Global System Interrupts".
 */
import type { DeviceState, InterruptPin } from '../devices/ports.ts'
import { type IoApic, ioApicInputs } from '../interrupts/ioapic.ts'
import type { Pic } from '../interrupts/pic.ts'
import { Wires } from './wires.ts'

const isaIrqs = 16
const cascade = 2
/** PCI's wire n is this GSI + n. */
export const firstPciGsi = 16

const line = (gsi: number): string => `gsi${gsi}`
const picLine = (irq: number): string => `pic${irq}`

export class InterruptLines {
  readonly #wires = new Wires()

  constructor(pic: Pic, ioapic: IoApic) {
    const wires = this.#wires
    for (let irq = 0; irq < isaIrqs; irq++) {
      wires.lay(picLine(irq), [pic.pins[irq]])
      if (irq !== cascade) wires.lay(line(irq), [wires.source(picLine(irq)), ioapic.pins[irq === 0 ? 2 : irq]])
    }
    wires.lay(line(cascade), [])
    for (let gsi = isaIrqs; gsi < ioApicInputs; gsi++) wires.lay(line(gsi), [ioapic.pins[gsi]])
  }

  /** A new source of a line. */
  source(gsi: number): InterruptPin {
    return this.#wires.source(line(gsi))
  }

  /**
   * A PIRQ wire: an input of the I/O APIC, and the IRQ to which the bridge routes it. Software without ACPI finds that one's number in the
   * interrupt line register, and looks for it at the 8259s, or at that input of the I/O APIC. A wire that is asserted while it is routed
   * anew stays where it was.
   */
  pirq(wire: number, irqOfWire: (wire: number) => number | undefined): InterruptPin {
    const apic = this.source(firstPciGsi + wire)
    const isa = Array.from({ length: isaIrqs }, (_, irq) => this.source(irq))
    return {
      set: asserted => {
        apic.set(asserted)
        const irq = irqOfWire(wire)
        isa.forEach((pin, candidate) => { if (!asserted || candidate === irq) pin.set(asserted) })
      },
    }
  }

  saveState(): DeviceState {
    return this.#wires.saveState()
  }
  restoreState(state: DeviceState): void {
    this.#wires.restoreState(state)
  }
}
