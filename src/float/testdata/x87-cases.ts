/** Replays lines recorded by tools/float/record.c for the x87 through src/float and says where they differ. */
import { absolute, extended, negate, signOf, zero } from '../extended.ts'
import type { Extended } from '../extended.ts'
import { floatStatus, loadControlWord } from '../status.ts'
import type { FloatStatus } from '../status.ts'
import * as convert from '../x87-convert.ts'
import { isWritten, statusWordBits } from '../x87-exceptions.ts'
import type { Destination } from '../x87-exceptions.ts'
import * as x87 from '../x87.ts'

/** A miniature FPU: the two registers that the recorder loads, the operand's bytes, and what the instruction leaves. */
export interface Fpu {
  status: FloatStatus
  /** ST(0) first. */
  stack: Extended[]
  conditions: number
  operand: bigint
  memory: string
}

type Run = (fpu: Fpu) => void

function finish(fpu: Fpu, destination: Destination, effect: () => void): void {
  if (isWritten(fpu.status, destination)) effect()
}

function binary(operation: (a: Extended, b: Extended, status: FloatStatus) => Extended): Run {
  return fpu => {
    const result = operation(fpu.stack[0], fpu.stack[1], fpu.status)
    finish(fpu, 'register', () => { fpu.stack[0] = result })
  }
}

function reversed(operation: (a: Extended, b: Extended, status: FloatStatus) => Extended): Run {
  return binary((a, b, status) => operation(b, a, status))
}

export function unary(operation: (a: Extended, status: FloatStatus) => Extended): Run {
  return binary((a, _b, status) => operation(a, status))
}

/** ST(1) op ST(0), then pop. */
export function popping(operation: (a: Extended, b: Extended, status: FloatStatus) => Extended): Run {
  return fpu => {
    const result = operation(fpu.stack[0], fpu.stack[1], fpu.status)
    finish(fpu, 'register', () => { fpu.stack.splice(0, 2, result) })
  }
}

/** C3, C2, C0 of FCOM. */
const relationConditions = { [-1]: 0x100, 0: 0x4000, 1: 0, 2: 0x4500 }

function comparison(quiet: boolean, pops: number, other: (fpu: Fpu) => Extended = fpu => fpu.stack[1]): Run {
  return fpu => {
    const found = x87.compare(fpu.stack[0], other(fpu), quiet, fpu.status)
    fpu.conditions = relationConditions[found]
    finish(fpu, 'register', () => { fpu.stack.splice(0, pops) })
  }
}

function remainder(nearest: boolean): Run {
  return fpu => {
    const { value, quotient, partial } = x87.remainder(fpu.stack[0], fpu.stack[1], nearest, fpu.status)
    finish(fpu, 'register', () => {
      fpu.stack[0] = value
      fpu.conditions = (partial ? 0x400 : 0) | (quotient & 1) << 9 | (quotient & 2) << 13 | (quotient & 4) << 6
    })
  }
}

function store(bytes: number, operation: (value: Extended, status: FloatStatus) => bigint | number): Run {
  return fpu => {
    const bits = BigInt.asUintN(8 * bytes, BigInt(operation(fpu.stack[0], fpu.status)))
    finish(fpu, 'memory', () => {
      fpu.memory = bits.toString(16).padStart(2 * bytes, '0')
      fpu.stack.shift()
    })
  }
}

export function load(operation: (operand: bigint, status: FloatStatus) => Extended): Run {
  return fpu => {
    const value = operation(fpu.operand, fpu.status)
    finish(fpu, 'load', () => { fpu.stack.unshift(value) })
  }
}

const classConditions = [0, 0x100, 0x400, 0x500, 0x4000, 0x4100, 0x4400]

