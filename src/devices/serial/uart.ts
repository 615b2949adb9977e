/** A 16550A serial port (National Semiconductor PC16550D datasheet), with the far end of its cable: an embedder that never loses a byte. */
import type { AccessSize, Alarm, Clock, DeviceState, InterruptPin, Nanoseconds, PortHandler, Stateful } from '../ports.ts'

export interface UartOptions {
  /** Unique in the machine: names the alarms. */
  name: string
  clock: Clock
  interrupt: InterruptPin
  /** Called for each byte as software hands it over, so that nothing is lost when the machine stops while the shift register is busy. */
  output: (byte: number) => void
  /** OUT2 gates the interrupt, as on a PC (default). Else software listens without modem controls, as on QEMU's machines. */
  isGated?: boolean
}

const fifoSize = 16
const ier = { receive: 1, transmitEmpty: 2, lineStatus: 4, modemStatus: 8 } as const
const lcr = { stopBits: 4, parity: 8, divisorLatch: 0x80 } as const
const mcr = { rts: 2, out2: 8, loop: 0x10 } as const
const lsr = { dataReady: 1, overrun: 2, errors: 0x1e, holdingEmpty: 0x20, transmitterEmpty: 0x40 } as const
/** Interrupt identification, highest priority first. */
const iir = { lineStatus: 6, receive: 4, timeout: 0xc, transmitEmpty: 2, modemStatus: 0, none: 1, fifos: 0xc0 } as const
/** CTS, DSR and DCD: somebody is always at the other end. */
const connectedModem = 0xb0
const triggerLevels = [1, 4, 8, 14]

/**
 * Time that a sent character takes, whatever the divisor says. Less than the port write that hands over the next one: a kernel console
 * that polls
 * does not spend a hundred port reads a character (Linux takes 9,600 baud when nobody says otherwise), and a driver finds the FIFO
 * empty again before it leaves its interrupt handler, so that what a program wrote is out before a power-off that follows.
 */
const sentCharacterTime: Nanoseconds = 300
/** What arrives does so this many times faster than the divisor says: a reader must have the time to keep up. */
const lineSpeedup = 16
const clockHertz = 1843200

/** A line status read this often in a row, with nothing else touched, is software that polls for input. */
const pollsForInput = 8

interface UartState {
  ier: number
  lcr: number
  mcr: number
  scratch: number
  divisor: number
  fifoEnabled: boolean
  trigger: number
  overrun: boolean
  /** Low nibble: what changed since the last read; the high nibble is computed. */
  modemDelta: number
  received: number[]
  toSend: number[]
  /** The byte in the transmitter's shift register, or -1. */
  shifting: number
  transmitEmptyPending: boolean
  timeoutPending: boolean
  idlePolls: number
  /** Bytes typed that have not entered the receiver yet. */
  queue: number[]
}

const initialState = (): UartState => ({
  ier: 0,
  lcr: 0,
  mcr: 0,
  scratch: 0,
  divisor: 12,
  fifoEnabled: false,
  trigger: 1,
  overrun: false,
  modemDelta: 0,
  received: [],
  toSend: [],
  shifting: -1,
  transmitEmptyPending: false,
  timeoutPending: false,
  idlePolls: 0,
  queue: [],
})

export class Uart implements PortHandler, Stateful {
  readonly #options: UartOptions
  readonly #transmitted: Alarm
  readonly #arrival: Alarm
  readonly #timeout: Alarm
  #state = initialState()
  /** Bytes of `queue` that are already delivered: they are cut off in bulk. */
  #delivered = 0

  constructor(options: UartOptions) {
    this.#options = options
    this.#transmitted = options.clock.alarm(`${options.name}.transmit`, () => this.#characterSent())
    this.#arrival = options.clock.alarm(`${options.name}.receive`, () => this.#characterArrives())
    this.#timeout = options.clock.alarm(`${options.name}.timeout`, () => this.#receiveTimeout())
  }

  /** Bytes typed at the other end. They wait there until software listens: it enabled receive interrupts and raised RTS, or it polls. */
  input(bytes: Uint8Array): void {
    for (const byte of bytes) this.#state.queue.push(byte)
    this.#scheduleArrival()
  }

  /** Typed bytes that software has not been given yet. */
  get waiting(): number {
    return this.#state.queue.length - this.#delivered
  }

