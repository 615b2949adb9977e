/**
 * The command that runs one guest on two machines and says where they first part. `npx node tools/lockstep.ts --help`.
 */
import { existsSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { CpuSelection, MachineOptions } from '../src/api.ts'
import { findParting, readCode } from '../src/insight/lockstep/differ.ts'
import type { Peer } from '../src/insight/lockstep/peer.ts'
import { formatParting } from '../src/insight/lockstep/report.ts'
import { rawStart } from '../src/insight/lockstep/start.ts'
import type { RawMode, StartState } from '../src/insight/lockstep/start.ts'
import { VitrinePeer } from '../src/insight/lockstep/vitrine-peer.ts'
import { Bochs, BochsPeer } from './lockstep/bochs.ts'
import { followQemu } from './lockstep/follow-qemu.ts'
import { QemuPeer } from './lockstep/qemu-peer.ts'
import { Qemu } from './lockstep/qemu.ts'
import { ramRanges, startOfMachine, transplant } from './lockstep/transplant.ts'
import type { HeldMachine } from './lockstep/vitrine.ts'

const HELP = `Runs one guest on two machines, instruction by instruction, and says where they first part.

  npx node tools/lockstep.ts [--peer qemu|bochs] --raw FILE@ADDRESS:MODE
  npx node tools/lockstep.ts --kernel FILE [--initrd FILE] [--append TEXT] [--from ADDRESS]

What runs
  --raw FILE@ADDRESS:MODE  an image, entered at its first byte; MODE is real16, protected32 or long64
  --kernel FILE            a kernel that QEMU's firmware loads; our machine takes over QEMU's memory and registers at its entry
  --initrd FILE  --append TEXT
  --memory SIZE            RAM, such as 256M (default 256M; 32M with --raw)

On what
  --peer qemu|bochs        the machine on the right (default qemu)
  --left vitrine|qemu|bochs  the machine on the left (default vitrine)
  --method follow|step     follow: QEMU writes a log of its run, ours follows (about 50,000 instructions a second; the default for
                           vitrine against qemu). step: both are stepped by their debuggers (about 2,000 a second)
  --cpu NAME[,+f,-f]       our CPU model (default intel)
  --peer-cpu NAME[,+f,-f]  the peer's CPU model (default qemu64; bochs: corei7_skylake_x)
  --peer-arg ARG           a further argument for QEMU; may be repeated. --peer-arg=-device --peer-arg=edu

What is compared
  --from ADDRESS           begin at this linear address (hexadecimal); for --kernel the default is 100000, a bzImage's 32-bit entry
  --skip N                 step: execute N instructions before comparing
  --max N                  stop after N instructions (default: never; step: 1000000)
  --history N              instructions shown before the parting (default 20)
  --ignore NAME[,NAME]     registers that are not compared, such as cr2,xmm5
  --floating               follow: compare XMM registers, too (slower by half)
  --allow-loads N          follow: take over up to N differing loads from RAM, telling each, and go on
  --poke NAME=VALUE@N      step: change a register of the right machine before instruction N, to see the differ work
  --verbose                tell each value that was taken over from the peer

Time, ports, device memory, CPUID, RDMSR, interrupts and undefined flags are taken from the peer and counted ("repaired").
Exit status: 0 they never parted, 1 they parted, 2 wrong usage or a machine that could not be run.
`

class UsageError extends Error {}

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  verbose: { type: 'boolean' },
  floating: { type: 'boolean' },
  raw: { type: 'string' },
  kernel: { type: 'string' },
  initrd: { type: 'string' },
  append: { type: 'string' },
  memory: { type: 'string' },
  peer: { type: 'string', default: 'qemu' },
  left: { type: 'string', default: 'vitrine' },
  method: { type: 'string' },
  cpu: { type: 'string', default: 'intel' },
  'peer-cpu': { type: 'string' },
  'peer-arg': { type: 'string', multiple: true },
  from: { type: 'string' },
  skip: { type: 'string', default: '0' },
  max: { type: 'string' },
  history: { type: 'string', default: '20' },
  ignore: { type: 'string' },
  'allow-loads': { type: 'string', default: '0' },
  poke: { type: 'string' },
} as const

function readOptions(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, strict: true }).values
  } catch (error) {
    throw new UsageError(`${(error as Error).message}; --help lists the options`)
  }
}

type Options = ReturnType<typeof readOptions>

function number(text: string, option: string): number {
  if (!/^\d+$/.test(text)) throw new UsageError(`${option}: expected a decimal number, found "${text}"`)
  return Number(text)
}

