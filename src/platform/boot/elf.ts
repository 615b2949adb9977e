/** ELF executables as a boot loader reads them: headers, loadable segments, notes (System V ABI, "Object Files" and "Program Loading"). */
import { BootError, hex, viewOf } from './image.ts'

export interface ElfSegment {
  virtual: bigint
  physical: number
  /** Bytes in the file; memory beyond them, up to `memorySize`, is zero. */
  bytes: Uint8Array
  memorySize: number
  executable: boolean
}

export interface ElfFile {
  bits: 32 | 64
  /** e_machine: 3 is the 80386, 62 x86-64. */
  machine: number
  /** Virtual address, as the header says. */
  entry: bigint
  segments: ElfSegment[]
  /** Contents of PT_NOTE segments. */
  notes: Uint8Array[]
  /** The table of section headers: none when `count` is 0. `names` is the index of the section with the names. */
  sections: { offset: number; count: number; entrySize: number; names: number }
}

export const elfMachine = { i386: 3, x86_64: 62 } as const
const programType = { load: 1, note: 4 } as const
const executableFlag = 1

export const isElf = (file: Uint8Array): boolean => file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46

/** Where fields lie in the two classes: offset and width in bytes. */
const layouts = {
  32: {
    headerSize: 52, entry: [24, 4], tableOffset: [28, 4], entrySize: [42, 2], count: [44, 2], programSize: 32,
    sectionOffset: [32, 4], sectionEntrySize: [46, 2], sectionCount: [48, 2], sectionNames: [50, 2], sectionSize: 40,
    offset: [4, 4], virtual: [8, 4], physical: [12, 4], fileSize: [16, 4], memorySize: [20, 4], flags: [24, 4],
  },
  64: {
    headerSize: 64, entry: [24, 8], tableOffset: [32, 8], entrySize: [54, 2], count: [56, 2], programSize: 56,
    sectionOffset: [40, 8], sectionEntrySize: [58, 2], sectionCount: [60, 2], sectionNames: [62, 2], sectionSize: 64,
    offset: [8, 8], virtual: [16, 8], physical: [24, 8], fileSize: [32, 8], memorySize: [40, 8], flags: [4, 4],
  },
} as const

type Field = readonly [number, number]

/** Throws BootError unless the file is a little-endian executable whose segments all lie in it. */
export function parseElf(file: Uint8Array): ElfFile {
  if (!isElf(file)) throw new BootError('kernel: expected an ELF file, found none')
  const bits = file[4] === 1 ? 32 : file[4] === 2 ? 64 : undefined
  if (!bits) throw new BootError(`kernel: expected ELF class 1 or 2 at byte 4, found ${file[4]}`)
  if (file[5] !== 1) throw new BootError(`kernel: expected a little-endian ELF file (1 at byte 5), found ${file[5]}`)
  const layout = layouts[bits]
  if (file.length < layout.headerSize) {
    throw new BootError(`kernel: expected an ELF header of ${layout.headerSize} bytes, found a file of ${file.length}`)
  }
  const header = reader(file, 0)
  const table = header(layout.tableOffset)
  const entrySize = header(layout.entrySize)
  const count = header(layout.count)
  if (count === 0) throw new BootError('kernel: expected an ELF executable with program headers, found none')
  if (entrySize < layout.programSize) {
    throw new BootError(`kernel: expected ELF program headers of ${layout.programSize} bytes, found ${entrySize}`)
  }
  if (table + count * entrySize > file.length) {
    throw new BootError(`kernel: expected ${count} ELF program headers at ${hex(table)}, found the end of the file at ${hex(file.length)}`)
  }
  const segments: ElfSegment[] = []
  const notes: Uint8Array[] = []
  for (let index = 0; index < count; index++) {
    const program = reader(file, table + index * entrySize)
    const type = program([0, 4])
    if (type === programType.load) segments.push(segment(file, index, table + index * entrySize, layout))
    else if (type === programType.note) notes.push(contents(file, index, program(layout.offset), program(layout.fileSize)))
  }
  const loaded = segments.filter(({ memorySize }) => memorySize > 0)
  const sections = sectionTable(file, header, layout)
  return { bits, machine: header([18, 2]), entry: wideReader(file, 0)(layout.entry), segments: loaded, notes, sections }
}

/** Only debuggers need sections: a table that is not in the file counts as none. */
function sectionTable(file: Uint8Array, header: (field: Field) => number, layout: (typeof layouts)[32 | 64]): ElfFile['sections'] {
  const [offset, entrySize, count, names] =
    [header(layout.sectionOffset), header(layout.sectionEntrySize), header(layout.sectionCount), header(layout.sectionNames)]
  const usable = entrySize >= layout.sectionSize && offset + count * entrySize <= file.length
  return usable ? { offset, entrySize, count, names } : { offset: 0, entrySize: 0, count: 0, names: 0 }
}

/** The entry point as a physical address: kernels linked at high addresses name a virtual one. */
export function physicalEntry(elf: ElfFile): number {
  const inVirtual = ({ virtual, memorySize, executable }: ElfSegment): boolean =>
    executable && elf.entry >= virtual && elf.entry < virtual + BigInt(memorySize)
  const segment = elf.segments.find(inVirtual)
  if (segment) return Number(elf.entry - segment.virtual) + segment.physical
  const entry = Number(elf.entry)
  if (elf.segments.some(({ physical, memorySize }) => entry >= physical && entry < physical + memorySize)) return entry
  throw new BootError(`kernel: expected the ELF entry point 0x${elf.entry.toString(16)} in a loaded segment, found it in none`)
}

function segment(file: Uint8Array, index: number, base: number, layout: (typeof layouts)[32 | 64]): ElfSegment {
  const program = reader(file, base)
  const bytes = contents(file, index, program(layout.offset), program(layout.fileSize))
  const memorySize = program(layout.memorySize)
  if (memorySize < bytes.length) {
    throw new BootError(
      `kernel: expected ELF segment ${index} to take at least its ${bytes.length} file bytes in memory, found ${memorySize}`,
    )
  }
  const executable = (program(layout.flags) & executableFlag) !== 0
  const virtual = wideReader(file, base)(layout.virtual)
  return { virtual, physical: program(layout.physical), bytes, memorySize, executable }
}

function contents(file: Uint8Array, index: number, offset: number, size: number): Uint8Array {
  if (offset + size > file.length) {
    throw new BootError(
      `kernel: expected ELF segment ${index} up to byte ${offset + size}, found the end of the file at ${file.length}: it is truncated`,
    )
  }
  return file.subarray(offset, offset + size)
}

/** Reads fields of a structure; 64-bit ones lose precision above 2^53: sizes and physical addresses of files that fit have none there. */
function reader(file: Uint8Array, base: number): (field: Field) => number {
  const view = viewOf(file)
  return ([offset, size]) => {
    if (size === 2) return view.getUint16(base + offset, true)
    return size === 4 ? view.getUint32(base + offset, true) : Number(view.getBigUint64(base + offset, true))
  }
}

/** Virtual addresses need all 64 bits. */
function wideReader(file: Uint8Array, base: number): (field: Field) => bigint {
  const view = viewOf(file)
  return ([offset, size]) => (size === 4 ? BigInt(view.getUint32(base + offset, true)) : view.getBigUint64(base + offset, true))
}
