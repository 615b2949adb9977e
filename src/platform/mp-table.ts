/**
 * The MP configuration table, with its floating pointer, that firmware leaves in the F-segment for kernels that do not read ACPI's tables
 * (Intel, "MultiProcessor Specification" 1.4, "MP Configuration Table").
 */
import { littleEndian } from './acpi/aml.ts'
import type { MemoryWrite } from './boot/image.ts'
import { ioapicBase, lapicBase } from './memory-map.ts'
import type { ProcessorDescription } from './smbios.ts'

export interface MpTableOptions {
  /** APIC ID of each processor. */
  apicIds: readonly number[]
  processor: ProcessorDescription
  /** Input of the I/O APIC for a pin (1 to 4) of a device on PCI bus 0. */
  gsiOf: (device: number, pin: number) => number
}

const place = { pointer: 0xf4000, table: 0xf4010, end: 0xf5000 } as const
const revision = 4 // 1.4
const headerLength = 44
const entryType = { processor: 0, bus: 1, ioApic: 2, interrupt: 3, localInterrupt: 4 } as const
const interruptType = { vectored: 0, nmi: 1, external: 3 } as const
/** PO and EL: as the bus has it, or active high and level-triggered, as the SCI is here, or active low, as PCI's pins are. */
const flags = { conforming: 0, activeHighLevel: 0x0d, activeLowLevel: 0x0f } as const
const enabled = 1
const bootProcessor = 2
const bus = { pci: 0, isa: 1 } as const
const ioApicId = 0
const apicVersion = { local: 0x14, io: 0x20 } as const
const everyApic = 0xff
const sci = 9
const timer = { irq: 0, input: 2 } as const
/** IRQ 2 is the second 8259's. */
const isaIrqs = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
const pciDevices = 32

const word = (value: number): number[] => littleEndian(value, 2)
const dword = (value: number): number[] => littleEndian(value, 4)
const text = (value: string, length: number): number[] => [...value.padEnd(length)].map(letter => letter.charCodeAt(0))

/** `at` is the byte that makes the sum of all zero. */
function sealed(bytes: number[], at: number): number[] {
  bytes[at] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff
  return bytes
}

const processorEntry = (id: number, index: number, { signature, features }: ProcessorDescription): number[] => [
  entryType.processor, id, apicVersion.local, enabled | (index === 0 ? bootProcessor : 0), ...dword(signature), ...dword(features),
  ...dword(0), ...dword(0),
]

const inputEntry = (type: number, flag: number, from: number, irq: number, input: number): number[] => [
  entryType.interrupt, type, ...word(flag), from, irq, ioApicId, input,
]

const isaEntry = (irq: number): number[] =>
  inputEntry(interruptType.vectored, irq === sci ? flags.activeHighLevel : flags.conforming, bus.isa, irq,
    irq === timer.irq ? timer.input : irq)

/** The source of a PCI interrupt is its device in bits 6-2, its pin in bits 1-0. */
const pciEntries = (gsiOf: MpTableOptions['gsiOf'], device: number): number[][] =>
  [1, 2, 3, 4].map(pin =>
    inputEntry(interruptType.vectored, flags.activeLowLevel, bus.pci, (device << 2) | (pin - 1), gsiOf(device, pin)))

/** Processors whose APIC IDs have more than eight bits cannot be told. */
export function mpTable({ apicIds, processor, gsiOf }: MpTableOptions): MemoryWrite[] {
  const entries = [
    ...apicIds.filter(id => id < everyApic).map((id, index) => processorEntry(id, index, processor)),
    [entryType.bus, bus.pci, ...text('PCI', 6)],
    [entryType.bus, bus.isa, ...text('ISA', 6)],
    [entryType.ioApic, ioApicId, apicVersion.io, enabled, ...dword(ioapicBase)],
    ...isaIrqs.map(isaEntry),
    ...Array.from({ length: pciDevices }, (_, device) => pciEntries(gsiOf, device)).flat(),
    [entryType.localInterrupt, interruptType.external, ...word(flags.conforming), bus.isa, 0, apicIds[0], 0],
    [entryType.localInterrupt, interruptType.nmi, ...word(flags.conforming), bus.isa, 0, everyApic, 1],
  ]
  const body = entries.flat()
  const length = headerLength + body.length
  if (place.table + length > place.end) throw new Error(`the MP configuration table needs ${length} bytes`)
  const table = sealed([
    ...text('PCMP', 4), ...word(length), revision, 0, ...text('VITRINE', 8), ...text('PC', 12), ...dword(0), ...word(0),
    ...word(entries.length), ...dword(lapicBase), ...word(0), 0, 0, ...body,
  ], 7)
  const pointer = sealed([...text('_MP_', 4), ...dword(place.table), 1, revision, 0, 0, 0, 0, 0, 0], 10)
  return [
    { address: place.pointer, bytes: Uint8Array.from(pointer), what: 'MP floating pointer' },
    { address: place.table, bytes: Uint8Array.from(table), what: 'MP configuration table' },
  ]
}
