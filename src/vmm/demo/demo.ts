/** The demonstration: four guests of ours on two processors, watched. The report is plain data; who prints it is another matter. */
import { FairPolicy } from '../policy.ts'
import type { AnyExitKind } from '../exits.ts'
import { createGuest64 } from '../guest64.ts'
import type { Vcpu } from '../vcpu.ts'
import type { Vmm } from '../vmm.ts'
import { collatz, doubling, mailbox, mailVector, player } from './guests.ts'

const demoSlice = 100_000

export interface DemoMoment {
  /** Virtual nanoseconds. */
  time: number
  processor: number
  vcpu: string
  text: string
}
export interface DemoVcpu {
  name: string
  work: string
  said: string
  entries: number
  guestTime: number
  switches: number
  slices: number
  interrupts: number
  migrations: number
  fpuLoads: number
  pagesTouched: number
  exits: { kind: AnyExitKind; count: number; time: number }[]
}
export interface DemoReport {
  vendor: 'intel' | 'amd'
  seed: number
  processors: number
  /** When the first vCPU was created, and the end. */
  begin: number
  end: number
  /** Who was in a guest when, by processor. */
  lanes: { vcpu: string; from: number; to: number }[][]
  moments: DemoMoment[]
  /** The migration that was asked for. */
  migration: DemoMoment[]
  vcpus: DemoVcpu[]
  instructions: number
  /** Instructions that the hypervisor executed in root mode. */
  rootInstructions: number
  hostTime: number
  guestTime: number
  idleTime: number
}

/** Numbers from a seed. */
function numbers(seed: number): (below: number) => number {
  let state = (seed * 2654435761) >>> 0
  return below => {
    state = (state * 69069 + 1) >>> 0
    return (state >>> 8) % below
  }
}

/** Policy that `vmm` has to have for the demonstration. */
export const demoPolicy = (): FairPolicy => new FairPolicy(demoSlice)

/** Makes the guests of the demonstration, and runs them to their end. The same seed (32 bits) gives the same run. */
export function runDemo(vmm: Vmm, seed: number): DemoReport {
  const next = numbers(seed)
  const limit = 700 + next(500)
  const last = 6 + 2 * next(3)
  const power = 30 + next(20)
  const watch = new Watcher(vmm)
  const said = new Map<Vcpu, string>()
  const work = new Map<Vcpu, string>()
  const begin = vmm.hardware.now

  const add = (name: string, what: string, code: Parameters<typeof createGuest64>[1]['code'], say: (b: bigint, c: bigint) => string,
    more: Partial<Parameters<typeof createGuest64>[1]> = {}): Vcpu => {
    const { vcpu } = createGuest64(vmm, {
      name, code, ...more,
      handlers: {
        halt: () => 'wait',
        hypercall: ({ arguments: [b, c] }, caller) => {
          said.set(caller, say(b, c))
          return 'stop'
        },
        ...more.handlers,
      },
    })
    work.set(vcpu, what)
    return vcpu
  }

  const chain = add('collatz', `looks for the longest Collatz chain that begins below ${limit}`, collatz(limit),
    (steps, start) => `${steps} steps, from ${start}`)
  add('vectors', `doubles XMM0 ${power} times`, doubling(power), value => `2^${power} = ${value}`)
  const letters = new Map<string, bigint>()
  const players: Vcpu[] = []
  for (const [i, name] of ['ping', 'pong'].entries()) {
    players.push(add(name, `plays to ${last} through a device of the hypervisor's`, player(i === 0, last), value =>
      `the score is ${value}`, {
      interrupts: { [mailVector]: 'mail' },
      handlers: {
        mmioWrite: ({ address, value }) => {
          if (address !== mailbox) return undefined
          letters.set(name, value)
          vmm.interrupt(players[1 - i], mailVector)
          return 'done'
        },
        mmioRead: ({ address }) => (address === mailbox + 8 ? { value: letters.get(i === 0 ? 'pong' : 'ping') ?? 0n } : undefined),
      },
    }))
  }

  let end = vmm.run(begin + 400_000 + next(200_000))
  // shown is how a vCPU leaves a processor on which it runs
  while (end.kind === 'time' && chain.state !== 'running' && chain.state !== 'stopped') end = vmm.run(vmm.hardware.now + 5000)
  const from = chain.processor?.index ?? 0
  const asked = watch.migrationsSeen
  if (end.kind === 'time' && vmm.cpus.length > 1) vmm.migrate(chain, from === 0 ? 1 : 0)
  if (end.kind === 'time') end = vmm.run()
  if (end.kind === 'exit') throw new Error(end.explanation)
  if (end.kind !== 'done') throw new Error(`the demonstration ended with '${end.kind}'`)
  return {
    vendor: vmm.virtualizer.vendor, seed, processors: vmm.cpus.length, begin, end: vmm.hardware.now,
    lanes: watch.lanes, moments: watch.moments, migration: watch.migration(chain, asked),
    vcpus: vmm.vcpus.map(vcpu => describe(vcpu, work.get(vcpu)!, said.get(vcpu) ?? '')),
    instructions: vmm.hardware.retired,
    rootInstructions: vmm.cpus.reduce((sum, { processor }) => sum + processor.instructions, 0),
    ...sums(vmm),
  }
}

