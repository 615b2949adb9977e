/** The values of QEMU's options, taken apart (QEMU documentation, "Invocation"). Each function sets what its option means, or throws. */
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import { cdromDrive } from './drives.ts'
import { isJson, keysOfValue } from './qemu-json.ts'
import type { QemuSettings } from './qemu-options.ts'
import type { SerialTarget } from './system.ts'
import { parseDate, parseGdb, parseMemory } from './values.ts'

const isHelp = (text: string): boolean => text === 'help' || text === '?'
const partsOf = (text: string): string[] => text.split(',').filter(part => part !== '')

/** `key=value` words in order; a word alone is the value of `first`. */
function keysOf(text: string, first: string): [key: string, value: string][] {
  return partsOf(text).map((part, index) => {
    const equals = part.indexOf('=')
    if (equals >= 0) return [part.slice(0, equals), part.slice(equals + 1)]
    return index === 0 ? [first, part] : [part, 'on']
  })
}

const machineProperties = [
  'pit', 'kernel-irqchip', 'kernel_irqchip', 'vmport', 'usb', 'hpet', 'smm', 'mem-merge', 'dump-guest-core', 'acpi', 'sata', 'smbus',
  'i8042', 'memory-encryption', 'graphics', 'nvdimm', 'hmat', 'max-ram-below-4g', 'x-south-bridge', 'memory-backend', 'suppress-vmdesc',
  'default-bus-bypass-iommu', 'default_bus_bypass_iommu', 'smbios-entry-point-type', 'pcspk-audiodev', 'fd-bootchk',
]

export function machine(settings: QemuSettings, text: string): void {
  if (isHelp(text)) return void (settings.help = 'machines')
  for (const [key, value] of keysOf(text, 'type')) {
    if (key === 'type') settings.machine = machineType(value)
    else if (key === 'accel') accelerator(settings, value)
    else if (key === 'pflash0' || key === 'pflash1') settings.flashNodes[Number(key.at(-1))] = value
    else if (!machineProperties.includes(key)) throw new InputError(`Property '${settings.machine}-machine.${key}' not found`)
  }
}

function machineType(name: string): 'pc' | 'q35' {
  if (/^(pc|pc-i440fx-[\d.]+)$/.test(name)) return 'pc'
  if (/^(q35|pc-q35-[\d.]+)$/.test(name)) return 'q35'
  throw new InputError(`unsupported machine type '${name}'; use -machine help to list supported machines`)
}

const accelerators = ['tcg', 'kvm', 'hvf', 'whpx', 'nvmm', 'xen', 'hax', 'qtest']

/** A list such as `kvm:tcg` means the first that is there. */
export function accelerator(settings: QemuSettings, text: string): void {
  const asked = text.replace(/^accel=/, '').split(',')[0].split(':')
  if (isHelp(asked[0])) return void (settings.help = 'accelerators')
  for (const name of asked) {
    if (!accelerators.includes(name)) throw new InputError(`invalid accelerator ${name}; the nearest is ${nearest(name, accelerators)}`)
  }
  settings.accelerators.push(...asked)
}

export function cpu(settings: QemuSettings, text: string): void {
  if (isHelp(text)) settings.help = 'cpus'
  else settings.cpu = text
}

const mostCpus = 64
const levels = ['sockets', 'dies', 'clusters', 'cores', 'threads']

export function smp(settings: QemuSettings, text: string): void {
  const values = new Map<string, number>()
  for (const [key, value] of keysOf(text, 'cpus')) {
    if (![...levels, 'cpus', 'maxcpus'].includes(key)) throw new InputError(`Parameter 'smp.${key}' is unexpected`)
    const count = Number(value)
    if (!Number.isInteger(count) || count < 1) throw new InputError(`Parameter 'smp.${key}' expects integer, found '${value}'`)
    values.set(key, count)
  }
  const topology = levels.reduce((product, key) => product * (values.get(key) ?? 1), 1)
  const cpus = values.get('cpus') ?? topology
  // Scripts read the last word as the number that they may ask for.
  if (cpus > mostCpus) {
    throw new InputError(`Invalid SMP CPUs ${cpus}. The max CPUs supported by machine '${settings.machine}' is ${mostCpus}`)
  }
  settings.cpus = cpus
}

