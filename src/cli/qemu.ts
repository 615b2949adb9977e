/** `vitrine qemu`: the machine behind QEMU's command line, for scripts that call qemu-system-x86_64. */
import type { BootOptions } from '../api.ts'
import { InputError, isInputError } from '../errors.ts'
import { parseDrives } from './drives.ts'
import { firmwareOptions, hasUefi } from './firmware.ts'
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
  if (settings.kernel === undefined && settings.bios === undefined && settings.drives.length === 0) {
    throw new InputError('no bootable device: expected -kernel, -hda, -cdrom or -drive')
  }
  if (settings.wait && settings.gdb === undefined && settings.monitors.length === 0) {
    throw new InputError('-S: nobody could let it go on; expected -s, -gdb, -monitor or -qmp too')
  }
  applyGlobals(settings)
  for (const warning of settings.warnings) warn(system, warning)
  for (const device of settings.devices) checkName(device, catalogue)
  const { drives, flash, devices } = parseDrives(drivesOf(settings), system, 'ide')
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
      ...(drives.length === 0 ? {} : { drives }),
      ...(flash.length === 0 ? {} : { flash }),
      seed: settings.seed,
      ...(settings.rtc === undefined ? {} : { rtcEpoch: settings.rtc === 'now' ? system.now() : settings.rtc }),
      noReboot: settings.noReboot, engine: 'jit',
      ...boot,
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

const drivesOf = ({ drives, snapshot }: QemuSettings): string[] => drives.map(text => (snapshot ? `${text},snapshot=on` : text))

function monitorsOf(
  settings: QemuSettings, console: ConsoleOptions, others: NonNullable<RunRequest['serials']>,
): Pick<RunRequest, 'monitors' | 'paused'> {
  const monitors = settings.monitors.map(({ kind, target }) => ({ kind, target: targetOf(target, settings, '-monitor').target }))
  const onTerminal = [console.serial, ...others.map(({ target }) => target), ...monitors.map(({ target }) => target)]
  if (onTerminal.filter(target => target === 'stdio').length > 1) {
    throw new InputError('-monitor stdio: cannot use stdio by multiple character devices; expected -serial file:FILE, say, beside it')
  }
  if (monitors.length === 0) return {}
  return { monitors, ...(settings.wait && settings.gdb === undefined ? { paused: true } : {}) }
}

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

function applyGlobals({ globals, devices, warnings }: QemuSettings): void {
  for (const { driver, property, value } of globals) {
    const meant = devices.filter(({ name }) => name === driver)
    for (const device of meant) device.properties = { [property]: value, ...device.properties }
    if (meant.length === 0) warnings.push(`warning: global ${driver}.${property} has no effect`)
  }
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
  const ports = texts.map((text, port) => ({ port, ...targetOf(text, settings) }))
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

function targetOf(text: string, settings: QemuSettings, option = '-serial'): { target: SerialTarget; escape: boolean } {
  const [, id] = /^(?:mon:)?chardev:(.*)$/.exec(text) ?? []
  if (id !== undefined && !settings.chardevs.has(id)) {
    const known = [...settings.chardevs.keys()].join(', ') || 'none'
    throw new InputError(`${option} ${text}: expected a -chardev with id=${id}, found ${known}`)
  }
  return serial(text, settings)
}

/** What the device makes of its properties, the machine says; an unknown one QEMU words like this. */
function checkName({ name }: QemuSettings['devices'][number], { devices }: Catalogue): void {
  const names = devices.map(device => device.name)
  if (!names.includes(name)) throw new InputError(`-device ${name}: '${name}' is not a valid device model name${suggest(name, names)}`)
}

function warn(system: System, text: string): void {
  system.printError(`${program}: ${text}\n`)
}
