/** Forms of AVX, AVX2, F16C and FMA (SDM vol. 2). An engine without AVX lists them as not run. */
import { ADDRESSING_64, anyFlags, anyMxcsr, bytes16, gpr, memory, packed, pd, ps, register, writeMemory, xmm, ymmHigh } from '../form.ts'
import type { FormSpec, Group, Input, MemoryOptions } from '../form.ts'
import { float32, integer } from '../random.ts'
import type { Domain } from '../random.ts'
import { WINDOW } from '../../../test/vectors/state.ts'
import { addressingTurns } from './integer.ts'

const nextAddressing = addressingTurns()

type Size = 16 | 32
const name = (number: number, size: Size): string => `%${size === 32 ? 'y' : 'x'}mm${number}`
const both = (number: number, domain: Domain): Input => (state, random) => {
  xmm(number, domain)(state, random)
  ymmHigh(number, domain)(state, random)
}

interface Row {
  domain: Domain
  features?: string[]
  /** Which lengths exist. */
  sizes?: Size[]
  /** Size of the memory operand, when it is not that of the registers. */
  bytes?: number
  count?: number
  inputs?: Input[]
  extra?: Partial<FormSpec>
  /** The destination is a source too. */
  accumulates?: boolean
  /** An immediate, with its comma. */
  prefix?: string
  /** The fourth operand, which is written first, with its comma. */
  selector?: (size: Size) => string
}

const AVX = ['avx']
const AVX2 = ['avx2']

function forms(op: string, operands: 2 | 3, row: Row): FormSpec[] {
  const { domain, features = AVX, sizes = [16, 32], count = 8, inputs = [], extra = {}, prefix = '', selector = () => '' } = row
  return sizes.flatMap((size) => {
    const m = nextAddressing()
    const bytes = row.bytes ?? size
    const head = `${op} ${prefix}${selector(size)}`
    const needed = features === AVX2 && size === 16 ? AVX : features
    const text = (source: string, first: number, destination: number): string =>
      operands === 3 ? `${head}${source}, ${name(first, size)}, ${name(destination, size)}` : `${head}${source}, ${name(destination, size)}`
    const registers = (...numbers: number[]): Input[] => [anyFlags, ...numbers.map((number) => both(number, domain)), ...inputs]
    const destination = (number: number): Input[] => (row.accumulates ? [both(number, domain)] : [])
    return [
      { text: text(name(1, size), 2, 0), inputs: [...registers(1, 2), ...destination(0)], count, features: needed, ...extra },
      { text: text(name(10, size), 13, 9), inputs: [...registers(10, 13), ...destination(9)], count: Math.ceil(count / 2),
        features: needed, ...extra },
      { text: text(name(1, size), 1, 1), inputs: registers(1), count: Math.ceil(count / 4), features: needed, ...extra },
      { text: text(m.text, 2, 5), inputs: [...registers(2), ...destination(5), memory(m, bytes, domain)], count, features: needed,
        ...extra },
    ]
  })
}

const three = (op: string, row: Row): FormSpec[] => forms(op, 3, row)
const two = (op: string, row: Row): FormSpec[] => forms(op, 2, row)
const scalar = (suffix: string): Partial<Row> => (suffix === 'ss' ? { sizes: [16], bytes: 4 } : suffix === 'sd' ? { sizes: [16], bytes: 8 }
  : {})
const domainOf = (suffix: string): Domain => (suffix[1] === 'd' ? pd : ps)

