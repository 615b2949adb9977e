/**
 * Firmware in ROM, such as SeaBIOS, instead of a kernel that is loaded ready to run: where its image lies, and what it is told through
 * fw_cfg (SeaBIOS documentation, "Runtime configuration"; QEMU documentation, "ACPI tables generation": the table loader).
 */
import { InputError } from '../errors.ts'
import { type AcpiOptions, acpiTables, type AcpiTable } from './acpi/tables.ts'
import { alignUp, viewOf } from './boot/image.ts'
import type { E820Entry, MemoryMap } from './memory-map.ts'

const KiB = 1024
const MiB = 1024 * KiB
const fourGiB = 2 ** 32
/** The last part of the image is seen below 1 MiB too. */
const shadowed = { base: 0xe0000, size: 128 * KiB } as const

/** Firmware lies just below 4 GiB, so that its last 16 bytes are where processors start. */
export const romBase = (image: Uint8Array): number => fourGiB - image.length

/** Throws InputError unless an image is whole multiples of `unit` bytes, and has code where processors start. */
export function checkFirmware(image: Uint8Array, unit: number): void {
  if (image.length % unit !== 0 || image.length === 0 || image.length > 16 * MiB) {
    throw new InputError(`firmware: expected an image of whole ${unit / KiB} KiB, at most 16 MiB, found ${image.length} bytes`)
  }
  const start = image.subarray(image.length - 16)
  if (start.every(byte => byte === start[0])) {
    throw new InputError('firmware: expected code at the reset vector, 16 bytes before the end, found none')
  }
}

const volumeSignature = { at: 0x28, bytes: [0x5f, 0x46, 0x56, 0x48] } as const
const volumeAlignment = 4 * KiB

/** Whether an image holds a firmware volume of UEFI (Platform Initialization Specification vol. 3, "Firmware Volume Header": `_FVH`). */
export function isUefi(image: Uint8Array): boolean {
  for (let at = volumeSignature.at; at < image.length; at += volumeAlignment) {
    if (volumeSignature.bytes.every((byte, i) => image[at + i] === byte)) return true
  }
  return false
}

/** What is read between C0000h and FFFFFh while it is not RAM: the firmware's end, and all ones where there is no ROM. */
export function romBehindShadow(image: Uint8Array | undefined): (address: number, length: number) => Uint8Array {
  return (address, length) => {
    const bytes = new Uint8Array(length).fill(0xff)
    if (!image || address < shadowed.base) return bytes
    const fromEnd = shadowed.base + shadowed.size - address
    if (fromEnd <= image.length) bytes.set(image.subarray(image.length - fromEnd, image.length - fromEnd + length))
    return bytes
  }
}

/** RAM and nothing else: firmware carves its own out of it. */
export function ramEntries(map: MemoryMap): E820Entry[] {
  const below = { base: 0, size: map.lowTop, type: 1 } as const
  return map.highTop > fourGiB ? [below, { base: fourGiB, size: map.highTop - fourGiB, type: 1 }] : [below]
}

export interface BootSettings {
  /** Letters in the order in which kinds of disks are tried: a floppy, c hard disk, d CD-ROM, n network. Default: cad. */
  order?: string
  /** Wait for a key that opens the boot menu. */
  menu?: boolean
  /** Show the firmware's texts on the first serial port. */
  serialConsole?: boolean
}

const bootLetters: Readonly<Record<string, number>> = { a: 1, c: 2, d: 3, n: 4 }
const defaultOrder = 'cad'

/** CMOS bytes 3Dh and 38h hold the boot order, a nibble for each place; bit 0 of 38h skips the check of a floppy's signature. */
export function bootOrderCmos({ order = defaultOrder }: BootSettings): [number, number][] {
  const nibbles = [...order].map(letter => {
    const nibble = bootLetters[letter]
    if (nibble === undefined || order.length > 3) {
      throw new InputError(`boot order '${order}': expected up to three letters of a, c, d and n`)
    }
    return nibble
  })
  const [first = 0, second = 0, third = 0] = nibbles
  return [[0x3d, first | (second << 4)], [0x38, (third << 4) | 1]]
}

export interface FirmwareFiles {
  boot: BootSettings
  acpi: AcpiOptions
  /** Paths of boot devices in Open Firmware's notation, the first to try first. */
  bootPaths: readonly string[]
  /** Option ROMs by the PCI identity `vendor,device` in hexadecimal. */
  optionRoms: ReadonlyMap<string, Uint8Array>
  /** The processors have VT-x. */
  vmx: boolean
}

