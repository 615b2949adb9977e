/** `vitrine run`: boots something and tells by its exit status how that went. */
import { Command, Option } from 'commander'
import type { BootOptions, MachineOptions } from '../api.ts'
import { InputError, isInputError } from '../errors.ts'
import { readSymbols, type Symbols } from '../insight/symbols.ts'
import { bootProtocols } from '../platform/boot/boot.ts'
import { cdromDrive, driveHelp, parseDrives } from './drives.ts'
import { firmwareOptions, hasUefi } from './firmware.ts'
import { parseModules } from './modules.ts'
import { networkHelp, parseNetworks } from './networks.ts'
import { parseShares, shareHelp } from './shares.ts'
import { sayEnding, statusOf, statusTable } from './status.ts'
import type { Catalogue, RunRequest, RunResult, System } from './system.ts'
import {
  describeDevice, type DeviceSelection, listChoices, narrowCpu, parseCount, parseCpu, parseDate, parseDevice, parseGdb, parseIommu,
  parseMemory, parseSeconds, parseTrace,
} from './values.ts'

const engines: readonly NonNullable<MachineOptions['engine']>[] = ['jit', 'interpreter', 'step']

interface RunFlags {
  cpu: string
  smp: string
  memory: string
  chipset: 'pc' | 'q35'
  kernel?: string
  initrd?: string
  append?: string
  bios?: string
  boot?: string
  cdrom?: string
  protocol?: NonNullable<MachineOptions['protocol']>
  device?: string[]
  drive?: string[]
  net?: string[]
  iommu?: string[]
  share?: string[]
  engine: NonNullable<MachineOptions['engine']>
  codeCache?: string
  maxInstructions?: string
  timeout?: string
  json?: boolean
  profile?: string | true
  symbols?: string
  gdb?: string | true
  realTime?: boolean
  reboot: boolean
  seed: string
  save?: string
  restore?: string
  rtc?: string
  quiet?: boolean
  explain?: boolean
  trace?: string
}

const examples = `Examples:
  vitrine run --kernel vmlinuz --initrd initramfs.cpio --append 'console=ttyS0'
  vitrine run --kernel test.elf --device isa-debug-exit,iobase=0xf4 --timeout 60 --json
  vitrine run --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0 root=/dev/vda' --drive disk.qcow2,snapshot=on
  vitrine run --cpu help; vitrine run --cpu Haswell,help; vitrine run --device help
`

export function runCommand(system: System, done: (status: number) => void): Command {
  const collect = (value: string, all: string[] = []): string[] => [...all, value]
  return new Command('run')
    .description('boot a kernel; its serial port is our standard input and output')
    .usage('--kernel FILE [options]')
    .optionsGroup('What to boot:')
    .option('--kernel <file>', 'Linux bzImage, multiboot 1 or 2 kernel, or PVH ELF')
    .option('--initrd <file>', 'initial RAM disk; or modules: "FILE arguments,FILE arguments"')
    .option('--append <text>', "the kernel's command line")
    .option('--cdrom <file>', 'a disc image in a SATA drive')
    .option('--bios <file>', 'firmware: SeaBIOS (the default without --kernel), or UEFI, which starts a --kernel too: OVMF.fd')
    .option('--boot <order>', 'letters of what firmware tries: c disk, d CD-ROM', undefined)
    .addOption(new Option('--protocol <name>', 'how to boot a kernel that knows several ways').choices([...bootProtocols]))
    .optionsGroup('The machine:')
    .option('--cpu <model>', 'MODEL[,+feature][,-feature][,key=value]; `help` lists them, `MODEL,help` describes one', 'intel')
    .option('--smp <n>', 'number of CPUs', '1')
    .option('--memory <size>', 'RAM, such as 512M or 2G', '512M')
    .addOption(new Option('--chipset <name>', 'where RAM and buses lie').choices(['pc', 'q35']).default('q35'))
    .option('--device <name[,key=value]>', 'add a device (again for more); `help` lists them', collect)
    .option('--drive <file[,key=value]>', 'a disk image: if=virtio|scsi|sata|nvme|pflash|none, format, snapshot, readonly; `help`', collect)
    .option('--net <kind[,key=value]>', 'a network card on `user` (hostfwd=tcp::PORT-:PORT) or `socket`; `help` lists all', collect)
    .option('--iommu <vtd[,key=value]>', 'an Intel remapping unit (VT-d); `help` lists its properties', collect)
    .option('--share <folder[,key=value]>', 'a folder of ours, mounted by its tag with -t 9p -o trans=virtio; `help`', collect)
    .optionsGroup('How to run it:')
    .addOption(new Option('--engine <name>', 'what runs instructions; results are the same').choices([...engines]).default('jit'))
    .option('--code-cache <folder>', 'keeps compiled code for later runs; `off`: no (default: $VITRINE_CODE_CACHE, or among your caches)')
    .option('--max-instructions <n>', 'stop after exactly so many instructions of all CPUs')
    .option('--timeout <seconds>', 'stop after so much wall time')
    .option('--real-time', 'keep virtual time to wall time always, not only while a guest waits for the keyboard')
    .option('--rtc <date>', 'what the clock shows at the start: 2026-01-31T12:00:00 (UTC) or now (default: a fixed date)')
    .option('--no-reboot', 'end the run when software resets the machine')
    .option('--seed <n>', 'seed of all that is random in the machine', '0')
    .option('--gdb [port]', 'stop before the first instruction and wait for GDB (target remote :PORT, by default 1234)')
    .option('--profile [file]', 'say at the end where the time went; FILE gets samples for Speedscope or Chrome (.cpuprofile)')
    .option('--symbols <file>', "names of addresses: System.map, /proc/kallsyms, or an ELF file (default: the kernel's own, if it has any)")
    .option('--save <file>', 'write the state of the machine when the run ends by a limit, a signal or Ctrl-A X')
    .option('--restore <file>', 'begin in a saved state; all other options as when it was saved')
    .optionsGroup('What to print:')
    .option('--explain', 'say why VM entries fail: each rule that is broken, the field, its value, and one that would do')
    .option('--trace <exits|iommu|events[:FILE]>', 'a line for each VM entry and exit; DMA and interrupt remapped; exception or interrupt')
    .option('--json', 'print one JSON document at the end, with the console in it')
    .option('--quiet', 'print nothing but the console')
    .addHelpText('after', `\n${examples}\nExit status:\n${statusTable}\n`)
    .action(async (flags: RunFlags) => done(await run(flags, system)))
}

