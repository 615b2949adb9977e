/** The devices that a user may add by name, as after `--device`: their properties, and how each is put into the machine. */
import { nearest } from '../cpu/features.ts'
import { type Ahci, ahciPorts } from '../devices/ahci/ahci.ts'
import { AtapiCdrom } from '../devices/ahci/cdrom.ts'
import type { AtaDevice } from '../devices/ahci/device.ts'
import { AtaDisk } from '../devices/ahci/disk.ts'
import { DebugConsole } from '../devices/debugcon/debugcon.ts'
import { DebugExit } from '../devices/debug-exit/debug-exit.ts'
import { E1000 } from '../devices/e1000/e1000.ts'
import { Edu } from '../devices/edu/edu.ts'
import type { NetworkPort, Plug } from '../devices/network/port.ts'
import { Nvme } from '../devices/nvme/nvme.ts'
import { PcTestDevice, testDeviceMemorySize } from '../devices/pc-testdev/pc-testdev.ts'
import { bridgeKinds, PciBridge, type BridgeKind } from '../devices/pci/bridge.ts'
import type { PciBus } from '../devices/pci/bus.ts'
import { bdf, type Bdf, bdfText, deviceOf, functionOf, type PciFunction, type PciSlot } from '../devices/pci/function.ts'
import { PciTestDevice } from '../devices/pci-testdev/pci-testdev.ts'
import type { Clock, InterruptPin, LogUnhandled, MmioHandler, PortHandler, Stateful } from '../devices/ports.ts'
import type { BlockStore } from '../devices/storage/block-store.ts'
import { VirtioBlk } from '../devices/virtio/blk/blk.ts'
import { Vga } from '../devices/vga/vga.ts'
import { VirtioConsole } from '../devices/virtio/console/console.ts'
import { VirtioNet } from '../devices/virtio/net/net.ts'
import type { SharedFolder } from '../devices/virtio/p9/folder.ts'
import { VirtioP9 } from '../devices/virtio/p9/p9.ts'
import { VirtioPci } from '../devices/virtio/pci.ts'
import { VirtioRng } from '../devices/virtio/rng/rng.ts'
import { InputError } from '../errors.ts'
import { testDeviceMemoryBase } from './memory-map.ts'
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

interface Entry {
  name: string
  description: string
  bus: 'ISA' | 'PCI'
  /** Names and defaults. */
  properties: Record<string, string>
  /** Returns the parts that hold state; PCI functions are kept by the bus. */
  plug: (board: Placed, property: (name: string) => string) => Stateful[]
}

/** The board, and where on it the user wants the device. */
interface Placed extends Board {
  id: string
  /** undefined: bus 0. */
  bridge: PciBridge | undefined
}

