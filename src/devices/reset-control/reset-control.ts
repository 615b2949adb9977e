/**
 * The chipset's reset and A20 registers: CF9h (Intel ICH9 datasheet, "RST_CNT - Reset Control Register") and port 92h ("Fast A20 and Init
 * Register").
 */
import type { DeviceState, PortHandler, Stateful } from '../ports.ts'

/** Closed, the processors take address bit 20 for 0 (A20M#). Port 92h and the keyboard controller move the same gate. */
export class A20Gate {
  readonly #changed: (enabled: boolean) => void
  #enabled = true

  /** `changed`: is told where the gate stands when it has moved. */
  constructor(changed: (enabled: boolean) => void = () => {}) {
    this.#changed = changed
  }
  get enabled(): boolean {
    return this.#enabled
  }
  set enabled(enabled: boolean) {
    if (enabled === this.#enabled) return
    this.#enabled = enabled
    this.#changed(enabled)
  }
}

export class ResetControl implements Stateful {
  readonly #reset: () => void
  readonly #a20: A20Gate
  #resetControl = 0

  constructor(reset: () => void, a20: A20Gate) {
    this.#reset = reset
    this.#a20 = a20
  }

  /** RST_CPU going from 0 to 1 resets; SYS_RST says how hard, which makes no difference here. */
  readonly portCf9: PortHandler = {
    readPort: () => this.#resetControl,
    writePort: (_port, _size, value) => {
      const rising = value & 4 && !(this.#resetControl & 4)
      this.#resetControl = value & 0x0e
      if (rising) this.#reset()
    },
  }

  readonly port92: PortHandler = {
    readPort: () => (this.#a20.enabled ? 2 : 0),
    writePort: (_port, _size, value) => {
      this.#a20.enabled = (value & 2) !== 0
      if (value & 1) this.#reset()
    },
  }

  reset(): void {
    this.#resetControl = 0
    this.#a20.enabled = true
  }

  saveState(): DeviceState {
    return { resetControl: this.#resetControl, a20: this.#a20.enabled }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { resetControl: number; a20: boolean }
    this.#resetControl = saved.resetControl
    this.#a20.enabled = saved.a20
  }
}
