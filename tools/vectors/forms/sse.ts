/** Forms of SSE to SSE4.2, AES, PCLMULQDQ and SHA on XMM registers (SDM vol. 2). */
import { ADDRESSING_64, anyFlags, anyMxcsr, bytes16, gpr, lanes, memory, packed, pd, ps, register, xmm } from '../form.ts'
import type { FormSpec, Group, Input, MemoryOptions } from '../form.ts'
import { float32, float64, integer } from '../random.ts'
import type { Domain } from '../random.ts'
import { addressingTurns } from './integer.ts'

const nextAddressing = addressingTurns()

const REGISTER_PAIRS: [number, number][] = [[1, 0], [9, 12], [3, 3]]

interface Row {
  /** Source and destination values. */
  domain: Domain
  /** Size of the memory operand; 0: there is no memory form. */
  bytes?: number
  /** Legacy SSE wants packed operands aligned. */
  aligned?: boolean
  /** No misaligned operands: the model at hand allows them, the manuals do not. */
  strict?: boolean
  features?: string[]
  count?: number
  extra?: Partial<FormSpec>
  inputs?: Input[]
}

/** `op source, destination` with registers and memory; `prefix` holds an immediate with its comma. */
export function rows(op: string, { domain, bytes = 16, aligned = bytes === 16, strict = false, features = [], count = 16, extra = {},
  inputs = [] }: Row, prefix = ''): FormSpec[] {
  const list: FormSpec[] = REGISTER_PAIRS.map(([source, destination], i) => ({
    text: `${op} ${prefix}%xmm${source}, %xmm${destination}`, features, count: i === 0 ? count : Math.ceil(count / 3),
    inputs: [anyFlags, xmm(destination, domain), xmm(source, domain), ...inputs], ...extra,
  }))
  if (bytes > 0) {
    const m = nextAddressing()
    const options: MemoryOptions = aligned ? { alignment: 16, strict } : {}
    list.push({ text: `${op} ${prefix}${m.text}, %xmm2`, features, count,
      inputs: [anyFlags, xmm(2, domain), memory(m, bytes, domain, options), ...inputs], ...extra })
  }
  return list
}

const arithmetic = (op: string, features: string[] = [], prefix = '', count = 48): FormSpec[] => {
  const suffix = op.slice(-2)
  const domain = suffix[1] === 'd' ? pd : ps
  const bytes = suffix === 'ss' ? 4 : suffix === 'sd' ? 8 : 16
  return rows(op, { domain, bytes, features, count, inputs: [anyMxcsr] }, prefix)
}

const FOUR = ['ps', 'ss', 'pd', 'sd']

function floating(): FormSpec[] {
  const list: FormSpec[] = []
  for (const op of ['add', 'sub', 'mul', 'div', 'min', 'max', 'sqrt']) for (const suffix of FOUR) list.push(...arithmetic(op + suffix))
  for (const suffix of FOUR) for (let n = 0; n < 8; n++) list.push(...arithmetic(`cmp${suffix}`, [], `$${n}, `, 12))
  for (const [op, suffix] of [['ucomi', 'ss'], ['ucomi', 'sd'], ['comi', 'ss'], ['comi', 'sd']]) {
    list.push(...arithmetic(op + suffix, [], '', 32))
  }
  for (const op of ['addsubps', 'addsubpd', 'haddps', 'haddpd', 'hsubps', 'hsubpd']) list.push(...arithmetic(op, ['pni']))
  for (const suffix of FOUR) for (const n of [0, 1, 2, 3, 4, 8, 12]) list.push(...arithmetic(`round${suffix}`, ['sse4_1'], `$${n}, `, 12))
  for (const n of [0xff, 0x31, 0x7f, 0xf2]) {
    list.push(...arithmetic('dpps', ['sse4_1'], `$${n}, `), ...arithmetic('dppd', ['sse4_1'], `$${n}, `, 12))
  }
  for (const op of ['rcpps', 'rsqrtps']) list.push(...rows(op, { domain: ps, extra: { compare: 'approximate' } }))
  for (const op of ['rcpss', 'rsqrtss']) list.push(...rows(op, { domain: ps, bytes: 4, extra: { compare: 'approximate' } }))
  for (const op of ['andps', 'andnps', 'orps', 'xorps', 'andpd', 'andnpd', 'orpd', 'xorpd']) {
    list.push(...rows(op, { domain: bytes16, count: 6 }))
  }
  for (const op of ['unpcklps', 'unpckhps', 'unpcklpd', 'unpckhpd']) list.push(...rows(op, { domain: bytes16, count: 4 }))
  for (const op of ['shufps', 'shufpd']) {
    for (const n of [0, 0x1b, 0xe4, 0x93]) list.push(...rows(op, { domain: bytes16, count: 3 }, `$${n}, `))
  }
  return list
}

