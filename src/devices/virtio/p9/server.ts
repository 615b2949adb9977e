/**
 * A server of 9P2000.L over a shared folder (diod's "9P2000.L Protocol"; Linux' net/9p/client.c is the other side). Every request has its
 * answer when `answer` returns. Whatever a request holds, the answer is a message; what cannot be done is Rlerror with Linux' number.
 */
import type { DeviceState } from '../../ports.ts'
import { type Fid, Fids } from './fids.ts'
import {
  errorNumber, fileKind, type FileStatus, FolderError, type FolderPath, type Instant, permissionMask, type SharedFolder,
} from './folder.ts'
import { placeFrom, Reader, Writer } from './message.ts'
import {
  fileSystemMagic, getattrBasic, headerBytes, lockFree, lockGranted, longestName, messageType as type, mostNames, noAccess, noTag,
  openFlag, protocolVersion, qidBytes, qidType, removeFolderFlag, setattrValid,
} from './spec.ts'

/** Messages are at most so long: what Linux asks for at the most, with room for its header. */
export const mostMessageBytes = 1 << 19
const leastMessageBytes = 4096
/** Rread and Rreaddir: header and count[4]. */
const dataHeaderBytes = headerBytes + 4
const errorBytes = headerBytes + 4

type Handler = (request: Reader, room: number) => Writer

export class P9Server {
  readonly #folder: SharedFolder
  readonly #fids: Fids
  #messageBytes = mostMessageBytes

  constructor(folder: SharedFolder) {
    this.#folder = folder
    this.#fids = new Fids(folder)
  }

  reset(): void {
    this.#fids.clear()
    this.#messageBytes = mostMessageBytes
  }

