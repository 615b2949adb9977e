/** What the controller and its namespaces say of themselves (NVM Express Base Specification 1.4, "Identify command"). */
import type { Namespace } from './namespace.ts'
import { dataStructure, entryExponents, smallestPage, version } from './spec.ts'

export const identity = { vendor: 0x1b36, device: 0x0010, subsystemVendor: 0x1af4, subsystem: 0x1100, model: 'Vitrine NVMe Ctrl' } as const
/** MDTS: 2 MiB, so that a PRP list is a page and a little. */
const transferExponent = 9
export const largestTransfer = smallestPage << transferExponent
export const mostAsyncEvents = 4
export const errorEntries = 64
export const firmware = '1.0'
/** Kelvin. */
export const temperature = { now: 323, warning: 343, critical: 373 } as const

const oncs = { compare: 1, datasetManagement: 4, writeZeroes: 8, timestamp: 0x40, verify: 0x80 } as const

interface Field {
  at: number
  width: 1 | 2 | 4
  value: number
}

/** Everything else is zero: not offered. */
const controllerFields = (namespaces: number): Field[] => [
  { at: 0, width: 2, value: identity.vendor }, { at: 2, width: 2, value: identity.subsystemVendor },
  { at: 72, width: 1, value: 6 }, // RAB: 64 commands at a time
  { at: 77, width: 1, value: transferExponent },
  { at: 80, width: 4, value: version },
  { at: 111, width: 1, value: 1 }, // an I/O controller
  { at: 258, width: 1, value: 3 }, // ACL
  { at: 259, width: 1, value: mostAsyncEvents - 1 },
  { at: 260, width: 1, value: 3 }, // FRMW: one slot, which is read-only
  { at: 261, width: 1, value: 6 }, // LPA: commands and effects, extended data
  { at: 262, width: 1, value: errorEntries - 1 },
  { at: 266, width: 2, value: temperature.warning }, { at: 268, width: 2, value: temperature.critical },
  { at: 512, width: 1, value: entryExponents.submission * 0x11 }, { at: 513, width: 1, value: entryExponents.completion * 0x11 },
  { at: 516, width: 4, value: namespaces },
  { at: 520, width: 2, value: oncs.compare | oncs.datasetManagement | oncs.writeZeroes | oncs.timestamp | oncs.verify },
  { at: 525, width: 1, value: 7 }, // VWC: there is one, and a flush may name every namespace
  { at: 536, width: 4, value: 0x00050001 }, // SGLS: without alignment, bit buckets, longer ones than the data
  { at: 2048, width: 2, value: 2500 }, // power state 0: 25 W
]

/** ASCII fields are padded with spaces. */
function setText(bytes: Uint8Array, at: number, length: number, text: string): void {
  bytes.fill(0x20, at, at + length)
  bytes.set(new TextEncoder().encode(text).subarray(0, length), at)
}

function structureOf(fields: readonly Field[]): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(dataStructure))
  for (const { at, width, value } of fields) {
    if (width === 1) view.setUint8(at, value)
    else if (width === 2) view.setUint16(at, value, true)
    else view.setUint32(at, value, true)
  }
  return view
}

/** CNS 01h: 4096 bytes. `namespaces`: how many there are. Base specification, "Identify Controller Data Structure". */
export function identifyController(serial: string, namespaces: number): Uint8Array {
  const bytes = new Uint8Array(structureOf(controllerFields(namespaces)).buffer)
  setText(bytes, 4, 20, serial)
  setText(bytes, 24, 40, identity.model)
  setText(bytes, 64, 8, firmware)
  bytes.set(new TextEncoder().encode(`nqn.2019-08.org.qemu:${serial}`).subarray(0, 255), 768)
  return bytes
}

/** CNS 00h: 4096 bytes, with one LBA format. NVM command set specification, "Identify Namespace Data Structure". */
export function identifyNamespace({ blocks, blockSize, store }: Namespace): Uint8Array {
  const view = structureOf([
    { at: 99, width: 1, value: store.readOnly ? 1 : 0 }, // NSATTR: write protected
    { at: 130, width: 1, value: Math.log2(blockSize) }, // LBA format 0
  ])
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(blocks), true)
  view.setBigUint64(48, BigInt(blocks * blockSize), true)
  return new Uint8Array(view.buffer)
}

/** Identifiers above `after`, in ascending order, as many as fit. */
export function namespaceList(namespaces: Iterable<Namespace>, after: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(dataStructure))
  const ids = [...namespaces].map(({ id }) => id).filter(id => id > after).sort((a, b) => a - b)
  ids.slice(0, dataStructure / 4).forEach((id, index) => view.setUint32(index * 4, id, true))
  return new Uint8Array(view.buffer)
}

const uuidDescriptor = { type: 3, length: 16 } as const

/** One descriptor: a UUID made from the controller's serial number and the namespace's identifier. */
export function namespaceDescriptors({ id }: Namespace, serial: string): Uint8Array {
  const bytes = new Uint8Array(dataStructure)
  bytes.set([uuidDescriptor.type, uuidDescriptor.length])
  const uuid = bytes.subarray(4, 4 + uuidDescriptor.length)
  let hash = 0x811c9dc5 ^ id
  for (let at = 0; at < uuid.length; at++) {
    hash = Math.imul(hash ^ serial.charCodeAt(at % serial.length), 0x01000193)
    uuid[at] = hash >>> 16
  }
  uuid[6] = (uuid[6] & 0x0f) | 0x80
  uuid[8] = (uuid[8] & 0x3f) | 0x80
  return bytes
}

/** A list of controllers from number `from` on; ours is 0. */
export function controllerList(from: number): Uint8Array {
  const bytes = new Uint8Array(dataStructure)
  bytes[0] = from === 0 ? 1 : 0
  return bytes
}
