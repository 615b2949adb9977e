/** A shared folder in memory, and a 9P client that writes its messages by hand, for tests. */
import assert from 'node:assert/strict'
import {
  fileKind, type FileStatus, FolderError, type FolderEntry, type FolderFile, type FolderPath, type OpenMode, type SharedFolder,
  type StatusChange,
} from './folder.ts'
import { Reader, Writer } from './message.ts'
import { P9Server } from './server.ts'

class Node {
  mode: number
  readonly inode: number
  data = new Uint8Array(0)
  target = ''
  readonly entries = new Map<string, Node>()

  constructor(mode: number, inode: number) {
    this.mode = mode
    this.inode = inode
  }

  get kind(): number {
    return this.mode & fileKind.mask
  }
}

const zero = { seconds: 0, nanoseconds: 0 }

export class MemoryFolder implements SharedFolder {
  readonly readOnly: boolean
  readonly #root = new Node(fileKind.folder | 0o755, 1)
  #nodes = 1
  /** How many files are open. */
  openFiles = 0

  constructor(readOnly = false) {
    this.readOnly = readOnly
  }

  status(path: FolderPath): FileStatus {
    return statusOf(this.#find(path))
  }

  change(path: FolderPath, change: StatusChange): void {
    changeNode(this.#find(path), change)
  }

  open(path: FolderPath, { create, exclusive, truncate }: OpenMode): FolderFile {
    const [folder, name] = this.#parent(path)
    let node = folder.entries.get(name)
    if (node && exclusive) throw new FolderError('EEXIST')
    if (!node && create === undefined) throw new FolderError('ENOENT')
    node ??= this.#add(path, fileKind.file | create!)
    if (node.kind !== fileKind.file) throw new FolderError(node.kind === fileKind.folder ? 'EISDIR' : 'ELOOP')
    if (truncate) node.data = new Uint8Array(0)
    this.openFiles++
    return new MemoryFile(node, () => { this.openFiles-- })
  }

  list(path: FolderPath): FolderEntry[] {
    const entries = [...this.#folder(path).entries].map(([name, { kind, inode }]) => ({ name, kind, inode }))
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  makeFolder(path: FolderPath, permissions: number): void {
    this.#add(path, fileKind.folder | permissions)
  }

  makeLink(path: FolderPath, target: string): void {
    this.#add(path, fileKind.link | 0o777).target = target
  }

  readLink(path: FolderPath): string {
    const node = this.#find(path)
    if (node.kind !== fileKind.link) throw new FolderError('EINVAL')
    return node.target
  }

  linkFile(): void {
    throw new FolderError('EPERM')
  }

  rename(from: FolderPath, to: FolderPath): void {
    const node = this.#find(from)
    const [folder, name] = this.#parent(to)
    const [old, oldName] = this.#parent(from)
    old.entries.delete(oldName)
    folder.entries.set(name, node)
  }

  removeFile(path: FolderPath): void {
    const [folder, name] = this.#parent(path)
    if (this.#find(path).kind === fileKind.folder) throw new FolderError('EISDIR')
    folder.entries.delete(name)
  }

  removeFolder(path: FolderPath): void {
    const [folder, name] = this.#parent(path)
    if (this.#folder(path).entries.size > 0) throw new FolderError('ENOTEMPTY')
    folder.entries.delete(name)
  }

  space(): ReturnType<SharedFolder['space']> {
    return { blockSize: 4096, blocks: 100, free: 50, available: 50, files: 10, freeFiles: 5 }
  }

  #find(path: FolderPath): Node {
    let node = this.#root
    for (const name of path) {
      if (node.kind !== fileKind.folder) throw new FolderError('ENOTDIR')
      const next = node.entries.get(name)
      if (!next) throw new FolderError('ENOENT')
      node = next
    }
    return node
  }

  #folder(path: FolderPath): Node {
    const node = this.#find(path)
    if (node.kind !== fileKind.folder) throw new FolderError('ENOTDIR')
    return node
  }

  #parent(path: FolderPath): [folder: Node, name: string] {
    return [this.#folder(path.slice(0, -1)), path.at(-1) ?? '']
  }

  #add(path: FolderPath, mode: number): Node {
    const [folder, name] = this.#parent(path)
    if (folder.entries.has(name)) throw new FolderError('EEXIST')
    const node = new Node(mode, ++this.#nodes)
    folder.entries.set(name, node)
    return node
  }
}

class MemoryFile implements FolderFile {
  readonly #node: Node
  readonly close: () => void

  constructor(node: Node, close: () => void) {
    this.#node = node
    this.close = close
  }

  read(offset: number, into: Uint8Array): number {
    const part = this.#node.data.subarray(offset, offset + into.length)
    into.set(part)
    return part.length
  }

  write(offset: number, from: Uint8Array): number {
    if (offset > 1 << 20) throw new FolderError('EFBIG')
    if (offset + from.length > this.#node.data.length) changeNode(this.#node, { size: offset + from.length })
    this.#node.data.set(from, offset)
    return from.length
  }

  status(): FileStatus {
    return statusOf(this.#node)
  }

  change(change: StatusChange): void {
    changeNode(this.#node, change)
  }

  sync(): void {}
}

function statusOf({ mode, inode, data, target }: Node): FileStatus {
  return {
    mode, inode, uid: 0, gid: 0, links: 1, size: data.length || target.length, blocks: 0, accessed: zero, modified: zero, changed: zero,
  }
}

function changeNode(node: Node, { size, permissions }: StatusChange): void {
  if (permissions !== undefined) node.mode = node.kind | permissions
  if (size === undefined) return
  const data = new Uint8Array(size)
  data.set(node.data.subarray(0, size))
  node.data = data
}

export type Field = ['u8' | 'u16' | 'u32', number] | ['u64', number | bigint] | ['text', string] | ['bytes', Uint8Array]

/** A message as a client writes it: size, type, tag 7, fields. */
export function request(type: number, ...fields: Field[]): Uint8Array {
  const body = new Writer()
  for (const [kind, value] of fields) (body[kind] as (each: typeof value) => Writer).call(body, value)
  return new Writer().u32(7 + body.length).u8(type).u16(7).bytes(body.done()).done()
}

export class TestClient {
  readonly server: P9Server

  constructor(folder: SharedFolder) {
    this.server = new P9Server(folder)
  }

  /** The fields of the answer; an assertion fails when it is an error. */
  ask(type: number, ...fields: Field[]): Reader {
    const [kind, body] = this.raw(request(type, ...fields))
    assert.equal(kind, type + 1, kind === 7 ? `error ${body.u32()}` : `answer of type ${kind}`)
    return body
  }

  /** The number of the error that the answer is. */
  fail(type: number, ...fields: Field[]): number {
    const [kind, body] = this.raw(request(type, ...fields))
    assert.equal(kind, 7, 'an answer that is no error')
    return body.u32()
  }

  raw(bytes: Uint8Array, room = 65536): [type: number, body: Reader] {
    const answer = this.server.answer(bytes, room)
    assert.ok(answer)
    const reader = new Reader(answer)
    assert.equal(reader.u32(), answer.length)
    const type = reader.u8()
    assert.equal(reader.u16(), 7)
    return [type, reader]
  }
}
