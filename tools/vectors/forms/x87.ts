/** Forms of the x87 FPU (SDM vol. 1 "Programming with the x87 FPU", vol. 2). */
import { ADDRESSING_64, anyFlags, anyMxcsr, memory, writeMemory } from '../form.ts'
import type { FormSpec, Group, Input } from '../form.ts'
import { float32, float64, float80, integer, wide } from '../random.ts'
import type { Domain, Random } from '../random.ts'
import { fullTag, WINDOW } from '../../../test/vectors/state.ts'
import type { State } from '../../../test/vectors/state.ts'
import { addressingTurns } from './integer.ts'

const nextAddressing = addressingTurns()

const [C0, C1, C2, C3] = [0x100, 0x200, 0x400, 0x4000]
/** Of most instructions: only C1 (rounded up, stack overflow) is defined. */
const ONLY_C1 = { undefinedStatus: C0 | C2 | C3 }
const NO_CODES = { undefinedStatus: C0 | C1 | C2 | C3 }

/** Any rounding and precision; sometimes an exception is unmasked; in one of 25, one is pending: the next waiting instruction is #MF. */
const anyControl: Input = (state, random) => {
  let control = 0x37f | (random.below(4) << 10)
  if (random.chance(0.3)) control &= ~0x300 | random.pick([0, 0x200])
  if (random.chance(0.2)) control &= ~(1 << random.below(6))
  if (random.chance(0.03)) control &= ~0x3f
  let status = (random.below(8) << 11) | (random.u64() & 1n ? C0 : 0) | (random.below(2) ? C1 : 0) | (random.below(2) ? C3 : 0)
    | (random.chance(0.3) ? C2 : 0)
  if (random.chance(0.2)) status |= random.below(64) & control
  if (random.chance(0.04)) {
    const bit = 1 << random.below(6)
    control &= ~bit
    status |= bit | 0x8080
  }
  state.x87.control = control
  state.x87.status = status
}

/** st(0)..st(depth-1) in use; the others keep some old contents. */
function stackOf(domain: Domain, depth: (random: Random) => number = (random) => random.pick([2, 3, 3, 5, 7, 7, 4, 6, 8, 1, 0])): Input {
  return (state, random) => {
    const used = depth(random)
    const top = (state.x87.status >> 11) & 7
    let abridged = 0
    for (let i = 0; i < 8; i++) {
      state.x87.st[i] = i < 3 || i === 7 ? domain(random, 80) : BigInt(0x3fff + i) << 64n | (1n << 63n)
      if (i < used) abridged |= 1 << ((top + i) & 7)
    }
    state.x87.tag = fullTag(abridged, state.x87.status, state.x87.st)
  }
}

const registers = [anyFlags, anyControl, stackOf(float80)]

function arithmetic(): FormSpec[] {
  const list: FormSpec[] = []
  for (const op of ['fadd', 'fmul', 'fsub', 'fsubr', 'fdiv', 'fdivr']) {
    list.push(
      { text: `${op} %st(1), %st`, inputs: registers, count: 100, ...ONLY_C1 },
      { text: `${op} %st, %st(2)`, inputs: registers, count: 30, ...ONLY_C1 },
      { text: `${op}p %st, %st(1)`, inputs: registers, count: 30, ...ONLY_C1 },
    )
    list.push({ text: `${op} %st(7), %st`, inputs: registers, count: 8, ...ONLY_C1 })
    const integers = op.replace('f', 'fi')
    for (const [text, bytes, domain] of [[`${op}s`, 4, float32], [`${op}l`, 8, float64], [`${integers}s`, 2, integer],
      [`${integers}l`, 4, integer]] as [string, number, Domain][]) {
      const m = nextAddressing()
      list.push({ text: `${text} ${m.text}`, inputs: [...registers, memory(m, bytes, domain)], count: 40, ...ONLY_C1 })
    }
  }
  return list
}

