/** A small driver of the 82540EM for tests: rings in memory, frames in and out. */
import { FakeBoard } from '../testing/fakes.ts'
import { E1000 } from './e1000.ts'
import { reg } from './registers.ts'

export const entries = 16
/** Where things lie in the driver's memory: receive buffer n lies at `buffers + n * 0x1000`. */
export const place = { transmit: 0x1000, receive: 0x2000, data: 0x8000, buffers: 0x20000 } as const
export const mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]

export interface Received {
  bytes: Uint8Array
  status: number
  errors: number
  sum: number
  special: number
}

export class Driver extends FakeBoard {
  readonly sent: Uint8Array[] = []
  readonly card: E1000
  #deliver: (frame: Uint8Array) => void = () => {}
  #tail = 0
  #next = 0

  constructor({ wantsChecksums = true } = {}) {
    super()
    this.card = new E1000({
      slot: this.slot, clock: this.clock, alarmName: 'e1000', mac: Uint8Array.from(mac), log: this.log,
      plug: deliver => {
        this.#deliver = deliver
        return { wantsChecksums, transmit: frame => void this.sent.push(frame), flush() {}, reset() {} }
      },
    })
  }

  read(offset: number): number {
    return this.card.bars[0].handler.readMmio(offset, 4)
  }

  write(offset: number, value: number): void {
    this.card.bars[0].handler.writeMmio(offset, 4, value)
  }

  /** Rings with all receive buffers but one given, both directions enabled. `control`: more bits of RCTL. */
  start(control = 0x04008000): void {
    this.write(reg.tdbal, place.transmit)
    this.write(reg.tdlen, entries * 16)
    this.write(reg.tctl, 0x0a)
    this.write(reg.rdbal, place.receive)
    this.write(reg.rdlen, entries * 16)
    for (let index = 0; index < entries; index++) {
      this.view.setBigUint64(place.receive + index * 16, BigInt(place.buffers + index * 0x1000), true)
    }
    this.write(reg.rdt, entries - 1)
    this.write(reg.rctl, control | 2)
  }

  /** Puts a descriptor of two quadwords, without telling the card. */
  put(low: bigint, high: bigint): number {
    const at = place.transmit + this.#tail * 16
    this.view.setBigUint64(at, low, true)
    this.view.setBigUint64(at + 8, high, true)
    this.#tail = (this.#tail + 1) % entries
    return at
  }

  ring(): void {
    this.write(reg.tdt, this.#tail)
  }

  /** Sends bytes by one legacy descriptor: end, report status. */
  send(bytes: Uint8Array, command = 0x09, more = 0n): number {
    this.dma.memory.set(bytes, place.data)
    const at = this.put(BigInt(place.data), BigInt(bytes.length) | (BigInt(command) << 24n) | more)
    this.ring()
    return at
  }

  arrive(frame: Uint8Array): void {
    this.#deliver(frame)
    this.clock.advance(30_000)
  }

  /** What is in the receive ring, one entry a descriptor; the driver gives the buffers back unless told not to. */
  received(giveBack = true): Received[] {
    const found: Received[] = []
    for (;;) {
      const at = place.receive + this.#next * 16
      const status = this.view.getUint8(at + 12)
      if (!(status & 1)) break
      const address = Number(this.view.getBigUint64(at, true))
      found.push({
        bytes: this.dma.memory.slice(address, address + this.view.getUint16(at + 8, true)), status, errors: this.view.getUint8(at + 13),
        sum: this.view.getUint16(at + 10, true), special: this.view.getUint16(at + 14, true),
      })
      this.view.setUint8(at + 12, 0)
      if (giveBack) this.write(reg.rdt, this.#next)
      this.#next = (this.#next + 1) % entries
    }
    return found
  }
}
