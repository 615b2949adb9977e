/** Task switching through a TSS. Intel SDM vol. 3, "Task Switching", "Task-State Segment (TSS)", "16-Bit Task-State Segment (TSS)". */
import { cr0, isLong } from './bits.ts'
import {
  baseOf, descriptorAddress, dplOf, isCode, isConforming, isNull, isPresent, isReadable, isWritable, limitOf, markAccessed, readDescriptor,
  rplOf, setBusy, systemType, typeOf, type Descriptor
} from './descriptor.ts'
import { Fault, generalProtection, selectorFault, vector } from './fault.ts'
import { segment } from './layout.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import { enterTask, leaveTask } from './shadow-task.ts'
import { usesCet } from './shadow-stack.ts'
import { setNull, setParagraph, setSegment } from './segments.ts'

export type TaskSource = 'jump' | 'call' | 'interrupt' | 'return'

export interface TaskSwitchOptions {
  /** EIP that the old task goes on at. */
  readonly returnRip: bigint
  /** The error code that the event pushes. */
  readonly error?: number
  /** EXT of error codes. */
  readonly external?: number
  /** The saved EFLAGS has RF. */
  readonly resume?: boolean
}

/** Byte offsets in the two formats. `segments` are ES CS SS DS (FS GS). */
const format32 = { bytes: 4, cr3: 0x1c, rip: 0x20, eflags: 0x24, gpr: 0x28, segments: 0x48, segmentCount: 6, ldtr: 0x60, trap: 0x64,
  minimum: 0x67 } as const
const format16 = { bytes: 2, cr3: 0, rip: 0x0e, eflags: 0x10, gpr: 0x12, segments: 0x22, segmentCount: 4, ldtr: 0x2a, trap: 0,
  minimum: 0x2b } as const
type Format = typeof format32 | typeof format16

interface TaskImage {
  readonly cr3: number
  readonly rip: number
  readonly eflags: number
  readonly gpr: readonly number[]
  readonly segments: readonly number[]
  readonly ldtr: number
  readonly trap: boolean
}

/** CET: the new task's shadow stack, with a supervisor shadow-stack token. */
const sspOffset = 0x68

const isWide = (type: number): boolean => (type & 8) !== 0
const pendingTaskTrap = 0x8000

/** Switches; answers whether the new TSS is a 32-bit one. Faults while loading the new segments are raised in the new task. */
export function switchTask(cpu: Processor, selector: number, source: TaskSource, options: TaskSwitchOptions): boolean {
  const external = options.external ?? 0
  const descriptor = checkTss(cpu, selector, source, external)
  cpu.guest?.taskSwitch(selector, source, options.error, options.resume === true)
  const type = typeOf(descriptor)
  const format = isWide(type) ? format32 : format16
  const base = BigInt(baseOf(descriptor))
  const image = readImage(cpu, base, format)
  const { state } = cpu
  const nested = source === 'call' || source === 'interrupt'
  const shadow = usesCet(cpu) ? leaveTask(cpu, source, options.returnRip, newLevel(image)) : undefined
  const newSsp = shadow && source !== 'return' ? BigInt(cpu.memory.read32(base + BigInt(sspOffset), 'supervisor')) : 0n
  const old = { selector: state.segSelector[7] }

  saveTask(cpu, source, options)
  if (source === 'jump' || source === 'return') setBusy(cpu, readDescriptor(cpu, old.selector, vector.TS), false)
  if (nested) cpu.memory.write16(base, old.selector, 'supervisor')
  if (source !== 'return') setBusy(cpu, descriptor, true)

  setSegment(state, segment.tr, selector, descriptor)
  state.segAttributes[segment.tr] |= 2
  state.cr0 |= BigInt(cr0.TS)
  state.dr[7] &= ~0x55n
  loadRegisters(cpu, image, format, nested)
  if (image.trap) state.pendingDebug |= pendingTaskTrap
  try {
    loadSegments(cpu, image, external)
    if (shadow) enterTask(cpu, shadow, { source, newSsp, refuse: () => selectorFault(vector.TS, selector, external) })
  } catch (fault) {
    if (!(fault instanceof Fault) || fault.vector === vector.EXIT) throw fault
    throw new Fault(fault.vector, fault.error, fault.address, fault.during, state.rip)
  }
  return format === format32
}

const newLevel = (image: TaskImage): number => (image.eflags & flag.VM ? 3 : rplOf(image.segments[1]))

function checkTss(cpu: Processor, selector: number, source: TaskSource, external: number): Descriptor {
  const wrong = source === 'return' ? vector.TS : vector.GP
  if (isLong(cpu.state)) throw selectorFault(vector.GP, selector, external)
  if (selector & 4 || isNull(selector) || descriptorAddress(cpu, selector) === undefined) throw selectorFault(wrong, selector, external)
  const descriptor = readDescriptor(cpu, selector, wrong, external)
  const type = typeOf(descriptor)
  const expected = source === 'return' ? [systemType.tss16Busy, systemType.tss32Busy] : [systemType.tss16, systemType.tss32]
  if (!(expected as number[]).includes(type)) throw selectorFault(wrong, selector, external)
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector, external)
  const limit = limitOf(descriptor)
  if (usesCet(cpu) && (!isWide(type) || limit < sspOffset + 3)) throw selectorFault(vector.TS, selector, external)
  if (limit < (isWide(type) ? format32 : format16).minimum) throw selectorFault(vector.TS, selector, external)
  return descriptor
}

