/** Runs `vitrine bench`: boots the same files on each emulator in turn, and writes what came of it. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { plot } from '../../../bench/plot.ts'
import { generatedPart, replaceGenerated } from '../../../bench/report.ts'
import { alignedTable, disagreements, type Runs, summarize, table } from '../../../bench/results.ts'
import { chooseWorkloads, orderOf, type ProgramName, type Workload } from '../../../bench/workloads.ts'
import type { BenchRequest } from '../../../cli/system.ts'
import { InputError } from '../../../errors.ts'
import { expectWritable, writeFile } from '../files.ts'
import { onSignals } from '../process.ts'
import { runChecks } from './checks.ts'
import type { Phase } from '../../../bench/markers.ts'
import { measure } from './measure.ts'
import { type Partner, startPartner } from './partner.ts'
import { type Peer, peers, type Work } from './peers.ts'

const usualRounds = 3
const progress = (text: string): void => { if (process.stderr.isTTY) process.stderr.write(`bench: ${text}\n`) }

export async function bench(request: BenchRequest): Promise<void> {
  const chosen = choosePeers(request)
  const rounds = request.rounds ?? (request.quick ? 1 : usualRounds)
  for (const path of [request.json, request.svg]) if (path !== undefined) expectWritable(path)
  const scratch = mkdtempSync(join(tmpdir(), 'vitrine-bench-'))
  const clean = (): void => rmSync(scratch, { recursive: true, force: true })
  // A signal ends the process; emulators that run and the files for them go with it.
  process.once('exit', clean)
  const ignoreSignals = onSignals(ending => process.exit(ending.kind === 'signal' ? ending.status : 0))
  let partner: Partner | undefined
  try {
    const wanted = chooseWorkloads(request.only, request.quick)
    await refreshOurselves()
    const files = await filesFor(request, wanted.find(each => each.flavour)?.flavour, scratch)
    const workloads = present(wanted, files, request.only !== undefined)
    const { words, programs, phases } = orderOf(workloads)
    if (workloads.some(each => each.network)) partner = await startPartner()
    const append = `console=ttyS0 quiet panic=-1 nokaslr mitigations=off run=${words}${partner ? ` port=${partner.port}` : ''}`
    const { kernel, initrd } = files
    const work = { kernel, initrd, append, megabytes: 1024, vendor: request.cpu, scratch }
    const works: Work[] = programs.map(name => ({ ...work, kernel: files.programs[name]!, initrd: undefined }))
    if (words !== '' || programs.length === 0) works.unshift({ ...work, ...attached(workloads, scratch) })
    const runs = await allRuns(chosen, works, rounds, request.timeoutSeconds, phases)
    const summary = summarize(runs)
    process.stdout.write(`${alignedTable(table(summary))}\n`)
    const checks = request.checks ? await runChecks(work, progress) : []
    if (checks.length > 0) process.stdout.write(`\n${checks.join('\n')}\n`)
    const circumstances = { day: new Date().toISOString().slice(0, 10), machine: thisMachine(), rounds, append, checks }
    const data = `${JSON.stringify({ ...circumstances, runs: asData(runs) }, undefined, 2)}\n`
    if (request.json !== undefined) writeFile(request.json, data)
    const picture = plot(summary, `${circumstances.machine}; medians of ${rounds}`)
    if (request.svg !== undefined) writeFile(request.svg, picture)
    const wrong = disagreements(runs)
    if (wrong.length > 0) throw new InputError(`check values differ: ${wrong.join('; ')}`)
    if (request.report) {
      const document = existsSync('BENCHMARKS.md') ? readFileSync('BENCHMARKS.md', 'utf8') : '# Benchmarks\n'
      writeFile('BENCHMARKS.md', replaceGenerated(document, generatedPart(summary, circumstances)))
      writeFile('BENCHMARKS.json', data)
      writeFile('BENCHMARKS.svg', picture)
    }
  } finally {
    partner?.close()
    ignoreSignals()
    process.off('exit', clean)
    clean()
  }
}

/** A disk of each kind that is asked for, and the card. */
function attached(workloads: readonly Workload[], scratch: string): Pick<Work, 'disks' | 'network'> {
  const buses = [...new Set(workloads.flatMap(({ disk }) => disk ?? []))]
  const network = workloads.find(each => each.network)?.network
  return { disks: buses.map(bus => ({ file: makeDisk(scratch, bus), bus })), ...(network === undefined ? {} : { network }) }
}

