/**
 * The SMBIOS structures that firmware leaves in the F-segment, with entry points of versions 2.1 and 3.0, and the same as fw_cfg files for
 * firmware to place (DMTF DSP0134, "System Management BIOS Reference Specification" 3.6).
 */
import { littleEndian } from './acpi/aml.ts'
import type { MemoryWrite } from './boot/image.ts'
import type { MemoryMap, Range } from './memory-map.ts'

export interface SmbiosOptions {
  map: MemoryMap
  cpus: number
  processor: ProcessorDescription
  /** Makes the system's UUID. */
  seed: number
}

export interface ProcessorDescription {
  vendor: 'GenuineIntel' | 'AuthenticAMD'
  brand: string
  /** EAX and EDX of CPUID leaf 1. */
  signature: number
  features: number
  megahertz: number
}

/** A structure without its header: formatted area and strings, which the area numbers from 1. */
interface Structure {
  type: number
  handle: number
  body: readonly number[]
  strings?: readonly string[]
}

const entryPoints = { v21: 0xf5100, v30: 0xf5120 } as const
const tableAddress = 0xf5200
const tableEnd = 0xf6000
const KiB = 1024
const MiB = 1024 * KiB
const handle = { bios: 0, system: 0x100, chassis: 0x300, processor: 0x400, memoryArray: 0x1000, memoryDevice: 0x1100, range: 0x1300,
  boot: 0x2000, end: 0x7f00 } as const
const none = 0xffff
const noError = 0xfffe
const vendorName = 'Vitrine'

const word = (value: number): number[] => littleEndian(value, 2)
const dword = (value: number): number[] => littleEndian(value, 4)
const quad = (value: number): number[] => littleEndian(value, 8)

/** BIOS Information: segment F000h, 64 KiB; characteristics are not told, but that this is a virtual machine (extension byte 2, bit 4). */
const bios = (): Structure => ({
  type: 0, handle: handle.bios, strings: [vendorName, '1', '01/01/2026'],
  body: [1, 2, ...word(0xf000), 3, 0, ...quad(8), 1, 0x14, 1, 0, 0xff, 0xff, ...word(0)],
})

const system = ({ map, seed }: SmbiosOptions): Structure => ({
  type: 1, handle: handle.system, strings: [vendorName, `Vitrine PC (${map.chipset})`, '1', 'Not Specified', 'Virtual Machine'],
  body: [1, 2, 3, 4, ...uuid(seed), 6, 4, 5], // woken by the power switch
})

/** Version 4, from the seed. */
function uuid(seed: number): number[] {
  const bytes = [...'VITRINE\0'].map(letter => letter.charCodeAt(0)).concat(littleEndian(seed, 8))
  bytes[7] = 0x40
  bytes[8] = 0x80
  return bytes
}

/** Other, no lock; all states safe, no security. */
const chassis = (): Structure => ({
  type: 3, handle: handle.chassis, strings: [vendorName, 'Not Specified'], body: [1, 1, 0, 2, 2, 3, 3, 3, 3, ...dword(0), 0, 0, 0, 0, 0],
})

const family = { GenuineIntel: 0xb3, AuthenticAMD: 0x6b } as const // Xeon; Zen
const manufacturer = { GenuineIntel: 'Intel', AuthenticAMD: 'Advanced Micro Devices, Inc.' } as const

/** One package: enabled, central processor; capable of 64 bits, and of several cores. */
function processor({ cpus, processor: cpu }: SmbiosOptions): Structure {
  const cores = Math.min(cpus, 0xff)
  return {
    type: 4, handle: handle.processor, strings: ['CPU 0', manufacturer[cpu.vendor], cpu.brand, 'Not Specified'],
    body: [
      1, 3, family[cpu.vendor], 2, ...dword(cpu.signature), ...dword(cpu.features), 3, 0, ...word(0), ...word(cpu.megahertz),
      ...word(cpu.megahertz), 0x41, 6, ...word(none), ...word(none), ...word(none), 4, 4, 4, cores, cores, cores,
      ...word(cpus > 1 ? 0x0c : 0x04), ...word(family[cpu.vendor]), ...word(cpus), ...word(cpus), ...word(cpus),
    ],
  }
}

/** On the system board, system memory, without error correction. */
const memoryArray = ({ map }: SmbiosOptions): Structure => ({
  type: 16, handle: handle.memoryArray,
  body: [3, 3, 3, ...(map.total < 2048 * 1024 * MiB ? dword(map.total / KiB) : dword(0x80000000)), ...word(noError), ...word(1),
    ...(map.total < 2048 * 1024 * MiB ? quad(0) : quad(map.total))],
})

