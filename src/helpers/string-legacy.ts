/**
 * MOVS and STOS outside 64-bit mode in the case that firmware and boot loaders live on: forwards, plain RAM, within the segments' limits.
 * The meaning is that of string.ts, without a BigInt an element.
 */
import { attribute } from '../cpu/bits.ts'
import { at, segment } from '../cpu/layout.ts'
import type { Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import { copy, placeFor, type FastResult, fill, nothing } from './string-fast.ts'

const index = {
  eflags: at.eflags >> 2, dr7: (at.dr + 56) >> 2, rcx: (at.gpr + 8) >> 2, rsi: (at.gpr + 48) >> 2, rdi: (at.gpr + 56) >> 2,
  argument: at.argument >> 2,
} as const
const anyBreakpoint = 0xff
const code = 8
const writableOrReadable = 2
const expandDown = 4

const roomInPage = (address: number): number => 4096 - (address & 0xfff)

/** Where a pointer register points, and how far elements may go from there. */
interface Pointer {
  register: number
  base: number
  /** The last offset that is allowed; -1 when none is. */
  last: number
}

function pointer(cpu: Processor, register: number, number: number, write: boolean, mask: number): Pointer {
  const { words } = cpu.state
  const attributes = words[(at.segAttributes >> 2) + number]
  const isCode = (attributes & code) !== 0
  const allowed = !(attributes & attribute.unusable) && (isCode ? !write && attributes & writableOrReadable : !(attributes & expandDown)) &&
    (!write || attributes & writableOrReadable)
  return {
    register, base: words[(at.segBase >> 2) + number * 2],
    last: allowed ? Math.min(words[(at.segLimit >> 2) + number], mask) : -1,
  }
}

function applies(cpu: Processor): boolean {
  const { words } = cpu.state
  return (words[index.eflags] & (flag.DF | flag.TF)) === 0 && (words[index.dr7] & anyBreakpoint) === 0
}

/** Moves `left` elements or fewer through `each`, which answers how many bytes it did; 0 leaves the rest to the general way. */
function loop(cpu: Processor, limit: number, pointers: readonly Pointer[], mask: number, each: (most: number) => number): FastResult {
  const { words } = cpu.state
  const size = words[index.argument]
  const repeats = cpu.operation.repeat !== 0
  let done = 0
  for (let left = repeats ? (words[index.rcx] & mask) >>> 0 : 1; left > 0;) {
    if (done >= limit) return { bytes: done, finished: false }
    let most = Math.min(left * size, limit - done)
    for (const { register, base, last } of pointers) {
      const offset = (words[register] & mask) >>> 0
      most = Math.min(most, last - offset + 1, roomInPage(base + offset))
    }
    most -= most % size
    const length = most > 0 ? each(most) : 0
    if (length === 0) return { bytes: done, finished: false }
    for (const { register } of pointers) put(words, register, words[register] + length, mask)
    left -= length / size
    if (repeats) put(words, index.rcx, left, mask)
    done += length
  }
  return { bytes: done, finished: done > 0 }
}

/** 16-bit results keep the rest of the register, 32-bit ones clear its upper half. */
function put(words: Uint32Array, register: number, value: number, mask: number): void {
  words[register] = mask === 0xffff ? (words[register] & 0xffff0000) | (value & 0xffff) : value
  if (mask !== 0xffff) words[register + 1] = 0
}

const addressMask = (cpu: Processor): number => (cpu.operation.addressSize === 16 ? 0xffff : 0xffffffff)
const linear = (words: Uint32Array, { register, base }: Pointer, mask: number): bigint =>
  BigInt((base + ((words[register] & mask) >>> 0)) >>> 0)

const one: Readonly<Record<number, FastResult>> = {
  1: { bytes: 1, finished: true }, 2: { bytes: 2, finished: true }, 4: { bytes: 4, finished: true },
}
const usable = attribute.unusable | expandDown | code

/** A single element with 32-bit addresses in data segments: what compilers make of copying loops. Nothing is allocated on this way. */
function moveOne(cpu: Processor, size: number): FastResult {
  const { words } = cpu.state
  const from = words[index.rsi]
  const to = words[index.rdi]
  const source = cpu.operation.segment
  const target = words[(at.segAttributes >> 2) + segment.es]
  if (words[(at.segAttributes >> 2) + source] & usable || (target & (usable | writableOrReadable)) !== writableOrReadable ||
    from + size - 1 > words[(at.segLimit >> 2) + source] || to + size - 1 > words[(at.segLimit >> 2) + segment.es]) return nothing
  const bases = at.segBase >> 2
  if (!cpu.memory.copyElement?.(from + words[bases + source * 2], to + words[bases + segment.es * 2], size)) return nothing
  words[index.rsi] = from + size
  words[index.rsi + 1] = 0
  words[index.rdi] = to + size
  words[index.rdi + 1] = 0
  return one[size]
}

export function moveLegacy(cpu: Processor, limit: number): FastResult {
  if (!applies(cpu)) return nothing
  if (cpu.operation.repeat === 0 && cpu.operation.addressSize === 32) {
    const result = moveOne(cpu, cpu.state.words[index.argument])
    if (result.finished) return result
  }
  const { state, memory } = cpu
  const { words } = state
  const size = words[index.argument]
  const mask = addressMask(cpu)
  const repeats = cpu.operation.repeat !== 0
  const source = pointer(cpu, index.rsi, cpu.operation.segment, false, mask)
  const destination = pointer(cpu, index.rdi, segment.es, true, mask)
  return loop(cpu, limit, [source, destination], mask, most => {
    const from = memory.placeForRead(linear(words, source, mask))
    const to = from ? placeFor(memory, repeats, linear(words, destination, mask)) : 0
    if (to === 0) return 0
    // A destination inside of the source repeats a pattern: copy only what does not overlap.
    const ahead = to - from
    const length = ahead > 0 && ahead < most ? ahead - (ahead % size) : most
    if (length > 0) copy(state, from, to, length, state.bytes)
    return length
  })
}

export function storeLegacy(cpu: Processor, limit: number): FastResult {
  if (!applies(cpu)) return nothing
  const { state, memory } = cpu
  const { words } = state
  const mask = addressMask(cpu)
  const repeats = cpu.operation.repeat !== 0
  const destination = pointer(cpu, index.rdi, segment.es, true, mask)
  return loop(cpu, limit, [destination], mask, most => {
    const to = placeFor(memory, repeats, linear(words, destination, mask))
    return to !== 0 && fill(state, to, most, words[index.argument]) ? most : 0
  })
}