function compares(): FormSpec[] {
  const list: FormSpec[] = []
  const equalSometimes: Input = (state, random) => {
    if (random.chance(0.25)) state.x87.st[1] = state.x87.st[0]
    if (random.chance(0.1)) state.x87.st[1] = state.x87.st[0] ^ (1n << 79n)
  }
  const inputs = [...registers, equalSometimes]
  for (const op of ['fcom', 'fcomp', 'fucom', 'fucomp', 'fcomi', 'fcomip', 'fucomi', 'fucomip']) {
    list.push({ text: op.endsWith('i') || op.endsWith('ip') ? `${op} %st(1), %st` : `${op} %st(1)`, inputs, count: 60 })
  }
  for (const op of ['fcompp', 'fucompp', 'ftst', 'fxam']) list.push({ text: op, inputs, count: 60 })
  for (const op of ['fcom', 'fcomp', 'ficom', 'ficomp']) {
    const sizes: [string, number, Domain][] = op.includes('i') ? [['s', 2, integer], ['l', 4, integer]]
      : [['s', 4, float32], ['l', 8, float64]]
    for (const [s, bytes, domain] of sizes) {
      const m = nextAddressing()
      list.push({ text: `${op}${s} ${m.text}`, inputs: [...registers, memory(m, bytes, domain)], count: 32 })
    }
  }
  for (const condition of ['b', 'e', 'be', 'u', 'nb', 'ne', 'nbe', 'nu']) {
    list.push({ text: `fcmov${condition} %st(2), %st`, inputs: registers, count: 16, ...ONLY_C1 })
  }
  return list
}

/** Packed decimal, sometimes with digits that are none: their result is undefined, so they are not used. */
const packedDecimal: Domain = (random) => {
  let value = 0n
  for (let digit = 0; digit < 18; digit++) value |= BigInt(random.pick([0, 9, random.below(10)])) << BigInt(4 * digit)
  return value | (random.chance(0.5) ? 1n << 79n : 0n)
}

function loadsAndStores(): FormSpec[] {
  const list: FormSpec[] = []
  const loads: [string, number, Domain][] = [['flds', 4, float32], ['fldl', 8, float64], ['fldt', 10, float80], ['filds', 2, integer],
    ['fildl', 4, integer], ['fildll', 8, integer], ['fbld', 10, packedDecimal]]
  for (const [op, bytes, domain] of loads) {
    const [a, b] = [nextAddressing(), nextAddressing()]
    for (const m of [a, b]) list.push({ text: `${op} ${m.text}`, inputs: [...registers, memory(m, bytes, domain)], count: 32, ...ONLY_C1 })
  }
  const stores: [string, number][] = [['fsts', 4], ['fstps', 4], ['fstl', 8], ['fstpl', 8], ['fstpt', 10], ['fists', 2], ['fistps', 2],
    ['fistl', 4], ['fistpl', 4], ['fistpll', 8], ['fbstp', 10]]
  for (const [op, bytes] of [...stores, ['fisttps', 2], ['fisttpl', 4], ['fisttpll', 8]] as [string, number][]) {
    const m = nextAddressing()
    list.push({ text: `${op} ${m.text}`, inputs: [...registers, memory(m, bytes, wide)], count: 60,
      features: op.startsWith('fistt') ? ['pni'] : [], ...ONLY_C1 })
  }
  for (const op of ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz']) {
    list.push({ text: op, inputs: registers, count: 20, ...ONLY_C1 })
  }
  return list
}

function registerForms(): FormSpec[] {
  const list: FormSpec[] = []
  for (const op of ['fld', 'fst', 'fstp', 'fxch', 'ffree']) {
    for (const i of [0, 1, 3, 7]) {
      list.push({ text: `${op} %st(${i})`, inputs: registers, count: 10, ...(op === 'ffree' ? NO_CODES : ONLY_C1) })
    }
  }
  for (const op of ['fchs', 'fabs', 'fincstp', 'fdecstp']) list.push({ text: op, inputs: registers, count: 16, ...ONLY_C1 })
  list.push({ text: 'fnop', inputs: registers, count: 6, ...NO_CODES }, { text: 'fwait', inputs: registers, count: 24, ...NO_CODES })
  for (const op of ['fsqrt', 'frndint']) list.push({ text: op, inputs: registers, count: 120, ...ONLY_C1 })
  list.push({ text: 'fxtract', inputs: registers, count: 60, ...ONLY_C1 })
  return list
}

