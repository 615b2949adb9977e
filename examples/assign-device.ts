/**
 * A device in the hands of a guest: its registers are mapped into the guest, its DMA reaches the guest's memory only, and its interrupts
 * come with no exit. What is printed is the journey of a DMA and an interrupt, and of a DMA that may not be.
 *
 *   npx node examples/assign-device.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { assignedDemo, assignedMachine, type AssignedReport } from '../src/vmm/demo/assigned.ts'

export function assignDevice(): AssignedReport {
  const demo = assignedDemo()
  return demo.run(createVmm({ ...assignedMachine, onRemappingEvent: demo.told }))
}

if (import.meta.main) {
  for (const { title, lines, exits } of assignDevice().chapters) {
    console.log(`${title}\n${lines.join('\n')}`)
    console.log('exits of the guest', exits)
  }
}