function describe(vcpu: Vcpu, work: string, said: string): DemoVcpu {
  const { entries, guestTime, switches, slices, injected, migrations, units, exits } = vcpu.statistics
  return {
    name: vcpu.name, work, said, entries, guestTime, switches, slices, interrupts: injected, migrations, fpuLoads: units.fpuLoads,
    pagesTouched: vcpu.guest.memory.statistics.firstTouches,
    exits: [...exits].map(([kind, { count, time }]) => ({ kind, count, time })).sort((a, b) => b.count - a.count),
  }
}

function sums(vmm: Vmm): { hostTime: number; guestTime: number; idleTime: number } {
  const sum = (name: 'hostTime' | 'guestTime' | 'idleTime'): number => vmm.cpus.reduce((all, { statistics }) => all + statistics[name], 0)
  return { hostTime: sum('hostTime'), guestTime: sum('guestTime'), idleTime: sum('idleTime') }
}

/** Keeps what the events say. */
class Watcher {
  readonly lanes: DemoReport['lanes']
  readonly moments: DemoMoment[] = []
  private readonly open: ({ vcpu: string; from: number } | undefined)[]
  private readonly steps: (DemoMoment & { of: Vcpu })[] = []

  constructor(vmm: Vmm) {
    this.lanes = vmm.cpus.map(() => [])
    this.open = vmm.cpus.map(() => undefined)
    vmm.onEvent = event => {
      const { time, processor } = event
      switch (event.kind) {
        case 'entry':
          this.open[processor] = { vcpu: event.vcpu.name, from: time }
          return
        case 'exit': {
          const entered = this.open[processor]
          if (entered) this.lanes[processor].push({ ...entered, to: time })
          this.open[processor] = undefined
          return
        }
        case 'created': return this.note(event, 'created')
        case 'waits': return this.note(event, 'halts and waits')
        case 'wakes': return this.note(event, 'wakes')
        case 'injected':
          return this.note(event, `gets interrupt ${event.vector.toString(16)}h${event.again ? ' again: an exit came between' : ''}`)
        case 'stopped': return this.note(event, 'has finished')
        case 'migration': {
          const text = stepText(event)
          this.steps.push({ time, processor, vcpu: event.vcpu.name, text, of: event.vcpu })
          return
        }
        default: return
      }
    }
  }
  private note({ time, processor, vcpu }: { time: number; processor: number; vcpu: Vcpu }, text: string): void {
    this.moments.push({ time, processor, vcpu: vcpu.name, text })
  }
  get migrationsSeen(): number {
    return this.steps.length
  }
  /** The steps of the migration that began after so many. */
  migration(vcpu: Vcpu, after: number): DemoMoment[] {
    const steps = this.steps.slice(after).filter(({ of }) => of === vcpu)
    const end = steps.findIndex(({ text }) => text.startsWith('enters'))
    return steps.slice(0, end + 1).map(({ of: _of, ...moment }) => moment)
  }
}

function stepText(event: Extract<Parameters<NonNullable<Vmm['onEvent']>>[0], { kind: 'migration' }>): string {
  switch (event.step) {
    case 'asked': return `is to leave processor ${event.from ?? 'none'} for processor ${event.to}`
    case 'interrupted': return `processor ${event.by} sends an interrupt to processor ${event.target}: the guest exits there`
    case 'released': return `${event.how}; FPU, debug registers and MSRs go to memory`
    case 'loaded': return `${event.how}, with a new ${event.how === 'VMPTRLD' ? 'VPID' : 'ASID'}, ${event.tag}`
    case 'entered': return `enters the guest by ${event.how}`
  }
}
