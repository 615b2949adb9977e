/**
 * Names of a guest's addresses: from an ELF file's symbol table (System V ABI, "Symbol Table"), or from the text of System.map,
 * /proc/kallsyms or nm: address, type, name.
 */
import { InputError } from '../errors.ts'

export class Symbols {
  readonly #addresses: bigint[] = []
  readonly #names: string[] = []

  /** Entries in any order. Of several names for one address the first counts. */
  constructor(entries: Iterable<readonly [address: bigint, name: string]>) {
    const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    for (const [address, name] of sorted) {
      if (this.#addresses.at(-1) === address) continue
      this.#addresses.push(address)
      this.#names.push(name)
    }
  }

  get size(): number {
    return this.#names.length
  }

  /** The last symbol at or below an address, and how far it is; undefined below the first one. */
  at(address: bigint): { name: string; offset: bigint } | undefined {
    let [low, high] = [0, this.#addresses.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#addresses[middle] <= address) low = middle + 1
      else high = middle
    }
    return low === 0 ? undefined : { name: this.#names[low - 1], offset: address - this.#addresses[low - 1] }
  }
}

/** `file` is for messages. */
export function readSymbols(bytes: Uint8Array, file: string): Symbols {
  const elf = bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46
  const symbols = new Symbols(elf ? elfSymbols(bytes, file) : textSymbols(new TextDecoder().decode(bytes)))
  if (symbols.size === 0) {
    const found = elf ? 'an ELF file without a symbol table' : 'none'
    throw new InputError(`symbols '${file}': expected lines of address, type and name, or an ELF file's symbols; found ${found}`)
  }
  return symbols
}

function textSymbols(text: string): [bigint, string][] {
  const found: [bigint, string][] = []
  for (const match of text.matchAll(/^([0-9a-f]{8,16}) [a-z?] (\S+)/gim)) {
    const address = BigInt(`0x${match[1]}`)
    // Without rights, the kernel shows every address as zero.
    if (address !== 0n) found.push([address, match[2]])
  }
  return found
}

/** Functions and places in sections of code; the rest would only be in the way. */
function elfSymbols(bytes: Uint8Array, file: string): [bigint, string][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const wide = bytes[4] === 2
  const word = (at: number): number => (wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true))
  try {
    const half = (at: number): number => view.getUint16(at, true)
    const [table, size, count] = wide ? [word(0x28), half(0x3a), half(0x3c)] : [word(0x20), half(0x2e), half(0x30)]
    const sections = Array.from({ length: count }, (_, i) => {
      const at = table + i * size
      return {
        type: view.getUint32(at + 4, true), flags: word(at + 8), link: view.getUint32(at + (wide ? 0x28 : 0x18), true),
        offset: word(at + (wide ? 0x18 : 0x10)), size: word(at + (wide ? 0x20 : 0x14)),
      }
    })
    const symbolTable = sections.find(({ type }) => type === 2)
    if (!symbolTable) return []
    const strings = bytes.subarray(sections[symbolTable.link].offset)
    const found: [bigint, string][] = []
    for (let at = symbolTable.offset; at < symbolTable.offset + symbolTable.size; at += wide ? 24 : 16) {
      const section = sections[view.getUint16(at + (wide ? 6 : 14), true)]
      const kind = view.getUint8(at + (wide ? 4 : 12)) & 15
      if (kind > 2 || !section || !(section.flags & 4)) continue
      const start = view.getUint32(at, true)
      const name = new TextDecoder().decode(strings.subarray(start, strings.indexOf(0, start)))
      if (name !== '') found.push([wide ? view.getBigUint64(at + 8, true) : BigInt(view.getUint32(at + 4, true)), name])
    }
    return found
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error
    throw new InputError(`symbols '${file}': expected a whole ELF file, found one that ends early`)
  }
}