const exponentOf = (value: bigint): number => Number((value >> 64n) & 0x7fffn)
const withExponent = (value: bigint, exponent: number): bigint => (value & ~(0x7fffn << 64n)) | (BigInt(exponent) << 64n)
const special = (value: bigint): boolean => exponentOf(value) === 0x7fff || exponentOf(value) === 0 || !((value >> 63n) & 1n)

/** Dividend and divisor with exponents less than 64 apart: the remainder is complete, and the same everywhere. */
const nearDividend: Input = (state, random) => {
  const [a, b] = state.x87.st
  if (special(a) || special(b)) return
  const exponent = Math.min(exponentOf(b) + random.below(66) - 3, 0x7ffe)
  state.x87.st[0] = withExponent(a, exponentOf(b) + 63 > exponent ? Math.max(exponent, 1) : exponentOf(b))
}

/** Too far apart for one step: how far it gets is the model's choice. */
const farDividend: Input = (state, random) => {
  const [a, b] = state.x87.st.map((value) => value | (1n << 63n))
  state.x87.st[1] = withExponent(b, 0x3fff - random.below(100))
  state.x87.st[0] = withExponent(a, 0x3fff + 64 + random.below(2000))
}

const scaleBy: Input = (state, random) => {
  if (random.chance(0.6)) {
    const n = random.below(30000) - 15000
    const magnitude = BigInt(Math.abs(n) || 1)
    const bits = magnitude.toString(2).length
    const fraction = random.chance(0.5) ? random.u64() >> BigInt(bits) : 0n
    state.x87.st[1] = (n < 0 ? 1n << 79n : 0n) | (BigInt(0x3fff + bits - 1) << 64n) | (magnitude << BigInt(64 - bits)) | fraction
  }
}

/** With no quotient (NaN, infinity, an empty register) its bits in C0, C3 and C1 are undefined. */
const noQuotient = (state: State): number => {
  const empty = ((state.x87.tag >> (2 * ((state.x87.status >> 11) & 7))) & 3) === 3 ||
    ((state.x87.tag >> (2 * (((state.x87.status >> 11) + 1) & 7))) & 3) === 3
  const [a, b] = state.x87.st
  return empty || special(a) || special(b) ? C0 | C1 | C3 : 0
}

function partial(): FormSpec[] {
  return [
    ...['fprem', 'fprem1'].flatMap((op) => [
      { text: op, inputs: [...registers, nearDividend], count: 120, undefinedStatus: noQuotient },
      { text: `${op} # exponents far apart`, inputs: [anyControl, stackOf(float80, () => 4), farDividend], count: 20,
        vendor: 'AuthenticAMD' },
    ]),
    { text: 'fscale', inputs: [...registers, scaleBy], count: 120, ...ONLY_C1 },
  ]
}

/** Arguments in which the functions are defined, and special values. */
function argument(lowExponent: number, highExponent: number, register: number, sign = true): Input {
  return (state, random) => {
    if (random.chance(0.2)) return
    const value = withExponent(state.x87.st[register] | (1n << 63n), 0x3fff + lowExponent + random.below(highExponent - lowExponent + 1))
    state.x87.st[register] = sign ? value : value & ~(1n << 79n)
  }
}

/** Out of the range of F2XM1 and FYL2XP1 the result is undefined. */
const within = (register: number, limit: bigint): Input => (state) => {
  const value = state.x87.st[register]
  if (exponentOf(value) === 0x7fff || exponentOf(value) < 0x3ff0) return
  if ((value & ~(1n << 79n)) > limit || !((value >> 63n) & 1n)) state.x87.st[register] = withExponent(value | (1n << 63n),
    0x3ff0 + Number(value & 0xdn))
}

