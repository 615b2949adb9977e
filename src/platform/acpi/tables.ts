/**
 * The ACPI tables that firmware leaves in memory: RSDP, XSDT, FADT, FACS, DSDT, MADT, HPET, MCFG, DMAR, WAET (ACPI specification 6.4,
 * "System Description Tables").
 */
import { pmLayout, smiCommand } from '../../devices/acpi-pm/acpi-pm.ts'
import { alignUp } from '../boot/image.ts'
import { ioapicBase, lapicBase } from '../memory-map.ts'
import { littleEndian } from './aml.ts'
import { dmarBody, type DmarOptions } from './dmar.ts'
import { dsdtBody, type DsdtOptions } from './dsdt.ts'

export interface AcpiOptions extends DsdtOptions {
  /** APIC ID of each processor. */
  apicIds: readonly number[]
  /** First port of the PM registers. */
  pmBase: number
  hasVga?: boolean
  dmar?: DmarOptions | undefined
}

export interface AcpiTable {
  signature: string
  address: number
  bytes: Uint8Array
}

const headerSize = 36
const oemId = 'VITRIN'
const creatorId = 'VTRN'
const tableAlignment = 64

/** All tables with their addresses; checksums are right. */
export function acpiTables(options: AcpiOptions): AcpiTable[] {
  const { map } = options
  const tables: AcpiTable[] = []
  let next = map.acpiTables.base
  const add = (signature: string, bytes: Uint8Array): number => {
    const address = next
    tables.push({ signature, address, bytes })
    next = alignUp(address + bytes.length, tableAlignment)
    if (next > map.acpiTables.base + map.acpiTables.size) throw new Error(`ACPI tables need more than ${map.acpiTables.size} bytes`)
    return address
  }
  const facs = map.acpiNvs.base
  const dsdt = add('DSDT', table('DSDT', 2, dsdtBody(options)))
  const listed = [
    add('FACP', fadt(options, facs, dsdt)),
    add('APIC', madt(options)),
    ...(options.hpetBase === undefined ? [] : [add('HPET', hpet(options.hpetBase))]),
    ...(map.ecam ? [add('MCFG', mcfg(map.ecam.base))] : []),
    ...(options.dmar ? [add('DMAR', table('DMAR', 1, dmarBody(options.dmar)))] : []),
    add('WAET', table('WAET', 1, littleEndian(waet.rtcGood | waet.pmTimerGood, 4))),
  ]
  const rsdt = add('RSDT', table('RSDT', 1, listed.flatMap(address => littleEndian(address, 4))))
  const xsdt = add('XSDT', table('XSDT', 1, listed.flatMap(address => littleEndian(address, 8))))
  tables.push({ signature: 'FACS', address: facs, bytes: facsBytes() })
  tables.push({ signature: 'RSD PTR ', address: map.rsdp, bytes: rsdp(rsdt, xsdt) })
  return tables
}

/** Offset of firmware_waking_vector in the FACS: where S3 resumes in real mode. */
export const facsWakingVector = 12

const waet = { rtcGood: 1, pmTimerGood: 2 } as const

/** A checksum byte makes all bytes of a structure sum to zero. */
function sealChecksum(bytes: Uint8Array, at: number, length = bytes.length): void {
  bytes[at] = 0
  bytes[at] = -bytes.subarray(0, length).reduce((sum, byte) => sum + byte, 0)
}

function table(signature: string, revision: number, body: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(headerSize + body.length)
  const text = (at: number, value: string): void => bytes.set(new TextEncoder().encode(value), at)
  text(0, signature)
  bytes.set(littleEndian(bytes.length, 4), 4)
  bytes[8] = revision
  text(10, oemId)
  text(16, 'VITRINE ')
  bytes.set(littleEndian(1, 4), 24)
  text(28, creatorId)
  bytes.set(littleEndian(1, 4), 32)
  bytes.set(body, headerSize)
  sealChecksum(bytes, 9)
  return bytes
}

/** Revision 2: with the 64-bit address, which Xen reads without looking at the revision. */
function rsdp(rsdt: number, xsdt: number): Uint8Array {
  const bytes = new Uint8Array(36)
  bytes.set(new TextEncoder().encode('RSD PTR '), 0)
  bytes.set(new TextEncoder().encode(oemId), 9)
  bytes[15] = 2
  bytes.set(littleEndian(rsdt, 4), 16)
  bytes.set(littleEndian(bytes.length, 4), 20)
  bytes.set(littleEndian(xsdt, 8), 24)
  sealChecksum(bytes, 8, 20)
  sealChecksum(bytes, 32)
  return bytes
}

/** The FACS has no checksum. */
function facsBytes(): Uint8Array {
  const bytes = new Uint8Array(64)
  bytes.set(new TextEncoder().encode('FACS'), 0)
  bytes.set(littleEndian(bytes.length, 4), 4)
  bytes[32] = 2
  return bytes
}

