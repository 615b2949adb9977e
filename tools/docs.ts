/**
 * The reference of the public library, made from its doc comments: `npm run docs` writes docs/api/. What is public is what the entries of
 * the package export; what is written there is what the compiler says of it.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const target = join(root, 'docs/api')

interface Entry {
  readonly page: string
  readonly source: string
  readonly title: string
  readonly imports: string
}
/** One page for each entry of the package. */
const entries: readonly Entry[] = [
  { page: 'machine.md', source: 'src/index.ts', title: 'The machine', imports: 'vitrine' },
  { page: 'hypervisor.md', source: 'src/hypervisor.ts', title: 'The hypervisor', imports: 'vitrine/hypervisor' },
  { page: 'browser.md', source: 'src/embedder/browser/index.ts', title: 'The machine in a browser', imports: 'vitrine/browser' },
]

interface Declaration {
  readonly name: string
  readonly comment: string
  readonly code: string
}
interface Module {
  /** Path in the repository. */
  readonly source: string
  readonly about: string
  readonly declarations: readonly Declaration[]
}
/** What a page names and does not export: said in full where a user of the library meets it, else where it is. */
interface Mentioned {
  readonly modules: readonly Module[]
  readonly elsewhere: ReadonlyMap<string, string>
  readonly unknown: readonly string[]
}

// ---- what is exported

/** Names that a module exports by name, with the module that declares them. */
function exported(source: string): { source: string; name: string }[] {
  const text = readFileSync(join(root, source), 'utf8')
  const list: { source: string; name: string }[] = []
  for (const [, names, from] of text.matchAll(/^export (?:type )?\{([^}]*)\} from '([^']*)'/gm)) {
    const file = relative(root, join(root, dirname(source), from))
    for (const name of names.split(',').map(each => each.trim().replace(/^type /, '')).filter(Boolean)) list.push({ source: file, name })
  }
  for (const [, name] of text.matchAll(/^export (?:declare )?(?:function|class|interface|type|const) (\w+)/gm)) list.push({ source, name })
  // a type that is imported, and exported again
  const again = [...text.matchAll(/^export (?:type )?\{([^}]*)\}$/gm)].flatMap(([, names]) => names.split(',').map(each => each.trim()))
  for (const name of again) {
    const from = new RegExp(`import type \\{[^}]*\\b${name}\\b[^}]*\\} from '([^']*)'`).exec(text)
    if (from) list.push({ source: relative(root, join(root, dirname(source), from[1])), name })
  }
  return list
}

/** Where a name is declared that a module only passes on. */
function declarer({ source, name }: { source: string; name: string }): { source: string; name: string } {
  const passed = exported(source).find(each => each.name === name && each.source !== source)
  return passed ? declarer(passed) : { source, name }
}

// ---- what the compiler says of them

function declarationFiles(): string {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-docs-'))
  const tsc = join(root, 'node_modules/.bin/tsc')
  execFileSync(tsc, ['-p', 'tsconfig.package.json', '--emitDeclarationOnly', '--outDir', folder], { cwd: root, stdio: ['ignore', 2, 2] })
  return folder
}