function floating(): FormSpec[] {
  const list: FormSpec[] = []
  const suffixes = ['ps', 'pd', 'ss', 'sd']
  const inputs = [anyMxcsr]
  for (const s of suffixes) {
    const row: Row = { domain: domainOf(s), ...scalar(s), inputs, count: 12 }
    for (const op of ['vadd', 'vsub', 'vmul', 'vdiv', 'vmin', 'vmax']) list.push(...three(op + s, row))
    list.push(...(s[0] === 'p' ? two : three)(`vsqrt${s}`, row))
    for (let n = 0; n < 32; n++) {
      list.push(...three(`vcmp${s}`, { ...row, prefix: `$${n}, `, count: 6, ...(n % 4 && s[0] === 'p' ? { sizes: [32] as Size[] } : {}) }))
    }
    for (const n of [0, 3, 4, 9]) list.push(...(s[0] === 'p' ? two : three)(`vround${s}`, { ...row, prefix: `$${n}, `, count: 6 }))
    if (s === 'ps' || s === 'ss') for (const op of ['vrcp', 'vrsqrt']) list.push(...(s === 'ps' ? two : three)(op + s,
      { ...row, inputs: [], extra: { compare: 'approximate' } }))
  }
  for (const op of ['vaddsub', 'vhadd', 'vhsub']) {
    for (const s of ['ps', 'pd']) list.push(...three(op + s, { domain: domainOf(s), inputs, count: 10 }))
  }
  for (const op of ['vand', 'vandn', 'vor', 'vxor', 'vunpckl', 'vunpckh']) {
    for (const s of ['ps', 'pd']) list.push(...three(op + s, { domain: bytes16, count: 3 }))
  }
  for (const s of ['ps', 'pd']) for (const n of [0x1b, 0xe4, 0x5a]) {
    list.push(
      ...three(`vshuf${s}`, { domain: bytes16, prefix: `$${n}, `, count: 2 }),
      ...three(`vblend${s}`, { domain: bytes16, prefix: `$${n}, `, count: 2 }),
    )
    list.push(...two(`vpermil${s}`, { domain: bytes16, prefix: `$${n}, `, count: 2 }))
  }
  for (const s of ['ps', 'pd']) {
    list.push(...three(`vpermil${s}`, { domain: bytes16, count: 4 }), ...two(`vtest${s}`, { domain: packed(32), count: 10 }))
  }
  for (const op of ['vblendvps', 'vblendvpd']) {
    list.push(...three(op, { domain: bytes16, count: 4, inputs: [both(7, bytes16)], selector: (size) => `${name(7, size)}, ` }))
  }
  list.push(
    ...three('vdpps', { domain: ps, inputs, prefix: '$0xf1, ' }),
    ...three('vdppd', { domain: pd, inputs, prefix: '$0x31, ', sizes: [16] }),
  )
  for (const op of ['vucomiss', 'vcomiss']) list.push(...two(op, { domain: ps, sizes: [16], bytes: 4, inputs }))
  for (const op of ['vucomisd', 'vcomisd']) list.push(...two(op, { domain: pd, sizes: [16], bytes: 8, inputs }))
  return list
}

