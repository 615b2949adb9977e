#!/usr/bin/env node
// Starts the command line on the Node that the project pins, whichever Node was asked: generated code is fastest there,
// and older ones cannot run TypeScript. When the asked one is the pinned one already (npx, npm scripts), nothing is spawned.
import * as nodeModule from 'node:module'
import { fileURLToPath } from 'node:url'

// An import would ask these for all that they export, and load streams for it: a 20th of the time of a start.
const require = nodeModule.createRequire(import.meta.url)
const { existsSync, readFileSync } = require('node:fs')
const { availableParallelism } = require('node:os')
const { setFlagsFromString } = require('node:v8')

const root = new URL('..', import.meta.url)
// In the package that users install there is no source, and any Node from 20 on will do.
const installed = !existsSync(new URL('src', root))
const windows = process.platform === 'win32'
const pinned = fileURLToPath(new URL(windows ? 'node_modules/.bin/node.cmd' : 'node_modules/.bin/node', root))

function pinnedMajor() {
  const { optionalDependencies = {} } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  return Number.parseInt(Object.values(optionalDependencies)[0] ?? '26', 10)
}

const major = Number.parseInt(process.versions.node, 10)
if (installed ? major >= 20 : major >= pinnedMajor()) {
  // Node 26's V8 (14) may read an old value of a number that a closure has just changed, once the code is hot: CONTRIBUTING.md.
  if (major === 26) setFlagsFromString('--no-function-context-cells')
  // Before anything is loaded, and the same in all threads: code that was compiled under other flags is not used again.
  setFlagsFromString('--no-wasm-lazy-compilation')
  // Bytes of a function of generated code that are executed before it is optimised. Regions are large and most of them run seldom:
  // with V8's 13 million the optimiser is busy with code that does not pay for it, while the machine wants the processor.
  setFlagsFromString('--wasm-tiering-budget=60000000')
  // One processor is the machine's: as many functions at a time as there are others.
  setFlagsFromString(`--wasm-num-compilation-tasks=${Math.max(1, availableParallelism() - 1)}`)
  // Keeps types stripped and code compiled between runs, in the temporary folder.
  nodeModule.enableCompileCache?.()
  // In the source every import is a path with its ending: nothing to look for, which takes a seventh of that time in Node's own resolution.
  if (!installed) nodeModule.registerHooks?.({ resolve: resolveSource })
  const { start } = await import(installed ? '../dist/embedder/node/start.js' : '../src/embedder/node/start.ts')
  await start(process.argv.slice(2))
} else if (installed) {
  process.stderr.write(`vitrine: needs Node 20 or newer, and was started by ${process.versions.node}\n`)
  process.exitCode = 2
} else if (existsSync(pinned)) {
  await runOn(pinned)
} else {
  const found = `needs Node ${pinnedMajor()} and was started by ${process.versions.node}`
  process.stderr.write(`vitrine: ${found}: run "npm ci" in the project's folder, which brings the right one\n`)
  process.exitCode = 2
}

function resolveSource(specifier, context, next) {
  if (!specifier.startsWith('.') || !specifier.endsWith('.ts')) return next(specifier, context)
  let folder = context.parentURL.slice(0, context.parentURL.lastIndexOf('/'))
  let path = specifier.startsWith('./') ? specifier.slice(2) : specifier
  for (; path.startsWith('../'); path = path.slice(3)) folder = folder.slice(0, folder.lastIndexOf('/'))
  return { url: `${folder}/${path}`, format: 'module-typescript', shortCircuit: true }
}

/** Runs ourselves on another Node as if it were this process: same terminal, signals and exit status. */
async function runOn(node) {
  const { spawn } = await import('node:child_process')
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
    shell: windows,
    env: { ...process.env, VITRINE_LAUNCHER: String(process.pid) },
  })
  // A terminal sends these to the whole process group, so the child has them already: sent twice they would mean "at once".
  const fromTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']) {
    if (windows && signal !== 'SIGINT') continue
    process.on(signal, () => {
      if (!(fromTerminal && (signal === 'SIGINT' || signal === 'SIGQUIT' || signal === 'SIGHUP'))) child.kill(signal)
    })
  }
  const [status, signal] = await new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (...how) => resolve(how))
  })
  if (signal) {
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  } else {
    process.exitCode = status
  }
}
