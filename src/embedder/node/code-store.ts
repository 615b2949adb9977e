/**
 * Modules of compiled code, kept in a folder from one run to the next: a file for each setup of the compiler. A file is a cache and may be
 * deleted at any time. It is only ever appended to, a module at a time with its digest: what a crash cut off, or another version wrote, is
 * not read. Guests' memory decides what of it is used (CodeLibrary.fits), so nothing in it changes a run but its speed.
 */
import { createHash } from 'node:crypto'
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deserialize, serialize } from 'node:v8'
import type { BuilderSetup, BuiltModule, HandlerModule } from '../../engine/jit/build.ts'

/** What is kept of a module. */
export type StoredModule = Pick<BuiltModule, 'poolSize' | 'plans' | 'bytes'>

/** The interpreter's handlers that were made ahead. */
export type StoredHandlers = Omit<HandlerModule, 'module'> & { readonly bytes: Uint8Array }

/** A file that has grown beyond this is begun anew. */
const largestFile = 32 << 20
/** Files that nobody has used for so long are deleted. */
const longestUnused = 30 * 24 * 3600 * 1000
const extension = '.code'
const magic = 'vitrine code 1\n'
/** Before each module: u32 length, and the start of the digest of what follows. */
const digestBytes = 16
const frameBytes = 4 + digestBytes

const digestOf = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest().subarray(0, digestBytes)

/** Of everything that generated code depends on: our own files, the engine that runs them, and the machine's processor. */
export function storeName(setup: BuilderSetup, program = new URL('../../', import.meta.url)): string {
  const hash = createHash('sha256').update(JSON.stringify([process.versions.node, process.versions.v8, process.arch, setup]))
  const root = fileURLToPath(program)
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!/\.[jt]s$/.test(name)) continue
    const { size, mtimeMs } = statSync(join(root, name))
    hash.update(`${name} ${size} ${mtimeMs}\n`)
  }
  return hash.digest('hex').slice(0, 24) + extension
}

export class CodeStore {
  private readonly file: string
  private size = 0
  /** As `load` found them. */
  handlers: StoredHandlers | undefined

  constructor(folder: string, name: string) {
    this.file = join(folder, name)
    // no folder, no store: runs go on without
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    for (const other of readdirSync(folder)) {
      const path = join(folder, other)
      if (other.endsWith(extension) && Date.now() - statSync(path).mtimeMs > longestUnused) rmSync(path, { force: true })
    }
  }

  /** What earlier runs kept, as far as it is whole; what is not is cut off. */
  load(): StoredModule[] {
    let data: Uint8Array
    try {
      data = readFileSync(this.file)
      utimesSync(this.file, new Date(), new Date())
    } catch {
      return []
    }
    const modules: StoredModule[] = []
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    let at = magic.length
    if (Buffer.from(data.subarray(0, at)).toString('latin1') !== magic || data.length > largestFile) at = 0
    else
      while (at + frameBytes <= data.length) {
        const start = at + frameBytes
        const end = start + view.getUint32(at, true)
        if (end > data.length) break
        const content = data.subarray(start, end)
        if (!digestOf(content).equals(data.subarray(at + 4, start))) break
        const stored = deserialize(content) as StoredModule | StoredHandlers
        if ('plans' in stored) modules.push(stored)
        else this.handlers = stored
        at = end
      }
    if (at < data.length) truncateSync(this.file, at)
    this.size = at
    return modules
  }

  add({ poolSize, plans, bytes }: StoredModule): void {
    this.append({ poolSize, plans, bytes })
  }
  addHandlers({ keys, writers, bytes }: StoredHandlers): void {
    this.append({ keys, writers, bytes })
  }
  private append(stored: StoredModule | StoredHandlers): void {
    if (this.size > largestFile) return
    const content = serialize(stored)
    const frame = Buffer.alloc(frameBytes)
    frame.writeUInt32LE(content.length)
    digestOf(content).copy(frame, 4)
    const all = Buffer.concat(this.size === 0 ? [Buffer.from(magic), frame, content] : [frame, content])
    appendFileSync(this.file, all, { mode: 0o600 })
    this.size += all.length
  }
}
