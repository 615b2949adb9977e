/** The card's transceiver, an 88E1011, as registers behind MDIC (IEEE 802.3, "Management functions"; the manual's "PHY Registers"). */

/** MII registers. */
const mii = {
  control: 0, status: 1, id1: 2, id2: 3, advertise: 4, partner: 5, expansion: 6, gigabitControl: 9, gigabitStatus: 10, extendedStatus: 15,
  specificControl: 16, specificStatus: 17, interruptEnable: 18, interruptStatus: 19, extendedControl: 20, errors: 21,
} as const

const control = { reset: 0x8000, loopback: 0x4000, autoNegotiate: 0x1000, powerDown: 0x0800, isolate: 0x0400, restart: 0x0200 } as const
const statusBit = { complete: 0x20, linkUp: 0x04 } as const

const initial: ReadonlyMap<number, number> = new Map([
  [mii.control, 0x1140], [mii.status, 0x7949], [mii.id1, 0x0141], [mii.id2, 0x0c20], [mii.advertise, 0x0de1],
  [mii.gigabitControl, 0x0e00], [mii.extendedStatus, 0x3000], [mii.specificControl, 0x0360], [mii.extendedControl, 0x0d60],
])
/** What the other end of the cable offers, once it is known: everything, with flow control. */
const partner: ReadonlyMap<number, number> = new Map([[mii.partner, 0xcde1], [mii.expansion, 0x0f], [mii.gigabitStatus, 0x7c00]])
const readOnly: ReadonlySet<number> = new Set([
  mii.status, mii.id1, mii.id2, mii.partner, mii.expansion, mii.gigabitStatus, mii.extendedStatus, mii.specificStatus, mii.interruptStatus,
  mii.errors,
])
const registers = 32

export class Phy {
  readonly #registers = new Uint16Array(registers)
  readonly #negotiate: () => void
  /** Whether the cable is in and both ends agreed. */
  #isUp = false

  /** `negotiate`: the link goes down and, some time later, up: the card calls `linkUp`. */
  constructor(negotiate: () => void) {
    this.#negotiate = negotiate
    this.reset()
  }

  get isUp(): boolean {
    return this.#isUp && !(this.#registers[mii.control] & (control.powerDown | control.isolate))
  }

  get loopback(): boolean {
    return (this.#registers[mii.control] & control.loopback) !== 0
  }

  set linkUp(isUp: boolean) {
    this.#isUp = isUp
  }

  read(register: number): number {
    switch (register) {
      case mii.status: return initial.get(mii.status)! | (this.isUp ? statusBit.complete | statusBit.linkUp : 0)
      // 1000 Mb/s, full duplex, resolved, link: what was agreed on.
      case mii.specificStatus: return this.isUp ? 0xac08 : 0
    }
    return partner.has(register) ? (this.isUp ? partner.get(register)! : 0) : this.#registers[register]
  }

  write(register: number, value: number): void {
    if (readOnly.has(register)) return
    if (register !== mii.control) {
      this.#registers[register] = value
      return
    }
    const wasDown = (this.#registers[mii.control] & control.powerDown) !== 0
    if (value & control.reset) return this.restart()
    this.#registers[mii.control] = value & ~(control.reset | control.restart)
    if (value & control.restart || (wasDown && !(value & control.powerDown))) this.#start()
  }

  /** A reset by software, and what follows. */
  restart(): void {
    this.reset()
    this.#start()
  }

  #start(): void {
    this.#isUp = false
    this.#negotiate()
  }

  reset(): void {
    this.#registers.fill(0)
    for (const [register, value] of initial) this.#registers[register] = value
  }

  saveState(): unknown {
    return { registers: [...this.#registers], isUp: this.#isUp }
  }

  restoreState(state: unknown): void {
    const saved = state as { registers: number[]; isUp: boolean }
    this.#registers.set(saved.registers)
    this.#isUp = saved.isUp
  }
}
