/** Integer addition, subtraction, multiplication and division. Intel SDM vol. 2, instruction reference. */
import { form, instruction, legacyOnly, lockable, type Body, type Form } from '../define.ts'
import { AL, Eb, Ev, Ey, Gb, Gv, Gy, Ib, Ibs, Iz, rAX, Zv } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import type { Operand } from '../operands.ts'
import { readAs } from './move.ts'
import { addFlags, auxOf, resultFlags, stepFlags, subFlags } from '../flags.ts'
import { vector as exception } from '../../cpu/fault.ts'

/** The nine forms that ADD, OR, ADC, SBB, AND, SUB, XOR and CMP share; `first` is the opcode of Eb,Gb and `digit` that of group 1. */
export function aluForms(first: number, digit: number, locks: boolean): Form[] {
  const opcode = (offset: number): string => (first + offset).toString(16).toUpperCase().padStart(2, '0')
  const lock = locks ? lockable : {}
  return [
    form(`${opcode(0)} /r`, Eb, Gb, lock),
    form(`${opcode(1)} /r`, Ev, Gv, lock),
    form(`${opcode(2)} /r`, Gb, Eb),
    form(`${opcode(3)} /r`, Gv, Ev),
    form(`${opcode(4)} ib`, AL, Ib),
    form(`${opcode(5)} iz`, rAX, Iz),
    form(`80 /${digit} ib`, Eb, Ib, lock),
    form(`81 /${digit} iz`, Ev, Iz, lock),
    form(`82 /${digit} ib`, Eb, Ib, lock, legacyOnly),
    form(`83 /${digit} ib`, Ev, Ibs, lock),
  ]
}

const binary = (compute: (b: Semantics, bits: number, left: Node, right: Node) => Node): Body => (b, destination, source) => {
  const right = readAs(b, source, destination.bits)
  b.update(destination, left => compute(b, destination.bits, left, right))
}

instruction('ADD', {
  forms: aluForms(0x00, 0, true),
  semantics: binary((b, bits, left, right) => {
    const sum = b.add(left, right)
    addFlags(b, bits, left, right, sum)
    return sum
  }),
})

instruction('ADC', {
  forms: aluForms(0x10, 2, true),
  semantics: binary((b, bits, left, right) => {
    const carry = b.flagNow('CF')
    const sum = b.add(b.add(left, right), bits === 64 ? b.extendU(carry) : carry)
    addFlags(b, bits, left, right, sum, carry)
    return sum
  }),
})

instruction('SUB', {
  forms: aluForms(0x28, 5, true),
  semantics: binary((b, bits, left, right) => {
    const difference = b.sub(left, right)
    subFlags(b, bits, left, right, difference)
    return difference
  }),
})

instruction('SBB', {
  forms: aluForms(0x18, 3, true),
  semantics: binary((b, bits, left, right) => {
    const borrow = b.flagNow('CF')
    const difference = b.sub(b.sub(left, right), bits === 64 ? b.extendU(borrow) : borrow)
    subFlags(b, bits, left, right, difference, borrow)
    return difference
  }),
})

instruction('CMP', {
  forms: aluForms(0x38, 7, false),
  semantics: (b, destination, source) => {
    const left = b.read(destination)
    const right = readAs(b, source, destination.bits)
    subFlags(b, destination.bits, left, right, b.sub(left, right))
  },
})

instruction('INC', {
  forms: [form('FE /0', Eb, lockable), form('FF /0', Ev, lockable), form('40+r', Zv, legacyOnly)],
  semantics: (b, destination) =>
    b.update(destination, old => {
      const result = b.add(old, 1)
      stepFlags(b, destination.bits, old, result, b.eqz(b.widen(result, destination.bits)))
      return result
    }),
})

instruction('DEC', {
  forms: [form('FE /1', Eb, lockable), form('FF /1', Ev, lockable), form('48+r', Zv, legacyOnly)],
  semantics: (b, destination) =>
    b.update(destination, old => {
      const result = b.sub(old, 1)
      stepFlags(b, destination.bits, old, result, b.eqz(old))
      return result
    }),
})

instruction('NEG', {
  forms: [form('F6 /3', Eb, lockable), form('F7 /3', Ev, lockable)],
  semantics: (b, destination) =>
    b.update(destination, old => {
      const zero = b.constant(destination.bits, 0)
      const result = b.sub(zero, old)
      subFlags(b, destination.bits, zero, old, result)
      return result
    }),
})

instruction('XADD', {
  forms: [form('0F C0 /r', Eb, Gb, lockable), form('0F C1 /r', Ev, Gv, lockable)],
  semantics: (b, destination, source) => {
    const addend = b.read(source)
    b.update(destination, old => {
      const sum = b.add(old, addend)
      addFlags(b, destination.bits, old, addend, sum)
      b.write(source, old) // before the sum: with the same register twice, the sum stays
      return sum
    })
  },
})

