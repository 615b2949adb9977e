/** The error status register and the error interrupt of one local APIC. Intel SDM vol. 3, "Error Handling". */

export interface ErrorState {
  esr: number
  pendingErrors: number
  errorArmed: boolean
}

export class ErrorStatus {
  /** What software reads: the errors up to its last write. */
  register = 0
  readonly #isMasked: () => boolean
  readonly #raise: () => void
  #pending = 0
  #armed = true

  /** Both are of the local vector table's entry for errors. */
  constructor(isMasked: () => boolean, raise: () => void) {
    this.#isMasked = isMasked
    this.#raise = raise
  }

  reset(): void {
    this.register = this.#pending = 0
    this.#armed = true
  }

  /** A bit of `esrBits`. One interrupt tells of all errors until software has written the register. */
  report(bit: number): void {
    this.#pending |= bit
    if (!this.#armed || this.#isMasked()) return
    // first: an entry with an illegal vector is an error itself
    this.#armed = false
    this.#raise()
  }

  /** The value written does not matter: errors since the last write become readable, and the interrupt is armed again. */
  write(): void {
    this.register = this.#pending
    this.#pending = 0
    this.#armed = true
  }

  saveState(): ErrorState {
    return { esr: this.register, pendingErrors: this.#pending, errorArmed: this.#armed }
  }
  restoreState({ esr, pendingErrors, errorArmed }: ErrorState): void {
    this.register = esr
    this.#pending = pendingErrors
    this.#armed = errorArmed
  }
}
