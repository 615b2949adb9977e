/**
 * A VGA adapter as a PCI function: registers, memory, and its text screen as text (IBM VGA Technical Reference). The PCI identity is that
 * of QEMU's standard VGA, for which SeaBIOS has a video BIOS. Graphics modes keep their memory and are not shown; there is no VBE.
 */
import { ConfigSpace } from '../pci/config-space.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import type { AccessSize, Clock, DeviceState, MmioHandler, PortHandler } from '../ports.ts'
import { VgaMemory } from './memory.ts'
import { codePage437, counts, crtc, graphics, mode3, type VgaRegisters } from './registers.ts'

export interface TextScreen {
  columns: number
  rows: number
  /** Without the spaces at their ends. */
  lines: string[]
  cursor: { row: number; column: number }
}

/** Vertical retrace 70 times a second, horizontal 31,469 times: software waits for either. */
const frameNanoseconds = 14_268_000
const retraceNanoseconds = 64_000
const lineNanoseconds = 31_777
const lineBlankNanoseconds = 6_000

const copyOf = (from: Readonly<VgaRegisters>): VgaRegisters => structuredClone(from) as VgaRegisters
const blank = (): VgaRegisters => ({
  misc: 0, sequencer: new Array<number>(counts.sequencer).fill(0), crtc: new Array<number>(counts.crtc).fill(0),
  graphics: new Array<number>(counts.graphics).fill(0), attribute: new Array<number>(counts.attribute).fill(0),
})

interface Selection {
  sequencer: number
  crtc: number
  graphics: number
  attribute: number
  /** The next write to 3C0h is data. */
  attributeData: boolean
  palette: number
  paletteRead: number
  /** Which of red, green and blue comes next. */
  component: number
  pelMask: number
}
const initialSelection = (): Selection => ({
  sequencer: 0, crtc: 0, graphics: 0, attribute: 0, attributeData: false, palette: 0, paletteRead: 0, component: 0, pelMask: 0xff,
})

export class Vga implements PciFunction {
  readonly name = 'VGA'
  readonly config = new ConfigSpace({
    vendor: 0x1234, device: 0x1111, classCode: 0x030000, revision: 2, subsystemVendor: 0x1af4, subsystem: 0x1100,
  })
  readonly bars: readonly Bar[] = []
  readonly #clock: Clock
  readonly #afterFirmware: boolean
  readonly #registers: VgaRegisters
  readonly #memory: VgaMemory
  readonly #palette = new Uint8Array(768)
  #selected = initialSelection()

  /** `afterFirmware`: no BIOS will run, so text mode is set already. */
  constructor(_slot: PciSlot, clock: Clock, afterFirmware: boolean) {
    this.#clock = clock
    this.#afterFirmware = afterFirmware
    this.#registers = blank()
    this.#memory = new VgaMemory(this.#registers)
    this.reset()
  }

  /** A0000h-BFFFFh. */
  readonly window: MmioHandler = {
    readMmio: (offset, size) => {
      let value = 0
      for (let at = 0; at < size; at++) value += this.#memory.read(offset + at) * 2 ** (at * 8)
      return value
    },
    writeMmio: (offset, size, value) => {
      for (let at = 0; at < size; at++) this.#memory.write(offset + at, (value >>> (at * 8)) & 0xff)
    },
  }

