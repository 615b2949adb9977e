/**
 * MOVS, STOS, LODS, CMPS, SCAS, INS and OUTS with their repeat prefixes. Intel SDM vol. 2, the instructions' pages; vol. 1, "String
 * Operations".
 * Registers are exact after every step, so that a fault or an interrupt in the middle resumes there. argument[0] is the element's size in
 * bytes.
 */
import { attribute, is64, isCanonical } from '../cpu/bits.ts'
import { Fault, vector } from '../cpu/fault.ts'
import { segment } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import { inLimit } from '../cpu/stack.ts'
import type { CpuState } from '../cpu/state.ts'
import type { PortAccess } from '../cpu/virtualization.ts'
import { checkPorts, portTime } from './ports.ts'
import { writeGpr } from './registers.ts'
import { moveFast, storeFast, type FastResult } from './string-fast.ts'
import { timeOfBytes } from './string-time.ts'
import { moveLegacy, storeLegacy } from './string-legacy.ts'

const rax = 0
const rcx = 1
const rsi = 6
const rdi = 7

/** Bytes that one call may move or compare in bulk, and elements that it may do one at a time, before interrupts are looked at. */
const bulkLimit = 64 << 10
const singleLimit = 512

/** Of a segment's type: bit 3 is code, and without it bit 2 a limit that is a lower one. */
const codeOrExpandDown = 0xc
const expandDown = 4

/** What all string instructions need to know about this one. */
class StringOperation {
  readonly cpu: Processor
  readonly state: CpuState
  readonly size: number
  readonly backward: boolean
  readonly repeats: boolean
  private readonly addressBits: number
  private readonly addressMask: bigint
  private readonly flat: boolean

  constructor(cpu: Processor) {
    this.cpu = cpu
    this.state = cpu.state
    this.size = Number(cpu.state.argument[0])
    this.backward = (cpu.state.eflags & flag.DF) !== 0
    this.repeats = cpu.operation.repeat !== 0
    this.addressBits = cpu.operation.addressSize
    this.addressMask = this.addressBits === 64 ? 0xffff_ffff_ffff_ffffn : this.addressBits === 32 ? 0xffff_ffffn : 0xffffn
    this.flat = is64(cpu.state)
  }

  /** From one element's address to the next one's. */
  get step(): number {
    return this.backward ? -this.size : this.size
  }

  /** Elements still to do, at most 2^53. */
  get count(): number {
    return this.repeats ? Number(this.state.gpr[rcx] & this.addressMask) : 1
  }

  done(elements: number): void {
    if (this.repeats) writeGpr(this.state, rcx, this.addressBits, BigInt.asUintN(this.addressBits, this.state.gpr[rcx] - BigInt(elements)))
  }

  advance(register: number, elements: number): void {
    const bytes = BigInt(elements * this.size)
    const old = this.state.gpr[register]
    writeGpr(this.state, register, this.addressBits, BigInt.asUintN(this.addressBits, this.backward ? old - bytes : old + bytes))
  }

  /** Linear address of the element that a register points to, after the checks of its segment. */
  linear(register: number, segmentIndex: number, write: boolean): bigint {
    const { state } = this
    const offset = state.gpr[register] & this.addressMask
    if (this.flat) {
      const address = segmentIndex >= segment.fs ? BigInt.asUintN(64, state.segBase[segmentIndex] + offset) : offset
      if (!isCanonical(state, address)) throw new Fault(segmentIndex === segment.ss ? vector.SS : vector.GP, 0)
      return address
    }
    const attributes = state.segAttributes[segmentIndex]
    const faultVector = segmentIndex === segment.ss ? vector.SS : vector.GP
    const denied = attributes & attribute.unusable || (write ? (attributes & 0xa) !== 2 : (attributes & 0xa) === 8)
    if (denied && !this.isParagraph()) throw new Fault(faultVector, 0)
    if (!inLimit(state.segLimit[segmentIndex], attributes, Number(offset), this.size)) throw new Fault(faultVector, 0)
    return (state.segBase[segmentIndex] + offset) & 0xffff_ffffn
  }

  private isParagraph(): boolean {
    return (this.state.mode & 8) !== 0
  }

