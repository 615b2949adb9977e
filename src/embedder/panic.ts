/** Watches the console's text for a kernel that gives up: Linux resets the machine after a panic just as it does for a reboot. */

const panicLine = /Kernel panic - not syncing: .*/
/** What Linux (kernel/reboot.c) says before an orderly restart. */
const orderly = /reboot: (Restarting system|Power down|System halted)/

/** The same file's panic(): the last line before it loops for ever. With a `panic=` that restarts, it never comes. */
const endless = /---\[ end Kernel panic - not syncing/

export class PanicWatch {
  /** The kernel has given up and will do nothing more. */
  stuck = false
  #line = ''
  #panic: string | undefined
  readonly #decoder = new TextDecoder()

  /** The last panic not followed by an orderly restart. */
  get panic(): string | undefined {
    return panicLine.exec(this.#line)?.[0] ?? this.#panic
  }

  see(bytes: Uint8Array): void {
    const lines = (this.#line + this.#decoder.decode(bytes, { stream: true })).split('\n')
    this.#line = lines.pop()!.slice(-4096)
    for (const line of lines) {
      const found = panicLine.exec(line)
      this.stuck ||= endless.test(line)
      if (this.stuck && this.#panic !== undefined) continue
      if (found) this.#panic = found[0].trimEnd()
      else if (orderly.test(line)) this.#panic = undefined
    }
  }
}