export function memory(settings: QemuSettings, text: string): void {
  for (const [key, value] of keysOf(text, 'size')) {
    if (key === 'slots' || key === 'maxmem') {
      settings.warnings.push(`warning: -m ${key}=${value} has no effect: memory hot-plug is not emulated`)
    } else if (key === 'size') settings.memory = parseMemory(value, "Parameter 'size'")
    else throw new InputError(`Invalid parameter '${key}'; expected size, slots or maxmem`)
  }
}

export function drive(settings: QemuSettings, text: string): void {
  if (isHelp(text)) return void (settings.help = 'drives')
  settings.drives.push(text)
}

export function hardDisk(settings: QemuSettings, file: string): void {
  settings.drives.push(`file=${file.replaceAll(',', ',,')}`)
}

export function pflash(settings: QemuSettings, file: string): void {
  settings.drives.push(`file=${file.replaceAll(',', ',,')},if=pflash,format=raw`)
}

export function cdrom(settings: QemuSettings, file: string): void {
  settings.drives.push(cdromDrive(file))
}

/** `order` and `once` are letters; alone they need no key. */
export function boot(settings: QemuSettings, text: string): void {
  for (const [key, value] of keysOf(text, 'order')) {
    if (key === 'order' || key === 'once') settings.bootOrder = value
    else if (key === 'menu') settings.bootMenu = value === 'on'
    else if (!['strict', 'splash', 'splash-time', 'reboot-timeout'].includes(key)) throw new InputError(`Invalid parameter '${key}'`)
  }
}

export function vga(settings: QemuSettings, text: string): void {
  const known = ['none', 'std', 'cirrus', 'vmware', 'qxl', 'virtio', 'xenfb', 'cg3', 'tcx']
  if (isHelp(text)) throw new InputError('no display is emulated, expected none')
  if (!known.includes(text)) throw new InputError(`unknown vga type; expected none, found '${text}'`)
  if (text === 'std') settings.devices.push({ name: 'VGA', properties: {} })
  else if (text !== 'none') settings.warnings.push(`warning: -vga ${text} has no effect: expected std or none`)
}

export const serialHelp =
  'a serial port (again: COM2 to COM4): [mon:]stdio, pty, file:PATH, pipe:PATH, tcp:HOST:PORT[,server,nowait], telnet:, unix:PATH'

export function addSerial(settings: QemuSettings, text: string): void {
  serial(text, settings)
  settings.serials.push(text)
}

/** What `-serial` names, with whether Ctrl-A is shared with us. `label`: what a pseudo-terminal is announced as. */
export function serial(text: string, { chardevs }: QemuSettings, label = 'serial0'): { target: SerialTarget; escape: boolean } {
  const escape = text.startsWith('mon:')
  const plain = text.replace(/^mon:/, '')
  const [scheme, rest] = plain.includes(':') ? [plain.slice(0, plain.indexOf(':')), plain.slice(plain.indexOf(':') + 1)] : [plain, '']
  const device = scheme === 'chardev' ? chardevs.get(named(rest, 'an id')) : undefined
  const target = (): SerialTarget => {
    switch (scheme) {
      case 'stdio': return 'stdio'
      case 'none': case 'null': case '/dev/null': return 'none'
      case 'file': return { file: named(rest, 'a file name') }
      case 'pipe': return { pipe: named(rest, 'a path') }
      case 'tcp': case 'telnet': case 'unix': return socket(scheme, rest)
      // It may be defined by a later -chardev.
      case 'chardev': return device?.target ?? 'none'
      case 'pty': return { pty: label }
      case 'vc': case 'msmouse': case 'udp': case 'braille':
        throw new InputError(`the char driver '${scheme}' is not offered, expected ${serialNames}`)
      default: throw new InputError(`'${text}' is not a valid char driver; expected ${serialNames}`)
    }
  }
  return { target: target(), escape: escape || (device?.mux ?? false) }
}

const serialNames = 'stdio, mon:stdio, pty, file:PATH, pipe:PATH, tcp:, telnet:, unix:, null or none'