  /** Elements from `address` on to where its page ends, the offset wraps or the limit may end. 0: go one at a time. */
  inPage(address: bigint, register: number, segmentIndex: number): number {
    if (this.backward) return this.inPageBelow(address, register, segmentIndex)
    const elements = Math.floor((4096 - Number(address & 0xfffn)) / this.size)
    if (this.flat && this.addressBits === 64) return elements
    const offset = Number(this.state.gpr[register] & this.addressMask)
    const attributes = this.state.segAttributes[segmentIndex]
    const limit = this.state.segLimit[segmentIndex]
    if (!this.flat && (attributes & codeOrExpandDown) === expandDown) {
      return inLimit(limit, attributes, offset, elements * this.size) ? elements : 0
    }
    const last = Math.min(this.flat ? Infinity : limit, Number(this.addressMask))
    return Math.max(0, Math.min(elements, Math.floor((last - offset + 1) / this.size)))
  }

  private inPageBelow(address: bigint, register: number, segmentIndex: number): number {
    const end = Number(address & 0xfffn) + this.size
    const offset = this.state.gpr[register] & this.addressMask
    if (end > 4096) return 0
    const elements = Math.min(Math.floor(end / this.size), Number(offset / BigInt(this.size)) + 1)
    if (this.flat && this.addressBits === 64) return elements
    const lowest = Number(offset) - (elements - 1) * this.size
    return inLimit(this.state.segLimit[segmentIndex], this.state.segAttributes[segmentIndex], lowest, elements * this.size) ? elements : 0
  }

  /** Single stepping and breakpoints want one element a time. */
  get elementWise(): boolean {
    return (this.state.eflags & flag.TF) !== 0 || (this.state.dr[7] & anyBreakpoint) !== 0n
  }

  read(address: bigint): bigint {
    const { memory } = this.cpu
    switch (this.size) {
      case 1: return BigInt(memory.read8(address))
      case 2: return BigInt(memory.read16(address))
      case 4: return BigInt(memory.read32(address))
      default: return memory.read64(address)
    }
  }

  write(address: bigint, value: bigint): void {
    const { memory } = this.cpu
    switch (this.size) {
      case 1: return memory.write8(address, Number(value & 0xffn))
      case 2: return memory.write16(address, Number(value & 0xffffn))
      case 4: return memory.write32(address, Number(value & 0xffff_ffffn))
      default: return memory.write64(address, value)
    }
  }
}

/** L0 to G3 of DR7. */
const anyBreakpoint = 0xffn

/**
 * Does elements in one step and answers how many; 0: finished by its own condition. `most` is not 0. `bulk` says how they are timed: by
 * what software can see, never by how they were done, so that time is the same whatever the engine has cached.
 */
type Step = (op: StringOperation, most: number) => { elements: number; bulk: boolean; finished?: boolean }

const single = { elements: 1, bulk: false } as const

/** The loop of all string instructions. `done`: bytes that the fast way has done already. */
function run(cpu: Processor, step: Step, done = 0): After {
  const op = new StringOperation(cpu)
  const { elementWise } = op
  let bytes = done
  let singles = 0
  const limit = elementWise ? 1 : singleLimit
  try {
    for (let count = op.count; count > 0; count = op.repeats ? op.count : 0) {
      if (bytes >= bulkLimit || singles >= limit) return after.again
      const { elements, bulk, finished } = step(op, elementWise ? 1 : Math.min(count, Math.ceil((bulkLimit - bytes) / op.size)))
      op.done(elements)
      if (bulk && !elementWise) bytes += elements * op.size
      else singles += elements
      if (finished) break
      if (!op.repeats) break
    }
    return after.next
  } finally {
    if (op.repeats) spendFor(cpu, bytes, singles)
  }
}

/** What the fast way leaves - page borders inside of an element, devices, other modes - the general way does. */
function runFast(cpu: Processor, fast: (cpu: Processor, limit: number) => FastResult, step: Step): After {
  const { bytes, finished } = fast(cpu, bulkLimit)
  if (!finished && bytes < bulkLimit) return run(cpu, step, bytes)
  spendFor(cpu, bytes, 0)
  return finished ? after.next : after.again
}

function spendFor(cpu: Processor, bytes: number, singles: number): void {
  const time = timeOfBytes(bytes) + singles
  if (time > 0) cpu.spend(time)
}

