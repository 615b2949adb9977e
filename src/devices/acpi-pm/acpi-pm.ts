/** ACPI fixed hardware: PM1a events and control, PM timer, GPE0, and the SMI command port (ACPI specification, "ACPI Register Model"). */
import type { AccessSize, Alarm, Clock, DeviceState, InterruptPin, LogUnhandled, Nanoseconds, PortHandler, Stateful } from '../ports.ts'

export interface AcpiPmOptions {
  clock: Clock
  /** The SCI: level-triggered. */
  sci: InterruptPin
  powerOff: () => void
  /** SLP_TYP said S3. `wake` ends it. Undefined: this machine does not sleep, and says so in the log. */
  sleep?: () => void
  /** The chipset's SMI#, and whether a write to the SMI command port asserts it (APMC_EN). */
  smi?: {
    request: () => void
    commandEnabled: (smiControl: number) => boolean
    /** GBL_SMI_EN, bit 0 of SMI_EN, keeps its value (SMI_LOCK). */
    locked?: () => boolean
  }
  log: LogUnhandled
  /** Width of the PM timer: FADT flag TMR_VAL_EXT says 32. */
  timerBits?: 24 | 32
}

/** Offsets from the PM base, as in the chipsets that QEMU models. */
export const pmLayout = { event: 0, control: 4, timer: 8, gpe0: 0x20, gpe0Length: 16, smiControl: 0x30, length: 0x40 } as const
/** SLP_TYPa of each sleep state: what \_S3 and \_S5 say. */
export const sleepType = { s3: 1, s5: 0 } as const
/** What software writes to the SMI command port to turn ACPI mode on and off: FADT ACPI_ENABLE and ACPI_DISABLE. */
export const smiCommand = { port: 0xb2, acpiEnable: 2, acpiDisable: 3 } as const

const status = { timer: 1, global: 0x20, powerButton: 0x100, rtc: 0x400, wake: 0x8000 } as const
const enableMask = status.timer | status.global | status.powerButton | status.rtc
const control = { sciEnable: 1, sleepTypeShift: 10, sleepEnable: 0x2000, kept: 0x1c02 } as const
const timerHertz = 3579545
const gpeBytes = pmLayout.gpe0Length / 2

interface AcpiPmState {
  status: number
  enable: number
  control: number
  gpeStatus: number[]
  gpeEnable: number[]
  /** How many times the timer's top bit had changed when TMR_STS was last cleared. */
  halfPeriods: number
  smiControl: number
  apm: [number, number]
}

const initialState = (): AcpiPmState => ({
  status: 0, enable: 0, control: 0, gpeStatus: new Array<number>(gpeBytes).fill(0), gpeEnable: new Array<number>(gpeBytes).fill(0),
  halfPeriods: 0, smiControl: 0, apm: [0, 0],
})

export class AcpiPm implements Stateful {
  readonly #options: AcpiPmOptions
  readonly #timerBits: number
  readonly #overflow: Alarm
  #state = initialState()

  constructor(options: AcpiPmOptions) {
    this.#options = options
    this.#timerBits = options.timerBits ?? 24
    this.#overflow = options.clock.alarm('acpi-pm.timer', () => this.#update())
  }

  /** The block of PM registers, claimed at its base. */
  registers(base: number): PortHandler {
    return {
      readPort: (port, size) => this.#readBlock(port - base, size),
      writePort: (port, size, value) => {
        for (let at = 0; at < size; at++) this.#writeByte(port - base + at, (value >>> (at * 8)) & 0xff)
        this.#update()
      },
    }
  }

