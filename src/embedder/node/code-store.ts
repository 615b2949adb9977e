/**
 * Modules of compiled code, kept in a folder from one run to the next: a file for each setup of the compiler and each kernel that a
 * machine starts. A file is a cache and may be deleted at any time. It is only ever appended to, a module at a time with its digests: what
 * a crash cut off, or another version wrote, is not read. Guests' memory decides what of it is used (CodeLibrary.fits), so nothing in it
 * changes a run but its speed. Code is read when it is asked for: most of what a long-used file holds is not needed in a run, or not yet.
 */
import { createHash } from 'node:crypto'
import {
  appendFileSync, closeSync, fstatSync, mkdirSync, openSync, readdirSync, readSync, rmSync, statSync, truncateSync, utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import { deserialize, serialize } from 'node:v8'
import type { BuilderSetup, BuiltModule, HandlerModule, KeptModule, KeptTemplates } from '../../engine/jit/build.ts'

/** What is kept of a module. */
export type StoredModule = KeptModule & Pick<BuiltModule, 'bytes'>

/** A module in the file: its code lies at an offset of it. */
export interface ModuleEntry extends KeptModule {
  readonly offset: number
  readonly length: number
  readonly digest: Uint8Array
}

/** The interpreter's handlers that were made ahead. */
export type StoredHandlers = Omit<HandlerModule, 'module'> & { readonly bytes: Uint8Array }

/** A file that has grown beyond this is begun anew. */
const largestFile = 64 << 20
/** Files that nobody has used for so long are deleted, and those used longest ago where all together are larger than that. */
const longestUnused = 30 * 24 * 3600 * 1000
const largestFolder = 512 << 20
const extension = '.code'
const magic = 'vitrine code 2\n'
/** Before each module: lengths of what describes it and of its code (u32 each), and the starts of their digests. */
const digestBytes = 16
const frameBytes = 8 + 2 * digestBytes

const digestOf = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest().subarray(0, digestBytes)

/**
 * Of all that generated code depends on - our own files (`programName`), the engine that runs them, the machine's processor - and of what
 * is started.
 */
export function storeName(setup: BuilderSetup, program: string, started = ''): string {
  const { node, v8 } = process.versions
  const depends = JSON.stringify([program, node, v8, process.arch, setup, started])
  return createHash('sha256').update(depends).digest('hex').slice(0, 24) + extension
}

export class CodeStore {
  private readonly file: string
  private size = 0
  /** As `load` found them. */
  handlers: StoredHandlers | undefined
  templates: KeptTemplates | undefined

  constructor(folder: string, name: string) {
    this.file = join(folder, name)
    // no folder, no store: runs go on without
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    tidy(folder, name)
  }

  /** What earlier runs kept, as far as it is whole, in the order in which it was asked for in its run; what is not is cut off. */
  load(): ModuleEntry[] {
    const modules: ModuleEntry[] = []
    let file: number
    try {
      file = openSync(this.file, 'r')
      utimesSync(this.file, new Date(), new Date())
    } catch {
      return []
    }
    try {
      const total = fstatSync(file).size
      let at = 0
      if (total <= largestFile && Buffer.from(read(file, 0, magic.length)).toString('latin1') === magic) {
        at = magic.length
        for (let next = this.loadFrame(file, at, total, modules); next > 0; next = this.loadFrame(file, at, total, modules)) at = next
      }
      if (at < total) truncateSync(this.file, at)
      this.size = at
    } finally {
      closeSync(file)
    }
    return modules.sort((a, b) => a.made - b.made)
  }
  /** Where the frame at this offset ends; 0 when it is none, or not whole. */
  private loadFrame(file: number, at: number, total: number, modules: ModuleEntry[]): number {
    const frame = read(file, at, frameBytes)
    if (frame.length < frameBytes) return 0
    const view = new DataView(frame.buffer)
    const described = view.getUint32(0, true)
    const length = view.getUint32(4, true)
    const offset = at + frameBytes + described
    if (offset + length > total) return 0
    const content = read(file, at + frameBytes, described)
    if (!digestOf(content).equals(frame.subarray(8, 8 + digestBytes))) return 0
    const digest = frame.subarray(8 + digestBytes)
    const stored = deserialize(content) as Omit<StoredModule, 'bytes'> | Omit<StoredHandlers, 'bytes'> | { templates: KeptTemplates }
    if ('templates' in stored) this.templates = stored.templates
    else if ('plans' in stored) modules.push({ ...stored, offset, length, digest })
    else {
      const bytes = read(file, offset, length)
      if (digestOf(bytes).equals(digest)) this.handlers = { ...stored, bytes }
    }
    return offset + length
  }

  /** The code of a module; undefined when it is not what was written. */
  code({ offset, length, digest }: ModuleEntry): Uint8Array<ArrayBuffer> | undefined {
    let file: number
    try {
      file = openSync(this.file, 'r')
    } catch {
      return undefined
    }
    try {
      const bytes = read(file, offset, length)
      return digestOf(bytes).equals(digest) ? bytes : undefined
    } finally {
      closeSync(file)
    }
  }

  add({ made, poolSize, plans, bytes }: StoredModule): void {
    this.append({ made, poolSize, plans }, bytes)
  }
  addHandlers({ keys, writers, bytes }: StoredHandlers): void {
    this.append({ keys, writers }, bytes)
  }
  /** Instead of what was added before. */
  addTemplates(templates: KeptTemplates): void {
    this.append({ templates }, new Uint8Array())
  }
  private append(description: object, code: Uint8Array): void {
    if (this.size > largestFile) return
    const content = serialize(description)
    const frame = Buffer.alloc(frameBytes)
    frame.writeUInt32LE(content.length)
    frame.writeUInt32LE(code.length, 4)
    digestOf(content).copy(frame, 8)
    digestOf(code).copy(frame, 8 + digestBytes)
    const all = Buffer.concat([...(this.size === 0 ? [Buffer.from(magic)] : []), frame, content, code])
    appendFileSync(this.file, all, { mode: 0o600 })
    this.size += all.length
  }
}

/** As much as the file has of these bytes. */
function read(file: number, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  let done = 0
  for (let count = -1; done < length && count !== 0; done += count) count = readSync(file, bytes, done, length - done, offset + done)
  return bytes.subarray(0, done)
}

/** Deletes what was not used for long, and what is too much, but never the file that is to be used now. */
function tidy(folder: string, used: string): void {
  const files = readdirSync(folder)
    .filter(name => name.endsWith(extension) && name !== used)
    .map(name => ({ path: join(folder, name), ...statOf(join(folder, name)) }))
    .sort((a, b) => b.mtimeMs - a.mtimeMs)
  let total = 0
  for (const { path, size, mtimeMs } of files) {
    total += size
    if (total > largestFolder || Date.now() - mtimeMs > longestUnused) rmSync(path, { force: true })
  }
}
/** Another process may have deleted it. */
const statOf = (path: string): { size: number; mtimeMs: number } => statSync(path, { throwIfNoEntry: false }) ?? { size: 0, mtimeMs: 0 }
