/**
 * The folder that a shared-folder device shows: what the embedder supplies (our own interface). Calls are synchronous, because a file
 * answers while the machine stands still.
 */

/** Linux' error numbers: what 9P2000.L answers with (Linux' asm-generic/errno-base.h and errno.h). */
const errno = {
  EPERM: 1, ENOENT: 2, EIO: 5, EBADF: 9, ENOMEM: 12, EACCES: 13, EBUSY: 16, EEXIST: 17, EXDEV: 18, ENOTDIR: 20, EISDIR: 21, EINVAL: 22,
  ENFILE: 23, EMFILE: 24, ETXTBSY: 26, EFBIG: 27, ENOSPC: 28, EROFS: 30, EMLINK: 31, ENAMETOOLONG: 36, ENOTEMPTY: 39, ELOOP: 40,
  EPROTO: 71, EOPNOTSUPP: 95, ENOTSUP: 95, ESTALE: 116, EDQUOT: 122,
} as const

export type ErrorName = keyof typeof errno

/** The number of an error that a folder threw; undefined for one that is no answer to software, but a mistake of ours. */
export function errorNumber(error: unknown): number | undefined {
  const { code } = error as { code?: unknown }
  return typeof code !== 'string' ? undefined : code in errno ? errno[code as ErrorName] : errno.EIO
}

/** For what software asked and cannot have. */
export class FolderError extends Error {
  override readonly name = 'FolderError'
  readonly code: ErrorName

  constructor(code: ErrorName) {
    super(code)
    this.code = code
  }
}

/** Names from the shared folder down, none of them empty, `.` or `..`, without slash and NUL. One character is one byte of a name. */
export type FolderPath = readonly string[]

/** st_mode: what kind of file it is. */
export const fileKind = { mask: 0o170000, file: 0o100000, folder: 0o040000, link: 0o120000 } as const

export interface Instant {
  seconds: number
  nanoseconds: number
}

export interface FileStatus {
  /** Kind and permissions, as Linux' st_mode. */
  mode: number
  /** Names one file of this folder for as long as it exists. */
  inode: number
  uid: number
  gid: number
  links: number
  size: number
  /** Of 512 bytes. */
  blocks: number
  accessed: Instant
  modified: Instant
  changed: Instant
}

/** What is to be changed; `now` is the embedder's clock. */
export interface StatusChange {
  permissions?: number
  uid?: number
  gid?: number
  size?: number
  accessed?: Instant | 'now'
  modified?: Instant | 'now'
}

export interface OpenMode {
  write: boolean
  truncate?: boolean
  /** With one, the file is made when it is missing, with these permissions. */
  create?: number
  /** It must not be there yet. */
  exclusive?: boolean
}

export interface FolderEntry {
  name: string
  /** The kind, as in st_mode. */
  kind: number
  inode: number
}

export interface FolderSpace {
  blockSize: number
  blocks: number
  free: number
  available: number
  files: number
  freeFiles: number
}

/** An open file. It stays what it is when its name goes. Offsets are Numbers below 2^53. */
export interface FolderFile {
  /** How many bytes there were; fewer than asked for at the end. */
  read(offset: number, into: Uint8Array): number
  write(offset: number, from: Uint8Array): number
  status(): FileStatus
  change(change: StatusChange): void
  sync(): void
  close(): void
}

/**
 * All methods throw an error with a `code`, such as `ENOENT`, for what cannot be done; one that Linux has no number for is EIO.
 * None ever follows a symbolic link: software does that itself, with what it reads of one.
 */
export interface SharedFolder {
  readonly readOnly: boolean
  status(path: FolderPath): FileStatus
  change(path: FolderPath, change: StatusChange): void
  /** Files only: EISDIR for a folder, ELOOP for a link. */
  open(path: FolderPath, mode: OpenMode): FolderFile
  /** Without `.` and `..`, in the order of the bytes of the names. */
  list(path: FolderPath): FolderEntry[]
  makeFolder(path: FolderPath, permissions: number): void
  makeLink(path: FolderPath, target: string): void
  readLink(path: FolderPath): string
  /** A second name for a file. */
  linkFile(from: FolderPath, to: FolderPath): void
  rename(from: FolderPath, to: FolderPath): void
  removeFile(path: FolderPath): void
  removeFolder(path: FolderPath): void
  space(): FolderSpace
}

/** What of permissions reaches the embedder's files: nothing that the machine makes runs with somebody else's rights outside of it. */
export const permissionMask = 0o1777
