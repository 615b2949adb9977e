/** Forms of integer arithmetic, logic, multiplication, division and conversion (SDM vol. 2). */
import { ADDRESSING_64, anyFlags, gpr, highByte, memory, register, SUFFIX } from '../form.ts'
import type { Addressing, FormSpec, Group, Input, Width } from '../form.ts'
import { integer } from '../random.ts'
import type { Random } from '../random.ts'

export const WIDTHS: Width[] = [8, 16, 32, 64]
export const WIDE: Width[] = [16, 32, 64]

/** The addressing forms in turn, so that all meet many instructions. Each file has its own turn: a new last row changes no other. */
export function addressingTurns(): () => Addressing {
  let turn = 0
  return () => ADDRESSING_64[turn++ % ADDRESSING_64.length]
}

const nextAddressing = addressingTurns()

export const RAX = 0
export const RCX = 1
export const RDX = 2
export const RBX = 3
export const R10 = 10
export const R15 = 15

const PAIRS: [number, number][] = [[RBX, RAX], [RCX, RDX], [R10, RBX], [RDX, R15], [R15, R10], [RAX, RAX]]
const IMMEDIATES: Record<Width, string[]> = {
  8: ['$0x7f', '$0x80', '$0x0f'],
  16: ['$0x1234', '$0x8000', '$-1', '$0x7f'],
  32: ['$0x12345678', '$0x80000000', '$-1', '$0x7f'],
  64: ['$0x12345678', '$-0x80000000', '$-1', '$0x7f'],
}

type Extra = Pick<FormSpec, 'undefinedFlags' | 'features'>

function binary(name: string, extra: Extra, lockable: boolean): FormSpec[] {
  return WIDTHS.flatMap((width) => {
    const op = name + SUFFIX[width]
    const forms: FormSpec[] = []
    const add = (text: string, inputs: Input[], count = 8): number => forms.push({ text, inputs: [anyFlags, ...inputs], count, ...extra })
    PAIRS.forEach(([source, destination], i) => {
      const encoding = name === 'test' || i % 2 === 0 ? '' : '{load} '
      add(`${encoding}${op} ${register(source, width)}, ${register(destination, width)}`, [gpr(source, width), gpr(destination, width)],
        i === 0 ? 24 : 8)
    })
    for (let i = 0; i < 3; i++) {
      const [source, destination] = [PAIRS[i][0], PAIRS[i][1]]
      let m = nextAddressing()
      add(`${op} ${register(source, width)}, ${m.text}`, [gpr(source, width), memory(m, width / 8)], 12)
      if (name !== 'test') {
        m = nextAddressing()
        add(`${op} ${m.text}, ${register(destination, width)}`, [gpr(destination, width), memory(m, width / 8)], 12)
      }
    }
    for (const immediate of IMMEDIATES[width]) {
      add(`${op} ${immediate}, ${register(RAX, width)}`, [gpr(RAX, width)], 6)
      add(`${op} ${immediate}, ${register(R10, width)}`, [gpr(R10, width)], 6)
      const m = nextAddressing()
      add(`${op} ${immediate}, ${m.text}`, [memory(m, width / 8)])
    }
    if (lockable) {
      let m = nextAddressing()
      add(`lock ${op} ${register(RDX, width)}, ${m.text}`, [gpr(RDX, width), memory(m, width / 8, integer, { lock: true })])
      m = nextAddressing()
      add(`lock ${op} $0x11, ${m.text}`, [memory(m, width / 8, integer, { lock: true })])
      if (width === 32) add(`.byte 0xf0; ${op} %eax, %ebx # lock on a register`, [], 1)
    }
    return forms
  }).concat(highBytes(name, extra))
}

function highBytes(name: string, extra: Extra): FormSpec[] {
  const m = '0x11(%rdi)'
  const forms: [string, Input[]][] = [
    [`${name}b %bh, %ah`, [highByte(0), highByte(3)]],
    [`${name}b %ch, %dl`, [highByte(1), gpr(RDX, 8)]],
    [`${name}b %al, %ah`, [gpr(RAX, 8), highByte(0)]],
    [`${name}b %sil, %r9b`, [gpr(6, 8), gpr(9, 8)]],
    [`${name}b %dil, %spl`, [gpr(7, 8), gpr(4, 8)]],
    [`${name}b %dh, ${m}`, [highByte(2), memory({ ...ADDRESSING_64[2] }, 1)]],
    [`${name}b $0x81, %ch`, [highByte(1)]],
  ]
  return forms.map(([text, inputs]) => ({ text, inputs: [anyFlags, ...inputs], ...extra }))
}