/** Values about the limits of the integers, where conversions say "integer indefinite". */
const nearIntegers32 = lanes(float32, 32)
const nearIntegers64 = lanes(float64, 64)

function conversions(): FormSpec[] {
  const list: FormSpec[] = []
  const inputs = [anyMxcsr]
  list.push(...rows('cvtdq2ps', { domain: packed(32), inputs }), ...rows('cvtdq2pd', { domain: packed(32), bytes: 8, inputs }))
  for (const op of ['cvtps2dq', 'cvttps2dq']) list.push(...rows(op, { domain: nearIntegers32, count: 32, inputs }))
  for (const op of ['cvtpd2dq', 'cvttpd2dq', 'cvtpd2ps']) list.push(...rows(op, { domain: nearIntegers64, count: 32, inputs }))
  list.push(
    ...rows('cvtps2pd', { domain: ps, bytes: 8, count: 24, inputs }),
    ...rows('cvtss2sd', { domain: ps, bytes: 4, count: 24, inputs }),
    ...rows('cvtsd2ss', { domain: pd, bytes: 8, count: 40, inputs }),
  )
  for (const width of [32, 64] as const) {
    const s = width === 32 ? 'l' : 'q'
    for (const [to, domain, bytes] of [['ss', ps, 4], ['sd', pd, 8]] as const) {
      const m = nextAddressing()
      const n = nextAddressing()
      list.push({ text: `cvtsi2${to}${s} ${register(3, width)}, %xmm1`, inputs: [xmm(1, domain), gpr(3, width), ...inputs], count: 24 })
      list.push({ text: `cvtsi2${to}${s} ${m.text}, %xmm10`, inputs: [xmm(10, domain), memory(m, width / 8), ...inputs], count: 20 })
      for (const t of ['', 't']) {
        list.push({ text: `cvt${t}${to}2si %xmm1, ${register(0, width)}`, inputs: [xmm(1, domain), ...inputs], count: 40 })
        list.push({ text: `cvt${t}${to}2si ${n.text}, ${register(10, width)}`, inputs: [memory(n, bytes, domain), ...inputs], count: 24 })
      }
    }
  }
  return list
}

export const SSE_FLOAT: Group = { name: 'sse-float', forms: [...floating(), ...conversions()] }

// ---- integers ----

const ALL_WIDTHS = ['padd', 'psub', 'pcmpeq', 'pcmpgt', 'punpckl', 'punpckh']

function packedIntegers(): FormSpec[] {
  const list: FormSpec[] = []
  const add = (op: string, width: number, features: string[] = [], count = 12): number =>
    list.push(...rows(op, { domain: packed(width), features, count }))
  const widths: Record<string, number> = { b: 8, w: 16, d: 32, q: 64 }
  for (const op of ALL_WIDTHS) for (const s of ['b', 'w', 'd', 'q']) {
    if (s === 'q' && !['padd', 'psub'].includes(op)) continue
    const name = op.startsWith('punpck') ? op + { b: 'bw', w: 'wd', d: 'dq', q: '' }[s] : op + s
    add(name, widths[s])
  }
  add('punpcklqdq', 64)
  add('punpckhqdq', 64)
  for (const op of ['paddsb', 'paddusb', 'psubsb', 'psubusb', 'pavgb', 'pmaxub', 'pminub', 'psadbw']) add(op, 8)
  for (const op of ['paddsw', 'paddusw', 'psubsw', 'psubusw', 'pavgw', 'pmaxsw', 'pminsw', 'pmullw', 'pmulhw', 'pmulhuw', 'pmaddwd',
    'packsswb', 'packuswb']) add(op, 16)
  for (const op of ['packssdw', 'pmuludq']) add(op, 32)
  for (const op of ['pand', 'pandn', 'por', 'pxor']) add(op, 64, [], 6)
  for (const op of ['pabsb', 'psignb', 'pshufb', 'pmaddubsw']) add(op, 8, ['ssse3'])
  for (const op of ['pabsw', 'psignw', 'phaddw', 'phaddsw', 'phsubw', 'phsubsw', 'pmulhrsw']) add(op, 16, ['ssse3'])
  for (const op of ['pabsd', 'psignd', 'phaddd', 'phsubd']) add(op, 32, ['ssse3'])
  for (const op of ['pmaxsb', 'pminsb']) add(op, 8, ['sse4_1'])
  for (const op of ['pmaxuw', 'pminuw', 'phminposuw']) add(op, 16, ['sse4_1'])
  for (const op of ['pmaxsd', 'pminsd', 'pmaxud', 'pminud', 'pmulld', 'pmuldq', 'packusdw']) add(op, 32, ['sse4_1'])
  add('pcmpeqq', 64, ['sse4_1'])
  add('pcmpgtq', 64, ['sse4_2'])
  return list
}

