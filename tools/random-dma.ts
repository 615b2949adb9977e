/**
 * DMA and interrupts by chance through remapping tables by chance, on Vitrine and on QEMU (package qemu-system-x86): which faults each
 * records, which interrupts arrive, and where they differ.
 *
 *   npx node tools/random-dma.ts [--cases 500] [--seed 1] [--scalable | --interrupts]
 */
import { commandLine } from './command.ts'
import { compare } from './iommu/compare.ts'
import { compareInterrupts } from './iommu/interrupts.ts'

const { values } = commandLine(import.meta.url, { options: {
  cases: { type: 'string', default: '500' }, seed: { type: 'string', default: '1' },
  interrupts: { type: 'boolean', default: false }, scalable: { type: 'boolean', default: false },
} })
const { outcomes, differences, explained } = (values.interrupts ? compareInterrupts : compare)({
  seed: Number(values.seed), cases: Number(values.cases), mode: values.scalable ? 'scalable' : 'legacy',
})
for (const { summary, ours, theirs } of differences) console.log(`${summary}\n    ours ${ours} | QEMU ${theirs}`)
for (const [why, count] of explained) console.log(`${String(count).padStart(6)} differ, as expected: ${why}`)
console.log([...outcomes].map(([what, count]) => `${count} ${what}`).join(', '))
console.log(`${values.cases} cases, ${differences.length} differences that nothing explains`)
process.exitCode = differences.length === 0 ? 0 : 1