const entries: readonly Entry[] = [
  {
    name: 'isa-debug-exit', description: 'a write ends the machine with status (value << 1) | 1', bus: 'ISA',
    properties: { iobase: '0x501', iosize: '0x02' },
    plug: (board, property) => {
      const [base, size] = [number('iobase', property('iobase'), 0xffff), number('iosize', property('iosize'), 4)]
      claimFree(board, base, size, 'isa-debug-exit', new DebugExit(board.debugExit))
      return []
    },
  },
  {
    name: 'isa-debugcon', description: 'a port whose bytes go to the debug console', bus: 'ISA', properties: { iobase: '0xe9' },
    plug: (board, property) => {
      claimFree(board, number('iobase', property('iobase'), 0xffff), 1, 'isa-debugcon', new DebugConsole(board.debugOutput))
      return []
    },
  },
  {
    name: 'pc-testdev', description: 'kvm-unit-tests: I/O registers, interrupt lines, memory that always exits', bus: 'ISA', properties: {},
    plug: board => {
      const device = new PcTestDevice(Array.from({ length: 24 }, (_, gsi) => board.line(gsi)))
      for (const { base, count, handler } of device.ports) claimFree(board, base, count, 'pc-testdev', handler)
      board.addMmio(testDeviceMemoryBase, testDeviceMemorySize, 'pc-testdev', device.memory)
      return [device]
    },
  },
  {
    name: 'pci-testdev', description: 'kvm-unit-tests: registers that count accesses, in memory and I/O BARs', bus: 'PCI', properties: {},
    plug: (board, property) => plugPci(board, property('addr'), 'pci-testdev', () => new PciTestDevice()),
  },
  {
    name: 'edu', description: 'a teaching device: factorials, DMA, interrupts by pin and MSI', bus: 'PCI',
    properties: { dma_mask: '0xfffffff' },
    plug: (board, property) => {
      const dmaMask = mask('dma_mask', property('dma_mask'))
      return plugPci(board, property('addr'), 'edu', slot => {
        return new Edu({ slot, clock: board.clock, alarmName: `edu ${bdfText(slot.id)}`, dmaMask, log: board.log })
      })
    },
  },
  {
    name: 'pcie-root-port', description: 'a PCI Express root port: other devices go behind it by bus=ID', bus: 'PCI',
    properties: { chassis: '0', slot: '0', port: '0' },
    plug: (board, property) => {
      if (!board.express) throw new InputError("device 'pcie-root-port': expected the chipset q35, found pc, which has no PCI Express")
      if (board.bridge) throw new InputError("device 'pcie-root-port': expected bus=pcie.0, for root ports are part of the root complex")
      return plugBridge(board, property('addr'), bridgeKinds.rootPort, number('slot', property('slot'), 0x1fff))
    },
  },
  {
    name: 'pci-bridge', description: 'a bridge to a conventional PCI bus: other devices go behind it by bus=ID', bus: 'PCI',
    properties: { chassis_nr: '0' },
    plug: (board, property) => plugBridge(board, property('addr'), bridgeKinds.conventional, 0),
  },
  {
    name: 'virtio-blk-pci', description: 'a disk: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', 'num-queues': '1', bootindex: '' },
    plug: (board, property) => {
      const options = { store: board.takeDrive(property('drive')), serial: property('serial') }
      const queues = number('num-queues', property('num-queues'), 64)
      if (queues === 0) throw new InputError("property 'num-queues': expected 1 to 64, found 0")
      const make = (slot: PciSlot): PciFunction => {
        if (property('bootindex') !== '') board.bootDevice(bootIndex(property), virtioPath(slot.id))
        const alarmName = `virtio-blk ${bdfText(slot.id)}`
        return new VirtioPci(new VirtioBlk({ ...options, clock: board.clock, alarmName, queues }), slot, board.log)
      }
      return plugPci(board, property('addr'), 'virtio-blk-pci', make)
    },
  },
  {
    name: 'nvme', description: 'an NVMe solid-state disk: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', max_ioqpairs: '64', logical_block_size: '512', bootindex: '' },
    plug: (board, property) => plugPci(board, property('addr'), 'nvme', nvmeMaker(board, property)),
  },
  {
    name: 'ide-hd', description: 'a SATA disk: the drive with that id', bus: 'PCI', properties: { drive: '', serial: '', bootindex: '' },
    plug: (board, property) => plugSata(board, property, 'ide-hd', (store, serial) => new AtaDisk(store, serial)),
  },
  {
    name: 'ide-cd', description: 'a SATA CD-ROM drive with a disc: the drive with that id', bus: 'PCI',
    properties: { drive: '', serial: '', bootindex: '' },
    plug: (board, property) => plugSata(board, property, 'ide-cd', (store, serial) => new AtapiCdrom(store, serial)),
  },
  {
    name: 'VGA', description: 'a VGA adapter: its text screen is shown at the end of a run', bus: 'PCI', properties: {},
    plug: (board, property) => plugPci(board, property('addr'), 'VGA', slot => {
      const vga = new Vga(slot, board.clock, !board.firmware)
      claimFree(board, vgaPorts.base, vgaPorts.count, 'VGA', vga.ports)
      board.addMmio(vgaWindow.base, vgaWindow.size, 'VGA', vga.window)
      board.showScreen(vga)
      return vga
    }),
  },
  {
    name: 'virtio-net-pci', description: 'a network card: plugged into the network with that id', bus: 'PCI',
    properties: { netdev: '', mac: '' },
    plug: (board, property) => plugPci(board, property('addr'), 'virtio-net-pci', slot => {
      const mac = macOf(property('mac'), slot.id)
      const plug: Plug = deliver => board.takeNetwork(property('netdev'), deliver)
      return new VirtioPci(new VirtioNet({ mac, clock: board.clock, alarmName: `virtio-net ${bdfText(slot.id)}`, plug }), slot, board.log)
    }),
  },
  {
    name: 'virtio-9p-pci', description: 'a folder of the embedder, mounted by its tag: the share with that id', bus: 'PCI',
    properties: { fsdev: '', mount_tag: '' },
    plug: (board, property) => {
      const tag = property('mount_tag')
      if (!/^[!-~]{1,31}$/.test(tag)) throw new InputError(`property 'mount_tag': expected 1 to 31 ASCII characters, found '${tag}'`)
      const device = new VirtioP9({ ...board.takeShare(property('fsdev')), tag, log: board.log })
      return plugPci(board, property('addr'), 'virtio-9p-pci', slot => new VirtioPci(device, slot, board.log))
    },
  },
  {
    name: 'e1000', description: "Intel's 82540EM network card: plugged into the network with that id", bus: 'PCI',
    properties: { netdev: '', mac: '' },
    plug: (board, property) => plugPci(board, property('addr'), 'e1000', slot => {
      const plug: Plug = deliver => board.takeNetwork(property('netdev'), deliver)
      const { clock, log } = board
      return new E1000({ slot, clock, alarmName: `e1000 ${bdfText(slot.id)}`, mac: macOf(property('mac'), slot.id), plug, log })
    }),
  },
  {
    name: 'virtio-rng-pci', description: "random numbers, from the machine's seed", bus: 'PCI', properties: {},
    plug: (board, property) =>
      plugPci(board, property('addr'), 'virtio-rng-pci', slot => new VirtioPci(new VirtioRng(board.seed), slot, board.log)),
  },
  {
    name: 'virtio-console-pci', description: 'a console on the same terminal as COM1; keys go to it once its driver runs', bus: 'PCI',
    properties: {},
    plug: (board, property) => {
      const device = board.joinTerminal(output => new VirtioConsole(output))
      return plugPci(board, property('addr'), 'virtio-console-pci', slot => new VirtioPci(device, slot, board.log))
    },
  },
]

