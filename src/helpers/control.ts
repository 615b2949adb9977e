/**
 * Control, debug and model-specific registers, XCR0, protection keys, translation and cache control. Intel SDM vol. 2, the instructions'
 * pages.
 */
import { cr0, cr4, cr4Low, cr0Low, canonicalFor, isCanonicalHalf, isCanonicalHigh, isV86, is64 } from '../cpu/bits.ts'
import {
  debugRegister, loadMachineStatusWord, writeCr0, writeCr3, writeCr4, writeCr8, writeDebugRegister, writeXcr
} from '../cpu/control.ts'
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { addressRegister, isAlreadyThere, isStorage, readMsr, writeMsr } from '../cpu/msr.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import { component, supportedXcr0 } from '../cpu/xsave-layout.ts'
import { copyOut } from './bulk.ts'
import { readPair, requireCpl0, requireFeature, requireSystemInformation, setPair, storeWord, writeGpr, writePair } from './registers.ts'

const argument = at.argument >> 2
const ecx = (cpu: Processor): number => cpu.state.words[(at.gpr >> 2) + 2]

const eax = at.gpr >> 2
const edx = (at.gpr >> 2) + 4

export function rdmsr(cpu: Processor): After {
  requireCpl0(cpu)
  const place = addressRegister(cpu, ecx(cpu))
  if (place !== 0) {
    const { words } = cpu.state
    setPair(words, words[place], words[place + 1])
    return after.next
  }
  const value = readMsr(cpu, ecx(cpu))
  if (value === undefined) throw generalProtection()
  writePair(cpu.state, value)
  return after.next
}

/** Back to the run loop when an interrupt or a deadline may have come up. */
export function wrmsr(cpu: Processor): After {
  requireCpl0(cpu)
  const index = ecx(cpu)
  const place = addressRegister(cpu, index)
  if (place !== 0) {
    const { words } = cpu.state
    if (!isCanonicalHalf(words[edx], cpu.model.linearBits)) throw generalProtection()
    words[place] = words[eax]
    words[place + 1] = words[edx]
    return after.next
  }
  const value = readPair(cpu.state)
  const changes = !isAlreadyThere(cpu, index, value)
  if (!writeMsr(cpu, index, value)) throw generalProtection()
  return changes && !isStorage(index) ? after.leave : after.next
}

/** Virtual nanoseconds: writing CR0 and CR3 drains the pipeline, CR8 does not; CR4 is the slowest. */
const serializingTime = 150
const cr4Time = 300

/** argument[0]: the value; registers[0]: the number of the control register. */
export function mov_to_cr(cpu: Processor): After {
  requireCpl0(cpu)
  const asked = cpu.state.argument[0]
  const value = cpu.guest?.writeControl?.(cpu.operation.registers[0], asked) ?? asked
  const number = cpu.operation.registers[0]
  switch (number) {
    case 0: writeCr0(cpu, value); break
    case 2: cpu.state.cr2 = value; break
    case 3: writeCr3(cpu, value); break
    case 4: writeCr4(cpu, value); break
    case 8: writeCr8(cpu, value); return cpu.guest?.trapsWrite ? after.leave : after.next
    default: throw invalidOpcode()
  }
  cpu.spend(number === 4 ? cr4Time : serializingTime)
  return number === 3 && !cpu.guest?.trapsWrite ? after.translated : after.leave
}

export function mov_from_cr(cpu: Processor): After {
  const { state, operation } = cpu
  const [destination, source] = operation.registers
  if (!isControlRegister(source)) throw invalidOpcode()
  requireCpl0(cpu)
  const value = readControlRegister(cpu, source)
  writeGpr(state, destination, is64(state) ? 64 : 32, cpu.guest?.readControl?.(source, value) ?? value)
  return after.next
}

const isControlRegister = (index: number): boolean => index === 0 || (index >= 2 && index <= 4) || index === 8

function readControlRegister(cpu: Processor, index: number): bigint {
  const { state } = cpu
  switch (index) {
    case 0: return state.cr0
    case 2: return state.cr2
    case 3: return state.cr3
    case 4: return state.cr4
    default: return BigInt(cpu.guest?.readTpr() ?? cpu.apic.getTpr())
  }
}

export function mov_to_dr(cpu: Processor): After {
  const { state, operation } = cpu
  requireCpl0(cpu)
  writeDebugRegister(cpu, debugRegister(cpu, operation.registers[0]), state.argument[0])
  return after.leave
}

export function mov_from_dr(cpu: Processor): After {
  const { state, operation } = cpu
  requireCpl0(cpu)
  writeGpr(state, operation.registers[0], is64(state) ? 64 : 32, state.dr[debugRegister(cpu, operation.registers[1])])
  return after.next
}

export function lmsw(cpu: Processor): After {
  requireCpl0(cpu)
  loadMachineStatusWord(cpu, Number(cpu.state.argument[0] & 0xffffn))
  return after.leave
}

/** argument[0]: linear address, argument[1]: 1 when the destination is memory. */
export function smsw(cpu: Processor): After {
  const { state } = cpu
  requireSystemInformation(cpu)
  return storeWord(cpu, cpu.guest?.readControl?.(0, state.cr0) ?? state.cr0)
}

