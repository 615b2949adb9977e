/** How disks and CD-ROM drives are put behind a SCSI host. */
import { ScsiCdrom } from '../devices/scsi/cdrom.ts'
import { ScsiDisk, type ScsiDiskOptions } from '../devices/scsi/disk.ts'
import type { ScsiUnit } from '../devices/scsi/unit.ts'
import { maxLun, maxTarget } from '../devices/virtio/scsi/scsi.ts'
import { InputError } from '../errors.ts'
import type { Placed, Plug, ScsiHost } from './device-catalogue.ts'
import { number } from './isa-plugs.ts'

export const scsiPlugs: Readonly<Record<string, Plug>> = {
  'scsi-hd': (board, property) => plugUnit(board, property, 'scsi-hd', options => new ScsiDisk(options)),
  'scsi-cd': (board, property) => plugUnit(board, property, 'scsi-cd', options => new ScsiCdrom(options)),
}

function plugUnit(
  board: Placed, property: (name: string) => string, name: string, make: (options: ScsiDiskOptions) => ScsiUnit,
): [] {
  if (board.scsiHosts.size === 0) throw new InputError(`device '${name}': expected a virtio-scsi-pci before it, found no SCSI host`)
  number('channel', property('channel'), 0)
  const { host, target, lun } = placeOf([...board.scsiHosts.values()], property, name)
  const drive = property('drive')
  const identity = {
    vendor: property('vendor'), product: property('product'), revision: property('ver'), serial: property('serial'),
    name: property('device_id') || property('serial') || drive, ...worldWideName(property('wwn')),
  }
  host.bus.attach(target, lun, make({ store: board.takeDrive(drive), identity }))
  if (property('bootindex') !== '') {
    const path = `${host.path}/channel@0/disk@${target.toString(16)},${lun.toString(16)}`
    board.bootDevice(number('bootindex', property('bootindex'), 0x7fffffff), path)
  }
  return []
}

/** Without a target the first one that has no units, without a LUN the first one that is free. */
function placeOf(
  hosts: readonly ScsiHost[], property: (name: string) => string, name: string,
): { host: ScsiHost; target: number; lun: number } {
  const given = (key: string, limit: number): number | undefined => (property(key) === '' ? undefined : number(key, property(key), limit))
  const [asked, askedLun] = [given('scsi-id', maxTarget), given('lun', maxLun)]
  for (const host of hosts) {
    const target = asked ?? firstFree(maxTarget, id => host.bus.hasTarget(id))
    if (target === undefined) continue
    const lun = askedLun ?? firstFree(maxLun, id => host.bus.has(target, id))
    if (lun !== undefined && !host.bus.has(target, lun)) return { host, target, lun }
  }
  throw new InputError(`device '${name}': expected a free place, found another unit at scsi-id=${asked ?? 'any'}, lun=${askedLun ?? 'any'}`)
}

function firstFree(last: number, isTaken: (id: number) => boolean): number | undefined {
  for (let id = 0; id <= last; id++) if (!isTaken(id)) return id
  return undefined
}

function worldWideName(text: string): { worldWideName?: bigint } {
  if (text === '') return {}
  if (!/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) throw new InputError(`property 'wwn': expected a number of 64 bits, found '${text}'`)
  return { worldWideName: BigInt(text) }
}