function conversions(): FormSpec[] {
  const list: FormSpec[] = []
  const inputs = [anyMxcsr]
  list.push(
    ...two('vcvtdq2ps', { domain: packed(32), inputs }),
    ...two('vcvtps2dq', { domain: ps, inputs, count: 16 }),
    ...two('vcvttps2dq', { domain: ps, inputs, count: 16 }),
  )
  const uneven = (text: string, domain: Domain, count = 12, features = AVX): number =>
    list.push({ text, inputs: [both(1, domain), ...inputs], count, features })
  for (const [op, domain] of [['vcvtdq2pd', packed(32)], ['vcvtps2pd', ps]] as [string, Domain][]) {
    uneven(`${op} %xmm1, %xmm0`, domain)
    uneven(`${op} %xmm1, %ymm0`, domain)
    list.push({ text: `${op} (%rsi), %ymm3`, inputs: [memory(ADDRESSING_64[0], 16, domain), ...inputs], features: AVX })
  }
  for (const op of ['vcvtpd2ps', 'vcvtpd2dq', 'vcvttpd2dq']) for (const [s, r] of [['x', '%xmm1'], ['y', '%ymm1']]) {
    uneven(`${op}${s} ${r}, %xmm0`, pd, 16)
    list.push({ text: `${op}${s} (%rsi), %xmm3`, inputs: [memory(ADDRESSING_64[0], s === 'x' ? 16 : 32, pd), ...inputs], features: AVX })
  }
  list.push(
    ...three('vcvtss2sd', { domain: ps, sizes: [16], bytes: 4, inputs }),
    ...three('vcvtsd2ss', { domain: pd, sizes: [16], bytes: 8, inputs, count: 16 }),
  )
  for (const width of [32, 64] as const) {
    const s = width === 32 ? 'l' : 'q'
    for (const to of ['ss', 'sd']) {
      list.push({ text: `vcvtsi2${to}${s} ${register(3, width)}, %xmm1, %xmm0`, inputs: [both(1, bytes16), gpr(3, width), ...inputs],
        count: 10, features: AVX })
      for (const t of ['', 't']) {
        list.push({ text: `vcvt${t}${to}2si %xmm1, ${register(0, width)}`, inputs: [both(1, domainOf(to)), ...inputs], count: 16,
          features: AVX })
      }
    }
  }
  const half: Domain = (random, width) => {
    let value = 0n
    for (let at = 0; at < width; at += 16) {
      value |= random.pick([0n, 0x3c00n, 1n, 0x3ffn, 0x400n, 0x7bffn, 0x7c00n, 0x7c01n, 0x7e00n, 0xfc00n, 0x8000n,
        random.u64() & 0xffffn]) << BigInt(at)
    }
    return value
  }
  uneven('vcvtph2ps %xmm1, %xmm0', half, 16, ['f16c'])
  uneven('vcvtph2ps %xmm1, %ymm0', half, 16, ['f16c'])
  list.push({ text: 'vcvtph2ps (%rsi), %ymm0', inputs: [memory(ADDRESSING_64[0], 16, half), ...inputs], features: ['f16c'] })
  const nearHalf: Domain = (random, width) => {
    let value = 0n
    for (let at = 0; at < width; at += 32) {
      value |= (random.chance(0.4) ? float32(random, 32) : (random.u64() & 0x807f_ffffn)
        | (BigInt(random.pick([127 - 26 + random.below(30), 127 + 13 + random.below(4)])) << 23n)) << BigInt(at)
    }
    return value
  }
  for (const n of [0, 1, 2, 3, 4]) {
    uneven(`vcvtps2ph $${n}, %xmm1, %xmm0`, nearHalf, 12, ['f16c'])
    uneven(`vcvtps2ph $${n}, %ymm1, %xmm0`, nearHalf, 12, ['f16c'])
    list.push({ text: `vcvtps2ph $${n}, %ymm1, (%rsi)`, inputs: [both(1, nearHalf), ...inputs, memory(ADDRESSING_64[0], 16)],
      features: ['f16c'], count: 6 })
  }
  return list
}

const LANE: Record<string, number> = { b: 8, w: 16, d: 32, q: 64 }

