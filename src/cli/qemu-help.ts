/** What `vitrine qemu` answers to `-help`, `-version` and `help` as a value, in the forms that scripts look for. */
import { InputError } from '../errors.ts'
import { driveHelp } from './drives.ts'
import { qemuOptions, type HelpTopic } from './qemu-options.ts'
import { statusTable } from './status.ts'
import type { Catalogue, Choice } from './system.ts'
import { suggest } from './values.ts'

export function qemuHelp(what: HelpTopic, { cpuModels, cpuFeatures, devices }: Catalogue, version: string): string {
  if (typeof what === 'object') return deviceHelp(what.device, devices)
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
    case 'drives': return driveHelp
    case 'chardevs': return 'Available chardev backend types:\n  file\n  null\n  pipe\n  pty\n  socket\n  stdio\n'
    case 'options': return optionsHelp(version)
  }
}

function row(name: string, description: string): string {
  return `${name.padEnd(20)} ${description}\n`
}

function deviceLine({ name, bus, description }: Choice): string {
  return `name "${name}"${bus === undefined ? '' : `, bus ${bus}`}, desc "${description}"\n`
}

/** `-device NAME,help`. */
function deviceHelp(name: string, devices: readonly Choice[]): string {
  const device = devices.find(each => each.name === name)
  if (!device) throw new InputError(`'${name}' is not a valid device model name${suggest(name, devices.map(each => each.name))}`)
  const lines = Object.entries(device.properties ?? {}).map(([key, value]) => `  ${key}=<value>${value && ` (default: ${value})`}\n`)
  return `${name} options:\n${lines.join('') || '  none of its own\n'}`
}

function optionsHelp(version: string): string {
  const lines = qemuOptions.map(({ names, argument, help: text }) => {
    const left = `${names.map(name => `-${name}`).join(' or ')}${argument === undefined ? '' : ` ${argument}`}`
    return left.length < 32 ? `${left.padEnd(32)}${text}\n` : `${left}\n${' '.repeat(32)}${text}\n`
  })
  const title = `Vitrine ${version} behind the command line of the QEMU emulator\nusage: vitrine qemu [options]`
  return `${title}\n\n${lines.join('')}\nExit status:\n${statusTable}\n`
}
