/** What a PCI function offers the bus, and what the bus offers a function. */
import type { DeviceState, DmaPort, InterruptPin, MmioHandler, MsiPort } from '../ports.ts'
import type { ConfigSpace } from './config-space.ts'

/** Bus number, device and function as a requester ID: bus << 8 | device << 3 | function. */
export type Bdf = number & { readonly __bdf: unique symbol }

export const bdf = (bus: number, device: number, fn: number): Bdf => ((bus << 8) | (device << 3) | fn) as Bdf
export const deviceOf = (id: Bdf): number => (id >> 3) & 0x1f
export const functionOf = (id: Bdf): number => id & 7
export const bdfText = (id: Bdf): string =>
  `${(id >> 8).toString(16).padStart(2, '0')}:${deviceOf(id).toString(16).padStart(2, '0')}.${functionOf(id)}`

/** A base address register. Sizes are powers of two: at least 16 for memory, 4 for I/O. */
export interface Bar {
  index: number
  kind: 'io' | 'memory32' | 'memory64'
  size: number
  prefetchable?: boolean
  /** Offsets count from the start of the BAR, for I/O too. */
  handler: MmioHandler
}

export interface PciFunction {
  readonly name: string
  readonly config: ConfigSpace
  readonly bars: readonly Bar[]
  /** State besides the configuration space, which the bus resets, saves and restores before these. */
  reset(): void
  saveState(): DeviceState
  restoreState(state: DeviceState): void
}

/** The ports of one function, bound to its requester ID. Bus mastering is refused while Command.BME is 0. */
export interface PciSlot {
  readonly id: Bdf
  readonly dma: DmaPort
  readonly msi: MsiPort
  /** The function's INTx pin. */
  readonly interrupt: InterruptPin
}
