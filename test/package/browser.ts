/** A headless Chromium (Debian's package) with one page of ours: it imports the installed package and posts back what it found. */
import { spawn } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, normalize } from 'node:path'

type Conditions = string | { [condition: string]: Conditions }

interface PackageManifest {
  exports?: Record<string, Conditions>
  imports?: Record<string, Conditions>
  module?: string
}

export type ReadManifest = (name: string) => PackageManifest

/** The first condition that holds in a browser, down to a path (Node.js documentation, "Packages", "Conditional exports"). */
function choose(conditions: Conditions | undefined): string | undefined {
  if (conditions === undefined || typeof conditions === 'string') return conditions
  return choose(Object.entries(conditions).find(([name]) => ['browser', 'import', 'default'].includes(name))?.[1])
}

/** A worker knows no import map: what a bundler does to names of packages, the server does here. */
export function withResolvedImports(source: string, manifestOf: ReadManifest): string {
  return source.replace(/\b(from|import)(\s*\(?\s*)'(#?[@\w][^']*)'/g, (_match, word: string, between: string, name: string) =>
    `${word}${between}'${pathOf(name, manifestOf)}'`)
}

function pathOf(name: string, manifestOf: ReadManifest): string {
  if (name.startsWith('#')) return normalize(`/vitrine/${choose(manifestOf('vitrine').imports?.[name]) ?? name}`)
  const parts = name.split('/')
  const own = parts.splice(0, name.startsWith('@') ? 2 : 1).join('/')
  if (parts.length > 0) return `/${name}`
  const { exports: table, module: entry = 'index.js' } = manifestOf(own)
  return normalize(`/${own}/${choose(table?.['.']) ?? entry}`)
}

const reportErrors = `
const post = text => fetch('/', { method: 'POST', body: JSON.stringify({ error: text }) })
addEventListener('error', event => post(event.message || 'cannot load ' + event.target.src), true)
addEventListener('unhandledrejection', event => post(String(event.reason)))
`

/** Serves `page` as `/`, packages below `folder`/node_modules, `files` by name, and takes the result. */
function serve(
  folder: string, page: string, files: Readonly<Record<string, string>>, done: (result: string) => void, complain: (text: string) => void,
): Server {
  const modules = join(folder, 'node_modules')
  const manifestOf: ReadManifest = name => JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8')) as PackageManifest
  return createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://localhost').pathname)
    if (request.method === 'POST') {
      let body = ''
      request.setEncoding('utf8').on('data', (part: string) => { body += part }).on('end', () => {
        response.end()
        done(body)
      })
    } else if (path === '/') {
      response.setHeader('content-type', 'text/html')
      response.end(`<!doctype html><script>${reportErrors}</script><script type="module">${page}</script>`)
    } else {
      try {
        const bytes = readFileSync(files[path.slice(1)] ?? join(modules, path))
        const script = path.endsWith('.js')
        response.setHeader('content-type', script ? 'text/javascript' : 'application/octet-stream')
        response.end(script ? withResolvedImports(bytes.toString(), manifestOf) : bytes)
      } catch {
        complain(`there is no ${path}`)
        response.writeHead(404).end()
      }
    }
  })
}

/** Opens the page; answers what it posts to `/`, or throws after `seconds`. */
export async function inChromium(
  folder: string, page: string, files: Readonly<Record<string, string>> = {}, seconds = 60,
): Promise<unknown> {
  const profile = mkdtempSync(join(tmpdir(), 'vitrine-chromium-'))
  let settle: (result: string) => void = () => {}
  const result = new Promise<string>(resolve => { settle = resolve })
  let complaints = ''
  const server = serve(folder, page, files, text => settle(text), text => { complaints += `${text}\n` })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', `--user-data-dir=${profile}`]
  const child = spawn('chromium', [...options, address], { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { complaints += text })
  const ended = new Promise<void>(resolve => { child.on('close', resolve) })
  const gone = new Promise<never>((_resolve, reject) => {
    const fail = (what: string): void => reject(new Error(`${what}:\n${complaints.slice(-2000)}`))
    child.on('error', error => fail(`chromium: ${error.message}`)).on('exit', status => fail(`chromium ended with ${status}`))
    setTimeout(() => fail(`no result in ${seconds} s`), seconds * 1000).unref()
  })
  try {
    return JSON.parse(await Promise.race([result, gone])) as unknown
  } finally {
    gone.catch(() => {})
    // The whole group: Chromium is many processes.
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL')
    await ended
    server.closeAllConnections()
    server.close()
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}
