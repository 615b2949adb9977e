/** The part of Telnet that terminals need (RFC 854, RFC 856 to 858): every byte passes both ways, and the far end does not echo. */

const command = { subnegotiationEnd: 240, subnegotiation: 250, will: 251, dont: 254, do: 253, escape: 255 } as const
const option = { binary: 0, echo: 1, noGoAhead: 3 } as const

/** What a listener says first, as QEMU does: it echoes, waits for no turn, and sends and takes all eight bits. */
export const telnetGreeting: Uint8Array = Uint8Array.of(
  command.escape, command.will, option.echo, command.escape, command.will, option.noGoAhead,
  command.escape, command.will, option.binary, command.escape, command.do, option.binary,
)

/** 255 is told from a command by being doubled. */
export function telnetEncode(bytes: Uint8Array): Uint8Array {
  if (!bytes.includes(command.escape)) return bytes
  return Uint8Array.from([...bytes].flatMap(byte => (byte === command.escape ? [byte, byte] : [byte])))
}

/** Takes commands out of what is received. Remembers one that is cut between calls. */
export class TelnetDecoder {
  #inside: 'text' | 'escape' | 'option' | 'subnegotiation' | 'subnegotiation escape' = 'text'

  take(bytes: Uint8Array): Uint8Array {
    return bytes.filter(byte => this.#passes(byte))
  }

  #passes(byte: number): boolean {
    const was = this.#inside
    switch (was) {
      case 'text':
        if (byte === command.escape) this.#inside = 'escape'
        return byte !== command.escape
      case 'escape':
        this.#inside = byte >= command.will && byte <= command.dont ? 'option' : byte === command.subnegotiation ? 'subnegotiation' : 'text'
        return byte === command.escape
      case 'option':
        this.#inside = 'text'
        return false
      case 'subnegotiation':
        if (byte === command.escape) this.#inside = 'subnegotiation escape'
        return false
      case 'subnegotiation escape':
        this.#inside = byte === command.subnegotiationEnd ? 'text' : 'subnegotiation'
        return false
    }
  }
}