/** 256 MiB of the words 0, 1, 2, ...: what is read is known. */
function makeDisk(scratch: string, name: string): string {
  const file = join(scratch, `${name}.img`)
  writeFileSync(file, new Uint8Array(BigUint64Array.from({ length: 2 ** 25 }, (_, i) => BigInt(i)).buffer))
  return file
}

/** Without the kernels that a folder of files does not have, unless they were asked for by name. */
function present(workloads: Workload[], { programs }: Files, named: boolean): Workload[] {
  const missing = workloads.find(({ program }) => program !== undefined && programs[program] === undefined)
  if (missing && named) throw new InputError(`--only ${missing.name}: expected the file '${missing.program}' beside vmlinuz, found none`)
  return workloads.filter(({ program }) => program === undefined || programs[program] !== undefined)
}

async function allRuns(
  chosen: readonly Peer[], works: readonly Work[], rounds: number, seconds: number, phases: ReadonlySet<string>,
): Promise<Runs> {
  const runs: Runs = new Map(chosen.map(({ name }) => [name, []]))
  for (const peer of chosen.filter(({ warmsUp }) => warmsUp)) {
    progress(`before the first round: ${peer.name}`)
    for (const work of works) await measure(peer, work, seconds)
  }
  for (let round = 1; round <= rounds; round++) {
    for (const peer of chosen) {
      progress(`round ${round} of ${rounds}: ${peer.name}`)
      const all: (readonly [string, Phase])[] = []
      for (const work of works) all.push(...await measure(peer, work, seconds * (peer.patience ?? 1)))
      runs.get(peer.name)!.push(new Map(all.filter(([phase]) => phases.has(phase))))
    }
  }
  return runs
}

interface Files {
  kernel: string
  initrd: string
  programs: Partial<Record<ProgramName, string>>
}

/** A checkout has the tools that build them; the installed package has not. */
async function filesFor({ files }: BenchRequest, flavour: Workload['flavour'], scratch: string): Promise<Files> {
  const folder = files ?? process.env['BENCH']
  if (folder !== undefined) {
    const found = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initramfs.cpio') }
    for (const file of Object.values(found)) if (!existsSync(file)) throw new InputError(`--files: expected ${file}, found nothing there`)
    const program = join(folder, 'switch')
    return { ...found, programs: existsSync(program) ? { switch: program } : {} }
  }
  const tools = new URL('../../../../tools/debian.ts', import.meta.url)
  if (!existsSync(tools)) throw new InputError('expected --files FOLDER with vmlinuz and initramfs.cpio (a checkout builds them itself)')
  const { benchFiles } = await import(tools.href) as { benchFiles: (folder: string, flavour?: string) => Files }
  return benchFiles(scratch, flavour)
}

/** We are measured as we are after an installation. In a package there is nothing to do. */
async function refreshOurselves(): Promise<void> {
  const tool = new URL('../../../../tools/bundle.ts', import.meta.url)
  if (existsSync(tool)) await (await import(tool.href) as { refresh: () => Promise<void> }).refresh()
}

function thisMachine(): string {
  return `${cpus().length} CPUs (${cpus()[0]?.model.trim() ?? 'unknown'}), Node ${process.versions.node}`
}

function asData(runs: Runs): unknown {
  return Object.fromEntries([...runs].map(([peer, all]) => [peer, all.map(run => Object.fromEntries(run))]))
}

function choosePeers({ peers: list, quick }: BenchRequest): Peer[] {
  if (list === undefined) return peers.filter(peer => peer.missing() === undefined && !(quick && peer.name === 'bochs'))
  return list.split(',').map(name => {
    const peer = peers.find(each => each.name === name)
    if (!peer) throw new InputError(`--peers '${name}': expected of ${peers.map(each => each.name).join(', ')}`)
    const missing = peer.missing()
    if (missing !== undefined) throw new InputError(`--peers ${name}: ${missing} is not installed`)
    return peer
  })
}
