/**
 * Instructions of a guest: which exit, with what qualification, and which behave otherwise. Intel SDM vol. 3, "Instructions That Cause VM
 * Exits", "Changes to Instruction Behavior in VMX Non-Root Operation", "Basic VM-Exit Information".
 */
import { is64 } from '../../cpu/bits.ts'
import { invalidOpcode } from '../../cpu/fault.ts'
import { interceptNames, interceptNumber, type InterceptName } from '../../cpu/intercepts.ts'
import type { PortAccess } from '../../cpu/virtualization.ts'
import { VmExit } from '../../cpu/virtualization.ts'
import { primaryBit, secondaryBit } from './controls.ts'
import { reason } from './exit-reasons.ts'
import { at as field } from './fields.ts'
import { operandInformation } from './instruction-information.ts'
import type { VmxUnit } from './unit.ts'

interface InterceptRow {
  /** Whether the instruction is to be looked at; absent: always. */
  readonly when?: (unit: VmxUnit) => boolean
  /** The exit, or undefined to let the instruction go on. May throw a fault. */
  readonly decide: (unit: VmxUnit) => VmExit | undefined
}

const primary = (bit: number) => (unit: VmxUnit): boolean => unit.isOn('primary', bit)
const secondary = (bit: number) => (unit: VmxUnit): boolean => unit.isOn('secondary', bit)
/** Exits whenever it is looked at. */
const exits = (basic: number, when?: InterceptRow['when']): InterceptRow =>
  ({ when, decide: unit => unit.instructionExit(basic) })
/** #UD while its control is 0; then as `decide`. */
const needs = (bit: number, otherwise: InterceptRow): InterceptRow => ({
  when: unit => !secondary(bit)(unit) || (otherwise.when?.(unit) ?? true),
  decide: unit => {
    if (!secondary(bit)(unit)) throw invalidOpcode()
    return otherwise.decide(unit)
  },
})

const gpr = (unit: VmxUnit, index: number): bigint => (is64(unit.state) ? unit.state.gpr[index] : unit.state.gpr[index] & 0xffffffffn)
const low32 = (value: bigint): bigint => value & 0xffffffffn

// ---- operands ----

const withOperand = (basic: number, change: (information: number) => number = i => i): InterceptRow['decide'] => unit => {
  const { information, displacement } = operandInformation(unit.cpu, unit.codeBytes())
  return unit.instructionExit(basic, displacement, { information: change(information) })
}
/** SGDT 0, SIDT 1, LGDT 2, LIDT 3: no register operand; bit 11 is the operand size. */
const tableOperand = (identity: number): InterceptRow => ({
  when: secondary(secondaryBit.descriptorTableExiting),
  decide: unit => {
    const size = unit.cpu.operation.operandSize === 16 ? 0 : 1 << 11
    return withOperand(reason.gdtrIdtr, information => (information & 0xfffffff) | size | (identity << 28))(unit)
  },
})
/** SLDT 0, STR 1, LLDT 2, LTR 3. */
const selectorOperand = (identity: number): InterceptRow => ({
  when: secondary(secondaryBit.descriptorTableExiting),
  decide: withOperand(reason.ldtrTr, information => (information & 0xfffffff) | (identity << 28)),
})
const randomOperand = (basic: number, bit: number): InterceptRow => ({
  when: secondary(bit),
  decide: unit => {
    const { rm } = operandInformation(unit.cpu, unit.codeBytes())
    const { operandSize } = unit.cpu.operation
    return unit.instructionExit(basic, 0n, { information: (rm << 3) | ((operandSize === 16 ? 0 : operandSize === 32 ? 1 : 2) << 11) })
  },
})

/** The register says which state was asked for. */
const timedWait = (basic: number): InterceptRow => ({
  when: primary(primaryBit.rdtscExiting),
  decide: unit => unit.instructionExit(basic, 0n, { information: (operandInformation(unit.cpu, unit.codeBytes()).rm << 3) | (1 << 11) }),
})

// ---- control registers ----

