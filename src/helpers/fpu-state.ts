/** FXSAVE, FXRSTOR and the XSAVE family. Intel SDM vol. 1, "Managing State Using the XSAVE Feature Set"; vol. 2, "FXSAVE". */
import { cr0, cr0Low, cr4, cr4Low, efer, eferLow, is64 } from '../cpu/bits.ts'
import { deriveFpu } from '../cpu/derive.ts'
import { Fault, generalProtection, invalidOpcode, vector } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { initialFpuControl } from '../cpu/reset.ts'
import type { CpuState } from '../cpu/state.ts'
import { component, extendedStateLayout, headerBytes, legacyBytes } from '../cpu/xsave-layout.ts'
import { copyIn, copyOut } from './bulk.ts'
import { readPair, requireCpl0 } from './registers.ts'

/** The legacy area and the header on their way between memory and state. */
const area = new Uint32Array((legacyBytes + headerBytes) / 4)
const view = new DataView(area.buffer)

/** Offsets in the legacy area. Intel SDM vol. 1, "Legacy Region of an XSAVE Area". */
const legacy = { control: 0, status: 2, tags: 4, opcode: 6, ip: 8, cs: 12, dp: 16, ds: 20, mxcsr: 24, mxcsrMask: 28, registers: 32,
  vectors: 160 } as const
/** With AMD's bit 17, MM, where that is offered. */
const mxcsrMask = (cpu: Processor): number => (cpu.model.has('misalignsse') ? 0x2ffff : 0xffff)
const initialMxcsr = 0x1f80
const vectorBytes = 64

const vectorCount = (state: CpuState): number => (is64(state) ? 16 : 8)

function putX87(cpu: Processor): void {
  const { state } = cpu
  view.setUint16(legacy.control, state.fpControl, true)
  view.setUint16(legacy.status, (state.fpStatus & ~0x3800) | (state.fpTop << 11), true)
  view.setUint8(legacy.tags, state.fpTags)
  view.setUint8(legacy.tags + 1, 0)
  view.setUint16(legacy.opcode, state.fpOpcode, true)
  const wide = cpu.operation.operandSize === 64
  view.setBigUint64(legacy.ip, wide ? state.fpIp : (state.fpIp & 0xffffffffn) | (BigInt(state.fpCs & 0xffff) << 32n), true)
  view.setBigUint64(legacy.dp, wide ? state.fpDp : (state.fpDp & 0xffffffffn) | (BigInt(state.fpDs & 0xffff) << 32n), true)
  for (let i = 0; i < 8; i++) {
    const place = (at.fpr + ((state.fpTop + i) & 7) * 16) >> 2
    const to = (legacy.registers + i * 16) >> 2
    area[to] = state.words[place]
    area[to + 1] = state.words[place + 1]
    area[to + 2] = state.words[place + 2] & 0xffff
    area[to + 3] = 0
  }
}

function takeX87(cpu: Processor): void {
  const { state } = cpu
  const status = view.getUint16(legacy.status, true)
  state.fpControl = view.getUint16(legacy.control, true) | 0x40
  state.fpStatus = status & ~0x3800
  state.fpTop = (status >> 11) & 7
  state.fpTags = view.getUint8(legacy.tags)
  state.fpOpcode = view.getUint16(legacy.opcode, true) & 0x7ff
  const wide = cpu.operation.operandSize === 64
  const ip = view.getBigUint64(legacy.ip, true)
  const dp = view.getBigUint64(legacy.dp, true)
  state.fpIp = wide ? ip : ip & 0xffffffffn
  state.fpDp = wide ? dp : dp & 0xffffffffn
  state.fpCs = wide ? 0 : Number((ip >> 32n) & 0xffffn)
  state.fpDs = wide ? 0 : Number((dp >> 32n) & 0xffffn)
  for (let i = 0; i < 8; i++) {
    const place = (at.fpr + ((state.fpTop + i) & 7) * 16) >> 2
    const from = (legacy.registers + i * 16) >> 2
    state.words[place] = area[from]
    state.words[place + 1] = area[from + 1]
    state.words[place + 2] = area[from + 2] & 0xffff
    state.words[place + 3] = 0
  }
}

function initX87(state: CpuState): void {
  initialFpuControl(state)
  state.fpr.fill(0n)
}

const vectorWords = vectorBytes / 4
const firstVector = at.vector >> 2

function putSse(state: CpuState): void {
  const { words } = state
  for (let n = vectorCount(state), from = firstVector, to = legacy.vectors >> 2; n > 0; n--, from += vectorWords, to += 4)
    for (let i = 0; i < 4; i++) area[to + i] = words[from + i]
}

function takeSse(state: CpuState): void {
  const { words } = state
  for (let n = vectorCount(state), to = firstVector, from = legacy.vectors >> 2; n > 0; n--, to += vectorWords, from += 4)
    for (let i = 0; i < 4; i++) words[to + i] = area[from + i]
}