function transcendental(): FormSpec[] {
  const trigonometric = { undefinedStatus: C0 | C3, compare: 'ulp' as const }
  const other = { ...ONLY_C1, compare: 'ulp' as const }
  const one = 0x3fffn << 64n
  return [
    ...['fsin', 'fcos', 'fsincos', 'fptan'].map((text) => ({ text, inputs: [...registers, argument(-20, 3, 0)], count: 60,
      ...trigonometric })),
    { text: 'fpatan', inputs: [...registers, argument(-10, 10, 0), argument(-10, 10, 1)], count: 60, ...other },
    { text: 'f2xm1', inputs: [...registers, argument(-12, -1, 0), within(0, one)], count: 60, ...other },
    { text: 'fyl2x', inputs: [...registers, argument(-10, 10, 0, false), argument(-4, 4, 1)], count: 60, ...other },
    { text: 'fyl2xp1', inputs: [...registers, argument(-12, -3, 0), within(0, (0x3ffdn << 64n) | (0x95n << 56n)), argument(-4, 4, 1)],
      count: 60, ...other },
  ]
}

// ---- control words and images of the whole FPU ----

const AT = WINDOW + 0x800
const image = (offset: number, length: number): { offset: number; length: number }[] => [{ offset: AT - WINDOW + offset, length }]
const pointRsi: Input = (state) => (state.gpr[6] = BigInt(AT))

/** Environment and registers in memory, 32-bit layout: what FLDENV and FRSTOR load. */
const environmentInMemory: Input = (state, random) => {
  const control = 0x37f | (random.below(4) << 10) | 0x40
  const status = (random.below(8) << 11) | (random.below(0x40) & control) | (random.below(8) << 8)
  const words = [control, status, random.below(0x10000)]
  words.forEach((word, i) => writeMemory(state, BigInt(AT + 4 * i), BigInt(word) | 0xffff0000n, 4))
  for (let i = 0; i < 8; i++) writeMemory(state, BigInt(AT + 28 + 10 * i), float80(random, 80), 10)
}

/** An FXSAVE image, SDM vol. 1 "FXSAVE Area". A reserved MXCSR bit is #GP. */
const fxsaveInMemory: Input = (state, random) => {
  const control = 0x37f | (random.below(4) << 10) | 0x40
  const status = (random.below(8) << 11) | (random.below(0x40) & control) | (random.below(8) << 8)
  const put = (offset: number, value: number | bigint, bytes: number): void => writeMemory(state, BigInt(AT + offset), BigInt(value), bytes)
  put(0, control, 2)
  put(2, status, 2)
  put(4, random.below(256), 1)
  for (let i = 6; i < 24; i++) put(i, 0, 1)
  put(24, random.below(0x10000) | (random.chance(0.1) ? 0x100000 : 0), 4)
  for (let i = 0; i < 8; i++) put(32 + 16 * i, float80(random, 80), 16)
  for (let i = 0; i < 16; i++) put(160 + 16 * i, wide(random), 16)
}

const ENVIRONMENT_POINTERS = image(12, 16)
const FXSAVE_POINTERS = [...image(5, 19), ...image(28, 4), ...Array.from({ length: 8 }, (_, i) => image(42 + 16 * i, 6)).flat(),
  ...image(416, 96)]

function images(): FormSpec[] {
  const inputs = [...registers, anyMxcsr, pointRsi]
  return [
    { text: 'fnstcw (%rsi)', inputs, count: 6, ...NO_CODES },
    { text: 'fnstsw (%rsi)', inputs, count: 6, ...NO_CODES },
    { text: 'fnstsw %ax', inputs, count: 6, ...NO_CODES },
    { text: 'fnclex', inputs, count: 16, ...NO_CODES },
    { text: 'fninit', inputs, count: 6 },
    { text: 'fldcw (%rsi)', inputs: [...registers, pointRsi,
      (state: State, random: Random) => writeMemory(state, BigInt(AT), BigInt(0x40 | random.below(0x10000)), 2)], count: 24, ...NO_CODES },
    { text: 'fnstenv (%rsi)', inputs, count: 12, ...NO_CODES, ignoreMemory: ENVIRONMENT_POINTERS },
    { text: 'fldenv (%rsi)', inputs: [...inputs, environmentInMemory], count: 16 },
    { text: 'fnsave (%rsi)', inputs, count: 12, ignoreMemory: ENVIRONMENT_POINTERS },
    { text: 'frstor (%rsi)', inputs: [...inputs, environmentInMemory], count: 16 },
    { text: 'fxsave (%rsi)', inputs, count: 12, ignoreMemory: FXSAVE_POINTERS },
    { text: 'fxsave64 (%rsi)', inputs, count: 12, ignoreMemory: FXSAVE_POINTERS },
    { text: 'fxrstor (%rsi)', inputs: [...inputs, fxsaveInMemory], count: 20 },
    { text: 'fxrstor64 (%rsi)', inputs: [...inputs, fxsaveInMemory], count: 12 },
    { text: 'fxsave 8(%rsi)', inputs, count: 1 },
    { text: 'fxrstor 4(%rsi)', inputs, count: 1 },
  ]
}

