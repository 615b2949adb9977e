/** The lines that tools/float/record.sh recorded on silicon. */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'

export function recording(name: 'sse' | 'x87' | 'transcendental'): string[] {
  const file = new URL(`${name}.txt.gz`, import.meta.url)
  return gunzipSync(readFileSync(file)).toString('latin1').trimEnd().split('\n')
}

/** The recording by instruction. */
export function recordingByName(name: 'sse' | 'x87' | 'transcendental'): Map<string, string[]> {
  const groups = new Map<string, string[]>()
  for (const line of recording(name)) {
    const key = line.slice(0, line.indexOf(' '))
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [line])
    else group.push(line)
  }
  return groups
}
