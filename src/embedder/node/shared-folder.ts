/**
 * A folder of Node's that a machine may share. Nothing outside of it is ever reached: no symbolic link is followed, and on Linux each
 * step goes from an open folder to a name in it (through /proc/self/fd), so that nobody can put a link in the way in between.
 */
import * as fs from 'node:fs'
import { resolve } from 'node:path'
import type {
  FileStatus, FolderEntry, FolderFile, FolderPath, FolderSpace, Instant, OpenMode, SharedFolder, StatusChange,
} from '../../api.ts'
import { InputError } from '../../errors.ts'
import { reasonOf } from './files.ts'

const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_EXCL } = fs.constants
/** Missing on Windows, where the checks before have to do. */
const O_NOFOLLOW = fs.constants.O_NOFOLLOW ?? 0
const O_NONBLOCK = fs.constants.O_NONBLOCK ?? 0
const O_DIRECTORY = fs.constants.O_DIRECTORY ?? 0
/** Linux': names a file without opening it. */
const O_PATH = 0o10000000

/** As the system's own errors are: the code says what. */
class FolderError extends Error {
  readonly code: string

  constructor(code: string) {
    super(code)
    this.code = code
  }
}

class NodeFolder implements SharedFolder {
  readonly readOnly: boolean
  readonly #root: string
  /** The root, open, where folders can be passed on as descriptors. */
  readonly #rootFile: number | undefined
  /** Small numbers in the order in which files were first seen: what software sees does not depend on where the folder lies. */
  readonly #inodes = new Map<string, number>()

  constructor(root: string, readOnly: boolean) {
    this.readOnly = readOnly
    this.#root = root
    const file = process.platform === 'linux' ? fs.openSync(root, O_RDONLY | O_DIRECTORY) : undefined
    if (file !== undefined && !fs.existsSync(`/proc/self/fd/${file}/.`)) fs.closeSync(file)
    else this.#rootFile = file
  }

  status(path: FolderPath): FileStatus {
    return this.#at(path, place => this.#statusFrom(fs.lstatSync(place, { bigint: true })))
  }