async function run(flags: RunFlags, system: System): Promise<number> {
  const catalogue = await system.catalogue()
  const help = await helpOf(flags, catalogue)
  if (help !== undefined) {
    system.print(help)
    return 0
  }
  const symbols = symbolsOf(flags, system)
  const profile = flags.profile === undefined ? undefined : { ...(flags.profile === true ? {} : { file: flags.profile }), symbols }
  const gdb = flags.gdb === undefined ? {} : { gdb: { address: parseGdb(flags.gdb === true ? '1234' : flags.gdb, '--gdb'), wait: true } }
  const request = {
    ...requestOf(flags, system, catalogue), ...(profile === undefined ? {} : { profile }), ...gdb, ...guestEventsOf(flags, symbols),
  }
  const result = await system.run(request)
  if (flags.json) system.print(`${JSON.stringify(jsonOf(result), undefined, 2)}\n`)
  else if (!flags.quiet) report(result, system)
  if (result.profile !== undefined) system.printError(result.profile)
  return statusOf(result)
}

/** What `help` in the place of a value asks for. */
async function helpOf({ cpu, device = [], drive, net, iommu, share }: RunFlags, catalogue: Catalogue): Promise<string | undefined> {
  if (cpu === 'help') return cpuHelp(catalogue)
  if (cpu.endsWith(',help')) return catalogue.describeCpu(cpu.replace(/,help$/, ''))
  if (device.includes('help')) return `Devices (property=default):\n${listChoices(catalogue.devices)}`
  const asked = device.map(parseDevice).find(({ properties }) => 'help' in properties)
  if (asked) return describeDevice(asked.name, catalogue.devices)
  if (iommu?.includes('help')) return (await import('../platform/iommu.ts')).iommuHelp
  if (drive?.includes('help')) return driveHelp
  if (net?.includes('help')) return networkHelp
  if (share?.includes('help')) return shareHelp
  return undefined
}

/** Names of addresses, for what shows any. */
function symbolsOf({ profile, trace, explain, symbols, kernel }: RunFlags, system: System): Symbols | undefined {
  if (profile === undefined && trace === undefined && !explain) {
    if (symbols !== undefined) throw new InputError('--symbols names addresses: expected --profile, --trace or --explain too')
    return undefined
  }
  if (symbols !== undefined) return readSymbols(system.readFile(symbols), symbols)
  return kernel === undefined ? undefined : ownSymbols(system.readFile(kernel), kernel)
}

function guestEventsOf({ trace, explain }: RunFlags, symbols: Symbols | undefined): Pick<RunRequest, 'trace' | 'explain' | 'symbols'> {
  const asked = trace === undefined ? undefined : parseTrace(trace)
  if (!asked && !explain) return {}
  return { ...(asked ? { trace: asked } : {}), ...(explain ? { explain } : {}), symbols }
}

/** A kernel that is an ELF file may have symbols, and need not. */
function ownSymbols(bytes: Uint8Array, file: string): Symbols | undefined {
  try {
    return readSymbols(bytes, file)
  } catch (error) {
    if (isInputError(error)) return undefined
    throw error
  }
}

