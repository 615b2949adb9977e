/**
 * `-device` and `-object` as QEMU has them (QEMU documentation, "Invocation"): other names of our devices, properties that say nothing
 * here, and what a guest can be without.
 */
import type { IommuOptions } from '../api.ts'
import { InputError } from '../errors.ts'
import { isJson, keysOfValue, type Keys } from './qemu-json.ts'
import type { QemuSettings } from './qemu-options.ts'
import type { DeviceSelection } from './values.ts'

/** QEMU's other names for the same devices. */
const aliases: Readonly<Record<string, string>> = {
  'virtio-blk': 'virtio-blk-pci', 'virtio-net': 'virtio-net-pci', 'virtio-rng': 'virtio-rng-pci', 'virtio-9p': 'virtio-9p-pci',
  'virtio-scsi': 'virtio-scsi-pci', 'e1000-82540em': 'e1000',
}

/** Devices that software does without when it does not find them. Without one that holds a disk, say, a guest would be another. */
const spared: readonly RegExp[] = [
  /^(qemu-xhci|nec-usb-xhci|(ich9-)?usb-.*|piix[34]-usb-.*|pci-ohci|ich9-usb-.*)$/, /^virtio-balloon/, /^virtio-(keyboard|mouse|tablet)/,
  /^(ich9-)?intel-hda$/, /^hda-/, /^(AC97|ES1370|sb16|adlib|cs4231a|gus)$/, /^(i6300esb|ib700|pvpanic|pvpanic-pci|vmcoreinfo|vmgenid)$/,
  /^(virtio-vga|virtio-gpu|qxl|cirrus-vga|vmware-svga|bochs-display|ramfb|secondary-vga)/, /^virtio-serial/, /^virtserialport$/,
]

/** Properties that are about how QEMU does its part, or offers of devices that drivers may leave out. */
const ofQemu = [
  'ioeventfd', 'iothread', 'event_idx', 'vectors', 'write-cache', 'werror', 'rerror', 'share-rw', 'romfile', 'rombar', 'romsize',
  'queue-size', 'rx_queue_size', 'tx_queue_size', 'page-per-vq', 'host_mtu', 'mq', 'discard', 'write-zeroes', 'config-wce', 'scsi',
  'x-data-plane', 'acpi-index', 'rng', 'max-bytes', 'period', 'csum', 'gso', 'guest_csum', 'model', 'hotplug',
  'pref64-reserve', 'mem-reserve', 'io-reserve', 'bus-reserve', 'x-speed', 'x-width', 'port', 'chassis', 'opregion',
]
const ofScsiDisks = [
  'physical_block_size', 'logical_block_size', 'min_io_size', 'opt_io_size', 'discard_granularity', 'rotation_rate', 'removable', 'dpofua',
  'max_unmap_size', 'max_io_size', 'scsi_version',
]
/** QEMU has a bus of its own for each port of a SATA controller, and for each pair of old ones. */
const ofDisks = ['bus', 'unit', 'ver', 'device_id', 'physical_block_size', 'logical_block_size']
const ownProperties: Readonly<Record<string, readonly string[]>> = {
  'ide-hd': ofDisks, 'ide-cd': ofDisks, 'virtio-blk-pci': ['physical_block_size'], 'virtio-net-pci': ['bootindex'], e1000: ['bootindex'],
  'scsi-hd': ofScsiDisks, 'scsi-cd': ofScsiDisks,
  'virtio-scsi-pci': ['max_sectors', 'cmd_per_lun', 'virtqueue_size', 'seg_max_adjust', 'param_change'],
}