/** All of RAM in one module. Sizes from 32 GiB - 1 MiB need the extended field. */
function memoryDevice({ map }: SmbiosOptions): Structure {
  const size = map.total / MiB
  return {
    type: 17, handle: handle.memoryDevice, strings: ['DIMM 0', vendorName, 'Not Specified'],
    body: [
      ...word(handle.memoryArray), ...word(noError), ...word(64), ...word(64), ...word(size < 0x7fff ? size : 0x7fff), 9, 0, 1, 0, 7,
      ...word(2), ...word(0), 2, 3, 3, 3, 0, ...dword(size < 0x7fff ? 0 : size), ...word(0), ...word(0), ...word(0), ...word(0),
    ],
  }
}

function mappedRange({ base, size }: Range, index: number): Structure {
  const last = base + size - 1
  const far = last >= 2 ** 42
  const inKiB = far ? [...dword(0xffffffff), ...dword(0xffffffff)] : [...dword(base / KiB), ...dword(Math.floor(last / KiB))]
  return {
    type: 19, handle: handle.range + index,
    body: [...inKiB, ...word(handle.memoryArray), 1, ...(far ? [...quad(base), ...quad(last)] : [...quad(0), ...quad(0)])],
  }
}

function structures(options: SmbiosOptions): Structure[] {
  const { map } = options
  const ranges = [{ base: 0, size: map.lowTop }, { base: 2 ** 32, size: map.total - map.lowTop }].filter(range => range.size > 0)
  return [
    bios(), system(options), chassis(), processor(options), memoryArray(options), memoryDevice(options), ...ranges.map(mappedRange),
    { type: 32, handle: handle.boot, body: [0, 0, 0, 0, 0, 0, 0] }, // no errors
    { type: 127, handle: handle.end, body: [] },
  ]
}

function encode({ type, handle: number, body, strings = [] }: Structure): number[] {
  const text = strings.length > 0 ? strings.flatMap(each => [...new TextEncoder().encode(each), 0]) : [0]
  return [type, 4 + body.length, ...word(number), ...body, ...text, 0]
}

const checksum = (bytes: readonly number[]): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff
const ascii = (text: string): number[] => [...text].map(character => character.charCodeAt(0))
function sealed(bytes: number[], checksumAt: number, from = 0): number[] {
  bytes[checksumAt] = checksum(bytes.slice(from))
  return bytes
}

/** Version 3.0 was the first with a 64-bit entry point. UEFI takes this one of major version 2 only. */
function entry21(
  list: readonly number[][], tables: readonly number[], address: number, version: readonly [number, number] = [3, 0],
): number[] {
  const longest = Math.max(...list.map(each => each.length))
  const bytes = [
    ...ascii('_SM_'), 0, 0x1f, ...version, ...word(longest), 0, 0, 0, 0, 0, 0,
    ...ascii('_DMI_'), 0, ...word(tables.length), ...dword(address), ...word(list.length), 0x30,
  ]
  return sealed(sealed(bytes, 0x15, 0x10), 4)
}

const entry30 = (tables: readonly number[], address: number): number[] =>
  sealed([...ascii('_SM3_'), 0, 0x18, 3, 0, 0, 1, 0, ...dword(tables.length), ...quad(address)], 5)

export interface Smbios {
  /** For a machine that starts no firmware. */
  writes: MemoryWrite[]
  /** For firmware: it sets address and checksums. */
  files: Map<string, Uint8Array>
}

export function smbios(options: SmbiosOptions): Smbios {
  const list = structures(options).map(encode)
  const tables = list.flat()
  if (tableAddress + tables.length > tableEnd) throw new Error(`SMBIOS structures need ${tables.length} bytes`)
  const write = (address: number, bytes: readonly number[]): MemoryWrite => ({ address, bytes: Uint8Array.from(bytes), what: 'SMBIOS' })
  return {
    writes: [
      write(entryPoints.v21, entry21(list, tables, tableAddress)), write(entryPoints.v30, entry30(tables, tableAddress)),
      write(tableAddress, tables),
    ],
    files: new Map([
      ['etc/smbios/smbios-anchor', Uint8Array.from(entry21(list, tables, 0, [2, 8]))],
      ['etc/smbios/smbios-tables', Uint8Array.from(tables)],
    ]),
  }
}
