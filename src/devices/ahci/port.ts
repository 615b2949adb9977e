/**
 * A port of the AHCI with a device: its registers, and commands from the list in memory to the device (AHCI 1.3.1, "Port Registers",
 * "System Memory Structures"). A command is done when the write that issues it returns.
 */
import type { DmaPort } from '../ports.ts'
import type { DataPath } from '../storage/data-path.ts'
import type { AtaDevice, AtaResult } from './device.ts'
import { ataStatus, fisSize, fisType, header, port, portCmd, portInterrupt, received, table } from './spec.ts'

const idle = ataStatus.ready | ataStatus.seekDone
const established = 0x113 // SSTS: device present, generation 1, interface active
const commandsOfList = 32
const deviceControlReset = 4

interface PortState {
  registers: number[]
  resetting: boolean
}

interface Region {
  address: number
  length: number
}

export class AhciPort {
  readonly #device: AtaDevice
  readonly #dma: DmaPort
  readonly #interruptChanged: () => void
  readonly #registers = new Uint32Array(32)
  /** A control FIS has set SRST, and none has cleared it. */
  #resetting = false

  constructor(device: AtaDevice, dma: DmaPort, interruptChanged: () => void) {
    this.#device = device
    this.#dma = dma
    this.#interruptChanged = interruptChanged
    this.reset()
  }

  get interrupting(): boolean {
    return (this.#get(port.is) & this.#get(port.ie)) !== 0
  }

  reset(): void {
    this.#registers.fill(0)
    this.#device.reset()
    this.#resetting = false
    this.#set(port.ssts, established)
    this.#set(port.cmd, portCmd.spinUp | portCmd.powerOn)
    this.#showSignature()
  }

  read(offset: number): number {
    return this.#registers[offset >> 2] ?? 0
  }

  write(offset: number, value: number): void {
    switch (offset) {
      case port.clb: return this.#set(offset, value & ~0x3ff)
      case port.fb: return this.#set(offset, value & ~0xff)
      case port.clbu: case port.fbu: case port.ie: return this.#set(offset, value)
      case port.is: case port.serr: return this.#set(offset, this.#get(offset) & ~value)
      case port.cmd: return this.#writeCommand(value)
      case port.sctl: return this.#writeControl(value)
      case port.ci: return this.#issue(value)
      default: return // read-only, or not offered (SACT, FBS)
    }
  }

  saveState(): unknown {
    return { registers: [...this.#registers], resetting: this.#resetting, device: this.#device.saveState() }
  }

  restoreState(state: unknown): void {
    const saved = state as PortState & { device: unknown }
    this.#registers.set(saved.registers)
    this.#resetting = saved.resetting
    this.#device.restoreState(saved.device)
  }

  #get(offset: number): number {
    return this.#registers[offset >> 2]
  }

  #set(offset: number, value: number): void {
    this.#registers[offset >> 2] = value
  }

  #writeCommand(value: number): void {
    const { start, commandListOverride, fisReceive, fisReceiveRunning, commandListRunning } = portCmd
    const running = (value & start ? commandListRunning : 0) | (value & fisReceive ? fisReceiveRunning : 0)
    if (value & commandListOverride) this.#set(port.tfd, this.#get(port.tfd) & ~(ataStatus.busy | ataStatus.request))
    if (!(value & start)) this.#set(port.ci, 0)
    this.#set(port.cmd, (value & portCmd.writable & ~commandListOverride) | running)
    if (value & fisReceive) this.#receiveSignature()
  }

