/** The I/O port space: 65,536 byte-wide ports shared by ranges of handlers (Intel SDM volume 1, "Input/Output", "I/O Port Addressing"). */
import type { AccessSize, LogUnhandled, PortHandler } from '../devices/ports.ts'

export interface PortClaim {
  readonly base: number
  readonly count: number
  readonly name: string
  release(): void
}

interface Claim extends PortClaim {
  readonly handler: PortHandler
}

const portCount = 0x10000
const allOnes: Record<AccessSize, number> = { 1: 0xff, 2: 0xffff, 4: 0xffffffff }

export class PortBus {
  readonly #claims: (Claim | undefined)[] = new Array<Claim | undefined>(portCount)
  readonly #log: LogUnhandled
  readonly #reported = new Set<number>()

  constructor(log: LogUnhandled) {
    this.#log = log
  }

  /** Gives `count` ports from `base` to a handler. Two owners of one port are a mistake of the wiring: it throws and changes nothing. */
  claim(base: number, count: number, name: string, handler: PortHandler): PortClaim {
    if (!Number.isInteger(base) || base < 0 || count < 1 || base + count > portCount) {
      throw new Error(`port range of ${name} is outside the port space: base ${base}, count ${count}`)
    }
    const other = this.owner(base, count)
    if (other) throw new Error(`ports of ${name} (${range(base, count)}) overlap ${other.name} (${range(other.base, other.count)})`)
    const claim: Claim = { base, count, name, handler, release: () => this.#claims.fill(undefined, base, base + count) }
    this.#claims.fill(claim, base, base + count)
    return claim
  }

  /** The first claim that lies in a range, if any. */
  owner(base: number, count = 1): PortClaim | undefined {
    for (let port = base; port < base + count; port++) {
      if (this.#claims[port]) return this.#claims[port]
    }
    return undefined
  }

  /** Unsigned, `size` bytes wide. Ports beyond FFFFh wrap, as the 16-bit address does. */
  read(port: number, size: AccessSize): number {
    const claim = this.#claims[port]
    if (claim && port + size <= claim.base + claim.count) return claim.handler.readPort(port, size) >>> 0
    if (size === 1) return this.#unclaimed(port, 'read')
    const half = (size >> 1) as 1 | 2
    const low = this.read(port, half)
    const high = this.read((port + half) & 0xffff, half)
    return (low | (high << (half * 8))) >>> 0
  }

  write(port: number, size: AccessSize, value: number): void {
    const claim = this.#claims[port]
    if (claim && port + size <= claim.base + claim.count) return claim.handler.writePort(port, size, (value & allOnes[size]) >>> 0)
    if (size === 1) {
      this.#unclaimed(port, `write of ${hex(value & 0xff)}`)
      return
    }
    const half = (size >> 1) as 1 | 2
    this.write(port, half, (value & allOnes[half]) >>> 0)
    this.write((port + half) & 0xffff, half, value >>> (half * 8))
  }

  #unclaimed(port: number, what: string): number {
    if (!this.#reported.has(port)) {
      this.#reported.add(port)
      this.#log('ports', `${what} at port ${hex(port)}, where there is no device`)
    }
    return 0xff
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`
const range = (base: number, count: number): string => `${hex(base)}-${hex(base + count - 1)}`