  /** 3B0h-3DFh: wider accesses are bytes at ports that follow one another. */
  readonly ports: PortHandler = {
    readPort: (port, size) => bytesOf(size).reduce((value, at) => value + this.#read(port + at) * 2 ** (at * 8), 0),
    writePort: (port, size, value) => bytesOf(size).forEach(at => this.#write(port + at, (value >>> (at * 8)) & 0xff)),
  }

  /** What a text mode shows; undefined in a graphics mode, and while nothing has set a mode. */
  screen(): TextScreen | undefined {
    const { crtc: cr, graphics: gr } = this.#registers
    const height = (cr[crtc.maximumScanLine] & 0x1f) + 1
    const overflow = cr[crtc.overflow]
    const scanLines = (cr[crtc.verticalDisplayEnd] | ((overflow & 2) << 7) | ((overflow & 0x40) << 3)) + 1
    if (gr[graphics.miscellaneous] & 1 || cr[crtc.verticalDisplayEnd] === 0) return undefined
    const [columns, rows] = [cr[crtc.horizontalDisplayEnd] + 1, Math.floor(scanLines / height)]
    const start = (cr[crtc.startHigh] << 8) | cr[crtc.startLow]
    const [characters] = this.#memory.planes
    const lines = Array.from({ length: rows }, (_row, row) => {
      const first = start + row * cr[crtc.offset] * 2
      const line = Array.from({ length: columns }, (_column, column) => codePage437[characters[((first + column) * 2) & 0xffff]])
      return line.join('').trimEnd()
    })
    const place = ((cr[crtc.cursorHigh] << 8) | cr[crtc.cursorLow]) - start
    return { columns, rows, lines, cursor: { row: Math.floor(place / columns), column: place % columns } }
  }

  reset(): void {
    Object.assign(this.#registers, this.#afterFirmware ? copyOf(mode3) : blank())
    this.#selected = initialSelection()
    if (!this.#afterFirmware) return
    const [characters, attributes] = this.#memory.planes
    for (let at = 0; at < 80 * 25 * 2; at += 2) [characters[at], attributes[at]] = [0x20, 7]
  }

  saveState(): DeviceState {
    const { planes, latches } = this.#memory
    return {
      registers: copyOf(this.#registers), selected: { ...this.#selected }, palette: [...this.#palette], latches: [...latches],
      planes: planes.map(textOf),
    }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { registers: VgaRegisters; selected: Selection; palette: number[]; latches: number[]; planes: string[] }
    Object.assign(this.#registers, copyOf(saved.registers))
    this.#selected = { ...saved.selected }
    this.#palette.set(saved.palette)
    this.#memory.latches.splice(0, 4, ...saved.latches)
    saved.planes.forEach((text, plane) => {
      const bytes = this.#memory.planes[plane].fill(0)
      for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at)
    })
  }

  /** The CRTC lies at 3D4h with color, at 3B4h without: Miscellaneous Output bit 0. */
  #isCrtc(port: number): boolean {
    return (port & ~1) === (this.#registers.misc & 1 ? 0x3d4 : 0x3b4)
  }

  #read(port: number): number {
    const { misc, sequencer, crtc: cr, graphics: gr, attribute } = this.#registers
    const selected = this.#selected
    if (this.#isCrtc(port)) return port & 1 ? cr[selected.crtc] ?? 0 : selected.crtc
    switch (port) {
      case 0x3ba: case 0x3da: return this.#inputStatus()
      case 0x3c0: return selected.attribute
      case 0x3c1: return attribute[selected.attribute & 0x1f] ?? 0
      case 0x3c2: return 0x10
      case 0x3c4: return selected.sequencer
      case 0x3c5: return sequencer[selected.sequencer] ?? 0
      case 0x3c6: return selected.pelMask
      case 0x3c7: return 3
      case 0x3c8: return selected.palette
      case 0x3c9: return this.#readPalette()
      case 0x3ca: return 0
      case 0x3cc: return misc
      case 0x3ce: return selected.graphics
      case 0x3cf: return gr[selected.graphics] ?? 0
      default: return 0xff
    }
  }

  #write(port: number, value: number): void {
    const selected = this.#selected
    const registers = this.#registers
    if (this.#isCrtc(port)) {
      if (port & 1) this.#writeCrtc(value)
      else selected.crtc = value & 0x3f
      return
    }
    switch (port) {
      case 0x3c0: return this.#writeAttribute(value)
      case 0x3c2: registers.misc = value; return
      case 0x3c4: selected.sequencer = value & 7; return
      case 0x3c5: return put(registers.sequencer, selected.sequencer, value)
      case 0x3c6: selected.pelMask = value; return
      case 0x3c7: selected.paletteRead = value; selected.component = 0; return
      case 0x3c8: selected.palette = value; selected.component = 0; return
      case 0x3c9: return this.#writePalette(value)
      case 0x3ce: selected.graphics = value & 0xf; return
      case 0x3cf: return put(registers.graphics, selected.graphics, value)
      default: return
    }
  }

  /** Registers 0 to 7 can be write-protected, but for bit 4 of the overflow register. */
  #writeCrtc(value: number): void {
    const { crtc: cr } = this.#registers
    const index = this.#selected.crtc
    if (cr[crtc.protect] & 0x80 && index <= crtc.overflow) {
      if (index === crtc.overflow) cr[index] = (cr[index] & ~0x10) | (value & 0x10)
    } else put(cr, index, value)
  }

  #writeAttribute(value: number): void {
    const selected = this.#selected
    if (selected.attributeData) put(this.#registers.attribute, selected.attribute & 0x1f, value)
    else selected.attribute = value & 0x3f
    selected.attributeData = !selected.attributeData
  }

  #inputStatus(): number {
    this.#selected.attributeData = false
    const now = this.#clock.now()
    const vertical = now % frameNanoseconds < retraceNanoseconds
    return (vertical ? 8 : 0) | (vertical || now % lineNanoseconds < lineBlankNanoseconds ? 1 : 0)
  }

  #readPalette(): number {
    const selected = this.#selected
    const value = this.#palette[selected.paletteRead * 3 + selected.component]
    selected.component = (selected.component + 1) % 3
    if (selected.component === 0) selected.paletteRead = (selected.paletteRead + 1) & 0xff
    return value
  }

  #writePalette(value: number): void {
    const selected = this.#selected
    this.#palette[selected.palette * 3 + selected.component] = value & 0x3f
    selected.component = (selected.component + 1) % 3
    if (selected.component === 0) selected.palette = (selected.palette + 1) & 0xff
  }
}

const bytesOf = (size: AccessSize): number[] => Array.from({ length: size }, (_, at) => at)

function put(registers: number[], index: number, value: number): void {
  if (index < registers.length) registers[index] = value
}

/** A character a byte, up to the last one that is not zero: short in JSON. */
function textOf(bytes: Uint8Array): string {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  let text = ''
  for (let at = 0; at < end; at += 4096) text += String.fromCharCode(...bytes.subarray(at, Math.min(at + 4096, end)))
  return text
}
