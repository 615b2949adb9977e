/** Forms of bit tests, scans, counts, byte swaps, BMI1, BMI2 and CRC32 (SDM vol. 2). */
import { ADDRESSING_64, anyFlags, gpr, memory, register, setGpr, SUFFIX, writeMemory } from '../form.ts'
import type { FormSpec, Group, Input, Width } from '../form.ts'
import { integer } from '../random.ts'
import { WINDOW } from '../../../test/vectors/state.ts'
import { addressingTurns, R10, R15, RAX, RBX, RCX, RDX, WIDE } from './integer.ts'

const nextAddressing = addressingTurns()

const BIT_TEST = { undefinedFlags: 'osap' }

/** The bit offset in a register reaches far outside of the operand: signed, in units of the operand's width. */
function bitString(width: Width, offsetRegister: number): Input {
  return (state, random) => {
    const middle = BigInt(WINDOW + 0x1000 + 8 * (random.below(64) - 32) + (random.chance(0.2) ? 1 : 0))
    state.gpr[6] = middle
    const far = random.pick([64, 300, 20000, width === 16 ? 30000 : 40000])
    const offset = BigInt(random.below(2 * far) - far)
    setGpr(state, offsetRegister, width, BigInt.asUintN(width, offset))
    if (random.chance(0.5)) writeMemory(state, middle + (offset >> BigInt(width === 64 ? 6 : width === 32 ? 5 : 4)) * BigInt(width / 8),
      random.u64(), width / 8)
  }
}

function bitTests(name: string): FormSpec[] {
  return WIDE.flatMap((width) => {
    const op = name + SUFFIX[width]
    const m = nextAddressing()
    const forms: FormSpec[] = [
      { text: `${op} ${register(RBX, width)}, ${register(RAX, width)}`, inputs: [anyFlags, gpr(RBX, width), gpr(RAX, width)], count: 20 },
      { text: `${op} ${register(R15, width)}, ${register(R10, width)}`, inputs: [anyFlags, gpr(R15, width), gpr(R10, width)], count: 12 },
      { text: `${op} ${register(RDX, width)}, (%rsi)`, inputs: [anyFlags, bitString(width, RDX)], count: 32 },
      { text: `${op} ${register(R10, width)}, 0x10(%rsi)`, inputs: [anyFlags, bitString(width, R10)], count: 16 },
      { text: `${op} $${width - 1}, ${register(RCX, width)}`, inputs: [anyFlags, gpr(RCX, width)] },
      { text: `${op} $0x45, ${register(RDX, width)}`, inputs: [anyFlags, gpr(RDX, width)] },
      { text: `${op} $0xff, ${m.text}`, inputs: [anyFlags, memory(m, width / 8)], count: 16 },
    ]
    if (name !== 'bt') {
      forms.push({ text: `lock ${op} $3, (%rdi)`, inputs: [anyFlags, memory(ADDRESSING_64[1], width / 8, integer, { lock: true })],
        count: 12 })
    }
    return forms.map((form) => ({ ...BIT_TEST, ...form }))
  })
}

function scans(): FormSpec[] {
  const names: [string, string, string[]][] = [
    ['bsf', 'oscap', []],
    ['bsr', 'oscap', []],
    ['popcnt', '', ['popcnt']],
    ['lzcnt', 'osap', ['abm']],
    ['tzcnt', 'osap', ['bmi1']],
  ]
  return names.flatMap(([name, undefinedFlags, features]) =>
    WIDE.flatMap((width) => {
      const op = name + SUFFIX[width]
      const m = nextAddressing()
      const scan = name[0] === 'b'
      const mask = (1n << BigInt(width)) - 1n
      return [
        {
          text: `${op} ${register(RBX, width)}, ${register(RAX, width)}`, inputs: [anyFlags, gpr(RBX, width), gpr(RAX, width)], count: 28,
            undefinedFlags, features,
          undefinedRegisters: (state: { gpr: bigint[] }) => (scan && (state.gpr[RBX] & mask) === 0n ? 1 << RAX : 0),
        },
        // A scan of zero leaves the destination undefined for Intel: only nonzero sources here, since memory is not looked at.
        {
          text: `${op} ${m.text}, ${register(R10, width)}`, count: 16, undefinedFlags, features,
          inputs: [anyFlags, gpr(R10, width), memory(m, width / 8, (random, w) => integer(random, w) || 8n)],
        },
      ]
    }),
  )
}

