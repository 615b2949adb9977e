/** `--share` and QEMU's `-virtfs` and `-fsdev`: folders of ours that the guest mounts, and the devices that show them. */
import type { ShareOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import type { System } from './system.ts'
import { type DeviceSelection, parseDevice } from './values.ts'

export const shareHelp = `\
FOLDER[,key=value...], or path=FOLDER among the keys:
  tag=NAME         what the guest mounts: mount -t 9p -o trans=virtio,version=9p2000.L NAME /mnt (default: the folder's name)
  readonly=on|off  refuse writes (default: off)
  id=NAME          its name (default: share0, share1, ...)
`

export interface Shares {
  shares: ShareOptions[]
  devices: DeviceSelection[]
  warnings: string[]
}

const known = ['path', 'tag', 'id', 'readonly']
/** `fmode` and the like are about how QEMU maps owners or writes: accepted, and without effect. */
const knownToQemu = ['path', 'mount_tag', 'id', 'readonly', 'security_model', 'writeout', 'fmode', 'dmode', 'multidevs']
const securityModels = ['none', 'passthrough', 'mapped', 'mapped-xattr', 'mapped-file']

/** Each is `FOLDER[,tag=NAME][,readonly]`; without a tag it is the folder's own name. */
export function parseShares(texts: readonly string[], system: System): Shares {
  const all = texts.map((text, index) => {
    const keys = keysOf(`share '${text}'`, text.includes('=') && /^\w+=/.test(text) ? text : `path=${text}`, known)
    const path = keys.path ?? missing(`share '${text}'`, 'a folder')
    return shareOf({ ...keys, path, id: keys.id ?? `share${index}` }, keys.tag ?? ownName(path), system)
  })
  return joined(all, 'tag')
}

/** `local,path=FOLDER,mount_tag=NAME,...`; with `device` false it is a folder that a `-device virtio-9p-pci` names by its ID. */
export function parseQemuShares(texts: readonly string[], device: boolean, system: System): Shares {
  const all = texts.map((text, index) => {
    const [driver, ...rest] = text.split(',')
    const what = `${device ? '-virtfs' : '-fsdev'} ${text}`
    if (driver !== 'local') throw new InputError(`${what}: expected local, found '${driver}'`)
    const keys = keysOf(what, rest.join(','), knownToQemu)
    const path = keys.path ?? missing(what, 'path=FOLDER')
    const id = keys.id ?? (device ? `virtfs${index}` : missing(what, 'id=ID, for a device to name'))
    const tag = device ? keys.mount_tag ?? missing(what, 'mount_tag=NAME') : ''
    return { ...shareOf({ ...keys, path, id }, tag, system), warnings: ownersWarning(what, keys.security_model) }
  })
  const { shares, devices, warnings } = joined(all, 'mount_tag')
  return { shares, devices: device ? devices : [], warnings }
}

function shareOf({ path, id, readonly }: Record<'path' | 'id', string> & { readonly?: string }, tag: string, system: System): Shares {
  return {
    shares: [{ id, folder: system.openFolder(path, readonly !== undefined && readonly !== 'off') }],
    devices: [{ name: 'virtio-9p-pci', properties: { fsdev: id, mount_tag: tag } }],
    warnings: [],
  }
}

/** `key`: what people call the name by which the guest mounts a folder; it would find only one of two. */
function joined(all: readonly Shares[], key: string): Shares {
  const devices = all.flatMap(each => each.devices)
  const tags = devices.map(({ properties }) => properties.mount_tag)
  const twice = tags.find((tag, index) => tag !== '' && tags.indexOf(tag) < index)
  if (twice !== undefined) throw new InputError(`shares: expected a ${key} of its own for each folder, found '${twice}' twice`)
  return { shares: all.flatMap(each => each.shares), devices, warnings: all.flatMap(each => each.warnings) }
}

/** Files keep the owner that we are; nothing is written beside them about whom the guest wanted. */
function ownersWarning(what: string, model = 'none'): string[] {
  if (!securityModels.includes(model)) {
    throw new InputError(`${what}: security_model '${model}': the nearest is '${nearest(model, securityModels)}'`)
  }
  return model.startsWith('mapped') ? [`warning: security_model=${model} has no effect: owners are those of the files, as with none`] : []
}

function keysOf(what: string, text: string, names: readonly string[]): Record<string, string> {
  const keys = parseDevice(`share,${text}`).properties
  for (const key of Object.keys(keys)) {
    if (!names.includes(key)) throw new InputError(`${what}: there is no key '${key}'; the nearest is '${nearest(key, names)}'`)
  }
  if (keys.readonly !== undefined && !['on', 'off'].includes(keys.readonly)) {
    throw new InputError(`${what}: readonly: expected on or off, found '${keys.readonly}'`)
  }
  return keys
}

function ownName(path: string): string {
  const name = path.split(/[/\\]/).findLast(part => part !== '') ?? ''
  return /^\.*$/.test(name) ? 'share' : name
}

function missing(what: string, expected: string): never {
  throw new InputError(`${what}: expected ${expected}`)
}
