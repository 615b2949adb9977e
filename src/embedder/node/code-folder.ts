/** Where compiled code is kept between runs: with the user's caches (XDG Base Directory Specification; elsewhere the system's custom). */
import { accessSync, constants, mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { InputError } from '../../errors.ts'
import { reasonOf } from './files.ts'

/** `asked`: a folder, or `off`; by default what the environment says in VITRINE_CODE_CACHE. Undefined: nowhere. */
export function codeFolder(
  asked?: string,
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  const place = asked ?? (env.VITRINE_CODE_CACHE || undefined)
  if (place === 'off') return undefined
  return place ?? join(caches(env, platform), 'vitrine', 'code')
}

function caches(env: NodeJS.ProcessEnv, platform: NodeJS.Platform): string {
  if (platform === 'win32' && env.LOCALAPPDATA) return env.LOCALAPPDATA
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches')
  return env.XDG_CACHE_HOME || join(homedir(), '.cache')
}

/** A folder that was asked for is made, or an InputError says why not. Without the usual one a run goes on. */
export function expectCodeFolder(path: string): void {
  if (path === 'off') return
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    accessSync(path, constants.W_OK)
  } catch (error) {
    const found = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'it is a file' : reasonOf(error)
    throw new InputError(`--code-cache '${path}': expected a folder that can be written to: ${found}`)
  }
}