function named(text: string, what: string): string {
  if (text === '') throw new InputError(`expected ${what} after the colon`)
  return text
}

function socket(scheme: 'tcp' | 'telnet' | 'unix', text: string): SerialTarget {
  const [place, ...flags] = text.split(',')
  const on = (name: string): boolean => flags.some(flag => flag === name || flag === `${name}=on`)
  const listen = on('server')
  const wait = listen && !on('nowait') && !flags.includes('wait=off')
  if (scheme === 'unix') return { socket: { path: named(place, 'a path') }, listen, wait }
  const colon = place.lastIndexOf(':')
  const port = Number(place.slice(colon + 1))
  if (colon < 0 || !/^\d+$/.test(place.slice(colon + 1)) || port > 65535) throw new InputError(`expected tcp:HOST:PORT, found '${place}'`)
  const address = { host: place.slice(0, colon) || (listen ? '0.0.0.0' : '127.0.0.1'), port }
  return { socket: address, listen, wait, ...(scheme === 'telnet' || on('telnet') ? { telnet: true } : {}) }
}

export function chardev(settings: QemuSettings, text: string): void {
  if (isHelp(text)) return void (settings.help = 'chardevs')
  const keys = new Map(keysOf(text, 'backend'))
  const id = keys.get('id')
  const need = (key: string): string => {
    const value = keys.get(key)
    if (value === undefined) throw new InputError(`expected ${key}=`)
    return value
  }
  if (id === undefined) throw new InputError("chardev: no id specified, expected 'id=NAME'")
  settings.chardevs.set(id, { target: chardevTarget(keys, need), mux: keys.get('mux') === 'on' })
  const log = keys.get('logfile')
  if (log !== undefined) settings.warnings.push(`warning: -chardev logfile=${log} has no effect: expected -chardev file`)
}

function chardevTarget(keys: ReadonlyMap<string, string>, need: (key: string) => string): SerialTarget {
  const backend = need('backend')
  const isOn = (key: string): boolean => keys.get(key) === 'on'
  const given = { server: isOn('server'), nowait: keys.get('wait') === 'off' || keys.has('nowait'), telnet: isOn('telnet') }
  const flags = Object.entries(given).map(([flag, on]) => (on ? `,${flag}` : '')).join('')
  switch (backend) {
    case 'stdio': return 'stdio'
    case 'null': return 'none'
    case 'pty': return { pty: need('id') }
    case 'file': return { file: need('path') }
    case 'pipe': return { pipe: need('path') }
    case 'socket':
      if (keys.has('path')) return socket('unix', need('path') + flags)
      return socket('tcp', `${keys.get('host') ?? ''}:${need('port')}${flags}`)
    default: throw new InputError(`'${backend}' is not a valid char driver name; expected stdio, pty, null, file, pipe or socket`)
  }
}

export function firmwareFile({ firmwareFiles, warnings }: QemuSettings, text: string): void {
  const { name, file: path, string, ...others } = keysOfValue(text, 'name')
  const [other] = Object.keys(others)
  if (other !== undefined) throw new InputError(`Invalid parameter '${other}'; expected name, file or string`)
  if (!name || (path === undefined) === (string === undefined)) throw new InputError('expected name=NAME, and file=FILE or string=TEXT')
  if (firmwareFiles.some(each => each.name === name)) throw new InputError(`duplicate fw_cfg file name: ${name}`)
  if (!name.startsWith('opt/')) warnings.push(`warning: -fw_cfg ${name}: names that are not the machine's own should begin with opt/`)
  firmwareFiles.push({ name, ...(path === undefined ? { text: string } : { path }) })
}

export function action(settings: QemuSettings, text: string): void {
  for (const [event, value] of keysOf(text, 'reboot')) {
    if (event === 'reboot' && (value === 'shutdown' || value === 'reset')) settings.noReboot = value === 'shutdown'
    else if (!(event === 'shutdown' && value === 'poweroff') && event !== 'panic') {
      throw new InputError(`${event}=${value} is not offered, expected reboot=reset or reboot=shutdown`)
    }
  }
}

