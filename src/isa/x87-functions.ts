/**
 * The common work of x87 instructions as WebAssembly functions that all generated code shares: they take the operands from the register
 * stack, compute (extended.ts), and leave stack, tags and status word as the instruction does. Each answers 0 when it is not for such
 * code: then nothing has changed, and the helper does it. Instruction and data pointers are the caller's.
 * Intel SDM vol. 1, "Programming with the x87 FPU"; vol. 2, the instructions' pages.
 */
import { at } from '../cpu/layout.ts'
import type { FunctionBuilder, Node, Variable } from '../wasm/function.ts'
import type { ValueType } from '../wasm/encode.ts'
import type { LoadKind } from '../wasm/opcodes.ts'
import {
  Addition, Comparison, condition, coreSignature, Division, ExtendedBuilder, Multiplication, SquareRoot, type Extended,
} from './extended.ts'

export { condition } from './extended.ts'

/** What an operand in memory is. */
export const memoryFormat = { m32: 0, m64: 1, i16: 2, i32: 3, i64: 4, m80: 5 } as const
export type MemoryFormat = keyof typeof memoryFormat
/** Of arithmetic: the operands change places, then the second one its sign. */
export const order = { swap: 1, negate: 2 } as const
/** Of arithmetic on two registers: where the result goes. */
export const resultTo = { st0: 0, sti: 1, pop: 2 } as const
/** Of integer stores. */
export const integerStore = { pops: 1, truncates: 2 } as const

const compared = condition.C0 | condition.C1 | condition.C2 | condition.C3
const waits = 0x80
const signBit = 0x8000
const bias = 16383
const integerBit = 1n << 63n
const registerBytes = 16
const truncation = 0xc00
/** Of state.systemCalls: FCOMI and its kin leave C1 as it is (AMD). */
export const comparisonKeepsC1 = 4

/** A double's and a single's format: bits of its fraction, and what turns its exponent into a register's. */
const formats = {
  m64: { fraction: 52, bias: bias - 1023, special: 0x7ff },
  m32: { fraction: 23, bias: bias - 127, special: 0xff },
} as const

const parameters: readonly ValueType[] = ['i32', 'i32', 'i32']

/** Three parameters, of which an instruction uses what it needs; the answer is not 0 when its work is done. */
abstract class StackFunction extends ExtendedBuilder {
  private readonly core: (name: CoreName) => number

  constructor(name: string, core: (name: CoreName) => number) {
    super(name, parameters, 'i32')
    this.core = core
    this.if(this.and(this.state(at.fpStatus), waits), () => this.return(0))
  }
  protected argument(index: 0 | 1 | 2): Node {
    return this.get(this.parameter(index))
  }
  private state(address: number): Node {
    return this.load('i32', 0, address)
  }
  private setState(address: number, value: Node): void {
    this.store('i32', 0, value, address)
  }

  // ---- the stack ----

  /** Number of physical register ST(i). */
  protected physical(i: Node | number): Node {
    return this.and(this.add(this.state(at.fpTop), i), 7)
  }
  protected place(physical: Node): Node {
    return this.add(this.mul(physical, registerBytes), at.fpr)
  }
  private bit(physical: Node): Node {
    return this.shl(this.i32(1), physical)
  }
  protected needs(physical: Node): void {
    this.unless(this.and(this.state(at.fpTags), this.bit(physical)), () => this.return(0))
  }
  /** Physical register of ST(7), which must be free. */
  protected room(): Node {
    const physical = this.physical(7)
    this.if(this.and(this.state(at.fpTags), this.bit(physical)), () => this.return(0))
    return physical
  }
  protected push(physical: Node): void {
    this.setState(at.fpTop, physical)
    this.setState(at.fpTags, this.or(this.state(at.fpTags), this.bit(physical)))
  }
  protected pop(): void {
    const top = this.state(at.fpTop)
    this.setState(at.fpTags, this.and(this.state(at.fpTags), this.not(this.bit(top))))
    this.setState(at.fpTop, this.and(this.add(top, 1), 7))
  }
  protected mark(physical: Node): void {
    this.setState(at.fpTags, this.or(this.state(at.fpTags), this.bit(physical)))
  }
  protected popIf(condition: Node): void {
    this.if(condition, () => this.pop())
  }
  protected read(place: Node): Extended {
    return { significand: this.load('i64', place), signExponent: this.load('i32_16u', place, 8) }
  }
  protected copy(from: Node, to: Node): void {
    const { significand, signExponent } = this.read(from)
    this.putRegister(to, significand, signExponent)
  }

