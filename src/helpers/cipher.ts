/**
 * AES, SHA and carry-less multiplication. Intel SDM vol. 2, the instructions' pages; FIPS 197 (AES), FIPS 180-4 (SHA). Operands are as in
 * vector-operands.ts; everything is 32-bit arithmetic on words, because programs run these by the million.
 */
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import { destinationPlace, immediateArgument, sourcePlace } from './vector-operands.ts'

// ---- AES: tables from the definition of the S-box ----

const double = (x: number): number => ((x << 1) ^ (x & 0x80 ? 0x11b : 0)) & 0xff
/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function product(x: number, y: number): number {
  let sum = 0
  for (; y !== 0; y >>= 1, x = double(x)) if (y & 1) sum ^= x
  return sum
}

/** The powers of 3 are all bytes but 0: 3^n and 3^(255 - n) are each other's inverses. */
const power = new Uint8Array(256)
const logarithm = new Uint8Array(256)
for (let n = 0, x = 1; n < 256; n++, x ^= double(x)) {
  power[n] = x
  if (n < 255) logarithm[x] = n
}

const substitute = new Uint8Array(256)
const substituteInverse = new Uint8Array(256)
for (let x = 0; x < 256; x++) {
  const inverse = x === 0 ? 0 : power[255 - logarithm[x]]
  let s = inverse
  for (let turn = 1; turn <= 4; turn++) s ^= ((inverse << turn) | (inverse >> (8 - turn))) & 0xff
  substitute[x] = s ^ 0x63
  substituteInverse[s ^ 0x63] = x
}

/**
 * What a byte in row 0 of a column contributes to the mixed column, as a little-endian word; a byte in row r contributes the same,
 * rotated by r bytes.
 */
const mixed = (x: number, a: number, b: number, c: number, d: number): number =>
  product(x, a) | (product(x, b) << 8) | (product(x, c) << 16) | (product(x, d) << 24)
const mix = Int32Array.from({ length: 256 }, (_, x) => mixed(x, 2, 1, 1, 3))
const mixInverse = Int32Array.from({ length: 256 }, (_, x) => mixed(x, 14, 9, 13, 11))
const mixSubstituted = Int32Array.from({ length: 256 }, (_, x) => mix[substitute[x]])
const mixSubstitutedInverse = Int32Array.from({ length: 256 }, (_, x) => mixInverse[substituteInverse[x]])

const rotate = (word: number, bits: number): number => (word << bits) | (word >>> (32 - bits))
const column = new Int32Array(4)

/** ShiftRows takes row r of column c from column c + r, its inverse from c - r. */
function middleRound(state: CpuState, table: Int32Array, step: 1 | 3): After {
  const { bytes, words } = state
  const place = destinationPlace(state)
  for (let c = 0; c < 4; c++) {
    const from = (row: number): number => table[bytes[place + 4 * ((c + row * step) & 3) + row]]
    column[c] = from(0) ^ rotate(from(1), 8) ^ rotate(from(2), 16) ^ rotate(from(3), 24)
  }
  for (let c = 0; c < 4; c++) words[(place >> 2) + c] = column[c] ^ words[(sourcePlace >> 2) + c]
  return after.next
}
function lastRound(state: CpuState, box: Uint8Array, step: 1 | 3): After {
  const { bytes, words } = state
  const place = destinationPlace(state)
  for (let c = 0; c < 4; c++) {
    const from = (row: number): number => box[bytes[place + 4 * ((c + row * step) & 3) + row]]
    column[c] = from(0) | (from(1) << 8) | (from(2) << 16) | (from(3) << 24)
  }
  for (let c = 0; c < 4; c++) words[(place >> 2) + c] = column[c] ^ words[(sourcePlace >> 2) + c]
  return after.next
}

export const aesenc = (cpu: Processor): After => middleRound(cpu.state, mixSubstituted, 1)
export const aesdec = (cpu: Processor): After => middleRound(cpu.state, mixSubstitutedInverse, 3)
export const aesenclast = (cpu: Processor): After => lastRound(cpu.state, substitute, 1)
export const aesdeclast = (cpu: Processor): After => lastRound(cpu.state, substituteInverse, 3)

export function aesimc(cpu: Processor): After {
  const { bytes, words } = cpu.state
  const place = destinationPlace(cpu.state)
  for (let c = 0; c < 4; c++) {
    const from = (row: number): number => rotate(mixInverse[bytes[sourcePlace + 4 * c + row]], 8 * row)
    words[(place >> 2) + c] = from(0) ^ from(1) ^ from(2) ^ from(3)
  }
  return after.next
}

export function aeskeygenassist(cpu: Processor): After {
  const { bytes, words } = cpu.state
  const place = destinationPlace(cpu.state)
  const constant = immediateArgument(cpu.state)
  const substituted = (from: number): number =>
    substitute[bytes[from]] | (substitute[bytes[from + 1]] << 8) | (substitute[bytes[from + 2]] << 16) | (substitute[bytes[from + 3]] << 24)
  for (const half of [0, 1]) {
    const word = substituted(sourcePlace + 4 + 8 * half)
    words[(place >> 2) + 2 * half] = word
    words[(place >> 2) + 2 * half + 1] = rotate(word, 24) ^ constant
  }
  return after.next
}

