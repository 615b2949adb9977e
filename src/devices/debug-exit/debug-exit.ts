/** The `isa-debug-exit` test device: a port whose write ends the machine with status (value << 1) | 1 (as QEMU's device of that name). */
import type { AccessSize, PortHandler } from '../ports.ts'

export class DebugExit implements PortHandler {
  readonly #exit: (status: number) => void

  constructor(exit: (status: number) => void) {
    this.#exit = exit
  }

  readPort(): number {
    return 0
  }

  /** The process status of an embedder has eight bits; the whole number is given to it. */
  writePort(_port: number, _size: AccessSize, value: number): void {
    this.#exit(((value << 1) | 1) >>> 0)
  }
}