  // ---- ending ----

  /** The status word gets these bits in place of C1 and of what else is in `codes`. */
  protected settle(bits: Node | number, codes: number = condition.C1): void {
    this.setState(at.fpStatus, this.or(this.and(this.state(at.fpStatus), ~(codes | condition.C1)), bits))
  }
  protected done(answer: Node | number = 1): void {
    this.return(answer)
  }
  /** Calls an operation of extended.ts: its bits of the status word; or the function is left. */
  protected compute(name: CoreName, a: Extended, b: Extended, to: Node): Node {
    const operands = [a.significand, a.signExponent, b.significand, b.signExponent, to]
    const result = this.call(this.core(name), operands, coreSignature.parameters, coreSignature.result)
    this.if(this.ltS(result, 0), () => this.return(0))
    return result
  }

  // ---- operands in memory ----

  /** Its value, exactly; what is neither zero nor a normal number is refused. */
  protected readMemory(place: Node, format: Node): Extended {
    const significand = this.variable('i64')
    const signExponent = this.variable('i32')
    const is = (name: MemoryFormat): Node => this.eq(format, memoryFormat[name])
    const float = (name: 'm32' | 'm64') => (): void => this.readFloat(place, name, significand, signExponent)
    const integer = (kind: LoadKind) => (): void => this.fromInteger(this.load(kind, place), significand, signExponent)
    this.if(is('m64'), float('m64'), () =>
      this.if(is('m32'), float('m32'), () =>
        this.if(is('i32'), integer('i64_32s'), () =>
          this.if(is('i64'), integer('i64'), integer('i64_16s')))))
    return { significand: this.get(significand), signExponent: this.get(signExponent) }
  }
  private readFloat(place: Node, name: 'm32' | 'm64', significand: Variable, signExponent: Variable): void {
    const { fraction, bias: difference, special } = formats[name]
    const isDouble = name === 'm64'
    const bits = this.load(isDouble ? 'i64' : 'i64_32u', place)
    const exponent = this.and(this.wrap(this.shrU(bits, BigInt(fraction))), special)
    const sign = this.and(isDouble ? this.wrap(this.shrU(bits, 48n)) : this.wrap(this.shrU(bits, 16n)), signBit)
    const digits = this.shl(bits, BigInt(64 - fraction))
    this.if(this.ltU(this.sub(exponent, 1), special - 1), () => {
      this.set(significand, this.or(this.shrU(digits, 1n), integerBit))
      this.set(signExponent, this.or(sign, this.add(exponent, difference)))
    }, () => {
      this.if(this.or(exponent, this.ne(digits, 0n)), () => this.return(0))
      this.set(significand, 0n)
      this.set(signExponent, sign)
    })
  }
  private fromInteger(value: Node, significand: Variable, signExponent: Variable): void {
    const negative = this.ltS(value, 0n)
    const size = this.select(negative, this.neg(value), value)
    const zeros = this.unary('clz', size)
    const exponent = this.sub(bias + 63, this.wrap(zeros))
    this.set(significand, this.shl(size, zeros))
    this.set(signExponent, this.select(this.eqz(value), this.i32(0), this.or(exponent, this.shl(negative, 15))))
  }

  /** A number of a register as an integer, rounded; its size has 63 bits at the most, or the function is left. */
  protected toInteger(value: Extended, mode: Node): { size: Variable; status: Node } {
    const size = this.variable('i64')
    const rest = this.variable('i64')
    const exponent = this.sub(this.exponentOf(value.signExponent), bias)
    const distance = this.extendU(this.sub(63, exponent))
    this.if(this.isZero(value), () => {
      this.set(size, 0n)
      this.set(rest, 0n)
    }, () => {
      this.unless(this.isNormal(value), () => this.return(0))
      this.if(this.geS(exponent, 63), () => this.return(0))
      this.if(this.ltS(exponent, 0), () => {
        this.set(size, 0n)
        this.set(rest, this.select(this.eq(exponent, -1), value.significand, this.i64(1)))
      }, () => {
        this.set(size, this.shrU(value.significand, distance))
        this.set(rest, this.shl(value.significand, this.sub(0n, distance)))
      })
    })
    const odd = this.wrap(this.and(this.get(size), 1n))
    const { up, status } = this.round(this.and(value.signExponent, signBit), this.get(rest), odd, mode, 0)
    this.set(size, this.add(this.get(size), this.extendU(this.get(up))))
    this.if(this.ltS(this.get(size), 0n), () => this.return(0))
    return { size, status: this.get(status) }
  }
}

