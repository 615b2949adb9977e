/** `vitrine qemu`: the machine behind QEMU's command line, for scripts that call qemu-system-x86_64. */
import type { BootOptions, DriveOptions } from '../api.ts'
import { InputError, isInputError } from '../errors.ts'
import { type Drives, parseDrives } from './drives.ts'
import { firmwareOptions, hasUefi } from './firmware.ts'
import { blockDrive } from './qemu-blocks.ts'
import { virtioConsoles } from './qemu-devices.ts'
import { qemuHelp } from './qemu-help.ts'
import { parseModules } from './modules.ts'
import { type Networks, parseNetworks } from './networks.ts'
import { parseQemu, type QemuSettings } from './qemu-options.ts'
import { serial } from './qemu-values.ts'
import { report } from './run.ts'
import { parseQemuShares } from './shares.ts'
import { statuses, statusOf } from './status.ts'
import type { Catalogue, ConsoleOptions, RunRequest, SerialTarget, System } from './system.ts'
import { narrowCpu, parseCpu, suggest } from './values.ts'

/** What precedes a message, where QEMU puts the name of its program. */
const program = 'vitrine qemu'

export async function qemu(args: readonly string[], system: System): Promise<number> {
  try {
    const settings = parseQemu(args)
    const catalogue = await system.catalogue()
    if (settings.help) {
      system.print(qemuHelp(settings.help, catalogue, system.version))
      return 0
    }
    const request = requestOf(settings, system, catalogue)
    if (settings.pidFile !== undefined) system.writeFile(settings.pidFile, `${system.processId}\n`)
    const result = await system.run(request)
    // Test runners look for these words when a run was cut short.
    if (result.ending.kind === 'signal') warn(system, `terminating on signal ${result.ending.status - 128}`)
    report(result, system)
    return statusOf(result)
  } catch (error) {
    if (!isInputError(error)) throw error
    system.printError(`${program}: ${error.message}\n`)
    return statuses.usage.status
  }
}

function requestOf(settings: QemuSettings, system: System, catalogue: Catalogue): RunRequest {
  const [accelerator] = settings.accelerators
  if (accelerator !== undefined && !settings.accelerators.includes('tcg')) {
    throw new InputError(`-accel ${accelerator}: there is no ${accelerator} here: expected tcg, our own engine, beside it or instead`)
  }
  if (settings.kernel === undefined && settings.bios === undefined && settings.drives.length === 0 && settings.nodes.size === 0) {
    throw new InputError('no bootable device: expected -kernel, -hda, -cdrom, -drive or -blockdev')
  }
  if (settings.wait && settings.gdb === undefined && settings.monitors.length === 0) {
    throw new InputError('-S: nobody could let it go on; expected -s, -gdb, -monitor or -qmp too')
  }
  const secureFlash = takeSecureFlash(settings)
  applyGlobals(settings)
  for (const warning of settings.warnings) warn(system, warning)
  for (const device of settings.devices) checkName(device, catalogue)
  settings.devices.push(...virtioConsoles(settings))
  const { drives, flash, devices } = drivesOf(settings, system)
  const nets = networksOf(settings)
  const shared = [parseQemuShares(settings.fsdevs, false, system), parseQemuShares(settings.virtfs, true, system)]
  for (const warning of shared.flatMap(each => each.warnings)) warn(system, warning)
  const shares = shared.flatMap(each => each.shares)
  const allDevices = [...devices, ...nets.devices, ...shared.flatMap(each => each.devices), ...settings.devices]
  const boot = startOf(settings, flash.length > 0, allDevices, system)
  const { cpu, remarks } = parseCpu(hasUefi(boot, flash) ? narrowCpu(settings.cpu) : settings.cpu, catalogue)
  for (const remark of remarks) warn(system, `warning: ${remark}`)
  const { console, others } = consoleOf(settings)
  if (console.serial === 'none' && settings.serials.length === 0 && settings.display !== 'none') {
    warn(system, 'warning: no display is emulated; -nographic or -serial stdio shows the serial port')
  }
  return {
    machine: {
      cpu,
      cpus: settings.cpus,
      memory: settings.memory,
      chipset: settings.machine,
      serialGate: false,
      ...(others.length === 0 ? {} : { serialPorts: others.length + 1 }),
      ...(nets.networks.length === 0 ? {} : { networks: nets.networks }),
      ...(settings.iommus.length === 0 ? {} : { iommus: settings.iommus }),
      ...(shares.length === 0 ? {} : { shares }),
      devices: allDevices,
      ...(settings.firmwareFiles.length === 0 ? {} : { fwCfgFiles: firmwareFilesOf(settings, system) }),
      ...(drives.length === 0 ? {} : { drives }),
      ...(flash.length === 0 ? {} : { flash }),
      seed: settings.seed,
      ...(settings.rtc === undefined ? {} : { rtcEpoch: settings.rtc === 'now' ? system.now() : settings.rtc }),
      noReboot: settings.noReboot, engine: 'jit',
      ...boot,
      ...(secureFlash ? { secureFlash } : {}),
      ...parseModules(settings.initrd, system),
      commandLine: settings.append,
    },
    forwards: nets.forwards,
    links: nets.links,
    console,
    ...(others.length === 0 ? {} : { serials: others }),
    ...monitorsOf(settings, console, others),
    ...(settings.debugConsole === undefined ? {} : { debugConsole: targetOf(settings.debugConsole, settings, '-debugcon').target }),
    session: {},
    ...traceOf(settings),
    ...(settings.gdb === undefined ? {} : { gdb: { address: settings.gdb, wait: settings.wait } }),
  }
}

