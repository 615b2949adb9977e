/**
 * Arithmetic on numbers in the x87 FPU's 80-bit format as WebAssembly: integers of 64 bits, exact for normal numbers and zeros under every
 * rounding and precision control. Whatever else there is (denormals, infinities, NaNs, overflow, underflow, an inexact result while the
 * precision exception is unmasked) is refused, and nothing has been written then: src/float has all of it. Intel SDM vol. 1, "x87 FPU Data
 * Types", "Rounding Control Field", "Precision Control Field".
 */
import { at } from '../cpu/layout.ts'
import { FunctionBuilder, type Node, type Variable } from '../wasm/function.ts'
import type { ValueType } from '../wasm/encode.ts'

/** The answer of a function that has done nothing. */
export const refused = -1
/** Of the status word. */
export const condition = { C0: 0x100, C1: 0x200, C2: 0x400, C3: 0x4000 } as const
const precisionException = 0x20
const signBit = 0x8000
const integerBit = 1n << 63n
const bias = 16383
/** Exponents of normal numbers are 1 to this less one. */
const specialExponent = 0x7fff
/** Of the control word: the rounding control and two of its values; bit 8 is 0 when precision is reduced, bit 9 then says to 53 bits. */
const rounding = { mask: 0xc00, down: 0x400, up: 0x800, zero: 0xc00 } as const
const reduced = { whole: 0x100, double: 0x200 } as const
/** Bits of a register's significand that a double and a single do not have. */
const dropped = { 24: 40, 53: 11 } as const

/** A number in a register: its significand and its sign and exponent. */
export interface Extended {
  readonly significand: Node
  readonly signExponent: Node
}
/** A rounded significand: `status` is 0, the precision exception, or that and C1. */
interface Rounded {
  readonly up: Variable
  readonly status: Variable
}

/** Functions over one kind of number, as others call them: parameters of both, where the result goes, the control word. */
export const coreSignature = {
  parameters: ['i64', 'i32', 'i64', 'i32', 'i32'], result: 'i32',
} as const satisfies { parameters: readonly ValueType[]; result: ValueType }

export abstract class ExtendedBuilder extends FunctionBuilder {
  protected control(): Node {
    return this.load('i32', 0, at.fpControl)
  }
  protected exponentOf(signExponent: Node): Node {
    return this.and(signExponent, specialExponent)
  }
  protected isNormal({ significand, signExponent }: Extended): Node {
    const inRange = this.ltU(this.sub(this.exponentOf(signExponent), 1), specialExponent - 1)
    return this.and(this.ltS(significand, 0n), inRange)
  }
  protected isZero({ significand, signExponent }: Extended): Node {
    return this.eqz(this.or(significand, this.extendU(this.exponentOf(signExponent))))
  }
  protected unless(condition: Node, otherwise: () => void): void {
    this.if(this.eqz(condition), otherwise)
  }
  protected putRegister(place: Node, significand: Node, signExponent: Node): void {
    this.store('i64', place, significand)
    this.store('i64', place, this.extendU(signExponent), 8)
  }

  /** `rest` are the bits below, `odd` whether the last one that stays is set. Returns `answer` if that cannot be told to the program. */
  protected round(sign: Node, rest: Node, odd: Node, mode: Node, answer: number): Rounded {
    const up = this.variable('i32')
    const status = this.variable('i32')
    this.set(up, 0)
    this.set(status, 0)
    this.if(this.ne(rest, 0n), () => {
      this.unless(this.and(this.control(), precisionException), () => this.return(answer))
      const nearest = (): Node => this.and(this.ltS(rest, 0n), this.or(this.ne(this.shl(rest, 1n), 0n), odd))
      const directed = (): Node => this.eq(mode, this.select(sign, rounding.down, this.i32(rounding.up)))
      this.set(up, this.ifValue(this.eqz(mode), 'i32', nearest, directed))
      this.set(status, this.select(this.get(up), precisionException | condition.C1, this.i32(precisionException)))
    })
    return { up, status }
  }
  protected roundingMode(): Node {
    return this.and(this.control(), rounding.mask)
  }

