/**
 * Pushing and popping on a stack that is not yet (or no longer) the current one: far transfers, interrupts, task switches. Intel SDM vol.
 * 1, "Stacks"; vol. 3, "Limit Checking".
 */
import { attribute, isCanonical, is64 } from './bits.ts'
import { attributesOf, baseOf, limitOf, type Descriptor } from './descriptor.ts'
import { Fault, vector } from './fault.ts'
import type { Privilege, Processor } from './processor.ts'

const expandDown = 0x0c

/** True when `size` bytes at `offset` are inside of a data segment. Intel SDM vol. 3, "Limit Checking". */
export function inLimit(limit: number, attributes: number, offset: number, size: number): boolean {
  const last = offset + size - 1
  if ((attributes & 0x1c) === (0x10 | (expandDown & 4))) return offset > limit && last <= (attributes & attribute.big ? 0xffffffff : 0xffff)
  return last <= limit
}

const errorNone = 0

/** Nothing of the CPU changes until the owner takes `pointer` over. */
export class Stack {
  pointer: bigint
  private readonly cpu: Processor
  private readonly base: bigint
  private readonly limit: number
  private readonly attributes: number
  private readonly flat: boolean
  private readonly privilege: Privilege
  /** Error code of #SS. */
  private readonly error: number

  constructor(cpu: Processor, shape: { base: bigint; limit: number; attributes: number; flat: boolean }, pointer: bigint,
    privilege: Privilege, error = errorNone) {
    this.cpu = cpu
    this.base = shape.base
    this.limit = shape.limit
    this.attributes = shape.attributes
    this.flat = shape.flat
    this.pointer = pointer
    this.privilege = privilege
    this.error = error
  }

  private get bits(): number {
    return this.flat ? 64 : this.attributes & attribute.big ? 32 : 16
  }

  /** Linear address of `size` bytes at `offset`; #SS when they are outside. */
  private linear(offset: bigint, size: number): bigint {
    if (this.flat) {
      if (!isCanonical(this.cpu.state, offset) || !isCanonical(this.cpu.state, offset + BigInt(size - 1)))
        throw new Fault(vector.SS, this.error)
      return offset
    }
    if (!inLimit(this.limit, this.attributes, Number(offset), size)) throw new Fault(vector.SS, this.error)
    return (this.base + offset) & 0xffffffffn
  }

  private wrap(offset: bigint): bigint {
    return BigInt.asUintN(this.bits, offset)
  }

  push(size: number, value: bigint): void {
    const top = this.wrap(this.wrap(this.pointer) - BigInt(size))
    writeSized(this.cpu, this.linear(top, size), size, value, this.privilege)
    this.pointer = top
  }

  pop(size: number): bigint {
    const value = this.peek(size)
    this.release(size)
    return value
  }

  /** The value `depth` bytes above the top. */
  peek(size: number, depth = 0): bigint {
    return readSized(this.cpu, this.linear(this.wrap(this.pointer + BigInt(depth)), size), size, this.privilege)
  }

  /** Linear address of `size` bytes at the top. */
  linearTop(size: number): bigint {
    return this.linear(this.wrap(this.pointer), size)
  }

  release(bytes: number): void {
    this.pointer = this.wrap(this.pointer + BigInt(bytes))
  }

  /** RSP that keeps what a narrow stack pointer does not reach. */
  merged(old: bigint): bigint {
    return this.bits === 16 ? (old & ~0xffffn) | this.wrap(this.pointer) : this.wrap(this.pointer)
  }
}

export function readSized(cpu: Processor, address: bigint, size: number, as: Privilege): bigint {
  const { memory } = cpu
  return size === 8 ? memory.read64(address, as) : BigInt(size === 4 ? memory.read32(address, as) : memory.read16(address, as))
}

export function writeSized(cpu: Processor, address: bigint, size: number, value: bigint, as: Privilege): void {
  const { memory } = cpu
  if (size === 8) memory.write64(address, BigInt.asUintN(64, value), as)
  else if (size === 4) memory.write32(address, Number(value & 0xffffffffn), as)
  else memory.write16(address, Number(value & 0xffffn), as)
}

/** The stack in use. */
export function currentStack(cpu: Processor): Stack {
  const { state } = cpu
  const shape = { base: state.segBase[2], limit: state.segLimit[2], attributes: state.segAttributes[2], flat: is64(state) }
  return new Stack(cpu, shape, state.gpr[4], 'current')
}

/** A stack segment from its descriptor, for a level that is about to be entered. */
export function stackFrom(cpu: Processor, descriptor: Descriptor, pointer: bigint, cpl: number, error = errorNone): Stack {
  const shape = { base: BigInt(baseOf(descriptor)), limit: limitOf(descriptor), attributes: attributesOf(descriptor), flat: false }
  return new Stack(cpu, shape, pointer, cpl === 3 ? 'user' : 'supervisor', error)
}

/** A flat 64-bit stack. */
export function flatStack(cpu: Processor, pointer: bigint, cpl: number, error = errorNone): Stack {
  return new Stack(cpu, { base: 0n, limit: 0, attributes: 0, flat: true }, pointer, cpl === 3 ? 'user' : 'supervisor', error)
}
