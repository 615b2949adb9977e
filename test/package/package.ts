/** The package as users get it: packed from a copy of the repository, which stays as it is, and installed in an empty folder. */
import { execFileSync, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { files, root } from '../structure/repository.ts'

/** npm as a person calls it, not as the npm script does that runs the tests: that one's settings are in the environment. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_/i.test(name)))

export function run(folder: string, program: string, ...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(program, args, { cwd: folder, encoding: 'utf8', timeout: 120_000, env: environment, input: '' })
}

function mustRun(folder: string, program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = run(folder, program, ...args)
  if (error || status !== 0) throw new Error(`${program} ${args.join(' ')} failed (${error?.message ?? status}):\n${stderr}${stdout}`)
  return stdout
}

/** The path of the tarball. */
export function pack(folder: string): string {
  const copy = join(folder, 'repository')
  for (const file of files.filter(each => /^(src|bin|tools\/pack)|^[^/]+$/.test(each))) {
    mkdirSync(join(copy, dirname(file)), { recursive: true })
    cpSync(join(root, file), join(copy, file))
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  return join(folder, mustRun(copy, 'npm', 'pack', '--silent', '--pack-destination', folder).trim().split('\n').at(-1)!)
}

/** A folder with a package.json and the tarball installed, its dependencies from npm's cache where they are there. */
export function install(tarball: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-user-'))
  writeFileSync(join(folder, 'package.json'), '{ "name": "user", "private": true, "type": "module" }\n')
  mustRun(folder, 'npm', 'install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', tarball)
  return folder
}

/** Another Node by its major version, from npm's packages of its binaries, which are kept for the next time. */
export function otherNode(major: number): string {
  const folder = join(tmpdir(), `vitrine-node-${major}`)
  const name = `node-${process.platform}-${process.arch}`
  const program = join(folder, 'node_modules', name, 'bin/node')
  if (!existsSync(program)) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    mustRun(folder, 'npm', 'install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', `${name}@${major}`)
  }
  return program
}

export const listOf = (tarball: string): string[] => execFileSync('tar', ['tzf', tarball], { encoding: 'utf8' }).trim().split('\n')
