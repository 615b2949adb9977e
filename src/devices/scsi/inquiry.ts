/** Who a logical unit is: INQUIRY's data and its pages of vital product data (T10 "SCSI Primary Commands - 4"). */
import type { DataPath } from '../storage/data-path.ts'
import { senses } from './spec.ts'
import { answer, type ScsiOutcome, viewOf } from './unit.ts'

/** Texts are ASCII; what is longer than its field is cut, what is shorter padded. */
export interface Identity {
  /** Up to 8, 16 and 4 characters. */
  vendor: string
  product: string
  revision: string
  /** '': the unit has none. */
  serial: string
  /** A name for the unit among others of its vendor: up to 20 characters. */
  name: string
  /** A name for all the world (NAA), 64 bits. */
  worldWideName?: bigint
}

export interface InquiryOptions {
  type: number
  removable: boolean
  identity: Identity
  /** A packet device: it says so in place of the standard that it follows. */
  atapi?: boolean
  /** "Version descriptor values": up to eight. */
  standards?: readonly number[]
  /** What follows the four bytes before each page, by number, besides pages 00h, 80h and 83h. */
  pages?: Readonly<Record<number, Uint8Array>>
}

/** "INQUIRY command". Byte 1, bit 0 (EVPD): a page of vital product data. */
export function inquiry(cdb: Uint8Array, data: DataPath, options: InquiryOptions): ScsiOutcome {
  const allocated = viewOf(cdb).getUint16(3)
  if (!(cdb[1] & 1)) return cdb[2] === 0 ? answer(standardData(options), allocated, data) : senses.invalidField
  const pages = vitalPages(options)
  const page = pages[cdb[2]]
  if (!page) return senses.invalidField
  return answer(Uint8Array.of(options.type, cdb[2], page.length >> 8, page.length & 0xff, ...page), allocated, data)
}

/** Version 5 is SPC-3; response data format 2, HISUP; CMDQUE. Version descriptors stand at the end. */
function standardData({ type, removable, identity, atapi, standards = [] }: InquiryOptions): Uint8Array {
  const bytes = new Uint8Array(standards.length === 0 ? 36 : 74)
  bytes.set([type, removable ? 0x80 : 0, ...(atapi ? [0, 0x21] : [5, 0x12]), bytes.length - 5, 0, 0, atapi ? 0 : 2])
  standards.forEach((code, index) => viewOf(bytes).setUint16(58 + index * 2, code))
  const fields: [string, number][] = [[identity.vendor, 8], [identity.product, 16], [identity.revision, 4]]
  bytes.set(text(fields.map(([characters, length]) => characters.padEnd(length).slice(0, length)).join('')), 8)
  return bytes
}

function vitalPages({ identity, pages = {} }: InquiryOptions): Record<number, Uint8Array> {
  const all: Record<number, Uint8Array> = { 0x83: identification(identity), ...pages }
  if (identity.serial !== '') all[0x80] = text(identity.serial)
  all[0] = Uint8Array.from([0, ...Object.keys(all).map(Number)].sort((a, b) => a - b))
  return all
}

/** "Device Identification VPD page": a vendor's own name in ASCII, and perhaps an NAA name in binary. */
function identification({ name, worldWideName }: Identity): Uint8Array {
  const own = text(name).subarray(0, 20)
  const naa = new Uint8Array(worldWideName === undefined ? 0 : 12)
  if (worldWideName !== undefined) {
    naa.set([1, 3, 0, 8])
    viewOf(naa).setBigUint64(4, worldWideName)
  }
  return Uint8Array.of(2, 0, 0, own.length, ...own, ...naa)
}

const text = (characters: string): Uint8Array => Uint8Array.from(characters, character => character.charCodeAt(0) & 0x7f)
