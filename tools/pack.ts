/**
 * Makes what users install: JavaScript and types in dist/, and a package.json without what only development needs.
 * npm calls `prepare` before it packs and `restore` after it (npm documentation, "scripts", "Life Cycle Operation Order").
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

type Manifest = Record<string, unknown> & { exports: Record<string, string>; imports: Record<string, Record<string, string>> }

const root = fileURLToPath(new URL('../', import.meta.url))
const [manifestFile, keptFile, dist] = ['package.json', '.package.json', 'dist'].map(name => join(root, name))

/** Oldest Node that the tests install the package with. */
const oldestNode = 20

const built = (path: string): string => path.replace(/^\.\/src\//, './dist/').replace(/\.ts$/, '.js')

/** Without scripts, development's packages and the pinned Node: a user has one, and `node_modules/.bin/node` is not ours to take. */
function publicManifest(manifest: Manifest): Record<string, unknown> {
  const {
    private: _private, scripts: _scripts, devDependencies: _development, allowScripts: _allowed, optionalDependencies: _node, ...rest
  } = manifest
  const exportOf = (path: string): Record<string, string> => ({ types: built(path).replace(/\.js$/, '.d.ts'), default: built(path) })
  const entries = <T, U>(table: Record<string, T>, change: (value: T) => U): Record<string, U> =>
    Object.fromEntries(Object.entries(table).map(([key, value]) => [key, change(value)]))
  return {
    ...rest,
    engines: { node: `>=${oldestNode}` },
    exports: entries(manifest.exports, exportOf),
    imports: entries(manifest.imports, conditions => entries(conditions, built)),
  }
}

function build(manifest: Manifest): void {
  rmSync(dist, { recursive: true, force: true })
  execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.package.json'], { cwd: root, stdio: ['ignore', 2, 2] })
  keepPublicTypes(Object.values(manifest.exports).map(path => join(root, built(path).replace(/\.js$/, '.d.ts'))))
}

/** Types that no entry reaches are nobody's business, and four fifths of them. */
function keepPublicTypes(entries: readonly string[]): void {
  const kept = new Map<string, string>()
  const todo = [...entries]
  for (let file = todo.pop(); file !== undefined; file = todo.pop()) {
    if (kept.has(file)) continue
    const folder = dirname(file)
    const text = readFileSync(file, 'utf8').replace(/(from '|import\(')(\.[^']*)\.ts'/g, (_match, before: string, path: string) => {
      todo.push(join(folder, `${path}.d.ts`))
      return `${before}${path}.js'`
    })
    kept.set(file, text)
  }
  const all = execFileSync('find', [dist, '-name', '*.d.ts'], { encoding: 'utf8' }).trim().split('\n')
  for (const file of all) {
    const text = kept.get(file)
    if (text === undefined) rmSync(file)
    else writeFileSync(file, text)
  }
}

function restore(): void {
  if (existsSync(keptFile)) renameSync(keptFile, manifestFile)
}

function prepare(): void {
  // An earlier one may have been interrupted.
  restore()
  const text = readFileSync(manifestFile, 'utf8')
  const manifest = JSON.parse(text) as Manifest
  build(manifest)
  writeFileSync(keptFile, text)
  writeFileSync(manifestFile, `${JSON.stringify(publicManifest(manifest), undefined, 2)}\n`)
}

if (import.meta.main) {
  const [command] = process.argv.slice(2)
  if (command === 'prepare') prepare()
  else if (command === 'restore') restore()
  else {
    process.stderr.write(`pack: expected prepare or restore, found '${command ?? ''}'; npm pack calls this\n`)
    process.exitCode = 2
  }
}
