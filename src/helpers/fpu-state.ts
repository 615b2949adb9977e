/** FXSAVE, FXRSTOR and the XSAVE family. Intel SDM vol. 1, "Managing State Using the XSAVE Feature Set"; vol. 2, "FXSAVE". */
import { canonicalFor, cr0, cr0Low, cr4, cr4Low, efer, eferLow, is64 } from '../cpu/bits.ts'
import { isCetControl } from '../cpu/control-flow.ts'
import { deriveFpu } from '../cpu/derive.ts'
import { Fault, generalProtection, invalidOpcode, vector } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { initialFpuControl } from '../cpu/reset.ts'
import type { CpuState } from '../cpu/state.ts'
import { componentBit as component, extendedStateLayout, headerBytes, legacyBytes } from '../cpu/xsave-layout.ts'
import { copyIn, copyOut } from './bulk.ts'
import { requireCpl0 } from './registers.ts'

/**
 * Where the legacy area and the header are put together or taken apart: in memory itself when they are one piece of plain RAM, in scratch
 * beside the state when they are two, else in `buffer`, on their way.
 */
const buffer = new Uint32Array((legacyBytes + headerBytes) / 4)
const areaWords = buffer.length

/** Words of the legacy area, and of the header behind it. Intel SDM vol. 1, "Legacy Region of an XSAVE Area". */
const legacy = { control: 0, tags: 1, ip: 2, dp: 4, mxcsr: 6, mxcsrMask: 7, registers: 8, vectors: 40 } as const
const header = { present: legacyBytes / 4, format: legacyBytes / 4 + 2, reserved: legacyBytes / 4 + 4 } as const
/** With AMD's bit 17, MM, where that is offered. */
const mxcsrMask = (cpu: Processor): number => (cpu.model.has('misalignsse') ? 0x2ffff : 0xffff)
const initialMxcsr = 0x1f80
const vectorBytes = 64
const vectorWords = vectorBytes / 4
const firstVector = at.vector >> 2
/** Bits 255:128 of the vector registers. */
const firstUpper = firstVector + 4
const firstFpr = at.fpr >> 2
/** Of the x87 status. */
const topMask = 0x3800
const topShift = 11

const index = {
  rax: at.gpr >> 2, rdx: (at.gpr >> 2) + 4, argument: at.argument >> 2, xcr0: at.xcr0 >> 2, xss: at.msrXss >> 2, mxcsr: at.mxcsr >> 2,
  control: at.fpControl >> 2, status: at.fpStatus >> 2, top: at.fpTop >> 2, tags: at.fpTags >> 2, opcode: at.fpOpcode >> 2,
  cs: at.fpCs >> 2, ds: at.fpDs >> 2, ip: at.fpIp >> 2, dp: at.fpDp >> 2, pkru: at.pkru >> 2,
  userCet: at.msrUCet >> 2, pointers: at.msrPlSsp >> 2,
} as const

const vectorCount = (state: CpuState): number => (is64(state) ? 16 : 8)

function putX87(cpu: Processor, to: Uint32Array, base: number): void {
  const { words } = cpu.state
  const top = words[index.top]
  to[base + legacy.control] = (words[index.control] & 0xffff) | (((words[index.status] & ~topMask) | (top << topShift)) << 16)
  to[base + legacy.tags] = (words[index.tags] & 0xff) | (words[index.opcode] << 16)
  const wide = cpu.operation.operandSize === 64
  to[base + legacy.ip] = words[index.ip]
  to[base + legacy.ip + 1] = wide ? words[index.ip + 1] : words[index.cs] & 0xffff
  to[base + legacy.dp] = words[index.dp]
  to[base + legacy.dp + 1] = wide ? words[index.dp + 1] : words[index.ds] & 0xffff
  for (let i = 0, at = base + legacy.registers; i < 8; i++, at += 4) {
    const from = firstFpr + ((top + i) & 7) * 4
    to[at] = words[from]
    to[at + 1] = words[from + 1]
    to[at + 2] = words[from + 2] & 0xffff
    to[at + 3] = 0
  }
}