/** `utc` and `localtime` are now; without this option the clock starts at a fixed date, so that runs are alike. */
export function rtc(settings: QemuSettings, text: string): void {
  for (const [key, value] of keysOf(text, 'base')) {
    if (key === 'base') settings.rtc = value === 'utc' || value === 'localtime' ? 'now' : parseDate(value, 'base')
    else if (key !== 'clock' && key !== 'driftfix') throw new InputError(`Invalid parameter '${key}'; expected base, clock or driftfix`)
  }
}

/** A device and where it writes. */
export function debugcon(settings: QemuSettings, text: string): void {
  serial(text, settings)
  settings.debugConsole = text
  settings.devices.push({ name: 'isa-debugcon', properties: {} })
}

/** As JSON, `hostfwd` is a list of objects with a text each. */
export function netdev(settings: QemuSettings, text: string): void {
  if (!isJson(text)) return void settings.netdevs.push(text)
  const { type = '', ...keys } = keysOfValue(text, 'type')
  const words = Object.entries(keys).map(([key, word]) => `${key.replace(/^(hostfwd|guestfwd)\.\d+\.str$/, '$1')}=${word}`)
  settings.netdevs.push([type, ...words].join(','))
}

export function oldNetwork(settings: QemuSettings, text: string): void {
  const [kind, ...rest] = partsOf(text)
  if (kind === 'nic') settings.oldCards.push(Object.fromEntries(keysOf(rest.join(','), 'model')))
  else if (kind === 'user') settings.oldNetworks.push([kind, ...rest].join(','))
  else if (kind !== 'none') throw new InputError(`network of kind '${kind}' is not offered by -net, expected nic, user or none`)
}

export function monitor(settings: QemuSettings, kind: 'human' | 'qmp', text: string): void {
  const { target } = serial(text, settings)
  if (typeof target === 'object' && 'file' in target) throw new InputError('expected something that can be read, found a file')
  if (text !== 'none' && text !== 'null' && text !== '/dev/null') settings.monitors.push({ kind, target: text })
}

export function mon(settings: QemuSettings, text: string): void {
  let id = ''
  let kind: 'human' | 'qmp' = 'human'
  for (const [key, value] of keysOf(text, 'chardev')) {
    if (key === 'chardev') id = value
    else if (key === 'mode' && (value === 'readline' || value === 'control')) kind = value === 'control' ? 'qmp' : 'human'
    else if (key !== 'pretty' && key !== 'id') {
      throw new InputError(`Invalid parameter '${key}=${value}'; expected chardev, mode=readline or mode=control`)
    }
  }
  settings.monitors.push({ kind, target: `chardev:${id}` })
}

export function gdb(settings: QemuSettings, text: string): void {
  if (text !== 'none') settings.gdb = parseGdb(text.replace(/^tcp::/, 'tcp:'), 'device')
}

export function seed(settings: QemuSettings, text: string): void {
  if (!/^\d+$/.test(text)) throw new InputError('expected a number')
  settings.seed = Number(text)
}

/** Of QEMU's translator and of its other machines. */
const otherLogItems = [
  'out_asm', 'in_asm', 'op', 'op_opt', 'op_ind', 'exec', 'cpu', 'fpu', 'mmu', 'pcall', 'cpu_reset', 'page', 'nochain', 'plugin', 'strace',
  'tid', 'vpu',
]

export function log(settings: QemuSettings, text: string): void {
  for (const item of partsOf(text)) {
    if (item === 'unimp' || item === 'guest_errors') settings.log = true
    else if (item === 'int') settings.events = true
    else if (otherLogItems.includes(item)) settings.warnings.push(`warning: -d ${item} has no effect: expected int, guest_errors or unimp`)
    else throw new InputError(`unknown log item '${item}', expected int, guest_errors or unimp`)
  }
}

export function global(settings: QemuSettings, text: string): void {
  const keys: Record<string, string> = text.startsWith('driver=') ? Object.fromEntries(keysOf(text, 'driver')) : {}
  const [, driver = keys.driver, property = keys.property, given = keys.value] = /^([^.=]+)\.([^=]+)=(.*)$/.exec(text) ?? []
  if (!driver || !property || given === undefined) throw new InputError("expected 'driver.property=value'")
  settings.globals.push({ driver, property, value: given })
}
