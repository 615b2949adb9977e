/** How the devices of the catalogue are put into a PC. */
import { ahciPorts } from '../devices/ahci/ahci.ts'
import { AtapiCdrom } from '../devices/ahci/cdrom.ts'
import type { AtaDevice } from '../devices/ahci/device.ts'
import { AtaDisk } from '../devices/ahci/disk.ts'
import { E1000 } from '../devices/e1000/e1000.ts'
import { Edu } from '../devices/edu/edu.ts'
import type { Plug as NetworkPlug } from '../devices/network/port.ts'
import { Nvme } from '../devices/nvme/nvme.ts'
import { PcTestDevice, testDeviceMemorySize } from '../devices/pc-testdev/pc-testdev.ts'
import { bridgeKinds, PciBridge, type BridgeKind } from '../devices/pci/bridge.ts'
import { type Bdf, bdfText, deviceOf, functionOf, type PciFunction, type PciSlot } from '../devices/pci/function.ts'
import { PciTestDevice } from '../devices/pci-testdev/pci-testdev.ts'
import { ScsiBus } from '../devices/scsi/bus.ts'
import type { Stateful } from '../devices/ports.ts'
import type { BlockStore } from '../devices/storage/block-store.ts'
import { VirtioBlk } from '../devices/virtio/blk/blk.ts'
import { Vga } from '../devices/vga/vga.ts'
import { VirtioConsole } from '../devices/virtio/console/console.ts'
import { VirtioNet } from '../devices/virtio/net/net.ts'
import { VirtioP9 } from '../devices/virtio/p9/p9.ts'
import { VirtioPci } from '../devices/virtio/pci.ts'
import { VirtioScsi } from '../devices/virtio/scsi/scsi.ts'
import { VirtioRng } from '../devices/virtio/rng/rng.ts'
import { InputError } from '../errors.ts'
import { type Board, placeFrom, type Placed, type Plug } from './device-catalogue.ts'
import { claimFree, number } from './isa-plugs.ts'
import { testDeviceMemoryBase } from './memory-map.ts'
import { scsiPlugs } from './scsi-plugs.ts'