  /**
   * Rounds `high` (its top bit set) and the bits `low` below it as rounding and precision control say, writes the number and returns
   * what the status word gets of it.
   */
  protected pack(sign: Node, exponent: Variable, high: Variable, low: Variable, to: Node): void {
    const unit = this.variable('i64')
    this.if(this.geU(this.sub(this.get(exponent), 1), specialExponent - 1), () => this.return(refused))
    this.set(unit, 1n)
    this.unless(this.and(this.control(), reduced.whole), () => {
      const bits = this.select(this.and(this.control(), reduced.double), this.i64(dropped[53]), this.i64(dropped[24]))
      this.set(low, this.or(this.shl(this.get(high), this.sub(64n, bits)), this.extendU(this.ne(this.get(low), 0n))))
      this.set(unit, this.shl(this.i64(1), bits))
      this.set(high, this.and(this.get(high), this.neg(this.get(unit))))
    })
    const odd = this.ne(this.and(this.get(high), this.get(unit)), 0n)
    const { up, status } = this.round(sign, this.get(low), odd, this.roundingMode(), refused)
    this.if(this.get(up), () => {
      this.set(high, this.add(this.get(high), this.get(unit)))
      this.if(this.eqz(this.get(high)), () => {
        this.set(high, integerBit)
        this.set(exponent, this.add(this.get(exponent), 1))
        this.if(this.eq(this.get(exponent), specialExponent), () => this.return(refused))
      })
    })
    this.putRegister(to, this.get(high), this.or(sign, this.get(exponent)))
    this.return(this.get(status))
  }

  protected variableOf(type: ValueType, value: Node): Variable {
    const variable = this.variable(type)
    this.set(variable, value)
    return variable
  }
}

/** (a, b, place): writes what a and b give, and returns its bits of the status word, or `refused`. */
export abstract class ExtendedOperation extends ExtendedBuilder {
  constructor(name: string) {
    super(name, coreSignature.parameters, coreSignature.result)
  }
  protected operand(index: 0 | 1): Extended {
    return { significand: this.get(this.parameter(2 * index)), signExponent: this.get(this.parameter(2 * index + 1)) }
  }
  protected target(): Node {
    return this.get(this.parameter(4))
  }
  protected exponent(index: 0 | 1): Node {
    return this.exponentOf(this.operand(index).signExponent)
  }
  /** Of a product or quotient. */
  protected sign(): Node {
    return this.and(this.xor(this.operand(0).signExponent, this.operand(1).signExponent), signBit)
  }
  /** Writes a zero, which is exact. */
  protected packZero(sign: Node): void {
    this.putRegister(this.target(), this.i64(0), sign)
    this.return(0)
  }
  protected unlessNormal(otherwise: () => void): void {
    this.unless(this.and(this.isNormal(this.operand(0)), this.isNormal(this.operand(1))), () => {
      otherwise()
      this.return(refused)
    })
  }
}