/** Statements of a declaration file, with the comments before them: they begin in the first column. */
function statements(text: string): Declaration[] {
  const begins = /^(?:export|declare|import|type|interface|class|const|function)\b|^\/\*\*/
  const found: Declaration[] = []
  const lines = text.split('\n')
  let comment = ''
  for (let at = 0; at < lines.length;) {
    let end = at + 1
    while (end < lines.length && !begins.test(lines[end])) end++
    const whole = lines.slice(at, end).join('\n').trim()
    const [, name] = /^(?:export )?(?:declare )?(?:abstract )?(?:class|interface|type|const|function) (\w+)/.exec(whole) ?? []
    if (name !== undefined) found.push({ name, comment: plain(comment), code: spellOut(tidy(whole), text) })
    // the first one is the file's
    comment = whole.startsWith('/**') && at > 0 ? whole : ''
    at = end
  }
  return found
}
/** Names of a table's entries, where a type is made of them. */
function spellOut(code: string, text: string): string {
  const union = (names: readonly string[]): string => wrap(names.map(name => `'${name}'`), ' | ')
  const tableOf = (name: string): string | undefined =>
    new RegExp(`declare const ${name}: (\\{\n[^]*?\\n\\};|readonly \\[[^]*?\\];)`).exec(text)?.[1]
  return code.replace(/keyof typeof (\w+)/g, (all, name) => {
    const keys = [...tableOf(name)?.matchAll(/^ {4}(?:readonly )?(\w+): /gm) ?? []].map(([, key]) => key)
    return keys.length > 0 ? union(keys) : all
  }).replace(/\(typeof (\w+)\)\[number\]/g, (all, name) => {
    const items = [...tableOf(name)?.matchAll(/["'](\w+)["']/g) ?? []].map(([, item]) => item)
    return items.length > 0 ? union(items) : all
  })
}
function wrap(words: readonly string[], between: string): string {
  let text = ''
  let column = 20
  for (const [i, word] of words.entries()) {
    const piece = `${i === 0 ? '' : between}${word}`
    column += piece.length
    text += column > 130 ? `\n ${piece}` : piece
    if (column > 130) column = piece.length
  }
  return text
}
const plain = (comment: string): string =>
  comment.replace(/^\/\*\*\s?|\s*\*\/$/g, '').split('\n').map(line => line.replace(/^\s*\* ?/, '').trim()).join(' ').trim()

/** Without what is private, and with two spaces where the compiler has four. */
function tidy(code: string): string {
  const lines = code.replace(/^export (declare )?/, '').split('\n')
  const kept: string[] = []
  for (const line of lines) {
    if (/^ {4}(private|#)/.test(line)) {
      // its comment goes with it
      while (kept.length > 0 && /^ {4}(\/\*\*| \*)/.test(kept.at(-1)!)) kept.pop()
      continue
    }
    kept.push(line)
  }
  return kept.map(line => line.replace(/^( {4})+/, spaces => ' '.repeat(spaces.length / 2)).replace(/;$/, '')).join('\n')
}

// ---- what the pages mention

/** What TypeScript and the language itself declare. */
const known = new Set(`Uint8Array BigUint64Array ArrayBuffer Map ReadonlyMap Set ReadonlySet Promise Error Date Readonly Record Partial
  NonNullable ReturnType Omit Exclude Worker URL`.split(/\s+/))
/** What a user of the library meets: said in full. */
const isNear = (source: string): boolean =>
  /^src\/(vmm\/|virt\/\w+\/(fields|vmcb)\.ts|embedder\/(browser\/|session\.ts)|[\w-]+\.ts)/.test(source)

function namesIn(code: string): string[] {
  const bare = code.replace(/\/\*\*[^]*?\*\//g, '').replace(/'[^']*'|"[^"]*"|`[^`]*`/g, '')
  const parameters = new Set([...bare.matchAll(/<(\w+) extends|\[(\w+) in /g)].map(([, one, other]) => one ?? other))
  return [...bare.matchAll(/typeof (\w+)|\b([A-Z]\w+)\b/g)].map(([, value, type]) => value ?? type).filter(name => !parameters.has(name))
}

/** The file that a declaration file imports a name from. */
function importedFrom(text: string, source: string, name: string): string | undefined {
  const [, from] = new RegExp(`^import (?:type )?\\{[^}]*\\b${name}\\b[^}]*\\} from '(\\.[^']*)'`, 'm').exec(text) ?? []
  return from && relative(root, join(root, dirname(source), from))
}

function mentionedBy(modules: readonly Module[], declared: ReadonlySet<string>, folder: string): Mentioned {
  const seen = new Set([...declared, ...known])
  const found = new Map<string, Declaration[]>()
  const elsewhere = new Map<string, string>()
  const unknown: string[] = []
  const texts = new Map<string, string>()
  const textOf = (source: string): string => {
    const text = texts.get(source) ?? readFileSync(join(folder, relative('src', source).replace(/\.ts$/, '.d.ts')), 'utf8')
    texts.set(source, text)
    return text
  }
  const queue = modules.flatMap(({ source, declarations }) =>
    declarations.flatMap(({ code }) => namesIn(code).map(name => ({ name, source }))))
  for (let each; (each = queue.shift());) {
    const { name, source } = each
    if (seen.has(name)) continue
    seen.add(name)
    const from = importedFrom(textOf(source), source, name) ?? source
    const declaration = statements(textOf(from)).find(one => one.name === name)
    if (!declaration) unknown.push(name)
    else if (!isNear(from)) elsewhere.set(name, from)
    else {
      found.set(from, [...found.get(from) ?? [], declaration])
      queue.push(...namesIn(declaration.code).map(one => ({ name: one, source: from })))
    }
  }
  const more = [...found].map(([source, declarations]) => ({ source, about: headOf(source), declarations }))
  return { modules: more, elsewhere, unknown }
}

function headOf(source: string): string {
  return plain(/^\/\*\*[^]*?\*\//.exec(readFileSync(join(root, source), 'utf8'))?.[0] ?? '')
}

function modulesOf(entry: Entry, folder: string): Module[] {
  const bySource = new Map<string, Set<string>>()
  for (const { source, name } of exported(entry.source).map(declarer))
    bySource.set(source, (bySource.get(source) ?? new Set()).add(name))
  return [...bySource].map(([source, names]) => {
    const text = readFileSync(join(folder, relative('src', source).replace(/\.ts$/, '.d.ts')), 'utf8')
    const all = statements(text)
    const declarations = [...names].map(name => all.find(each => each.name === name) ?? missing(source, name))
    return { source, about: headOf(source), declarations }
  })
}
function missing(source: string, name: string): never {
  throw new Error(`${source} declares no '${name}' that this tool can read`)
}

// ---- the pages

const partsOf = (modules: readonly Module[]): string[] => modules.flatMap(({ source: file, about, declarations }) => [
  `## ${file}`, '', about, '',
  ...declarations.flatMap(({ name, comment, code }) => [`### ${name}`, '', ...(comment ? [comment, ''] : []), '```ts', code, '```', '']),
])

/** Behind what is exported: types that it names. */
function mentions({ modules, elsewhere }: Mentioned): string[] {
  const rows = [...elsewhere].sort().map(([name, source]) => `| \`${name}\` | \`${source}\` |`)
  return [
    '# Types that those name', '', 'They are not exported: what is written here is what there is to know of them.', '', ...partsOf(modules),
    ...(rows.length > 0 ? ['## Other parts of the machine', '', '| name | declared in |', '|---|---|', ...rows, ''] : []),
  ]
}

function page({ title, imports, source }: Entry, modules: readonly Module[], mentioned: Mentioned): string {
  const parts = [...partsOf(modules), ...mentions(mentioned)]
  const links = modules.flatMap(({ declarations }) => declarations.map(({ name }) => `[${name}](#${name.toLowerCase()})`)).join(', ')
  const intro = [`# ${title}`, '',
    `What \`import ... from '${imports}'\` gives (\`${source}\`). This page is made by \`npm run docs\` from`,
    'the comments in the source. Each part names its file, and the manual that the file follows. Where nothing else is said: addresses',
    'and sizes are bytes, times are virtual nanoseconds, 64-bit registers and fields are `bigint`; a thrown `Error` is a mistake of the',
    'caller, an `InputError` is one of the input, and what software does wrong comes as a value.', '', headOf(source), '',
    `Contents: ${links}`, '']
  return [...intro, ...guides[imports] ?? [], ...parts].join('\n').trimEnd() + '\n'
}

/** What begins a page: a guide, whose snippets a test runs. */
const guides: Readonly<Record<string, readonly string[]>> = {
  'vitrine/hypervisor': readFileSync(join(root, 'docs/VMM.md'), 'utf8').trimEnd().split('\n').slice(2).concat(''),
}

/** Pages by name; what of them has no comment; names in them that nobody declares. */
export function documentation(): { pages: Map<string, string>; silent: string[]; unknown: string[] } {
  const folder = declarationFiles()
  try {
    const pages = new Map<string, string>()
    const silent: string[] = []
    const unknown: string[] = []
    const all = entries.map(entry => ({ entry, modules: modulesOf(entry, folder) }))
    const declared = new Set(all.flatMap(({ modules }) => modules.flatMap(({ declarations }) => declarations.map(({ name }) => name))))
    for (const { entry, modules } of all) {
      const mentioned = mentionedBy(modules, declared, folder)
      unknown.push(...mentioned.unknown)
      pages.set(entry.page, page(entry, modules, mentioned))
      for (const { source, declarations } of modules)
        for (const { name, comment } of declarations) if (!comment) silent.push(`${source}: ${name}`)
    }
    return { pages, silent, unknown }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

if (import.meta.main) {
  mkdirSync(target, { recursive: true })
  const { pages, silent } = documentation()
  for (const [name, text] of pages) writeFileSync(join(target, name), text)
  for (const each of silent) process.stderr.write(`docs: ${each} has no comment\n`)
}
