/** The installed package in a browser's worker: the small guest gives the run that it gives everywhere. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { inChromium, type ReadManifest, withResolvedImports } from './browser.ts'
import { install, pack } from './package.ts'

const page = `
import { WorkerMachine } from '/vitrine/dist/embedder/browser/index.js'
import { helloGuest } from '/vitrine/dist/guests/hello.js'

const start = options => new WorkerMachine(
  new Worker('/vitrine/dist/embedder/browser/worker-main.js', { type: 'module' }), { memory: 16 << 20, engine: 'jit', ...options },
)
let output = ''
const machine = start({ raw: helloGuest })
machine.onSerialOutput = bytes => { output += new TextDecoder().decode(bytes) }
const summary = await machine.ended
const refused = await start({ memory: 1 }).ended.catch(error => error.message)
await fetch('/', { method: 'POST', body: JSON.stringify({ output, summary, refused }) })
`

interface Result {
  output: string
  summary: { ending: { kind: string }; instructions: number }
  refused: string
  error?: string
}

test('the small guest boots in headless Chromium', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'vitrine-browser-'))
  const folder = install(pack(scratch))
  try {
    const { output, summary, refused, error } = await inChromium(folder, page) as Result
    assert.equal(error, undefined)
    assert.match(output, /Hello from under the glass\./)
    assert.deepEqual([summary.ending.kind, summary.instructions], ['power-off', 2285])
    assert.match(refused, /^memory: expected at least 2M/)
  } finally {
    for (const path of [scratch, folder]) rmSync(path, { recursive: true })
  }
})

test('names of packages become paths', () => {
  const manifests: Record<string, ReturnType<ReadManifest>> = {
    vitrine: { imports: { '#iced-x86': { browser: './dist/none.js', default: 'iced-x86' } } },
    both: { exports: { '.': { node: './node.js', import: { types: './x.d.ts', default: './esm.js' } } } },
    old: { module: 'module.js' },
  }
  const paths = (names: string[]): string[] => names.map(name => withResolvedImports(`import x from '${name}'`, each => manifests[each]))
  assert.deepEqual(paths(['@noble/hashes/sha2.js', '#iced-x86', 'both', 'old', './x.js']), [
    '/@noble/hashes/sha2.js', '/vitrine/dist/none.js', '/both/esm.js', '/old/module.js', './x.js',
  ].map(path => `import x from '${path}'`))
})