function integers(): FormSpec[] {
  const list: FormSpec[] = []
  const add = (op: string, lane: number): number => list.push(...three(op, { domain: packed(lane), features: AVX2, count: 6 }))
  for (const op of ['vpadd', 'vpsub', 'vpcmpeq', 'vpcmpgt']) for (const s of 'bwdq') add(op + s, LANE[s])
  for (const op of ['vpunpckl', 'vpunpckh']) for (const s of ['bw', 'wd', 'dq', 'qdq']) add(op + s, 64)
  for (const op of ['vpaddsb', 'vpaddusb', 'vpsubsb', 'vpsubusb', 'vpavgb', 'vpmaxub', 'vpminub', 'vpmaxsb', 'vpminsb', 'vpsadbw',
    'vpsignb', 'vpshufb', 'vpmaddubsw']) add(op, 8)
  for (const op of ['vpaddsw', 'vpaddusw', 'vpsubsw', 'vpsubusw', 'vpavgw', 'vpmaxsw', 'vpminsw', 'vpmaxuw', 'vpminuw', 'vpmullw',
    'vpmulhw', 'vpmulhuw', 'vpmaddwd', 'vpacksswb', 'vpackuswb', 'vpsignw', 'vphaddw', 'vphaddsw', 'vphsubw', 'vphsubsw',
    'vpmulhrsw']) add(op, 16)
  for (const op of ['vpackssdw', 'vpackusdw', 'vpmuludq', 'vpmuldq', 'vpmulld', 'vpmaxsd', 'vpminsd', 'vpmaxud', 'vpminud', 'vpsignd',
    'vphaddd', 'vphsubd', 'vpand', 'vpandn', 'vpor', 'vpxor']) add(op, 32)
  for (const s of 'bwd') list.push(...two(`vpabs${s}`, { domain: packed(LANE[s]), features: AVX2, count: 4 }))
  list.push(...two('vphminposuw', { domain: packed(16), sizes: [16] }), ...two('vptest', { domain: packed(64), features: AVX, count: 10 }))
  for (const n of [0, 3, 0x1b, 17]) {
    for (const op of ['vpshufd', 'vpshuflw', 'vpshufhw']) {
      list.push(...two(op, { domain: bytes16, features: AVX2, prefix: `$${n}, `, count: 2 }))
    }
    for (const op of ['vpalignr', 'vpblendw', 'vmpsadbw']) {
      list.push(...three(op, { domain: bytes16, features: AVX2, prefix: `$${n}, `, count: 2 }))
    }
    for (const size of [16, 32] as const) {
      list.push(...three('vpblendd', { domain: bytes16, features: ['avx2'], prefix: `$${n}, `, count: 2, sizes: [size] }))
    }
    for (const op of ['vpslldq', 'vpsrldq']) {
      for (const size of [16, 32] as const) {
        list.push({ text: `${op} $${n}, ${name(1, size)}, ${name(0, size)}`, inputs: [both(1, bytes16)], count: 2,
          features: size === 32 ? AVX2 : AVX })
      }
    }
  }
  list.push(...three('vpblendvb', { domain: bytes16, features: AVX2, count: 4, inputs: [both(7, bytes16)],
    selector: (size) => `${name(7, size)}, ` }))
  for (const s of ['bw', 'bd', 'bq', 'wd', 'wq', 'dq']) for (const sign of ['s', 'z']) for (const size of [16, 32] as const) {
    const bytes = (size * LANE[s[0]]) / LANE[s[1]]
    list.push({ text: `vpmov${sign}x${s} %xmm1, ${name(0, size)}`, inputs: [both(1, packed(8))], count: 3,
      features: size === 32 ? AVX2 : AVX })
    list.push({ text: `vpmov${sign}x${s} (%rsi), ${name(0, size)}`, inputs: [memory(ADDRESSING_64[0], bytes, packed(8))], count: 4,
      features: size === 32 ? AVX2 : AVX })
  }
  const count: Input = (state, random) => (state.xmm[1] = { low: random.pick([0n, 1n, 15n, 16n, 31n, 32n, 63n, 64n, 1n << 33n]),
    high: random.u64() })
  for (const op of ['vpsllw', 'vpslld', 'vpsllq', 'vpsrlw', 'vpsrld', 'vpsrlq', 'vpsraw', 'vpsrad']) for (const size of [16, 32] as const) {
    const features = size === 32 ? AVX2 : AVX
    list.push({ text: `${op} %xmm1, ${name(2, size)}, ${name(0, size)}`, inputs: [both(2, packed(16)), count], count: 8, features })
    for (const n of [1, 31, 70]) {
      list.push({ text: `${op} $${n}, ${name(2, size)}, ${name(8, size)}`, inputs: [both(2, packed(16))], count: 2, features })
    }
  }
  const counts: Domain = (random, width) => {
    let value = 0n
    for (let at = 0; at < width; at += 32) {
      value |= random.pick([0n, 1n, 31n, 32n, 33n, 63n, 64n, 1n << 31n, BigInt(random.below(64))]) << BigInt(at)
    }
    return value
  }
  for (const op of ['vpsllvd', 'vpsllvq', 'vpsrlvd', 'vpsrlvq', 'vpsravd']) for (const size of [16, 32] as const) {
    list.push({ text: `${op} ${name(1, size)}, ${name(2, size)}, ${name(0, size)}`, inputs: [both(2, packed(32)), both(1, counts)],
      count: 8, features: ['avx2'] })
    list.push({ text: `${op} (%rsi), ${name(2, size)}, ${name(0, size)}`,
      inputs: [both(2, packed(32)), memory(ADDRESSING_64[0], size, counts)], count: 6, features: ['avx2'] })
  }
  return list
}