function address(text: string, option: string): bigint {
  if (!/^(0x)?[0-9a-fA-F]{1,16}$/.test(text)) throw new UsageError(`${option}: expected a hexadecimal address, found "${text}"`)
  return BigInt(`0x${text.replace(/^0x/, '')}`)
}

function oneOf<T extends string>(text: string, allowed: readonly T[], option: string): T {
  const found = allowed.find((each) => each === text)
  if (found === undefined) throw new UsageError(`${option}: expected ${allowed.join(', ')}; found "${text}"`)
  return found
}

function file(path: string | undefined, option: string): string | undefined {
  if (path !== undefined && !existsSync(path)) throw new UsageError(`${option}: no such file: ${path}`)
  return path
}

function memorySize(options: Options): number {
  const text = options.memory ?? (options.raw ? '32M' : '256M')
  const match = /^(\d+)([MG])$/i.exec(text)
  if (!match) throw new UsageError(`--memory: expected a size such as 256M or 1G, found "${text}"`)
  return Number(match[1]) * (match[2].toUpperCase() === 'G' ? 2 ** 30 : 2 ** 20)
}

function rawImage(options: Options): { image: Uint8Array; at: number; mode: RawMode } | undefined {
  if (options.raw === undefined) return undefined
  const match = /^(.+)@(0x)?([0-9a-fA-F]+):(\w+)$/.exec(options.raw)
  if (!match) throw new UsageError(`--raw: expected FILE@ADDRESS:MODE, found "${options.raw}"`)
  const mode = oneOf(match[4], ['real16', 'protected32', 'long64'] as const, '--raw')
  return { image: new Uint8Array(readFileSync(file(match[1], '--raw')!)), at: parseInt(match[3], 16), mode }
}

/** `intel,+f,-f` */
function ourCpu(text: string): CpuSelection {
  const [model, ...features] = text.split(',')
  const chosen = (sign: string): string[] => features.filter((feature) => feature.startsWith(sign)).map((feature) => feature.slice(1))
  return { model, add: chosen('+'), remove: chosen('-') }
}

/** Loaded when it is needed: the peers can be compared while our machine is in pieces. */
async function ourMachine(options: MachineOptions): Promise<HeldMachine> {
  const { HeldMachine } = await import('./lockstep/vitrine.ts')
  return new HeldMachine(options)
}

interface Setup {
  options: Options
  memory: number
  raw: ReturnType<typeof rawImage>
  machine: HeldMachine | undefined
  start: StartState | undefined
}

async function setUp(options: Options): Promise<Setup> {
  const memory = memorySize(options)
  const raw = rawImage(options)
  if (!raw === !options.kernel) throw new UsageError('exactly one of --raw and --kernel is needed')
  file(options.kernel, '--kernel')
  file(options.initrd, '--initrd')
  const left = oneOf(options.left, ['vitrine', 'qemu', 'bochs'] as const, '--left')
  const halt = { image: Uint8Array.of(0xf4), at: 0x1000, mode: 'protected32' } as const // replaced by QEMU's memory
  const machine = left === 'vitrine' ? await ourMachine({ memory, raw: raw ?? halt, cpu: ourCpu(options.cpu) }) : undefined
  const start = !raw ? undefined : machine ? startOfMachine(machine, memory) : rawStart(raw.image, raw.at, raw.mode)
  return { options, memory, raw, machine, start }
}

function launchQemu({ options, memory, start }: Setup): Promise<Qemu> {
  const { kernel, initrd, append } = options
  return Qemu.launch({ memory, cpu: options['peer-cpu'], start, kernel, initrd, append, extra: options['peer-arg'] })
}

function tell(text: string): void {
  process.stderr.write(`lockstep: ${text}\n`)
}

function progress(): ((count: number) => void) | undefined {
  if (!process.stderr.isTTY) return undefined
  const begun = performance.now()
  return (count) => {
    const rate = Math.round(count / ((performance.now() - begun) / 1000))
    process.stderr.write(`\r${count.toLocaleString('en')} instructions alike, ${rate.toLocaleString('en')} a second  `)
  }
}

function summary(kind: string, count: number, repairs: Map<string, number>): string {
  const repaired = [...repairs].map(([cause, times]) => `${cause} ${times}`).join(', ')
  return `${count} instructions alike (${kind})${repaired ? `; taken over from the peer: ${repaired}` : ''}`
}

function common(options: Options) {
  const onRepair = options.verbose
    ? (cause: string, instruction: string, count: number): void => tell(`at ${count}: ${cause}: ${instruction}`)
    : undefined
  const history = number(options.history, '--history')
  return { history, ignore: new Set(options.ignore?.split(',') ?? []), onRepair, onProgress: progress() }
}

