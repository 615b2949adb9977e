/** The repository as structure tests see it: its files, as git lists them, and their texts. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))

const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
/** Tracked files and new ones that are not ignored: what a commit holds, or would hold. */
export const files: readonly string[] = listed.trimEnd().split('\n').filter(file => existsSync(join(root, file)))

export const read = (file: string): string => readFileSync(join(root, file), 'utf8')

export const sources: readonly string[] = files.filter(file => /^(src|test|tools)\/.*\.ts$/.test(file))

export const isTest = (file: string): boolean => /\.test\.ts$|^test\/|^tools\/|\/testing\b|\/testdata\//.test(file)

/** What a file imports: paths from the root for our own files, names for packages. `text`: of the file, or of a part of it. */
export function importsOf(file: string, text = read(file)): string[] {
  const found = text.matchAll(/^\s*(?:import|export)\b[^'"`;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm)
  return [...found].map(match => {
    const name = match[1] ?? match[2] ?? match[3]
    return name.startsWith('.') ? normalize(join(dirname(file), name)) : name
  })
}

/** The top folder below src of one of our files; `''` for files in src itself. */
export function folderOf(file: string): string {
  const parts = file.split('/')
  return parts[0] === 'src' ? (parts.length > 2 ? parts[1] : '') : parts[0]
}

export const isBinary = (file: string): boolean => /\.(bin|gz|zz|wasm|png|flat|deflate|dat|vectors)$/.test(file)
