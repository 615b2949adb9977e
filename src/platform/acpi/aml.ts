/**
 * A writer of ACPI Machine Language: each function gives the bytes of one term (ACPI specification, "ACPI Machine Language (AML)
 * Specification").
 */

export type Aml = readonly number[]

/** Little-endian bytes of a number, which may exceed 32 bits. */
export function littleEndian(value: number, bytes: number): number[] {
  const all: number[] = []
  for (; all.length < bytes; value = Math.floor(value / 256)) all.push(value % 256)
  return all
}

const ascii = (text: string): number[] => [...text].map(character => character.charCodeAt(0))

/** A name such as `PCI0`, `\_SB.PCI0` or `^ISA`: segments are padded to four characters. */
export function namePath(path: string): number[] {
  const [, prefix, rest] = /^(\\|\^*)(.*)$/.exec(path)!
  const segments = rest === '' ? [] : rest.split('.')
  const bytes = segments.flatMap(segment => {
    if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) throw new Error(`not an AML name: ${path}`)
    return ascii(segment.padEnd(4, '_'))
  })
  const count = segments.length === 1 ? [] : segments.length === 0 ? [0] : segments.length === 2 ? [0x2e] : [0x2f, segments.length]
  return [...ascii(prefix), ...count, ...bytes]
}

/** PkgLength counts itself: one byte up to 63, else a lead byte with the low four bits and up to three more. */
function withLength(contents: Aml): number[] {
  for (let extra = 0; extra <= 3; extra++) {
    const total = contents.length + 1 + extra
    if (extra === 0 ? total < 64 : total < 2 ** (4 + 8 * extra)) {
      const lead = extra === 0 ? [total] : [(extra << 6) | (total & 15), ...littleEndian(total >> 4, extra)]
      return lead.concat(contents)
    }
  }
  throw new Error(`AML package of ${contents.length} bytes is too long`)
}

export function integer(value: number): number[] {
  if (value === 0 || value === 1) return [value]
  if (value < 2 ** 8) return [0x0a, value]
  if (value < 2 ** 16) return [0x0b, ...littleEndian(value, 2)]
  return value < 2 ** 32 ? [0x0c, ...littleEndian(value, 4)] : [0x0e, ...littleEndian(value, 8)]
}

export const string = (text: string): number[] => [0x0d, ...ascii(text), 0]
export const buffer = (bytes: Aml): number[] => [0x11, ...withLength([...integer(bytes.length), ...bytes])]
/** Tables are long, and made at every start: `concat` takes them as a whole, where `...` and `flat` go from byte to byte. */
const together = (first: number[], terms: Aml[]): number[] => first.concat(...terms)
export const packageOf = (elements: Aml[]): number[] => together([0x12], [withLength(together([elements.length], elements))])
export const name = (path: string, value: Aml): number[] => together([0x08], [namePath(path), value])
export const scope = (path: string, terms: Aml[]): number[] => together([0x10], [withLength(together(namePath(path), terms))])
export const device = (path: string, terms: Aml[]): number[] => together([0x5b, 0x82], [withLength(together(namePath(path), terms))])
/** Not serialized. */
export const method = (path: string, argumentCount: number, terms: Aml[]): number[] =>
  [0x14, ...withLength([...namePath(path), argumentCount, ...terms.flat()])]

export const argument = (index: number): number[] => [0x68 + index]
export const returns = (value: Aml): number[] => [0xa4, ...value]
export const store = (value: Aml, target: Aml): number[] => [0x70, ...value, ...target]
export const and = (a: Aml, b: Aml, target: Aml): number[] => [0x7b, ...a, ...b, ...target]
export const or = (a: Aml, b: Aml, target: Aml): number[] => [0x7d, ...a, ...b, ...target]
export const equal = (a: Aml, b: Aml): number[] => [0x93, ...a, ...b]
export const when = (condition: Aml, terms: Aml[]): number[] => [0xa0, ...withLength([...condition, ...terms.flat()])]
export const otherwise = (terms: Aml[]): number[] => [0xa1, ...withLength(terms.flat())]
/** A field of 32 bits at a byte offset of a buffer. */
export const createDwordField = (source: Aml, offset: number, path: string): number[] => [
  0x8a, ...source, ...integer(offset), ...namePath(path),
]

/** A compressed EISA ID such as PNP0A03: three letters of five bits, then four hexadecimal digits, big-endian. */
export function eisaId(id: string): number[] {
  const letters = [0, 1, 2].reduce((bits, at) => (bits << 5) | (id.charCodeAt(at) - 0x40), 0)
  return [0x0c, letters >> 8, letters & 0xff, parseInt(id.slice(3, 5), 16), parseInt(id.slice(5, 7), 16)]
}

/** Bytes of a UUID as ToUUID arranges them: the first three groups little-endian. */
export function uuid(text: string): number[] {
  const groups = text.split('-').map(group => group.match(/../g)!.map(digits => parseInt(digits, 16)))
  return groups.flatMap((group, index) => (index < 3 ? group.toReversed() : group))
}

/** Resource descriptors (ACPI specification, "Resource Data Types for ACPI"), closed by an end tag whose checksum 0 means unchecked. */
export const resources = (descriptors: Aml[]): number[] => buffer([...descriptors.flat(), 0x79, 0])

/** I/O ports with 16-bit decoding. */
export const ioPorts = (base: number, count: number): number[] => [0x47, 1, ...littleEndian(base, 2), ...littleEndian(base, 2), 1, count]
/** Edge-triggered, active-high, exclusive: an ISA interrupt. */
export const isaInterrupt = (irq: number): number[] => [0x22, ...littleEndian(1 << irq, 2)]
export const fixedMemory = (base: number, size: number): number[] => [0x86, 9, 0, 1, ...littleEndian(base, 4), ...littleEndian(size, 4)]

const addressKind = { memory: 0, io: 1, bus: 2 } as const

/** A window that a bridge passes on: `width` is 2, 4 or 8 bytes. Ends are inclusive. */
export function addressWindow(width: 2 | 4 | 8, kind: keyof typeof addressKind, base: number, size: number): number[] {
  const tag = { 2: 0x88, 4: 0x87, 8: 0x8a }[width]
  const typeFlags = { memory: 1, io: 3, bus: 0 }[kind] // memory: read-write, not cached; I/O: the whole range
  const positivelyDecodedFixed = 0x0c
  const numbers = [0, base, base + size - 1, 0, size].flatMap(value => littleEndian(value, width))
  return [tag, ...littleEndian(3 + numbers.length, 2), addressKind[kind], positivelyDecodedFixed, typeFlags, ...numbers]
}