instruction('CMPXCHG', {
  forms: [form('0F B0 /r', Eb, Gb, lockable), form('0F B1 /r', Ev, Gv, lockable)],
  semantics: (b, destination, source) => {
    const bits = destination.bits
    const replacement = b.read(source)
    const full = b.gpr(0)
    const accumulator = bits === 64 ? full : b.unsigned(b.wrap(full), bits)
    const compare = (old: Node): Node => {
      const equal = b.eq(accumulator, old)
      subFlags(b, bits, accumulator, old, b.sub(accumulator, old))
      // a destination that differs goes to the accumulator; an equal one leaves all of RAX as it was
      const loaded = bits === 64 ? old : bits === 32 ? b.extendU(old) : b.or(b.and(full, bits === 16 ? ~0xffffn : ~0xffn), b.extendU(old))
      b.writeRegister(0, b.select(equal, full, loaded))
      return equal
    }
    if (destination.class === 'memory') return b.update(destination, old => b.select(compare(old), replacement, old))
    // a register that differs is not touched: its upper half stays
    b.when(compare(b.read(destination)), () => b.write(destination, replacement))
  },
})

/** Unsigned or signed product of two values of this width: [low, high]. */
export function multiply(b: Semantics, bits: number, left: Node, right: Node, isSigned: boolean): [Node, Node] {
  if (bits < 32) {
    const product = isSigned ? b.mul(b.signed(left, bits), b.signed(right, bits)) : b.mul(left, right)
    return [b.unsigned(product, bits), b.unsigned(isSigned ? b.shrS(product, bits) : b.shrU(product, bits), bits)]
  }
  if (bits === 32) {
    const extend = (value: Node): Node => (isSigned ? b.extendS(value) : b.extendU(value))
    const product = b.mul(extend(left), extend(right))
    return [b.wrap(product), b.wrap(b.shrU(product, 32n))]
  }
  const low = b.mul(left, right)
  const high = highProduct(b, left, right)
  if (!isSigned) return [low, high]
  const correction = (x: Node, y: Node): Node => b.and(b.shrS(x, 63n), y)
  return [low, b.sub(b.sub(high, correction(left, right)), correction(right, left))]
}

/** Upper 64 bits of an unsigned 64 × 64 product, from four 32-bit products. */
function highProduct(b: Semantics, x: Node, y: Node): Node {
  const mask = 0xffffffffn
  const x0 = b.and(x, mask), x1 = b.shrU(x, 32n), y0 = b.and(y, mask), y1 = b.shrU(y, 32n)
  const middle = b.add(b.mul(x1, y0), b.shrU(b.mul(x0, y0), 32n))
  const other = b.add(b.mul(x0, y1), b.and(middle, mask))
  return b.add(b.add(b.mul(x1, y1), b.shrU(middle, 32n)), b.shrU(other, 32n))
}

/** CF = OF = `overflow`; SF, ZF, AF, PF are undefined: they follow the low half, as processors of both vendors do not contradict. */
function productFlags(b: Semantics, bits: number, low: Node, overflow: Node): void {
  b.setFlags({ ...resultFlags(b, bits, low), aux: b.i64(0), carry: overflow })
}

/** Writes the double-width result of MUL, IMUL, DIV and IDIV: AX, or rDX and rAX. */
function writePair(b: Semantics, bits: number, low: Node, high: Node): void {
  const narrow = (index: number, value: Node): Node => b.or(b.and(b.gpr(index), ~0xffffn), b.extendU(b.and(value, 0xffff)))
  if (bits === 8) b.writeRegister(0, narrow(0, b.or(b.and(low, 0xff), b.shl(high, 8))))
  else if (bits === 16) {
    b.writeRegister(0, narrow(0, low))
    b.writeRegister(2, narrow(2, high))
  } else {
    b.writeRegister(0, bits === 32 ? b.extendU(low) : low)
    b.writeRegister(2, bits === 32 ? b.extendU(high) : high)
  }
}

/** Register `index` at this width. */
const accumulator = (b: Semantics, index: number, bits: number): Node =>
  (bits === 64 ? b.gpr(index) : b.unsigned(b.wrap(b.gpr(index)), bits))

const signFits = (b: Semantics, bits: number, low: Node, high: Node): Node =>
  bits < 32 ? b.ne(b.unsigned(b.shrS(b.signed(low, bits), bits), bits), high) : b.ne(b.shrS(low, bits - 1), high)

const multiplyAccumulator = (isSigned: boolean): Body => (b, source) => {
  const bits = source.bits
  const right = b.read(source)
  const [low, high] = multiply(b, bits, accumulator(b, 0, bits), right, isSigned)
  productFlags(b, bits, low, isSigned ? signFits(b, bits, low, high) : b.eqz(b.eqz(high)))
  writePair(b, bits, low, high)
}

instruction('MUL', { forms: [form('F6 /4', Eb), form('F7 /4', Ev)], semantics: multiplyAccumulator(false) })
instruction('IMUL', { forms: [form('F6 /5', Eb), form('F7 /5', Ev)], semantics: multiplyAccumulator(true) })