/** Legacy addresses of VGA. */
const vgaPorts = { base: 0x3b0, count: 0x30 } as const
const vgaWindow = { base: 0xa0000, size: 0x20000 } as const

/** Every device takes these besides its own. They name it, or its place. */
const commonProperties = ['id', 'bus', 'addr']

/**
 * What QEMU lets one choose of virtio devices is settled here: modern ones only, whose DMA goes through a remapping unit always
 * (VIRTIO_F_ACCESS_PLATFORM), and which cache no translations.
 */
const virtioProperties: Readonly<Record<string, readonly string[]>> = {
  iommu_platform: ['on'], 'disable-legacy': ['on', 'auto'], 'disable-modern': ['off'], ats: ['off'],
}

/** For lists such as `--device help`. */
export const deviceCatalogue: readonly Pick<Entry, 'name' | 'description' | 'bus' | 'properties'>[] = entries

export function plugDevice(board: Board, { name, properties }: DeviceRequest): Stateful[] {
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
  const { id = '', bus = '' } = properties
  const bridge = rootBuses.includes(bus) ? undefined : board.bridges.get(bus)
  if (!bridge && !rootBuses.includes(bus)) {
    const names = ['pci.0', 'pcie.0', ...board.bridges.keys()]
    throw new InputError(`device '${name}': there is no bus '${bus}' (yet); the nearest is '${nearest(bus, names)}'`)
  }
  return entry.plug({ ...board, id, bridge }, property => properties[property] ?? entry.properties[property] ?? '')
}

const rootBuses = ['', 'pci.0', 'pcie.0']

function plugBridge(board: Placed, addr: string, kind: BridgeKind, slotNumber: number): Stateful[] {
  let made: PciBridge | undefined
  const parts = plugPci(board, addr, kind.name, slot => (made = new PciBridge(kind, slot, slotNumber)))
  if (board.id !== '') board.bridges.set(board.id, made!)
  return parts
}

/** A place that the user chose may be taken: that is his to mend. */
function claimFree(board: Board, base: number, size: number, name: string, handler: PortHandler): void {
  if (base + size > 0x10000) {
    throw new InputError(`device '${name}': expected ports up to 0xffff, found 0x${base.toString(16)} and ${size} bytes`)
  }
  const owner = board.ports.owner(base, size)
  if (owner) throw new InputError(`device '${name}': expected free ports at 0x${base.toString(16)}, found ${owner.name} there`)
  board.ports.claim(base, size, name, handler)
}

/**
 * `addr` is `device` or `device.function`, in hexadecimal; without it the first free device number is taken: from 2 on, from 1 behind a
 * bridge, 0 behind a root port.
 */
function plugPci(board: Placed, addr: string, name: string, make: (slot: PciSlot) => PciFunction): Stateful[] {
  const { bridge } = board
  const taken = board.pci.takenPlaces(bridge)
  const [first, last] = bridge ? (bridge.express ? [0, 0] : [1, 31]) : [2, 30]
  const place = addr === '' ? freeDevice(taken, first, last) : placeFrom(addr)
  if (place === undefined) {
    if (addr === '') throw new InputError(`device '${name}': no PCI device number is free`)
    throw new InputError(`device '${name}': expected addr=DEVICE[.FUNCTION] up to 1f.7, found '${addr}'`)
  }
  if (bridge?.express && place >> 3 !== 0) throw new InputError(`device '${name}': expected addr=0 behind a root port, found '${addr}'`)
  if (taken.has(place)) throw new InputError(`device '${name}': expected a free PCI address, found another function at ${addr}`)
  board.pci.plug(place as Bdf, make, bridge)
  return []
}