const access = { to: 0, from: 1, clts: 2, lmsw: 3 } as const
const crQualification = (number: number, kind: number, register: number): bigint => BigInt(number | (kind << 4) | (register << 8))
const PE = 1
const TS = 8

function writeCr(unit: VmxUnit): VmExit | undefined {
  const [number, register] = unit.cpu.operation.registers
  const value = gpr(unit, register)
  if (writeExits(unit, number, value)) return unit.instructionExit(reason.controlRegister, crQualification(number, access.to, register))
}
function writeExits(unit: VmxUnit, number: number, value: bigint): boolean {
  const vmcs = unit.current
  switch (number) {
    case 0: return ((value ^ vmcs.get('cr0Shadow')) & vmcs.get('cr0Mask')) !== 0n
    case 4: return ((value ^ vmcs.get('cr4Shadow')) & vmcs.get('cr4Mask')) !== 0n
    case 3: return unit.isOn('primary', primaryBit.cr3LoadExiting) && !isTarget(unit, value)
    case 8: return unit.isOn('primary', primaryBit.cr8LoadExiting)
    default: return false
  }
}
function isTarget(unit: VmxUnit, value: bigint): boolean {
  const vmcs = unit.current
  const count = vmcs.get32(field.cr3TargetCount)
  return (['cr3Target0', 'cr3Target1', 'cr3Target2', 'cr3Target3'] as const).some((name, i) => i < count && vmcs.get(name) === value)
}

function readCr(unit: VmxUnit): VmExit | undefined {
  const [register, number] = unit.cpu.operation.registers
  if (unit.state.cpl !== 0) return undefined // #GP comes first
  const wanted = (number === 3 && unit.isOn('primary', primaryBit.cr3StoreExiting))
    || (number === 8 && unit.isOn('primary', primaryBit.cr8StoreExiting))
  if (wanted) return unit.instructionExit(reason.controlRegister, crQualification(number, access.from, register))
}

/** LMSW can set PE, not clear it. */
function lmsw(unit: VmxUnit): VmExit | undefined {
  const vmcs = unit.current
  const { isRegister, rm } = operandInformation(unit.cpu, unit.codeBytes())
  const linear = unit.state.argument[0]
  const source = isRegister ? Number(unit.state.gpr[rm] & 0xffffn) : unit.cpu.memory.read16(linear)
  const mask = vmcs.get32(field.cr0Mask)
  const shadow = vmcs.get32(field.cr0Shadow)
  const different = (source ^ shadow) & mask & 0xe
  const setsPe = source & ~shadow & mask & PE
  if (!different && !setsPe) return undefined
  const qualification = crQualification(0, access.lmsw, 0) | (isRegister ? 0n : 0x40n) | BigInt(source << 16 >>> 0)
  return unit.instructionExit(reason.controlRegister, qualification, { linear: isRegister ? 0n : linear })
}

function clts(unit: VmxUnit): VmExit | undefined {
  const vmcs = unit.current
  if (vmcs.get32(field.cr0Mask) & vmcs.get32(field.cr0Shadow) & TS)
    return unit.instructionExit(reason.controlRegister, crQualification(0, access.clts, 0))
}

/** Bits that the hypervisor owns are read from its shadow. */
export function maskedControlRead(unit: VmxUnit, index: number, value: bigint): bigint {
  const vmcs = unit.current
  if (index === 0) return (value & ~vmcs.get('cr0Mask')) | (vmcs.get('cr0Shadow') & vmcs.get('cr0Mask'))
  if (index === 4) return (value & ~vmcs.get('cr4Mask')) | (vmcs.get('cr4Shadow') & vmcs.get('cr4Mask'))
  return value
}
/** A write that did not exit changes only bits that the guest owns. */
export function maskedControlWrite(unit: VmxUnit, index: number, value: bigint): bigint {
  const vmcs = unit.current
  if (index === 0) return (value & ~vmcs.get('cr0Mask')) | (unit.state.cr0 & vmcs.get('cr0Mask'))
  if (index === 4) return (value & ~vmcs.get('cr4Mask')) | (unit.state.cr4 & vmcs.get('cr4Mask'))
  return value
}

