/** Which program this is: what was made by one is not used by another. */
import { readdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { digestOf } from './digest.ts'

/** A name of all our own files, by their sizes and times: 16 hexadecimal digits. `root`: the folder that holds them. */
export function programName(root = new URL('../../', import.meta.url)): string {
  const found: string[] = []
  const look = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = folder + entry.name
      if (entry.isDirectory()) look(`${path}/`)
      else if (/\.[jt]s$/.test(path)) {
        const { size, mtimeMs } = statSync(path)
        found.push(`${path} ${size} ${mtimeMs}`)
      }
    }
  }
  look(fileURLToPath(root))
  return digestOf(Buffer.from(found.sort().join('\n')))
}
