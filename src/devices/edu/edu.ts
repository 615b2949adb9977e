/**
 * The teaching device `edu` of QEMU: a factorial that takes time, DMA to and from a buffer of its own, interrupts by pin or MSI (QEMU's
 * specifications, "EDU device").
 */
import { ConfigSpace } from '../pci/config-space.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import { MsiCapability } from '../pci/msi.ts'
import type { AccessSize, Alarm, Clock, DeviceState, LogUnhandled, Nanoseconds } from '../ports.ts'

/** "MMIO area spec". */
export const eduRegister = {
  identification: 0x00, liveness: 0x04, factorial: 0x08, status: 0x20, interruptStatus: 0x24, interruptRaise: 0x60,
  interruptAcknowledge: 0x64, dmaSource: 0x80, dmaDestination: 0x88, dmaCount: 0x90, dmaCommand: 0x98,
} as const
const eduStatus = { computing: 0x01, interruptWhenDone: 0x80 } as const
const eduDma = { start: 1, toMemory: 2, interruptWhenDone: 4 } as const
/** Bits of the interrupt status that the device sets by itself. */
const eduInterrupt = { factorial: 0x001, dma: 0x100 } as const
/** "DMA controller": where the buffer lies for the engine. */
const eduBuffer = { base: 0x40000, size: 4096 } as const

const identification = 0x010000ed
const barSize = 1 << 20
/** Below it registers are read and written as 4 bytes, from it on as 4 or 8. */
const wideRegisters = 0x80
/** Ours to choose: software polls or waits for the interrupt. */
const factorialTime = { setUp: 1_000, perFactor: 1 } as const
const dmaTime = { setUp: 10_000, perByte: 1 } as const
const largestFactor = 33

export interface EduOptions {
  slot: PciSlot
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  /** Address bits that the DMA engine has: what lies above is cut off, which drivers are to learn. */
  dmaMask: bigint
  log: LogUnhandled
}

interface Saved {
  liveness: number
  factorial: number
  factorialDone: Nanoseconds
  status: number
  interrupts: number
  dma: number[]
  dmaDone: Nanoseconds
  buffer: number[]
}

/** Never: no work is under way. */
const idle = -1

export class Edu implements PciFunction {
  readonly name = 'edu'
  readonly config = new ConfigSpace({
    vendor: 0x1234, device: 0x11e8, classCode: 0x00ff00, revision: 0x10, interruptPin: 1, subsystemVendor: 0x1af4, subsystem: 0x1100,
  })
  readonly bars: readonly Bar[]
  readonly #slot: PciSlot
  readonly #clock: Clock
  readonly #factorialAlarm: Alarm
  readonly #dmaAlarm: Alarm
  readonly #msi: MsiCapability
  readonly #dmaMask: bigint
  readonly #log: LogUnhandled
  readonly #buffer = new Uint8Array(eduBuffer.size)
  /** Source, destination, count and command: 64 bits each, as pairs of words, low one first. */
  readonly #dma = new Uint32Array(8)
  #liveness = 0
  #factorial = 0
  #factorialDone: Nanoseconds = idle
  #status = 0
  #interrupts = 0
  #dmaDone: Nanoseconds = idle

  constructor({ slot, clock, alarmName, dmaMask, log }: EduOptions) {
    this.#slot = slot
    this.#clock = clock
    this.#factorialAlarm = clock.alarm(`${alarmName} factorial`, () => this.#factorialEnds())
    this.#dmaAlarm = clock.alarm(`${alarmName} dma`, () => this.#dmaEnds())
    this.#msi = new MsiCapability(this.config, slot.msi)
    this.#dmaMask = dmaMask
    this.#log = log
    const handler = {
      readMmio: (offset: number, size: AccessSize) => this.#read(offset, size),
      writeMmio: (offset: number, size: AccessSize, value: number) => this.#write(offset, size, value),
    }
    this.bars = [{ index: 0, kind: 'memory32', size: barSize, handler }]
  }

  reset(): void {
    this.#liveness = this.#factorial = this.#status = this.#interrupts = 0
    this.#factorialDone = this.#dmaDone = idle
    this.#dma.fill(0)
    this.#buffer.fill(0)
    this.#setAlarms()
    this.#slot.interrupt.set(false)
  }

  saveState(): DeviceState {
    return {
      liveness: this.#liveness, factorial: this.#factorial, factorialDone: this.#factorialDone, status: this.#status,
      interrupts: this.#interrupts, dma: [...this.#dma], dmaDone: this.#dmaDone, buffer: [...this.#buffer],
    } satisfies Saved
  }

  restoreState(state: DeviceState): void {
    const saved = state as Saved
    this.#liveness = saved.liveness
    this.#factorial = saved.factorial
    this.#factorialDone = saved.factorialDone
    this.#status = saved.status
    this.#interrupts = saved.interrupts
    this.#dma.set(saved.dma)
    this.#dmaDone = saved.dmaDone
    this.#buffer.set(saved.buffer)
    this.#setAlarms()
  }

