/**
 * Random operands, stacks and control words: the functions that generated code shares for x87 instructions do what the helpers do, to the
 * last bit of registers, tags, status word and memory, or refuse and have changed nothing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { at } from '../../src/cpu/layout.ts'
import type { Processor } from '../../src/cpu/processor.ts'
import { readRflags } from '../../src/cpu/rflags.ts'
import { resetState } from '../../src/cpu/reset.ts'
import { encodeHandlersAhead } from '../../src/engine/interpreter.ts'
import { SharedFunctions } from '../../src/engine/shared-functions.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import { helpers, type HelperName } from '../../src/helpers/index.ts'
import { integerStore, memoryFormat, order, type MemoryFormat, type SharedName } from '../../src/isa/x87-functions.ts'
import { Random } from './random.ts'

/** A way through the functions: what an instruction asks of them, and the helper that does the same. */
interface Way {
  readonly helper: HelperName
  readonly name: SharedName
  /** `i`: its register; `place`: its operand in memory. */
  readonly arguments: (i: number, place: number) => number[]
  /** Its answer has flags. */
  readonly isComparison: boolean
}
const way = (helper: HelperName, name: SharedName, args: Way['arguments'], isComparison = false): Way =>
  ({ helper, name, arguments: args, isComparison })

const kinds = {
  add: ['add', 0], multiply: ['multiply', 0], subtract: ['add', order.negate], subtractReversed: ['add', order.swap | order.negate],
  divide: ['divide', 0], divideReversed: ['divide', order.swap],
} as const
const numbers: readonly MemoryFormat[] = ['m32', 'm64', 'i16', 'i32']
const arithmetic = (Object.keys(kinds) as (keyof typeof kinds)[]).flatMap(operation => {
  const [name, kind] = kinds[operation]
  return [
    ...(['st0', 'sti', 'pop'] as const).map((to, number) => way(`x87.${operation}.${to}`, `x87.${name}`, i => [i, number, kind])),
    ...numbers.map(format => way(`x87.${operation}.${format as 'm32'}`, `x87.${name}Memory`, (_, p) => [p, memoryFormat[format], kind])),
  ]
})
const loads = (['m32', 'm64', 'm80'] as const).map(format => way(`fld.${format}`, 'x87.load', (_, p) => [p, memoryFormat[format]]))
const integerLoads = ([16, 32, 64] as const).map(bits => way(`fild.m${bits}`, 'x87.load', (_, p) => [p, memoryFormat[`i${bits}`]]))
const stores = (['fst.m32', 'fst.m64', 'fstp.m32', 'fstp.m64', 'fstp.m80'] as const).map(helper =>
  way(helper, 'x87.store', (_, p) => [p, memoryFormat[helper.slice(-3) as 'm32'], helper.startsWith('fstp') ? 1 : 0]))
const { pops, truncates } = integerStore
const integerStores = ([16, 32, 64] as const).flatMap(bits => {
  const stored = (options: number): Way['arguments'] => (_, p) => [p, memoryFormat[`i${bits}`], options]
  const others = [
    way(`fistp.m${bits}`, 'x87.storeInteger', stored(pops)), way(`fisttp.m${bits}`, 'x87.storeInteger', stored(pops | truncates)),
  ]
  return bits === 64 ? others : [way(`fist.m${bits}`, 'x87.storeInteger', stored(0)), ...others]
})
const ways: readonly Way[] = [
  ...arithmetic, ...loads, ...integerLoads, ...stores, ...integerStores,
  ...numbers.flatMap(format => [
    way(`x87.compare.${format as 'm32'}`, 'x87.compareMemory', (_, p) => [p, memoryFormat[format], 0]),
    way(`x87.comparePop.${format as 'm32'}`, 'x87.compareMemory', (_, p) => [p, memoryFormat[format], 1]),
  ]),
  ...(['fcom', 'fcomp', 'fucom', 'fucomp'] as const).map(helper => way(helper, 'x87.compare', i => [i, helper.endsWith('p') ? 1 : 0])),
  way('fcompp', 'x87.compare', () => [1, 2]),
  way('fucompp', 'x87.compare', () => [1, 2]),
  ...(['fcomi', 'fcomip', 'fucomi', 'fucomip'] as const).map(helper =>
    way(helper, 'x87.compareFlags', i => [i, helper.endsWith('p') ? 1 : 0], true)),
  way('ftst', 'x87.compareZero', () => []),
  way('fchs', 'x87.sign', () => [0xffff, 0x8000]),
  way('fabs', 'x87.sign', () => [0x7fff, 0]),
  way('fsqrt', 'x87.squareRoot', () => []),
  way('frndint', 'x87.roundToInteger', () => []),
  way('fld.sti', 'x87.duplicate', i => [i]),
  way('fst.sti', 'x87.storeRegister', i => [i, 0]),
  way('fstp.sti', 'x87.storeRegister', i => [i, 1]),
  way('fxch', 'x87.exchange', i => [i]),
  way('fld1', 'x87.constant', () => [1]),
  way('fldz', 'x87.constant', () => [0]),
  way('fcmov', 'x87.conditionalMove', i => [i, i & 1]),
]

