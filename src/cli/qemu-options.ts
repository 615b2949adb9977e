/** QEMU's command-line syntax: which options there are, which take an argument, and what each sets (QEMU documentation, "Invocation"). */
import { InputError } from '../errors.ts'
import { parseDevice, parseMemory, type DeviceSelection } from './values.ts'

/** What the options given add up to. */
export interface QemuSettings {
  help?: 'options' | 'version' | 'machines' | 'cpus' | 'devices' | 'accelerators'
  machine: 'pc' | 'q35'
  cpu: string
  cpus: number
  memory: number
  kernel?: string
  initrd?: string
  append: string
  serial: 'stdio' | 'mon:stdio' | 'none' | { file: string } | undefined
  noGraphic: boolean
  display?: string
  devices: DeviceSelection[]
  drives: string[]
  noReboot: boolean
  seed: number
  log: boolean
  warnings: string[]
}

export function defaultSettings(): QemuSettings {
  return {
    machine: 'pc', cpu: 'max', cpus: 1, memory: 128 << 20, append: '', serial: undefined, noGraphic: false, devices: [], drives: [],
    noReboot: false, seed: 0, log: false, warnings: [],
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
  return argument === undefined ? { names, help, apply() {} } : { names, argument, help, apply() {} }
}

/** Only `none`, that is, not having what we do not have. */
function onlyNone(names: string[], argument: string, what: string): QemuOption {
  return {
    names, argument, help: `only 'none': no ${what} is emulated`,
    apply(_settings, value) {
      if (value !== 'none') throw new InputError(`'${value}': no ${what} is emulated here, expected 'none'`)
    },
  }
}

export const qemuOptions: readonly QemuOption[] = [
  { names: ['h', 'help'], help: 'display this help and exit', apply: s => { s.help = 'options' } },
  { names: ['version'], help: 'display version information and exit', apply: s => { s.help = 'version' } },
  { names: ['machine', 'M'], argument: '[type=]name[,prop=value]', help: "pc (default) or q35; '-machine help' for list", apply: machine },
  { names: ['cpu'], argument: 'cpu', help: "select CPU ('-cpu help' for list); max is an Intel, max,+svm an AMD", apply: cpu },
  { names: ['accel'], argument: 'name', help: 'accepted: there is only our own engine', apply: accelerator },
  accepted(['enable-kvm'], 'accepted: there is only our own engine'),
  { names: ['smp'], argument: '[cpus=]n[,...]', help: 'set the number of CPUs', apply: smp },
  { names: ['m'], argument: '[size=]megs', help: 'set RAM size (default 128 MiB); suffixes M and G', apply: memory },
  { names: ['kernel'], argument: 'bzImage', help: 'Linux bzImage or multiboot kernel', apply: (s, value) => { s.kernel = value } },
  { names: ['initrd'], argument: 'file', help: 'initial RAM disk, or multiboot module', apply: (s, value) => { s.initrd = value } },
  { names: ['append'], argument: 'cmdline', help: "the kernel's command line", apply: (s, value) => { s.append = value } },
  { names: ['device'], argument: 'driver[,prop=value]', help: "add device; '-device help' for list", apply: device },
  { names: ['drive'], argument: 'file=file,if=virtio[,format=f]', help: 'add a drive: if=virtio or none, raw or qcow2', apply: drive },
  { names: ['serial'], argument: 'dev', help: 'the first serial port: stdio, mon:stdio, file:PATH, null or none', apply: serial },
  { names: ['nographic'], help: 'serial port on stdio, with Ctrl-A as escape key', apply: s => { s.noGraphic = true } },
  { names: ['display'], argument: 'type', help: 'none is what there is; others get a warning', apply: (s, value) => { s.display = value } },
  { names: ['no-reboot'], help: 'exit instead of rebooting', apply: s => { s.noReboot = true } },
  { names: ['seed'], argument: 'number', help: 'seed of all that is random', apply: seed },
  { names: ['d'], argument: 'item1,...', help: 'unimp, guest_errors: say what software touches that is not there', apply: log },
  { names: ['global'], argument: 'driver.property=value', help: 'accepted; says so when it has no effect', apply: global },
  accepted(['nodefaults'], 'no default devices: none are created anyhow'),
  accepted(['no-user-config'], 'accepted: there is none'),
  accepted(['overcommit'], 'accepted: the embedder decides', 'prop=on|off'),
  accepted(['name'], 'accepted', 'string'),
  accepted(['boot'], 'accepted: only -kernel boots', 'order'),
  accepted(['rtc'], 'accepted: the clock is virtual', 'prop'),
  accepted(['no-hpet'], 'accepted'),
  accepted(['icount'], 'accepted: time is always counted from instructions', 'shift=N'),
  onlyNone(['vga'], 'type', 'display'),
  onlyNone(['monitor'], 'dev', 'monitor'),
  onlyNone(['parallel'], 'dev', 'parallel port'),
  onlyNone(['net'], 'type', 'network'),
  onlyNone(['nic'], 'type', 'network'),
]

/** Parses a command line. Errors are worded as QEMU words them, without the program's name. */
export function parseQemu(args: readonly string[]): QemuSettings {
  const settings = defaultSettings()
  for (let i = 0; i < args.length; i++) {
    const word = args[i]
    if (!word.startsWith('-') || word === '-') throw new InputError(`${word}: disk images are not emulated; expected an option`)
    const name = word.replace(/^--?/, '')
    const option = qemuOptions.find(({ names }) => names.includes(name))
    if (!option) throw new InputError(`${word}: invalid option`)
    if (option.argument !== undefined && i + 1 >= args.length) throw new InputError(`${word}: requires an argument`)
    const argument = option.argument === undefined ? '' : args[++i]
    try {
      option.apply(settings, argument)
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`${word} ${argument}: ${error.message}`, { cause: error })
      throw error
    }
    if (settings.help) return settings
  }
  return settings
}