  /** Ports B2h and B3h. What a handler would do for ACPI happens at once: there need be no firmware. */
  readonly smiPorts: PortHandler = {
    readPort: (port, size) => (size === 1 ? this.#state.apm[port & 1] : this.#state.apm[0] | (this.#state.apm[1] << 8)),
    writePort: (port, size, value) => {
      this.#state.apm[port & 1] = value & 0xff
      if (size > 1) this.#state.apm[1] = (value >> 8) & 0xff
      if ((port & 1) === 0) this.#smi(value & 0xff)
    },
  }

  pressPowerButton(): void {
    this.#raise(status.powerButton)
  }

  rtcAlarm(): void {
    this.#raise(status.rtc)
  }

  /** Sets a general-purpose event, 0 to 63. */
  raiseGpe(event: number): void {
    this.#state.gpeStatus[event >> 3] |= 1 << (event & 7)
    this.#update()
  }

  /** Whether an enabled event is pending that ends S3. */
  get wakeRequested(): boolean {
    return (this.#state.status & this.#state.enable & (status.powerButton | status.rtc)) !== 0
  }

  /** The machine left S3. */
  wake(): void {
    this.#raise(status.wake)
  }

  reset(): void {
    this.#state = { ...initialState(), halfPeriods: this.#halfPeriods() }
    this.#update()
  }

  saveState(): DeviceState {
    this.#collectTimerStatus()
    return structuredClone(this.#state)
  }

  restoreState(state: DeviceState): void {
    this.#state = structuredClone(state) as AcpiPmState
    this.#update()
  }

  #readBlock(offset: number, size: AccessSize): number {
    let value = 0
    const timer = this.#ticks() % 2 ** this.#timerBits // one moment for all bytes of an access
    for (let at = 0; at < size; at++) value += this.#readByte(offset + at, timer) * 2 ** (at * 8)
    return value
  }

  #readByte(offset: number, timer: number): number {
    const state = this.#state
    this.#collectTimerStatus()
    const gpe = offset - pmLayout.gpe0
    if (offset < 2) return byteOf(state.status, offset)
    if (offset < pmLayout.control) return byteOf(state.enable, offset - 2)
    if (offset < pmLayout.control + 2) return byteOf(state.control, offset - pmLayout.control)
    if (offset >= pmLayout.timer && offset < pmLayout.timer + 4) return byteOf(timer, offset - pmLayout.timer)
    if (gpe >= 0 && gpe < gpeBytes) return state.gpeStatus[gpe]
    if (gpe >= gpeBytes && gpe < 2 * gpeBytes) return state.gpeEnable[gpe - gpeBytes]
    if (offset >= pmLayout.smiControl && offset < pmLayout.smiControl + 4) return byteOf(state.smiControl, offset - pmLayout.smiControl)
    return 0 // the rest of the block is reserved
  }

  #writeByte(offset: number, value: number): void {
    const state = this.#state
    const gpe = offset - pmLayout.gpe0
    if (offset < 2) this.#clearStatus(value << (offset * 8))
    else if (offset < pmLayout.control) state.enable = withByte(state.enable, offset - 2, value) & enableMask
    else if (offset === pmLayout.control) state.control = (state.control & 0xff00) | (value & (control.kept | control.sciEnable) & 0xff)
    else if (offset === pmLayout.control + 1) this.#writeSleep(value << 8)
    else if (gpe >= 0 && gpe < gpeBytes) state.gpeStatus[gpe] &= ~value
    else if (gpe >= gpeBytes && gpe < 2 * gpeBytes) state.gpeEnable[gpe - gpeBytes] = value
    else if (offset >= pmLayout.smiControl && offset < pmLayout.smiControl + 4) {
      const isLocked = offset === pmLayout.smiControl && this.#options.smi?.locked?.()
      const kept = isLocked ? (value & ~1) | (state.smiControl & 1) : value
      state.smiControl = withByte(state.smiControl, offset - pmLayout.smiControl, kept)
    }
  }

  #clearStatus(bits: number): void {
    this.#collectTimerStatus()
    this.#state.status &= ~bits
  }

  /** SLP_EN reads as zero. */
  #writeSleep(value: number): void {
    this.#state.control = (this.#state.control & 0xff) | (value & control.kept)
    if (!(value & control.sleepEnable)) return
    const type = (value >> control.sleepTypeShift) & 7
    if (type === sleepType.s5) this.#options.powerOff()
    else if (type === sleepType.s3 && this.#options.sleep) this.#options.sleep()
    else this.#options.log('acpi-pm', `sleep type ${type} is not implemented; the machine stays awake`)
  }

  #smi(command: number): void {
    if (command === smiCommand.acpiEnable) this.#state.control |= control.sciEnable
    else if (command === smiCommand.acpiDisable) this.#state.control &= ~control.sciEnable
    else if (!this.#commandSmi()) this.#options.log('acpi-pm', `SMI command ${command} has no handler: SMIs by software are not enabled`)
    this.#update()
    if (this.#commandSmi()) this.#options.smi?.request()
  }

  #commandSmi(): boolean {
    return this.#options.smi?.commandEnabled(this.#state.smiControl) ?? false
  }

  #raise(bit: number): void {
    this.#state.status |= bit
    this.#update()
  }

  /** Ticks since power-on, exact: seconds and the rest are multiplied apart. */
  #ticks(): number {
    const now = this.#options.clock.now()
    return Math.floor(now / 1e9) * timerHertz + Math.floor(((now % 1e9) * timerHertz) / 1e9)
  }

  #halfPeriods(): number {
    return Math.floor(this.#ticks() / 2 ** (this.#timerBits - 1))
  }

  /** TMR_STS is set when the top bit of the timer changes. */
  #collectTimerStatus(): void {
    const halfPeriods = this.#halfPeriods()
    if (halfPeriods !== this.#state.halfPeriods) this.#state.status |= status.timer
    this.#state.halfPeriods = halfPeriods
  }

  #update(): void {
    const state = this.#state
    this.#collectTimerStatus()
    const general = state.gpeStatus.some((bits, at) => (bits & state.gpeEnable[at]) !== 0)
    const fixed = (state.status & state.enable & enableMask) !== 0
    this.#options.sci.set((state.control & control.sciEnable) !== 0 && (fixed || general))
    if (state.enable & ~state.status & status.timer) this.#overflow.set(this.#nextOverflow())
    else this.#overflow.cancel()
  }

  #nextOverflow(): Nanoseconds {
    const tick = (this.#state.halfPeriods + 1) * 2 ** (this.#timerBits - 1)
    return Math.floor(tick / timerHertz) * 1e9 + Math.ceil(((tick % timerHertz) * 1e9) / timerHertz)
  }
}

const byteOf = (value: number, at: number): number => (value >>> (at * 8)) & 0xff
const withByte = (value: number, at: number, byte: number): number => ((value & ~(0xff << (at * 8))) | (byte << (at * 8))) >>> 0
