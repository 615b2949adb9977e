/**
 * The interpreter's code, kept from one run to the next beside that of regions (code-store.ts): to make it takes a sixth of a start. A file
 * for each version of ours, of Node and of what the code depends on besides; it is a cache, and what is not whole is made anew.
 */
import { mkdirSync, readFileSync, renameSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deserialize, serialize } from 'node:v8'
import type { InterpreterCode, InterpreterKeeper } from '../../engine/interpreter.ts'
import { digestOf } from './digest.ts'

const digestLength = 16

/** Keeps it in a folder, which is made when there is none. `program`: of `programName`. */
export function interpreterStore(folder: string, program: string): InterpreterKeeper {
  return (name, make) => {
    const depends = [program, process.versions.node, process.arch, name].join('\n')
    const file = join(folder, `interpreter-${digestOf(Buffer.from(depends))}.code`)
    const kept = load(file)
    if (kept) return kept
    const made = make()
    save(folder, file, made)
    return made
  }
}

function load(file: string): InterpreterCode | undefined {
  let all: Buffer
  try {
    all = readFileSync(file)
    const now = new Date()
    utimesSync(file, now, now)
  } catch {
    return undefined
  }
  const content = all.subarray(digestLength)
  if (digestOf(content) !== all.toString('latin1', 0, digestLength)) return undefined
  return deserialize(content) as InterpreterCode
}

/** Whole or not at all: another process may read it meanwhile. */
function save(folder: string, file: string, code: InterpreterCode): void {
  const content = serialize(code)
  const part = join(folder, `interpreter-${process.pid}.code`)
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    writeFileSync(part, Buffer.concat([Buffer.from(digestOf(content), 'latin1'), content]), { mode: 0o600 })
    renameSync(part, file)
  } catch {
    // a folder that cannot be written to: every run makes it
  }
}