// ---- operands ----

const significands = [1n << 63n, (1n << 64n) - 1n, (1n << 63n) | 1n, 0xfffffffffffff800n, 0xfffffffffffffc00n, 0xffffff0000000000n]

function significand(random: Random): bigint {
  switch (random.below(6)) {
    case 0: return random.pick(significands)
    case 1: return (1n << 63n) | (random.wide() & ~0x7ffn)
    case 2: return (1n << 63n) | (random.wide() & ~((1n << BigInt(random.below(64))) - 1n))
    case 3: return BigInt.asUintN(64, (1n << BigInt(random.below(64))) + BigInt(random.below(3)) - 1n) | (1n << 63n)
    default: return (1n << 63n) | random.wide()
  }
}
/** Sign and exponent: mostly near to `around`. */
function signExponent(random: Random, around: number): number {
  const sign = random.below(2) << 15
  if (random.chance(30)) return sign | random.pick([0, 1, 2, 0x7ffd, 0x7ffe, 0x7fff])
  if (random.chance(8)) return sign | random.below(0x8000)
  return sign | Math.min(0x7ffe, Math.max(1, around + random.below(140) - 70))
}
function register(random: Random, around: number): [bigint, bigint] {
  if (random.chance(10)) return [0n, BigInt(random.below(2) << 15)]
  const number = significand(random)
  return [random.chance(60) ? number & ((1n << 63n) - 1n) : number, BigInt(signExponent(random, around))]
}
const arounds = [16383, 16383, 16383 + 20, 16383 + 62, 16383 - 1022, 16383 + 1023, 16383 - 126, 1, 0x7ffe]

/** Bytes in memory that are moderate in some format. */
function operand(random: Random, view: DataView, place: number): void {
  view.setBigUint64(place, random.wide(), true)
  view.setUint16(place + 8, signExponent(random, 16383), true)
  switch (random.below(6)) {
    case 0: return view.setFloat64(place, (random.below(2 ** 32) / 2 ** 31 - 1) * 2 ** (random.below(60) - 30), true)
    case 1: return view.setFloat32(place, (random.below(2 ** 32) / 2 ** 31 - 1) * 2 ** (random.below(60) - 30), true)
    case 2: return view.setBigInt64(place, BigInt.asIntN(64, random.wide()) >> BigInt(random.below(64)), true)
    case 3: return view.setFloat64(place, random.pick([0, -0, 1, -1, 0.5, 2 ** -1022, 2 ** -1074, Infinity, NaN]), true)
    case 4: return view.setFloat32(place, random.pick([0, -0, 1, -1, 0.5, 2 ** -126, 2 ** -149, Infinity, NaN]), true)
  }
}

const usualControl = 0x37f
function controlWord(random: Random): number {
  if (random.chance(3)) return usualControl
  const masks = random.chance(6) ? random.below(64) : 0x3f
  return 0x40 | masks | (random.below(4) << 8) | (random.below(4) << 10)
}

// ---- both ways ----

const first = at.fpControl
const last = at.fpr + 128
const place = at.bounce
const bytes = 16
/** What the shared functions leave to their callers. */
const pointers = [[at.fpIp, 8], [at.fpDp, 8], [at.fpCs, 4], [at.fpDs, 4], [at.fpOpcode, 4]] as const

