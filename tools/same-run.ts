/**
 * Runs the same inputs twice, compiled early and cut by chance, and as the reference has it, and says where the runs part, to a few
 * nanoseconds. Both make the same pauses.
 *
 *   npx node tools/same-run.ts --kernel FILE [--initrd FILE] [--append TEXT]
 *
 * What runs
 *   --cpu MODEL  --smp N  --memory MIB      the machine (intel, 1, 256)
 *   --guests N  --vcpus N  --paging nested|shadow  --migrate MICROSECONDS
 *                        guests of our hypervisor, of --memory each; else the kernel runs on the machine itself
 * How it runs
 *   --seed N   --runs N  pauses by chance from these numbers on (1, 1)
 *   --spread NS          longest time between two pauses (1000000)
 *   --until NS           the end, if the guest does not come to one before (20000000000)
 *   --hot N              arrivals after which code is compiled, whatever it costs; a power of two (64)
 *   --late N             compiled code comes after the machine has looked for it so often (0: at once)
 *   --against ENGINE     interpreter, step, or jit, which compiles as usual and at once (jit)
 * Exit status: 0 they never parted, 1 they parted.
 */
import { readFileSync } from 'node:fs'
import { commandLine, refuse } from './command.ts'
import { VitrineMachine, type Internals } from '../src/machine.ts'
import { formatRunParting, whereRunsPart, type Look, type Run } from '../src/insight/lockstep/same-run.ts'
import { hardwareOf } from '../src/root-door.ts'
import { Board } from '../src/vmm/board/board.ts'
import { Vmm } from '../src/vmm/vmm.ts'
import { wander } from '../src/vmm/wander.ts'
import { LateBuilder } from '../test/properties/late-builder.ts'
import { Random } from '../test/properties/random.ts'

const text = { type: 'string' } as const
const { values: options } = commandLine(import.meta.url, {
  options: {
    kernel: text, initrd: text, append: { ...text, default: 'console=ttyS0 quiet' },
    cpu: { ...text, default: 'intel' }, smp: { ...text, default: '1' }, memory: { ...text, default: '256' }, guests: text,
    vcpus: { ...text, default: '1' }, paging: { ...text, default: 'nested' }, migrate: text, seed: { ...text, default: '1' },
    runs: { ...text, default: '1' }, spread: { ...text, default: '1000000' }, until: { ...text, default: '20000000000' },
    hot: { ...text, default: '64' }, late: { ...text, default: '0' }, against: { ...text, default: 'jit' },
  },
})
if (options.kernel === undefined) refuse(import.meta.filename, '--kernel FILE is needed')
const bytes = (path: string): Uint8Array => new Uint8Array(readFileSync(path))
const kernel = bytes(options.kernel)
const initrd = options.initrd === undefined ? undefined : bytes(options.initrd)
const memory = Number(options.memory) * 2 ** 20
const cpus = Number(options.smp)
type Engine = 'interpreter' | 'jit' | 'step'

/** What all CPUs have, between two runs. */
function lookAt(machine: VitrineMachine): Look {
  const look: Record<string, bigint | number> = { time: machine.now }
  for (let cpu = 0; cpu < cpus; cpu++) {
    const { gpr, rip, rflags } = machine.registers(cpu)
    Object.assign(look, { [`instructions${cpu}`]: machine.cpuAt(cpu).retired, [`rip${cpu}`]: rip, [`rflags${cpu}`]: rflags })
    gpr.forEach((value, i) => (look[`r${i}.${cpu}`] = value))
  }
  return look
}

function machineRun(engine: Engine, internals: Internals): { machine: VitrineMachine; to: Run['to'] } {
  const machine = new VitrineMachine({ cpu: { model: options.cpu }, cpus, memory, engine, noReboot: true, seed: 1,
    kernel, initrd, commandLine: options.append }, internals)
  return { machine, to: time => machine.run({ untilTime: time }).kind === 'time' }
}
function guestsRun(engine: Engine, internals: Internals, guests: number): { machine: VitrineMachine; to: Run['to'] } {
  const hardware = hardwareOf({ cpu: options.cpu, cpus, memory: guests * memory + (64 << 20), engine, seed: 1 }, internals)
  const vmm = new Vmm(hardware, { paging: options.paging as 'nested' | 'shadow' })
  for (let i = 1; i <= guests; i++)
    new Board(vmm, { name: `guest${i}`, memory, vcpus: Number(options.vcpus), kernel, initrd, commandLine: options.append,
      largePages: true })
  if (options.migrate !== undefined) wander(vmm, Number(options.migrate) * 1000)
  return { machine: hardware.machine, to: time => vmm.run(undefined, time).kind === 'paused' }
}

function run(engine: Engine, internals: Internals, eager: boolean): Run {
  const { guests } = options
  const { machine, to } = guests === undefined ? machineRun(engine, internals) : guestsRun(engine, internals, Number(guests))
  if (eager) machine.core.jit?.compileEagerly()
  return { to, look: () => lookAt(machine) }
}

const hurried = (): Run => {
  const late = Number(options.late)
  return run('jit', { hotThreshold: Number(options.hot), background: late > 0 ? new LateBuilder(late) : undefined }, true)
}
const reference = (): Run => run(options.against as Engine, {}, false)
const names = { left: 'compiled early', right: options.against }

for (let seed = Number(options.seed); seed < Number(options.seed) + Number(options.runs); seed++) {
  const random = new Random(seed)
  const pauses: number[] = []
  for (let time = 0; time < Number(options.until); pauses.push(time)) time += 1 + random.below(Number(options.spread))
  const found = whereRunsPart(hurried, reference, pauses, 16, each => console.log(formatRunParting(each, names)))
  if (found) process.exitCode = 1
  console.log(`pauses ${seed}: ${found ? formatRunParting(found, names) : 'the same'}`)
}