  saveState(): DeviceState {
    return { messageBytes: this.#messageBytes, fids: this.#fids.saveState() }
  }

  restoreState(state: DeviceState): void {
    const { messageBytes, fids } = state as { messageBytes: number; fids: DeviceState }
    this.#messageBytes = messageBytes
    this.#fids.restoreState(fids)
  }

  /** `room`: how long the answer may be. Undefined: not even an error fits, or there is no header to answer to. */
  answer(bytes: Uint8Array, room: number): Uint8Array | undefined {
    if (bytes.length < headerBytes || room < errorBytes) return undefined
    const request = new Reader(bytes)
    const size = request.u32()
    const kind = request.u8()
    const tag = request.u16()
    try {
      if (size < headerBytes || size > bytes.length) throw new FolderError('EPROTO')
      const handler = this.#handlers[kind]
      if (!handler) throw new FolderError('EOPNOTSUPP')
      const most = Math.min(room, this.#messageBytes)
      const body = handler(new Reader(bytes.subarray(headerBytes, size)), most)
      if (headerBytes + body.length > room) throw new FolderError('EINVAL')
      return message(kind + 1, tag, body)
    } catch (error) {
      const number = errorNumber(error)
      if (number === undefined) throw error
      return message(type.error + 1, tag, new Writer().u32(number))
    }
  }

  readonly #handlers: Readonly<Record<number, Handler>> = {
    [type.version]: r => this.#version(r),
    [type.auth]: () => refuse('EOPNOTSUPP'),
    [type.attach]: r => this.#attach(r),
    [type.flush]: r => { r.u16(); return new Writer() }, // nothing is ever on its way
    [type.walk]: r => this.#walk(r),
    [type.lopen]: r => this.#open(this.#fids.get(r.u32()), r.u32()),
    [type.lcreate]: r => this.#create(r),
    [type.read]: (r, room) => this.#read(r, room),
    [type.write]: r => this.#write(r),
    [type.readdir]: (r, room) => this.#readFolder(r, room),
    [type.clunk]: r => { this.#fids.drop(r.u32()); return new Writer() },
    [type.remove]: r => this.#remove(r),
    [type.unlinkat]: r => this.#unlink(this.#inside(r), r.u32()),
    [type.getattr]: r => this.#getStatus(r),
    [type.setattr]: r => this.#setStatus(r),
    [type.symlink]: r => this.#symlink(r),
    [type.readlink]: r => new Writer().text(this.#folder.readLink(this.#fids.get(r.u32()).path)),
    [type.mkdir]: r => this.#makeFolder(r),
    [type.mknod]: r => this.#makeNode(r),
    [type.link]: r => this.#link(r),
    [type.rename]: r => this.#rename(this.#fids.get(r.u32()).path, this.#inside(r)),
    [type.renameat]: r => this.#rename(this.#inside(r), this.#inside(r)),
    [type.fsync]: r => this.#sync(this.#fids.get(r.u32())),
    [type.statfs]: r => this.#space(r),
    [type.lock]: r => { this.#fids.get(r.u32()); return new Writer().u8(lockGranted) }, // the client sees to locks among its own
    [type.getlock]: r => this.#getLock(r),
    [type.xattrwalk]: () => refuse('EOPNOTSUPP'),
    [type.xattrcreate]: () => refuse('EOPNOTSUPP'),
  }

  // ---- the session

  /** "version": whatever was before is over. */
  #version(request: Reader): Writer {
    const [bytes, version] = [request.u32(), request.text()]
    if (bytes < leastMessageBytes) throw new FolderError('EINVAL')
    this.#fids.clear()
    this.#messageBytes = Math.min(bytes, mostMessageBytes)
    return new Writer().u32(this.#messageBytes).text(version === protocolVersion ? version : 'unknown')
  }

  #attach(request: Reader): Writer {
    const number = request.u32()
    request.u32() // afid: there is no authentication
    request.text() // uname
    const tree = request.text()
    if (this.#fids.has(number)) throw new FolderError('EBADF')
    const path = tree.split('/').filter(name => name !== '').reduce<FolderPath>(step, [])
    const status = this.#folder.status(path)
    this.#fids.set(number, path)
    return putQid(new Writer(), status)
  }

  /** "walk": a way that ends early says how far it came, and gives the new fid no meaning. */
  #walk(request: Reader): Writer {
    const from = this.#fids.get(request.u32())
    const number = request.u32()
    const count = request.u16()
    if (count > mostNames) throw new FolderError('EINVAL')
    const names = Array.from({ length: count }, () => request.text())
    const target = this.#fids.has(number) ? this.#fids.get(number) : undefined
    if (target && target !== from) throw new FolderError('EBADF')
    if (from === target && from.opened !== 'no') throw new FolderError('EBADF')
    const passed: FileStatus[] = []
    let { path } = from
    try {
      for (const name of names) {
        path = step(path, name)
        passed.push(this.#folder.status(path))
      }
    } catch (error) {
      if (errorNumber(error) === undefined || passed.length === 0) throw error
    }
    if (passed.length === names.length) this.#fids.set(number, path)
    return passed.reduce(putQid, new Writer().u16(passed.length))
  }

  // ---- files

  #open(fid: Fid, flags: number): Writer {
    const write = accessOf(flags)
    if (fid.opened !== 'no') throw new FolderError('EBADF')
    const status = this.#folder.status(fid.path)
    if (isFolder(status)) {
      if (write) throw new FolderError('EISDIR')
      fid.opened = 'folder'
    } else {
      const truncate = (flags & openFlag.truncate) !== 0
      if (write || truncate) this.#change()
      this.#fids.keep(fid, write, () => this.#folder.open(fid.path, { write, truncate }))
    }
    return putQid(new Writer(), status).u32(0)
  }

  /** The fid of the folder becomes that of the new file. */
  #create(request: Reader): Writer {
    const fid = this.#fids.get(request.u32())
    const name = request.text()
    const [flags, mode] = [request.u32(), request.u32()]
    const write = accessOf(flags)
    if (fid.opened !== 'no') throw new FolderError('EBADF')
    this.#change()
    const path = child(fid.path, name)
    const options = {
      write, create: mode & permissionMask, exclusive: (flags & openFlag.exclusive) !== 0, truncate: (flags & openFlag.truncate) !== 0,
    }
    this.#fids.keep(fid, write, () => this.#folder.open(path, options))
    fid.path = path
    return putQid(new Writer(), this.#fids.statusOf(fid)).u32(0)
  }

  #read(request: Reader, room: number): Writer {
    const file = this.#fids.fileOf(this.#fids.get(request.u32()))
    const offset = request.offset()
    const data = new Uint8Array(Math.max(0, Math.min(request.u32(), room - dataHeaderBytes)))
    const count = file.read(offset, data)
    return new Writer().u32(count).bytes(data.subarray(0, count))
  }

  #write(request: Reader): Writer {
    const fid = this.#fids.get(request.u32())
    const offset = request.offset()
    const data = request.bytes(request.u32())
    if (fid.opened !== 'write') throw new FolderError('EBADF')
    this.#change()
    return new Writer().u32(this.#fids.fileOf(fid).write(offset, data))
  }

  #sync(fid: Fid): Writer {
    if (fid.opened === 'write') this.#fids.fileOf(fid).sync()
    return new Writer()
  }

  // ---- folders

  /** An entry's offset is where the next one is found. */
  #readFolder(request: Reader, room: number): Writer {
    const fid = this.#fids.get(request.u32())
    const offset = request.offset()
    const most = Math.min(request.u32(), room - dataHeaderBytes)
    if (fid.opened !== 'folder') throw new FolderError('EBADF')
    if (offset === 0 || !fid.listing) fid.listing = this.#listing(fid.path)
    const entries = new Writer()
    for (let at = offset; at < fid.listing.length; at++) {
      const { name, kind, inode } = fid.listing[at]
      if (entries.length + qidBytes + 11 + name.length > most) break
      putQid(entries, { mode: kind, inode }).u64(at + 1).u8(kind >> 12).text(name)
    }
    return new Writer().u32(entries.length).bytes(entries.done())
  }

