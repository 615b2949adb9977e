/** Formats of the virtio 9P transport (VIRTIO, device type 9; Linux' net/9p) and of the protocol 9P2000.L (diod's "9P2000.L Protocol"). */

export const p9Type = 9
export const p9Feature = { mountTag: 1n << 0n } as const

/** size[4] type[1] tag[2]. */
export const headerBytes = 7
export const noTag = 0xffff

/** Requests; an answer's type is one more. */
export const messageType = {
  error: 6, statfs: 8, lopen: 12, lcreate: 14, symlink: 16, mknod: 18, rename: 20, readlink: 22, getattr: 24, setattr: 26,
  xattrwalk: 30, xattrcreate: 32, readdir: 40, fsync: 50, lock: 52, getlock: 54, link: 70, mkdir: 72, renameat: 74, unlinkat: 76,
  version: 100, auth: 102, attach: 104, flush: 108, walk: 110, read: 116, write: 118, clunk: 120, remove: 122,
} as const

export const protocolVersion = '9P2000.L'

/** qid.type. */
export const qidType = { folder: 0x80, link: 0x02, file: 0x00 } as const
export const qidBytes = 13

/** Tlopen and Tlcreate: flags, as Linux' on x86 in octal. */
export const openFlag = { access: 0o3, writeOnly: 0o1, readWrite: 0o2, create: 0o100, exclusive: 0o200, truncate: 0o1000 } as const
/** Access mode 3 has no meaning. */
export const noAccess = 0o3

/** Tgetattr: what Rgetattr holds; all of the basic ones. */
export const getattrBasic = 0x7ffn

/** Tsetattr: valid. */
export const setattrValid = {
  mode: 0x1, uid: 0x2, gid: 0x4, size: 0x8, accessed: 0x10, modified: 0x20, accessedIsGiven: 0x80, modifiedIsGiven: 0x100,
} as const

/** Tunlinkat: flags. */
export const removeFolderFlag = 0x200

/** Twalk: MAXWELEM. */
export const mostNames = 16

export const lockGranted = 0
/** Tgetlock: the region could be locked. */
export const lockFree = 2

/** f_type of Rstatfs: V9FS_MAGIC. */
export const fileSystemMagic = 0x01021997
export const longestName = 255
