/**
 * Measures which handlers a guest executes most, and writes them to src/engine/hot.ts; the others that it executes join src/engine/warm.ts:
 *   npx node tools/hot.ts --kernel VMLINUZ --initrd INITRD --append "console=ttyS0 quiet run=bench" [--count 180] [--max-instructions N]
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { commandLine, refuse } from './command.ts'
import { warmKeys } from '../src/engine/warm.ts'
import { VitrineMachine } from '../src/machine.ts'

const { values } = commandLine(import.meta.url, {
  options: {
    kernel: { type: 'string' },
    initrd: { type: 'string' },
    append: { type: 'string', default: 'console=ttyS0 quiet panic=-1' },
    count: { type: 'string', default: '180' },
    'max-instructions': { type: 'string', default: '20000000000' },
    print: { type: 'boolean', default: false },
  },
})
if (!values.kernel || !values.initrd) refuse(import.meta.filename, '--kernel and --initrd are needed')
const machine = new VitrineMachine(
  {
    kernel: readFileSync(values.kernel),
    initrd: readFileSync(values.initrd),
    commandLine: values.append,
    memory: 1024 << 20,
    noReboot: true,
  },
  { profile: true },
)
machine.onSerialOutput = bytes => process.stderr.write(bytes)

/** Phases weigh the same, whatever their length: shares of executions are summed over the phases that the guest's markers separate. */
const weights = new Map<string, number>()
let before = new Map<string, number>()
function closePhase(): void {
  const now = machine.core.interpreter.executions()
  let total = 0
  for (const [key, count] of now) total += count - (before.get(key) ?? 0)
  if (total > 1e6) for (const [key, count] of now) weights.set(key, (weights.get(key) ?? 0) + (count - (before.get(key) ?? 0)) / total)
  before = now
}
const limit = Number(values['max-instructions'])
for (;;) {
  const stop = machine.run({ maxInstructions: 50_000_000 })
  closePhase()
  if (stop.kind !== 'budget' || machine.retired >= limit) break
}
const ordered = [...weights].sort((a, b) => b[1] - a[1])
const sum = ordered.reduce((total, [, weight]) => total + weight, 0)
let covered = 0
if (values.print)
  for (const [key, weight] of ordered.slice(0, 400))
    console.log(`${((100 * (covered += weight)) / sum).toFixed(2)}% ${((100 * weight) / sum).toFixed(3)}% ${key}`)
function writeKeys(path: string, name: string, keys: readonly string[]): void {
  const file = new URL(path, import.meta.url)
  const head = readFileSync(file, 'utf8').split('export const')[0]
  writeFileSync(file, `${head}export const ${name}: readonly string[] = [\n${[...keys].sort().map(key => `  '${key}',\n`).join('')}]\n`)
}
const keys = ordered.map(([key]) => key)
const hot = new Set(keys.slice(0, Number(values.count)))
writeKeys('../src/engine/hot.ts', 'hotKeys', [...hot])
writeKeys('../src/engine/warm.ts', 'warmKeys', [...new Set([...warmKeys, ...keys])].filter(key => !hot.has(key)))
