/** Gets Debian's packages by name into a cache folder, without installing them. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** What is missing, and what to do about it. */
export class DebianError extends Error {
  override readonly name = 'DebianError'
}

/** `VITRINE_CACHE`, or the user's cache folder. */
export function cacheFolder(): string {
  const folder = process.env['VITRINE_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'vitrine')
  mkdirSync(folder, { recursive: true })
  return folder
}

/** The folder that holds the contents of a package, the newest that apt knows. Fetched and unpacked once. */
export function packageFolder(name: string): string {
  const version = packageVersion(name)
  const folder = join(cacheFolder(), `${name}_${version.replaceAll(':', '%3a')}`)
  if (existsSync(folder)) return folder
  // Two of us may fetch at once: each in a folder of its own, and the first one there wins.
  const work = mkdtempSync(join(cacheFolder(), 'fetch-'))
  try {
    aptGet(name, version, work)
    const file = readdirSync(work).find(each => each.endsWith('.deb'))
    if (file === undefined) throw new DebianError(`apt-get download ${name} left no package file`)
    tool('dpkg-deb', ['-x', join(work, file), join(work, 'contents')])
    try {
      renameSync(join(work, 'contents'), folder)
    } catch (error) {
      if (!existsSync(folder)) throw error
    }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return folder
}

export type Flavour = 'cloud' | 'generic'

export interface Kernel {
  /** Path of the bzImage. */
  image: string
  /** Folder with the modules, or undefined when it was not asked for by package. */
  modules: string
  release: string
}

/** Debian's current kernel: `cloud` is small and quick to unpack, `generic` has drivers for real devices and for Xen. */
export function debianKernel(flavour: Flavour): Kernel {
  const meta = flavour === 'cloud' ? 'linux-image-cloud-amd64' : 'linux-image-amd64'
  const dependencies = tool('apt-cache', ['depends', meta])
  const found = /Depends: (linux-image-\d\S*)/.exec(dependencies)
  if (!found) throw new DebianError(`${meta} depends on no kernel package: apt-cache depends says\n${dependencies}`)
  const folder = packageFolder(found[1])
  const release = found[1].slice('linux-image-'.length)
  return { image: join(folder, 'boot', `vmlinuz-${release}`), modules: join(folder, 'lib/modules', release), release }
}

/**
 * The newest cloud kernel of a series that Debian builds for this release beside its own, such as 6.12: for what came to Linux since.
 * Without a signature, which nothing here asks for.
 */
export function kernelOfSeries(series: string): Kernel {
  const pattern = `^linux-image-${series.replaceAll('.', '\\.')}\\.[0-9]+\\+deb[0-9]+-cloud-amd64-unsigned$`
  const listed = (): string[] => tool('apt-cache', ['search', '--names-only', pattern]).split('\n').map(line => line.split(' ')[0])
    .filter(name => name !== '')
  let names = listed()
  if (names.length === 0) {
    refreshLists()
    names = listed()
  }
  if (names.length === 0) throw new DebianError(`apt knows no cloud kernel ${series}: are the lists of Debian's security updates there?`)
  const patch = (name: string): number => Number(/\.(\d+)\+deb/.exec(name)?.[1])
  const newest = names.toSorted((a, b) => patch(a) - patch(b))[names.length - 1]
  const folder = packageFolder(newest)
  const release = newest.slice('linux-image-'.length, -'-unsigned'.length)
  return { image: join(folder, 'boot', `vmlinuz-${release}`), modules: join(folder, 'lib/modules', release), release }
}

/** A module and what it rests on, in the order in which they must be loaded. */
export function moduleFiles(kernel: Kernel, names: readonly string[]): string[] {
  const all = new Map<string, string>()
  for (const file of readdirSync(kernel.modules, { recursive: true, encoding: 'utf8' })) {
    const name = /([^/]+)\.ko$/.exec(file)?.[1]
    if (name !== undefined) all.set(name.replaceAll('-', '_'), join(kernel.modules, file))
  }
  const order = new Set<string>()
  const add = (name: string): void => {
    const file = all.get(name.replaceAll('-', '_'))
    if (file === undefined) throw new DebianError(`Debian's kernel ${kernel.release} has no module '${name}'`)
    for (const needed of dependsOf(file)) add(needed)
    order.add(file)
  }
  names.forEach(add)
  return [...order]
}

/** From the module's own `.modinfo` section: lists made by depmod exist only where the package is installed. */
function dependsOf(file: string): string[] {
  const text = readFileSync(file).toString('latin1')
  const found = /\0depends=([^\0]*)\0/.exec(text)
  return (found?.[1] ?? '').split(',').filter(name => name !== '')
}

/** The newest version that apt knows. */
export function packageVersion(name: string): string {
  const version = (): string | undefined => /Candidate: (\S+)/.exec(tool('apt-cache', ['policy', name]))?.[1]
  let found = version()
  if (found === undefined || found === '(none)') {
    refreshLists()
    found = version()
  }
  if (found === undefined || found === '(none)') {
    throw new DebianError(`apt knows no package '${name}': is this Debian, and are its lists there (apt-get update)?`)
  }
  return found
}

function aptGet(name: string, version: string, folder: string): void {
  const args = ['-q', '-o', 'APT::Sandbox::User=root', 'download', `${name}=${version}`]
  try {
    tool('apt-get', args, folder)
  } catch {
    refreshLists()
    tool('apt-get', args, folder)
  }
}

/** Only root may; for others the first failure stands. */
function refreshLists(): void {
  if (process.getuid?.() === 0) tool('apt-get', ['-q', 'update'])
}

function tool(name: string, args: string[], cwd?: string): string {
  try {
    return execFileSync(name, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26 })
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT') throw new DebianError(`${name} is missing: Debian's packages come with its apt and dpkg`)
    throw new DebianError(`${name} ${args.join(' ')} failed: ${(stderr ?? String(error)).trim()}`)
  }
}