function unary(name: string, extra: Extra): FormSpec[] {
  return WIDTHS.flatMap((width) => {
    const op = name + SUFFIX[width]
    const [a, b] = [nextAddressing(), nextAddressing()]
    const forms: [string, Input[]][] = [
      [`${op} ${register(RAX, width)}`, [gpr(RAX, width)]],
      [`${op} ${register(R15, width)}`, [gpr(R15, width)]],
      [`${op} ${a.text}`, [memory(a, width / 8)]],
      [`lock ${op} ${b.text}`, [memory(b, width / 8, integer, { lock: true })]],
    ]
    if (width === 8) forms.push([`${op} %bh`, [highByte(3)]], [`${op} %sil`, [gpr(6, 8)]])
    return forms.map(([text, inputs]) => ({ text, inputs: [anyFlags, ...inputs], count: 12, ...extra }))
  })
}

const MULTIPLY: Extra = { undefinedFlags: 'szap' }
const DIVIDE: Extra = { undefinedFlags: 'oszapc' }

/** A dividend whose quotient often fits and sometimes just does not. */
function dividend(width: Width, signed: boolean): Input {
  return (state, random) => {
    const bits = BigInt(width)
    const mask = (1n << bits) - 1n
    const low = integer(random, width)
    let high = random.pick([0n, 0n, 1n, low >> (bits - 1n) ? mask : 0n, integer(random, width), random.u64() & 0x1fn])
    if (signed && random.chance(0.5)) high = low >> (bits - 1n) ? mask : 0n
    if (width === 8) return void (state.gpr[0] = (state.gpr[0] & ~0xffffn) | (high << 8n) | low)
    state.gpr[0] = (state.gpr[0] & ~mask) | low
    state.gpr[2] = (state.gpr[2] & ~mask) | high
  }
}

/** Divisors next to the limit at which the quotient overflows are the interesting ones: set after the dividend. */
const divisor = (random: Random, width: number): bigint => random.pick([integer(random, width), BigInt(1 + random.below(20)),
  random.u64() & ((1n << BigInt(width)) - 1n)])

function multiplyDivide(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const width of WIDTHS) {
    const s = SUFFIX[width]
    for (const name of ['mul', 'imul', 'div', 'idiv']) {
      const divides = name.endsWith('div')
      const first = divides ? dividend(width, name === 'idiv') : gpr(RAX, width)
      const extra = divides ? DIVIDE : MULTIPLY
      const domain = divides ? divisor : integer
      const [a, b] = [nextAddressing(), nextAddressing()]
      const operands: [string, Input][] = [
        [register(RBX, width), gpr(RBX, width, domain)],
        [register(RCX, width), gpr(RCX, width, domain)],
        [register(R15, width), gpr(R15, width, domain)],
        [a.text, memory(a, width / 8, domain)],
        [b.text, memory(b, width / 8, domain)],
      ]
      if (width === 8) operands.push(['%bh', highByte(3, domain)])
      for (const [text, input] of operands) {
        forms.push({ text: `${name}${s} ${text}`, inputs: [anyFlags, first, input], count: 24, ...extra })
      }
      forms.push({ text: `${name}${s} ${register(RAX, width)}`, inputs: [anyFlags, first], ...extra })
    }
    if (width === 8) continue
    for (const [source, destination] of [[RBX, RAX], [R10, RDX]]) {
      const inputs = [anyFlags, gpr(source, width), gpr(destination, width)]
      forms.push({ text: `imul${s} ${register(source, width)}, ${register(destination, width)}`, inputs, count: 24, ...MULTIPLY })
    }
    const m = nextAddressing()
    forms.push({ text: `imul${s} ${m.text}, ${register(RCX, width)}`, inputs: [anyFlags, gpr(RCX, width), memory(m, width / 8)], count: 20,
      ...MULTIPLY })
    for (const immediate of IMMEDIATES[width]) {
      const n = nextAddressing()
      forms.push({ text: `imul${s} ${immediate}, ${register(RBX, width)}, ${register(R15, width)}`, inputs: [anyFlags, gpr(RBX, width)],
        count: 12, ...MULTIPLY })
      forms.push({ text: `imul${s} ${immediate}, ${n.text}, ${register(RDX, width)}`, inputs: [anyFlags, memory(n, width / 8)], count: 12,
        ...MULTIPLY })
    }
  }
  return forms
}

