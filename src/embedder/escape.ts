/** The keys that a person at the console gives to us and not to the guest: Ctrl-A and a letter, as in QEMU's multiplexer and GNU screen. */

/** `next`: the console of another guest, where there are several. */
export type Command = 'leave' | 'help' | 'inspect' | 'next'

export const escapeHelp = `\
Ctrl-A X   leave: power the machine off
Ctrl-A A   send Ctrl-A to the guest
Ctrl-A H   this help
Ctrl-A C   says where a monitor is to be had
`

const ctrlA = 0x01
const ctrlC = 0x03

export interface KeyOptions {
  /** Ctrl-A begins a command. */
  escape: boolean
  /** Ctrl-C leaves, and does not go to the guest. */
  interrupt: boolean
}

/** Splits typed bytes into those for the guest and commands for us. Remembers a Ctrl-A between calls. */
export class Keys {
  readonly #options: KeyOptions
  #escaped = false

  constructor(options: KeyOptions) {
    this.#options = options
  }

  take(typed: Uint8Array): { guest: Uint8Array; commands: Command[] } {
    const guest: number[] = []
    const commands: Command[] = []
    for (const byte of typed) {
      if (this.#escaped) {
        this.#escaped = false
        this.#command(byte, guest, commands)
      } else if (byte === ctrlA && this.#options.escape) this.#escaped = true
      else if (byte === ctrlC && this.#options.interrupt) commands.push('leave')
      else guest.push(byte)
    }
    return { guest: Uint8Array.from(guest), commands }
  }

  /** An unknown letter does nothing: typed by mistake, it must not reach a guest that may obey it. */
  #command(byte: number, guest: number[], commands: Command[]): void {
    const letter = String.fromCharCode(byte).toLowerCase()
    if (byte === ctrlA || letter === 'a') guest.push(ctrlA)
    else if (letter === 'x') commands.push('leave')
    else if (letter === 'h' || letter === '?') commands.push('help')
    else if (letter === 'c') commands.push('inspect')
    else if (letter === 'n') commands.push('next')
  }
}