function takeX87(cpu: Processor, from: Uint32Array, base: number): void {
  const { words } = cpu.state
  const status = from[base + legacy.control] >>> 16
  const top = (status & topMask) >> topShift
  words[index.control] = (from[base + legacy.control] & 0xffff) | 0x40
  words[index.status] = status & ~topMask
  words[index.top] = top
  words[index.tags] = from[base + legacy.tags] & 0xff
  words[index.opcode] = (from[base + legacy.tags] >>> 16) & 0x7ff
  const wide = cpu.operation.operandSize === 64
  words[index.ip] = from[base + legacy.ip]
  words[index.ip + 1] = wide ? from[base + legacy.ip + 1] : 0
  words[index.dp] = from[base + legacy.dp]
  words[index.dp + 1] = wide ? from[base + legacy.dp + 1] : 0
  words[index.cs] = wide ? 0 : from[base + legacy.ip + 1] & 0xffff
  words[index.ds] = wide ? 0 : from[base + legacy.dp + 1] & 0xffff
  for (let i = 0, at = base + legacy.registers; i < 8; i++, at += 4) {
    const to = firstFpr + ((top + i) & 7) * 4
    words[to] = from[at]
    words[to + 1] = from[at + 1]
    words[to + 2] = from[at + 2] & 0xffff
    words[to + 3] = 0
  }
}

function initX87(state: CpuState): void {
  initialFpuControl(state)
  const { words } = state
  for (let i = 0; i < 32; i++) words[firstFpr + i] = 0
}

function putSse(state: CpuState, to: Uint32Array, base: number): void {
  const { words } = state
  for (let n = vectorCount(state), from = firstVector, at = base + legacy.vectors; n > 0; n--, from += vectorWords, at += 4) {
    to[at] = words[from]
    to[at + 1] = words[from + 1]
    to[at + 2] = words[from + 2]
    to[at + 3] = words[from + 3]
  }
}

function takeSse(state: CpuState, from: Uint32Array, base: number): void {
  const { words } = state
  for (let n = vectorCount(state), to = firstVector, at = base + legacy.vectors; n > 0; n--, to += vectorWords, at += 4) {
    words[to] = from[at]
    words[to + 1] = from[at + 1]
    words[to + 2] = from[at + 2]
    words[to + 3] = from[at + 3]
  }
}

function initSse(state: CpuState): void {
  const { words } = state
  for (let n = vectorCount(state), to = firstVector; n > 0; n--, to += vectorWords) {
    words[to] = 0
    words[to + 1] = 0
    words[to + 2] = 0
    words[to + 3] = 0
  }
}

function putMxcsr(cpu: Processor, to: Uint32Array, base: number): void {
  to[base + legacy.mxcsr] = cpu.state.words[index.mxcsr]
  to[base + legacy.mxcsrMask] = mxcsrMask(cpu)
}

function checkMxcsr(cpu: Processor, value: number): number {
  if (value & ~mxcsrMask(cpu)) throw generalProtection()
  return value
}

/** Of the operand, whose linear address is argument[0]. */
function checkAlignment(cpu: Processor, bytes: number): void {
  if (cpu.state.words[index.argument] & (bytes - 1)) throw generalProtection()
}

// ---- FXSAVE ----

/** argument[0]: linear address. */
function beginFx(cpu: Processor): bigint {
  const { state } = cpu
  if (cr0Low(state) & (cr0.EM | cr0.TS)) throw new Fault(vector.NM)
  checkAlignment(cpu, 16)
  return state.argument[0]
}

/** AMD's fast form leaves XMM registers out. */
const skipsSse = (state: CpuState): boolean => (eferLow(state) & efer.FFXSR) !== 0 && state.cpl === 0 && is64(state)