type CoreName = 'add' | 'multiply' | 'divide' | 'root' | 'compare'
const cores: Record<CoreName, () => FunctionBuilder> = {
  add: () => new Addition('x87 addition').build(),
  multiply: () => new Multiplication('x87 multiplication').build(),
  divide: () => new Division('x87 division').build(),
  root: () => new SquareRoot('x87 square root').build(),
  compare: () => new Comparison('x87 comparison').build(),
}

class Body extends StackFunction {
  /** (i, where the result goes, order). */
  arithmetic(name: CoreName): void {
    const first = this.physical(0)
    const second = this.physical(this.argument(0))
    this.needs(first)
    this.needs(second)
    const [a, b] = [this.place(first), this.place(second)]
    const swap = this.and(this.argument(2), order.swap)
    const x = this.read(this.select(swap, b, a))
    const y = this.negated(this.read(this.select(swap, a, b)))
    this.settle(this.compute(name, x, y, this.select(this.argument(1), b, a)))
    this.popIf(this.eq(this.argument(1), resultTo.pop))
    this.done()
  }
  private negated({ significand, signExponent }: Extended): Extended {
    return { significand, signExponent: this.xor(signExponent, this.shl(this.and(this.argument(2), order.negate), 14)) }
  }
  /** (place, format, order). */
  arithmeticMemory(name: CoreName): void {
    const first = this.physical(0)
    this.needs(first)
    const place = this.place(first)
    const a = this.read(place)
    const b = this.readMemory(this.argument(0), this.argument(1))
    const swap = this.and(this.argument(2), order.swap)
    const exchanged = (p: Extended, q: Extended): Extended => ({
      significand: this.select(swap, q.significand, p.significand), signExponent: this.select(swap, q.signExponent, p.signExponent),
    })
    this.settle(this.compute(name, exchanged(a, b), this.negated(exchanged(b, a)), place))
    this.done()
  }
  squareRoot(): void {
    const first = this.physical(0)
    this.needs(first)
    const place = this.place(first)
    const a = this.read(place)
    this.settle(this.compute('root', a, a, place))
    this.done()
  }
  /** (sign bits that stay, sign bits that change): FABS and FCHS. */
  sign(): void {
    const first = this.physical(0)
    this.needs(first)
    const place = this.place(first)
    const { signExponent } = this.read(place)
    this.store('i64', place, this.extendU(this.xor(this.and(signExponent, this.argument(0)), this.argument(1))), 8)
    this.settle(0)
    this.done()
  }
  roundToInteger(): void {
    const first = this.physical(0)
    this.needs(first)
    const place = this.place(first)
    const value = this.read(place)
    const isWhole = this.geS(this.exponentOf(value.signExponent), bias + 63)
    this.if(this.and(this.isNormal(value), isWhole), () => {
      this.settle(0)
      this.done()
    })
    const { size, status } = this.toInteger(value, this.roundingMode())
    const zeros = this.unary('clz', this.get(size))
    const exponent = this.select(this.eqz(this.get(size)), this.i32(0), this.sub(bias + 63, this.wrap(zeros)))
    this.putRegister(place, this.shl(this.get(size), zeros), this.or(this.and(value.signExponent, signBit), exponent))
    this.settle(status)
    this.done()
  }

  // ---- loads ----