function initSse(state: CpuState): void {
  for (let n = vectorCount(state), to = firstVector; n > 0; n--, to += vectorWords) state.words.fill(0, to, to + 4)
}

function putMxcsr(cpu: Processor): void {
  view.setUint32(legacy.mxcsr, cpu.state.mxcsr, true)
  view.setUint32(legacy.mxcsrMask, mxcsrMask(cpu), true)
}

function checkMxcsr(cpu: Processor, value: number): number {
  if (value & ~mxcsrMask(cpu)) throw generalProtection()
  return value
}

function checkAlignment(address: bigint, bytes: bigint): void {
  if (address & (bytes - 1n)) throw generalProtection()
}

// ---- FXSAVE ----

/** argument[0]: linear address. */
function beginFx(cpu: Processor): bigint {
  const { state } = cpu
  if (cr0Low(state) & (cr0.EM | cr0.TS)) throw new Fault(vector.NM)
  checkAlignment(state.argument[0], 16n)
  return state.argument[0]
}

/** AMD's fast form leaves XMM registers out. */
const skipsSse = (state: CpuState): boolean => (eferLow(state) & efer.FFXSR) !== 0 && state.cpl === 0 && is64(state)

export function fxsave(cpu: Processor): After {
  const { state } = cpu
  const address = beginFx(cpu)
  putX87(cpu)
  putMxcsr(cpu)
  const withSse = !skipsSse(state)
  if (withSse) putSse(state)
  copyOut(cpu, address, area, 0, (withSse ? legacy.vectors + vectorCount(state) * 16 : legacy.vectors) / 4)
  return after.next
}

export function fxrstor(cpu: Processor): After {
  const { state } = cpu
  copyIn(cpu, beginFx(cpu), area, 0, legacyBytes / 4)
  const mxcsr = checkMxcsr(cpu, view.getUint32(legacy.mxcsr, true))
  takeX87(cpu)
  if (!skipsSse(state)) takeSse(state)
  state.mxcsr = mxcsr
  deriveFpu(state)
  return after.next
}

// ---- XSAVE ----

const compacted = 1n << 63n

/** argument[0]: linear address. */
function beginXsave(cpu: Processor): bigint {
  const { state } = cpu
  if (!(cr4Low(state) & cr4.OSXSAVE)) throw invalidOpcode()
  if (cr0Low(state) & cr0.TS) throw new Fault(vector.NM)
  checkAlignment(state.argument[0], 64n)
  return state.argument[0]
}

/** Components that are not in their initial state. Intel SDM vol. 1, "Processor Tracking of XSAVE-Managed State". */
function inUse(state: CpuState): bigint {
  let bits = 0n
  const x87Initial = state.fpControl === 0x37f && state.fpStatus === 0 && state.fpTop === 0 && state.fpTags === 0 && state.fpOpcode === 0
    && state.fpIp === 0n && state.fpDp === 0n && state.fpCs === 0 && state.fpDs === 0
  if (!x87Initial || !allZero(state, at.fpr, 8, 16)) bits |= component.x87
  if (!allZero(state, at.vector, vectorCount(state), vectorBytes)) bits |= component.sse
  if (state.pkru !== 0) bits |= component.pkru
  return bits
}

function allZero(state: CpuState, place: number, count: number, stride: number): boolean {
  const { words } = state
  for (let i = 0; i < count; i++) {
    const first = (place + i * stride) >> 2
    if ((words[first] | words[first + 1] | words[first + 2] | words[first + 3]) !== 0) return false
  }
  return true
}

/** Bytes `start` to `end` of the area. */
function writePart(cpu: Processor, address: bigint, start: number, end: number): void {
  copyOut(cpu, address + BigInt(start), area, start / 4, (end - start) / 4)
}

/** The legacy parts of `which`, and MXCSR with `withMxcsr`. Bytes between them are not written. */
function writeLegacy(cpu: Processor, address: bigint, which: bigint, withMxcsr: boolean): void {
  const { state } = cpu
  const x87 = (which & component.x87) !== 0n
  const sse = (which & component.sse) !== 0n
  const vectorsEnd = legacy.vectors + vectorCount(state) * 16
  if (x87) putX87(cpu)
  if (withMxcsr) putMxcsr(cpu)
  if (sse) putSse(state)
  if (x87 && sse && withMxcsr) return writePart(cpu, address, 0, vectorsEnd)
  if (x87) {
    writePart(cpu, address, 0, legacy.mxcsr)
    writePart(cpu, address, legacy.registers, legacy.vectors)
  }
  if (withMxcsr) writePart(cpu, address, legacy.mxcsr, legacy.registers)
  if (sse) writePart(cpu, address, legacy.vectors, vectorsEnd)
}

const pkruNumber = 9

/** Where an extended component lies in this format. */
function placeOf(number: number, compactMask: bigint | undefined): bigint {
  if (compactMask === undefined) return BigInt(extendedStateLayout[number].offset)
  let offset = legacyBytes + headerBytes
  for (const [index, each] of Object.entries(extendedStateLayout)) {
    if (!(compactMask & (1n << BigInt(index)))) continue
    if (each.aligned) offset = (offset + 63) & ~63
    if (Number(index) === number) break
    offset += each.size
  }
  return BigInt(offset)
}