  open(path: FolderPath, mode: OpenMode): FolderFile {
    return this.#at(path, place => {
      const file = this.#openFile(place, mode)
      return new NodeFile(file, stat => this.#statusFrom(stat))
    })
  }

  change(path: FolderPath, { size, permissions, ...rest }: StatusChange): void {
    if (size !== undefined) {
      const file = this.open(path, { write: true })
      try {
        file.change({ size })
      } finally {
        file.close()
      }
    }
    this.#at(path, place => {
      const stat = fs.lstatSync(place)
      if (permissions !== undefined) this.#setPermissions(place, stat, permissions)
      setOwner(rest, (uid, gid) => fs.lchownSync(place, uid, gid))
      setTimes(rest, stat, (accessed, modified) => fs.lutimesSync(place, accessed, modified))
    })
  }

  list(path: FolderPath): FolderEntry[] {
    const names = this.#at([...path, '.'], place => fs.readdirSync(place, 'latin1')).sort((a, b) => (a < b ? -1 : 1))
    return this.#at([...path, '.'], folder => names.flatMap(name => {
      try {
        const { mode, inode } = this.#statusFrom(fs.lstatSync(Buffer.concat([folder, Buffer.from(`/${name}`, 'latin1')]), { bigint: true }))
        return [{ name, inode, kind: mode & fs.constants.S_IFMT }]
      } catch {
        return [] // gone in between
      }
    }))
  }

  makeFolder(path: FolderPath, permissions: number): void {
    this.#at(path, place => {
      fs.mkdirSync(place, permissions)
      this.#setPermissions(place, fs.lstatSync(place), permissions)
    })
  }

  makeLink(path: FolderPath, target: string): void {
    this.#at(path, place => fs.symlinkSync(Buffer.from(target, 'latin1'), place))
  }

  readLink(path: FolderPath): string {
    return this.#at(path, place => fs.readlinkSync(place, 'latin1'))
  }

  linkFile(from: FolderPath, to: FolderPath): void {
    this.#at(from, old => this.#at(to, place => {
      // Elsewhere than on Linux the link would be followed.
      if (this.#rootFile === undefined && fs.lstatSync(old).isSymbolicLink()) throw new FolderError('EPERM')
      fs.linkSync(old, place)
    }))
  }

  rename(from: FolderPath, to: FolderPath): void {
    this.#at(from, old => this.#at(to, place => fs.renameSync(old, place)))
  }

  removeFile(path: FolderPath): void {
    this.#at(path, place => fs.unlinkSync(place))
  }

  removeFolder(path: FolderPath): void {
    this.#at(path, place => fs.rmdirSync(place))
  }

  space(): FolderSpace {
    return this.#at([], place => {
      const { bsize, blocks, bfree, bavail, files, ffree } = fs.statfsSync(place)
      return { blockSize: bsize, blocks, free: bfree, available: bavail, files, freeFiles: ffree }
    })
  }

  // ----

  /** Calls `act` with a path that leads nowhere else. */
  #at<T>(path: FolderPath, act: (place: Buffer) => T): T {
    const opened: number[] = []
    try {
      return act(this.#rootFile === undefined ? this.#checkedPlace(path) : this.#placeBehind(this.#rootFile, path, opened))
    } finally {
      for (const file of opened) fs.closeSync(file)
    }
  }

  /** From one open folder to the next: what is opened is what is used, whatever happens to names in between. */
  #placeBehind(root: number, path: FolderPath, opened: number[]): Buffer {
    let folder = root
    for (const name of path.slice(0, -1)) {
      folder = fs.openSync(inFolder(folder, name), O_PATH | O_DIRECTORY | O_NOFOLLOW)
      opened.push(folder)
    }
    return inFolder(folder, path.at(-1) ?? '.')
  }

  /** Without open folders: no part but the last may be a link. Who else changes the folder at that very moment is not seen. */
  #checkedPlace(path: FolderPath): Buffer {
    let place = Buffer.from(this.#root)
    for (const [at, name] of path.entries()) {
      if (process.platform === 'win32' && /[\\:]/.test(name)) throw new FolderError('EINVAL')
      place = Buffer.concat([place, Buffer.from(`/${name}`, 'latin1')])
      if (at < path.length - 1 && !fs.lstatSync(place).isDirectory()) throw new FolderError('ENOTDIR')
    }
    return place
  }

  /** Only plain files are opened: a pipe would wait, and a device do something. */
  #openFile(place: Buffer, { write, truncate, create, exclusive }: OpenMode): number {
    const found = fs.lstatSync(place, { throwIfNoEntry: false })
    if (found) refuseUnlessFile(found)
    const making = create === undefined ? 0 : O_CREAT | (exclusive ? O_EXCL : 0)
    const flags = making | O_NOFOLLOW | O_NONBLOCK
    // What is made with few permissions may still be written through this descriptor.
    const openAs = (access: number): number => fs.openSync(place, flags | access, create ?? 0o600)
    let file: number
    try {
      file = openAs(write || truncate ? O_RDWR : O_RDONLY)
    } catch (error) {
      if (!write || (error as NodeJS.ErrnoException).code !== 'EACCES') throw error
      file = openAs(O_WRONLY)
    }
    try {
      refuseUnlessFile(fs.fstatSync(file))
      if (create !== undefined && !found) fs.fchmodSync(file, create)
      if (truncate) fs.ftruncateSync(file, 0)
      return file
    } catch (error) {
      fs.closeSync(file)
      throw error
    }
  }

  #setPermissions(place: Buffer, stat: fs.Stats, permissions: number): void {
    if (stat.isSymbolicLink()) throw new FolderError('EOPNOTSUPP')
    if (this.#rootFile === undefined) return fs.chmodSync(place, permissions)
    const file = fs.openSync(place, O_PATH | O_NOFOLLOW)
    try {
      fs.chmodSync(`/proc/self/fd/${file}`, permissions)
    } finally {
      fs.closeSync(file)
    }
  }

  #statusFrom(stat: fs.BigIntStats): FileStatus {
    const key = `${stat.dev}:${stat.ino}`
    const inode = this.#inodes.get(key) ?? this.#inodes.size + 1
    this.#inodes.set(key, inode)
    return {
      mode: Number(stat.mode), inode, uid: Number(stat.uid), gid: Number(stat.gid), links: Number(stat.nlink), size: Number(stat.size),
      blocks: Number(stat.blocks ?? 0n), accessed: instant(stat.atimeNs), modified: instant(stat.mtimeNs), changed: instant(stat.ctimeNs),
    }
  }
}