function freeDevice(taken: ReadonlySet<number>, first: number, last: number): number | undefined {
  for (let device = first; device <= last; device++) if (!taken.has(device << 3)) return device << 3
  return undefined
}

/** Where the bridges on bus 0 are for which a place was asked. */
export function bridgePlaces(devices: readonly DeviceRequest[]): Bdf[] {
  const bridges = devices.filter(({ name, properties }) => bridgeNames.has(name) && rootBuses.includes(properties.bus ?? ''))
  return bridges.map(({ properties }) => placeFrom(properties.addr ?? '')).filter(place => place !== undefined) as Bdf[]
}

const bridgeNames: ReadonlySet<string> = new Set(Object.values(bridgeKinds).map(({ name }) => name))

function placeFrom(addr: string): number | undefined {
  const [, device, fn = '0'] = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i.exec(addr) ?? []
  return device === undefined || parseInt(device, 16) > 31 ? undefined : bdf(0, parseInt(device, 16), Number(fn))
}

function nvmeMaker(board: Board, property: (name: string) => string): (slot: PciSlot) => PciFunction {
  const store = board.takeDrive(property('drive'))
  const queuePairs = number('max_ioqpairs', property('max_ioqpairs'), 64)
  if (queuePairs === 0) throw new InputError("property 'max_ioqpairs': expected 1 to 64, found 0")
  const blockSize = number('logical_block_size', property('logical_block_size'), 4096)
  if (blockSize !== 512 && blockSize !== 4096) {
    throw new InputError(`property 'logical_block_size': expected 512 or 4096, found ${blockSize}`)
  }
  if (store.byteLength < blockSize) throw new InputError(`device 'nvme': expected a drive of a block, found ${store.byteLength} bytes`)
  return slot => {
    if (property('bootindex') !== '') board.bootDevice(bootIndex(property), nvmePath(slot.id))
    const place = bdfText(slot.id)
    const serial = property('serial') || `VT-NVME-${place}`
    const { clock, log } = board
    return new Nvme({ slot, clock, alarmName: `nvme ${place}`, stores: [store], serial, blockSize, queuePairs, log })
  }
}

/** Disks and CD-ROM drives go to the next port of the one controller. */
function plugSata(
  board: Board, property: (name: string) => string, name: string, make: (store: BlockStore, serial: string) => AtaDevice,
): Stateful[] {
  const { controller, path } = board.sata()
  if (controller.freePort === undefined) throw new InputError(`device '${name}': expected at most ${ahciPorts} SATA devices, found more`)
  const serial = property('serial') || `VT${String(controller.freePort).padStart(5, '0')}`
  const port = controller.attach(make(board.takeDrive(property('drive')), serial))
  if (property('bootindex') !== '') board.bootDevice(bootIndex(property), `${path}/drive@${port}/disk@0`)
  return []
}

const bootIndex = (property: (name: string) => string): number => number('bootindex', property('bootindex'), 0x7fffffff)

const unitOf = (id: Bdf): string => `${deviceOf(id).toString(16)}${functionOf(id) === 0 ? '' : `,${functionOf(id)}`}`
const virtioPath = (id: Bdf): string => `/pci@i0cf8/scsi@${unitOf(id)}/disk@0,0`
const nvmePath = (id: Bdf): string => `/pci@i0cf8/pci1b36,10@${unitOf(id)}/namespace@1,0`

/** Without one a card has QEMU's first address, but for its last byte: that is its place on the bus. */
function macOf(text: string, id: Bdf): Uint8Array {
  if (text === '') return Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56 + (id >> 3))
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text) || parseInt(text.slice(0, 2), 16) & 1) {
    throw new InputError(`property 'mac': expected an address such as 52:54:00:12:34:56, found '${text}'`)
  }
  return Uint8Array.from(text.split(':'), part => parseInt(part, 16))
}

function mask(property: string, text: string): bigint {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) {
    throw new InputError(`property '${property}': expected a number of 64 bits, found '${text}'`)
  }
  return BigInt(text)
}

function number(property: string, text: string, max: number): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isInteger(value) || value < 0 || value > max) {
    throw new InputError(`property '${property}': expected a number from 0 to 0x${max.toString(16)}, found '${text}'`)
  }
  return value
}
