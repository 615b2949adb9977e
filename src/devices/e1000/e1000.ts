/**
 * Intel's 82540EM network card: its registers, and what happens when they are written (Intel, "PCI/PCI-X Family of Gigabit Ethernet
 * Controllers Software Developer's Manual").
 */
import type { NetworkPort, Plug } from '../network/port.ts'
import { ConfigSpace } from '../pci/config-space.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import type { AccessSize, Alarm, Clock, DeviceState, LogUnhandled, MmioHandler, Nanoseconds } from '../ports.ts'
import { Eeprom } from './eeprom.ts'
import { Interrupts } from './interrupts.ts'
import { Phy } from './phy.ts'
import { Receiver } from './receive.ts'
import {
  addressValid, cause, ctrl, rctl, reg, registerSpace, statistics as statisticsSpace, statusBit, storedRegisters,
} from './registers.ts'
import { Statistics } from './statistics.ts'
import { type Progress, Transmitter } from './transmit.ts'

const memorySize = 0x20000
const ioSize = 64
/** The window in I/O space: an address, and the register there. */
const io = { address: 0, data: 4 } as const
/** How long a frame is on its way, and how long both ends of the cable take to agree. */
const latency: Nanoseconds = 20_000
const negotiation: Nanoseconds = 2_000_000
/** Frames that wait for buffers; more are lost. */
const mostWaiting = 1024
/** Frames of one go; the rest follow after the time that they take. */
const mostFrames = 256
const timePerFrame: Nanoseconds = 500
/** Management registers are words behind MDIC. */
const mdic = { write: 1, read: 2, ready: 1 << 28, interrupt: 1 << 29, error: 1 << 30, phy: 1 } as const
const eerdDone = 0x10

export interface E1000Options {
  slot: PciSlot
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  mac: Uint8Array
  plug: Plug
  log: LogUnhandled
}

interface Arriving {
  at: Nanoseconds
  frame: Uint8Array
}

interface Saved {
  registers: [offset: number, value: number][]
  ioAddress: number
  isPluggedIn: boolean
  negotiatedAt: Nanoseconds
  resumesAt: Nanoseconds
  arriving: { at: Nanoseconds; frame: number[] }[]
  eeprom: unknown
  phy: unknown
  interrupts: unknown
  transmitter: unknown
  statistics: number[]
}

const never = -1
/** What may be written, by word: -1 for what is not there. */
const writable = new Float64Array(registerSpace / 4).fill(-1)
for (const { at, count = 1, writable: mask = 0xffffffff } of storedRegisters) writable.fill(mask, at / 4, at / 4 + count)

export class E1000 implements PciFunction {
  readonly name = 'e1000'
  readonly config = new ConfigSpace({
    vendor: 0x8086, device: 0x100e, classCode: 0x020000, revision: 3, interruptPin: 1, subsystemVendor: 0x1af4, subsystem: 0x1100,
  })
  readonly bars: readonly Bar[]
  readonly #registers = new Uint32Array(registerSpace / 4)
  readonly #clock: Clock
  readonly #log: LogUnhandled
  readonly #mac: Uint8Array
  readonly #network: NetworkPort
  readonly #eeprom: Eeprom
  readonly #phy: Phy
  readonly #interrupts: Interrupts
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #statistics = new Statistics()
  readonly #cableAlarm: Alarm
  readonly #linkAlarm: Alarm
  readonly #transmitAlarm: Alarm
  #ioAddress = 0
  #isPluggedIn = true
  #negotiatedAt: Nanoseconds = never
  #resumesAt: Nanoseconds = never
  /** In the order of their arrival. */
  #arriving: Arriving[] = []

