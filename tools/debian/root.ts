/** A Debian root file system in an ext4 image, made of packages by name, without root's rights. Made once for each version of its parts. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cacheFolder, DebianError, packageVersion } from './packages.ts'

export interface RootOptions {
  /** Packages besides Debian's smallest system. */
  packages: readonly string[]
  megabytes: number
}

/** systemd, and nobody else: root logs in on the serial console, without a password. */
export const smallRoot: RootOptions = { packages: ['systemd-sysv', 'udev'], megabytes: 400 }

/** Documentation, and languages but English, stay away. */
const excluded = ['/usr/share/man/*', '/usr/share/locale/*', '/usr/share/doc/*', '/usr/share/info/*']
const hooks = [
  'chroot "$1" passwd -q -d root', 'echo glass >"$1/etc/hostname"', 'echo "/dev/vda / ext4 defaults 0 1" >"$1/etc/fstab"',
  // Its journal stays in memory, and it asks nobody on its first start.
  'rm -rf "$1/var/log/journal"', 'echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"',
]
const uuid = '56495452-494e-4547-8000-000000000002'

/** The path of the image. It belongs to the cache: who writes to it takes a copy. */
export function debianRoot(options: RootOptions = smallRoot): string {
  const recipe = JSON.stringify([options, excluded, hooks, ['base-files', ...options.packages].map(packageVersion)])
  const image = join(cacheFolder(), `root_${createHash('sha256').update(recipe).digest('hex').slice(0, 16)}.img`)
  if (existsSync(image)) return image
  const work = mkdtempSync(join(cacheFolder(), 'root-'))
  try {
    const archive = join(work, 'root.tar')
    run('mmdebstrap', [
      '--quiet', '--variant=minbase', `--include=${options.packages.join(',')}`, '--aptopt=APT::Install-Recommends "false"',
      ...excluded.map(path => `--dpkgopt=path-exclude=${path}`), ...hooks.map(hook => `--customize-hook=${hook}`),
      suite(), archive, ...sources(),
    ])
    const made = join(work, 'root.img')
    writeFileSync(made, '')
    truncateSync(made, options.megabytes * 2 ** 20)
    // Owners and devices of the archive are pretended, and mke2fs is told the same.
    const script = 'mkdir "$1/tree" && tar -C "$1/tree" -xf "$1/root.tar" && mke2fs -q -t ext4 -L root -U "$2" -d "$1/tree" "$1/root.img"'
    run('fakeroot', ['sh', '-c', script, 'sh', work, uuid])
    renameSync(made, image)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return image
}

/** That of the machine's own apt, whose lists and keys are used. */
function suite(): string {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  if (codename === undefined) throw new DebianError('/etc/os-release has no VERSION_CODENAME: is this Debian?')
  return codename
}

function sources(): string[] {
  const files = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list'].filter(existsSync)
  if (files.length === 0) throw new DebianError('apt has no sources: expected /etc/apt/sources.list')
  return files.slice(0, 1)
}

function run(name: string, args: string[]): void {
  try {
    execFileSync(name, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26 })
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT') throw new DebianError(`${name} is missing (apt-get install mmdebstrap fakeroot uidmap e2fsprogs)`)
    throw new DebianError(`${name} failed: ${(stderr ?? String(error)).trim().split('\n').slice(-5).join('\n')}`)
  }
}
