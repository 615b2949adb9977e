/** ELF executables as a boot loader reads them: headers, loadable segments, notes (System V ABI, "Object Files" and "Program Loading"). */
import { BootError, hex, viewOf } from './image.ts'

export interface ElfSegment {
  virtual: number
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
  entry: number
  segments: ElfSegment[]
  /** Contents of PT_NOTE segments. */
  notes: Uint8Array[]
}

export const elfMachine = { i386: 3, x86_64: 62 } as const
const programType = { load: 1, note: 4 } as const
const executableFlag = 1

export const isElf = (file: Uint8Array): boolean => file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46

/** Where fields lie in the two classes: offset and width in bytes. */
const layouts = {
  32: {
    headerSize: 52, entry: [24, 4], tableOffset: [28, 4], entrySize: [42, 2], count: [44, 2], programSize: 32,
    offset: [4, 4], virtual: [8, 4], physical: [12, 4], fileSize: [16, 4], memorySize: [20, 4], flags: [24, 4],
  },
  64: {
    headerSize: 64, entry: [24, 8], tableOffset: [32, 8], entrySize: [54, 2], count: [56, 2], programSize: 56,
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
    if (type === programType.load) segments.push(segment(file, index, program, layout))
    else if (type === programType.note) notes.push(contents(file, index, program(layout.offset), program(layout.fileSize)))
  }
  const loaded = segments.filter(({ memorySize }) => memorySize > 0)
  return { bits, machine: header([18, 2]), entry: header(layout.entry), segments: loaded, notes }
}

/** The entry point as a physical address: kernels linked at high addresses name a virtual one. */
export function physicalEntry(elf: ElfFile): number {
  const inVirtual = ({ virtual, memorySize, executable }: ElfSegment): boolean =>
    executable && elf.entry >= virtual && elf.entry < virtual + memorySize
  const segment = elf.segments.find(inVirtual)
  if (segment) return elf.entry - segment.virtual + segment.physical
  const physical = elf.segments.find(segment => elf.entry >= segment.physical && elf.entry < segment.physical + segment.memorySize)
  if (physical) return elf.entry
  throw new BootError(`kernel: expected the ELF entry point ${hex(elf.entry)} in a loaded segment, found it in none`)
}

function segment(file: Uint8Array, index: number, program: (field: Field) => number, layout: (typeof layouts)[32 | 64]): ElfSegment {
  const bytes = contents(file, index, program(layout.offset), program(layout.fileSize))
  const memorySize = program(layout.memorySize)
  if (memorySize < bytes.length) {
    throw new BootError(
      `kernel: expected ELF segment ${index} to take at least its ${bytes.length} file bytes in memory, found ${memorySize}`,
    )
  }
  const executable = (program(layout.flags) & executableFlag) !== 0
  return { virtual: program(layout.virtual), physical: program(layout.physical), bytes, memorySize, executable }
}

function contents(file: Uint8Array, index: number, offset: number, size: number): Uint8Array {
  if (offset + size > file.length) {
    throw new BootError(
      `kernel: expected ELF segment ${index} up to byte ${offset + size}, found the end of the file at ${file.length}: it is truncated`,
    )
  }
  return file.subarray(offset, offset + size)
}

/** Reads fields of a structure; 64-bit ones lose precision above 2^53, which no file that fits in memory needs. */
function reader(file: Uint8Array, base: number): (field: Field) => number {
  const view = viewOf(file)
  return ([offset, size]) => {
    if (size === 2) return view.getUint16(base + offset, true)
    return size === 4 ? view.getUint32(base + offset, true) : Number(view.getBigUint64(base + offset, true))
  }
}