function shiftsAndShuffles(): FormSpec[] {
  const list: FormSpec[] = []
  const count: Input = (state, random) => {
    state.xmm[1] = { low: random.pick([0n, 1n, 7n, 8n, 15n, 16n, 31n, 32n, 63n, 64n, 128n, 1n << 40n, random.u64()]), high: random.u64() }
  }
  for (const op of ['psllw', 'pslld', 'psllq', 'psrlw', 'psrld', 'psrlq', 'psraw', 'psrad']) {
    list.push({ text: `${op} %xmm1, %xmm0`, inputs: [xmm(0), count], count: 20 })
    const m = nextAddressing()
    list.push({ text: `${op} ${m.text}, %xmm2`, inputs: [xmm(2),
      memory(m, 16, (random) => BigInt(random.below(80)) | (random.u64() << 64n), { alignment: 16 })], count: 12 })
    for (const n of [0, 1, 7, 15, 16, 31, 32, 63, 64, 255]) {
      list.push({ text: `${op} $${n}, %xmm${n % 2 ? 3 : 11}`, inputs: [xmm(3), xmm(11)], count: 3 })
    }
  }
  for (const op of ['pslldq', 'psrldq']) {
    for (const n of [0, 1, 7, 8, 15, 16, 255]) list.push({ text: `${op} $${n}, %xmm5`, inputs: [xmm(5, bytes16)], count: 2 })
  }
  for (const op of ['pshufd', 'pshuflw', 'pshufhw']) {
    for (const n of [0, 0x1b, 0xe4, 0x93]) list.push(...rows(op, { domain: bytes16, count: 3 }, `$${n}, `))
  }
  for (const n of [0, 1, 7, 8, 15, 16, 17, 31, 32, 200]) {
    list.push(...rows('palignr', { domain: bytes16, features: ['ssse3'], count: 3 }, `$${n}, `))
  }
  for (const n of [0, 0x5a, 0xff, 0x0c]) {
    for (const op of ['blendps', 'blendpd', 'pblendw']) {
      list.push(...rows(op, { domain: bytes16, features: ['sse4_1'], count: 2 }, `$${n}, `))
    }
    list.push(...rows('mpsadbw', { domain: bytes16, features: ['sse4_1'], count: 4 }, `$${n & 7}, `))
    list.push(...rows('insertps', { domain: ps, bytes: 4, features: ['sse4_1'], count: 3 }, `$${n}, `))
  }
  for (const op of ['blendvps', 'blendvpd', 'pblendvb']) {
    list.push(...rows(op, { domain: bytes16, features: ['sse4_1'], count: 10, inputs: [xmm(0, bytes16)] }, '%xmm0, '))
  }
  for (const [op, bytes] of [['bw', 8], ['bd', 4], ['bq', 2], ['wd', 8], ['wq', 4], ['dq', 8]] as const) {
    for (const sign of ['s', 'z']) list.push(...rows(`pmov${sign}x${op}`, { domain: packed(8), bytes, features: ['sse4_1'], count: 6 }))
  }
  list.push(...rows('ptest', { domain: (random, width) => (random.chance(0.3) ? random.pick([0n, (1n << BigInt(width)) - 1n, 1n << 100n])
    : integer(random, 64)), features: ['sse4_1'], count: 24 }))
  list.push(
    ...rows('movddup', { domain: bytes16, bytes: 8, features: ['pni'], count: 3 }),
    ...rows('movsldup', { domain: bytes16, features: ['pni'], count: 3 }),
    ...rows('movshdup', { domain: bytes16, features: ['pni'], count: 3 }),
  )
  return list
}

