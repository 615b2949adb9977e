/** `vitrine vmm`: the hypervisor in TypeScript, with guests of its own or with kernels from files. */
import { Command, Option } from 'commander'
import { InputError } from '../errors.ts'
import { assignedDemo, assignedMachine } from '../vmm/demo/assigned.ts'
import { demoPolicy, runDemo, type DemoReport } from '../vmm/demo/demo.ts'
import type { ApicKind } from '../vmm/apic/assist.ts'
import { type BoardOptions, standsForGood } from '../vmm/board/board.ts'
import type { Paging } from '../vmm/options.ts'
import type { HypervisorOptions } from '../vmm/machine-options.ts'
import { MapStore } from '../vmm/pager.ts'
import { parseDrives } from './drives.ts'
import { cardModels } from './networks.ts'
import { statusOf, statuses } from './status.ts'
import type { GuestsResult, System } from './system.ts'
import { parseCount, parseDevice, parseMemory, parseSeconds } from './values.ts'
import { journey, picture } from './vmm-picture.ts'

interface Options {
  cpu: 'intel' | 'amd' | 'both'
  cpus: string
  seed: string
  json?: boolean
  kernel?: string
  initrd?: string
  append: string
  guests: string
  vcpus: string
  memory: string
  physical?: string
  device?: string[]
  drive?: string[]
  net?: true | 'virtio' | 'e1000'
  paging: Paging
  migrate?: string
  reboot?: boolean
  apic: ApicKind
  assign?: string
  timeout?: string
  quiet?: boolean
}

const mostProcessors = 8
const mostGuests = 16
const mostVcpus = 8
/** What the hypervisor itself needs, and what the machine can have below 4 GiB. */
const ownMemory = 64 << 20
const leastMemory = 16 << 20
const mebi = 2 ** 20
const mostMemory = 3 * 2 ** 30
const largeUnit = 2 ** 21

/** Options that say something of guests with a kernel only. */
const forKernels: readonly (keyof Options)[] = ['initrd', 'append', 'guests', 'vcpus', 'memory', 'physical', 'paging', 'device', 'drive',
  'net', 'apic', 'migrate', 'reboot', 'timeout', 'quiet']

const collect = (value: string, all: string[] = []): string[] => [...all, value]
const network = 'guests'

export function vmmCommand(system: System, done: (status: number) => void): Command {
  return new Command('vmm')
    .description('a hypervisor in TypeScript: the life of four virtual CPUs, with no files; or guests with a kernel')
    .addOption(new Option('--cpu <vendor>', 'the physical processors: VT-x, AMD-V, or (without a kernel) one after the other')
      .choices(['intel', 'amd', 'both']).default('both'))
    .option('--cpus <n>', 'physical processors', '2')
    .option('--seed <n>', 'another run; the same number gives the same run again', '1')
    .option('--json', 'the report as JSON instead of a picture; with a kernel one document at the end, with the consoles in it')
    .addOption(new Option('--assign <device>',
      'edu: a guest that owns a device, and the journey of its DMA; with a kernel nvme=IMAGE: a disk of the machine for the first guest'))
    .optionsGroup('Guests with a kernel:')
    .option('--kernel <file>', 'Linux bzImage')
    .option('--initrd <file>', 'initial RAM disk')
    .option('--append <text>', "the kernel's command line", 'console=ttyS0 quiet')
    .option('--guests <n>', 'how many guests', '1')
    .option('--vcpus <n>', 'virtual CPUs of each', '1')
    .option('--memory <size>', 'memory of each', '256M')
    .option('--physical <size>', 'memory of the machine; less than the guests have in all is allowed: pages go out')
    .addOption(new Option('--paging <way>', 'who translates their addresses: EPT or NPT, or page tables of the hypervisor')
      .choices(['nested', 'shadow']).default('nested'))
    .option('--device <name>', 'a device of each, as of `run`; again for another one', collect)
    .option('--drive <image>', 'a disk of each, as of `run`; what is written is kept in memory', collect)
    .addOption(new Option('--net [card]', 'a network card in each guest (virtio, the default, or e1000), and a network between them')
      .choices(['virtio', 'e1000']))
    .addOption(new Option('--apic <who>', "who keeps the guests' local APICs: the processors as far as they can, or the hypervisor alone")
      .choices(['virtual', 'emulated']).default('virtual'))
    .option('--migrate <microseconds>', 'send a virtual CPU to another processor every so often')
    .option('--reboot', 'a guest that resets itself starts again from its kernel, with its disks as at the start; else it is over')
    .option('--timeout <seconds>', 'end after so much wall time')
    .option('--quiet', 'nothing but the guests')
    .action(async (options: Options, command: Command) => {
      const cpus = parseCount(options.cpus, '--cpus', 1, mostProcessors)
      const seed = parseCount(options.seed, '--seed', 0, 0xffffffff)
      const typed = command.options.map(option => option.attributeName()).filter(name => command.getOptionValueSource(name) === 'cli')
      if (options.kernel !== undefined) {
        if (options.cpu === 'both' && typed.includes('cpu')) throw new InputError('--cpu both: expected intel or amd with --kernel')
        return done(await runKernels(options, options.kernel, cpus, seed, system))
      }
      const lost = forKernels.find(name => typed.includes(name))
      if (lost !== undefined) throw new InputError(`--${lost}: expected --kernel beside it: without a kernel there are guests of ours`)
      if (options.assign !== undefined) return await assign(options, seed, system)
      const reports: DemoReport[] = []
      for (const cpu of options.cpu === 'both' ? (['intel', 'amd'] as const) : [options.cpu]) {
        const report = runDemo(await system.hypervisor({ cpu, cpus, seed, policy: demoPolicy() }), seed)
        reports.push(report)
        if (!options.json) system.print(picture(report))
      }
      if (options.json) system.print(`${JSON.stringify(reports, undefined, 2)}\n`)
    })
}