const movDr = (from: boolean): InterceptRow => ({
  when: primary(primaryBit.movDrExiting),
  decide: unit => {
    const { registers } = unit.cpu.operation
    const [number, register] = from ? [registers[1], registers[0]] : registers
    return unit.instructionExit(reason.movDr, BigInt(number | (from ? 0x10 : 0) | (register << 8)))
  },
})

// ---- MSRs ----

const msrBitmapBytes = 1024
function msrExits(unit: VmxUnit, index: number, write: boolean): boolean {
  if (!unit.isOn('primary', primaryBit.msrBitmaps)) return true
  const high = index >= 0xc0000000
  const number = high ? index - 0xc0000000 : index
  if (number > 0x1fff) return true
  return unit.testBit(unit.current.get('msrBitmap') + BigInt(msrBitmapBytes * ((write ? 2 : 0) + (high ? 1 : 0))), number)
}
const msr = (write: boolean): InterceptRow => ({
  decide: unit => {
    if (msrExits(unit, Number(low32(unit.state.gpr[1])), write)) return unit.instructionExit(write ? reason.wrmsr : reason.rdmsr)
  },
})

// ---- PAUSE ----

/** With "PAUSE-loop exiting": a loop of CPL 0 whose PAUSEs follow one another within the gap exits when it lasts longer than the window. */
function pause(unit: VmxUnit): VmExit | undefined {
  if (unit.isOn('primary', primaryBit.pauseExiting)) return unit.instructionExit(reason.pause)
  if (!unit.isOn('secondary', secondaryBit.pauseLoopExiting) || unit.state.cpl !== 0) return undefined
  const { vmxPause } = unit.state
  const now = BigInt(unit.cpu.now())
  const vmcs = unit.current
  const [first, last] = vmxPause
  vmxPause[1] = now
  if (last === 0n || now - last > BigInt(vmcs.get32(field.pleGap) >>> 0)) vmxPause[0] = now
  else if (now - first > BigInt(vmcs.get32(field.pleWindow) >>> 0)) {
    vmxPause[1] = 0n
    return unit.instructionExit(reason.pause)
  }
}

// ---- extended state ----

const xssExits = (basic: number): InterceptRow => ({
  decide: unit => {
    const { state } = unit
    const asked = (low32(state.gpr[2]) << 32n) | low32(state.gpr[0])
    return asked & state.msrXss & unit.current.get('xssExitingBitmap') ? withOperand(basic)(unit) : undefined
  },
})

/** By intercept. What is not here is either no business of VMX or exits in its own helper (the VMX instructions). */
const rows: Partial<Record<InterceptName, InterceptRow>> = {
  cpuid: exits(reason.cpuid), getsec: exits(reason.getsec), invd: exits(reason.invd), xsetbv: exits(reason.xsetbv),
  hlt: exits(reason.hlt, primary(primaryBit.hltExiting)),
  rdpmc: exits(reason.rdpmc, primary(primaryBit.rdpmcExiting)),
  rdtsc: exits(reason.rdtsc, primary(primaryBit.rdtscExiting)),
  rdpid: needs(secondaryBit.rdtscp, { when: () => false, decide: () => undefined }),
  rdtscp: needs(secondaryBit.rdtscp, exits(reason.rdtscp, primary(primaryBit.rdtscExiting))),
  pause: { when: unit => unit.isOn('primary', primaryBit.pauseExiting) || unit.isOn('secondary', secondaryBit.pauseLoopExiting),
    decide: pause },
  rdmsr: msr(false), wrmsr: msr(true),
  readCr: { decide: readCr }, writeCr: { decide: writeCr }, lmsw: { decide: lmsw }, clts: { decide: clts },
  readDr: movDr(true), writeDr: movDr(false),
  invlpg: { when: primary(primaryBit.invlpgExiting), decide: unit =>
    { return unit.instructionExit(reason.invlpg, unit.state.argument[0]) } },
  invpcid: needs(secondaryBit.invpcid, { when: primary(primaryBit.invlpgExiting), decide: withOperand(reason.invpcid) }),
  wbinvd: exits(reason.wbinvd, secondary(secondaryBit.wbinvdExiting)),
    wbnoinvd: exits(reason.wbinvd, secondary(secondaryBit.wbinvdExiting)),
  monitor: exits(reason.monitor, primary(primaryBit.monitorExiting)),
  mwait: { when: primary(primaryBit.mwaitExiting), decide: unit => unit.instructionExit(reason.mwait, 1n) },
  sgdt: tableOperand(0), sidt: tableOperand(1), lgdt: tableOperand(2), lidt: tableOperand(3),
  sldt: selectorOperand(0), str: selectorOperand(1), lldt: selectorOperand(2), ltr: selectorOperand(3),
  umonitor: needs(secondaryBit.userWait, { when: () => false, decide: () => undefined }),
  umwait: needs(secondaryBit.userWait, timedWait(reason.umwait)), tpause: needs(secondaryBit.userWait, timedWait(reason.tpause)),
  rdrand: randomOperand(reason.rdrand, secondaryBit.rdrandExiting), rdseed: randomOperand(reason.rdseed, secondaryBit.rdseedExiting),
  xsaves: needs(secondaryBit.xsaves, xssExits(reason.xsaves)), xrstors: needs(secondaryBit.xsaves, xssExits(reason.xrstors)),
}