/** A module's of their own, or among those of a module of handlers. */
function sharedFunctions(memory: WebAssembly.Memory, ahead: boolean): Record<SharedName, (a: number, b: number, c: number) => number> {
  const shared = new SharedFunctions(memory)
  if (ahead) {
    const none = (): number => assert.fail('called by a shared function')
    const { bytes } = encodeHandlersAhead([], { hotThreshold: 0, pages: memory.buffer.byteLength / 65536, helperNumber: none })
    const table = new WebAssembly.Table({ element: 'anyfunc', initial: 16384 })
    const env = { memory, table, slowRead: none, slowWrite: none, helper: none, stackAddress: none, segmentAddress: none }
    shared.adopt(new WebAssembly.Instance(new WebAssembly.Module(bytes), { env }).exports)
  }
  return shared.environment as Record<SharedName, (a: number, b: number, c: number) => number>
}

function compare(vendor: string, seed: number, count: number): Map<string, number> {
  const { core, cpu } = bareCpu(vendor)
  resetState(core.state, cpu.model, true)
  cpu.stateChanged()
  const { memory, state } = core
  const buffer = new Uint8Array(memory.buffer, 0, 0x80000)
  const view = new DataView(memory.buffer)
  const functions = sharedFunctions(memory, seed % 2 === 1)
  const random = new Random(seed)
  const done = new Map<string, number>()
  let i = 0
  const operation = { get registers() { return [i, 0, 0] }, segment: 3, length: 2 }
  const processor = { state, operation, model: cpu.model, memory: { read8: () => 0xd9 }, log: () => {} } as unknown as Processor
  const withoutPointers = (copy: Uint8Array): Uint8Array => {
    for (const [from, size] of pointers) copy.fill(0, from - first, from - first + size)
    return copy
  }
  const registers = (): Uint8Array => withoutPointers(buffer.slice(first, last))
  for (let n = 0; n < count; n++) {
    const chosen = random.pick(ways)
    const around = random.pick(arounds)
    i = random.below(8)
    state.fpControl = controlWord(random)
    state.fpStatus = random.below(0x10000) & (random.chance(20) ? 0xc7ff : 0x477f) & ~0x80
    state.fpTop = random.below(8)
    state.fpTags = random.chance(4) ? random.below(256) : chosen.name === 'x87.load' || chosen.name === 'x87.constant' ? 0 : 0xff
    for (let r = 0; r < 8; r++) state.fpr.set(register(random, around), 2 * r)
    if (chosen.name === 'x87.duplicate') state.fpTags &= ~(1 << ((state.fpTop + 7) & 7))
    operand(random, view, place)
    const before = buffer.slice(first, last)
    const data = buffer.slice(place, place + bytes)
    const args = chosen.arguments(i, place)
    const answer = functions[chosen.name](args[0] ?? 0, args[1] ?? 0, args[2] ?? 0)
    const quick = registers()
    const quickData = buffer.slice(place, place + bytes)
    buffer.set(before, first)
    buffer.set(data, place)
    const says = (): string => `${chosen.helper}, seed ${seed}, case ${n}: control ${state.fpControl.toString(16)}`
    if (answer === 0) {
      assert.deepEqual(quick, withoutPointers(before.slice()), `${says()}: refused, but changed`)
      assert.deepEqual(quickData, data, `${says()}: refused, but written`)
      continue
    }
    done.set(chosen.helper, (done.get(chosen.helper) ?? 0) + 1)
    state.argument[0] = BigInt(chosen.helper === 'fcmov' ? args[1] : place)
    helpers[chosen.helper](processor)
    const expected = registers()
    if (Buffer.compare(quick, expected) !== 0) assert.deepEqual([...quick], [...expected], says())
    if (Buffer.compare(quickData, buffer.subarray(place, place + bytes)) !== 0)
      assert.deepEqual([...quickData], [...buffer.slice(place, place + bytes)], `${says()}: memory`)
    if (!chosen.isComparison) continue
    const arithmeticFlags = ((answer & 0x100) !== 0 ? 1 : 0) | ((answer & 0x4000) !== 0 ? 0x40 : 0)
    assert.equal(arithmeticFlags, readRflags(state) & 0x8d5, `${says()}: flags`)
  }
  return done
}

const cases = Number(process.env.VITRINE_X87_CASES ?? 150_000)

for (const vendor of ['intel', 'amd'])
  test(`x87 functions of generated code do what the helpers do (${vendor})`, () => {
    const done = compare(vendor, vendor === 'amd' ? 78 : 1, cases)
    const each = cases / ways.length
    const count = (helper: HelperName): number => done.get(helper) ?? 0
    const seldom = ways.filter(({ helper }) => count(helper) < each / 20).map(({ helper }) => `${helper} ${count(helper)}`)
    assert.deepEqual(seldom, [], 'functions that do their work too seldom')
  })
