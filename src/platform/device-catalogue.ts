/** The devices that a user may add by name, as after `--device`, and their properties. How each is put into the PC: device-plugs.ts. */
import { nearest } from '../cpu/features.ts'
import type { Ahci } from '../devices/ahci/ahci.ts'
import type { NetworkPort } from '../devices/network/port.ts'
import { bridgeKinds, type PciBridge } from '../devices/pci/bridge.ts'
import type { PciBus } from '../devices/pci/bus.ts'
import { bdf, type Bdf } from '../devices/pci/function.ts'
import type { Clock, InterruptPin, LogUnhandled, MmioHandler, Stateful } from '../devices/ports.ts'
import type { ScsiBus } from '../devices/scsi/bus.ts'
import type { BlockStore } from '../devices/storage/block-store.ts'
import type { Vga } from '../devices/vga/vga.ts'
import type { VirtioConsole } from '../devices/virtio/console/console.ts'
import type { SharedFolder } from '../devices/virtio/p9/folder.ts'
import { InputError } from '../errors.ts'
import type { PortBus } from './port-bus.ts'

export interface DeviceRequest {
  name: string
  properties: Record<string, string>
}

/** What a device is plugged into. */
export interface Board {
  clock: Clock
  ports: PortBus
  pci: PciBus
  /** Those that were plugged in so far, by their `id`: a device names one as its `bus`. */
  bridges: Map<string, PciBridge>
  /** SCSI hosts, by the name of their bus: for a device that goes behind one, those that it may go behind. */
  scsiHosts: Map<string, ScsiHost>
  /** Whether bus 0 is a PCI Express root complex. */
  express: boolean
  addMmio: (base: number, size: number, name: string, handler: MmioHandler) => void
  /** A new source of the interrupt line with this GSI, 0 to 23. */
  line: (gsi: number) => InterruptPin
  debugExit: (status: number) => void
  debugOutput: (byte: number) => void
  /** Takes a drive for one device, by its ID. */
  takeDrive: (id: string) => BlockStore
  /** The SATA controller, and its name in firmware's boot order. */
  sata: () => { controller: Ahci; path: string }
  /** Firmware starts the machine, and sets up what it finds. */
  firmware: boolean
  /** Makes a text screen the machine's. */
  showScreen: (vga: Vga) => void
  /** Asks firmware to boot from a device, the lowest index first. `path`: Open Firmware's name of it. */
  bootDevice: (index: number, path: string) => void
  /** Plugs one device into a network, by its ID. */
  takeNetwork: (id: string, deliver: (frame: Uint8Array) => void) => NetworkPort
  /** Takes a shared folder for one device, by its ID. */
  takeShare: (id: string) => { folder: SharedFolder }
  /** Joins a console to the terminal. */
  joinTerminal: (makeConsole: (output: (bytes: Uint8Array) => void) => VirtioConsole) => VirtioConsole
  seed: number
  log: LogUnhandled
}

/** A SCSI bus, and the host's name in firmware's boot order. */
export interface ScsiHost {
  bus: ScsiBus
  path: string
}

interface Entry {
  name: string
  description: string
  bus: 'ISA' | 'PCI' | 'SCSI'
  /** Names and defaults. */
  properties: Record<string, string>
}

/** Puts a device in. Returns the parts that hold state; PCI functions are kept by the bus. */
export type Plug = (board: Placed, property: (name: string) => string) => Stateful[]

/** The board, and where on it the user wants the device. */
export interface Placed extends Board {
  id: string
  /** undefined: bus 0. */
  bridge: PciBridge | undefined
  /** Says in its header that its device has more functions, before there are any. */
  multifunction: boolean
}

/** Without a number the first one that is free is taken. */
function scsiProperties(product: string): Record<string, string> {
  const identity = { serial: '', vendor: 'VITRINE', product, ver: '1.0', wwn: '', device_id: '' }
  return { drive: '', 'scsi-id': '', lun: '', channel: '0', bootindex: '', ...identity }
}

const entries: readonly Entry[] = [
  {
    name: 'isa-debug-exit', description: 'a write ends the machine with status (value << 1) | 1', bus: 'ISA',
    properties: { iobase: '0x501', iosize: '0x02' },
  },
  {
    name: 'isa-debugcon', description: 'a port whose bytes go to the debug console', bus: 'ISA', properties: { iobase: '0xe9' },
  },
  {
    name: 'pc-testdev', description: 'kvm-unit-tests: I/O registers, interrupt lines, memory that always exits', bus: 'ISA', properties: {},
  },
  {
    name: 'pci-testdev', description: 'kvm-unit-tests: registers that count accesses, in memory and I/O BARs', bus: 'PCI', properties: {},
  },
  {
    name: 'edu', description: 'a teaching device: factorials, DMA, interrupts by pin and MSI', bus: 'PCI',
    properties: { dma_mask: '0xfffffff' },
  },
  {
    name: 'pcie-root-port', description: 'a PCI Express root port: other devices go behind it by bus=ID', bus: 'PCI',
    properties: { chassis: '0', slot: '0', port: '0' },
  },
  {
    name: 'pci-bridge', description: 'a bridge to a conventional PCI bus: other devices go behind it by bus=ID', bus: 'PCI',
    properties: { chassis_nr: '0' },
  },
  {
    name: 'virtio-blk-pci', description: 'a disk: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', 'num-queues': '1', bootindex: '' },
  },
  {
    name: 'nvme', description: 'an NVMe solid-state disk: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', max_ioqpairs: '64', logical_block_size: '512', bootindex: '' },
  },
  {
    name: 'ide-hd', description: 'a SATA disk: the drive with that id', bus: 'PCI', properties: { drive: '', serial: '', bootindex: '' },
  },
  {
    name: 'ide-cd', description: 'a SATA CD-ROM drive with a disc: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', bootindex: '' },
  },
  {
    name: 'virtio-scsi-pci', description: 'a SCSI host: disks and CD-ROM drives go behind it', bus: 'PCI', properties: { num_queues: '1' },
  },
  {
    name: 'scsi-hd', description: 'a SCSI disk: the drive with that id', bus: 'SCSI', properties: scsiProperties('HARDDISK'),
  },
  {
    name: 'scsi-cd', description: 'a SCSI CD-ROM drive with a disc: the drive with that id', bus: 'SCSI',
    properties: scsiProperties('CD-ROM'),
  },
  {
    name: 'VGA', description: 'a VGA adapter: its text screen is shown at the end of a run', bus: 'PCI', properties: {},
  },
  {
    name: 'virtio-net-pci', description: 'a network card: plugged into the network with that id', bus: 'PCI',
    properties: { netdev: '', mac: '' },
  },
  {
    name: 'virtio-9p-pci', description: 'a folder of the embedder, mounted by its tag: the share with that id', bus: 'PCI',
    properties: { fsdev: '', mount_tag: '' },
  },
  {
    name: 'e1000', description: "Intel's 82540EM network card: plugged into the network with that id", bus: 'PCI',
    properties: { netdev: '', mac: '' },
  },
  {
    name: 'virtio-rng-pci', description: "random numbers, from the machine's seed", bus: 'PCI', properties: {},
  },
  {
    name: 'virtio-console-pci', description: 'a console on the same terminal as COM1; keys go to it once its driver runs', bus: 'PCI',
    properties: {},
  },
]

