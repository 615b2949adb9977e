/**
 * The VMX instructions: VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMREAD, VMWRITE, VMLAUNCH, VMRESUME, VMCALL, VMFUNC, INVEPT, INVVPID.
 * Intel SDM vol. 3, chapter "VMX Instruction Reference".
 */
import { cr4, cr4Low, eferLow, efer, hasParagraphs, is64, canonicalFor, join } from '../../cpu/bits.ts'
import { Fault, generalProtection, invalidOpcode, vector } from '../../cpu/fault.ts'
import { at, segment } from '../../cpu/layout.ts'
import { readSlot } from '../../cpu/msr-table.ts'
import { after, type After, type Helper, type Processor } from '../../cpu/processor.ts'
import { isValidEptp } from './control-rules.ts'
import { cr0Fixed0, cr4Fixed0, secondaryBit } from './controls.ts'
import { enterGuest } from './entry.ts'
import { instructionError as error, reason } from './exit-reasons.ts'
import { at as field, vmcsRevision } from './fields.ts'
import { vmxFlag } from './guest-flags.ts'
import { operandInformation } from './instruction-information.ts'
import { entryTime } from './timer.ts'
import { VmxUnit } from './unit.ts'
import type { Vmcs } from './vmcs.ts'

const featureControl = 0x3a
const locked = 1n
const enabledOutsideSmx = 4n
const noVmcs = 0xffff_ffff_ffff_ffffn
const inEax = 0xffffffffn

/** Virtual nanoseconds besides the one of every instruction: as on recent processors. */
export const vmxTimes = {
  vmxon: 100, vmxoff: 100, vmclear: 40, vmptrld: 40, vmptrst: 10, vmread: 0, vmwrite: 0, vmlaunch: entryTime, vmresume: entryTime,
    vmcall: 10, vmfunc: 40,
  invept: 100, invvpid: 100,
} as const

/** Legality, then the exit that all of them cause in a guest, then privilege. */
function begin(cpu: Processor, unit: VmxUnit, basic: number, hasMemory: boolean): void {
  const { state } = cpu
  if (!unit.inOperation || hasParagraphs(state) || (eferLow(state) & efer.LMA && !is64(state))) throw invalidOpcode()
  if (unit.inGuest) throw hasMemory ? operandExit(cpu, unit, basic) : unit.instructionExit(basic)
  if (state.cpl !== 0) throw generalProtection()
}

function operandExit(cpu: Processor, unit: VmxUnit, basic: number): unknown {
  const { information, displacement } = operandInformation(cpu, unit.codeBytes())
  return unit.instructionExit(basic, displacement, { information })
}

/** argument[0]: linear address of the operand. */
const pointerOperand = (cpu: Processor): bigint => readOperand(cpu, 0n)

/** Eight bytes of the memory operand. What is not canonical is #SS in the stack segment. */
function readOperand(cpu: Processor, offset: bigint): bigint {
  try {
    return cpu.memory.read64(cpu.state.argument[0] + offset)
  } catch (fault) {
    const isStack = cpu.operation.segment === segment.ss
    throw isStack && fault instanceof Fault && fault.vector === vector.GP ? new Fault(vector.SS, 0) : fault
  }
}
const isAddress = (cpu: Processor, pointer: bigint): boolean => (pointer & 0xfffn) === 0n
  && pointer >> BigInt(cpu.model.physicalBits) === 0n

function vmxon(cpu: Processor, unit: VmxUnit): After {
  const { state } = cpu
  if (!(cr4Low(state) & cr4.VMXE) || hasParagraphs(state) || (eferLow(state) & efer.LMA && !is64(state))) throw invalidOpcode()
  if (unit.inGuest) throw operandExit(cpu, unit, reason.vmxon)
  if (state.cpl !== 0) throw generalProtection()
  if (unit.inOperation) {
    pointerOperand(cpu)
    return unit.fail(error.vmxonInRoot)
  }
  const feature = readSlot(state, featureControl)
  if (!(feature & locked) || !(feature & enabledOutsideSmx)) throw generalProtection()
  if (unit.cpu.mmu.isA20Masked) throw generalProtection()
  if ((state.cr0 & cr0Fixed0) !== cr0Fixed0 || (state.cr4 & cr4Fixed0) !== cr4Fixed0) throw generalProtection()
  const pointer = pointerOperand(cpu)
  if (!isAddress(cpu, pointer) || unit.readPhysical32(pointer) >>> 0 !== vmcsRevision) return unit.failInvalid()
  state.vmxonPointer = pointer
  unit.setCurrent(noVmcs)
  unit.setOperation(true)
  return unit.succeed()
}

function vmxoff(cpu: Processor, unit: VmxUnit): After {
  begin(cpu, unit, reason.vmxoff, false)
  unit.setCurrent(noVmcs)
  unit.forgetAll()
  // an INIT that was held back is taken now
  if (cpu.state.vmxFlags & vmxFlag.initHeld) unit.cpu.stopRequested = true
  unit.setOperation(false)
  // A20M# was blocked
  if (unit.cpu.mmu.isA20Masked) unit.cpu.mmu.maskA20(true)
  unit.succeed()
  return after.leave
}