export const X87: Group = { name: 'x87', forms: [...arithmetic(), ...compares(), ...loadsAndStores(), ...registerForms(), ...partial(),
  ...images()] }
export const X87_FUNCTIONS: Group = { name: 'x87-functions', forms: transcendental() }

// ---- MMX ----

/** Registers anywhere: MMX makes TOP 0 and all tags valid whatever was before. */
const anyFpu: Input = (state, random) => {
  anyControl(state, random)
  stackOf(wide, (r) => r.below(9))(state, random)
  state.x87.st = state.x87.st.map((value) => value & ((1n << 80n) - 1n))
}

function mm(number: number, domain: Domain): Input {
  return (state, random) => {
    const top = (state.x87.status >> 11) & 7
    const index = (number - top) & 7
    state.x87.st[index] = (state.x87.st[index] & ~((1n << 64n) - 1n)) | BigInt.asUintN(64, domain(random, 64))
  }
}

/** Contents decide tags: set them again at the end. */
const settleTags: Input = (state) => {
  let abridged = 0
  for (let i = 0; i < 8; i++) if (((state.x87.tag >> (2 * i)) & 3) !== 3) abridged |= 1 << i
  state.x87.tag = fullTag(abridged, state.x87.status, state.x87.st)
}

const packed = (laneWidth: number): Domain => (random, width) => {
  let value = 0n
  for (let at = 0; at < width; at += laneWidth) value |= integer(random, laneWidth) << BigInt(at)
  return value
}

