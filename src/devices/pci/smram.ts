/**
 * SMRAM as the host bridge hides and shows it: the compatible segment at A0000h and, on q35, TSEG at the top of low RAM (Intel 440FX
 * datasheet, "SMRAM - System Management RAM Control Register"; Intel 3 Series Express Chipset datasheet, "System Management Mode").
 */
import type { ConfigSpace } from './config-space.ts'

export interface Smram {
  readonly ranges: readonly { base: number; size: number }[]
  /** Everybody sees it. */
  readonly open: boolean
  /** A CPU in SMM sees it. */
  readonly enabled: boolean
}

const bit = { enabled: 0x08, locked: 0x10, closed: 0x20, open: 0x40 } as const
/** The only place of the compatible segment: bits 2:0. */
const base = 2
const compatible = { base: 0xa0000, size: 0x20000 }
const tsegEnabled = 1
/** SM_CACHE, SM_L1, SM_L2: SMRAM is in no cache. Always set. */
const uncached = 0x38
const MiB = 0x100000
export const extendedTsegMegabytes = 16
const tsegSizes = [1 * MiB, 2 * MiB, 8 * MiB, extendedTsegMegabytes * MiB] as const

export const noSmram: Smram = { ranges: [], open: false, enabled: false }

/** The register at `offset`; the byte after it is ESMRAMC where the host bridge has TSEG below `tsegTop`. */
export class SmramControl {
  view: Smram = noSmram
  onChange: () => void = () => {}
  readonly #config: ConfigSpace
  readonly #offset: number
  readonly #tsegTop: number | undefined
  #accepted: readonly [number, number]

  constructor(config: ConfigSpace, offset: number, tsegTop?: number) {
    this.#config = config
    this.#offset = offset
    this.#tsegTop = tsegTop
    config.allow(offset, 1, bit.enabled | bit.locked | bit.closed | bit.open)
    if (tsegTop !== undefined) {
      config.allow(offset + 1, 1, 7)
      config.set(offset + 1, 1, uncached)
    }
    config.set(offset, 1, base)
    this.#accepted = [base, tsegTop === undefined ? 0 : uncached]
    config.onWrite((at, size) => {
      if (at <= offset + 1 && at + size > offset) this.#written(size === config.bytes.length)
    })
  }

  /** Once D_LCK is set, nothing but reset (`whole`: the space is restored) changes the registers, and SMRAM is not open any more. */
  #written(whole: boolean): void {
    const config = this.#config
    if (!whole && this.#accepted[0] & bit.locked) {
      config.set(this.#offset, 1, this.#accepted[0])
      if (this.#tsegTop !== undefined) config.set(this.#offset + 1, 1, this.#accepted[1])
      return
    }
    let value = config.get(this.#offset, 1)
    if (value & bit.locked) value &= ~bit.open
    config.set(this.#offset, 1, value)
    this.#accepted = [value, this.#tsegTop === undefined ? 0 : config.get(this.#offset + 1, 1)]
    this.#update()
  }

  #update(): void {
    const [control, extended] = this.#accepted
    const enabled = (control & bit.enabled) !== 0
    const ranges = enabled ? [compatible] : []
    if (enabled && this.#tsegTop !== undefined && extended & tsegEnabled) {
      const size = tsegSizes[(extended >> 1) & 3]
      ranges.push({ base: this.#tsegTop - size, size })
    }
    this.view = { ranges, open: enabled && (control & bit.open) !== 0, enabled }
    this.onChange()
  }
}
