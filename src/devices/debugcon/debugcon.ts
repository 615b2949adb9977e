/** Two ports that only write: the debug console at E9h (Bochs and QEMU `debugcon`) and the POST code at 80h (IBM PC AT diagnostics). */
import type { AccessSize, DeviceState, PortHandler, Stateful } from '../ports.ts'

/** Reading gives E9h, by which software finds it. */
export class DebugConsole implements PortHandler {
  readonly #output: (byte: number) => void

  constructor(output: (byte: number) => void) {
    this.#output = output
  }

  readPort(): number {
    return 0xe9
  }

  writePort(_port: number, size: AccessSize, value: number): void {
    for (let at = 0; at < size; at++) this.#output((value >>> (at * 8)) & 0xff)
  }
}

/** Kernels write port 80h only to wait a moment; the last code is kept for whoever debugs a boot. */
export class PostCode implements PortHandler, Stateful {
  last = 0

  readPort(): number {
    return 0xff
  }

  writePort(_port: number, _size: AccessSize, value: number): void {
    this.last = value
  }

  reset(): void {
    this.last = 0
  }

  saveState(): DeviceState {
    return this.last
  }

  restoreState(state: DeviceState): void {
    this.last = state as number
  }
}