  #setAlarms(): void {
    for (const [alarm, at] of [[this.#factorialAlarm, this.#factorialDone], [this.#dmaAlarm, this.#dmaDone]] as const) {
      if (at === idle) alarm.cancel()
      else alarm.set(at)
    }
  }

  // ---- registers

  #read(offset: number, size: AccessSize): number {
    if (size !== 4 || offset & 3) return this.#unhandled('read', offset, size)
    switch (offset) {
      case eduRegister.identification: return identification
      case eduRegister.liveness: return this.#liveness
      case eduRegister.factorial: return this.#factorial
      case eduRegister.status: return this.#status
      case eduRegister.interruptStatus: return this.#interrupts
    }
    return isDma(offset) ? this.#dma[(offset - wideRegisters) >> 2] : this.#unhandled('read', offset, size)
  }

  #write(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || offset & 3) return void this.#unhandled('write', offset, size)
    if (isDma(offset)) return this.#writeDma(offset, value)
    switch (offset) {
      case eduRegister.liveness: return void (this.#liveness = ~value >>> 0)
      case eduRegister.factorial: return this.#startFactorial(value)
      case eduRegister.status:
        this.#status = (this.#status & ~eduStatus.interruptWhenDone) | (value & eduStatus.interruptWhenDone)
        return
      case eduRegister.interruptRaise: return this.#raise(value)
      case eduRegister.interruptAcknowledge: return this.#acknowledge(value)
    }
    this.#unhandled('write', offset, size)
  }

  #unhandled(what: string, offset: number, size: AccessSize): number {
    this.#log('edu', `${what} of ${size} bytes at 0x${offset.toString(16)}, where no register takes it`)
    return 2 ** (8 * size) - 1
  }

  // ---- interrupts

  /** A message says it each time; the pin stays asserted until all is acknowledged. */
  #raise(bits: number): void {
    this.#interrupts = (this.#interrupts | bits) >>> 0
    if (this.#interrupts === 0) return
    if (this.#msi.enabled) this.#msi.signal()
    else this.#slot.interrupt.set(true)
  }

  #acknowledge(bits: number): void {
    this.#interrupts = (this.#interrupts & ~bits) >>> 0
    if (this.#interrupts === 0) this.#slot.interrupt.set(false)
  }

  // ---- factorial

  #startFactorial(value: number): void {
    if (this.#status & eduStatus.computing) return
    this.#factorial = value
    this.#status |= eduStatus.computing
    this.#factorialDone = this.#clock.now() + factorialTime.setUp + value * factorialTime.perFactor
    this.#setAlarms()
  }

  #factorialEnds(): void {
    this.#factorial = factorial(this.#factorial)
    this.#factorialDone = idle
    this.#status &= ~eduStatus.computing
    if (this.#status & eduStatus.interruptWhenDone) this.#raise(eduInterrupt.factorial)
  }

  // ---- DMA

  /** While a transfer runs its registers cannot be changed. */
  #writeDma(offset: number, value: number): void {
    if (this.#dmaDone !== idle) return
    this.#dma[(offset - wideRegisters) >> 2] = value
    if (offset !== eduRegister.dmaCommand || !(value & eduDma.start)) return
    this.#dmaDone = this.#clock.now() + dmaTime.setUp + Math.min(this.#register(eduRegister.dmaCount), eduBuffer.size) * dmaTime.perByte
    this.#setAlarms()
  }

  #register(offset: number): number {
    const at = (offset - wideRegisters) >> 2
    return this.#dma[at + 1] * 2 ** 32 + this.#dma[at]
  }

  #dmaEnds(): void {
    const command = this.#dma[(eduRegister.dmaCommand - wideRegisters) >> 2]
    const isToMemory = (command & eduDma.toMemory) !== 0
    const [source, destination] = [this.#register(eduRegister.dmaSource), this.#register(eduRegister.dmaDestination)]
    this.#move(isToMemory, isToMemory ? source : destination, isToMemory ? destination : source)
    this.#dma[(eduRegister.dmaCommand - wideRegisters) >> 2] = command & ~eduDma.start
    this.#dmaDone = idle
    if (command & eduDma.interruptWhenDone) this.#raise(eduInterrupt.dma)
  }

  #move(isToMemory: boolean, inDevice: number, inMemory: number): void {
    const at = inDevice - eduBuffer.base
    const count = this.#register(eduRegister.dmaCount)
    if (at < 0 || at + count > eduBuffer.size) {
      const range = `0x${inDevice.toString(16)} and ${count} bytes`
      return this.#log('edu', `DMA: expected a range of its buffer (0x40000 to 0x40fff), found ${range}: nothing is moved`)
    }
    const masked = Number(BigInt(inMemory) & this.#dmaMask)
    if (masked !== inMemory) this.#log('edu', `DMA address 0x${inMemory.toString(16)} is cut off to 0x${masked.toString(16)}`)
    const bytes = this.#buffer.subarray(at, at + count)
    if (masked + count > nowhere) return this.#log('edu', `DMA at 0x${masked.toString(16)}, where nothing is`)
    const result = isToMemory ? this.#slot.dma.write(masked, bytes) : this.#slot.dma.read(masked, bytes)
    if (result !== 'ok') this.#log('edu', `DMA of ${count} bytes at 0x${masked.toString(16)} was not done: ${result}`)
  }
}

/** Bus addresses are below 2^52. */
const nowhere = 2 ** 52
const isDma = (offset: number): boolean => offset >= wideRegisters && offset < eduRegister.dmaCommand + 8

/** In 32 bits: from 34 on the product is divisible by 2^32. */
function factorial(value: number): number {
  if (value > largestFactor) return 0
  let product = 1
  for (let factor = 2; factor <= value; factor++) product = Math.imul(product, factor)
  return product >>> 0
}