function insertsAndExtracts(): FormSpec[] {
  const list: FormSpec[] = []
  const cases: [string, 8 | 16 | 32 | 64, string[]][] = [['b', 8, ['sse4_1']], ['w', 16, []], ['d', 32, ['sse4_1']], ['q', 64, ['sse4_1']]]
  for (const [s, width, features] of cases) {
    for (const n of [0, 1, 5, 0xff]) {
      const [a, b] = [nextAddressing(), nextAddressing()]
      const full = width === 64 ? 64 : 32
      list.push({ text: `pinsr${s} $${n}, ${register(3, full)}, %xmm1`, inputs: [gpr(3, 64), xmm(1)], features, count: 4 })
      list.push({ text: `pinsr${s} $${n}, ${a.text}, %xmm9`, inputs: [memory(a, width / 8), xmm(9)], features, count: 4 })
      list.push({ text: `pextr${s} $${n}, %xmm1, ${register(0, full)}`, inputs: [xmm(1)], features, count: 4 })
      list.push({ text: `pextr${s} $${n}, %xmm12, ${b.text}`, inputs: [xmm(12), memory(b, width / 8)], features: ['sse4_1'], count: 4 })
    }
  }
  for (const n of [0, 1, 2, 3, 0xfe]) {
    list.push(
      { text: `extractps $${n}, %xmm1, %eax`, inputs: [xmm(1)], features: ['sse4_1'], count: 2 },
      { text: `extractps $${n}, %xmm1, 2(%rsi)`, inputs: [xmm(1)], features: ['sse4_1'], count: 2 },
    )
  }
  for (const op of ['pmovmskb', 'movmskps', 'movmskpd']) {
    for (const r of ['%eax', '%r10d']) list.push({ text: `${op} %xmm1, ${r}`, inputs: [xmm(1, bytes16)], count: 6 })
  }
  list.push({ text: 'maskmovdqu %xmm1, %xmm2', inputs: [xmm(1, bytes16), xmm(2, bytes16), memory(ADDRESSING_64[1], 16)], count: 12 })
  return list
}

function moves(): FormSpec[] {
  const list: FormSpec[] = []
  const both = (op: string, bytes: number, aligned: boolean, features: string[] = []): void => {
    const [a, b] = [nextAddressing(), nextAddressing()]
    const options: MemoryOptions = aligned ? { alignment: bytes } : {}
    list.push({ text: `${op} ${a.text}, %xmm1`, inputs: [xmm(1, bytes16), memory(a, bytes, bytes16, options)], features, count: 16 })
    list.push({ text: `${op} %xmm9, ${b.text}`, inputs: [xmm(9, bytes16), memory(b, bytes, bytes16, options)], features, count: 16 })
  }
  for (const op of ['movaps', 'movapd', 'movdqa']) both(op, 16, true)
  for (const op of ['movups', 'movupd', 'movdqu']) both(op, 16, false)
  for (const op of ['movlps', 'movhps', 'movlpd', 'movhpd', 'movsd', 'movq']) both(op, 8, false)
  for (const op of ['movss', 'movd']) both(op, 4, false)
  for (const op of ['movaps', '{store} movaps', 'movapd', 'movdqa', '{store} movdqu', 'movups', 'movss', '{store} movss', 'movsd',
    '{store} movsd', 'movq', '{store} movq', 'movhlps', 'movlhps']) {
    list.push({ text: `${op} %xmm1, %xmm10`, inputs: [xmm(1, bytes16), xmm(10, bytes16)], count: 2 })
  }
  for (const op of ['movntps', 'movntpd', 'movntdq']) {
    list.push({ text: `${op} %xmm1, 16(%rsi)`, inputs: [(state, random) =>
      (state.gpr[6] = BigInt(0x10000000 + random.below(64) * (random.chance(0.1) ? 8 : 16))), xmm(1, bytes16)], count: 8 })
  }
  list.push(
    { text: 'movntdqa (%rsi), %xmm3', inputs: [memory(ADDRESSING_64[0], 16, bytes16, { alignment: 16 })], features: ['sse4_1'], count: 8 },
    { text: 'lddqu (%rsi), %xmm3', inputs: [memory(ADDRESSING_64[0], 16, bytes16)], features: ['pni'], count: 8 },
  )
  list.push(
    { text: 'movntil %eax, (%rdi)', inputs: [memory(ADDRESSING_64[1], 4)], count: 4 },
    { text: 'movntiq %rax, (%rdi)', inputs: [memory(ADDRESSING_64[1], 8)], count: 4 },
  )
  for (const [text, inputs] of [['movd %eax, %xmm1', [gpr(0, 64)]], ['movq %rax, %xmm10', [gpr(0, 64)]],
    ['movd %xmm1, %ebx', [xmm(1, bytes16)]], ['movq %xmm10, %r15', [xmm(10, bytes16)]]] as [string, Input[]][]) list.push({ text, inputs,
    count: 3 })
  list.push({ text: 'ldmxcsr (%rsi)', inputs: [(state, random) => (state.gpr[6] = BigInt(0x10000000 + random.below(4096))),
    (state, random) => {
    const value = random.below(0x10000) | (random.chance(0.2) ? 1 << (20 + random.below(10)) : 0)
    for (let i = 0; i < 4; i++) state.memory[Number(state.gpr[6]) - 0x10000000 + i] = value >> (8 * i)
  }], count: 16 })
  list.push({ text: 'stmxcsr (%rdi)', inputs: [anyMxcsr, memory(ADDRESSING_64[1], 4)], count: 8 })
  for (const text of ['lfence', 'mfence', 'sfence', 'prefetcht0 (%rsi)', 'prefetchnta 0x7fffffff(%rsi)']) list.push({ text, count: 1 })
  return list
}