export function fxsave(cpu: Processor): After {
  const { state } = cpu
  const address = beginFx(cpu)
  putX87(cpu, buffer, 0)
  putMxcsr(cpu, buffer, 0)
  const withSse = !skipsSse(state)
  if (withSse) putSse(state, buffer, 0)
  copyOut(cpu, address, buffer, 0, withSse ? legacy.vectors + vectorCount(state) * 4 : legacy.vectors)
  return after.next
}

export function fxrstor(cpu: Processor): After {
  const { state } = cpu
  copyIn(cpu, beginFx(cpu), buffer, 0, legacyBytes / 4)
  const mxcsr = checkMxcsr(cpu, buffer[legacy.mxcsr])
  takeX87(cpu, buffer, 0)
  if (!skipsSse(state)) takeSse(state, buffer, 0)
  state.mxcsr = mxcsr
  deriveFpu(state)
  return after.next
}

// ---- XSAVE: components are bits 31:0 of their masks, for there are none above ----

const compacted = 0x80000000

/** Checks, then the linear address of the operand. */
function beginXsave(cpu: Processor): bigint {
  const { state } = cpu
  if (!(cr4Low(state) & cr4.OSXSAVE)) throw invalidOpcode()
  if (cr0Low(state) & cr0.TS) throw new Fault(vector.NM)
  checkAlignment(cpu, 64)
  return state.argument[0]
}
/** Of EDX:EAX. */
const requestedOf = (state: CpuState, available: number): number => state.words[index.rax] & available
const supervisorComponents = (state: CpuState): number => state.words[index.xcr0] | state.words[index.xss]

/** Words of legacy area and header that lie in the area's first page. */
const wordsInFirstPage = (state: CpuState): number => Math.min(areaWords, (4096 - (state.words[index.argument] & 0xfff)) >> 2)

/** An area in two pages of plain RAM: into one piece, and back. `first` and `second` are word indexes. */
const gathered = at.bounce >> 2
function gather(words: Uint32Array, first: number, second: number, inFirst: number): void {
  words.copyWithin(gathered, first, first + inFirst)
  words.copyWithin(gathered + inFirst, second, second + areaWords - inFirst)
}
function scatter(words: Uint32Array, first: number, second: number, inFirst: number): void {
  words.copyWithin(first, gathered, gathered + inFirst)
  words.copyWithin(second, gathered + inFirst, gathered + areaWords)
}

/** Components that are not in their initial state. Intel SDM vol. 1, "Processor Tracking of XSAVE-Managed State". */
function inUse(state: CpuState): number {
  const { words } = state
  let bits = 0
  const x87Initial = words[index.control] === 0x37f && (words[index.status] | words[index.top] | words[index.tags] | words[index.opcode]
    | words[index.ip] | words[index.ip + 1] | words[index.dp] | words[index.dp + 1] | words[index.cs] | words[index.ds]) === 0
  if (!x87Initial || !allZero(words, firstFpr, 8, 4)) bits |= component.x87
  if (!allZero(words, firstVector, vectorCount(state), vectorWords)) bits |= component.sse
  if (words[index.xcr0] & component.avx && !allZero(words, firstUpper, vectorCount(state), vectorWords)) bits |= component.avx
  if (words[index.pkru] !== 0) bits |= component.pkru
  const pointers = index.pointers
  if ((words[index.userCet] | words[index.userCet + 1] | words[pointers + 6] | words[pointers + 7]) !== 0) bits |= component.userCet
  if (!allZero(words, pointers, 1, 0) || (words[pointers + 4] | words[pointers + 5]) !== 0) bits |= component.supervisorCet
  return bits
}

function allZero(words: Uint32Array, first: number, count: number, stride: number): boolean {
  for (let i = 0, at = first; i < count; i++, at += stride)
    if ((words[at] | words[at + 1] | words[at + 2] | words[at + 3]) !== 0) return false
  return true
}

