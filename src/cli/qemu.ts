/** `vitrine qemu`: the machine behind QEMU's command line, for scripts that call qemu-system-x86_64. */
import { InputError, isInputError } from '../errors.ts'
import { parseDrives } from './drives.ts'
import { parseQemu, qemuOptions, type QemuSettings } from './qemu-options.ts'
import { report } from './run.ts'
import { statuses, statusOf, statusTable } from './status.ts'
import type { Catalogue, Choice, ConsoleOptions, RunRequest, System } from './system.ts'
import { parseCpu, suggest } from './values.ts'

/** What precedes a message, where QEMU puts the name of its program. */
const program = 'vitrine qemu'

export async function qemu(args: readonly string[], system: System): Promise<number> {
  try {
    const settings = parseQemu(args)
    const catalogue = await system.catalogue()
    if (settings.help) {
      system.print(help(settings.help, catalogue, system.version))
      return 0
    }
    const result = await system.run(requestOf(settings, system, catalogue))
    report(result, system)
    return statusOf(result)
  } catch (error) {
    if (!isInputError(error)) throw error
    system.printError(`${program}: ${error.message}\n`)
    return statuses.usage.status
  }
}

function requestOf(settings: QemuSettings, system: System, catalogue: Catalogue): RunRequest {
  if (settings.kernel === undefined) throw new InputError('no bootable device: expected -kernel')
  const { cpu, notOffered } = parseCpu(settings.cpu, catalogue)
  for (const feature of notOffered) warn(system, `warning: the CPU doesn't support requested feature: ${feature}`)
  for (const warning of settings.warnings) warn(system, warning)
  for (const device of settings.devices) checkName(device, catalogue)
  const { drives, devices } = parseDrives(settings.drives, system)
  const console = consoleOf(settings)
  if (console.serial === 'none' && settings.serial === undefined && settings.display !== 'none') {
    warn(system, 'warning: no display is emulated; -nographic or -serial stdio shows the serial port')
  }
  return {
    machine: {
      cpu,
      cpus: settings.cpus,
      memory: settings.memory,
      chipset: settings.machine,
      devices: [...devices, ...settings.devices],
      ...(drives.length === 0 ? {} : { drives }),
      seed: settings.seed,
      noReboot: settings.noReboot, engine: 'jit',
      kernel: system.readFile(settings.kernel),
      kernelName: settings.kernel,
      ...(settings.initrd === undefined ? {} : { initrd: system.readFile(settings.initrd), initrdName: settings.initrd }),
      commandLine: settings.append,
    },
    console,
    session: {},
  }
}

/** With `-serial stdio` Ctrl-C ends QEMU and Ctrl-A is a key as any other; `-nographic` and `mon:` turn both round. */
function consoleOf({ serial, noGraphic, log }: QemuSettings): ConsoleOptions {
  const rest = { quiet: !log, collect: false }
  const port = serial ?? (noGraphic ? 'mon:stdio' : 'none')
  if (port === 'mon:stdio') return { serial: 'stdio', escape: true, interrupt: false, ...rest }
  return { serial: port, escape: false, interrupt: true, ...rest }
}

/** What the device makes of its properties, the machine says; an unknown one QEMU words like this. */
function checkName({ name }: QemuSettings['devices'][number], { devices }: Catalogue): void {
  const names = devices.map(device => device.name)
  if (!names.includes(name)) throw new InputError(`-device ${name}: '${name}' is not a valid device model name${suggest(name, names)}`)
}

function warn(system: System, text: string): void {
  system.printError(`${program}: ${text}\n`)
}

function help(what: NonNullable<QemuSettings['help']>, { cpuModels, cpuFeatures, devices }: Catalogue, version: string): string {
  switch (what) {
    // Scripts look for this name and a version; the version is that of the machine whose behaviour the options follow.
    case 'version': return `QEMU emulator version 7.2.0 (command line of Vitrine ${version})\n`
    case 'machines':
      return `Supported machines are:\n${row('pc', '3 GiB of low RAM, no PCIe (default)')}${row('q35', '2 GiB of low RAM, PCIe')}`
    case 'cpus':
      return `Available CPUs:\n${cpuModels.map(({ name, description }) => `x86 ${row(name, description)}`).join('')}\n` +
        `Recognized CPUID flags:\n  ${cpuFeatures.join(' ')}\n`
    case 'accelerators': return 'Accelerators supported in QEMU binary:\ntcg\n'
    case 'devices': return `Misc devices:\n${devices.map(deviceLine).join('')}`
    case 'options': return optionsHelp(version)
  }
}

function row(name: string, description: string): string {
  return `${name.padEnd(20)} ${description}\n`
}

function deviceLine({ name, bus, description }: Choice): string {
  return `name "${name}"${bus === undefined ? '' : `, bus ${bus}`}, desc "${description}"\n`
}

function optionsHelp(version: string): string {
  const lines = qemuOptions.map(({ names, argument, help: text }) => {
    const left = `${names.map(name => `-${name}`).join(' or ')}${argument === undefined ? '' : ` ${argument}`}`
    return left.length < 32 ? `${left.padEnd(32)}${text}\n` : `${left}\n${' '.repeat(32)}${text}\n`
  })
  const title = `Vitrine ${version} behind the command line of the QEMU emulator\nusage: ${program} [options]`
  return `${title}\n\n${lines.join('')}\nExit status:\n${statusTable}\n`
}