/** Every device takes these besides its own. They name it, or its place. */
const commonProperties = ['id', 'bus', 'addr', 'multifunction']

/**
 * What QEMU lets one choose of virtio devices is settled here, but for `disable-legacy` (off: older registers besides): modern ones, whose
 * DMA goes through a remapping unit always (VIRTIO_F_ACCESS_PLATFORM), and which cache no translations.
 */
const virtioProperties: Readonly<Record<string, readonly string[]>> = {
  iommu_platform: ['on'], 'disable-legacy': ['on', 'off', 'auto'], 'disable-modern': ['off'], ats: ['off'],
}

/** For lists such as `--device help`. */
export const deviceCatalogue: readonly Entry[] = entries

/** `plugs`: how each device is put in, by its name. */
export function plugDevice(board: Board, { name, properties }: DeviceRequest, plugs: Readonly<Record<string, Plug>>): Stateful[] {
  const entry = entries.find(candidate => candidate.name === name)
  if (!entry) throw new InputError(`there is no device '${name}'; the nearest is '${nearest(name, entries.map(known => known.name))}'`)
  const fixed = name.startsWith('virtio-') ? virtioProperties : {}
  const known = [...Object.keys(entry.properties), ...commonProperties, ...Object.keys(fixed)]
  for (const [property, value] of Object.entries(properties)) {
    if (!known.includes(property)) {
      throw new InputError(`device '${name}' has no property '${property}'; the nearest is '${nearest(property, known)}'`)
    }
    if (property in fixed && !fixed[property].includes(value)) {
      throw new InputError(`device '${name}': property '${property}': expected ${fixed[property].join(' or ')}, found '${value}'`)
    }
  }
  const { id = '', bus = '', multifunction = 'off' } = properties
  if (!/^(on|off)$/.test(multifunction)) {
    throw new InputError(`device '${name}': property 'multifunction': expected on or off, found '${multifunction}'`)
  }
  const isScsi = entry.bus === 'SCSI'
  const buses = isScsi ? [...board.scsiHosts.keys()] : ['pci.0', 'pcie.0', ...board.bridges.keys()]
  if (bus !== '' && !buses.includes(bus)) {
    const hint = buses.length === 0 ? '' : `; the nearest is '${nearest(bus, buses)}'`
    throw new InputError(`device '${name}': there is no bus '${bus}' (yet)${hint}`)
  }
  const placed = {
    ...board, id, bridge: isScsi ? undefined : board.bridges.get(bus), multifunction: multifunction === 'on',
    scsiHosts: isScsi && bus !== '' ? new Map([[bus, board.scsiHosts.get(bus)!]]) : board.scsiHosts,
  }
  return naming(name, () => plugs[name](placed, property => properties[property] ?? entry.properties[property] ?? ''))
}

/** What a plug refuses is a value: whose, is said here. A drive says for itself what is wrong with its image. */
function naming<T>(name: string, plug: () => T): T {
  try {
    return plug()
  } catch (error) {
    if (!(error instanceof InputError) || /^(device|drive) '/.test(error.message)) throw error
    throw new InputError(`device '${name}': ${error.message}`, { cause: error })
  }
}

const rootBuses = ['', 'pci.0', 'pcie.0']

/** Where the bridges on bus 0 are for which a place was asked. */
export function bridgePlaces(devices: readonly DeviceRequest[]): Bdf[] {
  const bridges = devices.filter(({ name, properties }) => bridgeNames.has(name) && rootBuses.includes(properties.bus ?? ''))
  return bridges.map(({ properties }) => placeFrom(properties.addr ?? '')).filter(place => place !== undefined) as Bdf[]
}

const bridgeNames: ReadonlySet<string> = new Set(Object.values(bridgeKinds).map(({ name }) => name))

/** Undefined: it is no place. */
export function placeFrom(addr: string): number | undefined {
  const [, device, fn = '0'] = /^(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?$/i.exec(addr) ?? []
  return device === undefined || parseInt(device, 16) > 31 ? undefined : bdf(0, parseInt(device, 16), Number(fn))
}