/** The legacy parts of `which`, and MXCSR with `withMxcsr`. What lies between them stays. */
function putLegacy(cpu: Processor, which: number, withMxcsr: boolean, to: Uint32Array, base: number): void {
  if (which & component.x87) putX87(cpu, to, base)
  if (withMxcsr) putMxcsr(cpu, to, base)
  if (which & component.sse) putSse(cpu.state, to, base)
}
/** The same to wherever the area is. */
function writeLegacy(cpu: Processor, address: bigint, which: number, withMxcsr: boolean): void {
  const { state } = cpu
  putLegacy(cpu, which, withMxcsr, buffer, 0)
  const x87 = (which & component.x87) !== 0
  const sse = (which & component.sse) !== 0
  const vectorsEnd = legacy.vectors + vectorCount(state) * 4
  if (x87 && sse && withMxcsr) return writePart(cpu, address, 0, vectorsEnd)
  if (x87) {
    writePart(cpu, address, 0, legacy.mxcsr)
    writePart(cpu, address, legacy.registers, legacy.vectors)
  }
  if (withMxcsr) writePart(cpu, address, legacy.mxcsr, legacy.registers)
  if (sse) writePart(cpu, address, legacy.vectors, vectorsEnd)
}
/** Words `start` to `end` of the area. */
function writePart(cpu: Processor, address: bigint, start: number, end: number): void {
  copyOut(cpu, address + BigInt(start * 4), buffer, start, end - start)
}

const avxNumber = 2
const upperWord = (i: number): number => firstUpper + (i >> 2) * vectorWords + (i & 3)
/** The AVX component on its way: bits 255:128 of each register, one after the other. */
const uppers = new Uint32Array(16 * 4)
function saveAvx(cpu: Processor, address: bigint): void {
  const { words } = cpu.state
  const count = vectorCount(cpu.state) * 4
  for (let i = 0; i < count; i++) uppers[i] = words[upperWord(i)]
  copyOut(cpu, address, uppers, 0, count)
}
/** Into `uppers`; `undefined`: the initial state. */
function readAvx(cpu: Processor, address: bigint | undefined): void {
  if (address === undefined) uppers.fill(0)
  else copyIn(cpu, address, uppers, 0, vectorCount(cpu.state) * 4)
}
function takeAvx(state: CpuState): void {
  const { words } = state
  const count = vectorCount(state) * 4
  for (let i = 0; i < count; i++) words[upperWord(i)] = uppers[i]
}

const pkruNumber = 9
const extended = Object.entries(extendedStateLayout).map(([number, each]) => ({ number: Number(number), ...each }))

/** Where an extended component lies in this format. */
function placeOf(number: number, compactMask: number | undefined): bigint {
  if (compactMask === undefined) return BigInt(extendedStateLayout[number].offset)
  let offset = legacyBytes + headerBytes
  for (const each of extended) {
    if (!(compactMask & (1 << each.number))) continue
    if (each.aligned) offset = (offset + 63) & ~63
    if (each.number === number) break
    offset += each.size
  }
  return BigInt(offset)
}

// CET's components are supervisor components: XSAVES and XRSTORS at level 0 know them, in the compacted format

const cetComponents = [11, 12] as const
const cetMask = component.userCet | component.supervisorCet
type CetComponent = (typeof cetComponents)[number]
const readCet = ({ msrUCet, msrPlSsp }: CpuState, number: CetComponent): bigint[] =>
  number === 11 ? [msrUCet, msrPlSsp[3]] : [msrPlSsp[0], msrPlSsp[1], msrPlSsp[2]]

function saveCet(cpu: Processor, number: CetComponent, address: bigint): void {
  const values = readCet(cpu.state, number)
  cpu.memory.probeWrite(address, values.length * 8)
  values.forEach((value, i) => cpu.memory.write64(address + BigInt(i * 8), value))
}