  #listing(path: FolderPath): NonNullable<Fid['listing']> {
    const dot = (name: string, { inode, mode }: FileStatus): { name: string; kind: number; inode: number } =>
      ({ name, inode, kind: mode & fileKind.mask })
    const above = this.#folder.status(path.slice(0, -1))
    return [dot('.', this.#folder.status(path)), dot('..', above), ...this.#folder.list(path)]
  }

  #makeFolder(request: Reader): Writer {
    const path = this.#inside(request)
    this.#change()
    this.#folder.makeFolder(path, request.u32() & permissionMask)
    return putQid(new Writer(), this.#folder.status(path))
  }

  #symlink(request: Reader): Writer {
    const path = this.#inside(request)
    const target = request.text()
    if (target === '' || target.includes('\0')) throw new FolderError('ENOENT')
    this.#change()
    this.#folder.makeLink(path, target)
    return putQid(new Writer(), this.#folder.status(path))
  }

  /** Devices, pipes and sockets would be the embedder's: only plain files are made. */
  #makeNode(request: Reader): Writer {
    const path = this.#inside(request)
    const mode = request.u32()
    if ((mode & fileKind.mask) !== fileKind.file) throw new FolderError('EPERM')
    this.#change()
    this.#folder.open(path, { write: true, create: mode & permissionMask, exclusive: true }).close()
    return putQid(new Writer(), this.#folder.status(path))
  }

  #link(request: Reader): Writer {
    const folder = this.#fids.get(request.u32())
    const from = this.#fids.get(request.u32())
    const to = child(folder.path, request.text())
    this.#change()
    this.#folder.linkFile(from.path, to)
    return new Writer()
  }

