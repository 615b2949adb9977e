/**
 * Intercepted instructions: which leave the guest, and what they say. AMD APM vol. 2, "Instruction Intercepts", "IOIO Intercepts", "MSR
 * Intercepts", "Decode Assists".
 */
import { cr0, is64 } from '../../cpu/bits.ts'
import { checkCr0, checkCr3, checkCr4, debugRegister } from '../../cpu/control.ts'
import { generalProtection } from '../../cpu/fault.ts'
import { interceptNames } from '../../cpu/intercepts.ts'
import { flag } from '../../cpu/rflags.ts'
import { VmExit, type PortAccess, type Virtualization } from '../../cpu/virtualization.ts'
import type { Detail } from './exit.ts'
import { exitCode, instructionIntercepts, intercept3, intercept4, intercept5, mwaitArmed } from './exit-codes.ts'
import { svmWord } from './state.ts'
import type { Svm } from './svm.ts'
import { virtualInterrupt } from './vmcb.ts'
import * as virtualNmi from './virtual-nmi.ts'
import { stateWords } from './words.ts'

const index = stateWords
const eferMsr = 0xc0000080

function instructionExit(unit: Svm, code: number, info1 = 0n, info2 = 0n): VmExit {
  return new VmExit(code, info1, info2, { nextRip: unit.cpu.operation.nextRip } satisfies Detail)
}

export function intercept(unit: Svm, number: number): VmExit | undefined {
  const { words, cpu } = unit
  const name = interceptNames[number]
  switch (name) {
    case 'readCr': return readCr(unit)
    case 'writeCr': return writeCr(unit)
    case 'lmsw': return lmsw(unit)
    case 'clts':
      if (words[svmWord.crIntercepts] & 0x10000) return instructionExit(unit, exitCode.writeCr0)
      return trapWrite(unit, 0)
    case 'smsw': return instructionExit(unit, exitCode.readCr0)
    case 'readDr': return debugAccess(unit, cpu.operation.registers[1], cpu.operation.registers[0], false)
    case 'writeDr': return debugAccess(unit, cpu.operation.registers[0], cpu.operation.registers[1], true)
    case 'rdmsr': return msr(unit, false)
    case 'wrmsr': return msr(unit, true)
    case 'hlt': return halt(unit)
    case 'pause': return pause(unit)
    case 'invlpg': return instructionExit(unit, 0x79, unit.offers.decode ? cpu.state.argument[0] : 0n)
    case 'invlpga': return instructionExit(unit, 0x7a, unit.offers.decode ? addressIn(unit, 0) : 0n)
    case 'invpcid': return instructionExit(unit, 0xa2, cpu.state.argument[0], cpu.state.gpr[cpu.operation.registers[0]])
    case 'intn': return instructionExit(unit, 0x75, unit.offers.decode ? cpu.operation.immediate & 0xffn : 0n)
    case 'mwait':
      if (!(words[svmWord.intercepts4] & (1 << 11))) return instructionExit(unit, mwaitArmed.code)
  }
  const row = instructionIntercepts[name]
  if (!row) throw new Error(`nobody intercepts ${name}`)
  return instructionExit(unit, row.code)
}