  readPort(port: number, size: AccessSize): number {
    return joinBytes(size, index => this.#read((port + index) & 7))
  }

  writePort(port: number, size: AccessSize, value: number): void {
    for (let index = 0; index < size; index++) this.#write((port + index) & 7, (value >>> (index * 8)) & 0xff)
  }

  reset(): void {
    const { queue } = this.#state
    this.#state = { ...initialState(), queue: queue.slice(this.#delivered) }
    this.#delivered = 0
    for (const alarm of [this.#transmitted, this.#arrival, this.#timeout]) alarm.cancel()
    this.#update()
  }

  saveState(): DeviceState {
    const registers = structuredClone({ ...this.#state, queue: this.#state.queue.slice(this.#delivered) })
    return { registers, alarms: [this.#transmitted.at ?? -1, this.#arrival.at ?? -1, this.#timeout.at ?? -1] }
  }

  restoreState(state: DeviceState): void {
    const { registers, alarms } = structuredClone(state) as { registers: UartState; alarms: number[] }
    this.#state = registers
    this.#delivered = 0
    ;[this.#transmitted, this.#arrival, this.#timeout].forEach((alarm, index) => {
      if (alarms[index] < 0) alarm.cancel()
      else alarm.set(alarms[index])
    })
    this.#update()
  }

  #read(register: number): number {
    if (register !== 5) this.#state.idlePolls = 0
    if (this.#state.lcr & lcr.divisorLatch && register < 2) return (this.#state.divisor >> (register * 8)) & 0xff
    switch (register) {
      case 0:
        return this.#readReceiver()
      case 1:
        return this.#state.ier
      case 2:
        return this.#readIdentification()
      case 3:
        return this.#state.lcr
      case 4:
        return this.#state.mcr
      case 5:
        return this.#readLineStatus()
      case 6:
        return this.#readModemStatus()
      default:
        return this.#state.scratch
    }
  }

  #write(register: number, value: number): void {
    const state = this.#state
    state.idlePolls = 0
    if (state.lcr & lcr.divisorLatch && register < 2) {
      state.divisor = register === 0 ? (state.divisor & 0xff00) | value : (state.divisor & 0xff) | (value << 8)
      return
    }
    switch (register) {
      case 0:
        this.#transmit(value)
        break
      case 1:
        this.#writeInterruptEnable(value & 0xf)
        break
      case 2:
        this.#writeFifoControl(value)
        break
      case 3:
        state.lcr = value
        break
      case 4:
        this.#writeModemControl(value & 0x1f)
        break
      case 7:
        state.scratch = value
        break
      default:
        break // LSR and MSR: "intended for read operations only"
    }
    this.#update()
    this.#scheduleArrival()
  }

  #readReceiver(): number {
    const state = this.#state
    const byte = state.received.shift() ?? 0
    state.timeoutPending = false
    this.#timeout.cancel()
    if (state.received.length > 0) this.#armTimeout()
    this.#update()
    this.#scheduleArrival()
    return byte
  }

  #readIdentification(): number {
    const cause = this.#cause()
    if (cause === iir.transmitEmpty) {
      this.#state.transmitEmptyPending = false
      this.#update()
    }
    return cause | (this.#state.fifoEnabled ? iir.fifos : 0)
  }

  #readLineStatus(): number {
    const state = this.#state
    const value = this.#lineStatus()
    if (state.overrun) {
      state.overrun = false
      this.#update()
    }
    if ((value & ~lsr.errors) === (lsr.holdingEmpty | lsr.transmitterEmpty)) {
      state.idlePolls = Math.min(state.idlePolls + 1, pollsForInput)
      this.#scheduleArrival()
    }
    return value
  }

  #readModemStatus(): number {
    const value = this.#modemLines() | this.#state.modemDelta
    this.#state.modemDelta = 0
    this.#update()
    return value
  }

  #lineStatus(): number {
    const state = this.#state
    const transmitter = state.toSend.length > 0 ? 0 : state.shifting >= 0 ? lsr.holdingEmpty : lsr.holdingEmpty | lsr.transmitterEmpty
    return transmitter | (state.received.length > 0 ? lsr.dataReady : 0) | (state.overrun ? lsr.overrun : 0)
  }

  /** In loopback the modem outputs DTR, RTS, OUT1, OUT2 become the inputs DSR, CTS, RI, DCD. */
  #modemLines(): number {
    const control = this.#state.mcr
    if (!(control & mcr.loop)) return connectedModem
    return ((control & 1) << 5) | ((control & 2) << 3) | ((control & 4) << 4) | ((control & 8) << 4)
  }

  #writeInterruptEnable(value: number): void {
    const newlyEnabled = value & ~this.#state.ier
    this.#state.ier = value
    if (newlyEnabled & ier.transmitEmpty && this.#state.toSend.length === 0) this.#state.transmitEmptyPending = true
  }