export class Addition extends ExtendedOperation {
  build(): this {
    this.unlessNormal(() => this.withZero())
    this.exchangeIfLess()
    const exponent = this.variableOf('i32', this.exponent(0))
    const [high, low] = [this.variable('i64'), this.variable('i64')]
    this.align(high, low)
    const sign = this.and(this.operand(0).signExponent, signBit)
    this.if(this.and(this.xor(this.operand(0).signExponent, this.operand(1).signExponent), signBit),
      () => this.difference(exponent, high, low), () => this.sum(exponent, high, low))
    this.pack(sign, exponent, high, low, this.target())
    return this
  }
  /** The larger one first: by magnitude. */
  private exchangeIfLess(): void {
    const [a, b] = [this.operand(0), this.operand(1)]
    const [x, y] = [this.exponent(0), this.exponent(1)]
    const less = this.or(this.ltU(x, y), this.and(this.eq(x, y), this.ltU(a.significand, b.significand)))
    this.if(less, () => [b.significand, b.signExponent, a.significand, a.signExponent].forEach((value, i) =>
      this.set(this.parameter(i), value)))
  }
  /** The second one's significand with the first one's exponent: 128 bits, the last one standing for all below. */
  private align(high: Variable, low: Variable): void {
    const { significand } = this.operand(1)
    const distance = this.variableOf('i64', this.extendU(this.sub(this.exponent(0), this.exponent(1))))
    const by = (): Node => this.get(distance)
    const back = (): Node => this.sub(0n, by()) // modulo 64
    this.if(this.ltU(by(), 64n), () => {
      this.set(high, this.shrU(significand, by()))
      this.set(low, this.select(this.eqz(by()), this.i64(0), this.shl(significand, back())))
    }, () => {
      const lost = this.ne(this.shl(significand, back()), 0n)
      const near = this.or(this.shrU(significand, by()), this.and(this.extendU(lost), this.extendU(this.ne(by(), 64n))))
      this.set(high, 0n)
      this.set(low, this.select(this.ltU(by(), 66n), near, this.i64(1)))
    })
  }
  private sum(exponent: Variable, high: Variable, low: Variable): void {
    const first = this.operand(0).significand
    this.set(high, this.add(this.get(high), first))
    this.if(this.ltU(this.get(high), first), () => {
      // no bit is lost: with a carry the second one was moved by less than 64, which leaves zeros at the lower end
      this.set(low, this.or(this.shrU(this.get(low), 1n), this.shl(this.get(high), 63n)))
      this.set(high, this.or(this.shrU(this.get(high), 1n), integerBit))
      this.set(exponent, this.add(this.get(exponent), 1))
    })
  }
  private difference(exponent: Variable, high: Variable, low: Variable): void {
    const borrow = this.extendU(this.ne(this.get(low), 0n))
    this.set(high, this.sub(this.sub(this.operand(0).significand, this.get(high)), borrow))
    this.set(low, this.neg(this.get(low)))
    this.if(this.eqz(this.get(high)), () => {
      this.if(this.eqz(this.get(low)), () => this.packZero(this.zeroSign()))
      this.set(high, this.get(low))
      this.set(low, 0n)
      this.set(exponent, this.sub(this.get(exponent), 64))
    })
    const zeros = this.variableOf('i64', this.unary('clz', this.get(high)))
    this.if(this.ne(this.get(zeros), 0n), () => {
      const shifted = this.shl(this.get(high), this.get(zeros))
      this.set(high, this.or(shifted, this.shrU(this.get(low), this.sub(0n, this.get(zeros)))))
      this.set(low, this.shl(this.get(low), this.get(zeros)))
      this.set(exponent, this.sub(this.get(exponent), this.wrap(this.get(zeros))))
    })
  }
  /** Of an exact zero. */
  private zeroSign(): Node {
    return this.shl(this.eq(this.roundingMode(), rounding.down), 15)
  }
  /** A zero leaves the other one as it is, to the precision that is asked for. */
  private withZero(): void {
    const [a, b] = [this.operand(0), this.operand(1)]
    this.if(this.and(this.isZero(a), this.isZero(b)), () =>
      this.packZero(this.select(this.and(this.xor(a.signExponent, b.signExponent), signBit), this.zeroSign(), a.signExponent)))
    for (const [zero, other] of [[a, b], [b, a]])
      this.if(this.and(this.isZero(zero), this.isNormal(other)), () => {
        const exponent = this.variableOf('i32', this.exponentOf(other.signExponent))
        const high = this.variableOf('i64', other.significand)
        this.pack(this.and(other.signExponent, signBit), exponent, high, this.variableOf('i64', this.i64(0)), this.target())
      })
  }
}