function saveStandard(cpu: Processor, optimised: boolean): After {
  const { state, memory } = cpu
  const address = beginXsave(cpu)
  const requested = state.xcr0 & readPair(state)
  const used = inUse(state)
  const header = address + BigInt(legacyBytes)
  memory.probeWrite(address, legacyBytes + headerBytes)
  const written = optimised ? requested & used : requested
  if (written & component.pkru) memory.write32(address + placeOf(pkruNumber, undefined), state.pkru)
  writeLegacy(cpu, address, written, (requested & component.sse) !== 0n)
  memory.write64(header, (memory.read64(header) & ~requested) | (used & requested))
  return after.next
}

export const xsave = (cpu: Processor): After => saveStandard(cpu, false)
export const xsaveopt = (cpu: Processor): After => saveStandard(cpu, true)

function saveCompact(cpu: Processor, available: bigint): After {
  const { state, memory } = cpu
  const address = beginXsave(cpu)
  const requested = available & readPair(state)
  // MXCSR belongs to SSE here.
  const used = (inUse(state) | (state.mxcsr !== initialMxcsr ? component.sse : 0n)) & requested
  const header = address + BigInt(legacyBytes)
  memory.probeWrite(address, legacyBytes + headerBytes)
  if (used & component.pkru) {
    const place = address + placeOf(pkruNumber, requested)
    memory.probeWrite(place, 8)
    memory.write64(place, BigInt(state.pkru))
  }
  writeLegacy(cpu, address, used, (used & component.sse) !== 0n)
  memory.write64(header, used)
  memory.write64(header + 8n, requested | compacted)
  return after.next
}

export const xsavec = (cpu: Processor): After => saveCompact(cpu, cpu.state.xcr0)

export function xsaves(cpu: Processor): After {
  beginXsave(cpu)
  requireCpl0(cpu)
  return saveCompact(cpu, cpu.state.xcr0 | cpu.state.msrXss)
}

function restore(cpu: Processor, available: bigint, compactOnly: boolean): After {
  const { state, memory } = cpu
  const address = beginXsave(cpu)
  const requested = available & readPair(state)
  copyIn(cpu, address, area, 0, area.length)
  const present = view.getBigUint64(legacyBytes, true)
  const format = view.getBigUint64(legacyBytes + 8, true)
  const isCompact = (format & compacted) !== 0n
  checkHeader(cpu, { present, format, available, isCompact, compactOnly })
  const load = requested & present
  const initialise = requested & ~present
  const loadsMxcsr = isCompact ? (load & component.sse) !== 0n : (requested & component.sse) !== 0n
  const mxcsr = loadsMxcsr ? checkMxcsr(cpu, view.getUint32(legacy.mxcsr, true)) : initialMxcsr
  const pkru = load & component.pkru ? memory.read32(address + placeOf(pkruNumber, isCompact ? format & ~compacted : undefined)) : 0

  if (load & component.x87) takeX87(cpu)
  else if (initialise & component.x87) initX87(state)
  if (load & component.sse) takeSse(state)
  else if (initialise & component.sse) initSse(state)
  if (requested & component.sse) state.mxcsr = mxcsr
  deriveFpu(state)
  if (requested & component.pkru && state.pkru !== pkru) {
    state.pkru = pkru
    cpu.stateChanged()
    return after.leave
  }
  return after.next
}

function checkHeader(cpu: Processor,
  header: { present: bigint; format: bigint; available: bigint; isCompact: boolean; compactOnly: boolean }): void {
  const { present, format, available, isCompact, compactOnly } = header
  if (!isCompact) {
    const reserved = view.getBigUint64(legacyBytes + 16, true)
    if (compactOnly || format !== 0n || reserved !== 0n || present & ~available) throw generalProtection()
    return
  }
  if (!cpu.model.has('xsavec') && !cpu.model.has('xsaves')) throw generalProtection()
  const listed = format & ~compacted
  for (let i = 16; i < headerBytes; i += 8) if (view.getBigUint64(legacyBytes + i, true) !== 0n) throw generalProtection()
  if (listed & ~available || present & ~listed) throw generalProtection()
}

export const xrstor = (cpu: Processor): After => restore(cpu, cpu.state.xcr0, false)

export function xrstors(cpu: Processor): After {
  beginXsave(cpu)
  requireCpl0(cpu)
  return restore(cpu, cpu.state.xcr0 | cpu.state.msrXss, true)
}

// ---- MXCSR ----

/** argument[0]: linear address. */
export function ldmxcsr(cpu: Processor): After {
  cpu.state.mxcsr = checkMxcsr(cpu, cpu.memory.read32(cpu.state.argument[0]))
  deriveFpu(cpu.state)
  return after.next
}