/** A general register as an address of the instruction's size. */
function addressIn(unit: Svm, gpr: number): bigint {
  return BigInt.asUintN(unit.cpu.operation.addressSize, unit.cpu.state.gpr[gpr])
}
/** Decode assists: bit 63 says MOV, bits 3:0 the general register. */
function movInfo(unit: Svm, gpr: number): bigint {
  return unit.offers.decode ? (1n << 63n) | BigInt(gpr) : 0n
}
function readCr(unit: Svm): VmExit | undefined {
  const [gpr, cr] = unit.cpu.operation.registers
  if (unit.words[index.cpl] !== 0 || !(unit.words[svmWord.crIntercepts] & (1 << cr))) return undefined
  return instructionExit(unit, exitCode.readCr0 + cr, movInfo(unit, gpr))
}
function writeCr(unit: Svm): VmExit | undefined {
  const { operation, state } = unit.cpu
  const [cr, gpr] = operation.registers
  const value = is64(state) ? state.gpr[gpr] : state.gpr[gpr] & 0xffffffffn
  if (cr === 3) checkCr3(unit.cpu, value)
  else if (cr === 4) checkCr4(unit.cpu, value)
  else if (cr === 0) {
    checkCr0(unit.cpu, value)
    return writeCr0(unit, value, movInfo(unit, gpr))
  }
  if (unit.words[svmWord.crIntercepts] & (0x10000 << cr)) return instructionExit(unit, exitCode.writeCr0 + cr, movInfo(unit, gpr))
  return trapWrite(unit, cr)
}
/** An exit of this write comes when it is done, unless it faults. APM vol. 2, "SVM Intercept Exit Codes". */
function trapWrite(unit: Svm, cr: number): undefined {
  const { words } = unit
  if (unit.offers.writeTraps && words[svmWord.intercepts4] & (1 << (intercept4.writeTrapCr0 + cr)))
    words[svmWord.writeTrap] = exitCode.writeTrapCr0 + cr
}
/** The selective intercept leaves alone what changes only TS and MP. */
function writeCr0(unit: Svm, value: bigint, info: bigint): VmExit | undefined {
  const { words } = unit
  if (words[svmWord.crIntercepts] & 0x10000) return instructionExit(unit, exitCode.writeCr0, info)
  const changes = (Number(value & 0xffffffffn) ^ words[index.cr0]) & ~(cr0.TS | cr0.MP)
  const selective = (words[svmWord.intercepts3] & (1 << intercept3.selectiveCr0)) !== 0
  return selective && changes ? instructionExit(unit, exitCode.selectiveCr0, info) : trapWrite(unit, 0)
}
/** The selective intercept takes it also when it changes only MP or TS: so does silicon. */
function lmsw(unit: Svm): VmExit | undefined {
  const { words } = unit
  if (words[svmWord.crIntercepts] & 0x10000) return instructionExit(unit, exitCode.writeCr0)
  const value = lmswValue(unit)
  const changed = value !== unit.cpu.state.cr0
  if (changed && words[svmWord.intercepts3] & (1 << intercept3.selectiveCr0)) return instructionExit(unit, exitCode.selectiveCr0)
  return writeCr0(unit, value, 0n)
}
function lmswValue(unit: Svm): bigint {
  const { operation, state, memory } = unit.cpu
  const source = state.argument[2] === 1n ? memory.read16(state.argument[0]) : Number(state.gpr[operation.registers[0]] & 0xffffn)
  return (state.cr0 & ~0xen) | BigInt(source & 0xf)
}
/** #UD, #DB of DR7.GD and #GP come first. */
function debugAccess(unit: Svm, dr: number, gpr: number, write: boolean): VmExit | undefined {
  const { cpu } = unit
  debugRegister(cpu, dr)
  if (write && dr >= 4 && is64(cpu.state) && cpu.state.gpr[gpr] >> 32n) throw generalProtection()
  if (!(unit.words[svmWord.drIntercepts] & ((write ? 0x10000 : 1) << dr))) return undefined
  return instructionExit(unit, (write ? exitCode.writeDr0 : exitCode.readDr0) + dr, unit.offers.decode ? BigInt(gpr) : 0n)
}