export class Multiplication extends ExtendedOperation {
  build(): this {
    const isNumber = (x: Extended): Node => this.or(this.isNormal(x), this.isZero(x))
    this.unlessNormal(() =>
      this.if(this.and(isNumber(this.operand(0)), isNumber(this.operand(1))), () => this.packZero(this.sign())))
    const lower = 0xffffffffn
    const [a, b] = [this.operand(0).significand, this.operand(1).significand]
    const [a0, a1, b0, b1] = [this.and(a, lower), this.shrU(a, 32n), this.and(b, lower), this.shrU(b, 32n)]
    const least = this.mul(a0, b0)
    const middle = this.add(this.mul(a0, b1), this.shrU(least, 32n))
    const other = this.add(this.mul(a1, b0), this.and(middle, lower))
    const high = this.variableOf('i64', this.add(this.add(this.mul(a1, b1), this.shrU(middle, 32n)), this.shrU(other, 32n)))
    const low = this.variableOf('i64', this.or(this.shl(other, 32n), this.and(least, lower)))
    const exponent = this.variableOf('i32', this.sub(this.add(this.exponent(0), this.exponent(1)), bias - 1))
    this.if(this.geS(this.get(high), 0n), () => {
      this.set(high, this.or(this.shl(this.get(high), 1n), this.shrU(this.get(low), 63n)))
      this.set(low, this.shl(this.get(low), 1n))
      this.set(exponent, this.sub(this.get(exponent), 1))
    })
    this.pack(this.sign(), exponent, high, low, this.target())
    return this
  }
}

/** Knuth, The Art of Computer Programming vol. 2, "Algorithm D", with two digits of 32 bits. */
export class Division extends ExtendedOperation {
  build(): this {
    const [a, b] = [this.operand(0), this.operand(1)]
    this.unlessNormal(() => this.if(this.and(this.isZero(a), this.isNormal(b)), () => this.packZero(this.sign())))
    const less = this.ltU(a.significand, b.significand)
    const exponent = this.variableOf('i32', this.sub(this.add(this.sub(this.exponent(0), this.exponent(1)), bias), less))
    // of the dividend, moved right by one bit where that is needed for a quotient of 64 bits
    const right = this.extendU(this.xor(less, 1))
    const rest = this.variableOf('i64', this.shrU(a.significand, right))
    const below = this.shl(this.and(a.significand, right), 63n)
    const high = this.variableOf('i64', this.digit(rest, this.shrU(below, 32n), b.significand))
    const last = this.digit(rest, this.i64(0), b.significand)
    this.set(high, this.or(this.shl(this.get(high), 32n), last))
    this.pack(this.sign(), exponent, high, this.variableOf('i64', this.restAgainst(this.get(rest), b.significand)), this.target())
    return this
  }
  /** One digit of the quotient of `rest` and 32 bits more; the rest becomes what is left. */
  private digit(rest: Variable, next: Node, divisor: Node): Node {
    const [upper, lower] = [this.shrU(divisor, 32n), this.and(divisor, 0xffffffffn)]
    const quotient = this.variableOf('i64', this.divU(this.get(rest), upper))
    const left = this.variableOf('i64', this.sub(this.get(rest), this.mul(this.get(quotient), upper)))
    this.block(done => this.loop(again => {
      const isDigit = this.eqz(this.shrU(this.get(quotient), 32n))
      const fits = this.leU(this.mul(this.get(quotient), lower), this.or(this.shl(this.get(left), 32n), next))
      this.brIf(done, this.and(isDigit, fits))
      this.set(quotient, this.sub(this.get(quotient), 1n))
      this.set(left, this.add(this.get(left), upper))
      this.brIf(again, this.eqz(this.shrU(this.get(left), 32n)))
    }))
    this.set(rest, this.sub(this.or(this.shl(this.get(rest), 32n), next), this.mul(this.get(quotient), divisor)))
    return this.get(quotient)
  }
  /** What is left, as bits below: none, less than half, half, more. */
  private restAgainst(rest: Node, divisor: Node): Node {
    const others = this.sub(divisor, rest)
    const more = this.select(this.gtU(rest, others), integerBit | 1n, this.i64(integerBit))
    return this.select(this.eqz(rest), this.i64(0), this.select(this.ltU(rest, others), this.i64(1), more))
  }
}