async function assign({ cpu, json, assign: device }: Options, seed: number, system: System): Promise<void> {
  if (device !== 'edu') throw new InputError(`--assign: expected edu, or with --kernel nvme=IMAGE, found '${device}'`)
  if (cpu === 'amd') throw onIntel()
  const demo = assignedDemo()
  const report = demo.run(await system.hypervisor({ ...assignedMachine, seed, onRemappingEvent: demo.told }))
  const plain = { ...report, faults: report.faults.map(({ guest, ...fault }) => ({ ...fault, guest: guest?.name })) }
  system.print(json ? `${JSON.stringify(plain, undefined, 2)}\n` : journey(report))
}

async function runKernels(options: Options, kernelFile: string, cpus: number, seed: number, system: System): Promise<number> {
  const guests = parseCount(options.guests, '--guests', 1, mostGuests)
  const vcpus = parseCount(options.vcpus, '--vcpus', 1, mostVcpus)
  const memory = parseMemory(options.memory, '--memory')
  const all = options.physical === undefined
    ? Math.ceil((guests * memory + ownMemory) / largeUnit) * largeUnit : parseMemory(options.physical, '--physical')
  if (all > mostMemory) throw new InputError(`expected at most ${mostMemory / mebi} MiB of memory in all, found ${all / mebi} MiB`)
  if (all < leastMemory) throw new InputError(`--physical '${options.physical}': expected at least ${leastMemory / mebi}M`)
  if (options.paging === 'shadow' && options.assign !== undefined) {
    throw new InputError('--assign: expected --paging nested: a device translates its addresses by the tables of the second stage')
  }
  if (options.reboot && options.assign !== undefined) throw new InputError('--reboot: expected no --assign beside it')
  const short = all < guests * memory + ownMemory
  const kernel = system.readFile(kernelFile)
  const initrd = options.initrd === undefined ? undefined : system.readFile(options.initrd)
  const result = await system.runGuests({
    machine: { cpu: options.cpu === 'both' ? 'intel' : options.cpu, cpus, seed, memory: all, paging: options.paging,
      ...(short ? { store: new MapStore() } : {}), ...assignedDisk(options, system) },
    assign: options.assign === undefined ? undefined : nvmeIds,
    guests: Array.from({ length: guests }, (_, i) => ({
      name: `guest${i + 1}`, memory, vcpus, kernel, initrd, commandLine: options.append, largePages: !short, apic: options.apic,
        ...devicesOf(options, system, i),
    })),
    network: options.net ? network : undefined,
    timeoutSeconds: options.timeout === undefined ? undefined : parseSeconds(options.timeout, '--timeout'),
    migrateEvery: options.migrate === undefined ? undefined : parseCount(options.migrate, '--migrate') * 1000,
    quiet: options.quiet ?? false,
    reboot: options.reboot ?? false,
    collect: options.json ?? false,
  })
  if (options.json) system.print(`${JSON.stringify(result, undefined, 2)}\n`)
  else if (!options.quiet) system.printError(summary(result))
  return statusOfGuests(result)
}

