/** Writes cpio archives in the "newc" format, which Linux unpacks as its initial RAM file system (Linux, "initramfs buffer format"). */

export type Entry =
  | { path: string; kind: 'file'; data: Uint8Array; mode?: number }
  | { path: string; kind: 'folder'; mode?: number }
  | { path: string; kind: 'link'; target: string }
  | { path: string; kind: 'device'; mode: number; major: number; minor: number }

const fileType = { file: 0o100000, folder: 0o040000, link: 0o120000, device: 0o020000 } as const
const encoder = new TextEncoder()

/** An archive with these entries in this order; folders must come before what is in them. Owners are root and times zero. */
export function cpio(entries: readonly Entry[]): Uint8Array {
  const parts: Uint8Array[] = []
  entries.forEach((entry, i) => parts.push(...record(entry, i + 1)))
  parts.push(...record({ path: 'TRAILER!!!', kind: 'file', data: new Uint8Array(0), mode: 0 }, 0, true))
  return concat(parts)
}

function record(entry: Entry, inode: number, trailer = false): Uint8Array[] {
  const data = entry.kind === 'file' ? entry.data : entry.kind === 'link' ? encoder.encode(entry.target) : new Uint8Array(0)
  const mode = trailer ? 0 : fileType[entry.kind] | permissions(entry)
  const [major, minor] = entry.kind === 'device' ? [entry.major, entry.minor] : [0, 0]
  const name = encoder.encode(`${entry.path}\0`)
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, entry.kind === 'folder' ? 2 : 1, 0, data.length, 0, 0, major, minor, name.length, 0]
  const header = encoder.encode(`070701${fields.map(field => field.toString(16).toUpperCase().padStart(8, '0')).join('')}`)
  return [header, name, padding(header.length + name.length), data, padding(data.length)]
}

function permissions(entry: Entry): number {
  if (entry.kind === 'link') return 0o777
  return entry.mode ?? (entry.kind === 'folder' ? 0o755 : 0o644)
}

/** Headers and data begin at multiples of four. */
const padding = (length: number): Uint8Array => new Uint8Array(-length & 3)

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