const imul = (b: Semantics, destination: Operand, left: Node, right: Node): void => {
  const [low, high] = multiply(b, destination.bits, left, right, true)
  productFlags(b, destination.bits, low, signFits(b, destination.bits, low, high))
  b.write(destination, low)
}
instruction('IMUL', {
  forms: [form('0F AF /r', Gv, Ev)],
  semantics: (b, destination, source) => imul(b, destination, b.read(destination), b.read(source)),
})
instruction('IMUL', {
  forms: [form('69 /r iz', Gv, Ev, Iz), form('6B /r ib', Gv, Ev, Ibs)],
  semantics: (b, destination, source, immediate) => imul(b, destination, b.read(source), readAs(b, immediate, destination.bits)),
})

/** Unsigned division of a double-width dividend: #DE when the quotient does not fit. 64-bit operands: a helper. */
instruction('DIV', {
  forms: [form('F6 /6', Eb), form('F7 /6', Ev)],
  semantics: (b, source) => {
    const bits = source.bits
    const divisor = b.widenUnsigned(b.read(source), bits)
    b.faultIf(b.eqz(divisor), exception.DE)
    if (bits === 64) {
      b.when(b.eqz(b.gpr(2)), () => {
        const dividend = b.gpr(0)
        b.writeRegister(0, b.divU(dividend, divisor))
        b.writeRegister(2, b.remU(dividend, divisor))
      }, () => b.helperInside('div', divisor))
      return
    }
    const dividend = dividendOf(b, bits)
    const quotient = b.divU(dividend, divisor)
    b.faultIf(b.gtU(quotient, b.i64((1n << BigInt(bits)) - 1n)), exception.DE)
    writePair(b, bits, b.wrap(quotient), b.wrap(b.remU(dividend, divisor)))
  },
})

instruction('IDIV', {
  forms: [form('F6 /7', Eb), form('F7 /7', Ev)],
  semantics: (b, source) => {
    const bits = source.bits
    const divisor = b.widen(b.read(source), bits)
    b.faultIf(b.eqz(divisor), exception.DE)
    if (bits === 64) {
      const dividend = b.gpr(0)
      // the usual case: RDX is the sign of RAX, and the quotient is not 2^63
      const simple = b.and(b.eq(b.gpr(2), b.shrS(dividend, 63n)), b.ne(divisor, -1n))
      b.when(simple, () => {
        b.writeRegister(0, b.divS(dividend, divisor))
        b.writeRegister(2, b.remS(dividend, divisor))
      }, () => b.helperInside('idiv', divisor))
      return
    }
    const dividend = bits === 32 ? dividendOf(b, bits) : b.extendS(b.signed(b.wrap(dividendOf(b, bits)), bits * 2))
    // the dividend -2^63 with divisor -1 would trap in WebAssembly: its quotient does not fit anyway
    b.faultIf(b.and(b.eq(dividend, b.i64(-(1n << 63n))), b.eq(divisor, -1n)), exception.DE)
    const quotient = b.divS(dividend, divisor)
    const limit = 1n << BigInt(bits - 1)
    b.faultIf(b.gtU(b.add(quotient, limit), b.i64(2n * limit - 1n)), exception.DE)
    writePair(b, bits, b.wrap(quotient), b.wrap(b.remS(dividend, divisor)))
  },
})

/** AX, DX:AX or EDX:EAX as i64, zero-extended. */
function dividendOf(b: Semantics, bits: number): Node {
  if (bits === 8) return b.and(b.gpr(0), 0xffffn)
  const mask = (1n << BigInt(bits)) - 1n
  return b.or(b.and(b.gpr(0), mask), b.shl(b.and(b.gpr(2), mask), BigInt(bits)))
}

/** ADCX and ADOX: additions with one flag as carry, the other flags stay. */
instruction('ADCX', {
  forms: [form('66 0F 38 F6 /r', Gy, Ey)],
  feature: 'adx',
  semantics: (b, destination, source) => {
    const bits = destination.bits
    const [sum, carry] = addWith(b, bits, b.read(destination), b.read(source), b.flagNow('CF'))
    // OF = bit 63 of flagAux XOR CF must stay while CF changes
    b.setFlags({ carry, aux: b.xor(b.state('flagAux'), b.shl(b.extendU(b.xor(carry, b.flagNow('CF'))), 63n)) })
    b.write(destination, sum)
  },
})
instruction('ADOX', {
  forms: [form('F3 0F 38 F6 /r', Gy, Ey)],
  feature: 'adx',
  semantics: (b, destination, source) => {
    const bits = destination.bits
    const [sum, overflow] = addWith(b, bits, b.read(destination), b.read(source), b.flagNow('OF'))
    b.setFlags({ aux: b.or(b.and(b.state('flagAux'), (1n << 63n) - 1n), auxOf(b, b.flagNow('CF'), overflow)) })
    b.write(destination, sum)
  },
})
function addWith(b: Semantics, bits: number, left: Node, right: Node, carry: Node): [Node, Node] {
  const sum = b.add(b.add(left, right), bits === 64 ? b.extendU(carry) : carry)
  return [sum, b.or(b.ltU(sum, left), b.and(carry, b.eq(sum, left)))]
}