/** The root of the first operand. Zimmermann, "Karatsuba Square Root", with 32 bits from a double's root and 32 from a division. */
export class SquareRoot extends ExtendedOperation {
  build(): this {
    const a = this.operand(0)
    this.unless(this.and(this.isNormal(a), this.eqz(this.and(a.signExponent, signBit))), () => {
      this.if(this.isZero(a), () => this.packZero(a.signExponent))
      this.return(refused)
    })
    // significand × 2^63 or × 2^64, whichever leaves an even exponent
    const even = this.and(a.signExponent, 1) // the bias is odd
    const right = this.extendU(even)
    const upper = this.shrU(a.significand, right)
    const next = this.and(this.shl(a.significand, 31n), this.select(even, this.i64(0x80000000n), this.i64(0)))
    const first = this.variableOf('i64', this.estimate(upper))
    this.if(this.gtU(this.mul(this.get(first), this.get(first)), upper), () => this.set(first, this.sub(this.get(first), 1n)))
    const rest = this.sub(upper, this.mul(this.get(first), this.get(first)))
    // half of what is left and 32 bits more, by the half root: twice as much would not fit
    const half = this.or(this.shl(rest, 31n), this.shrU(next, 1n))
    const digit = this.divU(half, this.get(first))
    this.if(this.ne(this.shrU(digit, 32n), 0n), () => this.return(refused))
    const left = this.shl(this.sub(half, this.mul(digit, this.get(first))), 1n) // `next` is even
    const root = this.variableOf('i64', this.or(this.shl(this.get(first), 32n), digit))
    const low = this.variableOf('i64', this.shl(left, 32n))
    const high = this.variableOf('i64', this.shrU(left, 32n))
    const square = this.mul(digit, digit)
    this.set(high, this.sub(this.get(high), this.extendU(this.ltU(this.get(low), square))))
    this.set(low, this.sub(this.get(low), square))
    this.if(this.ltS(this.get(high), 0n), () => {
      this.set(root, this.sub(this.get(root), 1n))
      const twice = this.or(this.shl(this.get(root), 1n), 1n)
      this.set(low, this.add(this.get(low), twice))
      const carry = this.extendU(this.ltU(this.get(low), twice))
      this.set(high, this.add(this.add(this.get(high), this.shrU(this.get(root), 63n)), carry))
    })
    // the root and a half, squared, is the root more than its square, and a quarter
    const above = this.or(this.ne(this.get(high), 0n), this.gtU(this.get(low), this.get(root)))
    const exact = this.eqz(this.or(this.get(high), this.get(low)))
    const rounding = this.select(above, integerBit | 1n, this.i64(1))
    const exponent = this.variableOf('i32', this.shrU(this.add(this.exponent(0), bias), 1))
    this.pack(this.i32(0), exponent, root, this.variableOf('i64', this.select(exact, this.i64(0), rounding)), this.target())
    return this
  }
  /** The integer root of 64 bits, or one more; 32 bits. */
  private estimate(value: Node): Node {
    const root = this.convert('truncSatF64ToI64', this.unary('sqrt', this.convert('f64FromU64', value)))
    return this.select(this.ne(this.shrU(root, 32n), 0n), 0xffffffffn, root)
  }
}

/** C3, C2, C0 as a comparison of the two sets them: less C0, equal C3, greater none. The place is not used. */
export class Comparison extends ExtendedOperation {
  build(): this {
    const [a, b] = [this.operand(0), this.operand(1)]
    const isNumber = (x: Extended): Node => this.or(this.isNormal(x), this.isZero(x))
    this.unless(this.and(isNumber(a), isNumber(b)), () => this.return(refused))
    this.if(this.eqz(this.or(a.significand, b.significand)), () => this.return(condition.C3))
    const negative = this.ne(this.and(a.signExponent, signBit), 0)
    const lessWhen = (isLess: Node): void => this.return(this.select(isLess, condition.C0, this.i32(0)))
    this.if(this.and(this.xor(a.signExponent, b.signExponent), signBit), () => lessWhen(negative))
    const [x, y] = [this.exponent(0), this.exponent(1)]
    this.if(this.ne(x, y), () => lessWhen(this.xor(this.ltU(x, y), negative)))
    this.if(this.eq(a.significand, b.significand), () => this.return(condition.C3))
    lessWhen(this.xor(this.ltU(a.significand, b.significand), negative))
    return this
  }
}