export const movs = (cpu: Processor): After => runFast(cpu, is64(cpu.state) ? moveFast : moveLegacy, moveStep)
export const stos = (cpu: Processor): After => runFast(cpu, is64(cpu.state) ? storeFast : storeLegacy, storeStep)
export const lods = (cpu: Processor): After => run(cpu, loadStep)
export const cmps = (cpu: Processor): After => run(cpu, compareStep)
export const scas = (cpu: Processor): After => run(cpu, scanStep)

const moveStep: Step = (op, most) => {
  const { cpu } = op
  const sourceSegment = cpu.operation.segment
  const from = op.linear(rsi, sourceSegment, false)
  const to = op.linear(rdi, segment.es, true)
  const room = Math.min(op.inPage(from, rsi, sourceSegment), op.inPage(to, rdi, segment.es))
  let elements = most === 1 ? 0 : Math.min(most, room)
  if (elements > 1) {
    // The source faults first. The places are those of the first elements.
    const first = cpu.memory.placeForRead(from)
    const firstTo = first ? cpu.memory.placeForBulkWrite(to) : 0
    const ahead = op.backward ? first - firstTo : firstTo - first
    // A destination on the way of the source repeats a pattern: copy only what does not overlap.
    if (ahead > 0 && ahead < elements * op.size) elements = Math.floor(ahead / op.size)
    if (first && firstTo && elements > 0) {
      const down = op.backward ? (elements - 1) * op.size : 0
      const [source, destination] = [first - down, firstTo - down]
      op.state.bytes.copyWithin(destination, source, source + elements * op.size)
      op.advance(rsi, elements)
      op.advance(rdi, elements)
      return { elements, bulk: true }
    }
  }
  op.write(to, op.read(from))
  op.advance(rsi, 1)
  op.advance(rdi, 1)
  return { elements: 1, bulk: room > 0 }
}

const storeStep: Step = (op, most) => {
  const to = op.linear(rdi, segment.es, true)
  const room = op.inPage(to, rdi, segment.es)
  const elements = most === 1 ? 0 : Math.min(most, room)
  // The first element faults, also where lower ones are filled with it.
  const place = elements > 1 ? op.cpu.memory.placeForBulkWrite(to) : 0
  if (place) {
    fill(op, op.backward ? place - (elements - 1) * op.size : place, elements)
    op.advance(rdi, elements)
    return { elements, bulk: true }
  }
  op.write(to, op.state.gpr[rax])
  op.advance(rdi, 1)
  return { elements: 1, bulk: room > 0 }
}

function fill(op: StringOperation, place: number, elements: number): void {
  const { bytes } = op.state
  const total = elements * op.size
  const value = BigInt.asUintN(op.size * 8, op.state.gpr[rax])
  if (value === 0n) {
    bytes.fill(0, place, place + total)
    return
  }
  for (let i = 0; i < op.size; i++) bytes[place + i] = Number((value >> BigInt(i * 8)) & 0xffn)
  for (let have = op.size; have < total; have *= 2) bytes.copyWithin(place + have, place, place + Math.min(have, total - have))
}

const loadStep: Step = op => {
  const value = op.read(op.linear(rsi, op.cpu.operation.segment, false))
  writeGpr(op.state, rax, op.size * 8, value)
  op.advance(rsi, 1)
  return single
}

/** Flags of left - right. */
function setCompare(op: StringOperation, left: bigint, right: bigint): boolean {
  const { state, size } = op
  const bits = size * 8
  const result = BigInt.asUintN(bits, left - right)
  const borrow = left < right
  const overflow = ((left ^ right) & (left ^ result)) >> BigInt(bits - 1) !== 0n
  state.flagZero = result
  state.flagSign = BigInt.asUintN(64, BigInt.asIntN(bits, result))
  state.flagCarry = borrow ? 1 : 0
  state.flagAux = ((left ^ right ^ result) & 16n) | (overflow !== borrow ? 1n << 63n : 0n)
  return result === 0n
}

const repeatWhileEqual = 1

const stops = (op: StringOperation, equal: boolean): boolean => equal !== (op.cpu.operation.repeat === repeatWhileEqual)