function mmxForms(): FormSpec[] {
  const list: FormSpec[] = []
  const add = (text: string, inputs: Input[], features: string[] = [], count = 8): number =>
    list.push({ text, inputs: [anyFpu, ...inputs, settleTags], features, count })
  const both = (op: string, width: number, features: string[] = [], prefix = '', bytes = 8): void => {
    const m = nextAddressing()
    add(`${op} ${prefix}%mm1, %mm0`, [mm(0, packed(width)), mm(1, packed(width))], features, 10)
    add(`${op} ${prefix}${m.text}, %mm7`, [mm(7, packed(width)), memory(m, bytes, packed(width))], features, 8)
  }
  for (const op of ['paddb', 'psubb', 'paddsb', 'paddusb', 'psubsb', 'psubusb', 'pcmpeqb', 'pcmpgtb', 'punpckhbw', 'pavgb', 'pmaxub',
    'pminub', 'psadbw']) both(op, 8)
  both('punpcklbw', 8, [], '', 4)
  for (const op of ['paddw', 'psubw', 'paddsw', 'paddusw', 'psubsw', 'psubusw', 'pcmpeqw', 'pcmpgtw', 'punpckhwd', 'pavgw', 'pmaxsw',
    'pminsw', 'pmullw', 'pmulhw', 'pmulhuw', 'pmaddwd', 'packsswb', 'packuswb']) both(op, 16)
  both('punpcklwd', 16, [], '', 4)
  for (const op of ['paddd', 'psubd', 'pcmpeqd', 'pcmpgtd', 'punpckhdq', 'packssdw', 'pmuludq', 'pand', 'pandn', 'por', 'pxor']) {
    both(op, 32)
  }
  both('punpckldq', 32, [], '', 4)
  for (const op of ['paddq', 'psubq']) both(op, 64)
  for (const op of ['pabsb', 'psignb', 'pshufb', 'pmaddubsw']) both(op, 8, ['ssse3'])
  for (const op of ['pabsw', 'psignw', 'phaddw', 'phaddsw', 'phsubw', 'phsubsw', 'pmulhrsw']) both(op, 16, ['ssse3'])
  for (const op of ['pabsd', 'psignd', 'phaddd', 'phsubd']) both(op, 32, ['ssse3'])
  for (const n of [0, 3, 8, 12, 16, 255]) both('palignr', 8, ['ssse3'], `$${n}, `)
  for (const n of [0, 0x1b, 0xe4]) both('pshufw', 16, [], `$${n}, `)
  const count: Input = mm(1, (random) => random.pick([0n, 1n, 15n, 16n, 31n, 32n, 63n, 64n, random.u64()]))
  for (const op of ['psllw', 'pslld', 'psllq', 'psrlw', 'psrld', 'psrlq', 'psraw', 'psrad']) {
    add(`${op} %mm1, %mm0`, [mm(0, packed(16)), count], [], 12)
    for (const n of [1, 16, 40]) add(`${op} $${n}, %mm3`, [mm(3, packed(16))], [], 3)
  }
  const m = ADDRESSING_64[0]
  add('movd %eax, %mm2', [])
  add('movq %rax, %mm2', [])
  add('movd %mm3, %ebx', [])
  add('movq %mm3, %rbx', [])
  add('movd (%rsi), %mm4', [memory(m, 4)])
  add('movd %mm5, (%rsi)', [memory(m, 4)])
  add('movq (%rsi), %mm4', [memory(m, 8)])
  add('movq %mm5, (%rsi)', [memory(m, 8)])
  add('movq %mm6, %mm1', [])
  add('{store} movq %mm6, %mm1', [])
  add('movntq %mm6, (%rsi)', [memory(m, 8)])
  add('maskmovq %mm1, %mm2', [memory(ADDRESSING_64[1], 8)])
  add('pmovmskb %mm1, %eax', [])
  for (const n of [0, 3, 6]) {
    add(`pinsrw $${n}, %ebx, %mm1`, [])
    add(`pextrw $${n}, %mm1, %ebx`, [])
  }
  add('movdq2q %xmm1, %mm2', [])
  add('movq2dq %mm2, %xmm1', [])
  add('cvtpi2ps %mm1, %xmm0', [mm(1, packed(32)), anyMxcsr], [], 20)
  add('cvtpi2ps (%rsi), %xmm0', [memory(m, 8, packed(32)), anyMxcsr], [], 8)
  add('cvtpi2pd %mm1, %xmm0', [mm(1, packed(32)), anyMxcsr], [], 12)
  add('cvtpi2pd (%rsi), %xmm0', [memory(m, 8, packed(32)), anyMxcsr], [], 8)
  const pairs32: Domain = (random) => float32(random, 32) | (float32(random, 32) << 32n)
  for (const op of ['cvtps2pi', 'cvttps2pi']) {
    add(`${op} %xmm1, %mm1`, [(state, random) => (state.xmm[1] = { low: pairs32(random, 64), high: 0n }), anyMxcsr], [], 24)
    add(`${op} (%rsi), %mm1`, [memory(m, 8, pairs32), anyMxcsr], [], 12)
  }
  for (const op of ['cvtpd2pi', 'cvttpd2pi']) {
    add(`${op} %xmm1, %mm1`, [(state, random) => (state.xmm[1] = { low: float64(random, 64), high: float64(random, 64) }), anyMxcsr], [],
      24)
    add(`${op} (%rsi), %mm1`, [memory(m, 16, (random) => float64(random, 64) | (float64(random, 64) << 64n), { alignment: 16 }), anyMxcsr],
      [], 12)
  }
  add('emms', [])
  return list
}

export const MMX: Group = { name: 'mmx', forms: mmxForms() }