function vmclear(cpu: Processor, unit: VmxUnit): After {
  begin(cpu, unit, reason.vmclear, true)
  const pointer = pointerOperand(cpu)
  if (!isAddress(cpu, pointer)) return unit.fail(error.vmclearAddress)
  if (pointer === cpu.state.vmxonPointer) return unit.fail(error.vmclearVmxonPointer)
  unit.clear(pointer)
  return unit.succeed()
}

function vmptrld(cpu: Processor, unit: VmxUnit): After {
  begin(cpu, unit, reason.vmptrld, true)
  const pointer = pointerOperand(cpu)
  if (!isAddress(cpu, pointer)) return unit.fail(error.vmptrldAddress)
  if (pointer === cpu.state.vmxonPointer) return unit.fail(error.vmptrldVmxonPointer)
  const revision = unit.readPhysical32(pointer)
  const mayBeShadow = unit.offers('secondary', secondaryBit.vmcsShadowing)
  if ((revision & 0x7fffffff) !== vmcsRevision || (revision < 0 && !mayBeShadow)) return unit.fail(error.vmptrldRevision)
  unit.setCurrent(pointer)
  return unit.succeed()
}

function vmptrst(cpu: Processor, unit: VmxUnit): After {
  begin(cpu, unit, reason.vmptrst, true)
  cpu.memory.write64(cpu.state.argument[0], cpu.state.vmcsPointer)
  return unit.succeed()
}

/** The VMCS that VMREAD and VMWRITE mean: in a guest the shadow VMCS when the bitmap says so; else they exit. */
function accessed(cpu: Processor, unit: VmxUnit, basic: number, encoding: number, top: number): Vmcs | undefined {
  const { state } = cpu
  if (!unit.inOperation || hasParagraphs(state) || (eferLow(state) & efer.LMA && !is64(state))) throw invalidOpcode()
  if (!unit.inGuest) {
    if (state.words[cplWord] !== 0) throw generalProtection()
    const current = unit.currentOrNone()
    if (current) unit.publish(current)
    return current
  }
  const shadows = (unit.secondary & secondaryBit.vmcsShadowing) !== 0
  const bitmap = basic === reason.vmread ? 'vmreadBitmap' : 'vmwriteBitmap'
  if (!shadows || top !== 0 || encoding >>> 15 !== 0 || unit.testBit(unit.current.get(bitmap), encoding))
    throw operandExit(cpu, unit, basic)
  if (state.cpl !== 0) throw generalProtection()
  return unit.shadow()
}

const cplWord = at.cpl >> 2
const gprWord = (register: number): number => (at.gpr >> 2) + register * 2
const memoryFlag = (at.argument >> 2) + 2

/** argument[0]: linear address, or argument[1] = 0 for a register; registers[0] the destination, registers[1] that with the encoding. */
function vmread(cpu: Processor, unit: VmxUnit): After {
  const { words } = cpu.state
  const { registers } = cpu.operation
  const long = is64(cpu.state)
  const encoding = words[gprWord(registers[1])]
  const top = long ? words[gprWord(registers[1]) + 1] : 0
  const vmcs = accessed(cpu, unit, reason.vmread, encoding, top)
  if (!vmcs) return unit.failInvalid()
  const found = top === 0 ? unit.fieldOf(encoding) : undefined
  if (!found) return unit.fail(error.unsupportedField)
  const low = vmcs.words[vmcs.base + found.word + (encoding & 1)]
  const high = long && !(encoding & 1) ? vmcs.words[vmcs.base + found.word + 1] : 0
  if (words[memoryFlag] === 0) {
    words[gprWord(registers[0])] = low
    words[gprWord(registers[0]) + 1] = high
  } else if (long) cpu.memory.write64(cpu.state.argument[0], join(low, high))
  else cpu.memory.write32(cpu.state.argument[0], low)
  return unit.succeed()
}

/** argument[0]: linear address when argument[1] = 1; registers[1]: the register with the value; registers[0]: that with the encoding. */
function vmwrite(cpu: Processor, unit: VmxUnit): After {
  const { words } = cpu.state
  const { registers } = cpu.operation
  const long = is64(cpu.state)
  const encoding = words[gprWord(registers[0])]
  const top = long ? words[gprWord(registers[0]) + 1] : 0
  const vmcs = accessed(cpu, unit, reason.vmwrite, encoding, top)
  if (!vmcs) return unit.failInvalid()
  let low = words[gprWord(registers[1])]
  let high = long ? words[gprWord(registers[1]) + 1] : 0
  if (words[memoryFlag] !== 0) {
    low = cpu.memory.read32(cpu.state.argument[0])
    if (long) {
      const value = cpu.memory.read64(cpu.state.argument[0])
      low = Number(value & inEax)
      high = Number(value >> 32n)
    }
  }
  const found = top === 0 ? unit.fieldOf(encoding) : undefined
  if (!found) return unit.fail(error.unsupportedField)
  vmcs.writeWords(found, (encoding & 1) !== 0, low, high)
  vmcs.noteWriter(found, words[unit.ripWord], words[unit.ripWord + 1])
  return unit.succeed()
}