function byteSwaps(): FormSpec[] {
  const forms: FormSpec[] = [RAX, RBX, R15].flatMap((number) =>
    ([32, 64] as const).map((width) => ({ text: `bswap${SUFFIX[width]} ${register(number, width)}`,
      inputs: [anyFlags, gpr(number, width)] })),
  )
  for (const width of WIDE) {
    const [a, b] = [nextAddressing(), nextAddressing()]
    const s = SUFFIX[width]
    forms.push({ text: `movbe${s} ${a.text}, ${register(RDX, width)}`, inputs: [anyFlags, memory(a, width / 8)], count: 12,
      features: ['movbe'] })
    forms.push({ text: `movbe${s} ${register(R10, width)}, ${b.text}`, inputs: [anyFlags, gpr(R10, width), memory(b, width / 8)],
      count: 12, features: ['movbe'] })
  }
  return forms
}

/** Start and length (BEXTR) or index (BZHI) or shift count: in and beyond the width. */
const control = gpr(RCX, 64, (random) => (random.u64() & ~0xffffn) | BigInt(random.pick([random.below(80), random.below(256)])
  | (random.pick([0, 1, random.below(70), 255]) << 8)))

function bmi(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const width of [32, 64] as const) {
    const r = (number: number): string => register(number, width)
    const two = (name: string, features: string[], undefinedFlags: string, source: Input): void => {
      const m = nextAddressing()
      forms.push({ text: `${name} ${r(RBX)}, ${r(RAX)}`, inputs: [anyFlags, gpr(RBX, width), source], count: 16, features, undefinedFlags })
      forms.push({ text: `${name} ${m.text}, ${r(R15)}`, inputs: [anyFlags, memory(m, width / 8)], count: 12, features, undefinedFlags })
    }
    for (const name of ['blsi', 'blsmsk', 'blsr']) two(name, ['bmi1'], 'ap', gpr(RAX, width))
    // Operand order in GNU syntax: control, source, destination; for ANDN, PDEP and PEXT: second source, first source, destination.
    const three = (name: string, features: string[], undefinedFlags: string, controlled: boolean): void => {
      const m = nextAddressing()
      const inputs = [anyFlags, gpr(RBX, width), controlled ? control : gpr(RCX, width)]
      const registers = controlled ? `${r(RCX)}, ${r(RBX)}` : `${r(RBX)}, ${r(RCX)}`
      const memoryForm = controlled ? `${r(RCX)}, ${m.text}` : `${m.text}, ${r(RCX)}`
      forms.push({ text: `${name} ${registers}, ${r(RAX)}`, inputs, count: 24, features, undefinedFlags })
      forms.push({ text: `${name} ${memoryForm}, ${r(R10)}`, inputs: [...inputs, memory(m, width / 8)], count: 16, features,
        undefinedFlags })
    }
    three('andn', ['bmi1'], 'ap', false)
    three('bextr', ['bmi1'], 'aps', true)
    three('bzhi', ['bmi2'], 'ap', true)
    for (const name of ['pdep', 'pext']) three(name, ['bmi2'], '', false)
    for (const name of ['sarx', 'shlx', 'shrx']) three(name, ['bmi2'], '', true)
    three('mulx', ['bmi2'], '', false)
    forms.push({ text: `mulx ${r(RBX)}, ${r(RAX)}, ${r(RAX)}`, inputs: [anyFlags, gpr(RBX, width), gpr(RDX, width)], features: ['bmi2'] })
    for (const n of [0, 1, 31, 33, 63]) {
      forms.push({ text: `rorx $${n}, ${r(RBX)}, ${r(RDX)}`, inputs: [anyFlags, gpr(RBX, width)], count: 6, features: ['bmi2'] })
    }
    const m = nextAddressing()
    forms.push({ text: `rorx $13, ${m.text}, ${r(RDX)}`, inputs: [anyFlags, memory(m, width / 8)], features: ['bmi2'] })
  }
  return forms
}

function crc32(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const width of [8, 16, 32, 64] as const) {
    const destination = register(RAX, width === 64 ? 64 : 32)
    const m = nextAddressing()
    forms.push({ text: `crc32${SUFFIX[width]} ${register(RBX, width)}, ${destination}`, inputs: [anyFlags, gpr(RBX, width), gpr(RAX, 64)],
      count: 16, features: ['sse4_2'] })
    forms.push({ text: `crc32${SUFFIX[width]} ${m.text}, ${destination}`, inputs: [anyFlags, memory(m, width / 8), gpr(RAX, 64)],
      count: 12, features: ['sse4_2'] })
  }
  forms.push({ text: 'crc32b %bl, %rax', inputs: [anyFlags, gpr(RBX, 8), gpr(RAX, 64)], features: ['sse4_2'] })
  forms.push({ text: 'crc32b %bh, %ecx', inputs: [anyFlags, gpr(RBX, 16), gpr(RCX, 64)], features: ['sse4_2'] })
  return forms
}

export const BIT: Group = { name: 'bit', forms: [...['bt', 'bts', 'btr', 'btc'].flatMap(bitTests), ...scans(), ...byteSwaps(), ...crc32()] }
export const BMI: Group = { name: 'bmi', forms: bmi() }
