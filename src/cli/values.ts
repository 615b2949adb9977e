/** Values of options as people write them, parsed into what the machine takes; both command lines use these. */
import type { CpuSelection, IommuOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import { type Catalogue, type Choice, type SocketAddress, type TraceKind, traceKinds } from './system.ts'

const multipliers: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }

/** A size in bytes from `512M`, `1.5G`, `4096K`; a bare number counts MiB, as QEMU has it. */
export function parseMemory(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/i.exec(text)
  if (!match) throw new InputError(`${option} '${text}': expected a size such as 512M or 2G`)
  const bytes = Number(match[1]) * multipliers[match[2].toLowerCase() || 'm']
  if (bytes < 2 ** 21 || bytes % 2 ** 20 !== 0) throw new InputError(`${option} '${text}': expected a multiple of 1M, at least 2M`)
  return bytes
}

/** A whole number such as `100000`, `1e9` or `2_000`, within limits. */
export function parseCount(text: string, option: string, least = 1, most = Number.MAX_SAFE_INTEGER): number {
  const value = /^\d[\d_]*(e\d+)?$/i.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN
  if (!(value >= least && value <= most)) {
    const limits = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`
    throw new InputError(`${option} '${text}': expected a whole number ${limits}`)
  }
  return value
}

/** What `--trace` shows, and the file that it goes to. */
export function parseTrace(text: string): { kinds: TraceKind[]; file?: string } {
  const [, what = '', file] = /^([^:]*)(?::(.+))?$/.exec(text) ?? []
  const kinds = what.split('+').map(word => traceKinds.find(kind => kind === word))
  if (kinds.includes(undefined)) throw new InputError(`--trace '${text}': expected exits, iommu or events, or some: exits+events:FILE`)
  return { kinds: kinds as TraceKind[], ...(file === undefined ? {} : { file }) }
}

/** Seconds above 0, such as `60` or `0.5`. */
export function parseSeconds(text: string, option: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0
  if (!(value > 0)) throw new InputError(`${option} '${text}': expected a number of seconds above 0`)
  return value
}

/** Seconds since 1970 from `2026-01-31` or `2026-01-31T12:00:00`, both UTC, or `@SECONDS`. */
export function parseDate(text: string, option: string): number {
  const seconds = /^@\d+$/.test(text) ? Number(text.slice(1))
    : /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$/.test(text) ? Date.parse(text.includes('T') ? `${text}Z` : text) / 1000 : Number.NaN
  if (Number.isSafeInteger(seconds)) return seconds
  throw new InputError(`${option} '${text}': expected a date such as 2026-01-31T12:00:00`)
}

export interface ParsedCpu {
  cpu: CpuSelection
  /** What there is to say about it: features asked for, or had by that processor, which are not implemented. */
  remarks: string[]
}

/** `MODEL[,+feature][,-feature][,feature=on|off][,key=value]`; a name that nobody knows is an error that names the nearest one. */
export function parseCpu(text: string, catalogue: Catalogue): ParsedCpu {
  const [name, ...changes] = text.split(',').filter(part => part !== '').map(switchOf)
  const starting = (sign: string): string[] => changes.filter(change => change.startsWith(sign)).map(change => change.slice(1))
  const rest = changes.filter(change => !/^[+-]/.test(change))
  const vendor = rest.find(change => change.startsWith('vendor='))?.slice(7)
  const keys = rest.filter(change => !change.startsWith('vendor='))
  try {
    const { notOffered, lacking } = catalogue.checkCpu([name, ...changes].join(','))
    const remarks = name === 'host' ? ["CPU 'host' means 'max' here: the machine that we run on has no say"] : []
    if (notOffered.length > 0) remarks.push(`not implemented, so the CPU goes without: ${notOffered.join(', ')}`)
    if (lacking.length > 0) remarks.push(`in silicon, ${name} has more than is implemented; this one goes without: ${lacking.join(' ')}`)
    const cpu: CpuSelection = { model: [name, ...keys].join(','), add: starting('+'), remove: starting('-') }
    if (vendor !== undefined) cpu.vendor = vendor
    return { cpu, remarks }
  } catch (error) {
    throw new InputError((error as Error).message, { cause: error })
  }
}

/** Bits of physical address that QEMU's emulated CPUs have, whatever their model. */
const narrowPhysicalBits = 40

/**
 * The CPU with 40 bits of physical address unless it says how many itself: UEFI firmware may map them all, page by page, which takes a
 * minute with the 46 or 48 of servers.
 */
export function narrowCpu(text: string): string {
  return /^host\b|phys-bits/.test(text) ? text : `${text},phys-bits=${narrowPhysicalBits}`
}

/** QEMU's newer spelling of a feature's switch. Keys that are no features keep theirs. */
function switchOf(change: string): string {
  const match = /^([\w.-]+)=(on|off)$/.exec(change)
  if (!match || /^(host-phys-bits|migratable|pmu|l3-cache|enforce|check)$/.test(match[1])) return change
  return (match[2] === 'on' ? '+' : '-') + match[1]
}

export interface DeviceSelection {
  name: string
  properties: Record<string, string>
}

/** Parts between commas; a doubled comma is one that belongs to its part. */
export const splitList = (text: string): string[] => text.split(/(?<!,),(?!,)/).map(part => part.replaceAll(',,', ','))

/** `NAME[,key=value...]`; a key alone means `on`. */
export function parseDevice(text: string): DeviceSelection {
  const [name, ...properties] = splitList(text)
  return {
    name: name.replace(/^driver=/, ''),
    properties: Object.fromEntries(properties.filter(part => part !== '').map(part => {
      const equals = part.indexOf('=')
      return equals < 0 ? [part, 'on'] : [part.slice(0, equals), part.slice(equals + 1)]
    })),
  }
}

/** `vtd[,key=value...]`. */
export function parseIommu(text: string): IommuOptions {
  const { name, properties } = parseDevice(text)
  return { model: name, properties }
}

/** The end of an error about a word that nobody knows. */
export function suggest(word: string, known: readonly string[]): string {
  return known.length === 0 ? '' : `; the nearest is '${nearest(word, known)}'`
}

/** A line a name, for `help` as a value. */
export function listChoices(choices: readonly Choice[]): string {
  const width = Math.max(...choices.map(({ name }) => name.length))
  return choices.map(({ name, description, properties = {} }) => {
    const settings = Object.entries(properties).map(([key, value]) => `${key}=${value}`).join(', ')
    return `  ${name.padEnd(width)}  ${description}${settings ? ` (${settings})` : ''}\n`
  }).join('')
}

/** `--device NAME,help`: its properties with their defaults. */
export function describeDevice(name: string, devices: readonly Choice[]): string {
  const device = devices.find(each => each.name === name)
  if (!device) throw new InputError(`there is no device '${name}'${suggest(name, devices.map(each => each.name))}`)
  const lines = Object.entries(device.properties ?? {}).map(([key, value]) => `  ${key}=${value || '<value>'}\n`)
  return `${name}: ${device.description}\n${lines.join('') || '  no properties of its own\n'}`
}

/** Where GDB connects: `1234`, `HOST:1234`, QEMU's `tcp:HOST:PORT`, or `unix:PATH`. Without a host, only this machine is served. */
export function parseGdb(text: string, option: string): SocketAddress {
  if (text.startsWith('unix:') && text.length > 5) return { path: text.slice(5) }
  const [, host = '', port = ''] = /^(?:tcp:)?(?:(.*):)?(\d{1,5})$/.exec(text.split(',')[0]) ?? []
  if (port === '' || Number(port) > 65535) throw new InputError(`${option} '${text}': expected a port, HOST:PORT or unix:PATH`)
  return { host: host || '127.0.0.1', port: Number(port) }
}
