/** `--drive`: an image file as a drive, and the device that shows it. Both command lines use this. */
import type { DriveOptions, MachineOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import type { System } from './system.ts'
import { parseDevice, type DeviceSelection } from './values.ts'

/** From `cache` on they are about how QEMU uses its files: accepted, and without effect. */
const known = [
  'file', 'if', 'media', 'id', 'bootindex', 'format', 'snapshot', 'readonly', 'read-only', 'serial', 'index', 'bus', 'unit',
  'cache', 'cache.direct', 'cache.no-flush', 'cache.writeback', 'aio', 'discard', 'detect-zeroes', 'werror', 'rerror', 'file.aio',
  'file.locking',
]

const disks = { virtio: 'virtio-blk-pci', ide: 'ide-hd', nvme: 'nvme', scsi: 'scsi-hd' } as const
const scsiHost = 'virtio-scsi-pci'
const discs: Readonly<Record<string, string>> = { ide: 'ide-cd', scsi: 'scsi-cd' }

export const driveHelp = `\
FILE[,key=value...], or file=FILE among the keys:
  file=FILE            the image; fat:FOLDER is a disk with what is in the folder (FAT16), fat:rw:FOLDER drops what is written
  if=virtio|sata|nvme|scsi    a virtio disk, a SATA one (ide is the same), an NVMe one, one on a virtio SCSI host
  if=none              none of them: a --device names its id
  if=pflash            flash memory below 4 GiB, for UEFI: first its code (readonly=on), then its variables
  media=disk|cdrom     cdrom: a disc in a SATA drive (if=scsi: a SCSI one), never written
  bootindex=N          firmware tries the lowest one first
  id=NAME              its name (default: drive0, drive1, ...)
  format=raw|qcow2     what the file is (default: qcow2 by that file name, else raw)
  snapshot=on|off      keep what is written in memory, and drop it at the end
  readonly=on|off      refuse writes
  serial=TEXT          the disk's serial number
  unit=N               which of the flash memories it is (default: in the order given)
  cache, aio, discard, detect-zeroes, werror, rerror, index, bus    accepted, without effect
`

export interface Drives {
  drives: NonNullable<MachineOptions['drives']>
  flash: NonNullable<MachineOptions['flash']>
  devices: DeviceSelection[]
}

/** `--cdrom FILE` as a drive; a comma in the name is doubled. */
export const cdromDrive = (file: string): string => `file=${file.replaceAll(',', ',,')},media=cdrom`

/**
 * Each is `FILE[,key=value...]`, or `file=FILE` among the keys. Without `if=none` it becomes a disk or a CD-ROM drive, on virtio unless
 * `usual` says otherwise.
 */
export function parseDrives(texts: readonly string[], system: System, usual: 'virtio' | 'ide' = 'virtio'): Drives {
  const drives: DriveOptions[] = []
  const flash: DriveOptions[] = []
  const devices: DeviceSelection[] = []
  for (const [index, text] of texts.entries()) {
    const keys = keysOf(text)
    if (keys.if === 'pflash') {
      placeFlash(flash, keys, system)
      continue
    }
    const drive = driveOf(keys, `drive${index}`, system)
    drives.push(drive)
    const properties: Record<string, string> = { drive: drive.id }
    if (keys.serial !== undefined) properties.serial = keys.serial
    if (keys.bootindex !== undefined) properties.bootindex = keys.bootindex
    const isDisc = choice(keys, 'media', ['disk', 'cdrom']) === 'cdrom'
    const asked = choice(keys, 'if', ['virtio', 'sata', 'ide', 'nvme', 'scsi', 'none', 'pflash']) ?? (isDisc ? 'ide' : usual)
    const bus = asked === 'sata' ? 'ide' : asked
    if (bus === 'none' || bus === 'pflash') continue
    if (isDisc && !(bus in discs)) throw new InputError(`drive '${keys.file}': media=cdrom: expected if=ide or if=scsi, found if=${bus}`)
    if (bus === 'scsi' && !devices.some(({ name }) => name === scsiHost)) devices.push({ name: scsiHost, properties: {} })
    devices.push({ name: isDisc ? discs[bus] : disks[bus], properties })
  }
  const missing = flash.findIndex(each => each === undefined)
  if (missing >= 0) throw new InputError(`drives with if=pflash: expected one with unit=${missing} too, found unit=${flash.length - 1}`)
  return { drives, flash, devices }
}

const mostFlashUnits = 2

function placeFlash(flash: DriveOptions[], keys: Record<string, string>, system: System): void {
  const unit = keys.unit === undefined ? flash.length : Number(keys.unit)
  if (!Number.isInteger(unit) || unit < 0 || unit >= mostFlashUnits) {
    throw new InputError(`drive '${keys.file}': unit: expected 0 or 1, found '${keys.unit ?? unit}'`)
  }
  if (flash[unit]) throw new InputError(`drive '${keys.file}': expected another unit, found one that is taken: ${unit}`)
  flash[unit] = driveOf(keys, `flash${unit}`, system)
}

function keysOf(text: string): Record<string, string> {
  const [first] = text.split(',')
  const keys = plain(parseDevice(first.includes('=') ? `drive,${text}` : `drive,file=${text}`).properties)
  for (const key of Object.keys(keys)) {
    if (!known.includes(key)) throw new InputError(`drive '${text}': there is no key '${key}'; the nearest is '${nearest(key, known)}'`)
  }
  if (!keys.file) throw new InputError(`drive '${text}': expected a file`)
  return keys
}

/** QEMU's longer spellings: `driver` is the format, `file.driver` says what kind of file it is. */
function plain(given: Record<string, string>): Record<string, string> {
  const { 'file.driver': driver = 'file', 'file.filename': name, 'file.dir': folder = '', 'file.rw': rw, driver: format, ...keys } = given
  if (driver !== 'vvfat' && driver !== 'file') throw new InputError(`drive: file.driver: expected file or vvfat, found '${driver}'`)
  const file = driver === 'vvfat' ? `fat:${rw === 'on' ? 'rw:' : ''}${folder}` : name
  return { ...(format === undefined ? {} : { format }), ...(file === undefined ? {} : { file }), ...keys }
}

/** `fat:`, with options of QEMU's before the folder: of these only `rw` matters. */
function fatDrive({ file }: Record<string, string>, id: string, system: System): DriveOptions {
  const [, options, folder] = /^fat:((?:(?:rw|16|floppy|32|12):)*)(.*)$/.exec(file)!
  if (/floppy|32|12/.test(options)) throw new InputError(`drive '${file}': expected FAT16 on a disk, found ${options.slice(0, -1)}`)
  const writable = options.includes('rw')
  return { id, name: file, store: system.openFatFolder(folder), snapshot: writable, readOnly: !writable, format: 'raw' }
}

function driveOf(keys: Record<string, string>, defaultId: string, system: System): DriveOptions {
  if (keys.file.startsWith('fat:')) return fatDrive(keys, keys.id ?? defaultId, system)
  const snapshot = isOn(keys, 'snapshot')
  const readOnly = isOn(keys, 'readonly') || isOn(keys, 'read-only') || keys.media === 'cdrom'
  const format = choice(keys, 'format', ['raw', 'qcow2']) ?? (/\.qcow2$/i.test(keys.file) ? 'qcow2' : undefined)
  return {
    id: keys.id ?? defaultId, name: keys.file, snapshot, readOnly,
    store: system.openStore(keys.file, readOnly || snapshot),
    openBacking: name => system.openStore(system.pathBeside(keys.file, name), true),
    ...(format === undefined ? {} : { format }),
  }
}

function isOn(keys: Record<string, string>, key: string): boolean {
  return choice(keys, key, ['on', 'off']) === 'on'
}

function choice<T extends string>(keys: Record<string, string>, key: string, values: readonly T[]): T | undefined {
  const value = keys[key]
  if (value === undefined) return undefined
  const found = values.find(each => each === value)
  if (found === undefined) throw new InputError(`drive '${keys.file}': ${key}: expected ${values.join(' or ')}, found '${value}'`)
  return found
}