function permutes(): FormSpec[] {
  const list: FormSpec[] = []
  const y = (text: string, count: number, features: string[], inputs: Input[] = []): number =>
    list.push({ text, inputs: [both(1, bytes16), both(2, bytes16), both(3, bytes16), ...inputs], count, features })
  for (const n of [0, 1, 0x20, 0x31, 0x88, 0x13]) {
    y(`vperm2f128 $${n}, %ymm1, %ymm2, %ymm0`, 2, AVX)
    y(`vperm2i128 $${n}, %ymm1, %ymm2, %ymm0`, 2, AVX2)
    y(`vpermq $${n}, %ymm1, %ymm0`, 2, AVX2)
    y(`vpermpd $${n}, %ymm1, %ymm0`, 2, AVX2)
  }
  for (const n of [0, 1]) {
    for (const [t, features] of [['f', AVX], ['i', AVX2]] as [string, string[]][]) {
      y(`vinsert${t}128 $${n}, %xmm1, %ymm2, %ymm0`, 2, features)
      y(`vextract${t}128 $${n}, %ymm1, %xmm0`, 2, features)
      y(`vinsert${t}128 $${n}, (%rsi), %ymm2, %ymm0`, 4, features, [memory(ADDRESSING_64[0], 16)])
      y(`vextract${t}128 $${n}, %ymm1, (%rsi)`, 4, features, [memory(ADDRESSING_64[0], 16)])
    }
  }
  y('vpermd %ymm1, %ymm2, %ymm0', 6, AVX2)
  y('vpermps %ymm1, %ymm2, %ymm0', 6, AVX2)
  y('vpermd (%rsi), %ymm2, %ymm0', 6, AVX2, [memory(ADDRESSING_64[0], 32)])
  for (const [op, bytes, sizes, features] of [
    ['vbroadcastss', 4, [16, 32], AVX], ['vbroadcastsd', 8, [32], AVX], ['vbroadcastf128', 16, [32], AVX],
      ['vbroadcasti128', 16, [32], AVX2],
    ['vpbroadcastb', 1, [16, 32], AVX2], ['vpbroadcastw', 2, [16, 32], AVX2], ['vpbroadcastd', 4, [16, 32], AVX2],
      ['vpbroadcastq', 8, [16, 32], AVX2],
  ] as [string, number, Size[], string[]][]) for (const size of sizes) {
    y(`${op} (%rsi), ${name(0, size)}`, 4, features, [memory(ADDRESSING_64[0], bytes)])
    if (bytes < 16) y(`${op} %xmm1, ${name(0, size)}`, 2, AVX2)
  }
  // A masked element that lies out of what exists is no fault.
  const edge: Input = (state, random) => (state.gpr[6] = BigInt(random.pick([WINDOW + 0x100, WINDOW + 0x2000 - 16, WINDOW + 0x2000 - 8,
    WINDOW - 16, WINDOW + 0x0ff5])))
  for (const [op, features] of [['vmaskmovps', AVX], ['vmaskmovpd', AVX], ['vpmaskmovd', AVX2], ['vpmaskmovq', AVX2]] as [string,
    string[]][]) for (const size of [16, 32] as const) {
    y(`${op} (%rsi), ${name(1, size)}, ${name(0, size)}`, 12, features, [edge])
    y(`${op} ${name(2, size)}, ${name(1, size)}, (%rsi)`, 12, features, [edge])
  }
  return list
}

/** Gathers: indices into the window, some elements masked off; a masked element may point out of what exists. */
function gathers(): FormSpec[] {
  const list: FormSpec[] = []
  for (const [op, element, index] of [['vpgatherdd', 4, 4], ['vpgatherdq', 8, 4], ['vpgatherqd', 4, 8], ['vpgatherqq', 8, 8],
    ['vgatherdps', 4, 4], ['vgatherdpd', 8, 4], ['vgatherqps', 4, 8], ['vgatherqpd', 8, 8]] as const) {
    for (const size of [16, 32] as const) {
      const data: Size = element === 4 && index === 8 ? 16 : size
      const indices: Size = element === 8 && index === 4 ? 16 : size
      list.push({
        text: `${op} ${name(3, data)}, 8(%rsi,${name(2, indices)},4), ${name(1, data)}`, count: 14, features: ['avx2'],
        inputs: [both(1, bytes16), maskAndIndices(element, index), (state) => (state.gpr[6] = BigInt(WINDOW + 0x1000))],
      })
    }
  }
  return list
}