const launch = (isLaunch: boolean) => (cpu: Processor, unit: VmxUnit): After => {
  begin(cpu, unit, isLaunch ? reason.vmlaunch : reason.vmresume, false)
  const vmcs = unit.currentOrNone()
  if (!vmcs || vmcs.isShadow) return unit.failInvalid()
  if (unit.cpu.blocking & 2) return unit.fail(error.blockedByMovSs)
  if (isLaunch && vmcs.launched) return unit.fail(error.vmlaunchNotClear)
  if (!isLaunch && !vmcs.launched) return unit.fail(error.vmresumeNotLaunched)
  return enterGuest(unit, isLaunch)
}

/** Outside of a guest it would call an SMM-transfer monitor, which there is not. */
function vmcall(cpu: Processor, unit: VmxUnit): After {
  if (!unit.inOperation) throw invalidOpcode()
  if (unit.inGuest) throw unit.instructionExit(reason.vmcall)
  if (hasParagraphs(cpu.state) || (eferLow(cpu.state) & efer.LMA && !is64(cpu.state))) throw invalidOpcode()
  if (cpu.state.cpl !== 0) throw generalProtection()
  return unit.fail(error.vmcallInRoot)
}

const eptpSwitching = 0n
const eptpListEntries = 512n
const eptpWalkLength = 0x38n

function vmfunc(cpu: Processor, unit: VmxUnit): After {
  const { state } = cpu
  if (!unit.inGuest || !(unit.secondary & secondaryBit.vmFunctions)) throw invalidOpcode()
  const leaf = state.gpr[0] & inEax
  const enabled = leaf < 64n && (unit.current.get('vmFunctionControls') >> leaf) & 1n
  if (!enabled || leaf !== eptpSwitching) throw unit.instructionExit(reason.vmfunc)
  const index = state.gpr[1] & inEax
  if (index >= eptpListEntries) throw unit.instructionExit(reason.vmfunc)
  const eptp = unit.readPhysical64(unit.current.get('eptpListAddress') + index * 8n)
  const otherLength = (eptp ^ unit.current.get('eptp')) & eptpWalkLength
  if (otherLength !== 0n || !isValidEptp(unit.view, eptp)) throw unit.instructionExit(reason.vmfunc)
  unit.current.set64(field.eptp, eptp)
  if (unit.secondary & secondaryBit.eptViolationVe) unit.current.set64(field.eptpIndex, index & 0xffffn)
  unit.eptpChanged()
  return after.leave
}

const typeOperand = (cpu: Processor): bigint => {
  const value = cpu.state.gpr[cpu.operation.registers[0]]
  return is64(cpu.state) ? value : value & inEax
}

function invept(cpu: Processor, unit: VmxUnit): After {
  if (!unit.offers('secondary', secondaryBit.ept)) throw invalidOpcode()
  begin(cpu, unit, reason.invept, true)
  const type = typeOperand(cpu)
  const eptp = readOperand(cpu, 0n)
  const reserved = readOperand(cpu, 8n)
  if (type !== 1n && type !== 2n) return unit.fail(error.invalidOperand)
  if (type === 1n && (!isValidEptp(unit.view, eptp) || reserved !== 0n)) return unit.fail(error.invalidOperand)
  unit.translations.invept(type === 1n ? eptp : undefined)
  unit.succeed()
  return after.leave
}

function invvpid(cpu: Processor, unit: VmxUnit): After {
  if (!unit.offers('secondary', secondaryBit.vpid)) throw invalidOpcode()
  begin(cpu, unit, reason.invvpid, true)
  const type = typeOperand(cpu)
  const descriptor = readOperand(cpu, 0n)
  const address = readOperand(cpu, 8n)
  const vpid = descriptor & 0xffffn
  if (type > 3n || descriptor >> 16n !== 0n) return unit.fail(error.invalidOperand)
  if (type !== 2n && vpid === 0n) return unit.fail(error.invalidOperand)
  if (type === 0n && !canonicalFor(address, cpu.model.linearBits)) return unit.fail(error.invalidOperand)
  unit.translations.invvpid(Number(type), Number(vpid), address)
  unit.succeed()
  return after.leave
}

type Body = (cpu: Processor, unit: VmxUnit) => After
const bodies: Readonly<Record<keyof typeof vmxTimes, Body>> = {
  vmxon, vmxoff, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmlaunch: launch(true), vmresume: launch(false), vmcall, vmfunc, invept,
    invvpid,
}

/** The helpers of the rows in src/isa/instructions/vmx.ts; #UD on a processor without VMX. */
export const vmxHelpers: Readonly<Record<string, Helper>> = Object.fromEntries(
  Object.entries(bodies).map(([name, body]): [string, Helper] => [name, cpu => {
    if (!(cpu.virt instanceof VmxUnit)) throw invalidOpcode()
    return body(cpu, cpu.virt)
  }]),
)
