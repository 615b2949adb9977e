/**
 * Fuzzes the processor with random code for as long as one likes.
 *
 *   npx node tools/fuzz.ts [--seconds 10] [--seed 1] [--model intel] [--mode MODE] [--nanoseconds 5000] [--run SEED]
 *
 * MODE is real, virtual8086, protected16, protected32, paged32, long or compatibility. Each run is told by its number alone: --seed is the
 * first one's, and with --run there is but one.
 */
import { commandLine, refuse } from './command.ts'
import { Fuzzer, modes, type FuzzMode } from '../test/properties/fuzz.ts'

const { values } = commandLine(import.meta.url, {
  options: {
    seconds: { type: 'string', default: '10' }, seed: { type: 'string', default: '1' }, model: { type: 'string', default: 'intel' },
    mode: { type: 'string' },
    nanoseconds: { type: 'string', default: '5000' }, run: { type: 'string' },
  },
})
const isMode = (name: string | undefined): name is FuzzMode | undefined => name === undefined || (modes as readonly string[]).includes(name)
const { mode } = values
if (!isMode(mode)) refuse(import.meta.filename, `--mode: expected ${modes.join(', ')}; found '${mode}'`)
const options = { model: values.model, nanoseconds: Number(values.nanoseconds) }
const end = performance.now() + Number(values.seconds) * 1000
const failures = new Map<string, number>()
let fuzzer = new Fuzzer(options)
let runs = 0
for (let seed = Number(values.run ?? values.seed); values.run === undefined ? performance.now() < end : runs === 0; seed++) {
  runs++
  const started = performance.now()
  try {
    fuzzer.run(seed, mode)
  } catch (error) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error))
    const frames = (stack ?? '').split('\n').filter(line => line.startsWith('    at'))
    const key = `${message.replaceAll(/[0-9a-f]{4,}/g, '#')} ${frames.find(line => line.includes('.ts:')) ?? ''}`
    if (!failures.has(key)) console.log(`run ${seed}: ${message}\n${frames.slice(0, 7).join('\n')}`)
    failures.set(key, (failures.get(key) ?? 0) + 1)
    fuzzer = new Fuzzer(options)
  }
  const took = performance.now() - started
  if (took > 2000) console.log(`run ${seed} took ${(took / 1000).toFixed(1)} s`)
}
console.log(`${runs} runs, ${failures.size} kinds of failure`)
process.exitCode = failures.size === 0 ? 0 : 1