class NodeFile implements FolderFile {
  readonly #file: number
  readonly #statusFrom: (stat: fs.BigIntStats) => FileStatus

  constructor(file: number, statusFrom: (stat: fs.BigIntStats) => FileStatus) {
    this.#file = file
    this.#statusFrom = statusFrom
  }

  read(offset: number, into: Uint8Array): number {
    let done = 0
    while (done < into.length) {
      const count = fs.readSync(this.#file, into, done, into.length - done, offset + done)
      if (count === 0) break
      done += count
    }
    return done
  }

  write(offset: number, from: Uint8Array): number {
    let done = 0
    while (done < from.length) done += fs.writeSync(this.#file, from, done, from.length - done, offset + done)
    return done
  }

  status(): FileStatus {
    return this.#statusFrom(fs.fstatSync(this.#file, { bigint: true }))
  }

  change({ size, permissions, ...rest }: StatusChange): void {
    if (size !== undefined) fs.ftruncateSync(this.#file, size)
    if (permissions !== undefined) fs.fchmodSync(this.#file, permissions)
    setOwner(rest, (uid, gid) => fs.fchownSync(this.#file, uid, gid))
    setTimes(rest, fs.fstatSync(this.#file), (accessed, modified) => fs.futimesSync(this.#file, accessed, modified))
  }

  sync(): void {
    fs.fsyncSync(this.#file)
  }

  close(): void {
    fs.closeSync(this.#file)
  }
}

function inFolder(folder: number, name: string): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${folder}/`), Buffer.from(name, 'latin1')])
}

function refuseUnlessFile(stat: fs.Stats): void {
  if (stat.isDirectory()) throw new FolderError('EISDIR')
  if (stat.isSymbolicLink()) throw new FolderError('ELOOP')
  if (!stat.isFile()) throw new FolderError('EACCES')
}

/** Who is not allowed to give files away keeps them, and the machine need not know. */
function setOwner({ uid, gid }: StatusChange, set: (uid: number, gid: number) => void): void {
  if (uid === undefined && gid === undefined) return
  try {
    set(uid ?? -1, gid ?? -1)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
  }
}

function setTimes(
  { accessed, modified }: StatusChange, { atimeMs, mtimeMs }: fs.Stats, set: (accessed: number, modified: number) => void,
): void {
  if (accessed === undefined && modified === undefined) return
  const seconds = (wanted: Instant | 'now' | undefined, old: number): number => {
    if (wanted === 'now') return Date.now() / 1000
    return wanted === undefined ? old / 1000 : wanted.seconds + wanted.nanoseconds / 1e9
  }
  set(seconds(accessed, atimeMs), seconds(modified, mtimeMs))
}

function instant(nanoseconds: bigint): Instant {
  return { seconds: Number(nanoseconds / 1_000_000_000n), nanoseconds: Number(nanoseconds % 1_000_000_000n) }
}

/** Throws an InputError for what is no folder. */
export function openFolder(path: string, readOnly: boolean): SharedFolder {
  try {
    const root = fs.realpathSync(resolve(path))
    if (!fs.statSync(root).isDirectory()) throw new InputError(`cannot share '${path}': expected a folder, found a file`)
    return new NodeFolder(root, readOnly)
  } catch (error) {
    if (error instanceof InputError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new InputError(`cannot share '${path}': ${missing ? 'no such folder' : reasonOf(error)}`)
  }
}