async function follow(setup: Setup, machine: HeldMachine): Promise<number> {
  const { options, memory } = setup
  const qemu = await launchQemu(setup)
  try {
    const from = options.from ? address(options.from, '--from') : options.kernel ? 0x100000n : undefined
    const result = await followQemu(qemu, machine, {
      ...common(options),
      memory,
      from,
      maxInstructions: options.max ? number(options.max, '--max') : Infinity,
      allowLoads: number(options['allow-loads'], '--allow-loads'),
      floating: options.floating ?? false,
      onRemark: tell,
    })
    tell(summary(result.kind, result.count, result.repairs))
    if (!result.parting) return 0
    const names = { left: 'Vitrine', right: 'QEMU' }
    process.stdout.write((await formatParting(result.parting, names, (at, length) => result.follower.readLinear(at, length))) + '\n')
    return 1
  } finally {
    qemu.close()
  }
}

async function openPeer(name: 'vitrine' | 'qemu' | 'bochs', side: string, setup: Setup): Promise<Peer> {
  const { options, memory, machine, start } = setup
  if (name === 'vitrine') {
    if (!machine) throw new Error('our machine was not made')
    const ranges = ramRanges(memory)
    return new VitrinePeer(machine, { isMemory: (physical) => ranges.some(([from, to]) => physical >= from && physical < to) })
  }
  if (name === 'bochs') {
    if (!start) throw new UsageError('bochs runs --raw images only')
    return new BochsPeer(await Bochs.launch({ memory, start, cpu: options['peer-cpu'] }), `Bochs ${side}`)
  }
  const qemu = await launchQemu(setup)
  if (!start) {
    await qemu.gdb.resumeTo(options.from ? address(options.from, '--from') : 0x100000n)
    if (machine) for (const remark of await transplant(qemu, machine, memory, true)) tell(remark)
  }
  return new QemuPeer(qemu, `QEMU ${side}`)
}

/** `rax=5@2500` */
function poke(options: Options, peer: Peer): ((count: number) => Promise<void>) | undefined {
  if (options.poke === undefined) return undefined
  const match = /^(\w+)=([0-9a-fA-Fx]+)@(\d+)$/.exec(options.poke)
  if (!match) throw new UsageError(`--poke: expected NAME=VALUE@COUNT, found "${options.poke}"`)
  const value = address(match[2], '--poke')
  return async (count) => {
    if (count === Number(match[3])) await peer.write({ [match[1]]: value })
  }
}

async function step(setup: Setup, leftName: 'vitrine' | 'qemu' | 'bochs', rightName: 'qemu' | 'bochs'): Promise<number> {
  const { options, start } = setup
  const peers: Peer[] = []
  try {
    // The right one first: our machine may take its state over from it.
    peers.push(await openPeer(rightName, 'right', setup))
    peers.push(await openPeer(leftName, 'left', setup))
    const [right, left] = peers
    if (start && options.from) await Promise.all(peers.map((peer) => peer.continueTo(address(options.from!, '--from'))))
    const result = await findParting(left, right, {
      ...common(options),
      maxSteps: options.max ? number(options.max, '--max') : 1_000_000,
      skip: number(options.skip, '--skip'),
      beforeStep: poke(options, right),
    })
    tell(summary(result.kind, result.steps, result.repairs))
    if (!result.parting) return 0
    const names = { left: left.name, right: right.name }
    process.stdout.write((await formatParting(result.parting, names, (at) => readCode(right, at))) + '\n')
    return 1
  } finally {
    for (const peer of peers) await peer.close()
  }
}

async function main(args: string[]): Promise<number> {
  const options = readOptions(args)
  if (options.help) {
    process.stdout.write(HELP)
    return 0
  }
  const left = oneOf(options.left, ['vitrine', 'qemu', 'bochs'] as const, '--left')
  const right = oneOf(options.peer, ['qemu', 'bochs'] as const, '--peer')
  const usual = left === 'vitrine' && right === 'qemu' ? 'follow' : 'step'
  const method = oneOf(options.method ?? usual, ['follow', 'step'] as const, '--method')
  const setup = await setUp(options)
  if (method === 'step') return step(setup, left, right)
  if (!setup.machine || right !== 'qemu') throw new UsageError('--method follow: needs --left vitrine and --peer qemu')
  return follow(setup, setup.machine)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  tell(error instanceof UsageError || process.env.LOCKSTEP_STACK === undefined ? (error as Error).message : String((error as Error).stack))
  process.exitCode = 2
}