/** The MSR permission map: two bits an MSR, in three ranges of 2 KiB; all others are intercepted. APM vol. 2, "MSR Intercepts". */
function msr(unit: Svm, write: boolean): VmExit | undefined {
  const { words } = unit
  const number = words[index.rax + 2]
  if (words[svmWord.intercepts3] & (1 << intercept3.msr) && isMapped(unit, number, write))
    return instructionExit(unit, exitCode.msr, write ? 1n : 0n)
  if (write && number === eferMsr && unit.offers.writeTraps && words[svmWord.intercepts4] & (1 << intercept4.writeTrapEfer))
    words[svmWord.writeTrap] = exitCode.writeTrapEfer
  return undefined
}
function isMapped(unit: Svm, number: number, write: boolean): boolean {
  const range = number < 0x2000 ? 0 : number >>> 13 === 0xc0000000 >>> 13 ? 1 : number >>> 13 === 0xc0010000 >>> 13 ? 2 : -1
  const bit = range * 0x4000 + (number & 0x1fff) * 2 + (write ? 1 : 0)
  return range < 0 || mapBit(unit, svmWord.msrpmBase, bit)
}
function mapBit(unit: Svm, base: number, bit: number): boolean {
  const lo = (unit.words[base] & ~0xfff) + (bit >>> 3)
  const place = unit.physical.pagePlace(lo | 0, unit.words[base + 1] | 0)
  if (place === 0) return true
  return (unit.cpu.state.bytes[(place + (lo & 0xfff)) >>> 0] & (1 << (bit & 7))) !== 0
}

/** The I/O permission map: a bit a port; an access of several bytes tests several, those beyond FFFFH lie behind the map's end. */
export function portAccess(unit: Svm, { port, size, write, string }: PortAccess): VmExit | undefined {
  if (!(unit.words[svmWord.intercepts3] & (1 << intercept3.ioio))) return undefined
  let hit = false
  for (let i = 0; i < size && !hit; i++) hit = mapBit(unit, svmWord.iopmBase, port + i)
  if (!hit) return undefined
  const { operation } = unit.cpu
  const bits = (write ? 0 : 1) | (string ? 4 | (string.repeats ? 8 : 0) | (unit.offers.decode ? string.segment << 10 : 0) : 0)
  const info = BigInt((bits | (size << 4) | ((operation.addressSize >> 4) << 7) | (port << 16)) >>> 0)
  return instructionExit(unit, exitCode.ioio, info, operation.nextRip)
}

/** The intercept of idle HLT goes first, and leaves alone who has an event to wake up for. */
function halt(unit: Svm): VmExit | undefined {
  const { words } = unit
  if (!unit.offers.idleHlt || !(words[svmWord.intercepts5] & (1 << intercept5.idleHlt)))
    return words[svmWord.intercepts3] & (1 << intercept3.hlt) ? instructionExit(unit, instructionIntercepts.hlt!.code) : undefined
  const waits = unit.wantsInterrupts || (virtualNmi.isEnabled(words) && words[svmWord.virtualInterrupt] & virtualInterrupt.nmiPending)
  return waits ? undefined : instructionExit(unit, exitCode.idleHlt)
}

/** APM vol. 2, "Pause Intercept Filtering". */
function pause(unit: Svm): VmExit | undefined {
  const { words } = unit
  if (!unit.offers.pauseFilter || words[svmWord.pauseFilter] === 0) return instructionExit(unit, 0x77)
  const now = Math.floor(unit.cpu.now()) >>> 0
  const elapsed = (now - words[svmWord.lastPause]) >>> 0
  words[svmWord.lastPause] = now
  const threshold = words[svmWord.pauseThreshold]
  if (unit.offers.pauseThreshold && threshold !== 0 && elapsed > threshold) words[svmWord.pauseCount] = words[svmWord.pauseFilter]
  if (words[svmWord.pauseCount] === 0) return instructionExit(unit, 0x77)
  words[svmWord.pauseCount]--
  return undefined
}

export type TaskSource = Parameters<Virtualization['taskSwitch']>[1]
/** APM vol. 2, "Task Switch Intercept". */
export function taskSwitch(unit: Svm, selector: number, source: TaskSource, error: number | undefined, resume: boolean): void {
  if (!(unit.words[svmWord.intercepts3] & (1 << intercept3.taskSwitch))) return
  const rf = resume || unit.words[index.eflags] & flag.RF ? 1n << 48n : 0n
  const cause = source === 'return' ? 1n << 36n : source === 'jump' ? 1n << 38n : 0n
  const code = error === undefined ? 0n : (1n << 44n) | BigInt(error)
  throw new VmExit(exitCode.taskSwitch, BigInt(selector), cause | code | rf)
}
