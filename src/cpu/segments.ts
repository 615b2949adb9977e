/** Loading segment registers with every check. Intel SDM vol. 2, "MOV-Move", "LLDT", "LTR"; vol. 3, "Protection". */
import { attribute, hasParagraphs, is64, canonicalFor, isLong, isProtected } from './bits.ts'
import {
  attributesOf, baseOf, dplOf, isCode, isConforming, isNull, isPresent, isReadable, isWritable, limitOf, markAccessed, readDescriptor,
  readUpperHalf, rplOf, setBusy, systemType, typeOf, descriptorAddress, type Descriptor,
} from './descriptor.ts'
import { generalProtection, invalidOpcode, selectorFault, vector } from './fault.ts'
import { at, segment } from './layout.ts'
import type { Processor } from './processor.ts'
import type { CpuState } from './state.ts'
import { knownWords } from './system-read.ts'

const v86Attributes = 0xf3
const realAttributes = 0x93

/** Writes all of a segment register from a descriptor that has been checked. */
export function setSegment(state: CpuState, index: number, selector: number, descriptor: Descriptor): void {
  state.segSelector[index] = selector
  state.segBase[index] = BigInt(baseOf(descriptor))
  state.segLimit[index] = limitOf(descriptor)
  state.segAttributes[index] = attributesOf(descriptor)
}

/**
 * Real-address mode keeps limit and attributes, CS's too, unless the segment was unusable: who sets CR0.PE and goes on without a far jump
 * runs in the code segment of before (hypervisors look at its type). Virtual-8086 mode sets limit and attributes.
 */
export function setParagraph(state: CpuState, index: number, selector: number): void {
  state.segSelector[index] = selector
  state.segBase[index] = BigInt(selector << 4)
  if (!isProtected(state)) {
    if (!(state.segAttributes[index] & attribute.unusable)) return
    state.segLimit[index] = 0xffff
    state.segAttributes[index] = realAttributes
    return
  }
  state.segLimit[index] = 0xffff
  state.segAttributes[index] = v86Attributes
}

/** A null selector: the segment cannot be used, and its base is zero (AMD says so in CPUID 80000021H EAX[6]). */
export function setNull(state: CpuState, index: number, selector: number, dpl = 0): void {
  state.segSelector[index] = selector
  state.segBase[index] = 0n
  state.segLimit[index] = 0
  state.segAttributes[index] = attribute.unusable | (dpl << 5)
}

/** MOV Sreg, POP Sreg, LDS and the like: ES, SS, DS, FS, GS. */
export function loadSegment(cpu: Processor, index: number, selector: number): void {
  if (hasParagraphs(cpu.state)) setParagraph(cpu.state, index, selector)
  else if (index === segment.ss) loadStackSegment(cpu, selector, cpu.state.cpl)
  else loadDataSegment(cpu, index, selector)
}

function loadDataSegment(cpu: Processor, index: number, selector: number): void {
  if (isNull(selector)) return setNull(cpu.state, index, selector)
  if (loadKnownData(cpu, index, selector)) return
  setSegment(cpu.state, index, selector, markAccessed(cpu, checkDataSegment(cpu, selector)))
}

/** Of the descriptor's second word: present, no system segment, data and not code, accessed. */
const dataMask = 0x9900
const dataValue = 0x9100
const word = { gdtrBase: at.gdtrBase >> 2, gdtrLimit: at.gdtrLimit >> 2, cpl: at.cpl >> 2, segBase: at.segBase >> 2,
  segLimit: at.segLimit >> 2, segSelector: at.segSelector >> 2, segAttributes: at.segAttributes >> 2 } as const

/** Loads data segments whose descriptor, of the GDT, is at hand and wants no change; false: nothing has happened. */
function loadKnownData(cpu: Processor, index: number, selector: number): boolean {
  const { words } = cpu.state
  if (selector & 4 || (selector | 7) > words[word.gdtrLimit]) return false
  const descriptor = knownWords(cpu.memory, words[word.gdtrBase], words[word.gdtrBase + 1], selector & 0xfff8, 8)
  if (descriptor === 0) return false
  const low = words[descriptor]
  const high = words[descriptor + 1]
  const dpl = (high >>> 13) & 3
  if ((high & dataMask) !== dataValue || dpl < words[word.cpl] || dpl < rplOf(selector)) return false
  const limit = (low & 0xffff) | (high & 0xf0000)
  words[word.segSelector + index] = selector
  words[word.segBase + index * 2] = (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)
  words[word.segBase + index * 2 + 1] = 0
  words[word.segLimit + index] = high & 0x800000 ? (limit << 12) | 0xfff : limit
  words[word.segAttributes + index] = (high >>> 8) & 0xf0ff
  return true
}

function checkDataSegment(cpu: Processor, selector: number): Descriptor {
  const descriptor = readDescriptor(cpu, selector)
  if (!isReadable(descriptor)) throw selectorFault(vector.GP, selector)
  if (!isConforming(descriptor)) {
    const dpl = dplOf(descriptor)
    if (rplOf(selector) > dpl || cpu.state.cpl > dpl) throw selectorFault(vector.GP, selector)
  }
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector)
  return descriptor
}