/** Those of `-drive`, and the nodes of `-blockdev` that a device or the machine names. */
function drivesOf({ drives: texts, nodes, flashNodes, devices, snapshot }: QemuSettings, system: System): Drives {
  const given = parseDrives(texts.map(text => (snapshot ? `${text},snapshot=on` : text)), system, 'ide')
  const node = (name: string): DriveOptions => blockDrive(name, nodes, snapshot, system)
  const named = [...new Set(devices.map(({ properties }) => properties.drive ?? ''))].filter(name => nodes.has(name))
  if (flashNodes.length > 0 && given.flash.length > 0) throw new InputError('-machine pflash0: expected no -drive with if=pflash beside it')
  for (const [unit, name] of flashNodes.entries()) {
    if (!nodes.has(name)) throw new InputError(`-machine pflash${unit}=${name ?? ''}: expected the name of a -blockdev`)
  }
  return { drives: [...given.drives, ...named.map(node)], flash: [...given.flash, ...flashNodes.map(node)], devices: given.devices }
}

function monitorsOf(
  settings: QemuSettings, console: ConsoleOptions, others: NonNullable<RunRequest['serials']>,
): Pick<RunRequest, 'monitors' | 'paused'> {
  // Ctrl-A reaches what it can do of a monitor on the same terminal.
  const onSerial = (text: string): boolean => settings.serials.includes(text) && isShared(text, settings)
  const monitors = settings.monitors.filter(({ kind, target }) => kind === 'qmp' || !onSerial(target))
    .map(({ kind, target }, i) => ({ kind, target: targetOf(target, settings, '-monitor', `compat_monitor${i}`).target }))
  const onTerminal = [console.serial, ...others.map(({ target }) => target), ...monitors.map(({ target }) => target)]
  if (onTerminal.filter(target => target === 'stdio').length > 1) {
    throw new InputError('-monitor stdio: cannot use stdio by multiple character devices; expected -serial file:FILE, say, beside it')
  }
  if (monitors.length === 0) return {}
  return { monitors, ...(settings.wait && settings.gdb === undefined ? { paused: true } : {}) }
}

const isShared = (text: string, { chardevs }: QemuSettings): boolean => chardevs.get(text.replace(/^chardev:/, ''))?.mux ?? false

/** `-d int` by itself goes to our errors, as the rest of `-d` does. */
function traceOf({ events, log, logFile }: QemuSettings): Pick<RunRequest, 'trace'> {
  if (!events && (logFile === undefined || !log)) return {}
  return { trace: { kinds: events ? ['events'] : [], ...(logFile === undefined ? {} : { file: logFile, log }) } }
}

/** `-netdev` is a network without a card, `-nic` one with it. */
function networksOf(settings: QemuSettings): Networks {
  const { netdevs, nics } = settings
  const plain = parseNetworks(netdevs, { cards: false, needsId: true })
  const whole = parseNetworks([...nics, ...oldNetworksOf(settings)], { cards: true })
  return {
    networks: [...plain.networks, ...whole.networks], forwards: { ...plain.forwards, ...whole.forwards },
    links: { ...plain.links, ...whole.links }, devices: whole.devices,
  }
}

/** `-net nic -net user`: the first card on the first network, and so on. */
function oldNetworksOf({ oldCards, oldNetworks }: QemuSettings): string[] {
  if (oldCards.length !== oldNetworks.length) {
    throw new InputError(`-net: expected as many nic as user, found ${oldCards.length} and ${oldNetworks.length}`)
  }
  return oldNetworks.map((network, i) => {
    const { model, macaddr } = oldCards[i]
    return [network, ...(model ? [`model=${model}`] : []), ...(macaddr ? [`mac=${macaddr}`] : [])].join(',')
  })
}

/** The flash memory is no -device: what UEFI with Secure Boot asks of it is given by this one word. */
function takeSecureFlash(settings: QemuSettings): boolean {
  const isMeant = ({ driver, property }: QemuSettings['globals'][number]): boolean => driver === 'cfi.pflash01' && property === 'secure'
  const last = settings.globals.findLast(isMeant)
  settings.globals = settings.globals.filter(each => !isMeant(each))
  return last !== undefined && /^(on|true|yes|y)$/.test(last.value)
}