const fadtLength = 276
const fadtFlag = { wbinvd: 1, procC1: 4, noSleepButton: 0x20, rtcS4: 0x80, resetRegister: 0x400, usePlatformClock: 0x8000 } as const
const bootArchitecture = { legacyDevices: 1, noVga: 4 } as const // without the 8042 bit Linux does not look for keyboards
const addressSpace = { memory: 0, io: 1 } as const

function fadt(options: AcpiOptions, facs: number, dsdt: number): Uint8Array {
  const body = new Uint8Array(fadtLength - headerSize)
  const put = (offset: number, size: number, value: number): void => body.set(littleEndian(value, size), offset - headerSize)
  const { pmBase } = options
  const sciInterrupt = 9
  put(36, 4, facs) // the 64-bit field stays 0: software that finds both takes two FACS
  put(40, 4, dsdt)
  put(46, 2, sciInterrupt)
  put(48, 4, smiCommand.port)
  put(52, 1, smiCommand.acpiEnable)
  put(53, 1, smiCommand.acpiDisable)
  // Block: offset of its 32-bit field, its length field, its extended field; register offset and length in bytes.
  const blocks = [
    [56, 88, 148, pmLayout.event, 4],
    [64, 89, 172, pmLayout.control, 2],
    [76, 91, 208, pmLayout.timer, 4],
    [80, 92, 220, pmLayout.gpe0, pmLayout.gpe0Length],
  ]
  for (const [address, lengthAt, extended, register, length] of blocks) {
    put(address, 4, pmBase + register)
    put(lengthAt, 1, length)
    body.set(genericAddress(addressSpace.io, length * 8, pmBase + register, length === 2 ? 2 : length === 4 ? 3 : 1), extended - headerSize)
  }
  put(96, 2, 0xfff) // no C2
  put(98, 2, 0xfff) // no C3
  put(108, 1, 0x32) // century in CMOS
  put(109, 2, bootArchitecture.legacyDevices | (options.hasVga ? 0 : bootArchitecture.noVga))
  const { wbinvd, procC1, noSleepButton, rtcS4, resetRegister, usePlatformClock } = fadtFlag
  put(112, 4, wbinvd | procC1 | noSleepButton | rtcS4 | resetRegister | usePlatformClock)
  body.set(genericAddress(addressSpace.io, 8, 0xcf9, 1), 116 - headerSize)
  put(128, 1, 0x0e) // reset value: full reset
  put(131, 1, 3) // minor version
  put(140, 8, dsdt)
  return table('FACP', 6, body)
}

/** `accessSize`: 1 byte, 2 word, 3 dword, 4 qword. */
function genericAddress(space: number, bits: number, address: number, accessSize: number): number[] {
  return [space, bits, 0, accessSize, ...littleEndian(address, 8)]
}

const madtFlags = { pcatCompatible: 1, enabled: 1 } as const
const mpsInti = { conforms: 0, activeHighLevel: 0x0d } as const

function madt({ apicIds }: AcpiOptions): Uint8Array {
  const processors = apicIds.flatMap((id, uid) =>
    id < 255
      ? [0, 8, uid, id, ...littleEndian(madtFlags.enabled, 4)]
      : [9, 16, 0, 0, ...littleEndian(id, 4), ...littleEndian(madtFlags.enabled, 4), ...littleEndian(uid, 4)])
  const override = (irq: number, gsi: number, flags: number): number[] => [
    2, 10, 0, irq, ...littleEndian(gsi, 4), ...littleEndian(flags, 2),
  ]
  const nmiOnLint1 = [4, 6, 0xff, ...littleEndian(mpsInti.conforms, 2), 1]
  const everyProcessor = 0xffffffff
  const x2apicNmi = [10, 12, ...littleEndian(mpsInti.conforms, 2), ...littleEndian(everyProcessor, 4), 1, 0, 0, 0]
  return table('APIC', 5, [
    ...littleEndian(lapicBase, 4), ...littleEndian(madtFlags.pcatCompatible, 4),
    ...processors,
    1, 12, 0, 0, ...littleEndian(ioapicBase, 4), ...littleEndian(0, 4),
    ...override(0, 2, mpsInti.conforms),
    ...override(9, 9, mpsInti.activeHighLevel),
    ...nmiOnLint1, ...(apicIds.some(id => id >= 255) ? x2apicNmi : []),
  ])
}

/** Event timer block ID: what bits 31-0 of the HPET's capabilities register say. */
const hpetBlockId = 0x8086a201

function hpet(base: number): Uint8Array {
  const address = genericAddress(addressSpace.memory, 64, base, 0)
  return table('HPET', 1, [...littleEndian(hpetBlockId, 4), ...address, 0, ...littleEndian(0, 2), 0])
}

function mcfg(base: number): Uint8Array {
  return table('MCFG', 1, [...littleEndian(0, 8), ...littleEndian(base, 8), ...littleEndian(0, 2), 0, 255, ...littleEndian(0, 4)])
}
