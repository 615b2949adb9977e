/**
 * QEMU's command line as a table: which options there are, which take an argument, and what each sets (QEMU documentation, "Invocation").
 * A new option is a row here and, where its value has parts, a function in qemu-values.ts.
 */
import type { IommuOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import { addBlockNode } from './qemu-blocks.ts'
import { audio, device, object } from './qemu-devices.ts'
import type { Keys } from './qemu-json.ts'
import * as value from './qemu-values.ts'
import type { SerialTarget, SocketAddress } from './system.ts'
import type { DeviceSelection } from './values.ts'

export type HelpTopic =
  | 'options' | 'version' | 'machines' | 'cpus' | 'devices' | 'accelerators' | 'drives' | 'chardevs' | { device: string }

/** What the options given add up to. */
export interface QemuSettings {
  help?: HelpTopic
  machine: 'pc' | 'q35'
  cpu: string
  /** Those asked for, in order. */
  accelerators: string[]
  cpus: number
  memory: number
  kernel?: string
  initrd?: string
  append: string
  /** One an option, in order. */
  serials: string[]
  chardevs: Map<string, CharacterDevice>
  /** Character devices of virtio consoles. */
  consoles: string[]
  noGraphic: boolean
  display?: string
  devices: DeviceSelection[]
  iommus: IommuOptions[]
  drives: string[]
  /** Of `-blockdev`, by name. */
  nodes: Map<string, Keys>
  /** Of `-machine pflash0=`: the node of each flash memory. */
  flashNodes: string[]
  netdevs: string[]
  nics: string[]
  fsdevs: string[]
  virtfs: string[]
  /** Of `-fw_cfg`: its text, or the path of its contents. */
  firmwareFiles: { name: string; text?: string; path?: string }[]
  bios?: string
  bootOrder?: string
  bootMenu: boolean
  snapshot: boolean
  noReboot: boolean
  seed: number
  /** Seconds since 1970, or the embedder's clock. */
  rtc?: number | 'now'
  pidFile?: string
  gdb?: SocketAddress
  /** Nothing runs until GDB says so. */
  wait: boolean
  /** One an option, in order: what -serial would take. */
  monitors: { kind: 'human' | 'qmp'; target: string }[]
  debugConsole?: string
  /** Of `-net`: cards and the networks that they share. */
  oldCards: Record<string, string>[]
  oldNetworks: string[]
  globals: { driver: string; property: string; value: string }[]
  log: boolean
  /** A line for each exception and interrupt. */
  events: boolean
  logFile?: string
  warnings: string[]
}

/** `mux`: a monitor may share it, behind Ctrl-A. */
export interface CharacterDevice {
  target: SerialTarget
  mux: boolean
}

function defaultSettings(): QemuSettings {
  return {
    machine: 'pc', accelerators: [], cpu: 'max', cpus: 1, memory: 128 << 20, append: '', serials: [], chardevs: new Map(), consoles: [],
    noGraphic: false, devices: [], iommus: [], nodes: new Map(), flashNodes: [], firmwareFiles: [],
    monitors: [], oldCards: [], oldNetworks: [], globals: [],
    drives: [], netdevs: [], nics: [], fsdevs: [], virtfs: [], bootMenu: false, snapshot: false, noReboot: false, wait: false, seed: 0,
    log: false, events: false, warnings: [],
  }
}

export interface QemuOption {
  /** Spellings without the dash. */
  names: string[]
  /** Name of the argument; none for a switch. */
  argument?: string
  help: string
  apply(settings: QemuSettings, argument: string): void
}

/** Accepted because scripts give it, and without effect for the reason that `help` says. */
function accepted(names: string[], help: string, argument?: string): QemuOption {
  return { names, help, apply() {}, ...(argument === undefined ? {} : { argument }) }
}

/** They do nothing, and say so each time: whoever gives one expects something to happen. */
function without(names: string[], what: string, argument?: string): QemuOption[] {
  return names.map(name => ({
    names: [name], help: `no effect: ${what}`, ...(argument === undefined ? {} : { argument }),
    apply: s => { s.warnings.push(`warning: -${name} has no effect: ${what}`) },
  }))
}

/** Only `none`, that is, not having what we do not have. */
function onlyNone(names: string[], argument: string, what: string): QemuOption {
  return {
    names, argument, help: `only 'none': no ${what} is emulated`,
    apply(_settings, text) {
      if (text !== 'none') throw new InputError(`no ${what} is emulated here, expected 'none'`)
    },
  }
}

/** Known to QEMU, and refused with a word on what to do instead. */
function refused(names: string[], instead: string, argument?: string): QemuOption {
  return {
    names, help: `not offered: ${instead}`, ...(argument === undefined ? {} : { argument }),
    apply() { throw new InputError(`not offered here: ${instead}`) },
  }
}

export const qemuOptions: readonly QemuOption[] = [
  { names: ['h', 'help'], help: 'display this help and exit', apply: s => { s.help = 'options' } },
  { names: ['version'], help: 'display version information and exit', apply: s => { s.help = 'version' } },
  {
    names: ['machine', 'M'], argument: '[type=]name[,prop=value]', apply: value.machine,
    help: "pc (default) or q35; '-machine help' for list",
  },
  { names: ['cpu'], argument: 'cpu', help: "select CPU ('-cpu help' for list); max is an Intel, max,+svm an AMD", apply: value.cpu },
  { names: ['accel'], argument: 'name', help: 'tcg, which here means our own engine; or kvm:tcg', apply: value.accelerator },
  ...without(['enable-kvm'], 'our own engine runs everything'),
  { names: ['smp'], argument: '[cpus=]n[,...]', help: 'set the number of CPUs', apply: value.smp },
  { names: ['m'], argument: '[size=]megs', help: 'set RAM size (default 128 MiB); suffixes M and G', apply: value.memory },

  { names: ['kernel'], argument: 'bzImage', help: 'Linux bzImage, multiboot kernel or PVH ELF', apply: (s, text) => { s.kernel = text } },
  { names: ['initrd'], argument: 'file', help: 'initial RAM disk, or "file args,file args"', apply: (s, text) => { s.initrd = text } },
  { names: ['append'], argument: 'cmdline', help: "the kernel's command line", apply: (s, text) => { s.append = text } },
  { names: ['bios'], argument: 'file', help: 'firmware: SeaBIOS (default), or UEFI', apply: (s, text) => { s.bios = text } },
  { names: ['boot'], argument: '[order=]drives[,menu=on]', help: 'what firmware tries: c disk, d CD-ROM', apply: value.boot },

  { names: ['device'], argument: 'driver[,prop=value]', help: "add device; '-device help' for list", apply: device },
  { names: ['drive'], argument: 'file=file[,if=type][,...]', help: 'add a drive: if=ide, virtio, pflash or none', apply: value.drive },
  {
    names: ['blockdev'], argument: '[driver=]driver,node-name=name[,...]',
    help: 'an image that a device names: raw or qcow2 on file, vvfat',
    apply: (s, text) => { addBlockNode(s.nodes, text) },
  },
  { names: ['pflash'], argument: 'file', help: 'flash memory with UEFI firmware, or its variables', apply: value.pflash },
  { names: ['snapshot'], help: 'write to temporary memory instead of disk images', apply: s => { s.snapshot = true } },
  { names: ['hda', 'hdb', 'hdc', 'hdd'], argument: 'file', help: 'a disk image, as a SATA disk', apply: value.hardDisk },
  { names: ['cdrom'], argument: 'file', help: 'a disc image, in a SATA drive', apply: value.cdrom },
  refused(['fda', 'fdb', 'mtdblock', 'sd'], 'expected -drive file=FILE', 'file'),
  {
    names: ['fw_cfg'], argument: '[name=]name,file=file|string=text', apply: value.firmwareFile,
    help: 'a file that firmware and software find, such as opt/org.example/x',
  },
  accepted(['L'], "accepted: QEMU's files are not needed", 'path'),

  { names: ['serial'], argument: 'dev', help: value.serialHelp, apply: value.addSerial },
  {
    names: ['chardev'], argument: 'backend,id=id[,...]', apply: value.chardev,
    help: "a target for -serial chardev:ID; '-chardev help' for list",
  },
  {
    names: ['debugcon'], argument: 'dev', help: 'what software writes to port E9h (-global isa-debugcon.iobase=0x402)',
    apply: value.debugcon,
  },
  { names: ['nographic'], help: 'serial port on stdio, with Ctrl-A as escape key', apply: s => { s.noGraphic = true } },
  { names: ['display'], argument: 'type', help: 'none is what there is; others get a warning', apply: (s, text) => { s.display = text } },
  { names: ['vga'], argument: 'type', help: 'std: its text screen is shown at the end; or none', apply: value.vga },
  {
    names: ['monitor'], argument: 'dev', help: 'commands for people: stdio, tcp:, unix:, pipe: or none',
    apply: (s, text) => { value.monitor(s, 'human', text) },
  },
  {
    names: ['qmp', 'qmp-pretty'], argument: 'dev', help: 'the same in JSON, for programs',
    apply: (s, text) => { value.monitor(s, 'qmp', text) },
  },
  { names: ['mon'], argument: '[chardev=]id[,mode=readline|control]', help: 'a monitor on a -chardev', apply: value.mon },
  onlyNone(['parallel'], 'dev', 'parallel port'),
  {
    names: ['netdev'], argument: 'user|socket,id=id[,...]', help: 'a router (hostfwd, restrict) or other machines (listen, connect)',
    apply: value.netdev,
  },
  { names: ['nic'], argument: 'user[,...]|none', help: 'the same with a virtio card', apply: (s, text) => { s.nics.push(text) } },
  {
    names: ['virtfs'], argument: 'local,path=folder,mount_tag=tag[,...]', help: 'a folder of ours that the guest mounts: readonly=on',
    apply: (s, text) => { s.virtfs.push(text) },
  },
  {
    names: ['fsdev'], argument: 'local,path=folder,id=id[,...]', help: 'the same for a -device virtio-9p-pci',
    apply: (s, text) => { s.fsdevs.push(text) },
  },
  { names: ['net'], argument: 'nic|user[,...]|none', help: 'the older way: -net nic,model=e1000 -net user', apply: value.oldNetwork },

  { names: ['no-reboot'], help: 'exit instead of rebooting', apply: s => { s.noReboot = true } },
  { names: ['action'], argument: 'event=action', help: 'reboot=shutdown as -no-reboot; defaults are accepted', apply: value.action },
  ...without(['no-shutdown'], 'power-off ends the run'),
  { names: ['rtc'], argument: 'base=utc|localtime|DATE', help: 'what the clock shows first (default: a fixed date)', apply: value.rtc },
  { names: ['seed'], argument: 'number', help: 'seed of all that is random', apply: value.seed },
  {
    names: ['d'], argument: 'item1,...', apply: value.log,
    help: 'int: each exception and interrupt; guest_errors, unimp: what software touches that is not there',
  },
  { names: ['D'], argument: 'file', help: 'write what -d says to a file', apply: (s, text) => { s.logFile = text } },
  {
    names: ['global'], argument: 'driver.property=value', help: 'a property of each device of that name; says so when there is none',
    apply: value.global,
  },
  {
    names: ['object'], argument: 'type,id=id', help: 'accepted where nothing is lost: memory, random numbers, threads', apply: object,
  },
  { names: ['pidfile'], argument: 'file', help: "write the process' ID to a file", apply: (s, text) => { s.pidFile = text } },
  refused(['daemonize'], "start it in the background, with '&' or setsid"),
  { names: ['gdb'], argument: 'dev', help: 'wait for GDB at tcp::PORT or unix:PATH', apply: value.gdb },
  { names: ['s'], help: 'as -gdb tcp::1234', apply: s => { value.gdb(s, 'tcp::1234') } },
  { names: ['S'], help: 'stop before the first instruction, with -s, -gdb or a monitor', apply: s => { s.wait = true } },
  refused(['incoming', 'loadvm'], 'expected `vitrine run --restore FILE`', 'state'),
  refused(['readconfig', 'numa', 'trace', 'plugin', 'tpmdev', 'watchdog', 'acpitable', 'dtb'], 'not emulated', 'arg'),

  accepted(['nodefaults'], 'no default devices: none are created anyhow'),
  accepted(['no-user-config'], 'accepted: there is none'),
  accepted(['overcommit'], 'accepted: the embedder decides', 'prop=on|off'),
  accepted(['name'], 'accepted', 'string'),
  accepted(['uuid'], 'accepted: shown nowhere', 'uuid'),
  accepted(['icount'], 'accepted: time is always counted from instructions', 'shift=N'),
  accepted(['msg'], 'accepted', 'timestamp=on'),
  accepted(['sandbox'], 'accepted: the emulator needs no privileges', 'on|off'),
  accepted(['watchdog-action'], 'accepted: there is no watchdog', 'reset|none|...'),
  accepted(['compat'], 'accepted', 'policy'),
  accepted(['mem-prealloc', 'no-fd-bootchk'], 'accepted'),
  accepted(['mem-path', 'k'], 'accepted', 'arg'),
  ...without(['no-hpet', 'no-acpi'], 'the machine keeps it'),
  ...without(['smbios'], 'the tables are our own', 'arg'),
  ...without(['usb', 'full-screen', 'sdl', 'gtk', 'curses'], 'not emulated'),
  ...without(['usbdevice', 'vnc', 'spice', 'audio', 'soundhw'], 'not emulated', 'arg'),
  { names: ['audiodev'], argument: '[driver=]driver,id=id', help: 'no effect: not emulated; none needs no warning', apply: audio },
]

const names = qemuOptions.flatMap(option => option.names)

/** Parses a command line. Errors are worded as QEMU words them, without the program's name. */
export function parseQemu(args: readonly string[]): QemuSettings {
  const settings = defaultSettings()
  for (let i = 0; i < args.length; i++) {
    const word = args[i]
    if (!word.startsWith('-') || word === '-') {
      value.hardDisk(settings, word)
      continue
    }
    const name = word.replace(/^--?/, '')
    const option = qemuOptions.find(each => each.names.includes(name))
    if (!option) throw new InputError(`${word}: invalid option; the nearest is -${nearest(name, names)}`)
    if (option.argument !== undefined && i + 1 >= args.length) throw new InputError(`${word}: requires an argument`)
    const argument = option.argument === undefined ? '' : args[++i]
    try {
      option.apply(settings, argument)
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`${[word, argument].join(' ').trim()}: ${error.message}`, { cause: error })
      throw error
    }
    if (settings.help) return settings
  }
  return settings
}
