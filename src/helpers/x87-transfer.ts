/**
 * x87 loads, stores, exchanges and conditional moves. Intel SDM vol. 2, "FLD", "FST", "FILD", "FIST", "FISTTP", "FBLD", "FBSTP", "FXCH",
 * "FCMOVcc".
 * Operands in memory: argument[0] is their place, argument[1] their linear address.
 */
import { after, type After, type Helper, type Processor } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import { INDEFINITE, extended, type Extended } from '../float/extended.ts'
import type { FloatStatus } from '../float/status.ts'
import * as convert from '../float/x87-convert.ts'
import { viewOf } from './sse-float.ts'
import { isModerate, readNumber, readSingle, writeNumber } from './x87-number.ts'
import {
  argument, begin, beginMemory, copyRegister, isEmpty, markValid, operandIndex, overflows, pop, read, registerWord, rotate, setEmpty,
  settle, settled, stackFaults, status, underflows, write,
} from './x87-stack.ts'

// ---- loads ----

function push(cpu: Processor, value: Extended): After {
  if (settled(cpu, 'load')) {
    rotate(cpu.state, -1)
    write(cpu.state, 0, value)
  }
  return after.next
}
function pushNumber(cpu: Processor, value: number): After {
  settle(cpu)
  rotate(cpu.state, -1)
  writeNumber(cpu.state, 0, value)
  return after.next
}

/** `number` reads the operand for the quick way; `exact` does what that cannot. */
const load = (number: (view: DataView, place: number) => number, exact: (view: DataView, place: number) => Extended): Helper => cpu => {
  beginMemory(cpu)
  if (overflows(cpu)) return after.next
  const view = viewOf(cpu.state)
  const place = argument(cpu, 0)
  const value = number(view, place)
  return isModerate(value) ? pushNumber(cpu, value) : push(cpu, exact(view, place))
}

/** FLD m80 moves bits: nothing is looked at. */
function fldM80(cpu: Processor): After {
  beginMemory(cpu)
  if (overflows(cpu)) return after.next
  const { state } = cpu
  const view = viewOf(state)
  const place = argument(cpu, 0)
  settle(cpu)
  rotate(state, -1)
  const to = registerWord(state, 0)
  state.words[to] = view.getUint32(place, true)
  state.words[to + 1] = view.getUint32(place + 4, true)
  markValid(state, 0, view.getUint16(place + 8, true))
  return after.next
}

/** 64-bit integers of up to 53 bits are numbers. */
function smallInteger(view: DataView, place: number): number {
  const high = view.getInt32(place + 4, true)
  return high >= -(2 ** 20) && high < 2 ** 20 ? high * 2 ** 32 + view.getUint32(place, true) : NaN
}

function readBcd(view: DataView, place: number): bigint {
  return view.getBigUint64(place, true) | (BigInt(view.getUint16(place + 8, true)) << 64n)
}

const constant = (name: convert.Constant): Helper => cpu => {
  begin(cpu)
  return overflows(cpu) ? after.next : push(cpu, convert.constant(name, status))
}

/** FLD ST(i): an empty ST(i) is pushed as the indefinite value. */
function fldSti(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  if (overflows(cpu)) return after.next
  if (isEmpty(state, i)) {
    if (!stackFaults(cpu, false)) return after.next
    rotate(state, -1)
    write(state, 0, INDEFINITE)
    return after.next
  }
  settle(cpu)
  rotate(state, -1)
  copyRegister(state, (i + 1) & 7, 0)
  return after.next
}

// ---- stores ----

/** Stores ST(0) and pops it. `quick` may answer undefined; an empty register stores the indefinite value, if that is masked. */
interface Store {
  readonly quick?: (state: CpuState, view: DataView, place: number) => boolean
  readonly exact: (value: Extended, status: FloatStatus) => bigint
  /** Bytes, and what an invalid operation stores. */
  readonly bytes: number
  readonly indefinite: bigint
}

function put(view: DataView, place: number, bytes: number, value: bigint): void {
  if (bytes === 2) view.setUint16(place, Number(BigInt.asUintN(16, value)), true)
  else if (bytes === 4) view.setUint32(place, Number(BigInt.asUintN(32, value)), true)
  else view.setBigUint64(place, BigInt.asUintN(64, value), true)
  if (bytes === 10) view.setUint16(place + 8, Number((value >> 64n) & 0xffffn), true)
}

const store = ({ quick, exact, bytes, indefinite }: Store, pops: boolean): Helper => cpu => {
  beginMemory(cpu)
  const { state } = cpu
  const view = viewOf(state)
  const place = argument(cpu, 0)
  if (isEmpty(state, 0)) {
    if (!stackFaults(cpu, false)) return after.next
    put(view, place, bytes, indefinite)
  } else if (quick?.(state, view, place)) settle(cpu)
  else {
    const value = exact(read(state, 0), status)
    if (!settled(cpu, 'memory')) return after.next
    put(view, place, bytes, value)
  }
  if (pops) pop(state)
  return after.next
}

