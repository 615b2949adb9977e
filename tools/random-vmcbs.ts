/**
 * Guests of AMD-V on Vitrine and on Bochs (packages bochs, bochsbios, vgabios): every #VMEXIT field by field, the guest's memory and page
 * tables with it, and where they differ.
 *
 *   npx node tools/random-vmcbs.ts [--cases 4000] [--seed 1] [--only TEXT] [--cpu amd,...] [--bochs ryzen]
 *
 * With --cases 0 the snippets alone are run, each in all its modes; with --only those whose name has TEXT in it.
 */
import { commandLine } from './command.ts'
import { exitName } from '../src/virt/svm/exit-codes.ts'
import { allCases, randomCases } from './vmcb/cases.ts'
import { compare, type Difference } from './vmcb/compare.ts'
import { ourModel } from './vmcb/run.ts'

const { values } = commandLine(import.meta.url, { options: {
  cases: { type: 'string', default: '4000' }, seed: { type: 'string', default: '1' }, cpu: { type: 'string', default: ourModel },
  bochs: { type: 'string', default: 'ryzen' }, only: { type: 'string' },
} })
const count = Number(values.cases)
const cases = (count === 0 || values.only ? allCases() : randomCases(Number(values.seed), count))
  .filter(({ name }) => values.only === undefined || name.includes(values.only))

const show = (value: bigint | undefined): string => (value === undefined ? 'unchanged' : `0x${value.toString(16)}`)
function print(found: readonly Difference[]): void {
  const { of, step, codes } = found[0]
  const changed = Object.entries(of.changed).map(([name, value]) => `${name} = ${show(value)}`)
  const names = codes.map(code => (code === undefined ? 'no exit' : exitName(code)))
  console.log(`${of.name}${step ? `, step ${step}` : ''}: ${names.join(' | ')}`)
  if (changed.length > 0) console.log(`    with ${changed.join(', ')}`)
  for (const { what, ours, theirs } of found.slice(0, 12)) console.log(`    ${what}: ours ${show(ours)} | Bochs ${show(theirs)}`)
}

const { total, exits, differences, explained } = await compare(cases, values.cpu, values.bochs)
for (const found of differences) print(found)
for (const [why, times] of explained) console.log(`${String(times).padStart(6)} differ, as expected: ${why}`)
console.log([...exits].map(([what, times]) => `${times} ${what}`).join(', '))
console.log(`${total} cases, ${differences.length} with differences that nothing explains`)
process.exitCode = differences.length === 0 ? 0 : 1