  /** DET going from 1 to 0 is a COMRESET: the device comes back with its signature. */
  #writeControl(value: number): void {
    const before = this.#get(port.sctl) & 0xf
    this.#set(port.sctl, value)
    const now = value & 0xf
    if (now === 1 || now === 4) this.#set(port.ssts, 0)
    else if (before !== 0) {
      this.#device.reset()
      this.#set(port.ssts, established)
      this.#showSignature()
      this.#receiveSignature()
    }
  }

  #showSignature(): void {
    this.#set(port.sig, this.#device.signature)
    this.#set(port.tfd, this.#device.signature === 0x101 ? idle | 0x100 : 0x100 | ataStatus.seekDone)
  }

  #receiveSignature(): void {
    if (!(this.#get(port.cmd) & portCmd.fisReceive)) return
    const signature = this.#get(port.sig)
    this.#receive(received.deviceToHost, this.#deviceToHost({
      status: this.#get(port.tfd) & 0xff, error: 1, lba: signature >>> 8, count: signature & 0xff,
    }, false))
  }

  /** Slots are taken in ascending order until one fails: the rest stays issued, as the specification has it. */
  #issue(value: number): void {
    if (!(this.#get(port.cmd) & portCmd.start)) return
    this.#set(port.ci, this.#get(port.ci) | value)
    for (let slot = 0; slot < commandsOfList; slot++) {
      if (!(this.#get(port.ci) & (1 << slot))) continue
      const done = this.#run(slot)
      if (!done) break
      this.#set(port.ci, this.#get(port.ci) & ~(1 << slot))
    }
    this.#interruptChanged()
  }

  /** False: the command failed, and the port waits for software. */
  #run(slot: number): boolean {
    const head = this.#fetch(this.#address(port.clb) + slot * header.size, header.size)
    const flags = head.getUint32(0, true)
    const at = wide(head, 8)
    const bytes = this.#fetch(at, table.regions)
    if (bytes.getUint8(0) !== fisType.hostToDevice) return this.#finish({ status: idle | ataStatus.error, error: 4 }, 0)
    const isCommand = (bytes.getUint8(1) & 0x80) !== 0
    if (!isCommand) return this.#control(bytes.getUint8(15), flags)
    const regions = this.#regions(at + table.regions, flags >>> 16)
    const data = new ScatteredData(this.#dma, regions)
    const result = this.#device.execute({
      command: bytes.getUint8(2), features: bytes.getUint8(3) | (bytes.getUint8(11) << 8), device: bytes.getUint8(7),
      lba: (bytes.getUint32(4, true) & 0xffffff) + (bytes.getUint32(8, true) & 0xffffff) * 2 ** 24 + legacyTop(bytes),
      count: bytes.getUint16(12, true),
      packet: new Uint8Array(bytes.buffer, table.packet, table.packetSize), data,
    })
    const moved = new DataView(new ArrayBuffer(4))
    moved.setUint32(0, data.moved, true)
    this.#dma.write(this.#address(port.clb) + slot * header.size + 4, new Uint8Array(moved.buffer))
    return this.#finish(result, data.moved)
  }

  /** A control FIS: SRST set and then cleared resets the device, which answers with its signature. */
  #control(control: number, flags: number): boolean {
    if (control & deviceControlReset) {
      this.#resetting = true
      if (!(flags & header.clearBusy)) this.#set(port.tfd, this.#get(port.tfd) | ataStatus.busy)
      return true
    }
    if (!this.#resetting) return true
    this.#resetting = false
    this.#device.reset()
    this.#showSignature()
    this.#receiveSignature()
    return true
  }

  #finish(result: AtaResult, moved: number): boolean {
    const failed = (result.status & ataStatus.error) !== 0
    this.#set(port.tfd, result.status | (result.error << 8))
    let events = this.#get(port.is)
    if (result.pio && !failed) {
      const fis = this.#deviceToHost(result, true)
      fis[0] = fisType.pioSetup
      fis[1] = 0x60 // to memory, with an interrupt
      fis[15] = result.status
      fis[16] = moved & 0xff
      fis[17] = (moved >> 8) & 0xff
      this.#receive(received.pioSetup, fis)
      events |= portInterrupt.pioSetup
    }
    this.#receive(received.deviceToHost, this.#deviceToHost(result, true))
    events |= portInterrupt.deviceToHost | (failed ? portInterrupt.taskFileError : 0)
    this.#set(port.is, events)
    return !failed
  }

  #deviceToHost({ status, error, lba = 0, count = 0 }: AtaResult, interrupt: boolean): Uint8Array {
    const bytes = new Uint8Array(fisSize)
    const view = new DataView(bytes.buffer)
    bytes.set([fisType.deviceToHost, interrupt ? 0x40 : 0, status, error])
    view.setUint32(4, lba % 2 ** 24, true)
    view.setUint32(8, Math.floor(lba / 2 ** 24) % 2 ** 24, true)
    view.setUint16(12, count, true)
    return bytes
  }

  #receive(offset: number, fis: Uint8Array): void {
    if (this.#get(port.cmd) & portCmd.fisReceive) this.#dma.write(this.#address(port.fb) + offset, fis)
  }

  #regions(at: number, count: number): Region[] {
    const view = this.#fetch(at, count * table.regionSize)
    return Array.from({ length: count }, (_, index) => {
      const base = index * table.regionSize
      return { address: wide(view, base), length: (view.getUint32(base + 12, true) & table.byteCountMask) + 1 }
    })
  }

  #address(register: number): number {
    return this.#get(register + 4) * 2 ** 32 + this.#get(register)
  }

  /** Memory that is not there reads as all ones, which is no command. */
  #fetch(address: number, length: number): DataView {
    const bytes = new Uint8Array(length)
    if (length > 0) this.#dma.read(address, bytes)
    return new DataView(bytes.buffer)
  }
}

const wide = (view: DataView, at: number): number => (view.getUint32(at + 4, true) & 0xfffff) * 2 ** 32 + view.getUint32(at, true)

/** 28-bit commands have bits 27-24 of the address in the device register; 48-bit commands have zeros there. */
function legacyTop(bytes: DataView): number {
  const extended = bytes.getUint32(8, true) & 0xffffff
  const code = bytes.getUint8(2)
  const has48Bits = (code >= 0x24 && code <= 0x29) || (code >= 0x34 && code <= 0x39) || code === 0x42
  return has48Bits || extended ? 0 : (bytes.getUint8(7) & 0xf) * 2 ** 24
}

class ScatteredData implements DataPath {
  readonly length: number
  moved = 0
  readonly #dma: DmaPort
  readonly #regions: readonly Region[]

  constructor(dma: DmaPort, regions: readonly Region[]) {
    this.#dma = dma
    this.#regions = regions
    this.length = regions.reduce((sum, { length }) => sum + length, 0)
  }

  send(bytes: Uint8Array): boolean {
    return this.#each(bytes, (address, piece) => this.#dma.write(address, piece) === 'ok')
  }

  receive(into: Uint8Array): boolean {
    return this.#each(into, (address, piece) => this.#dma.read(address, piece) === 'ok')
  }

  #each(bytes: Uint8Array, move: (address: number, piece: Uint8Array) => boolean): boolean {
    let skip = this.moved
    let done = 0
    for (const { address, length } of this.#regions) {
      if (done === bytes.length) break
      if (skip >= length) {
        skip -= length
        continue
      }
      const count = Math.min(length - skip, bytes.length - done)
      if (!move(address + skip, bytes.subarray(done, done + count))) return false
      done += count
      skip = 0
    }
    this.moved += done
    return done === bytes.length
  }
}