  /** (place, format). */
  loadMemory(): void {
    const physical = this.room()
    const to = this.place(physical)
    this.if(this.eq(this.argument(1), memoryFormat.m80), () => this.copy(this.argument(0), to), () => {
      const { significand, signExponent } = this.readMemory(this.argument(0), this.argument(1))
      this.putRegister(to, significand, signExponent)
    })
    this.pushed(physical)
  }
  private pushed(physical: Node): void {
    this.push(physical)
    this.settle(0)
    this.done()
  }
  /** (1 for one, 0 for zero). */
  constant(): void {
    const physical = this.room()
    const isOne = this.argument(0)
    this.putRegister(this.place(physical), this.select(isOne, integerBit, this.i64(0)), this.select(isOne, bias, this.i32(0)))
    this.pushed(physical)
  }
  /** (i). */
  duplicate(): void {
    const source = this.physical(this.argument(0))
    this.needs(source)
    const physical = this.room()
    this.copy(this.place(source), this.place(physical))
    this.pushed(physical)
  }

  // ---- stores ----

  /** (i, whether it pops). */
  storeRegister(): void {
    const first = this.physical(0)
    const to = this.physical(this.argument(0))
    this.needs(first)
    this.copy(this.place(first), this.place(to))
    this.mark(to)
    this.settle(0)
    this.popIf(this.argument(1))
    this.done()
  }
  /** (place, format, whether it pops). */
  storeMemory(): void {
    const first = this.physical(0)
    this.needs(first)
    const value = this.read(this.place(first))
    const place = this.argument(0)
    this.if(this.eq(this.argument(1), memoryFormat.m64), () => this.storeFloat('m64', value, place), () =>
      this.if(this.eq(this.argument(1), memoryFormat.m32), () => this.storeFloat('m32', value, place), () => {
        this.store('i64', place, value.significand)
        this.store('i32_16', place, value.signExponent, 8)
        this.settle(0)
      }))
    this.popIf(this.argument(2))
    this.done()
  }
  private storeFloat(name: 'm32' | 'm64', value: Extended, place: Node): void {
    const { fraction, bias: difference, special } = formats[name]
    const put = (bits: Node): void => this.store(name === 'm64' ? 'i64' : 'i64_32', place, bits)
    const sign = this.and(value.signExponent, signBit)
    const signed = (bits: Node): Node => this.or(bits, this.shl(this.extendU(sign), name === 'm64' ? 48n : 16n))
    this.if(this.isZero(value), () => {
      put(signed(this.i64(0)))
      this.settle(0)
    }, () => {
      this.unless(this.isNormal(value), () => this.return(0))
      const exponent = this.sub(this.exponentOf(value.signExponent), difference)
      this.if(this.geU(this.sub(exponent, 1), special - 1), () => this.return(0))
      const kept = this.shrU(value.significand, BigInt(63 - fraction))
      const rest = this.shl(value.significand, BigInt(fraction + 1))
      const { up, status } = this.round(sign, rest, this.wrap(this.and(kept, 1n)), this.roundingMode(), 0)
      // the leading one, and a carry, add one to the exponent
      const size = this.add(this.shl(this.extendU(this.sub(exponent, 1)), BigInt(fraction)), this.add(kept, this.extendU(this.get(up))))
      this.if(this.geU(size, this.i64(BigInt(special) << BigInt(fraction))), () => this.return(0))
      put(signed(size))
      this.settle(this.get(status))
    })
  }
  /** (place, format, of `integerStore`). */
  storeInteger(): void {
    const first = this.physical(0)
    this.needs(first)
    const value = this.read(this.place(first))
    const truncates = this.and(this.argument(2), integerStore.truncates)
    const { size, status } = this.toInteger(value, this.select(truncates, truncation, this.roundingMode()))
    const negative = this.and(value.signExponent, signBit)
    const integer = this.select(negative, this.neg(this.get(size)), this.get(size))
    const place = this.argument(0)
    const only = (extended: Node): void => this.if(this.ne(extended, integer), () => this.return(0))
    this.if(this.eq(this.argument(1), memoryFormat.i32), () => {
      only(this.unary('extend32S', integer))
      this.store('i64_32', place, integer)
    }, () => this.if(this.eq(this.argument(1), memoryFormat.i64), () => this.store('i64', place, integer), () => {
      only(this.unary('extend16S', integer))
      this.store('i64_16', place, integer)
    }))
    this.settle(status)
    this.popIf(this.and(this.argument(2), integerStore.pops))
    this.done()
  }

  // ---- between registers ----

