/**
 * Where the remapping units are: the DMAR table, found as software finds it. ACPI specification, "Root System Description Pointer"; Intel
 * VT-d specification, "DMA Remapping Reporting Structure".
 */
import type { MemoryPort } from '../port.ts'

const biosArea = { start: 0xe0000, end: 0x100000 } as const
const headerLength = 36
/** Of DMAR: flags and width follow the header. */
const firstStructure = 48
const hardwareUnit = 0

const text = (memory: MemoryPort, address: number, length: number): string => {
  const bytes = new Uint8Array(length)
  memory.read(address, bytes)
  return String.fromCharCode(...bytes)
}
function view(memory: MemoryPort, address: number, length: number): DataView {
  const bytes = new Uint8Array(length)
  memory.read(address, bytes)
  return new DataView(bytes.buffer)
}
const quad = (from: DataView, offset: number): number => Number(from.getBigUint64(offset, true))

function rootTable(memory: MemoryPort): number | undefined {
  for (let at = biosArea.start; at < biosArea.end; at += 16) if (text(memory, at, 8) === 'RSD PTR ') return quad(view(memory, at, 36), 24)
  return undefined
}

function find(memory: MemoryPort, signature: string): DataView | undefined {
  const root = rootTable(memory)
  if (root === undefined) return undefined
  const length = view(memory, root, headerLength).getUint32(4, true)
  const table = view(memory, root, length)
  for (let at = headerLength; at + 8 <= length; at += 8) {
    const address = quad(table, at)
    if (text(memory, address, 4) === signature) return view(memory, address, view(memory, address, headerLength).getUint32(4, true))
  }
  return undefined
}

/** Physical addresses of the units' registers, in the order of the table; the last one has all devices that no other has. */
export function remappingUnits(memory: MemoryPort): number[] {
  const table = find(memory, 'DMAR')
  const units: number[] = []
  if (!table) return units
  for (let at = firstStructure; at + 4 <= table.byteLength; at += table.getUint16(at + 2, true))
    if (table.getUint16(at, true) === hardwareUnit) units.push(quad(table, at + 8))
  return units
}
