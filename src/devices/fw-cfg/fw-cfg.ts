/**
 * QEMU's firmware configuration device: selector 510h, data 511h, DMA 514h (QEMU documentation, "QEMU Firmware Configuration (fw_cfg)
 * Device").
 */
import type { AccessSize, DeviceState, DmaPort, PortHandler, Stateful } from '../ports.ts'

/** Numbered items that software asks for without the file directory. */
export const fwCfgKey = {
  signature: 0x00, id: 0x01, uuid: 0x02, ramSize: 0x03, noGraphic: 0x04, cpus: 0x05, machineId: 0x06, kernelAddress: 0x07, kernelSize: 0x08,
  kernelCommandLine: 0x09, initrdAddress: 0x0a, initrdSize: 0x0b, bootDevice: 0x0c, numa: 0x0d, bootMenu: 0x0e, maxCpus: 0x0f,
  kernelEntry: 0x10, kernelData: 0x11, initrdData: 0x12, commandLineAddress: 0x13, commandLineSize: 0x14, commandLineData: 0x15,
  setupAddress: 0x16, setupSize: 0x17, setupData: 0x18, fileDirectory: 0x19, firstFile: 0x20, irq0Override: 0x8002, e820Table: 0x8003,
} as const

export interface FwCfgContents {
  items: Map<number, Uint8Array>
  /** Named items, such as `etc/e820`. */
  files: Map<string, Uint8Array>
}

const dmaControl = { error: 1, read: 2, skip: 4, select: 8, write: 16 } as const
const dmaSignature = new TextEncoder().encode('QEMU CFG')
const interfaceVersion = 1 | 2 // traditional and DMA
const keyMask = 0xbfff // bit 14 is the write channel
const maxFileName = 55

/** Numbers are little-endian in fw_cfg items, but big-endian in its directory and DMA structure. */
export function fwCfgNumber(value: number, bytes: 2 | 4 | 8): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt(value), true)
  return new Uint8Array(view.buffer, 0, bytes)
}

interface FwCfgState {
  key: number
  offset: number
  dmaHigh: number
}

export class FwCfg implements PortHandler, Stateful {
  readonly #items: Map<number, Uint8Array>
  readonly #dma: DmaPort
  #state: FwCfgState = { key: 0, offset: 0, dmaHigh: 0 }

  constructor(contents: FwCfgContents, dma: DmaPort) {
    this.#dma = dma
    this.#items = new Map(contents.items)
    this.#items.set(fwCfgKey.signature, new TextEncoder().encode('QEMU'))
    this.#items.set(fwCfgKey.id, fwCfgNumber(interfaceVersion, 4))
    this.setFiles(contents.files)
  }

  /** Instead of the files that there were: before software looks. */
  setFiles(files: Map<string, Uint8Array>): void {
    const names = [...files.keys()].sort()
    names.forEach((name, at) => this.#items.set(fwCfgKey.firstFile + at, files.get(name)!))
    this.#items.set(fwCfgKey.fileDirectory, fileDirectory(names, files))
  }

  readPort(port: number, size: AccessSize): number {
    if (port >= 0x514) return this.#readDmaRegister(port - 0x514, size)
    if (port !== 0x511) return 0 // the selector is write-only
    let value = 0
    for (let at = 0; at < size; at++) value += this.#next() * 2 ** (at * 8)
    return value
  }

  writePort(port: number, size: AccessSize, value: number): void {
    if (port >= 0x514) this.#writeDmaRegister(port - 0x514, size, value)
    else if (port === 0x510 && size === 2) this.#select(value)
    // Writing data through port 511h ended with QEMU 2.4: it is ignored there too.
  }

  reset(): void {
    this.#state = { key: 0, offset: 0, dmaHigh: 0 }
  }

  saveState(): DeviceState {
    return structuredClone(this.#state)
  }

  restoreState(state: DeviceState): void {
    this.#state = structuredClone(state) as FwCfgState
  }

  #select(key: number): void {
    this.#state.key = key & keyMask
    this.#state.offset = 0
  }

  get #item(): Uint8Array | undefined {
    return this.#items.get(this.#state.key)
  }

  /** Beyond the end of an item, and where there is none, it reads as zero. */
  #next(): number {
    return this.#item?.[this.#state.offset++] ?? 0
  }

  #readDmaRegister(offset: number, size: number): number {
    let value = 0
    for (let at = 0; at < size; at++) value += dmaSignature[offset + at] * 2 ** (at * 8)
    return value
  }

  /** The address register is big-endian; writing its low half starts the transfer. */
  #writeDmaRegister(offset: number, size: number, value: number): void {
    if (size !== 4) return
    const bigEndian = swap32(value)
    if (offset === 0) {
      this.#state.dmaHigh = bigEndian
    } else if (offset === 4) {
      const address = this.#state.dmaHigh * 2 ** 32 + bigEndian
      this.#state.dmaHigh = 0
      this.#transfer(address)
    }
  }

  #transfer(descriptor: number): void {
    const bytes = new Uint8Array(16)
    if (this.#dma.read(descriptor, bytes) !== 'ok') return
    const view = new DataView(bytes.buffer)
    const control = view.getUint32(0)
    const length = view.getUint32(4)
    const address = Number(view.getBigUint64(8))
    if (control & dmaControl.select) this.#select(control >>> 16)
    const failed = !this.#run(control, address, length)
    const answer = new Uint8Array(4)
    new DataView(answer.buffer).setUint32(0, failed ? dmaControl.error : 0)
    this.#dma.write(descriptor, answer)
  }

  /** Nothing here can be written by software. */
  #run(control: number, address: number, length: number): boolean {
    if (control & dmaControl.read) {
      const rest = this.#item?.subarray(this.#state.offset, this.#state.offset + length) ?? new Uint8Array(0)
      this.#state.offset += length
      return this.#dma.write(address, rest) === 'ok' && this.#clear(address + rest.length, length - rest.length)
    }
    if (control & dmaControl.write) return false
    if (control & dmaControl.skip) this.#state.offset += length
    return true
  }

  #clear(address: number, length: number): boolean {
    const zeros = new Uint8Array(Math.min(length, 0x10000))
    for (let done = 0; done < length; done += zeros.length) {
      if (this.#dma.write(address + done, zeros.subarray(0, Math.min(zeros.length, length - done))) !== 'ok') return false
    }
    return true
  }
}

function fileDirectory(names: string[], files: Map<string, Uint8Array>): Uint8Array {
  const bytes = new Uint8Array(4 + 64 * names.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, names.length)
  names.forEach((name, index) => {
    if (name.length > maxFileName) throw new Error(`fw_cfg file name is longer than ${maxFileName} characters: ${name}`)
    const at = 4 + 64 * index
    view.setUint32(at, files.get(name)!.length)
    view.setUint16(at + 4, fwCfgKey.firstFile + index)
    bytes.set(new TextEncoder().encode(name), at + 8)
  })
  return bytes
}

const swap32 = (value: number): number =>
  ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0
