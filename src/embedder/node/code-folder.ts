/** Where compiled code is kept between runs: with the user's caches (XDG Base Directory Specification; elsewhere the system's custom). */
import { homedir } from 'node:os'
import { join } from 'node:path'

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