/** Throws an InputError for a value that is neither JSON nor words. */
export function device(settings: QemuSettings, text: string): void {
  if (text === 'help' || text === '?') return void (settings.help = 'devices')
  const { driver = '', ...keys } = keysOfValue(text, 'driver')
  const name = aliases[driver] ?? aliases[plainName(driver)] ?? plainName(driver)
  if ('help' in keys || '?' in keys) return void (settings.help = { device: name })
  if (isJson(text) && 'addr' in keys) keys.addr = placeOf(keys.addr)
  if (isTransitional(driver)) keys['disable-legacy'] ??= 'off'
  const properties = propertiesOf(name, keys)
  if (name === 'isa-serial' && 'chardev' in keys) settings.serials.push(`chardev:${keys.chardev}`)
  else if (name === 'isa-debugcon' && 'chardev' in keys) {
    const { chardev: id, ...rest } = properties
    settings.debugConsole = `chardev:${id}`
    settings.devices.push({ name, properties: rest })
  } else if (name === 'virtconsole') settings.consoles.push(keys.chardev ?? '')
  else if (name === 'intel-iommu') settings.iommus.push(intelIommu(settings, keys))
  // the one controller comes with its first disk
  else if (name === 'ahci' || name === 'ich9-ahci') return
  else if (spared.some(each => each.test(name))) settings.warnings.push(`warning: -device ${name} has no effect: not emulated`)
  else settings.devices.push({ name, properties })
}

/** libvirt's names for devices of virtio 1.0 alone, which ours are unless they are asked to be found by older drivers, too. */
const plainName = (name: string): string => name.replace(/-(non-transitional|transitional)$/, '')
const isTransitional = (name: string): boolean => /-transitional$/.test(name) && !/-non-transitional$/.test(name)

/** As a number it is that of a function; as text, `device.function`. */
function placeOf(addr: string): string {
  if (!/^\d+$/.test(addr)) return addr
  return `${(Number(addr) >> 3).toString(16)}.${Number(addr) & 7}`
}

function propertiesOf(name: string, keys: Keys): Keys {
  const ignored = [...ofQemu, ...(ownProperties[name] ?? [])]
  return Object.fromEntries(Object.entries(keys).filter(([key]) => !ignored.includes(key)))
}

const withoutEffect = ['device-iotlb', 'dma-drain', 'dma-translation', 'pci-root', 'version', 'x-pasid-mode']

/** QEMU does not compare the source of an I/O APIC's interrupts with that of the entry; kvm-unit-tests relies on it. */
function intelIommu(settings: QemuSettings, given: Keys): IommuOptions {
  const properties: Keys = { 'ioapic-source-check': 'off', 'scalable-mode': 'off' }
  for (const [key, text] of Object.entries(given)) {
    if (key === 'id') continue
    if (!withoutEffect.includes(key)) properties[key.replace(/^x-/, '')] = text
    else settings.warnings.push(`warning: intel-iommu.${key}=${text} has no effect`)
  }
  return { model: 'vtd', properties }
}

/** Memory, random numbers and threads are there without objects; the others would do something. */
const neededObjects = [
  'memory-backend-ram', 'memory-backend-memfd', 'rng-random', 'rng-builtin', 'iothread', 'secret', 'main-loop', 'thread-context',
]

export function object(settings: QemuSettings, text: string): void {
  const { 'qom-type': type } = keysOfValue(text, 'qom-type')
  if (!type) throw new InputError("Parameter 'qom-type' is missing")
  if (!neededObjects.includes(type)) settings.warnings.push(`warning: -object ${type} has no effect: not emulated`)
}

export function audio(settings: QemuSettings, text: string): void {
  const { driver = '' } = keysOfValue(text, 'driver')
  if (driver !== 'none') settings.warnings.push(`warning: -audiodev ${driver} has no effect: not emulated`)
}

/** Consoles of virtio: ours is on the terminal, as the first serial port is. */
export function virtioConsoles({ consoles, chardevs }: QemuSettings): DeviceSelection[] {
  return consoles.map(id => {
    if (chardevs.get(id)?.target !== 'stdio') {
      throw new InputError(`-device virtconsole,chardev=${id}: expected a -chardev stdio with that id`)
    }
    return { name: 'virtio-console-pci', properties: {} }
  })
}