// ---- carry-less multiplication ----

/** Selected halves of both operands; four products of 32 × 32 bits. */
export function pclmulqdq(cpu: Processor): After {
  const { state } = cpu
  const { words } = state
  const selector = immediateArgument(state)
  const left = (destinationPlace(state) >> 2) + (selector & 1 ? 2 : 0)
  const right = (sourcePlace >> 2) + (selector & 0x10 ? 2 : 0)
  const result = column.fill(0)
  for (const i of [0, 1]) for (const k of [0, 1]) addProduct(result, i + k, words[left + i] | 0, words[right + k] | 0)
  words.set(result, destinationPlace(state) >> 2)
  return after.next
}
/** Adds x × y, 64 bits, at word `to`. */
function addProduct(result: Int32Array, to: number, x: number, y: number): void {
  let low = y & 1 ? x : 0
  let high = 0
  for (let bit = 1; bit < 32; bit++) {
    const take = -((y >>> bit) & 1)
    low ^= (x << bit) & take
    high ^= (x >>> (32 - bit)) & take
  }
  result[to] ^= low
  result[to + 1] ^= high
}

// ---- SHA: element 3 of an operand is its highest dword ----

const sha1Constants = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6]
const choose = (x: number, y: number, z: number): number => (x & y) ^ (~x & z)
const parity = (x: number, y: number, z: number): number => x ^ y ^ z
const majority = (x: number, y: number, z: number): number => (x & y) ^ (x & z) ^ (y & z)
const sha1Functions = [choose, parity, majority, parity]

/** Four rounds: A to D from the destination, the sums of E and W from the source. */
export function sha1rnds4(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const kind = immediateArgument(cpu.state) & 3
  const f = sha1Functions[kind]
  let a = words[to + 3] | 0, b = words[to + 2] | 0, c = words[to + 1] | 0, d = words[to] | 0, e = 0
  for (let round = 0; round < 4; round++) {
    const next = (f(b, c, d) + rotate(a, 5) + words[(sourcePlace >> 2) + 3 - round] + e + sha1Constants[kind]) | 0
    e = d
    d = c
    c = rotate(b, 30)
    b = a
    a = next
  }
  return put(words, to, d, c, b, a)
}
function put(words: Uint32Array, to: number, w0: number, w1: number, w2: number, w3: number): After {
  words[to] = w0
  words[to + 1] = w1
  words[to + 2] = w2
  words[to + 3] = w3
  return after.next
}
export function sha1nexte(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const from = sourcePlace >> 2
  return put(words, to, words[from], words[from + 1], words[from + 2], words[from + 3] + rotate(words[to + 3], 30))
}
export function sha1msg1(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const from = sourcePlace >> 2
  return put(
    words, to, words[to] ^ words[from + 2], words[to + 1] ^ words[from + 3], words[to + 2] ^ words[to], words[to + 3] ^ words[to + 1],
  )
}
export function sha1msg2(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const from = sourcePlace >> 2
  const w16 = rotate(words[to + 3] ^ words[from + 2], 1)
  const w17 = rotate(words[to + 2] ^ words[from + 1], 1)
  const w18 = rotate(words[to + 1] ^ words[from], 1)
  return put(words, to, rotate(words[to] ^ w16, 1), w18, w17, w16)
}

/** Two rounds: C, D, G, H in the destination, A, B, E, F in the source, the sums of W and K in XMM0. */
export function sha256rnds2(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const from = sourcePlace >> 2
  let a = words[from + 3] | 0, b = words[from + 2] | 0, c = words[to + 3] | 0, d = words[to + 2] | 0
  let e = words[from + 1] | 0, f = words[from] | 0, g = words[to + 1] | 0, h = words[to] | 0
  for (let round = 0; round < 2; round++) {
    const sigma1 = rotate(e, 26) ^ rotate(e, 21) ^ rotate(e, 7)
    const sigma0 = rotate(a, 30) ^ rotate(a, 19) ^ rotate(a, 10)
    const first = (choose(e, f, g) + sigma1 + words[(at.vector >> 2) + round] + h) | 0
    const second = (majority(a, b, c) + sigma0) | 0
    h = g
    g = f
    f = e
    e = (first + d) | 0
    d = c
    c = b
    b = a
    a = (first + second) | 0
  }
  return put(words, to, f, e, b, a)
}
const schedule0 = (w: number): number => rotate(w, 25) ^ rotate(w, 14) ^ (w >>> 3)
const schedule1 = (w: number): number => rotate(w, 15) ^ rotate(w, 13) ^ (w >>> 10)
export function sha256msg1(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const next = (i: number): number => words[to + i] + schedule0(i === 3 ? words[sourcePlace >> 2] : words[to + i + 1])
  return put(words, to, next(0), next(1), next(2), next(3))
}
export function sha256msg2(cpu: Processor): After {
  const { words } = cpu.state
  const to = destinationPlace(cpu.state) >> 2
  const from = sourcePlace >> 2
  const w16 = (words[to] + schedule1(words[from + 2])) | 0
  const w17 = (words[to + 1] + schedule1(words[from + 3])) | 0
  return put(words, to, w16, w17, words[to + 2] + schedule1(w16), words[to + 3] + schedule1(w17))
}