const onIntel = (): InputError => new InputError('expected --cpu intel with --assign: the remapping unit is Intel\'s')
const nvmeIds = { vendor: 0x1b36, device: 0x10 } as const

/** The machine's disk that a guest is to have; what is written is kept in memory. */
function assignedDisk({ assign: text, cpu }: Options, system: System): Partial<HypervisorOptions> {
  if (text === undefined) return {}
  const [, image] = /^nvme=(.+)$/.exec(text) ?? []
  if (image === undefined) throw new InputError(`--assign: expected nvme=IMAGE for a guest with a kernel, found '${text}'`)
  if (cpu === 'amd') throw onIntel()
  return { iommu: 'vtd', ...parseDrives([`${image},if=nvme,snapshot=on`], system) }
}

/** Images are opened once for each guest, and never written. */
function devicesOf({ device = [], drive = [], net }: Options, system: System, index: number): Pick<BoardOptions,
  'devices' | 'drives' | 'networks'> {
  const { drives, devices } = parseDrives(drive.map(text => `${text},snapshot=on`), system)
  const mac = `52:54:00:12:34:${(0x56 + index).toString(16)}`
  const card = { name: cardModels[net === 'e1000' ? net : 'virtio'], properties: { netdev: network, mac } }
  return {
    drives, devices: [...devices, ...device.map(parseDevice), ...(net ? [card] : [])], networks: net ? [{ id: network, kind: 'link' }] : [],
  }
}

function statusOfGuests({ ending, explanation, guests }: GuestsResult): number {
  if (explanation !== undefined) return statuses.tripleFault.status
  if (guests.some(guest => guest.ending?.startsWith('a triple fault'))) return statuses.tripleFault.status
  if (guests.some(guest => guest.ending === standsForGood)) return statuses.halted.status
  return statusOf({ ending, panic: undefined })
}

/** Exits of all vCPUs by kind, the most frequent first, and interrupts that cost none. */
function exitsOf(vcpus: GuestsResult['guests'][number]['vcpus']): string {
  const counts = new Map<string, number>()
  for (const { exits } of vcpus) for (const { kind, count } of exits) counts.set(kind, (counts.get(kind) ?? 0) + count)
  const kinds = [...counts].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind} ${count}`).join(', ')
  const sum = (name: 'posted' | 'notified' | 'taken'): number => vcpus.reduce((all, { apic }) => all + (apic?.[name] ?? 0), 0)
  const posted = sum('posted') > 0 ? `; ${sum('posted')} interrupts posted, ${sum('notified')} of them to a running vCPU` : ''
  const taken = sum('taken') > 0 ? `; ${sum('taken')} interrupts taken by the guest itself` : ''
  return `exits: ${kinds}${posted}${taken}`
}

function summary({ explanation, guests }: GuestsResult): string {
  const lines = guests.map(({ name, ending, memoryPresent, vcpus }) => {
    const work = vcpus.map(({ name: vcpu, entries, migrations }) => `${vcpu} ${entries} entries, ${migrations} moves`).join('; ')
    return `vitrine: ${name}: ${ending ?? 'still running'}; ${Math.round(memoryPresent / 2 ** 20)} MiB of memory used; ${work}\n`
      + `vitrine: ${name}: ${exitsOf(vcpus)}\n`
  })
  return `${explanation === undefined ? '' : `vitrine: ${explanation}\n`}${lines.join('')}`
}
