/** Measures Vitrine beside other emulators on the same kernel and programs: `npm run bench -- --help`. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Phase, Markers } from './bench/markers.ts'
import { type Peer, peers, type Work } from './bench/peers.ts'
import { benchFiles } from './debian.ts'

const help = `\
usage: npm run bench -- [options]

  --files FOLDER      vmlinuz and initramfs.cpio (default: $BENCH, else built from test/guests/bench)
  --phases LIST       what the guest runs, in commas (default: the ten programs and the shell's two); kvm for the nested ones
  --peers LIST        of ${peers.map(({ name }) => name).join(', ')} (default: those that are installed)
  --rounds N          runs of each, in turn (default: 3)
  --timeout SECONDS   of one run (default: 600); the interpreter has 4 times that, Bochs 10 times
  --cpu intel|amd     vendor, where an emulator has both (default: intel)
  --quick             one round of four short programs, without Bochs
  --report            write BENCHMARKS.md and BENCHMARKS.json
  --json FILE         all times, as data
`

const programs = 'sort,sha256,coremix,chase,memcpy,nbody,getppid,pgfault,forkexec,pingpong,sh'
const quickPrograms = 'chase,nbody,getppid,forkexec'

export type Runs = Map<string, Map<string, Phase>[]>

class BenchError extends Error {
  override readonly name = 'BenchError'
}

/** One boot. Fails when the guest does not come to its end. */
async function measure(peer: Peer, work: Work, seconds: number): Promise<Map<string, Phase>> {
  const [program, ...args] = peer.command(work)
  const markers = new Markers(performance.now())
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  // The whole group: some peers are a shell with children.
  const stop = (): void => {
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch {
      // Ended by itself.
    }
  }
  const timer = setTimeout(stop, seconds * 1000)
  process.once('exit', stop)
  await new Promise<void>((resolve, reject) => {
    child.on('error', reject).on('close', () => resolve())
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      markers.see(text, performance.now())
      if (markers.done) stop()
    })
  })
  clearTimeout(timer)
  process.off('exit', stop)
  if (!markers.done) throw new BenchError(`${peer.name} did not come to its end (${seconds} s); last on its console:\n${markers.tail}`)
  return markers.phases
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Seconds by phase and peer, with how many times faster than each peer the first one is. */
export function table(runs: Runs): string {
  const names = [...runs.keys()]
  const seconds = (peer: string, phase: string): number => median(runs.get(peer)!.flatMap(run => run.get(phase)?.seconds ?? []))
  const phases = [...new Set([...runs.values()].flat().flatMap(run => [...run.keys()]))]
  const others = names.slice(1)
  const ratio = (other: string, phase: string): number => seconds(other, phase) / seconds(names[0], phase)
  const cell = (value: number): string => (Number.isFinite(value) ? value.toFixed(2) : '-')
  const rows = phases.map(phase => [
    phase, ...names.map(name => cell(seconds(name, phase))), ...others.map(other => cell(ratio(other, phase))),
  ])
  const means = others.map(other => {
    const all = phases.map(phase => ratio(other, phase)).filter(Number.isFinite)
    return cell(Math.exp(all.reduce((sum, value) => sum + Math.log(value), 0) / all.length))
  })
  rows.push(['geometric mean', ...names.map(() => ''), ...means])
  const head = ['phase', ...names.map(name => `${name} (s)`), ...others.map(other => `${other} / ${names[0]}`)]
  return [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n')
}

/** Every emulator must have computed the same. */
export function disagreements(runs: Runs): string[] {
  const checks = new Map<string, Map<string, string>>()
  for (const [peer, all] of runs) {
    for (const run of all) {
      for (const [phase, { check }] of run) {
        const seen = checks.get(phase) ?? new Map<string, string>()
        checks.set(phase, seen.set(check, peer))
      }
    }
  }
  return [...checks].filter(([, seen]) => seen.size > 1)
    .map(([phase, seen]) => `${phase}: ${[...seen].map(([check, peer]) => `${peer} says ${check}`).join(', ')}`)
}

async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      help: { type: 'boolean', short: 'h' },
      files: { type: 'string' },
      phases: { type: 'string' },
      peers: { type: 'string' },
      rounds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      report: { type: 'boolean', default: false },
      timeout: { type: 'string', default: '600' },
      cpu: { type: 'string', default: 'intel' },
      json: { type: 'string' },
    },
  })
  if (values.help) return void process.stdout.write(help)
  const chosen = choosePeers(values.peers).filter(({ name }) => !values.quick || values.peers !== undefined || name !== 'bochs')
  const phases = values.phases ?? (values.quick ? quickPrograms : programs)
  const rounds = positive('--rounds', values.rounds ?? (values.quick ? '1' : '3'))
  const timeout = positive('--timeout', values.timeout)
  if (values.cpu !== 'intel' && values.cpu !== 'amd') throw new BenchError(`--cpu '${values.cpu}': expected intel or amd`)
  const scratch = mkdtempSync(join(tmpdir(), 'vitrine-bench-'))
  try {
    const folder = values.files ?? process.env['BENCH']
    const files = folder === undefined ? benchFiles(scratch) : { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initramfs.cpio') }
    const append = `console=ttyS0 quiet panic=-1 nokaslr mitigations=off run=${phases}`
    const work: Work = { ...files, append, megabytes: 1024, vendor: values.cpu, scratch }
    const runs: Runs = new Map(chosen.map(({ name }) => [name, []]))
    for (let round = 1; round <= rounds; round++) {
      for (const peer of chosen) {
        if (process.stderr.isTTY) process.stderr.write(`round ${round} of ${rounds}: ${peer.name}\n`)
        runs.get(peer.name)!.push(await measure(peer, work, timeout * (peer.patience ?? 1)))
      }
    }
    process.stdout.write(`${table(runs)}\n`)
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(asData(runs), undefined, 2)}\n`)
    const wrong = disagreements(runs)
    if (wrong.length > 0) throw new BenchError(`check values differ: ${wrong.join('; ')}`)
    if (values.report) writeReport(runs, append, rounds)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** What the report says besides the table: on what, and how it was measured. */
function writeReport(runs: Runs, append: string, rounds: number): void {
  const day = new Date().toISOString().slice(0, 10)
  const machine = `${cpus().length} CPUs (${cpus()[0]?.model.trim() ?? 'unknown'}), Node ${process.versions.node}`
  const text = `# Benchmarks

\`npm run bench -- --report\` boots the same kernel and initial RAM disk on Vitrine (its JIT, and its interpreter) and on the emulators that
are installed, in turn, and prints medians and ratios. The programs are in \`test/guests/bench\`; \`boot\` is from the start of the process
to Linux's first program. Times are taken outside, when the marker lines arrive: guests' clocks are virtual. Every phase's check value
was the same on all of them.

Measured on ${day}: ${machine}, ${rounds} rounds, 1 CPU and 1 GiB in each guest, command line \`${append}\`.
A ratio above 1 means that Vitrine's JIT is faster.

${table(runs)}
`
  writeFileSync('BENCHMARKS.md', text)
  writeFileSync('BENCHMARKS.json', `${JSON.stringify(asData(runs), undefined, 2)}\n`)
}

function asData(runs: Runs): unknown {
  return Object.fromEntries([...runs].map(([peer, all]) => [peer, all.map(run => Object.fromEntries(run))]))
}

function choosePeers(list: string | undefined): Peer[] {
  const names = list?.split(',')
  for (const name of names ?? []) {
    const peer = peers.find(each => each.name === name)
    if (!peer) throw new BenchError(`--peers '${name}': expected of ${peers.map(each => each.name).join(', ')}`)
    const missing = peer.missing()
    if (missing !== undefined) throw new BenchError(`--peers ${name}: ${missing} is not installed`)
  }
  return peers.filter(peer => (names ? names.includes(peer.name) : peer.missing() === undefined))
}

function positive(option: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new BenchError(`${option} '${text}': expected a number above 0`)
  return value
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2))
  } catch (error) {
    const { name, code, message } = error as Error & { code?: string }
    if (name !== 'BenchError' && name !== 'DebianError' && !code?.startsWith('ERR_PARSE_ARGS')) throw error
    process.stderr.write(`bench: ${message}\n`)
    process.exitCode = 2
  }
}
