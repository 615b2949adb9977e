/** VGA's four planes of memory as the processor sees them (IBM VGA Technical Reference, "Display Memory", "Write Modes"). */
import { graphics, sequencer, type VgaRegisters } from './registers.ts'

const planeSize = 65536
const oddEvenOff = 4
const chain4 = 8

/** Where GR6 maps the memory within the window of 128 KiB: base and size. */
const windows = [[0, 0x20000], [0, 0x10000], [0x10000, 0x8000], [0x18000, 0x8000]] as const

export class VgaMemory {
  readonly planes = Array.from({ length: 4 }, () => new Uint8Array(planeSize))
  readonly latches = [0, 0, 0, 0]
  readonly #registers: VgaRegisters

  constructor(registers: VgaRegisters) {
    this.#registers = registers
  }

  read(offset: number): number {
    const at = this.#inWindow(offset)
    if (at === undefined) return 0xff
    const { sequencer: seq, graphics: gr } = this.#registers
    if (seq[sequencer.memoryMode] & chain4) return this.#latch(at & 0xfffc, at & 3)
    if (!(seq[sequencer.memoryMode] & oddEvenOff)) return this.#latch(at & 0xfffe, (gr[graphics.readMap] & 2) | (at & 1))
    const value = this.#latch(at & 0xffff, gr[graphics.readMap] & 3)
    return gr[graphics.mode] & 8 ? this.#compare() : value
  }

  write(offset: number, value: number): void {
    const at = this.#inWindow(offset)
    if (at === undefined) return
    const { sequencer: seq } = this.#registers
    const mask = seq[sequencer.mapMask] & 0xf
    if (seq[sequencer.memoryMode] & chain4) {
      if (mask & (1 << (at & 3))) this.planes[at & 3][at & 0xfffc] = value
    } else if (!(seq[sequencer.memoryMode] & oddEvenOff)) this.#writePlanes(at & 0xfffe, value, mask & (at & 1 ? 0xa : 5))
    else this.#writePlanes(at & 0xffff, value, mask)
  }

  #inWindow(offset: number): number | undefined {
    const [base, size] = windows[(this.#registers.graphics[graphics.miscellaneous] >> 2) & 3]
    return offset >= base && offset < base + size ? offset - base : undefined
  }

  #latch(at: number, plane: number): number {
    for (let each = 0; each < 4; each++) this.latches[each] = this.planes[each][at]
    return this.latches[plane]
  }

  /** Read mode 1: a bit for each pixel whose color is that of GR2, in the planes that GR7 cares for. */
  #compare(): number {
    const { graphics: gr } = this.#registers
    let same = 0xff
    for (let plane = 0; plane < 4; plane++) {
      if (!(gr[graphics.colorDontCare] & (1 << plane))) continue
      const wanted = gr[graphics.colorCompare] & (1 << plane) ? 0xff : 0
      same &= ~(this.latches[plane] ^ wanted)
    }
    return same & 0xff
  }

  #writePlanes(at: number, value: number, mask: number): void {
    const { graphics: gr } = this.#registers
    const mode = gr[graphics.mode] & 3
    const count = gr[graphics.rotate] & 7
    const rotated = ((value >> count) | (value << (8 - count))) & 0xff
    for (let plane = 0; plane < 4; plane++) {
      if (!(mask & (1 << plane))) continue
      this.planes[plane][at] = mode === 1 ? this.latches[plane] : this.#combine(plane, mode, value, rotated)
    }
  }

  #combine(plane: number, mode: number, value: number, rotated: number): number {
    const { graphics: gr } = this.#registers
    const set = gr[graphics.setReset] & (1 << plane) ? 0xff : 0
    const latch = this.latches[plane]
    if (mode === 3) {
      const bits = rotated & gr[graphics.bitMask]
      return (set & bits) | (latch & ~bits)
    }
    const bits = gr[graphics.bitMask]
    const data = mode === 2 ? (value & (1 << plane) ? 0xff : 0) : gr[graphics.enableSetReset] & (1 << plane) ? set : rotated
    return (operate((gr[graphics.rotate] >> 3) & 3, data, latch) & bits) | (latch & ~bits)
  }
}

function operate(operation: number, data: number, latch: number): number {
  switch (operation) {
    case 1: return data & latch
    case 2: return data | latch
    case 3: return data ^ latch
    default: return data
  }
}