/** The values that a component is loaded with, checked as WRMSR checks them; `undefined`: it is initialised. */
function checkCet(cpu: Processor, number: CetComponent, address: bigint | undefined): bigint[] {
  const { memory, model } = cpu
  const values = readCet(cpu.state, number).map((_, i) => (address === undefined ? 0n : memory.read64(address + BigInt(i * 8))))
  values.forEach((value, i) => {
    const isControl = number === 11 && i === 0
    const isWrong = isControl ? !isCetControl(value, model.has('ibt')) : (value & 3n) !== 0n
    if (isWrong || !canonicalFor(value, model.linearBits)) throw generalProtection()
  })
  return values
}

function loadCet(state: CpuState, number: CetComponent, values: readonly bigint[]): void {
  if (number === 11) [state.msrUCet, state.msrPlSsp[3]] = values
  else values.forEach((value, i) => (state.msrPlSsp[i] = value))
}

function saveStandard(cpu: Processor, optimised: boolean): After {
  const { state, memory } = cpu
  const address = beginXsave(cpu)
  const requested = requestedOf(state, state.words[index.xcr0])
  const used = inUse(state)
  const headerAddress = address + BigInt(legacyBytes)
  memory.probeWrite(address, areaWords * 4)
  const written = optimised ? requested & used : requested
  if (written & component.avx) saveAvx(cpu, address + placeOf(avxNumber, undefined))
  if (written & component.pkru) memory.write32(address + placeOf(pkruNumber, undefined), state.pkru)
  writeLegacy(cpu, address, written, (requested & (component.sse | component.avx)) !== 0)
  memory.write64(headerAddress, (memory.read64(headerAddress) & ~BigInt(requested)) | BigInt(used & requested))
  return after.next
}

export const xsave = (cpu: Processor): After => saveStandard(cpu, false)
export const xsaveopt = (cpu: Processor): After => saveStandard(cpu, true)

function saveCompact(cpu: Processor, available: number): After {
  const { state, memory } = cpu
  const { words } = state
  const address = beginXsave(cpu)
  const requested = requestedOf(state, available)
  // MXCSR belongs to SSE here.
  const used = (inUse(state) | (words[index.mxcsr] !== initialMxcsr ? component.sse : 0)) & requested
  const inFirst = wordsInFirstPage(state)
  const first = memory.placeForWrite(address) >>> 2
  const second = inFirst === areaWords ? first : memory.placeForWrite(address + BigInt(inFirst * 4)) >>> 2
  if (used & component.avx) saveAvx(cpu, address + placeOf(avxNumber, requested))
  if (used & component.pkru) {
    const pkru = address + placeOf(pkruNumber, requested)
    memory.probeWrite(pkru, 8)
    memory.write64(pkru, BigInt(state.pkru))
  }
  if (used & cetMask)
    for (const number of cetComponents) if (used & (1 << number)) saveCet(cpu, number, address + placeOf(number, requested))
  if (first === 0 || second === 0) {
    writeLegacy(cpu, address, used, (used & component.sse) !== 0)
    memory.write64(address + BigInt(legacyBytes), BigInt(used))
    memory.write64(address + BigInt(legacyBytes + 8), BigInt(requested) | (BigInt(compacted) << 32n))
    return after.next
  }
  const direct = inFirst === areaWords
  if (!direct) gather(words, first, second, inFirst)
  const base = direct ? first : gathered
  putLegacy(cpu, used, (used & component.sse) !== 0, words, base)
  words[base + header.present] = used
  words[base + header.present + 1] = 0
  words[base + header.format] = requested
  words[base + header.format + 1] = compacted
  if (!direct) scatter(words, first, second, inFirst)
  return after.next
}

export const xsavec = (cpu: Processor): After => saveCompact(cpu, cpu.state.words[index.xcr0])

export function xsaves(cpu: Processor): After {
  beginXsave(cpu)
  requireCpl0(cpu)
  return saveCompact(cpu, supervisorComponents(cpu.state))
}