const single: Store = {
  quick: (state, view, place) => {
    const value = readNumber(state, 0)
    if (Math.fround(value) !== value || Math.abs(value) >= 2 ** 127 || (Math.abs(value) < 2 ** -125 && value !== 0)) return false
    view.setFloat32(place, value, true)
    return true
  },
  exact: (value, found) => BigInt(convert.toSingle(value, found)),
  bytes: 4,
  indefinite: 0xffc0_0000n,
}
const double: Store = {
  quick: (state, view, place) => {
    const value = readNumber(state, 0)
    if (value !== value) return false
    view.setFloat64(place, value, true)
    return true
  },
  exact: convert.toDouble,
  bytes: 8,
  indefinite: 0xfff8_0000_0000_0000n,
}
/** Integers: the quick way is for what is an integer already. */
const integer = (bytes: 2 | 4 | 8, truncate: boolean): Store => {
  const limit = bytes === 2 ? 2 ** 15 : 2 ** 31
  return {
    quick: (state, view, place) => {
      const value = readNumber(state, 0)
      if (bytes === 8 || value < -limit || value >= limit || Math.trunc(value) !== value) return false
      if (bytes === 2) view.setInt16(place, value, true)
      else view.setInt32(place, value, true)
      return true
    },
    exact: (value, found) => convert.toInteger(value, bytes === 2 ? 16 : bytes === 4 ? 32 : 64, truncate, found),
    bytes,
    indefinite: 1n << BigInt(8 * bytes - 1),
  }
}
const decimal: Store = { exact: convert.toBcd, bytes: 10, indefinite: 0xffff_c000_0000_0000_0000n }

/** FSTP m80 moves bits. */
const wholeBits = ({ signExponent, significand }: Extended): bigint => (BigInt(signExponent) << 64n) | significand
const whole: Store = { exact: wholeBits, bytes: 10, indefinite: wholeBits(INDEFINITE) }

/** FST ST(i). */
const storeRegister = (pops: boolean): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  if (isEmpty(state, 0)) {
    if (!stackFaults(cpu, false)) return after.next
    write(state, i, INDEFINITE)
  } else {
    settle(cpu)
    copyRegister(state, 0, i)
  }
  if (pops) pop(state)
  return after.next
}

// ---- between registers ----

function fxch(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  const empty = [0, i].filter(each => isEmpty(state, each))
  if (empty.length > 0) {
    if (!stackFaults(cpu, false)) return after.next
    for (const each of empty) write(state, each, INDEFINITE)
  } else settle(cpu)
  const first = read(state, 0)
  copyRegister(state, i, 0)
  write(state, i, first)
  return after.next
}

/** FCMOVcc: argument[0] is the condition, 0 or 1. The stack is looked at in any case; C1 changes only if it is wrong. */
function fcmov(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  if (underflows(cpu, 0, 0) || underflows(cpu, i, 0)) return after.next
  if (argument(cpu, 0)) copyRegister(state, i, 0)
  return after.next
}

const turn = (by: 1 | -1): Helper => cpu => {
  begin(cpu)
  settle(cpu)
  rotate(cpu.state, by)
  return after.next
}

const free = (pops: boolean): Helper => cpu => {
  begin(cpu)
  setEmpty(cpu.state, operandIndex(cpu))
  if (pops) pop(cpu.state)
  return after.next
}

const constants = { fld1: 'one', fldl2t: 'l2t', fldl2e: 'l2e', fldpi: 'pi', fldlg2: 'lg2', fldln2: 'ln2', fldz: 'zero' } as const
const constantHelpers = Object.fromEntries(Object.entries(constants).map(([name, value]) => [name, constant(value)])) as
  Record<keyof typeof constants, Helper>

export const x87Transfer = {
  ...constantHelpers,
  'fld.m32': load(readSingle, (view, place) => convert.fromSingle(view.getUint32(place, true), status)),
  'fld.m64': load(
    (view, place) => view.getFloat64(place, true),
    (view, place) => convert.fromDouble(view.getBigUint64(place, true), status),
  ),
  'fld.m80': fldM80,
  'fild.m16': load((view, place) => view.getInt16(place, true), () => extended(0, 0n)),
  'fild.m32': load((view, place) => view.getInt32(place, true), () => extended(0, 0n)),
  'fild.m64': load(smallInteger, (view, place) => convert.fromInteger(view.getBigInt64(place, true))),
  fbld: load(() => NaN, (view, place) => convert.fromBcd(readBcd(view, place))),
  'fld.sti': fldSti,
  'fst.m32': store(single, false),
  'fst.m64': store(double, false),
  'fstp.m32': store(single, true),
  'fstp.m64': store(double, true),
  'fstp.m80': store(whole, true),
  'fist.m16': store(integer(2, false), false),
  'fist.m32': store(integer(4, false), false),
  'fistp.m16': store(integer(2, false), true),
  'fistp.m32': store(integer(4, false), true),
  'fistp.m64': store(integer(8, false), true),
  'fisttp.m16': store(integer(2, true), true),
  'fisttp.m32': store(integer(4, true), true),
  'fisttp.m64': store(integer(8, true), true),
  fbstp: store(decimal, true),
  'fst.sti': storeRegister(false),
  'fstp.sti': storeRegister(true),
  fxch,
  fcmov,
  fincstp: turn(1),
  fdecstp: turn(-1),
  ffree: free(false),
  ffreep: free(true),
}
