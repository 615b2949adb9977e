/**
 * MOVS and STOS in the case that kernels live on: 64-bit code and addresses, forwards, no FS or GS, plain RAM. The meaning is that of
 * string.ts, without a BigInt an element.
 */
import { is64, isCanonicalHigh, join } from '../cpu/bits.ts'
import { at, segment } from '../cpu/layout.ts'
import type { LinearMemory, Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'

const index = { eflags: at.eflags >> 2, rax: at.gpr >> 2, rcx: (at.gpr + 8) >> 2, rsi: (at.gpr + 48) >> 2, rdi: (at.gpr + 56) >> 2,
  argument: at.argument >> 2, dr7: (at.dr + 56) >> 2 } as const
/** L0 to G3 of DR7: breakpoints want one element a time. */
const anyBreakpoint = 0xff

export interface FastResult {
  /** Bytes done; registers are advanced by them. */
  readonly bytes: number
  /** RCX is used up, or the only element is done. */
  readonly finished: boolean
}

export const nothing: FastResult = { bytes: 0, finished: false }
/** Below this many bytes a loop over words beats a call of copyWithin or fill. */
const shortBytes = 64

function applies(cpu: Processor): boolean {
  const { operation, state } = cpu
  return (state.words[index.eflags] & (flag.DF | flag.TF)) === 0 && operation.addressSize === 64 && operation.segment < segment.fs
    && is64(state) && (state.words[index.dr7] & anyBreakpoint) === 0
}

/** Elements to do; 0 when the count needs more than 32 bits (the general way does those). */
function elementsOf(cpu: Processor, repeats: boolean): number {
  const { words } = cpu.state
  if (!repeats) return 1
  return words[index.rcx + 1] === 0 ? words[index.rcx] : 0
}

const roomInPage = (low: number): number => 4096 - (low & 0xfff)

function advance(words: Uint32Array, register: number, bytes: number): void {
  const sum = words[register] + bytes
  words[register] = sum
  if (sum > 0xffffffff) words[register + 1]++
}

export const placeFor = (memory: LinearMemory, repeats: boolean, address: bigint): number =>
  repeats ? memory.placeForBulkWrite(address) : memory.placeForWrite(address)

export function moveFast(cpu: Processor, limit: number): FastResult {
  if (!applies(cpu)) return nothing
  const { state, memory } = cpu
  const { words, bytes } = state
  const size = words[index.argument]
  const repeats = cpu.operation.repeat !== 0
  let done = 0
  for (let left = elementsOf(cpu, repeats); left > 0; ) {
    if (done >= limit) return { bytes: done, finished: false }
    const most = Math.min(left * size, limit - done, roomInPage(words[index.rsi]), roomInPage(words[index.rdi]))
    let length = most - (most % size)
    if (length === 0 || !isCanonicalHigh(state, words[index.rsi + 1])
      || !isCanonicalHigh(state, words[index.rdi + 1])) return { bytes: done, finished: false }
    const from = memory.placeForRead(join(words[index.rsi], words[index.rsi + 1]))
    const to = from ? placeFor(memory, repeats, join(words[index.rdi], words[index.rdi + 1])) : 0
    if (to === 0) return { bytes: done, finished: false }
    // A destination inside of the source repeats a pattern: copy only what does not overlap.
    const ahead = to - from
    if (ahead > 0 && ahead < length) length = ahead - (ahead % size)
    if (length === 0) return { bytes: done, finished: false }
    copy(state, from, to, length, bytes)
    advance(words, index.rsi, length)
    advance(words, index.rdi, length)
    left -= length / size
    if (repeats) words[index.rcx] = left
    done += length
  }
  return { bytes: done, finished: done > 0 }
}

export function copy(state: CpuState, from: number, to: number, length: number, bytes: Uint8Array): void {
  if (length < 4) for (let i = 0; i < length; i++) bytes[to + i] = bytes[from + i]
  else if (length <= shortBytes && ((from | to | length) & 3) === 0) {
    const { words } = state
    for (let i = from >>> 2, o = to >>> 2, end = (from + length) >>> 2; i < end; i++, o++) words[o] = words[i]
  } else bytes.copyWithin(to, from, from + length)
}

export function storeFast(cpu: Processor, limit: number): FastResult {
  if (!applies(cpu)) return nothing
  const { state, memory } = cpu
  const { words } = state
  const size = words[index.argument]
  const repeats = cpu.operation.repeat !== 0
  let done = 0
  for (let left = elementsOf(cpu, repeats); left > 0; ) {
    if (done >= limit) return { bytes: done, finished: false }
    const most = Math.min(left * size, limit - done, roomInPage(words[index.rdi]))
    const length = most - (most % size)
    if (length === 0 || !isCanonicalHigh(state, words[index.rdi + 1])) return { bytes: done, finished: false }
    const to = placeFor(memory, repeats, join(words[index.rdi], words[index.rdi + 1]))
    if (to === 0 || !fill(state, to, length, size)) return { bytes: done, finished: false }
    advance(words, index.rdi, length)
    left -= length / size
    if (repeats) words[index.rcx] = left
    done += length
  }
  return { bytes: done, finished: done > 0 }
}

/** False when the pattern needs the general way. */
export function fill(state: CpuState, to: number, length: number, size: number): boolean {
  const { words, bytes } = state
  const low = words[index.rax]
  if (size === 1) {
    bytes.fill(low, to, to + length)
    return true
  }
  if (size === 2 || (to & 3) !== 0) return false
  const high = size === 8 ? words[index.rax + 1] : low
  const first = to >>> 2
  const end = (to + length) >>> 2
  if (low === high && length > shortBytes) words.fill(low, first, end)
  else {
    for (let i = first; i < end; i++) words[i] = low
    if (low !== high) for (let i = first + 1; i < end; i += 2) words[i] = high
  }
  return true
}