/** SS for code at `cpl`, as MOV SS checks it. Errors carry `otherFault` (#GP, or #TS for stacks out of a TSS) and EXT. */
export function checkStackSegment(cpu: Processor, selector: number, cpl: number, otherFault: number = vector.GP, external = 0): Descriptor {
  const descriptor = readDescriptor(cpu, selector, otherFault, external)
  if (rplOf(selector) !== cpl || !isWritable(descriptor) || dplOf(descriptor) !== cpl) throw selectorFault(otherFault, selector, external)
  if (!isPresent(descriptor)) throw selectorFault(vector.SS, selector, external)
  return descriptor
}

function loadStackSegment(cpu: Processor, selector: number, cpl: number): void {
  if (isNull(selector)) {
    if (!is64(cpu.state) || cpl === 3 || rplOf(selector) !== cpl) throw generalProtection()
    return setNull(cpu.state, segment.ss, selector, cpl)
  }
  setSegment(cpu.state, segment.ss, selector, markAccessed(cpu, checkStackSegment(cpu, selector, cpl)))
}

/** CS with RPL = `cpl`. The descriptor has been checked. */
export function setCode(cpu: Processor, selector: number, descriptor: Descriptor, cpl: number): void {
  setSegment(cpu.state, segment.cs, (selector & 0xfffc) | cpl, markAccessed(cpu, descriptor))
  cpu.state.cpl = cpl
}

/**
 * After a return to an outer level, DS, ES, FS and GS that it may not use become null; their bases stay, and 64-bit code uses those of FS
 * and GS. A null selector loses its RPL: programs see 0 in place of the 1 to 3 that they loaded.
 */
export function dropInnerSegments(state: CpuState): void {
  const { cpl } = state
  for (const index of [segment.es, segment.ds, segment.fs, segment.gs]) {
    const attributes = state.segAttributes[index]
    if (attributes & attribute.unusable) {
      state.segSelector[index] = 0
      continue
    }
    const conformingCode = (attributes & 0x1c) === 0x1c
    if (conformingCode || ((attributes >> 5) & 3) >= cpl) continue
    const base = state.segBase[index]
    setNull(state, index, 0)
    state.segBase[index] = base
  }
}

function checkSystemSelector(cpu: Processor): void {
  if (hasParagraphs(cpu.state)) throw invalidOpcode()
  if (cpu.state.cpl !== 0) throw generalProtection()
}

/** A system descriptor of the GDT; 16 bytes of it must be inside in long mode. */
function readSystemDescriptor(cpu: Processor, selector: number, allowed: readonly number[]): { descriptor: Descriptor; base: bigint } {
  const long = isLong(cpu.state)
  if (selector & 4 || descriptorAddress(cpu, selector, long ? 16 : 8) === undefined) throw selectorFault(vector.GP, selector)
  const descriptor = readDescriptor(cpu, selector)
  if (!allowed.includes(typeOf(descriptor))) throw selectorFault(vector.GP, selector)
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector)
  if (!long) return { descriptor, base: BigInt(baseOf(descriptor)) }
  const upper = readUpperHalf(cpu, descriptor)
  const base = (BigInt(upper.low) << 32n) | BigInt(baseOf(descriptor))
  if ((upper.high & 0x1f00) !== 0 || !canonicalFor(base, cpu.model.linearBits)) throw selectorFault(vector.GP, selector)
  return { descriptor, base }
}

export function loadLdtr(cpu: Processor, selector: number): void {
  checkSystemSelector(cpu)
  if (isNull(selector)) return setNull(cpu.state, segment.ldtr, selector)
  const { descriptor, base } = readSystemDescriptor(cpu, selector, [systemType.ldt])
  setSegment(cpu.state, segment.ldtr, selector, descriptor)
  cpu.state.segBase[segment.ldtr] = base
}

export function loadTaskRegister(cpu: Processor, selector: number): void {
  checkSystemSelector(cpu)
  if (isNull(selector)) throw generalProtection()
  const { descriptor, base } = readSystemDescriptor(cpu, selector, isLong(cpu.state) ? [systemType.tss32]
    : [systemType.tss16, systemType.tss32])
  setBusy(cpu, descriptor, true)
  setSegment(cpu.state, segment.tr, selector, descriptor)
  cpu.state.segAttributes[segment.tr] |= 2
  cpu.state.segBase[segment.tr] = base
}

/** Code that a direct far transfer to `selector` may enter. Intel SDM vol. 3, "Direct Calls or Jumps to Code Segments". */
export function checkCodeTransfer(cpu: Processor, selector: number, descriptor: Descriptor): void {
  const dpl = dplOf(descriptor)
  const allowed = isConforming(descriptor) ? dpl <= cpu.state.cpl : dpl === cpu.state.cpl && rplOf(selector) <= cpu.state.cpl
  if (!isCode(descriptor) || !allowed) throw selectorFault(vector.GP, selector)
  if (isLong(cpu.state) && (descriptor.high & 0x600000) === 0x600000) throw selectorFault(vector.GP, selector)
  if (!isPresent(descriptor)) throw selectorFault(vector.NP, selector)
}
