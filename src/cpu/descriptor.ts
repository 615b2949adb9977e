/**
 * Descriptors in the GDT and LDT: finding, reading and taking apart. Intel SDM vol. 3, "Segment Descriptors", "System Descriptor Types",
 * "Call Gates".
 */
import { attribute } from './bits.ts'
import { selectorFault, vector } from './fault.ts'
import { at } from './layout.ts'
import type { Processor } from './processor.ts'

/** Eight bytes as they are in memory. */
export interface Descriptor {
  readonly address: bigint
  readonly low: number
  readonly high: number
}

/** System descriptor types. */
export const systemType = {
  tss16: 1, ldt: 2, tss16Busy: 3, callGate16: 4, taskGate: 5, interruptGate16: 6, trapGate16: 7, tss32: 9, tss32Busy: 11, callGate32: 12,
  interruptGate32: 14, trapGate32: 15,
} as const

export const isNull = (selector: number): boolean => (selector & 0xfffc) === 0
export const rplOf = (selector: number): number => selector & 3

export const typeOf = (each: Descriptor): number => (each.high >> 8) & 0x1f
export const dplOf = (each: Descriptor): number => (each.high >> 13) & 3
export const isPresent = (each: Descriptor): boolean => (each.high & 0x8000) !== 0
/** S = 1: code or data. */
export const isSegment = (each: Descriptor): boolean => (each.high & 0x1000) !== 0
export const isCode = (each: Descriptor): boolean => (each.high & 0x1800) === 0x1800
const isData = (each: Descriptor): boolean => (each.high & 0x1800) === 0x1000
export const isConforming = (each: Descriptor): boolean => (each.high & 0x1c00) === 0x1c00
/** Data, or code that may be read. */
export const isReadable = (each: Descriptor): boolean => isSegment(each) && (each.high & 0xa00) !== 0x800
export const isWritable = (each: Descriptor): boolean => isData(each) && (each.high & 0x200) !== 0
export const isLongCode = (each: Descriptor): boolean => (each.high & 0x200000) !== 0

export const baseOf = (each: Descriptor): number => ((each.low >>> 16) | ((each.high & 0xff) << 16) | (each.high & 0xff000000)) >>> 0
export function limitOf(each: Descriptor): number {
  const limit = (each.low & 0xffff) | (each.high & 0xf0000)
  return each.high & 0x800000 ? ((limit << 12) | 0xfff) >>> 0 : limit
}
/** In the format of layout.ts. */
export const attributesOf = (each: Descriptor): number => (each.high >>> 8) & 0xf0ff

/**
 * Linear address of the descriptor of a selector, or undefined when the table is too short or there is no LDT. `bytes` is 16 for long-mode
 * system descriptors.
 */
export function descriptorAddress(cpu: Processor, selector: number, bytes = 8): bigint | undefined {
  const { state } = cpu
  const offset = selector & 0xfff8
  if (selector & 4) {
    if (state.segAttributes[6] & attribute.unusable || offset + bytes - 1 > state.segLimit[6]) return undefined
    return linear(cpu, state.segBase[6], offset)
  }
  if (offset + bytes - 1 > state.words[at.gdtrLimit >> 2]) return undefined
  return linear(cpu, state.gdtrBase, offset)
}

function linear(cpu: Processor, base: bigint, offset: number): bigint {
  const sum = base + BigInt(offset)
  return cpu.state.words[at.efer >> 2] & 0x400 ? BigInt.asUintN(64, sum) : BigInt.asUintN(32, sum)
}

export function readDescriptorAt(cpu: Processor, address: bigint): Descriptor {
  const value = cpu.memory.read64(address, 'supervisor')
  return { address, low: Number(value & 0xffffffffn), high: Number(value >> 32n) }
}

/** Faults with `faultVector` and the selector when it lies beyond its table. */
export function readDescriptor(cpu: Processor, selector: number, faultVector: number = vector.GP, external = 0): Descriptor {
  const address = descriptorAddress(cpu, selector)
  if (address === undefined) throw selectorFault(faultVector, selector, external)
  return readDescriptorAt(cpu, address)
}

/** Bits 63:32 of the base or offset of a 16-byte system descriptor. */
export const readUpperHalf = (cpu: Processor, descriptor: Descriptor): Descriptor => readDescriptorAt(cpu, descriptor.address + 8n)

/** Sets the accessed bit in memory when it is clear, and answers the descriptor with it. */
export function markAccessed(cpu: Processor, descriptor: Descriptor): Descriptor {
  if (descriptor.high & 0x100) return descriptor
  const high = (descriptor.high | 0x100) >>> 0
  cpu.memory.write8(descriptor.address + 5n, (high >>> 8) & 0xff, 'supervisor')
  return { address: descriptor.address, low: descriptor.low, high }
}

/** Sets or clears the busy bit of a TSS descriptor. */
export function setBusy(cpu: Processor, descriptor: Descriptor, busy: boolean): void {
  const old = (descriptor.high >>> 8) & 0xff
  cpu.memory.write8(descriptor.address + 5n, busy ? old | 2 : old & ~2, 'supervisor')
}