/** By number, for speed. */
const byNumber: readonly (InterceptRow | undefined)[] = interceptNames.map(name => rows[name])

/** Fills in the mask of the guest that is entered. */
export function interceptMaskOf(unit: VmxUnit, mask: Uint32Array): void {
  const { masks } = unit.current
  if (!masks.bits || masks.primary !== unit.primary || masks.secondary !== unit.secondary) {
    masks.bits ??= new Uint32Array(mask.length)
    masks.primary = unit.primary
    masks.secondary = unit.secondary
    makeMask(unit, masks.bits)
  }
  for (let i = 0; i < mask.length; i++) mask[i] = masks.bits[i]
}
function makeMask(unit: VmxUnit, mask: Uint32Array): void {
  mask.fill(0)
  for (const [name, row] of Object.entries(rows)) {
    if (row.when && !row.when(unit)) continue
    const number = interceptNumber[name as InterceptName]
    mask[number >>> 5] |= 1 << (number & 31)
  }
}

export function interceptInstruction(unit: VmxUnit, number: number): VmExit | undefined {
  return byNumber[number]?.decide(unit)
}

// ---- ports ----

function portExits(unit: VmxUnit, port: number, size: number): boolean {
  if (!unit.isOn('primary', primaryBit.ioBitmaps)) return unit.isOn('primary', primaryBit.unconditionalIoExiting)
  if (port + size > 0x10000) return true
  for (let each = port; each < port + size; each++)
    if (unit.testBit(unit.current.get(each < 0x8000 ? 'ioBitmapA' : 'ioBitmapB'), each & 0x7fff)) return true
  return false
}

export function interceptsPort(unit: VmxUnit, io: PortAccess): VmExit | undefined {
  if (!portExits(unit, io.port, io.size)) return undefined
  const { string } = io
  let qualification = (io.size - 1) | (io.write ? 0 : 8)
  if (string) qualification |= 0x10 | (string.repeats ? 0x20 : 0)
  else if (io.immediate) qualification |= 0x40
  const address = string ? (string.addressSize === 16 ? 0 : string.addressSize === 32 ? 1 : 2) << 7 : 0
  return unit.instructionExit(reason.io, BigInt(qualification) | (BigInt(io.port) << 16n), string
    ? { information: address | (string.segment << 15), linear: string.address } : {})
}

// ---- task switches ----

const sources = { call: 0, return: 1, jump: 2, interrupt: 3 } as const
export function interceptTaskSwitch(unit: VmxUnit, selector: number, source: keyof typeof sources): void {
  const length = source === 'interrupt' ? {} : { length: unit.cpu.operation.length }
  throw new VmExit(reason.taskSwitch, BigInt(selector) | (BigInt(sources[source]) << 30n), 0n, length)
}
