/**
 * Records instruction vectors on the processor at hand: form tables → machine code and inputs → harness.c → packed files.
 * Usage: npx node tools/vectors/record.ts [--group NAME]... [--out FOLDER] [--runner COMMAND] [--harness FILE] [--assume FEATURE]...
 * See README.md here.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commandLine, refuse } from '../command.ts'
import { backgroundState, fillWindow, WINDOW_SIZE } from '../../test/vectors/state.ts'
import { isFault, writeVectors } from '../../test/vectors/format.ts'
import type { Form, Processor, Recording } from '../../test/vectors/format.ts'
import { assemble } from './assemble.ts'
import { decodeOutcome, encodeTask } from './exchange.ts'
import type { Task } from './exchange.ts'
import { flags } from './form.ts'
import type { FormSpec, Group } from './form.ts'
import { GROUPS } from './forms/index.ts'
import { Random } from './random.ts'

const DEFAULT_COUNT = 10

/** vendor_id, cpu family and so on, as the kernel tells them. */
function processorAtHand(): Processor {
  const text = readFileSync('/proc/cpuinfo', 'utf8')
  const field = (name: string): string => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(text)?.[1] ?? 'unknown'
  return {
    vendor: field('vendor_id'),
    family: Number(field('cpu family')),
    model: Number(field('model')),
    stepping: Number(field('stepping')),
    name: field('model name'),
  }
}

function processorFeatures(): Set<string> {
  return new Set(/^flags\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(' '))
}

interface Prepared {
  spec: FormSpec
  form: Form
  tasks: Task[]
}

function prepare(group: Group, folder: string): Prepared[] {
  const seen = new Set<string>()
  for (const { text, mode = 64 } of group.forms) {
    if (seen.has(`${mode} ${text}`)) throw new Error(`group ${group.name}: '${text}' twice; its inputs would be the same`)
    seen.add(`${mode} ${text}`)
  }
  const codes = assemble(group.forms.map(({ text, mode = 64 }) => ({ text, mode })), folder)
  return group.forms.map((spec, i) => {
    const mode = spec.mode ?? 64
    const { compare = 'exact', features = [], vendor, ignoreMemory = [] } = spec
    const form: Form = { text: spec.text, mode, code: codes[i], features, compare, vendor, ignoreMemory }
    const random = new Random(`${mode} ${spec.text}`)
    const tasks = Array.from({ length: spec.count ?? DEFAULT_COUNT }, () => {
      const before = backgroundState(mode)
      for (const input of spec.inputs ?? []) input(before, random)
      return { mode, code: codes[i], trapVector: spec.trapVector ?? 0, before }
    })
    return { spec, form, tasks }
  })
}

function execute(prepared: Prepared[], runner: string[], folder: string): Buffer {
  const fill = fillWindow(new Uint8Array(WINDOW_SIZE))
  const input = join(folder, 'input')
  const output = join(folder, 'output')
  writeFileSync(input, Buffer.concat(prepared.flatMap(({ tasks }) => tasks.map((task) => encodeTask(task, fill)))))
  const [command, ...args] = [...runner, join(folder, 'harness'), input, output]
  execFileSync(command, args, { stdio: 'inherit' })
  return readFileSync(output)
}

function decode({ spec, form, tasks }: Prepared, output: Buffer,
  position: number): { vectors: Recording['forms'][0]['vectors']; position: number } {
  const vectors = tasks.map((task) => {
    const { after, next } = decodeOutcome(output, position, task)
    position = next
    const letters = typeof spec.undefinedFlags === 'function' ? spec.undefinedFlags(task.before) : (spec.undefinedFlags ?? '')
    const masks = {
      flags: (0xffffffff & ~flags(isFault(after) && after.vector !== 0 ? (spec.undefinedFlagsOnFault ?? '') : letters)) >>> 0,
      gpr: 0xffff & ~((isFault(after) ? spec.undefinedRegistersOnFault : spec.undefinedRegisters?.(task.before)) ?? 0),
      x87Status: 0xffff & ~((typeof spec.undefinedStatus === 'function' ? spec.undefinedStatus(task.before) : spec.undefinedStatus) ?? 0),
    }
    return { before: task.before, after, masks }
  })
  checkSane(form, vectors)
  return { vectors, position }
}

/** A form that never completes is most likely a mistake in the table; only these groups are about nothing else. */
function checkSane(form: Form, vectors: Recording['forms'][0]['vectors']): void {
  const invalid = vectors.filter(({ after }) => isFault(after) && after.vector === 6).length
  if (invalid > 0 && !/ud|byte|lock/.test(form.text)) console.error(`  warning: '${form.text}' raised #UD ${invalid} times`)
}

function recordGroup(group: Group, runner: string[], folder: string): { file: Uint8Array; vectors: number; faults: number } {
  const prepared = prepare(group, folder)
  const output = execute(prepared, runner, folder)
  const forms: Recording['forms'] = []
  let position = 0
  for (const item of prepared) {
    const decoded = decode(item, output, position)
    position = decoded.position
    forms.push({ form: item.form, vectors: decoded.vectors })
  }
  if (position !== output.length) throw new Error(`group ${group.name}: ${output.length - position} bytes of output left over`)
  const all = forms.flatMap(({ vectors }) => vectors)
  const file = writeVectors({ group: group.name, processor: processorAtHand(), forms })
  return { file, vectors: all.length, faults: all.filter(({ after }) => isFault(after)).length }
}

function main(): void {
  const { values } = commandLine(import.meta.url, {
    options: { group: { type: 'string', multiple: true }, out: { type: 'string' }, runner: { type: 'string', default: '' },
      harness: { type: 'string' }, assume: { type: 'string', multiple: true } },
  })
  const unknown = values.group?.find((name) => !GROUPS.some((group) => group.name === name))
  if (unknown) refuse(import.meta.filename, `--group: expected ${GROUPS.map((group) => group.name).join(', ')}; found '${unknown}'`)
  const here = import.meta.dirname
  const out = values.out ?? join(here, '../../test/vectors/data')
  mkdirSync(out, { recursive: true })
  const folder = mkdtempSync(join(tmpdir(), 'vectors-'))
  try {
    const compile = ['-O2', '-Wall', '-fno-stack-protector', '-mno-red-zone', '-static', '-o', join(folder, 'harness'),
      values.harness ?? join(here, 'harness.c')]
    execFileSync('gcc', compile, { stdio: 'inherit' })
    const available = processorFeatures()
    for (const feature of values.assume ?? []) available.add(feature)
    for (const { name, forms } of GROUPS.filter(({ name }) => values.group?.includes(name) ?? true)) {
      const missing = new Set(forms.flatMap(({ features = [] }) => features).filter((feature) => !available.has(feature)))
      if (missing.size > 0) console.error(`  warning: ${name}: this processor lacks ${[...missing].join(', ')}: forms left out`)
      const group = { name, forms: forms.filter(({ features = [] }) => !features.some((feature) => missing.has(feature))) }
      const { file, vectors, faults } = recordGroup(group, values.runner.split(' ').filter(Boolean), folder)
      const path = join(out, `${group.name}.vec`)
      writeFileSync(path, file)
      console.log(`${group.name}: ${group.forms.length} forms, ${vectors} vectors, ${faults} faults, ${statSync(path).size} bytes`)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

main()
