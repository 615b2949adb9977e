/**
 * The only things a device may see of the machine: typed ports, bound to it when the platform is wired.
 * A device never holds the machine, the CPU or another device.
 */

/** Virtual nanoseconds since power-on: an integer, below 2^53 (104 days). */
export type Nanoseconds = number

/** Width of one port or MMIO access in bytes. Wider accesses are split by the bus, low part first. */
export type AccessSize = 1 | 2 | 4

/** A range of I/O ports. Values are unsigned and `size` bytes wide. `port` is absolute. */
export interface PortHandler {
  readPort(port: number, size: AccessSize): number
  writePort(port: number, size: AccessSize, value: number): void
}

/** A range of memory-mapped registers. `offset` counts from the start of the range. Values are unsigned, `size` bytes wide. */
export interface MmioHandler {
  readMmio(offset: number, size: AccessSize): number
  writeMmio(offset: number, size: AccessSize, value: number): void
}

/** One level-sensitive wire towards an interrupt controller; edge-triggered inputs look at its rising edge. */
export interface InterruptPin {
  set(asserted: boolean): void
}

/** A message-signalled interrupt: one DWORD write to `address` (64-bit, as a Number below 2^53). */
export interface MsiPort {
  signal(address: number, data: number): void
}

/** What a bus-master access came to. */
export type DmaResult = 'ok' | 'unmapped' | 'blocked'

/** Bus-master access to physical memory, bound to its requester. Addresses are bytes, Numbers below 2^52. */
export interface DmaPort {
  read(address: number, into: Uint8Array): DmaResult
  write(address: number, from: Uint8Array): DmaResult
}

/** One timer of the machine's only clock. Arming again replaces the old deadline. */
export interface Alarm {
  /** Fires `callback` once, when the clock reaches `at`; a deadline in the past fires at the next chance. */
  set(at: Nanoseconds): void
  cancel(): void
  /** The deadline, or undefined when not armed. */
  readonly at: Nanoseconds | undefined
}

/** The machine-wide monotonic clock. It is counted from retired instructions and never read from the embedder. */
export interface Clock {
  now(): Nanoseconds
  /** `name` identifies the alarm in snapshots and traces: unique in one machine, such as 'pit.0'. */
  alarm(name: string, callback: () => void): Alarm
}

/** Plain data (JSON-able: numbers, strings, booleans, arrays, objects; bytes as number[]), apart from constructor arguments. */
export type DeviceState = unknown

/**
 * Everything that keeps state can hand it out and take it back. Alarms are part of it, as deadlines. What it hands out after `reset` says
 * of what kind each field is, and how long each list, unless that is empty, or null: no other kind is taken back.
 */
export interface Stateful {
  reset(): void
  saveState(): DeviceState
  restoreState(state: DeviceState): void
}

/** Software touched what is not there: logged with device and offset; reads give all ones. */
export type LogUnhandled = (device: string, what: string) => void