  #rename(from: FolderPath, to: FolderPath): Writer {
    if (from.length === 0) throw new FolderError('EBUSY')
    this.#change()
    this.#folder.rename(from, to)
    this.#fids.renamed(from, to)
    return new Writer()
  }

  #unlink(path: FolderPath, flags: number): Writer {
    this.#change()
    if (flags & removeFolderFlag) this.#folder.removeFolder(path)
    else this.#folder.removeFile(path)
    return new Writer()
  }

  /** "remove": the fid is gone, whether the file is or not. */
  #remove(request: Reader): Writer {
    const number = request.u32()
    const { path } = this.#fids.get(number)
    this.#fids.drop(number)
    if (path.length === 0) throw new FolderError('EBUSY')
    return this.#unlink(path, isFolder(this.#folder.status(path)) ? removeFolderFlag : 0)
  }

  // ---- what is known of a file

  #getStatus(request: Reader): Writer {
    const fid = this.#fids.get(request.u32())
    const status = this.#fids.statusOf(fid)
    const writer = putQid(new Writer().u64(getattrBasic), status).u32(status.mode).u32(status.uid).u32(status.gid)
    writer.u64(status.links).u64(0).u64(status.size).u64(4096).u64(status.blocks)
    for (const { seconds, nanoseconds } of [status.accessed, status.modified, status.changed]) writer.u64(seconds).u64(nanoseconds)
    return writer.u64(0).u64(0).u64(0).u64(0) // birth, generation, data version
  }

  #setStatus(request: Reader): Writer {
    const fid = this.#fids.get(request.u32())
    const valid = request.u32()
    const [mode, uid, gid] = [request.u32(), request.u32(), request.u32()]
    const size = request.u64()
    const instant = (): { seconds: bigint; nanoseconds: bigint } => ({ seconds: request.u64(), nanoseconds: request.u64() })
    const [accessed, modified] = [instant(), instant()]
    this.#change()
    const has = (bit: number): boolean => (valid & bit) !== 0
    const change = {
      ...(has(setattrValid.mode) ? { permissions: mode & permissionMask } : {}),
      ...(has(setattrValid.uid) ? { uid } : {}),
      ...(has(setattrValid.gid) ? { gid } : {}),
      ...(has(setattrValid.size) ? { size: placeFrom(size) } : {}),
      ...(has(setattrValid.accessed) ? { accessed: has(setattrValid.accessedIsGiven) ? timeFrom(accessed) : 'now' as const } : {}),
      ...(has(setattrValid.modified) ? { modified: has(setattrValid.modifiedIsGiven) ? timeFrom(modified) : 'now' as const } : {}),
    }
    if (fid.file && (fid.opened === 'write' || !has(setattrValid.size))) fid.file.change(change)
    else this.#folder.change(fid.path, change)
    return new Writer()
  }

  #space(request: Reader): Writer {
    this.#fids.get(request.u32())
    const { blockSize, blocks, free, available, files, freeFiles } = this.#folder.space()
    return new Writer().u32(fileSystemMagic).u32(blockSize).u64(blocks).u64(free).u64(available).u64(files).u64(freeFiles).u64(0)
      .u32(longestName)
  }

  #getLock(request: Reader): Writer {
    this.#fids.get(request.u32())
    request.u8()
    const [start, length, process, client] = [request.u64(), request.u64(), request.u32(), request.text()]
    return new Writer().u8(lockFree).u64(start).u64(length).u32(process).text(client)
  }

  // ----

  /** A fid and a name in its folder: the way to that. */
  #inside(request: Reader): FolderPath {
    return child(this.#fids.get(request.u32()).path, request.text())
  }

  /** Called before anything is changed. */
  #change(): void {
    if (this.#folder.readOnly) throw new FolderError('EROFS')
  }
}

/** One step of a walk: `..` of the shared folder is itself. */
function step(path: FolderPath, name: string): FolderPath {
  if (name === '.') return path
  return name === '..' ? path.slice(0, -1) : child(path, name)
}

/** Only a real name leads further down. */
function child(path: FolderPath, name: string): FolderPath {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw new FolderError('EINVAL')
  if (name.length > longestName) throw new FolderError('ENAMETOOLONG')
  return [...path, name]
}

/** Whether writes are asked for. */
function accessOf(flags: number): boolean {
  const access = flags & openFlag.access
  if (access === noAccess) throw new FolderError('EINVAL')
  return access !== 0
}

function timeFrom({ seconds, nanoseconds }: { seconds: bigint; nanoseconds: bigint }): Instant {
  if (nanoseconds >= 1_000_000_000n) throw new FolderError('EINVAL')
  return { seconds: placeFrom(seconds), nanoseconds: Number(nanoseconds) }
}

const isFolder = ({ mode }: { mode: number }): boolean => (mode & fileKind.mask) === fileKind.folder

/** The version is not used: nothing is cached that could be old. */
function putQid(writer: Writer, { mode, inode }: { mode: number; inode: number }): Writer {
  const kind = mode & fileKind.mask
  return writer.u8(kind === fileKind.folder ? qidType.folder : kind === fileKind.link ? qidType.link : qidType.file).u32(0).u64(inode)
}

function refuse(code: 'EOPNOTSUPP'): never {
  throw new FolderError(code)
}

function message(kind: number, tag: number, body: Writer): Uint8Array {
  return new Writer().u32(headerBytes + body.length).u8(kind).u16(tag & noTag).bytes(body.done()).done()
}