export const SSE_INTEGER: Group = { name: 'sse-integer', forms: [...packedIntegers(), ...shiftsAndShuffles(), ...insertsAndExtracts(),
  ...moves()] }

// ---- strings, ciphers, hashes ----

/** Text of few letters, often with an end, so that comparisons match. */
const text: Domain = (random) => {
  let value = 0n
  const wide = random.chance(0.5)
  for (let i = 0; i < 16; i++) value |= BigInt(random.chance(0.06) ? 0 : random.pick([0x61, 0x62, 0x63, 0x80, 0xff])) << BigInt(8 * i)
  return wide ? value & 0x00ff00ff00ff00ff00ff00ff00ff00ffn : value
}

function textProcessing(): FormSpec[] {
  const list: FormSpec[] = []
  const lengths: Input[] = [0, 2].map((number) => gpr(number, 64,
    (random) => random.pick([0n, 1n, 3n, 8n, 9n, 15n, 16n, 17n, -1n & 0xffff_ffff_ffff_ffffn, -5n & 0xffff_ffffn, 0x1_0000_0002n,
    random.u64()])))
  for (const op of ['pcmpestri', 'pcmpestrm', 'pcmpistri', 'pcmpistrm']) {
    for (let n = 0; n < 0x80; n += 3) {
      const inputs = [anyFlags, xmm(1, text), xmm(2, text), ...(op[4] === 'e' ? lengths : [])]
      list.push({ text: `${op} $${n}, %xmm1, %xmm2`, inputs, features: ['sse4_2'], count: 8 })
    }
    list.push({ text: `${op} $0x0c, 1(%rsi), %xmm2`, inputs: [anyFlags, xmm(2, text), ...lengths,
      memory({ text: '', aim: (state, address) => (state.gpr[6] = address - 1n) }, 16, text)], features: ['sse4_2'], count: 12 })
  }
  list.push({ text: 'rex.w pcmpestri $0x18, %xmm1, %xmm2', inputs: [anyFlags, xmm(1, text), xmm(2, text), ...lengths],
    features: ['sse4_2'], count: 16 })
  return list
}

function ciphers(): FormSpec[] {
  const list: FormSpec[] = []
  for (const op of ['aesenc', 'aesenclast', 'aesdec', 'aesdeclast', 'aesimc']) {
    list.push(...rows(op, { domain: bytes16, features: ['aes'], count: 10 }))
  }
  for (const n of [0, 1, 0x1b, 0x80]) list.push(...rows('aeskeygenassist', { domain: bytes16, features: ['aes'], count: 4 }, `$${n}, `))
  for (const n of [0, 1, 0x10, 0x11, 0xee]) {
    list.push(...rows('pclmulqdq', { domain: packed(64), features: ['pclmulqdq'], count: 6 }, `$${n}, `))
  }
  for (const op of ['sha1msg1', 'sha1msg2', 'sha1nexte', 'sha256msg1', 'sha256msg2']) {
    list.push(...rows(op, { domain: bytes16, features: ['sha_ni'], strict: true, count: 8 }))
  }
  list.push(...rows('sha256rnds2', { domain: bytes16, features: ['sha_ni'], strict: true, count: 8, inputs: [xmm(0, bytes16)] }, '%xmm0, '))
  for (const n of [0, 1, 2, 3]) {
    list.push(...rows('sha1rnds4', { domain: bytes16, features: ['sha_ni'], strict: true, count: 6 }, `$${n}, `))
  }
  return list
}

export const SSE_TEXT: Group = { name: 'sse-text', forms: textProcessing() }
export const CIPHER: Group = { name: 'cipher', forms: ciphers() }
