/** The cipher helpers build whole algorithms, which OpenSSL (through node:crypto) checks. */
import assert from 'node:assert/strict'
import { createCipheriv, createHash } from 'node:crypto'
import { test } from 'node:test'
import { vectorAddress } from '../cpu/layout.ts'
import type { Helper, Processor } from '../cpu/processor.ts'
import { createCpuState } from '../cpu/state.ts'
import * as cipher from './cipher.ts'

const state = createCpuState(new WebAssembly.Memory({ initial: 1, maximum: 1 }))
const cpu = { state } as Processor

type Lane = bigint
const lane = (bytes: Uint8Array): Lane => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
const bytesOf = (value: Lane): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))

/** helper(destination, source, immediate): the destination afterwards. XMM0 stays what it was. */
function run(helper: Helper, destination: Lane, source: Lane, immediate = 0): Lane {
  const place = vectorAddress(3)
  state.bytes.set(bytesOf(destination), place)
  state.argument[0] = BigInt(place)
  state.argument[1] = BigInt.asUintN(64, source)
  state.argument[2] = source >> 64n
  state.argument[3] = BigInt(immediate)
  helper(cpu)
  return lane(state.bytes.subarray(place, place + 16))
}

const pseudoRandom = (seed: number) => (length: number): Uint8Array =>
  Uint8Array.from({ length }, () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return seed >>> 16
  })
const dword = (value: Lane, index: number): Lane => (value >> BigInt(32 * index)) & 0xffffffffn

/** The key schedule of the SDM's AES white paper: AESKEYGENASSIST gives RotWord(SubWord(w3)) ^ rcon in dword 3. */
function expandKey(key: Uint8Array): Lane[] {
  const keys = [lane(key)]
  for (const constant of [1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36]) {
    const last = keys.at(-1)!
    let word = dword(run(cipher.aeskeygenassist, 0n, last, constant), 3)
    let next = 0n
    for (let i = 0; i < 4; i++) {
      word ^= dword(last, i)
      next |= word << BigInt(32 * i)
    }
    keys.push(next)
  }
  return keys
}

test('AES-128 encrypts as OpenSSL does, and decrypts what it encrypted', () => {
  const random = pseudoRandom(7)
  for (let i = 0; i < 50; i++) {
    const key = random(16)
    const plain = random(16)
    const keys = expandKey(key)
    let block = lane(plain) ^ keys[0]
    for (const round of keys.slice(1, 10)) block = run(cipher.aesenc, block, round)
    block = run(cipher.aesenclast, block, keys[10])
    const oracle = createCipheriv('aes-128-ecb', key, null).setAutoPadding(false)
    assert.deepEqual(Buffer.from(bytesOf(block)), oracle.update(plain))
    block ^= keys[10]
    for (const round of keys.slice(1, 10).reverse()) block = run(cipher.aesdec, block, run(cipher.aesimc, 0n, round))
    assert.deepEqual(bytesOf(run(cipher.aesdeclast, block, keys[0])), plain)
  }
})

/** One block, as the hash pads a message below 56 bytes. Words are big-endian. */
function paddedWords(message: Uint8Array): bigint[] {
  const block = new Uint8Array(64)
  block.set(message)
  block[message.length] = 0x80
  const view = new DataView(block.buffer)
  view.setUint32(60, message.length * 8)
  return Array.from({ length: 16 }, (_, i) => BigInt(view.getUint32(4 * i)))
}
const add = (x: Lane, y: Lane): Lane =>
  [0, 1, 2, 3].reduce((sum, i) => sum | (((dword(x, i) + dword(y, i)) & 0xffffffffn) << BigInt(32 * i)), 0n)
const pack = (words: readonly bigint[]): Lane => words.reduceRight((sum, word) => (sum << 32n) | word, 0n)

