/** Which program this is: what was made by one is not used by another. */
import { readdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { digestOf } from './digest.ts'

/** A name of all our own files but tests, by their sizes and times: 16 hexadecimal digits. `root`: the folder that holds them. */
export function programName(root = new URL('../../', import.meta.url)): string {
  const found: string[] = []
  const base = fileURLToPath(root)
  const look = (folder: string): void => {
    for (const entry of readdirSync(base + folder, { withFileTypes: true })) {
      const path = folder + entry.name
      if (entry.isDirectory()) look(`${path}/`)
      else if ((path.endsWith('.ts') || path.endsWith('.js')) && !path.endsWith('.test.ts')) {
        const { size, mtimeMs } = statSync(base + path)
        found.push(`${path} ${size} ${mtimeMs}`)
      }
    }
  }
  look('')
  return digestOf(Buffer.from(found.sort().join('\n')))
}
