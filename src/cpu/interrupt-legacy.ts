/**
 * Event delivery in real-address, protected and virtual-8086 mode. Intel SDM vol. 3, "Exception and Interrupt Handling in Protected Mode";
 * vol. 2, "INT n/INTO/INT3/INT1".
 */
import { isV86 } from './bits.ts'
import { checkStackSegment, setCode, setNull, setParagraph, setSegment } from './segments.ts'
import {
  dplOf, isCode, isConforming, isNull, isPresent, limitOf, markAccessed, readDescriptor, readDescriptorAt, systemType, type Descriptor
} from './descriptor.ts'
import { checksGate, externalBit, isSoftware, setsResumeFlag, type CpuEvent } from './event.ts'
import { Fault, generalProtection, selectorFault, vector } from './fault.ts'
import { deliverFlat } from './interrupt-quick-flat.ts'
import { segment } from './layout.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags } from './rflags.ts'
import { enterLevel, returnPoint, usesCet } from './shadow-stack.ts'
import { currentStack, stackFrom } from './stack.ts'
import { switchTask } from './task.ts'
import { readStackOfLevel } from './tss.ts'

const low32 = 0xffffffffn

const returnRip = (cpu: Processor, event: CpuEvent): bigint => (isSoftware(event) ? event.nextRip : cpu.state.rip)

/** The interrupt vector table: offset, segment. No error codes. */
export function deliverReal(cpu: Processor, event: CpuEvent): void {
  const { state } = cpu
  const entry = event.vector * 4
  if (entry + 3 > state.idtrLimit) throw generalProtection()
  const target = cpu.memory.read32((state.idtrBase + BigInt(entry)) & low32, 'supervisor')
  const stack = currentStack(cpu)
  stack.push(2, BigInt(readRflags(state) & 0xffff))
  stack.push(2, BigInt(state.segSelector[1]))
  stack.push(2, returnRip(cpu, event) & 0xffffn)
  state.gpr[4] = stack.merged(state.gpr[4])
  state.eflags &= ~(flag.IF | flag.TF | flag.AC | flag.RF)
  setParagraph(state, segment.cs, target >>> 16)
  state.rip = BigInt(target & 0xffff)
  cpu.stateChanged()
}

function isQuick(cpu: Processor, event: CpuEvent): boolean {
  const lowest = checksGate(event) ? cpu.state.cpl : 0
  const error = event.error === undefined ? -1 : event.error >>> 0
  return deliverFlat(cpu, event.vector, error, lowest, Number(returnRip(cpu, event) & low32), setsResumeFlag(event) ? flag.RF : 0)
}

export function deliverProtected(cpu: Processor, event: CpuEvent): void {
  if (isQuick(cpu, event)) return
  const gate = readGate(cpu, event)
  if (((gate.high >> 8) & 0x1f) === systemType.taskGate) deliverThroughTask(cpu, event, gate.low >>> 16)
  else deliverThroughGate(cpu, event, gate)
}

const gateTypes: ReadonlySet<number> = new Set([systemType.taskGate, systemType.interruptGate16, systemType.trapGate16,
  systemType.interruptGate32, systemType.trapGate32])

function readGate(cpu: Processor, event: CpuEvent): Descriptor {
  const { state } = cpu
  const error = event.vector * 8 + 2 + externalBit(event, cpu.model)
  if (event.vector * 8 + 7 > state.idtrLimit) throw new Fault(vector.GP, error)
  const gate = readDescriptorAt(cpu, (state.idtrBase + BigInt(event.vector * 8)) & low32)
  if (!gateTypes.has((gate.high >> 8) & 0x1f)) throw new Fault(vector.GP, error)
  if (checksGate(event) && dplOf(gate) < state.cpl) throw new Fault(vector.GP, error)
  if (!isPresent(gate)) throw new Fault(vector.NP, error)
  return gate
}

function deliverThroughTask(cpu: Processor, event: CpuEvent, selector: number): void {
  const external = externalBit(event, cpu.model)
  const options = { returnRip: returnRip(cpu, event), error: event.error, external, resume: setsResumeFlag(event) }
  const wide = switchTask(cpu, selector, 'interrupt', options)
  if (event.error === undefined) return
  const stack = currentStack(cpu)
  stack.push(wide ? 4 : 2, BigInt(event.error))
  cpu.state.gpr[4] = stack.merged(cpu.state.gpr[4])
}

function deliverThroughGate(cpu: Processor, event: CpuEvent, gate: Descriptor): void {
  const { state } = cpu
  const external = externalBit(event, cpu.model)
  const type = (gate.high >> 8) & 0x1f
  const wide = (type & 8) !== 0
  const selector = gate.low >>> 16
  const offset = ((gate.low & 0xffff) | (wide ? gate.high & 0xffff0000 : 0)) >>> 0
  if (isNull(selector)) throw generalProtection(external)
  const code = readDescriptor(cpu, selector, vector.GP, external)
  const dpl = dplOf(code)
  if (!isCode(code) || dpl > state.cpl) throw selectorFault(vector.GP, selector, external)
  if (!isPresent(code)) throw selectorFault(vector.NP, selector, external)
  const fromV86 = isV86(state)
  const newCpl = isConforming(code) ? state.cpl : dpl
  if (fromV86 && newCpl !== 0) throw selectorFault(vector.GP, selector, external)
  if (offset > limitOf(code)) throw generalProtection(external)

  const size = wide ? 4 : 2
  const inner = newCpl !== state.cpl
  const target = inner ? readStackOfLevel(cpu, newCpl, external) : undefined
  const stackSegment = target && checkStackSegment(cpu, target.selector, newCpl, vector.TS, external)
  const stack = target && stackSegment ? stackFrom(cpu, stackSegment, target.pointer, newCpl, (target.selector & 0xfffc) | external)
    : currentStack(cpu)
  if (fromV86) for (const index of [segment.gs, segment.fs, segment.ds, segment.es]) stack.push(size, BigInt(state.segSelector[index]))
  if (inner) {
    stack.push(size, BigInt(state.segSelector[2]))
    stack.push(size, state.gpr[4])
  }
  stack.push(size, BigInt((readRflags(state) | (setsResumeFlag(event) ? flag.RF : 0)) >>> 0))
  stack.push(size, BigInt(state.segSelector[1]))
  stack.push(size, returnRip(cpu, event))
  if (event.error !== undefined) stack.push(size, BigInt(event.error))
  if (usesCet(cpu)) enterLevel(cpu, { ...returnPoint(cpu, returnRip(cpu, event)), cpl: newCpl, ist: 0, toLongCode: false })

  const isInterruptGate = (type & 1) === 0
  state.eflags &= ~(flag.TF | flag.NT | flag.RF | flag.VM | (isInterruptGate ? flag.IF : 0))
  if (fromV86) for (const index of [segment.gs, segment.fs, segment.ds, segment.es]) setNull(state, index, 0)
  if (target && stackSegment) setSegment(state, segment.ss, target.selector, markAccessed(cpu, stackSegment))
  state.gpr[4] = stack.merged(state.gpr[4])
  setCode(cpu, selector, code, newCpl)
  state.rip = BigInt(offset)
  cpu.stateChanged()
}