test('SHA-1 of one block', () => {
  const random = pseudoRandom(11)
  for (let length = 0; length < 50; length += 7) {
    const message = random(length)
    const w = paddedWords(message)
    // the first word of four is in the highest dword
    const schedule = [0, 4, 8, 12].map(i => pack([w[i + 3], w[i + 2], w[i + 1], w[i]]))
    for (let i = 4; i < 20; i++)
      schedule.push(run(cipher.sha1msg2, run(cipher.sha1msg1, schedule[i - 4], schedule[i - 3]) ^ schedule[i - 2], schedule[i - 1]))
    const initial = pack([0x10325476n, 0x98badcfen, 0xefcdab89n, 0x67452301n])
    const initialE = 0xc3d2e1f0n << 96n
    let abcd = initial
    let before = 0n
    for (let i = 0; i < 20; i++) {
      const withE = i === 0 ? add(initialE, schedule[0]) : run(cipher.sha1nexte, before, schedule[i])
      before = abcd
      abcd = run(cipher.sha1rnds4, abcd, withE, Math.floor(i / 5))
    }
    const e = run(cipher.sha1nexte, before, initialE)
    const sum = add(abcd, initial)
    const digest = [3, 2, 1, 0].map(i => dword(sum, i)).concat(dword(e, 3)).map(word => word.toString(16).padStart(8, '0')).join('')
    assert.equal(digest, createHash('sha1').update(message).digest('hex'))
  }
})

/** FIPS 180-4: the fractions of the cube roots of the first 64 primes. */
const sha256Constants = ((): bigint[] => {
  const primes: number[] = []
  for (let n = 2; primes.length < 64; n++) if (primes.every(p => n % p)) primes.push(n)
  return primes.map(p => {
    let root = 0n
    for (let bit = 1n << 36n; bit > 0n; bit >>= 1n) if ((root + bit) ** 3n <= BigInt(p) << 96n) root += bit
    return root & 0xffffffffn
  })
})()

test('SHA-256 of one block', () => {
  const random = pseudoRandom(13)
  for (let length = 0; length < 50; length += 7) {
    const message = random(length)
    const w = paddedWords(message)
    const schedule = [0, 4, 8, 12].map(i => pack(w.slice(i, i + 4)))
    for (let i = 4; i < 16; i++) {
      const middle = pack([dword(schedule[i - 2], 1), dword(schedule[i - 2], 2), dword(schedule[i - 2], 3), dword(schedule[i - 1], 0)])
      schedule.push(run(cipher.sha256msg2, add(run(cipher.sha256msg1, schedule[i - 4], schedule[i - 3]), middle), schedule[i - 1]))
    }
    const h = [0x6a09e667n, 0xbb67ae85n, 0x3c6ef372n, 0xa54ff53an, 0x510e527fn, 0x9b05688cn, 0x1f83d9abn, 0x5be0cd19n]
    let abef = pack([h[5], h[4], h[1], h[0]])
    let cdgh = pack([h[7], h[6], h[3], h[2]])
    const initial = [abef, cdgh]
    for (let i = 0; i < 16; i++)
      for (const half of [0, 1]) {
        const sums = add(schedule[i], pack(sha256Constants.slice(4 * i, 4 * i + 4)))
        state.bytes.set(bytesOf(half ? sums >> 64n : sums), vectorAddress(0))
        const next = run(cipher.sha256rnds2, cdgh, abef)
        cdgh = abef
        abef = next
      }
    abef = add(abef, initial[0])
    cdgh = add(cdgh, initial[1])
    const digest = [[abef, 3], [abef, 2], [cdgh, 3], [cdgh, 2], [abef, 1], [abef, 0], [cdgh, 1], [cdgh, 0]] as const
    assert.equal(
      digest.map(([from, i]) => dword(from, i).toString(16).padStart(8, '0')).join(''),
      createHash('sha256').update(message).digest('hex'),
    )
  }
})

test('PCLMULQDQ is a product of polynomials over GF(2), of the chosen halves', () => {
  const random = pseudoRandom(17)
  for (let i = 0; i < 200; i++) {
    const [x, y] = [lane(random(16)), lane(random(16))]
    const selector = random(1)[0]
    const a = selector & 1 ? x >> 64n : BigInt.asUintN(64, x)
    const b = selector & 16 ? y >> 64n : BigInt.asUintN(64, y)
    let expected = 0n
    for (let bit = 0n; bit < 64n; bit++) if ((b >> bit) & 1n) expected ^= a << bit
    assert.equal(run(cipher.pclmulqdq, x, y, selector), expected)
  }
})