const compareStep: Step = (op, most) => {
  const { cpu } = op
  const sourceSegment = cpu.operation.segment
  const from = op.linear(rsi, sourceSegment, false)
  const to = op.linear(rdi, segment.es, false)
  const room = Math.min(op.inPage(from, rsi, sourceSegment), op.inPage(to, rdi, segment.es))
  const elements = most === 1 ? 0 : Math.min(most, room)
  const first = elements > 1 ? cpu.memory.placeForRead(from) : 0
  const second = first ? cpu.memory.placeForRead(to) : 0
  if (second) return compareMany(op, elements, i => elementAt(op, first + i * op.step), i => elementAt(op, second + i * op.step),
    [rsi, rdi])
  const left = op.read(from)
  const equal = setCompare(op, left, op.read(to))
  op.advance(rsi, 1)
  op.advance(rdi, 1)
  return { elements: 1, bulk: room > 0, finished: stops(op, equal) }
}

const scanStep: Step = (op, most) => {
  const to = op.linear(rdi, segment.es, false)
  const room = op.inPage(to, rdi, segment.es)
  const elements = most === 1 ? 0 : Math.min(most, room)
  const place = elements > 1 ? op.cpu.memory.placeForRead(to) : 0
  const value = BigInt.asUintN(op.size * 8, op.state.gpr[rax])
  if (place) return compareMany(op, elements, () => value, i => elementAt(op, place + i * op.step), [rdi])
  const equal = setCompare(op, value, op.read(to))
  op.advance(rdi, 1)
  return { elements: 1, bulk: room > 0, finished: stops(op, equal) }
}

/** Compares until the repeat condition ends it; only the last comparison sets flags. */
function compareMany(op: StringOperation, elements: number, left: (i: number) => bigint, right: (i: number) => bigint,
  registers: readonly number[]): ReturnType<Step> {
  const whileEqual = op.cpu.operation.repeat === repeatWhileEqual
  let i = 0
  let finished = false
  while (i < elements && !finished) {
    finished = (left(i) === right(i)) !== whileEqual
    i++
  }
  setCompare(op, left(i - 1), right(i - 1))
  for (const register of registers) op.advance(register, i)
  return { elements: i, bulk: true, finished }
}

function elementAt(op: StringOperation, place: number): bigint {
  const { bytes } = op.state
  let value = 0
  for (let i = Math.min(op.size, 4) - 1; i >= 0; i--) value = value * 256 + bytes[place + i]
  if (op.size < 8) return BigInt(value)
  let high = 0
  for (let i = 7; i >= 4; i--) high = high * 256 + bytes[place + i]
  return (BigInt(high) << 32n) | BigInt(value)
}

/** Time of a port access inside of a repeated instruction. */
const repeatedPortTime = 100

function stringAccess(op: StringOperation, port: number, write: boolean, segmentIndex: number, address: bigint): PortAccess {
  return { port, size: op.size, write,
    string: { segment: segmentIndex, address, repeats: op.repeats, addressSize: op.cpu.operation.addressSize } }
}

export function ins(cpu: Processor): After {
  const port = Number(cpu.state.gpr[2] & 0xffffn)
  checkPorts(cpu, port, Number(cpu.state.argument[0]))
  return run(cpu, op => {
    const to = op.linear(rdi, segment.es, true)
    const exit = cpu.guest?.portAccess(stringAccess(op, port, false, segment.es, to))
    if (exit) throw exit
    cpu.memory.probeWrite(to, op.size)
    op.write(to, BigInt(cpu.ports.read(port, op.size as 1 | 2 | 4)))
    op.advance(rdi, 1)
    cpu.spend(op.repeats ? repeatedPortTime : portTime)
    return single
  })
}

export function outs(cpu: Processor): After {
  const port = Number(cpu.state.gpr[2] & 0xffffn)
  checkPorts(cpu, port, Number(cpu.state.argument[0]))
  return run(cpu, op => {
    const from = op.linear(rsi, cpu.operation.segment, false)
    const exit = cpu.guest?.portAccess(stringAccess(op, port, true, cpu.operation.segment, from))
    if (exit) throw exit
    const value = op.read(from)
    cpu.ports.write(port, op.size as 1 | 2 | 4, Number(value))
    op.advance(rsi, 1)
    cpu.spend(op.repeats ? repeatedPortTime : portTime)
    return single
  })
}