function requestOf(flags: RunFlags, system: System, catalogue: Catalogue): RunRequest {
  if (flags.kernel === undefined && flags.bios === undefined && flags.drive === undefined && flags.cdrom === undefined) {
    throw new InputError('nothing to boot: expected --kernel FILE, or a disk by --drive or --cdrom')
  }
  const { drives, flash, devices } = parseDrives(drivesOf(flags), system)
  const nets = parseNetworks(flags.net ?? [], { cards: true })
  const shared = parseShares(flags.share ?? [], system)
  const allDevices = [...devices, ...nets.devices, ...shared.devices, ...(flags.device ?? []).map(parseDevice)]
  const boot = startOf(flags, flash.length > 0, allDevices, system)
  const { cpu, remarks } = parseCpu(hasUefi(boot, flash) ? narrowCpu(flags.cpu) : flags.cpu, catalogue)
  if (!flags.quiet) for (const remark of remarks) system.printError(`vitrine: ${remark}\n`)
  return {
    machine: {
      cpu,
      cpus: parseCount(flags.smp, '--smp', 1, 64),
      memory: parseMemory(flags.memory, '--memory'),
      chipset: flags.chipset,
      ...(nets.networks.length === 0 ? {} : { networks: nets.networks }),
      ...(flags.iommu ? { iommus: flags.iommu.map(parseIommu) } : {}),
      ...(shared.shares.length === 0 ? {} : { shares: shared.shares }),
      devices: allDevices,
      ...(drives.length === 0 ? {} : { drives }),
      ...(flash.length === 0 ? {} : { flash }),
      engine: flags.engine,
      seed: parseCount(flags.seed, '--seed', 0),
      noReboot: !flags.reboot,
      ...(flags.rtc === undefined ? {} : { rtcEpoch: flags.rtc === 'now' ? system.now() : parseDate(flags.rtc, '--rtc') }),
      ...boot,
      ...parseModules(flags.initrd, system),
      ...(flags.protocol === undefined ? {} : { protocol: flags.protocol }),
      commandLine: flags.append ?? '',
    },
    ...(flags.codeCache === undefined ? {} : { codeCache: flags.codeCache }),
    forwards: nets.forwards,
    links: nets.links,
    console: { serial: 'stdio', escape: true, interrupt: false, quiet: flags.quiet ?? false, collect: flags.json ?? false },
    ...(flags.save === undefined ? {} : { save: flags.save }),
    ...(flags.restore === undefined ? {} : { restore: flags.restore }),
    session: {
      realTime: flags.realTime ?? false,
      ...(flags.maxInstructions === undefined ? {} : { maxInstructions: parseCount(flags.maxInstructions, '--max-instructions') }),
      ...(flags.timeout === undefined ? {} : { timeoutSeconds: parseSeconds(flags.timeout, '--timeout') }),
    },
  }
}

const drivesOf = ({ drive = [], cdrom }: RunFlags): string[] => [...drive, ...(cdrom === undefined ? [] : [cdromDrive(cdrom)])]

/** A kernel alone is loaded by us; beside firmware, which must be UEFI, it starts it. */
function startOf({ kernel, bios, boot }: RunFlags, flash: boolean, devices: readonly DeviceSelection[], system: System): BootOptions {
  const firmware = (): BootOptions => firmwareOptions({ bios, order: boot, flash }, devices, system)
  if (kernel === undefined) return firmware()
  const own = { kernel: system.readForRun(kernel), kernelName: kernel }
  if (boot !== undefined) throw new InputError(`--boot: expected no --kernel beside it, found '${kernel}'`)
  if (bios === undefined && !flash) return own
  const chosen = firmware()
  if (!flash && !hasUefi(chosen)) throw new InputError(`--bios: expected UEFI, or no --kernel beside it, found '${kernel}'`)
  return { ...own, ...chosen }
}

/** What went wrong, and where the CPU was when that helps. */
export function report(result: RunResult, system: System): void {
  const line = sayEnding(result)
  if (line !== undefined) system.printError(`vitrine: ${line}\n`)
  if (result.picture !== undefined) system.printError(`${result.picture.trimEnd()}\n`)
  if (result.screen !== undefined) system.printError(`The screen:\n${result.screen.join('\n').trimEnd()}\n`)
}

function jsonOf(result: RunResult): Record<string, unknown> {
  const { kind, ...rest } = result.ending
  return {
    ending: kind, ...rest, exitStatus: statusOf(result), instructions: result.instructions, virtualNanoseconds: result.virtualNanoseconds,
    wallSeconds: Number(result.wallSeconds.toFixed(3)), resources: result.resources,
    panic: result.panic, picture: result.picture, screen: result.screen, console: result.console,
  }
}

function cpuHelp({ cpuModels, cpuFeatures, cpuFeaturesNotImplemented }: Catalogue): string {
  const implemented = cpuFeatures.filter(feature => !cpuFeaturesNotImplemented.includes(feature))
  return `CPU models:\n${listChoices(cpuModels)}\nFeatures:\n${wrap(implemented)}\n` +
    `Known by name, and not implemented (asking for one is answered, and it stays off):\n${wrap(cpuFeaturesNotImplemented)}`
}

function wrap(words: readonly string[]): string {
  let text = ' '
  let column = 1
  for (const word of words) {
    if (column + word.length + 1 > 100) {
      text += '\n '
      column = 1
    }
    text += ` ${word}`
    column += word.length + 1
  }
  return `${text}\n`
}