/** All but those of isa-plugs.ts. */
export const devicePlugs: Readonly<Record<string, Plug>> = {
  'pc-testdev': board => {
    const device = new PcTestDevice(Array.from({ length: 24 }, (_, gsi) => board.line(gsi)))
    for (const { base, count, handler } of device.ports) claimFree(board, base, count, 'pc-testdev', handler)
    board.addMmio(testDeviceMemoryBase, testDeviceMemorySize, 'pc-testdev', device.memory)
    return [device]
  },
  'pci-testdev': (board, property) => plugPci(board, property('addr'), 'pci-testdev', () => new PciTestDevice()),
  edu: (board, property) => {
    const dmaMask = mask('dma_mask', property('dma_mask'))
    return plugPci(board, property('addr'), 'edu', slot => {
      return new Edu({ slot, clock: board.clock, alarmName: `edu ${bdfText(slot.id)}`, dmaMask, log: board.log })
    })
  },
  'pcie-root-port': (board, property) => {
    if (!board.express) throw new InputError("device 'pcie-root-port': expected the chipset q35, found pc, which has no PCI Express")
    if (board.bridge) throw new InputError("device 'pcie-root-port': expected bus=pcie.0, for root ports are part of the root complex")
    return plugBridge(board, property('addr'), bridgeKinds.rootPort, number('slot', property('slot'), 0x1fff))
  },
  'pci-bridge': (board, property) => plugBridge(board, property('addr'), bridgeKinds.conventional, 0),
  'virtio-blk-pci': (board, property) => {
    const options = { store: board.takeDrive(property('drive')), serial: property('serial') }
    const queues = queueCount(property, 'num-queues')
    const make = (slot: PciSlot): PciFunction => {
      if (property('bootindex') !== '') board.bootDevice(bootIndex(property), virtioPath(slot.id))
      const alarmName = `virtio-blk ${bdfText(slot.id)}`
      return new VirtioPci(new VirtioBlk({ ...options, clock: board.clock, alarmName, queues }), slot, board.log, isTransitional(property))
    }
    return plugPci(board, property('addr'), 'virtio-blk-pci', make)
  },
  nvme: (board, property) => plugPci(board, property('addr'), 'nvme', nvmeMaker(board, property)),
  'ide-hd': (board, property) => plugSata(board, property, 'ide-hd', (store, serial) => new AtaDisk(store, serial)),
  'ide-cd': (board, property) => plugSata(board, property, 'ide-cd', (store, serial) => new AtapiCdrom(store, serial)),
  'virtio-scsi-pci': (board, property) => {
    const queues = queueCount(property, 'num_queues')
    const bus = new ScsiBus()
    const { clock, log } = board
    return plugPci(board, property('addr'), 'virtio-scsi-pci', slot => {
      const name = board.id === '' ? `scsi.${board.scsiHosts.size}` : `${board.id}.0`
      board.scsiHosts.set(name, { bus, path: `/pci@i0cf8/scsi@${unitOf(slot.id)}` })
      const device = new VirtioScsi({ bus, clock, alarmName: `virtio-scsi ${bdfText(slot.id)}`, queues })
      return new VirtioPci(device, slot, log, isTransitional(property))
    })
  },
  ...scsiPlugs,
  VGA: (board, property) => plugPci(board, property('addr'), 'VGA', slot => {
    const vga = new Vga(slot, board.clock, !board.firmware)
    claimFree(board, vgaPorts.base, vgaPorts.count, 'VGA', vga.ports)
    board.addMmio(vgaWindow.base, vgaWindow.size, 'VGA', vga.window)
    board.showScreen(vga)
    return vga
  }),
  'virtio-net-pci': (board, property) => plugPci(board, property('addr'), 'virtio-net-pci', slot => {
    const mac = macOf(property('mac'), slot.id)
    const plug: NetworkPlug = deliver => board.takeNetwork(property('netdev'), deliver)
    const device = new VirtioNet({ mac, clock: board.clock, alarmName: `virtio-net ${bdfText(slot.id)}`, plug })
    return new VirtioPci(device, slot, board.log, isTransitional(property))
  }),
  'virtio-9p-pci': (board, property) => {
    const tag = property('mount_tag')
    if (!/^[!-~]{1,31}$/.test(tag)) throw new InputError(`property 'mount_tag': expected 1 to 31 ASCII characters, found '${tag}'`)
    const device = new VirtioP9({ ...board.takeShare(property('fsdev')), tag, log: board.log })
    return plugPci(board, property('addr'), 'virtio-9p-pci', slot => new VirtioPci(device, slot, board.log, isTransitional(property)))
  },
  e1000: (board, property) => plugPci(board, property('addr'), 'e1000', slot => {
    const plug: NetworkPlug = deliver => board.takeNetwork(property('netdev'), deliver)
    const { clock, log } = board
    return new E1000({ slot, clock, alarmName: `e1000 ${bdfText(slot.id)}`, mac: macOf(property('mac'), slot.id), plug, log })
  }),
  'virtio-rng-pci': (board, property) => plugPci(board, property('addr'), 'virtio-rng-pci', slot => {
    return new VirtioPci(new VirtioRng(board.seed), slot, board.log, isTransitional(property))
  }),
  'virtio-console-pci': (board, property) => {
    const device = board.joinTerminal(output => new VirtioConsole(output))
    return plugPci(board, property('addr'), 'virtio-console-pci', slot => new VirtioPci(device, slot, board.log, isTransitional(property)))
  },
}

/** Legacy addresses of VGA. */
const vgaPorts = { base: 0x3b0, count: 0x30 } as const
const vgaWindow = { base: 0xa0000, size: 0x20000 } as const

function plugBridge(board: Placed, addr: string, kind: BridgeKind, slotNumber: number): Stateful[] {
  let made: PciBridge | undefined
  const parts = plugPci(board, addr, kind.name, slot => (made = new PciBridge(kind, slot, slotNumber)))
  if (board.id !== '') board.bridges.set(board.id, made!)
  return parts
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
  const { config } = board.pci.plug(place as Bdf, make, bridge)
  if (board.multifunction) config.setMultifunction()
  return []
}

function freeDevice(taken: ReadonlySet<number>, first: number, last: number): number | undefined {
  for (let device = first; device <= last; device++) if (!taken.has(device << 3)) return device << 3
  return undefined
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

/** Older drivers are to find it, too. */
const isTransitional = (property: (name: string) => string): boolean => property('disable-legacy') === 'off'

function queueCount(property: (name: string) => string, name: string): number {
  const queues = number(name, property(name), 64)
  if (queues === 0) throw new InputError(`property '${name}': expected 1 to 64, found 0`)
  return queues
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