  /** (i). */
  exchange(): void {
    const [first, second] = [this.physical(0), this.physical(this.argument(0))]
    this.needs(first)
    this.needs(second)
    const [a, b] = [this.place(first), this.place(second)]
    const [x, y] = [this.read(a), this.read(b)]
    this.putRegister(a, y.significand, y.signExponent)
    this.putRegister(b, x.significand, x.signExponent)
    this.settle(0)
    this.done()
  }
  /** (i, the condition). */
  conditionalMove(): void {
    const [first, second] = [this.physical(0), this.physical(this.argument(0))]
    this.needs(first)
    this.needs(second)
    this.if(this.argument(1), () => this.copy(this.place(second), this.place(first)))
    this.done()
  }

  // ---- comparisons ----

  private compareWith(other: Extended | ((first: Node) => Extended)): Node {
    const first = this.physical(0)
    this.needs(first)
    const place = this.place(first)
    const b = typeof other === 'function' ? other(place) : other
    return this.compute('compare', this.read(place), b, place)
  }
  private popTimes(times: Node): void {
    this.if(times, () => {
      this.pop()
      this.popIf(this.eq(times, 2))
    })
  }
  private register(): Extended {
    const second = this.physical(this.argument(0))
    this.needs(second)
    return this.read(this.place(second))
  }
  /** (i, how often it pops). */
  compare(): void {
    this.settle(this.compareWith(this.register()), compared)
    this.popTimes(this.argument(1))
    this.done()
  }
  /** (place, format, how often it pops). */
  compareMemory(): void {
    this.settle(this.compareWith(this.readMemory(this.argument(0), this.argument(1))), compared)
    this.popTimes(this.argument(2))
    this.done()
  }
  compareZero(): void {
    this.settle(this.compareWith({ significand: this.i64(0), signExponent: this.i32(0) }), compared)
    this.done()
  }
  /** (i, how often it pops): the answer has C0 and C3 as a comparison in the status word, and bit 0 set. */
  compareFlags(): void {
    const found = this.compareWith(this.register())
    const keeps = this.and(this.load('i32', 0, at.systemCalls), comparisonKeepsC1)
    this.if(this.eqz(keeps), () => this.settle(0))
    this.popTimes(this.argument(1))
    this.done(this.or(found, 1))
  }
}

const bodies = {
  'x87.add': f => f.arithmetic('add'),
  'x87.multiply': f => f.arithmetic('multiply'),
  'x87.divide': f => f.arithmetic('divide'),
  'x87.addMemory': f => f.arithmeticMemory('add'),
  'x87.multiplyMemory': f => f.arithmeticMemory('multiply'),
  'x87.divideMemory': f => f.arithmeticMemory('divide'),
  'x87.squareRoot': f => f.squareRoot(),
  'x87.sign': f => f.sign(),
  'x87.roundToInteger': f => f.roundToInteger(),
  'x87.load': f => f.loadMemory(),
  'x87.constant': f => f.constant(),
  'x87.duplicate': f => f.duplicate(),
  'x87.storeRegister': f => f.storeRegister(),
  'x87.store': f => f.storeMemory(),
  'x87.storeInteger': f => f.storeInteger(),
  'x87.exchange': f => f.exchange(),
  'x87.conditionalMove': f => f.conditionalMove(),
  'x87.compare': f => f.compare(),
  'x87.compareMemory': f => f.compareMemory(),
  'x87.compareZero': f => f.compareZero(),
  'x87.compareFlags': f => f.compareFlags(),
} as const satisfies Record<string, (f: Body) => void>
/** A function that generated code shares: three i32, the answer an i32. */
export type SharedName = keyof typeof bodies
export const sharedNames = Object.keys(bodies) as SharedName[]
export const sharedSignature = { parameters, result: 'i32' } as const

/** All of them, then what they call: the order in which they are numbered, from `first` on. */
export function sharedFunctions(first: number): FunctionBuilder[] {
  const coreNames = Object.keys(cores) as CoreName[]
  const number = (name: CoreName): number => first + sharedNames.length + coreNames.indexOf(name)
  const shared = sharedNames.map(name => {
    const body = new Body(name, number)
    bodies[name](body)
    return body
  })
  return [...shared, ...coreNames.map(name => cores[name]())]
}
