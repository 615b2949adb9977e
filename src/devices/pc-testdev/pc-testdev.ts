/** The `pc-testdev` test device of kvm-unit-tests: I/O registers, interrupt lines and a page to touch (as QEMU's hw/misc/pc-testdev.c). */
import type { AccessSize, DeviceState, InterruptPin, MmioHandler, PortHandler, Stateful } from '../ports.ts'

export const testDeviceMemorySize = 0x10000

/** Port ranges, with the handler of each. */
export interface TestDevicePorts {
  base: number
  count: number
  handler: PortHandler
}

export class PcTestDevice implements Stateful {
  readonly #lines: readonly InterruptPin[]
  readonly #register = new Uint8Array(4)
  readonly #memory = new Uint8Array(testDeviceMemorySize)
  readonly #levels: boolean[]

  /** `lines`: the interrupt lines 0 to 23 that port 2000h + n drives. */
  constructor(lines: readonly InterruptPin[]) {
    this.#lines = lines
    this.#levels = lines.map(() => false)
  }

  get ports(): TestDevicePorts[] {
    return [
      { base: 0xe0, count: 4, handler: this.#wide },
      { base: 0xe4, count: 4, handler: this.#flushPage },
      { base: 0xe8, count: 4, handler: this.#byteWide },
      { base: 0x2000, count: this.#lines.length, handler: this.#interruptLines },
    ]
  }

  /** Memory whose every access leaves the processor. */
  readonly memory: MmioHandler = {
    readMmio: (offset, size) => read(this.#memory, offset, size),
    writeMmio: (offset, size, value) => write(this.#memory, offset, size, value),
  }

  /** E0h-E3h and E8h-EBh are one 32-bit register; accesses to the second are one byte wide there, which software cannot tell. */
  readonly #wide = this.#registerAt(0xe0)
  readonly #byteWide = this.#registerAt(0xe8)

  /** A dword written to E4h asks the embedder to unmap a page and fault it in again: nothing that software can see. */
  readonly #flushPage: PortHandler = { readPort: () => 0, writePort: () => {} }

  readonly #interruptLines: PortHandler = {
    readPort: () => 0,
    writePort: (port, _size, value) => this.#setLine(port - 0x2000, (value & 0xff) !== 0),
  }

  reset(): void {
    this.#register.fill(0)
    this.#memory.fill(0)
    this.#lines.forEach((_, line) => this.#setLine(line, false))
  }

  saveState(): DeviceState {
    return { register: [...this.#register], memory: [...this.#memory], levels: [...this.#levels] }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { register: number[]; memory: number[]; levels: boolean[] }
    this.#register.set(saved.register)
    this.#memory.set(saved.memory)
    saved.levels.forEach((level, line) => this.#setLine(line, level))
  }

  #setLine(line: number, asserted: boolean): void {
    this.#levels[line] = asserted
    this.#lines[line].set(asserted)
  }

  #registerAt(base: number): PortHandler {
    return {
      readPort: (port, size) => read(this.#register, port - base, size),
      writePort: (port, size, value) => write(this.#register, port - base, size, value),
    }
  }
}

function read(bytes: Uint8Array, offset: number, size: AccessSize): number {
  let value = 0
  for (let at = 0; at < size; at++) value += (bytes[offset + at] ?? 0) * 2 ** (at * 8)
  return value
}

function write(bytes: Uint8Array, offset: number, size: AccessSize, value: number): void {
  for (let at = 0; at < size; at++) bytes[offset + at] = value >>> (at * 8)
}