const serialConsolePort = 0x3f8
/** What firmware writes to each processor's IA32_FEATURE_CONTROL: VMXON outside of SMX operation, locked. */
const featureControl = 5
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** fw_cfg files. */
export function firmwareFiles({ boot, acpi, bootPaths, optionRoms, vmx }: FirmwareFiles): [string, Uint8Array][] {
  const number = (value: number): Uint8Array => {
    const view = new DataView(new ArrayBuffer(8))
    view.setBigUint64(0, BigInt(value), true)
    return new Uint8Array(view.buffer)
  }
  return [
    ...acpiFiles(acpi),
    ...(bootPaths.length > 0 ? [['bootorder', ascii(`${bootPaths.join('\n')}\0`)] as [string, Uint8Array]] : []),
    ...(boot.serialConsole ? [['etc/sercon-port', number(serialConsolePort)] as [string, Uint8Array]] : []),
    ...(vmx ? [['etc/msr_feature_control', number(featureControl)] as [string, Uint8Array]] : []),
    ...[...optionRoms].map(([identity, bytes]) => [`pci${identity}.rom`, bytes] as [string, Uint8Array]),
  ]
}

const file = { tables: 'etc/acpi/tables', rsdp: 'etc/acpi/rsdp', loader: 'etc/table-loader' } as const
const loaderCommand = { allocate: 1, addPointer: 2, addChecksum: 3 } as const
const zone = { high: 1, fSegment: 2 } as const
const loaderEntrySize = 128
const nameSize = 56
const facsAlignment = 64

/** Pointers to other tables, by signature: offset and width. Root tables point to all others. */
const pointers: Readonly<Record<string, readonly (readonly [number, number])[]>> = { FACP: [[36, 4], [40, 4], [140, 8]] }
const tableChecksum = 9

/** The tables as one file with offsets for addresses, and the script by which firmware places them and mends pointers and checksums. */
function acpiFiles(options: AcpiOptions): [string, Uint8Array][] {
  const room = options.map.acpiTables.size
  const facs = { base: alignUp(room, facsAlignment), size: facsAlignment }
  const layout = { ...options.map, acpiTables: { base: 0, size: room }, acpiNvs: facs, rsdp: -1 }
  const all = acpiTables({ ...options, map: layout })
  const tables = all.filter(({ address }) => address >= 0)
  const rsdp = all.find(({ address }) => address < 0)!.bytes
  const blob = new Uint8Array(Math.max(...tables.map(({ address, bytes }) => address + bytes.length)))
  for (const { address, bytes, signature } of tables) {
    blob.set(bytes, address)
    // UEFI makes the sum of what it finds, the old checksum included
    if (signature !== 'FACS') blob[address + tableChecksum] = 0
  }
  const root = rsdp.slice()
  root[8] = root[32] = 0
  const entries = [
    allocate(file.tables, facsAlignment, zone.high),
    allocate(file.rsdp, 16, zone.fSegment),
    ...tables.flatMap(table => pointersOf(table).map(([at, size]) => addPointer(file.tables, table.address + at, size))),
    ...tables.filter(({ signature }) => signature !== 'FACS')
      .map(({ address, bytes }) => addChecksum(file.tables, address + tableChecksum, address, bytes.length)),
    addPointer(file.rsdp, 16, 4), addPointer(file.rsdp, 24, 8), addChecksum(file.rsdp, 8, 0, 20), addChecksum(file.rsdp, 32, 0, 36),
  ]
  const script = new Uint8Array(entries.length * loaderEntrySize)
  entries.forEach((entry, index) => script.set(entry, index * loaderEntrySize))
  return [[file.tables, blob], [file.rsdp, root], [file.loader, script]]
}

function pointersOf({ signature, bytes }: AcpiTable): (readonly [number, number])[] {
  const step = signature === 'RSDT' ? 4 : signature === 'XSDT' ? 8 : 0
  if (step === 0) return [...(pointers[signature] ?? [])]
  return Array.from({ length: (bytes.length - 36) / step }, (_, index) => [36 + index * step, step] as const)
}

function loaderEntry(command: number, fill: (bytes: Uint8Array, view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(loaderEntrySize)
  viewOf(bytes).setUint32(0, command, true)
  fill(bytes, viewOf(bytes))
  return bytes
}

function allocate(name: string, alignment: number, where: number): Uint8Array {
  return loaderEntry(loaderCommand.allocate, (bytes, view) => {
    bytes.set(ascii(name), 4)
    view.setUint32(4 + nameSize, alignment, true)
    bytes[8 + nameSize] = where
  })
}

/** The field holds an offset in the file of tables, and becomes an address. */
function addPointer(name: string, offset: number, size: number): Uint8Array {
  return loaderEntry(loaderCommand.addPointer, (bytes, view) => {
    bytes.set(ascii(name), 4)
    bytes.set(ascii(file.tables), 4 + nameSize)
    view.setUint32(4 + 2 * nameSize, offset, true)
    bytes[8 + 2 * nameSize] = size
  })
}

function addChecksum(name: string, offset: number, start: number, length: number): Uint8Array {
  return loaderEntry(loaderCommand.addChecksum, (bytes, view) => {
    bytes.set(ascii(name), 4)
    ;[offset, start, length].forEach((value, index) => view.setUint32(4 + nameSize + index * 4, value, true))
  })
}