function restore(cpu: Processor, available: number, compactOnly: boolean): After {
  const { state, memory } = cpu
  const address = beginXsave(cpu)
  const requested = requestedOf(state, available)
  const inFirst = wordsInFirstPage(state)
  const first = memory.placeForRead(address) >>> 2
  const second = inFirst === areaWords ? first : memory.placeForRead(address + BigInt(inFirst * 4)) >>> 2
  const isRam = first !== 0 && second !== 0
  const direct = inFirst === areaWords
  if (!isRam) copyIn(cpu, address, buffer, 0, areaWords)
  else if (!direct) gather(state.words, first, second, inFirst)
  const from = isRam ? state.words : buffer
  const place = !isRam ? 0 : direct ? first : gathered
  const isCompact = checkHeader(cpu, from, place, available, compactOnly)
  const present = from[place + header.present]
  const load = requested & present
  const initialise = requested & ~present
  // in the standard format it belongs to both
  const givesMxcsr = isCompact ? component.sse : component.sse | component.avx
  const loadsMxcsr = ((isCompact ? load : requested) & givesMxcsr) !== 0
  const mxcsr = loadsMxcsr ? checkMxcsr(cpu, from[place + legacy.mxcsr]) : initialMxcsr
  const listed = isCompact ? from[place + header.format] : undefined
  const pkru = load & component.pkru ? memory.read32(address + placeOf(pkruNumber, listed)) : 0

  if (requested & component.avx) readAvx(cpu, load & component.avx ? address + placeOf(avxNumber, listed) : undefined)

  const control = requested & cetMask ? cetComponents.filter(number => requested & (1 << number)) : []
  const values = control.map(number => checkCet(cpu, number, load & (1 << number) ? address + placeOf(number, listed) : undefined))

  control.forEach((number, i) => loadCet(state, number, values[i]))
  if (load & component.x87) takeX87(cpu, from, place)
  else if (initialise & component.x87) initX87(state)
  if (load & component.sse) takeSse(state, from, place)
  else if (initialise & component.sse) initSse(state)
  if (requested & component.avx) takeAvx(state)
  if (requested & givesMxcsr) state.mxcsr = mxcsr
  deriveFpu(state)
  if (requested & component.pkru && state.pkru !== pkru) {
    state.pkru = pkru
    cpu.stateChanged()
    return after.leave
  }
  return after.next
}

/** Whether the area is in the compacted format. #GP(0) for a header that the instruction does not take. */
function checkHeader(cpu: Processor, from: Uint32Array, base: number, available: number, compactOnly: boolean): boolean {
  const present = from[base + header.present]
  const presentHigh = from[base + header.present + 1]
  const format = from[base + header.format]
  const formatHigh = from[base + header.format + 1]
  if (!(formatHigh & compacted)) {
    const reserved = from[base + header.reserved] | from[base + header.reserved + 1]
    if (compactOnly || (format | formatHigh | reserved) !== 0 || (present & ~available) | presentHigh) throw generalProtection()
    return false
  }
  if (!cpu.model.has('xsavec') && !cpu.model.has('xsaves')) throw generalProtection()
  for (let i = header.reserved; i < areaWords; i++) if (from[base + i] !== 0) throw generalProtection()
  if ((format & ~available) | (formatHigh ^ compacted) | (present & ~format) | presentHigh) throw generalProtection()
  return true
}

export const xrstor = (cpu: Processor): After => restore(cpu, cpu.state.words[index.xcr0], false)

export function xrstors(cpu: Processor): After {
  beginXsave(cpu)
  requireCpl0(cpu)
  return restore(cpu, supervisorComponents(cpu.state), true)
}

// ---- MXCSR ----

/** argument[0]: linear address. */
export function ldmxcsr(cpu: Processor): After {
  cpu.state.mxcsr = checkMxcsr(cpu, cpu.memory.read32(cpu.state.argument[0]))
  deriveFpu(cpu.state)
  return after.next
}
