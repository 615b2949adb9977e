/**
 * VM entries with VMCSs by chance, on Vitrine and on Bochs (packages bochs, bochsbios, vgabios): what each says, and where they differ.
 *
 *   npx node tools/random-vmcs.ts [--cases 4000] [--seed 1] [--cpu Skylake-Server] [--bochs corei7_skylake_x]
 *
 * Both models should have linear addresses of 48 bits: Bochs 2.7 knows no others.
 */
import { commandLine } from './command.ts'
import { compare } from './vmcs/compare.ts'

const { values } = commandLine(import.meta.url, { options: {
  cases: { type: 'string', default: '4000' }, seed: { type: 'string', default: '1' }, cpu: { type: 'string', default: 'Skylake-Server' },
  bochs: { type: 'string', default: 'corei7_skylake_x' },
} })
const { total, outcomes, differences, explained } = await compare({ seed: Number(values.seed), cases: Number(values.cases), cpu: values.cpu,
  bochs: values.bochs })
for (const { writes, ours, theirs } of differences) {
  console.log(`ours ${ours} | Bochs ${theirs}`)
  for (const [name, value] of writes) console.log(`    ${name} = 0x${value.toString(16)}`)
}
for (const [why, count] of explained) console.log(`${String(count).padStart(6)} differ, as expected: ${why}`)
console.log([...outcomes].map(([what, count]) => `${count} ${what}`).join(', '))
console.log(`${total} cases, ${differences.length} differences that nothing explains`)
process.exitCode = differences.length === 0 ? 0 : 1