  constructor({ slot, clock, alarmName, mac, plug, log }: E1000Options) {
    this.#clock = clock
    this.#log = log
    this.#mac = mac
    this.#eeprom = new Eeprom(mac)
    this.#phy = new Phy(() => this.#negotiate())
    this.#cableAlarm = clock.alarm(`${alarmName} cable`, () => this.#receive())
    this.#linkAlarm = clock.alarm(`${alarmName} link`, () => this.#negotiated())
    this.#transmitAlarm = clock.alarm(`${alarmName} transmit`, () => this.#transmit())
    const read = (register: number): number => this.#registers[register >> 2]
    this.#interrupts = new Interrupts({
      clock, alarmName: `${alarmName} interrupt`, pin: slot.interrupt,
      timing: () => ({
        throttle: read(reg.itr), receive: [read(reg.rdtr), read(reg.radv)], transmit: [read(reg.tidv), read(reg.tadv)],
      }),
    })
    this.#network = plug(frame => this.#arrive(frame))
    const { wantsChecksums } = this.#network
    const { dma } = slot
    this.#transmitter = new Transmitter({
      dma, read, wantsChecksums,
      setHead: head => { this.#registers[reg.tdh >> 2] = head },
      send: frame => this.#send(frame),
      segmented: () => this.#statistics.count('segmentationContexts'),
      complain: why => log(this.name, why),
    })
    this.#receiver = new Receiver({
      dma, read, mustCheck: wantsChecksums, statistics: this.#statistics,
      setHead: head => { this.#registers[reg.rdh >> 2] = head },
      raise: causes => this.#interrupts.raise(causes),
    })
    this.bars = [
      { index: 0, kind: 'memory32', size: memorySize, handler: this.#memory() },
      { index: 1, kind: 'io', size: ioSize, handler: this.#window() },
    ]
    this.reset()
  }

  /** Pulls the cable out, or puts it in. */
  set link(isPluggedIn: boolean) {
    if (isPluggedIn === this.#isPluggedIn) return
    this.#isPluggedIn = isPluggedIn
    if (isPluggedIn) this.#phy.restart()
    else {
      this.#phy.linkUp = false
      this.#negotiatedAt = never
      this.#setAlarms()
      this.#interrupts.raise(cause.linkChange)
    }
  }

  // ---- PciFunction

  reset(): void {
    this.#eeprom.reset()
    this.#phy.reset()
    this.#phy.linkUp = this.#isPluggedIn
    this.#negotiatedAt = never
    this.#ioAddress = 0
    this.#statistics.reset()
    this.#arriving = []
    this.#network.reset()
    this.#resetMac()
  }

  saveState(): DeviceState {
    const registers: Saved['registers'] = []
    this.#registers.forEach((value, index) => { if (value !== 0) registers.push([index * 4, value]) })
    return {
      registers, ioAddress: this.#ioAddress, isPluggedIn: this.#isPluggedIn, negotiatedAt: this.#negotiatedAt, resumesAt: this.#resumesAt,
      arriving: this.#arriving.map(({ at, frame }) => ({ at, frame: [...frame] })), eeprom: this.#eeprom.saveState(),
      phy: this.#phy.saveState(), interrupts: this.#interrupts.saveState(), transmitter: this.#transmitter.saveState(),
      statistics: this.#statistics.saveState(),
    } satisfies Saved
  }

  restoreState(state: DeviceState): void {
    const saved = state as Saved
    this.#registers.fill(0)
    for (const [offset, value] of saved.registers) this.#registers[offset >> 2] = value
    this.#ioAddress = saved.ioAddress
    this.#isPluggedIn = saved.isPluggedIn
    this.#negotiatedAt = saved.negotiatedAt
    this.#resumesAt = saved.resumesAt
    this.#arriving = saved.arriving.map(({ at, frame }) => ({ at, frame: Uint8Array.from(frame) }))
    this.#eeprom.restoreState(saved.eeprom)
    this.#phy.restoreState(saved.phy)
    this.#interrupts.restoreState(saved.interrupts)
    this.#transmitter.restoreState(saved.transmitter)
    this.#statistics.restoreState(saved.statistics)
    this.#setAlarms()
  }

  /** CTRL.RST: everything but the transceiver and what EEPROM and statistics hold. */
  #resetMac(): void {
    this.#registers.fill(0)
    for (const { at, initial = 0 } of storedRegisters) this.#registers[at >> 2] = initial
    const [a, b, c, d, e, f] = this.#mac
    this.#registers[reg.ra >> 2] = a | (b << 8) | (c << 16) | (d << 24)
    this.#registers[(reg.ra + 4) >> 2] = e | (f << 8) | addressValid
    this.#transmitter.reset()
    this.#interrupts.reset()
    this.#resumesAt = never
    this.#setAlarms()
  }

  // ---- registers

  #memory(): MmioHandler {
    return {
      readMmio: (offset, size) => {
        const word = this.#read(offset & ~3) >>> ((offset & 3) * 8)
        return size === 4 ? word >>> 0 : word & (2 ** (size * 8) - 1)
      },
      writeMmio: (offset, size, value) => {
        if (size === 4 && !(offset & 3)) this.#write(offset, value)
        else this.#log(this.name, `write of ${size} bytes at 0x${offset.toString(16)}: expected a word`)
      },
    }
  }

  #window(): MmioHandler {
    return {
      readMmio: (offset, size) => {
        if (offset === io.address && size === 4) return this.#ioAddress
        return offset === io.data && size === 4 ? this.#read(this.#ioAddress) : 2 ** (size * 8) - 1
      },
      writeMmio: (offset: number, size: AccessSize, value: number) => {
        if (size !== 4) return
        if (offset === io.address) this.#ioAddress = (value & (memorySize - 4)) >>> 0
        else if (offset === io.data) this.#write(this.#ioAddress, value)
      },
    }
  }

  #read(offset: number): number {
    switch (offset) {
      case reg.status: return statusBit.fullDuplex | statusBit.speed1000 | (this.#phy.isUp ? statusBit.linkUp : 0)
      case reg.eecd: return this.#eeprom.control
      case reg.icr: return this.#interrupts.takeCauses()
      case reg.ims: return this.#interrupts.mask
      case reg.mdic: return this.#registers[offset >> 2]
    }
    if (offset >= statisticsSpace.first && offset <= statisticsSpace.last) return this.#statistics.read(offset)
    if (offset < registerSpace && writable[offset >> 2] >= 0) return this.#registers[offset >> 2]
    this.#log(this.name, `read at 0x${offset.toString(16)}, where no register is`)
    return 0xffffffff
  }

  #write(offset: number, value: number): void {
    switch (offset) {
      case reg.ctrl: return this.#control(value)
      case reg.eecd: this.#eeprom.control = value; return
      case reg.eerd: return this.#readEeprom(value)
      case reg.mdic: return this.#manage(value)
      case reg.icr: return this.#interrupts.clear(value)
      case reg.ics: return this.#interrupts.raise(value)
      case reg.ims: return this.#interrupts.enable(value)
      case reg.imc: return this.#interrupts.disable(value)
    }
    if (offset >= statisticsSpace.first && offset <= statisticsSpace.last) return
    const mask = offset < registerSpace ? writable[offset >> 2] : -1
    if (mask < 0) return this.#log(this.name, `write at 0x${offset.toString(16)}, where no register is`)
    this.#registers[offset >> 2] = value & mask
    switch (offset) {
      case reg.tctl: case reg.tdt: return this.#transmit()
      case reg.rctl: case reg.rdt: return this.#receive()
      case reg.rdtr: if (value & 0x80000000) this.#interrupts.flushReceive()
    }
  }

  #control(value: number): void {
    const before = this.#registers[reg.ctrl >> 2]
    if (value & ctrl.phyReset && !(before & ctrl.phyReset)) this.#phy.restart()
    if (value & ctrl.reset) return this.#resetMac()
    this.#registers[reg.ctrl >> 2] = value
  }

  /** EERD: the card reads a word by itself. */
  #readEeprom(value: number): void {
    const address = value & 0xff00
    this.#registers[reg.eerd >> 2] = value & 1 ? address | eerdDone | (this.#eeprom.word(address >> 8) << 16) : address
  }

  #manage(value: number): void {
    const [register, phy, operation] = [(value >> 16) & 0x1f, (value >> 21) & 0x1f, (value >> 26) & 3]
    const isRight = phy === mdic.phy && (operation === mdic.read || operation === mdic.write)
    let data = value & 0xffff
    if (isRight && operation === mdic.read) data = this.#phy.read(register)
    else if (isRight) this.#phy.write(register, data)
    const kept = value & ~(0xffff | mdic.error)
    this.#registers[reg.mdic >> 2] = kept | data | mdic.ready | (isRight ? 0 : mdic.error)
    if (value & mdic.interrupt) this.#interrupts.raise(cause.mdioDone)
  }

  // ---- the link

  #negotiate(): void {
    this.#interrupts.raise(cause.linkChange)
    this.#negotiatedAt = this.#isPluggedIn ? this.#clock.now() + negotiation : never
    this.#setAlarms()
  }

  #negotiated(): void {
    this.#negotiatedAt = never
    this.#phy.linkUp = this.#isPluggedIn
    this.#interrupts.raise(cause.linkChange)
  }

  #setAlarms(): void {
    for (const [alarm, at] of [[this.#linkAlarm, this.#negotiatedAt], [this.#transmitAlarm, this.#resumesAt]] as const) {
      if (at === never) alarm.cancel()
      else if (alarm.at !== at) alarm.set(at)
    }
    this.#setCableAlarm()
  }

  // ---- to the network

  #transmit(): void {
    this.#resumesAt = never
    const progress = this.#transmitter.run(mostFrames)
    this.#network.flush()
    this.#tell(progress)
    const isLeft = progress.frames >= mostFrames && this.#registers[reg.tdh >> 2] !== this.#registers[reg.tdt >> 2]
    if (isLeft) this.#resumesAt = this.#clock.now() + progress.frames * timePerFrame
    this.#setAlarms()
  }

  #tell({ written, mayWait, frames }: Progress): void {
    const isEmpty = this.#registers[reg.tdh >> 2] === this.#registers[reg.tdt >> 2]
    if (isEmpty && (written || frames > 0)) this.#interrupts.raise(cause.transmitQueueEmpty)
    if (!written) return
    if (mayWait) this.#interrupts.raiseLater('transmit')
    else this.#interrupts.raise(cause.transmitWritten)
  }

  #send(frame: Uint8Array): void {
    if (this.#phy.loopback || this.#registers[reg.rctl >> 2] & rctl.loopback) return this.#arrive(frame)
    if (!this.#phy.isUp) return
    this.#statistics.sent(frame.length + 4, !(frame[0] & 1) ? 'unicast' : frame[0] === 0xff ? 'broadcast' : 'multicast')
    this.#network.transmit(frame)
  }

  // ---- from the network

  #arrive(frame: Uint8Array): void {
    const isReachable = this.#phy.isUp || this.#phy.loopback
    if (!isReachable || !this.#receiver.isEnabled || frame.length < 14) return
    if (this.#arriving.length >= mostWaiting) {
      this.#statistics.count('missed')
      return this.#interrupts.raise(cause.receiveOverrun)
    }
    this.#arriving.push({ at: this.#clock.now() + latency, frame })
    this.#setCableAlarm()
  }

  /** What has arrived, as far as there are descriptors; when software gives more, it goes on. */
  #receive(): void {
    const now = this.#clock.now()
    let [taken, isStored] = [0, false]
    for (; this.#receiver.isEnabled && taken < this.#arriving.length && this.#arriving[taken].at <= now; taken++) {
      const result = this.#receiver.take(this.#arriving[taken].frame)
      if (result === 'full') break
      isStored ||= result === 'stored'
    }
    this.#arriving.splice(0, taken)
    if (isStored) this.#interrupts.raiseLater('receive')
    this.#setCableAlarm()
  }

  /** Frames that are there already wait for descriptors, not for time. */
  #setCableAlarm(): void {
    const now = this.#clock.now()
    const next = this.#arriving.find(({ at }) => at > now)
    if (!next) this.#cableAlarm.cancel()
    else if (this.#cableAlarm.at !== next.at) this.#cableAlarm.set(next.at)
  }
}