export function clts(cpu: Processor): After {
  requireCpl0(cpu)
  const next = cpu.state.cr0 & ~BigInt(cr0.TS)
  cpu.state.cr0 = cpu.guest?.writeControl?.(0, next) ?? next
  cpu.stateChanged()
  return cpu.guest?.trapsWrite ? after.leave : after.next
}

function requireOsxsave(cpu: Processor): void {
  if (!(cr4Low(cpu.state) & cr4.OSXSAVE)) throw invalidOpcode()
}

export function xgetbv(cpu: Processor): After {
  const { state } = cpu
  requireOsxsave(cpu)
  const index = ecx(cpu)
  if (index === 1 && cpu.model.has('xgetbv1'))
    writePair(state, state.xcr0 & (component.x87 | component.sse | (state.pkru ? component.pkru : 0n)))
  else if (index === 0) writePair(state, state.xcr0)
  else throw generalProtection()
  return after.next
}

export function xsetbv(cpu: Processor): After {
  requireOsxsave(cpu)
  if (supportedXcr0(cpu.model) === 0n) throw invalidOpcode()
  requireCpl0(cpu)
  writeXcr(cpu, ecx(cpu), readPair(cpu.state))
  return after.leave
}

function requirePke(cpu: Processor): void {
  if (!(cr4Low(cpu.state) & cr4.PKE)) throw invalidOpcode()
  if (ecx(cpu) !== 0) throw generalProtection()
}

export function rdpkru(cpu: Processor): After {
  requirePke(cpu)
  writePair(cpu.state, BigInt(cpu.state.pkru))
  return after.next
}

export function wrpkru(cpu: Processor): After {
  requirePke(cpu)
  if (cpu.state.gpr[2] & 0xffffffffn) throw generalProtection()
  cpu.state.pkru = Number(cpu.state.gpr[0] & 0xffffffffn)
  cpu.translation.updateContext()
  return after.translated
}

function setAc(cpu: Processor, set: boolean): After {
  const { state } = cpu
  if (!cpu.model.has('smap') || state.cpl !== 0 || isV86(state)) throw invalidOpcode()
  state.eflags = set ? state.eflags | flag.AC : state.eflags & ~flag.AC
  cpu.stateChanged()
  return after.next
}

export const stac = (cpu: Processor): After => setAc(cpu, true)
export const clac = (cpu: Processor): After => setAc(cpu, false)

export function invd(cpu: Processor): After {
  requireCpl0(cpu)
  return after.next
}
export const wbinvd = invd

/** argument[0]: linear address. A non-canonical address is ignored. */
export function invlpg(cpu: Processor): After {
  requireCpl0(cpu)
  if (isV86(cpu.state)) throw generalProtection()
  const { words } = cpu.state
  const high = words[argument + 1]
  if (isCanonicalHigh(cpu.state, high)) cpu.translation.invlpg(words[argument], high)
  return after.translated
}

const invpcidType = { address: 0n, context: 1n, all: 2n, allButGlobal: 3n } as const

/** argument[0]: linear address of the descriptor; registers[0]: the register with the type. */
export function invpcid(cpu: Processor): After {
  const { state, operation, memory } = cpu
  requireFeature(cpu, 'invpcid')
  if (isV86(state)) throw generalProtection()
  if (cr0Low(state) & cr0.PE && state.cpl !== 0) throw generalProtection()
  const type = is64(state) ? state.gpr[operation.registers[0]] : state.gpr[operation.registers[0]] & 0xffffffffn
  const pcid = memory.read64(state.argument[0])
  const address = memory.read64(state.argument[0] + 8n)
  if (type > invpcidType.allButGlobal) throw generalProtection()
  if (type <= invpcidType.context) {
    if (pcid >> 12n) throw generalProtection()
    if (pcid !== 0n && !(cr4Low(state) & cr4.PCIDE)) throw generalProtection()
  }
  if (type === invpcidType.address && !canonicalFor(address, cpu.model.linearBits)) throw generalProtection()
  cpu.translation.invpcid(Number(type), Number(pcid & 0xfffn), address)
  return after.translated
}

/** CLFLUSH, CLFLUSHOPT, CLWB: caches are not modelled; the address is accessed as by a read. */
export function clflush(cpu: Processor): After {
  cpu.memory.probeRead(cpu.state.argument[0], 1)
  return after.next
}

const lineBytes = 64

/** Clears the cache line at RAX. */
export function clzero(cpu: Processor): After {
  const { state, operation } = cpu
  const base = operation.segment >= 4 || !is64(state) ? state.segBase[operation.segment] : 0n
  const address = (base + BigInt.asUintN(operation.addressSize, state.gpr[0])) & ~BigInt(lineBytes - 1)
  copyOut(cpu, BigInt.asUintN(64, address), new Uint32Array(lineBytes / 4), 0, lineBytes / 4)
  return after.next
}

/** System management mode is not implemented; outside of it RSM is undefined. */
export function rsm(_cpu: Processor): After {
  throw invalidOpcode()
}

