/**
 * IA32_APIC_BASE of one CPU: where its registers are, and which of the three modes it is in. Intel SDM vol. 3, "Local APIC Status and
 * Location", "x2APIC State Transitions".
 */
import { apicBaseBits } from './lapic-registers.ts'

export type LapicMode = 'disabled' | 'xapic' | 'x2apic'

const defaultBase = 0xfee0_0000n

export class ApicBase {
  mode: LapicMode = 'disabled'
  readonly #bootstrap: boolean
  readonly #reserved: bigint
  #value = 0n

  constructor(bootstrap: boolean, hasX2apic: boolean, physicalAddressBits: number) {
    this.#bootstrap = bootstrap
    const address = (1n << BigInt(physicalAddressBits)) - 0x1000n
    this.#reserved = ~(address | apicBaseBits.bootstrap | apicBaseBits.enabled | (hasX2apic ? apicBaseBits.x2apic : 0n))
  }

  get value(): bigint {
    return this.#value
  }
  /** Without asking whether software might: power-up, snapshots. */
  set value(value: bigint) {
    this.#value = value
    if (!(value & apicBaseBits.enabled)) this.mode = 'disabled'
    else this.mode = value & apicBaseBits.x2apic ? 'x2apic' : 'xapic'
  }

  powerUp(): void {
    this.value = defaultBase | apicBaseBits.enabled | (this.#bootstrap ? apicBaseBits.bootstrap : 0n)
  }

  /** WRMSR. False for #GP: reserved bits, or a way between two modes that the manual's figure does not have. */
  write(value: bigint): boolean {
    const enables = (value & apicBaseBits.enabled) !== 0n
    const wantsX2apic = (value & apicBaseBits.x2apic) !== 0n
    if ((value & this.#reserved) !== 0n || (wantsX2apic && !enables)) return false
    if (this.mode === 'disabled' && wantsX2apic) return false
    if (this.mode === 'x2apic' && enables && !wantsX2apic) return false
    this.value = value
    return true
  }

  /** Physical address of the page of registers; undefined while there is none (disabled, or x2APIC mode). */
  get page(): number | undefined {
    return this.mode === 'xapic' ? Number(this.#value & ~0xfffn) : undefined
  }
}