  #writeFifoControl(value: number): void {
    const state = this.#state
    const enabled = (value & 1) !== 0
    if (enabled !== state.fifoEnabled || value & 2) this.#clearReceiver()
    if ((enabled !== state.fifoEnabled || value & 4) && state.toSend.length > 0) {
      state.toSend = []
      state.transmitEmptyPending = true
    }
    state.fifoEnabled = enabled
    if (enabled) state.trigger = triggerLevels[value >> 6]
  }

  #clearReceiver(): void {
    this.#state.received = []
    this.#state.timeoutPending = false
    this.#timeout.cancel()
  }

  #writeModemControl(value: number): void {
    const before = this.#modemLines()
    this.#state.mcr = value
    const after = this.#modemLines()
    const changed = (before ^ after) >> 4
    const trailingRing = before & 0x40 && !(after & 0x40) ? 4 : 0
    this.#state.modemDelta |= (changed & 0xb) | trailingRing
  }

  #transmit(byte: number): void {
    const state = this.#state
    state.transmitEmptyPending = false
    if (state.toSend.length >= (state.fifoEnabled ? fifoSize : 1)) state.toSend.pop()
    else if (!(state.mcr & mcr.loop)) this.#options.output(byte)
    state.toSend.push(byte)
    if (state.shifting < 0) this.#shiftNext()
  }

  #shiftNext(): void {
    const state = this.#state
    state.shifting = state.toSend.shift() ?? -1
    if (state.shifting < 0) return
    this.#transmitted.set(this.#options.clock.now() + sentCharacterTime)
    if (state.toSend.length === 0) state.transmitEmptyPending = true
  }

  #characterSent(): void {
    const byte = this.#state.shifting
    if (this.#state.mcr & mcr.loop) this.#receive(byte)
    this.#shiftNext()
    this.#update()
  }

  get #isGated(): boolean {
    return this.#options.isGated ?? true
  }

  #characterTime(): Nanoseconds {
    const { lcr: line, divisor } = this.#state
    const bits = 1 + 5 + (line & 3) + (line & lcr.parity ? 1 : 0) + (line & lcr.stopBits ? 2 : 1)
    return Math.max(1, Math.round((bits * 16 * (divisor || 1) * 1e9) / clockHertz / lineSpeedup))
  }

  /** The receiver's room is the flow control of the far end: it never overruns (loopback can). */
  #canArrive(): boolean {
    const state = this.#state
    if (state.mcr & mcr.loop || this.waiting === 0) return false
    if (state.received.length >= (state.fifoEnabled ? fifoSize : 1)) return false
    const interruptDriven = (state.ier & ier.receive) !== 0 && (!this.#isGated || (state.mcr & mcr.rts) !== 0)
    return interruptDriven || state.idlePolls >= pollsForInput
  }

  #scheduleArrival(): void {
    if (this.#arrival.at === undefined && this.#canArrive()) this.#arrival.set(this.#options.clock.now() + this.#characterTime())
  }

  #characterArrives(): void {
    if (!this.#canArrive()) return
    const state = this.#state
    this.#receive(state.queue[this.#delivered++])
    if (this.#delivered >= 4096 || this.waiting === 0) {
      state.queue.splice(0, this.#delivered)
      this.#delivered = 0
    }
    this.#update()
    this.#scheduleArrival()
  }

  #receive(byte: number): void {
    const state = this.#state
    if (state.received.length >= (state.fifoEnabled ? fifoSize : 1)) {
      state.overrun = true
      if (!state.fifoEnabled) state.received = [byte] // without FIFOs the new character overwrites the old one
    } else {
      state.received.push(byte)
    }
    this.#armTimeout()
  }

  /** FIFO mode: four character times without a read or an arrival, with data below the trigger level. */
  #armTimeout(): void {
    if (this.#state.fifoEnabled) this.#timeout.set(this.#options.clock.now() + 4 * this.#characterTime())
  }

  #receiveTimeout(): void {
    this.#state.timeoutPending = this.#state.received.length > 0
    this.#update()
  }

  #cause(): number {
    const state = this.#state
    if (state.ier & ier.lineStatus && state.overrun) return iir.lineStatus
    if (state.ier & ier.receive && state.received.length >= (state.fifoEnabled ? state.trigger : 1)) return iir.receive
    if (state.ier & ier.receive && state.timeoutPending) return iir.timeout
    if (state.ier & ier.transmitEmpty && state.transmitEmptyPending) return iir.transmitEmpty
    if (state.ier & ier.modemStatus && state.modemDelta) return iir.modemStatus
    return iir.none
  }

  /** On a PC, OUT2 gates the interrupt; loopback turns the OUT2 pin off. */
  #update(): void {
    const gate = !this.#isGated || (this.#state.mcr & (mcr.out2 | mcr.loop)) === mcr.out2
    this.#options.interrupt.set(gate && this.#cause() !== iir.none)
  }
}

function joinBytes(size: number, read: (index: number) => number): number {
  let value = 0
  for (let index = 0; index < size; index++) value += read(index) * 2 ** (index * 8)
  return value
}