const runs: Record<string, Run> = {
  fadd: binary(x87.add), faddp: popping(x87.add), fmul: binary(x87.multiply),
  fsub: binary(x87.subtract), fsubr: reversed(x87.subtract), fdiv: binary(x87.divide), fdivr: reversed(x87.divide),
  fsqrt: unary(x87.squareRoot), frndint: unary(x87.roundToIntegral), fscale: binary(x87.scale),
  fabs: unary(absolute), fchs: unary(negate),
  fcom: comparison(false, 0), fucom: comparison(true, 0), fcompp: comparison(false, 2), ftst: comparison(false, 0, () => zero(0)),
  fprem: remainder(false), fprem1: remainder(true),
  fxam: fpu => { fpu.conditions = classConditions[x87.classify(fpu.stack[0])] | signOf(fpu.stack[0]) << 9 },
  fxtract: fpu => {
    const { exponent, significand } = x87.extract(fpu.stack[0], fpu.status)
    finish(fpu, 'register', () => { fpu.stack.splice(0, 1, significand, exponent) })
  },
  fsts: store(4, convert.toSingle), fstl: store(8, convert.toDouble), fbstp: store(10, convert.toBcd),
  flds: load((bits, status) => convert.fromSingle(Number(bits & 0xffff_ffffn), status)),
  fldl: load((bits, status) => convert.fromDouble(bits & 0xffff_ffff_ffff_ffffn, status)),
  fbld: load(bits => convert.fromBcd(bits)),
  fld1: load((_, status) => convert.constant('one', status)),
  fldz: load((_, status) => convert.constant('zero', status)),
}
for (const width of [16, 32, 64] as const) {
  runs[`fist${width}`] = store(width / 8, (value, status) => convert.toInteger(value, width, false, status))
  runs[`fisttp${width}`] = store(width / 8, (value, status) => convert.toInteger(value, width, true, status))
  runs[`fild${width}`] = load(bits => convert.fromInteger(BigInt.asIntN(width, bits)))
}
for (const name of ['l2t', 'l2e', 'pi', 'lg2', 'ln2'] as const) runs[`fld${name}`] = load((_, status) => convert.constant(name, status))

export function parseExtended(text: string): Extended {
  return extended(parseInt(text.slice(0, 4), 16), BigInt(`0x${text.slice(4)}`))
}

export function formatExtended({ signExponent, significand }: Extended): string {
  return signExponent.toString(16).padStart(4, '0') + significand.toString(16).padStart(16, '0')
}

const status = floatStatus()

/** Runs one recorded line. The recorder's TOP is 6 before the instruction. */
export function replay(run: Run, controlWord: string, a: string, b: string, memoryBytes: number): Fpu {
  loadControlWord(status, parseInt(controlWord, 16))
  const fpu: Fpu = {
    status, stack: [parseExtended(a), parseExtended(b)], conditions: 0, operand: BigInt(`0x${a}`), memory: 'cc'.repeat(memoryBytes),
  }
  run(fpu)
  return fpu
}

export function statusWord(fpu: Fpu): number {
  return statusWordBits(fpu.status) | fpu.conditions | (8 - fpu.stack.length) << 11 & 0x3800
}

/** Undefined when src/float gives what the processor gave. */
export function checkX87(line: string): string | undefined {
  const [name, controlWord, a, b, expectedStatus, st0, st1, memory] = line.split(' ')
  const run = runs[name]
  if (run === undefined) throw new Error(`no such case: ${name}`)
  const fpu = replay(run, controlWord, a, b, (memory?.length ?? 0) / 2)
  const found = [statusWord(fpu).toString(16)]
  // Registers that are empty keep what was in them: not compared.
  const registers = [st0, st1].slice(0, fpu.stack.length)
  found.push(...fpu.stack.slice(0, 2).map(formatExtended))
  if (memory !== undefined) found.push(fpu.memory)
  const expected = [expectedStatus, ...registers, ...(memory === undefined ? [] : [memory])]
  return found.join(' ') === expected.join(' ') ? undefined : `${line}: got ${found.join(' ')}`
}

