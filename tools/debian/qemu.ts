/** Debian's QEMU as it is installed here, with what it needs, to run inside of a guest. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Entry } from './cpio.ts'
import { DebianError } from './packages.ts'

const program = '/usr/bin/qemu-system-x86_64'
/** What `-nodefaults -display none -kernel` reads, and where Debian's packages have it. */
const firmware = ['bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin'] as const
const firmwareFolders = ['/usr/share/seabios', '/usr/share/qemu']

/** Program, libraries and firmware. Start it with `-L /usr/share/qemu`. */
export function installedQemu(): Entry[] {
  if (!existsSync(program)) throw new DebianError(`${program} is missing (apt-get install qemu-system-x86)`)
  const needed = execFileSync('ldd', [program], { encoding: 'utf8' })
  const libraries = [...needed.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path]) => path)
  const files = [program, ...libraries].map((path): [string, string] => [path, path])
  for (const name of firmware) {
    const folder = firmwareFolders.find(each => existsSync(`${each}/${name}`))
    if (folder === undefined) throw new DebianError(`${name} is missing (apt-get install qemu-system-data seabios)`)
    files.push([`/usr/share/qemu/${name}`, `${folder}/${name}`])
  }
  const folders = new Set(files.flatMap(([path]) => ancestors(path)))
  return [
    ...[...folders].sort().map((path): Entry => ({ path, kind: 'folder' })),
    ...files.map(([path, from]): Entry => ({ path: path.slice(1), kind: 'file', data: readFileSync(from), mode: 0o755 })),
  ]
}

/** Folders above a file, without those that every file system has. */
function ancestors(path: string): string[] {
  const folder = dirname(path).slice(1)
  return folder === '' || folder === '.' ? [] : [...ancestors(`/${folder}`), folder]
}