/** Masks in YMM3, indices in YMM2; the order in which elements fault is not defined, so none that is asked for does. */
function maskAndIndices(element: 4 | 8, index: 4 | 8): Input {
  return (state, random) => {
    let [masks, indices] = [0n, 0n]
    for (let i = 0; i < 8; i++) {
      const wanted = random.chance(0.6)
      const mask = (BigInt.asUintN(8 * element - 1, random.u64())
        | (wanted ? 1n << BigInt(8 * element - 1) : 0n)) << BigInt(8 * element * i)
      const far = !wanted && random.chance(0.5)
      const offset = BigInt.asUintN(8 * index, BigInt(random.below(0x780) - 0x3c0) + (far ? 0x4000n : 0n)) << BigInt(8 * index * i)
      masks |= mask
      indices |= offset
    }
    const set = (number: number, value: bigint): void => {
      const part = (n: bigint): bigint => BigInt.asUintN(64, value >> (64n * n))
      state.xmm[number] = { low: part(0n), high: part(1n) }
      state.ymmHigh![number] = { low: part(2n), high: part(3n) }
    }
    set(3, masks)
    set(2, indices)
  }
}

function moves(): FormSpec[] {
  const list: FormSpec[] = []
  const add = (text: string, inputs: Input[], count = 3): number => list.push({ text, inputs, count, features: AVX })
  const pair = (op: string, size: Size, bytes: number, alignment = 0): void => {
    const [a, b] = [nextAddressing(), nextAddressing()]
    const options: MemoryOptions = alignment ? { alignment } : {}
    add(`${op} ${a.text}, ${name(1, size)}`, [both(1, bytes16), memory(a, bytes, bytes16, options)], 8)
    add(`${op} ${name(9, size)}, ${b.text}`, [both(9, bytes16), memory(b, bytes, bytes16, options)], 8)
  }
  for (const size of [16, 32] as const) {
    for (const op of ['vmovaps', 'vmovapd', 'vmovdqa']) pair(op, size, size, size)
    for (const op of ['vmovups', 'vmovupd', 'vmovdqu']) pair(op, size, size)
    for (const op of ['vmovaps', 'vmovdqu', 'vmovups', '{store} vmovdqa']) {
      add(`${op} ${name(1, size)}, ${name(8, size)}`, [both(1, bytes16)], 2)
    }
    for (const op of ['vmovddup', 'vmovsldup', 'vmovshdup']) {
      list.push(...two(op, { domain: bytes16, sizes: [size], count: 2, bytes: op === 'vmovddup' && size === 16 ? 8 : size }))
    }
    for (const op of ['vmovntps', 'vmovntdq']) {
      add(`${op} ${name(1, size)}, (%rsi)`, [both(1, bytes16), memory(ADDRESSING_64[0], size, bytes16, { alignment: size })], 4)
    }
    for (const op of ['vmovmskps', 'vmovmskpd', 'vpmovmskb']) {
      list.push({ text: `${op} ${name(1, size)}, %eax`, inputs: [both(1, bytes16)], count: 4,
        features: op[1] === 'p' && size === 32 ? AVX2 : AVX })
    }
    add(`vlddqu (%rsi), ${name(1, size)}`, [memory(ADDRESSING_64[0], size)], 3)
  }
  pair('vmovss', 16, 4)
  pair('vmovsd', 16, 8)
  pair('vmovd', 16, 4)
  pair('vmovq', 16, 8)
  for (const op of ['vmovss', 'vmovsd', 'vmovhlps', 'vmovlhps', '{store} vmovss']) {
    add(`${op} %xmm1, %xmm2, %xmm8`, [both(1, bytes16), both(2, bytes16)])
  }
  for (const op of ['vmovlps', 'vmovhps', 'vmovlpd', 'vmovhpd']) {
    add(`${op} (%rsi), %xmm2, %xmm0`, [both(2, bytes16), memory(ADDRESSING_64[0], 8)], 4)
    add(`${op} %xmm2, (%rsi)`, [both(2, bytes16), memory(ADDRESSING_64[0], 8)], 4)
  }
  for (const text of ['vmovd %eax, %xmm1', 'vmovq %rax, %xmm1', 'vmovd %xmm1, %eax', 'vmovq %xmm1, %rax', 'vzeroupper', 'vzeroall',
    'vldmxcsr (%rsi)', 'vstmxcsr (%rsi)', 'vmaskmovdqu %xmm1, %xmm2']) {
    add(text, [both(1, bytes16), both(2, bytes16), anyMxcsr, (state) => writeMemory(state, state.gpr[6], 0x1fa0n, 4)])
  }
  for (const [s, r] of [['b', '%ebx'], ['w', '%ebx'], ['d', '%ebx'], ['q', '%rbx']]) for (const n of [0, 3, 9]) {
    add(`vpinsr${s} $${n}, ${r}, %xmm1, %xmm0`, [both(1, bytes16)], 2)
    add(`vpextr${s} $${n}, %xmm1, ${r}`, [both(1, bytes16)], 2)
    add(`vpextr${s} $${n}, %xmm1, (%rsi)`, [both(1, bytes16)], 2)
  }
  for (const n of [0, 0x5a, 0xcf]) add(`vinsertps $${n}, %xmm1, %xmm2, %xmm0`, [both(1, bytes16), both(2, bytes16)], 2)
  add('vextractps $2, %xmm1, %eax', [both(1, bytes16)], 2)
  for (const op of ['vaesenc', 'vaesenclast', 'vaesdec', 'vaesdeclast']) {
    list.push(...three(op, { domain: bytes16, sizes: [16], count: 4, features: ['avx', 'aes'] }))
  }
  list.push(
    ...two('vaesimc', { domain: bytes16, sizes: [16], count: 4, features: ['avx', 'aes'] }),
    ...three('vpclmulqdq', { domain: packed(64), sizes: [16], count: 4, features: ['avx', 'pclmulqdq'], prefix: '$0x10, ' }),
  )
  for (const op of ['vpcmpistri', 'vpcmpestrm']) {
    list.push({ text: `${op} $0x4a, %xmm1, %xmm2`, inputs: [anyFlags, both(1, packed(8)), both(2, packed(8)), gpr(0, 64, integer),
      gpr(2, 64, integer)], count: 6, features: AVX })
  }
  // VEX.L or VEX.vvvv where they must be 0 and 1111b.
  for (const text of ['.byte 0xc5, 0xfc, 0x2e, 0xc1 # vucomiss with L=1: ignored', '.byte 0xc5, 0xf0, 0x51, 0xc1 # vsqrtps with vvvv: ud',
    '.byte 0xc5, 0xfd, 0x6e, 0xc0 # vmovd with L=1: ud', '.byte 0xf3, 0xc5, 0xf8, 0x58, 0xc1 # REP before VEX: ud',
    '.byte 0x48, 0xc5, 0xf8, 0x58, 0xc1 # REX before VEX: ud', '.byte 0xf0, 0xc5, 0xf8, 0x58, 0xc1 # LOCK before VEX: ud']) add(text,
    [both(1, ps)], 1)
  return list
}

function fused(): FormSpec[] {
  const list: FormSpec[] = []
  for (const op of ['vfmadd', 'vfmsub', 'vfnmadd', 'vfnmsub', 'vfmaddsub', 'vfmsubadd']) for (const order of ['132', '213', '231']) {
    for (const s of op.includes('dsub') || op.includes('bad') ? ['ps', 'pd'] : ['ps', 'pd', 'ss', 'sd']) {
      const domain = domainOf(s)
      list.push(...three(op + order + s, { domain, ...scalar(s), features: ['fma'], count: 10, inputs: [anyMxcsr], accumulates: true }))
    }
  }
  return list
}

export const AVX_FLOAT: Group = { name: 'avx-float', forms: [...floating(), ...conversions()] }
export const AVX_INTEGER: Group = { name: 'avx-integer', forms: [...integers(), ...permutes(), ...gathers(), ...moves()] }
export const FMA: Group = { name: 'fma', forms: fused() }
