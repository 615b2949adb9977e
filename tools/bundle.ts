/**
 * Puts our own code into two files, one for the program and one for its thread that compiles: a start then loads those instead of
 * 400 modules, and V8's code for them can be kept whole (src/embedder/node/own-code.ts). `npm ci` and `npm run prepare` call this. The
 * source runs without it, too, and does when it has changed since.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'esbuild'
import { digestOf } from '../src/embedder/node/digest.ts'
import {
  bundleFolder, contentsFile, currentContents, stampOf, type BundleContents, type BundleName,
} from '../src/embedder/node/own-code.ts'

const root = fileURLToPath(new URL('../', import.meta.url))

/** What a module says of its own place stays true: it is relative to `rootOfBundle`, the function's parameter. */
const placeOfModules: Plugin = {
  name: 'place of modules',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, ({ path }) => {
      const place = `new URL(${JSON.stringify(relative(root, path).replaceAll('\\', '/'))}, rootOfBundle).href`
      return { contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', place), loader: 'ts' }
    })
  },
}

const entries: Record<BundleName, string> = { program: 'src/embedder/node/main.ts', worker: 'src/embedder/node/compile-worker.ts' }

/** Makes them anew. `folder`: a URL. */
export async function bundle(folder: URL): Promise<void> {
  const { build } = await import('esbuild')
  const to = fileURLToPath(folder)
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { recursive: true })
  const inputs = new Set<string>()
  const made: Buffer[] = []
  for (const [name, entry] of Object.entries(entries)) {
    const outfile = join(to, `${name}.cjs`)
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: [entry],
      outfile,
      metafile: true,
      bundle: true,
      format: 'cjs',
      platform: 'node',
      target: `node${process.versions.node}`,
      // it is read at every start; names stay, for stacks and profiles
      minifyWhitespace: true,
      charset: 'ascii',
      banner: { js: '(function (require, module, rootOfBundle) {' },
      footer: { js: '})' },
      plugins: [placeOfModules],
      logLevel: 'error',
    })
    for (const path of Object.keys(metafile.inputs)) inputs.add(path)
    made.push(readFileSync(outfile))
  }
  const files = [...inputs].sort()
  const stamps = files.flatMap(path => stampOf(join(root, path)))
  const contents: BundleContents = { name: digestOf(Buffer.concat(made)), files, stamps }
  writeFileSync(join(to, contentsFile), JSON.stringify(contents))
}

/** Makes them unless they are those of the source as it is. Who installs without development's packages runs the source. */
export async function refresh(): Promise<void> {
  if (existsSync(join(root, 'node_modules/esbuild')) && !currentContents(bundleFolder)) await bundle(bundleFolder)
}

if (import.meta.main) {
  // an installation goes on: nothing depends on it but how soon a run starts
  await refresh().catch((error: unknown) => {
    process.stderr.write(`bundle: ${String(error).split('\n')[0]}; runs start from the modules themselves\n`)
  })
}
