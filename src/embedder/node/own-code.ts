/**
 * Our own code from one run to the next. There is a file that holds all modules of the program, and one for its thread
 * (tools/bundle.ts): V8 keeps for them what it has compiled in a run, functions that it compiled late included, which it does for no
 * module. Without them, or when the source has changed since they were made, the modules are loaded one by one, and Node keeps of them
 * what it had compiled before they ran. Node.js documentation, "Module compile cache" and "VM (executing JavaScript)",
 * `script.createCachedData()`.
 */
import type * as fs from 'node:fs'
import * as nodeModule from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type * as vm from 'node:vm'
import { digestOf } from './digest.ts'

const require = nodeModule.createRequire(import.meta.url)
// An import would ask for everything that the module exports, and some of that is loaded when it is asked for: streams, a 20th of a start.
const { readFileSync, renameSync, statSync, writeFileSync } = require('node:fs') as typeof fs
const { Script } = require('node:vm') as typeof vm

export type BundleName = 'program' | 'worker'

const root = new URL('../../../', import.meta.url)

/** Where tools/bundle.ts puts them. A package has none. */
export const bundleFolder = new URL('node_modules/.cache/vitrine/', root)
export const contentsFile = 'contents.json'

/** Of what the bundles were made. */
export interface BundleContents {
  /** Sixteen hexadecimal digits: another name, another program. */
  readonly name: string
  /** From the project's folder on. */
  readonly files: readonly string[]
  /** Their sizes, in bytes, and times, in milliseconds, in turn. */
  readonly stamps: readonly number[]
}

export function stampOf(path: string): [number, number] {
  const { size = -1, mtimeMs = -1 } = statSync(path, { throwIfNoEntry: false }) ?? {}
  return [size, mtimeMs]
}

/** Undefined: there are none, or the source has changed. */
export function currentContents(folder: URL): BundleContents | undefined {
  let found: BundleContents
  try {
    found = JSON.parse(readFileSync(new URL(contentsFile, folder), 'latin1')) as BundleContents
  } catch {
    return undefined
  }
  const base = fileURLToPath(root)
  for (let i = 0; i < found.files.length; i++) {
    const [size, time] = stampOf(base + found.files[i])
    if (size !== found.stamps[2 * i] || time !== found.stamps[2 * i + 1]) return undefined
  }
  return found
}

/**
 * Milliseconds until what was compiled is kept, and kept again: many runs are killed. The program keeps it when it ends, too; its thread is
 * not asked then.
 */
const keepAfter: Record<BundleName, readonly number[]> = { program: [1000, 3000], worker: [1500] }
const moduleTime = 3000

/**
 * Node keeps its part when a process ends by itself. Runs that are killed, as tests and benchmarks do with machines that never stop, shall
 * start as quickly the next time. For each thread.
 */
export function keepModules(): void {
  setTimeout(() => nodeModule.flushCompileCache?.(), moduleTime).unref()
}

/** The environment of a thread that finds what earlier runs kept. */
export function withOwnCode(): NodeJS.ProcessEnv {
  const folder = nodeModule.getCompileCacheDir?.()
  return folder === undefined ? process.env : { ...process.env, NODE_COMPILE_CACHE: dirname(folder) }
}

/** A bundle that runs. */
export interface OwnCode {
  /** Of the program. */
  readonly name: string
  /** What the bundle exports. */
  readonly exports: unknown
  /** Keeps what V8 has compiled, unless a run as long has done so. */
  keep(): void
}

/**
 * Undefined: there is none, or the source has changed since it was made. `use`: different uses, such as commands, have different code.
 * `running`: the name of the program that runs already.
 */
export function runBundle(bundle: BundleName, use: string, running?: string, folder = bundleFolder): OwnCode | undefined {
  if (process.env.VITRINE_BUNDLE === 'off') return undefined
  const name = running ?? currentContents(folder)?.name
  if (name === undefined) return undefined
  const file = fileURLToPath(new URL(`${bundle}.cjs`, folder))
  let text: string
  try {
    text = readFileSync(file, 'latin1')
  } catch {
    return undefined
  }
  const started = performance.now()
  const kept = new KeptCode(`${digestOf(Buffer.from(file))}-${bundle}-${use}`, name, Math.max(...keepAfter[bundle]))
  const script = new Script(text, { filename: file, cachedData: kept.read() })
  const module: { exports: unknown } = { exports: {} }
  const run = script.runInThisContext() as (require: NodeJS.Require, of: typeof module, place: string) => void
  run(require, module, root.href)
  const keep = (): void => kept.write(performance.now() - started, () => script.createCachedData())
  for (const time of keepAfter[bundle]) setTimeout(keep, time).unref()
  return { name, exports: module.exports, keep }
}

const nameSize = 16
const headerSize = 32

/**
 * What V8 compiled of a bundle, in a file beside Node's own: the program's name, 16 bytes; how many milliseconds that run had taken,
 * 4 bytes; V8's data from byte 32 on.
 */
export class KeptCode {
  private readonly file: string | undefined
  private readonly name: string
  private readonly enough: number
  private milliseconds = 0

  constructor(file: string, name: string, enough: number, folder = nodeModule.getCompileCacheDir?.()) {
    this.file = folder && join(folder, `vitrine-${file}`)
    this.name = name
    this.enough = enough
  }

  /** V8 itself looks whether they fit its version, its options and the length of the text; the name says that it is the same text. */
  read(): Buffer | undefined {
    if (this.file === undefined) return undefined
    try {
      const bytes = readFileSync(this.file)
      if (bytes.length < headerSize || bytes.toString('latin1', 0, nameSize) !== this.name) return undefined
      this.milliseconds = bytes.readUint32LE(nameSize)
      return bytes.subarray(headerSize)
    } catch {
      return undefined
    }
  }

  /** Short runs compile little: their code gives way to that of runs twice as long, until those are as long as is `enough`. */
  write(ran: number, make: () => Buffer): void {
    const milliseconds = Math.ceil(Math.min(ran, this.enough))
    if (this.file === undefined || milliseconds < 2 * this.milliseconds) return
    this.milliseconds = milliseconds
    const header = Buffer.alloc(headerSize)
    header.write(this.name, 'latin1')
    header.writeUint32LE(milliseconds, nameSize)
    const unfinished = `${this.file}.${process.pid}`
    try {
      writeFileSync(unfinished, Buffer.concat([header, make()]))
      renameSync(unfinished, this.file)
    } catch {
      // a full disk, or a folder that cannot be written: the next run compiles again
    }
  }
}