const isHelp = (value: string): boolean => value === 'help' || value === '?'
const properties = (text: string): string[] => text.split(',').filter(part => part !== '')

function machine(settings: QemuSettings, text: string): void {
  if (isHelp(text)) return void (settings.help = 'machines')
  for (const [i, part] of properties(text).entries()) {
    const [key, value] = part.includes('=') ? [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)] : ['type', part]
    if (key === 'type' && (i === 0 || part.includes('='))) settings.machine = machineType(value)
    else if (key === 'accel') accelerator(settings, value)
    else if (!/^(pit|kernel-irqchip|kernel_irqchip|vmport|usb|hpet|smm|mem-merge|dump-guest-core)$/.test(key)) {
      throw new InputError(`Property '${settings.machine}-machine.${key}' not found`)
    }
  }
}

function machineType(name: string): 'pc' | 'q35' {
  if (/^(pc|pc-i440fx-[\d.]+)$/.test(name)) return 'pc'
  if (/^(q35|pc-q35-[\d.]+)$/.test(name)) return 'q35'
  throw new InputError(`unsupported machine type '${name}'; use -machine help to list supported machines`)
}

function accelerator(settings: QemuSettings, text: string): void {
  const name = text.replace(/^accel=/, '').split(/[,:]/)[0]
  if (isHelp(name)) return void (settings.help = 'accelerators')
  if (!['tcg', 'kvm', 'hvf', 'whpx', 'nvmm', 'xen', 'hax'].includes(name)) throw new InputError(`invalid accelerator ${name}`)
}

function cpu(settings: QemuSettings, text: string): void {
  if (isHelp(text)) settings.help = 'cpus'
  else settings.cpu = text
}

function smp(settings: QemuSettings, text: string): void {
  const values = new Map(properties(text).map(part => {
    const [key, value] = part.includes('=') ? part.split('=', 2) : ['cpus', part]
    return [key, Number(value)] as const
  }))
  for (const [key, value] of values) {
    if (!Number.isInteger(value) || value < 1) throw new InputError(`Parameter 'smp.${key}' expects integer`)
  }
  const topology = ['sockets', 'dies', 'cores', 'threads'].reduce((product, key) => product * (values.get(key) ?? 1), 1)
  const cpus = values.get('cpus') ?? topology
  if (cpus > 64) throw new InputError(`Invalid SMP CPUs ${cpus}. The max CPUs supported is 64`)
  settings.cpus = cpus
}

function memory(settings: QemuSettings, text: string): void {
  for (const part of properties(text)) {
    if (/^(slots|maxmem)=/.test(part)) settings.warnings.push(`-m ${part}: memory hot-plug is not emulated`)
    else settings.memory = parseMemory(part.replace(/^size=/, ''), 'Parameter \'size\'')
  }
}

function device(settings: QemuSettings, text: string): void {
  if (isHelp(text)) settings.help = 'devices'
  else settings.devices.push(parseDevice(text))
}

/** Without `if` it would be an IDE disk. */
function drive(settings: QemuSettings, text: string): void {
  if (!/(^|,)if=/.test(text)) throw new InputError('if=ide is not emulated, expected if=virtio or if=none')
  settings.drives.push(text)
}

function serial(settings: QemuSettings, text: string): void {
  if (text === 'stdio' || text === 'chardev:stdio') settings.serial = 'stdio'
  else if (text === 'mon:stdio') settings.serial = 'mon:stdio'
  else if (text === 'none' || text === 'null') settings.serial = 'none'
  else if (text.startsWith('file:')) settings.serial = { file: text.slice(5) }
  else throw new InputError(`'${text}' is not a valid char driver`)
}

function seed(settings: QemuSettings, text: string): void {
  if (!/^\d+$/.test(text)) throw new InputError('expected a number')
  settings.seed = Number(text)
}

function log(settings: QemuSettings, text: string): void {
  for (const item of properties(text)) {
    if (item === 'unimp' || item === 'guest_errors') settings.log = true
    else throw new InputError(`log item '${item}' is not offered, expected unimp or guest_errors`)
  }
}

function global(settings: QemuSettings, text: string): void {
  if (!/^[^.=]+\.[^=]+=/.test(text)) throw new InputError("expected 'driver.property=value'")
  settings.warnings.push(`warning: global ${text.split('=')[0]} has no effect`)
}