function conversions(): FormSpec[] {
  const forms: FormSpec[] = ['cbtw', 'cwtl', 'cltq'].map((text) => ({ text, inputs: [anyFlags, gpr(RAX, 32)], count: 12 }))
  for (const [text, width] of [['cwtd', 16], ['cltd', 32], ['cqto', 64]] as const) {
    forms.push({ text, inputs: [anyFlags, gpr(RAX, width)], count: 12 })
  }
  return forms
}

function addWithCarryChains(): FormSpec[] {
  return ['adcx', 'adox'].flatMap((name) =>
    ([32, 64] as const).flatMap((width) => {
      const m = nextAddressing()
      const s = SUFFIX[width]
      return [
        { text: `${name}${s} ${register(RBX, width)}, ${register(RAX, width)}`, inputs: [anyFlags, gpr(RAX, width), gpr(RBX, width)],
          count: 24, features: ['adx'] },
        { text: `${name}${s} ${m.text}, ${register(R10, width)}`, inputs: [anyFlags, gpr(R10, width), memory(m, width / 8)], count: 16,
          features: ['adx'] },
      ]
    }),
  )
}

/** Encodings that an assembler does not choose. */
function unusualEncodings(): FormSpec[] {
  const data = [anyFlags, gpr(RAX, 64), gpr(RCX, 64)]
  return [
    { text: '.byte 0xf6, 0xc9, 0x35 # testb $0x35, %cl as F6 /1', inputs: data, undefinedFlags: 'a' },
    { text: '.byte 0xf7, 0xc9, 0x35, 0, 0, 0x80 # testl as F7 /1', inputs: data, undefinedFlags: 'a' },
    { text: '.byte 0x48, 0x81, 0xc0, 0x05, 0, 0, 0 # addq $5, %rax with a 32-bit immediate', inputs: data },
    { text: '.byte 0x66, 0x48, 0x01, 0xc8 # addq: REX.W over the operand-size prefix', inputs: data },
    { text: '.byte 0x48, 0x66, 0x01, 0xc8 # addw: REX before another prefix is ignored', inputs: data },
    { text: '.byte 0xf2, 0x01, 0xc8 # addl with a useless REPNE', inputs: data },
    { text: '.byte 0x2e, 0x3e, 0x26, 0x36, 0x01, 0xc8 # addl with useless segment prefixes', inputs: data },
    { text: '.byte 0x40, 0x00, 0xe0 # addb %spl, %al', inputs: data },
    { text: '.byte 0x00, 0xe0 # addb %ah, %al', inputs: data },
    { text: '.byte 0x66, 0x05, 0x34, 0x12 # addw: the immediate shrinks', inputs: data },
  ]
}

const EXTRA: Record<string, Extra> = { or: { undefinedFlags: 'a' }, and: { undefinedFlags: 'a' }, xor: { undefinedFlags: 'a' },
  test: { undefinedFlags: 'a' } }

export const ARITHMETIC: Group = {
  name: 'arithmetic',
  forms: [
    ...['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp',
      'test'].flatMap((name) => binary(name, EXTRA[name] ?? {}, name !== 'cmp' && name !== 'test')),
    ...['inc', 'dec', 'neg', 'not'].flatMap((name) => unary(name, {})),
    ...unusualEncodings(),
  ],
}

export const MULTIPLY_DIVIDE: Group = {
  name: 'multiply-divide',
  forms: [...multiplyDivide(), ...conversions(), ...addWithCarryChains()],
}