function readImage(cpu: Processor, base: bigint, format: Format): TaskImage {
  const { memory } = cpu
  const word = (offset: number): number => memory.read16(base + BigInt(offset), 'supervisor')
  const value = (offset: number): number => (format.bytes === 4 ? memory.read32(base + BigInt(offset), 'supervisor') : word(offset))
  const step = format === format32 ? 4 : 2
  return {
    cr3: format === format32 ? value(format.cr3) : 0,
    rip: value(format.rip),
    eflags: value(format.eflags),
    gpr: Array.from({ length: 8 }, (_, i) => value(format.gpr + i * format.bytes)),
    segments: Array.from({ length: 6 }, (_, i) => (i < format.segmentCount ? word(format.segments + i * step) : 0)),
    ldtr: word(format.ldtr),
    trap: format === format32 && (word(format.trap) & 1) !== 0,
  }
}

function saveTask(cpu: Processor, source: TaskSource, options: TaskSwitchOptions): void {
  const { memory, state } = cpu
  const format: Format = isWide(state.segAttributes[7]) ? format32 : format16
  const base = state.segBase[7]
  const write = (offset: number, value: number): void => {
    if (format.bytes === 4) memory.write32(base + BigInt(offset), value >>> 0, 'supervisor')
    else memory.write16(base + BigInt(offset), value & 0xffff, 'supervisor')
  }
  memory.probeWrite(base + BigInt(format.rip), format.minimum - format.rip - 7, 'supervisor')
  let flags = readRflags(state)
  if (source === 'return') flags &= ~flag.NT
  if (options.resume) flags |= flag.RF
  write(format.rip, Number(options.returnRip & 0xffffffffn))
  write(format.eflags, flags)
  for (let i = 0; i < 8; i++) write(format.gpr + i * format.bytes, Number(state.gpr[i] & 0xffffffffn))
  for (let i = 0; i < format.segmentCount; i++)
    memory.write16(base + BigInt(format.segments + i * format.bytes), state.segSelector[i], 'supervisor')
}

function loadRegisters(cpu: Processor, image: TaskImage, format: Format, nested: boolean): void {
  const { state } = cpu
  if (format === format32 && Number(state.cr0) & cr0.PG) {
    state.cr3 = BigInt(image.cr3)
    cpu.translation.cr3Written(false)
  }
  const high = format === format32 ? 0 : 0xffff0000
  image.gpr.forEach((value, i) => (state.gpr[i] = BigInt((value | high) >>> 0)))
  writeRflags(state, image.eflags | (nested ? flag.NT : 0))
  state.rip = BigInt(image.rip)
  state.cpl = newLevel(image)
}

/** LDTR first, then all others; each is unusable until it has been checked. */
function loadSegments(cpu: Processor, image: TaskImage, external: number): void {
  const { state } = cpu
  image.segments.forEach((selector, i) => setNull(state, i, selector))
  setNull(state, segment.ldtr, image.ldtr)
  if (state.eflags & flag.VM) image.segments.forEach((selector, i) => setParagraph(state, i, selector))
  cpu.stateChanged()
  if (!isNull(image.ldtr)) loadTaskLdt(cpu, image.ldtr, external)
  if (state.eflags & flag.VM) return
  const { cpl } = state
  loadTaskCode(cpu, image.segments[1], cpl, external)
  loadTaskStack(cpu, image.segments[2], cpl, external)
  for (const index of [segment.es, segment.ds, segment.fs, segment.gs]) loadTaskData(cpu, index, image.segments[index], cpl, external)
  cpu.stateChanged()
  if (image.rip > state.segLimit[1]) throw generalProtection(external)
}

function loadTaskLdt(cpu: Processor, selector: number, external: number): void {
  if (selector & 4) throw selectorFault(vector.TS, selector, external)
  const descriptor = readDescriptor(cpu, selector, vector.TS, external)
  if (typeOf(descriptor) !== systemType.ldt || !isPresent(descriptor)) throw selectorFault(vector.TS, selector, external)
  setSegment(cpu.state, segment.ldtr, selector, descriptor)
}

function loadTaskCode(cpu: Processor, selector: number, cpl: number, external: number): void {
  const fail = (): never => { throw selectorFault(vector.TS, selector, external) }
  if (isNull(selector)) fail()
  const descriptor = readDescriptor(cpu, selector, vector.TS, external)
  if (!isCode(descriptor) || (isConforming(descriptor) ? dplOf(descriptor) > cpl : dplOf(descriptor) !== cpl)) fail()
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector, external)
  setSegment(cpu.state, segment.cs, selector, markAccessed(cpu, descriptor))
}

function loadTaskStack(cpu: Processor, selector: number, cpl: number, external: number): void {
  const fail = (): never => { throw selectorFault(vector.TS, selector, external) }
  if (isNull(selector)) fail()
  const descriptor = readDescriptor(cpu, selector, vector.TS, external)
  if (!isWritable(descriptor) || dplOf(descriptor) !== cpl || rplOf(selector) !== cpl) fail()
  if (!isPresent(descriptor)) throw selectorFault(vector.SS, selector, external)
  setSegment(cpu.state, segment.ss, selector, markAccessed(cpu, descriptor))
}

function loadTaskData(cpu: Processor, index: number, selector: number, cpl: number, external: number): void {
  if (isNull(selector)) return
  const descriptor = readDescriptor(cpu, selector, vector.TS, external)
  const reachable = isConforming(descriptor) || (dplOf(descriptor) >= cpl && dplOf(descriptor) >= rplOf(selector))
  if (!isReadable(descriptor) || !reachable) throw selectorFault(vector.TS, selector, external)
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector, external)
  setSegment(cpu.state, index, selector, markAccessed(cpu, descriptor))
}

/** The TSS that IRET with NT returns to. */
export const previousTask = (cpu: Processor): number => cpu.memory.read16(cpu.state.segBase[7], 'supervisor')