function applyGlobals({ globals, devices, warnings }: QemuSettings): void {
  for (const { driver, property, value } of globals) {
    const meant = devices.filter(({ name }) => name === driver)
    for (const device of meant) device.properties = { [property]: value, ...device.properties }
    if (meant.length === 0) warnings.push(`warning: global ${driver}.${property} has no effect`)
  }
}

function firmwareFilesOf({ firmwareFiles }: QemuSettings, system: System): Map<string, Uint8Array> {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
  return new Map(firmwareFiles.map(({ name, text = '', path }) => [name, path === undefined ? bytes(text) : system.readFile(path)]))
}

/** A kernel starts by itself, except under UEFI, which starts it by its EFI stub. */
function startOf(settings: QemuSettings, flash: boolean, devices: QemuSettings['devices'], system: System): BootOptions {
  const { kernel, bios, bootOrder, bootMenu } = settings
  const firmware = (): BootOptions => firmwareOptions({ bios, order: bootOrder, menu: bootMenu, flash }, devices, system)
  if (kernel === undefined) return firmware()
  const own = { kernel: readKernel(kernel, system), kernelName: kernel }
  if (bios === undefined && !flash) return own
  const chosen = firmware()
  if (flash || hasUefi(chosen)) return { ...own, ...chosen }
  warn(system, 'warning: -bios has no effect: -kernel starts by itself')
  return own
}

/** Test runners tell by these words that nothing but the kernel's file was wrong. */
function readKernel(path: string, system: System): Uint8Array {
  try {
    return system.readForRun(path)
  } catch (error) {
    if (!isInputError(error)) throw error
    throw new InputError(`could not open kernel file ${error.message.replace(/^cannot read /, '')}`, { cause: error })
  }
}

/**
 * With `-serial stdio` Ctrl-C ends QEMU and Ctrl-A is a key as any other; `-nographic` and `mon:` turn both round. The port on the
 * terminal is the console, or else the first.
 */
function consoleOf(settings: QemuSettings): { console: ConsoleOptions; others: NonNullable<RunRequest['serials']> } {
  const { serials, noGraphic, log } = settings
  const texts = serials.length > 0 ? serials : [noGraphic ? 'mon:stdio' : 'none']
  if (texts.length > mostSerials) throw new InputError(`-serial ${texts[mostSerials]}: expected at most ${mostSerials} serial ports`)
  const ports = texts.map((text, port) => ({ port, ...targetOf(text, settings, '-serial', `serial${port}`) }))
  const [onTerminal, second] = ports.filter(({ target }) => target === 'stdio')
  if (second) throw new InputError(`-serial ${texts[second.port]}: cannot use stdio by multiple character devices`)
  const { port, target, escape } = onTerminal ?? ports[0]
  return {
    console: { serial: target, ...(port === 0 ? {} : { port }), escape, interrupt: !escape, quiet: !log, collect: false },
    others: ports.filter(each => each.port !== port).map(each => ({ port: each.port, target: each.target })),
  }
}

/** COM1 to COM4. */
const mostSerials = 4

function targetOf(text: string, settings: QemuSettings, option: string, label?: string): { target: SerialTarget; escape: boolean } {
  const [, id] = /^(?:mon:)?chardev:(.*)$/.exec(text) ?? []
  if (id !== undefined && !settings.chardevs.has(id)) {
    const known = [...settings.chardevs.keys()].join(', ') || 'none'
    throw new InputError(`${option} ${text}: expected a -chardev with id=${id}, found ${known}`)
  }
  return serial(text, settings, label)
}

/** Devices of QEMU's by which images reach a guest, and what has them here. */
const instead: readonly [RegExp, string][] = [
  [/^(lsi53c|megasas|mptsas|pvscsi|am53c974|vhost-scsi|vhost-user-scsi)/, 'virtio-scsi-pci'],
  [/^(scsi-(block|generic|disk)|vhost-user-blk)/, 'scsi-hd, virtio-blk-pci, nvme or ide-hd'],
  [/^(e1000e|igb|rtl8139|ne2k|pcnet|i825|vmxnet3|usb-net|tulip|vhost-vdpa)/, 'virtio-net-pci or e1000'],
  [/^(pcie-pci-bridge|ioh3420|pxb|x3130|xio3130|i82801b11)/, 'pcie-root-port or pci-bridge'],
]

/** What the device makes of its properties, the machine says; an unknown one QEMU words like this. */
function checkName({ name }: QemuSettings['devices'][number], { devices }: Catalogue): void {
  const names = devices.map(device => device.name)
  const [, better] = instead.find(([pattern]) => pattern.test(name)) ?? []
  if (better !== undefined) throw new InputError(`-device ${name}: not emulated, expected ${better}`)
  if (!names.includes(name)) throw new InputError(`-device ${name}: '${name}' is not a valid device model name${suggest(name, names)}`)
}

function warn(system: System, text: string): void {
  system.printError(`${program}: ${text}\n`)
}
