/**
 * Writing the control registers, XCR0 and the debug registers, with the checks and what follows from them. Intel SDM vol. 2, "MOV-Move
 * to/from Control Registers", "MOV-Move to/from Debug Registers", "XSETBV"; vol. 3, "Control Registers".
 */
import { attribute, cr0, cr4, efer, is64 } from './bits.ts'
import { deriveFpu } from './derive.ts'
import { Fault, generalProtection, invalidOpcode, vector } from './fault.ts'
import type { CpuModel } from './model.ts'
import type { Processor } from './processor.ts'
import type { CpuState } from './state.ts'
import { component, supportedXcr0 } from './xsave-layout.ts'

const big = (bits: number): bigint => BigInt(bits >>> 0)
const PG = big(cr0.PG)
const LMA = big(efer.LMA)

const cr0Defined = big(cr0.PE | cr0.MP | cr0.EM | cr0.TS | cr0.ET | cr0.NE | cr0.WP | cr0.AM | cr0.NW | cr0.CD | cr0.PG)
/** In PAE paging a change of these loads the PDPTEs from CR3. */
const cr0LoadsPdptes = big(cr0.PG | cr0.CD | cr0.NW)
const cr4LoadsPdptes = big(cr4.PGE | cr4.PSE | cr4.PAE | cr4.SMEP)

const usesPae = (state: CpuState): boolean => (state.cr0 & PG) !== 0n && (state.cr4 & big(cr4.PAE)) !== 0n && (state.efer & LMA) === 0n

/** CR0, CR4 and EFER.LMA change together or not at all: loading PDPTEs may still raise #GP. */
function change(cpu: Processor, next: { cr0: bigint; cr4: bigint; efer: bigint }, loadPdptes: boolean): void {
  const { state } = cpu
  const old = { cr0: state.cr0, cr4: state.cr4, efer: state.efer }
  Object.assign(state, next)
  if (loadPdptes && usesPae(state)) {
    try {
      cpu.translation.cr3Written(false)
    } catch (fault) {
      Object.assign(state, old)
      throw fault
    }
  }
  cpu.translation.controlWritten(old.cr0, old.cr4, old.efer)
  cpu.stateChanged()
}

/** Bits that cannot be, whatever the register holds: they come before a hypervisor's intercepts. */
export function checkCr0(cpu: Processor, value: bigint): void {
  const { state } = cpu
  if (value >> 32n) throw generalProtection()
  const bits = Number(value)
  if (bits & cr0.PG && !(bits & cr0.PE)) throw generalProtection()
  if (bits & cr0.NW && !(bits & cr0.CD)) throw generalProtection()
  if (~bits & state.fixedCr0) throw generalProtection()
  const old = state.cr0
  if (~old & value & PG && state.efer & big(efer.LME)) checkLongModeActivation(cpu)
  if (old & ~value & PG && (is64(state) || state.cr4 & big(cr4.PCIDE))) throw generalProtection()
}

export function writeCr0(cpu: Processor, value: bigint): void {
  const { state } = cpu
  checkCr0(cpu, value)
  const old = state.cr0
  const next = (value & cr0Defined) | big(cr0.ET)
  let nextEfer = state.efer
  if (~old & next & PG) {
    if (state.efer & big(efer.LME)) nextEfer |= LMA
  } else if (old & ~next & PG) nextEfer &= ~LMA
  if (!(next & big(cr0.WP)) && state.cr4 & big(cr4.CET)) throw generalProtection()
  if (old === next) return
  if ((old ^ next) === big(cr0.TS)) {
    state.cr0 = next
    cpu.stateChanged()
    return
  }
  change(cpu, { cr0: next, cr4: state.cr4, efer: nextEfer }, ((old ^ next) & cr0LoadsPdptes) !== 0n)
}

/**
 * Intel SDM vol. 3, "Initializing IA-32e Mode". AMD's list (APM vol. 2, "Long Mode Consistency Checks") does not have TR in it: KVM
 * gives a processor that wakes by INIT a busy 16-bit TSS there, and Linux activates long mode with it.
 */
function checkLongModeActivation({ model, state }: Processor): void {
  const busyTss16 = 3
  if (!(state.cr4 & big(cr4.PAE))) throw generalProtection()
  if (state.segAttributes[1] & attribute.long) throw generalProtection()
  if (model.vendor === 'GenuineIntel' && (state.segAttributes[7] & 0x1f) === busyTss16) throw generalProtection()
}

const cr4Features: readonly (readonly [number, string])[] = [
  [cr4.VME | cr4.PVI, 'vme'], [cr4.TSD, 'tsc'], [cr4.DE, 'de'], [cr4.PSE, 'pse'], [cr4.PAE, 'pae'], [cr4.MCE, 'mce'], [cr4.PGE,
    'pge'], [cr4.OSFXSR, 'fxsr'], [cr4.OSXMMEXCPT, 'sse'], [cr4.UMIP, 'umip'],
  [cr4.LA57, 'la57'], [cr4.VMXE, 'vmx'], [cr4.SMXE, 'smx'], [cr4.FSGSBASE, 'fsgsbase'], [cr4.PCIDE, 'pcid'], [cr4.OSXSAVE,
    'xsave'], [cr4.SMEP, 'smep'], [cr4.SMAP, 'smap'], [cr4.PKE, 'pku'],
  [cr4.CET, 'shstk'], [cr4.CET, 'ibt'], [cr4.PKS, 'pks'],
]

/** Bits of CR4 that the model has. */
export function cr4Writable(model: CpuModel): bigint {
  let known = writableOf.get(model)
  if (known === undefined) writableOf.set(model, (known = findCr4Writable(model)))
  return known
}
const writableOf = new WeakMap<CpuModel, bigint>()

function findCr4Writable(model: CpuModel): bigint {
  let bits = cr4.PCE as number
  for (const [bit, feature] of cr4Features) if (model.has(feature)) bits |= bit
  return big(bits)
}

export function checkCr4({ model, state }: Processor, value: bigint): void {
  if (value & ~cr4Writable(model)) throw generalProtection()
  if (~Number(value & 0xffffffffn) & state.fixedCr4) throw generalProtection()
  const changed = state.cr4 ^ value
  if (state.efer & LMA && (!(value & big(cr4.PAE)) || changed & big(cr4.LA57))) throw generalProtection()
  if (changed & value & big(cr4.PCIDE) && (!(state.efer & LMA) || state.cr3 & 0xfffn)) throw generalProtection()
  if (changed & value & big(cr4.CET) && !(state.cr0 & big(cr0.WP))) throw generalProtection()
}

export function writeCr4(cpu: Processor, value: bigint): void {
  const { state } = cpu
  checkCr4(cpu, value)
  const changed = state.cr4 ^ value
  if (changed) change(cpu, { cr0: state.cr0, cr4: value, efer: state.efer }, (changed & cr4LoadsPdptes) !== 0n)
}

const keepTranslations = 1n << 63n

const keeps = (state: CpuState, value: bigint): boolean => (state.cr4 & big(cr4.PCIDE)) !== 0n && (value & keepTranslations) !== 0n
const withoutKeep = (state: CpuState, value: bigint): bigint => (keeps(state, value) ? value & ~keepTranslations : value)

export function checkCr3({ model, state }: Processor, value: bigint): void {
  if (state.efer & LMA && withoutKeep(state, value) >> BigInt(model.physicalBits)) throw generalProtection()
}

export function writeCr3(cpu: Processor, value: bigint): void {
  const { state } = cpu
  checkCr3(cpu, value)
  const keep = keeps(state, value)
  const next = withoutKeep(state, value)
  const old = state.cr3
  state.cr3 = next
  try {
    cpu.translation.cr3Written(keep)
  } catch (fault) {
    state.cr3 = old
    throw fault
  }
  cpu.stateChanged()
}

export function writeCr8(cpu: Processor, value: bigint): void {
  if (value > 15n) throw generalProtection()
  if (!cpu.guest?.writeTpr(Number(value))) cpu.apic.setTpr(Number(value))
}

/** LMSW sets PE, MP, EM, TS, and cannot clear PE. */
export function loadMachineStatusWord(cpu: Processor, value: number): void {
  const kept = cpu.state.cr0 & ~0xen
  const next = kept | BigInt(value & 0xf)
  writeCr0(cpu, cpu.guest?.writeControl?.(0, next) ?? next)
}

export function writeXcr(cpu: Processor, index: number, value: bigint): void {
  if (index !== 0 || !(value & component.x87) || value & ~supportedXcr0(cpu.model)) throw generalProtection()
  if (value & component.avx && !(value & component.sse)) throw generalProtection()
  cpu.state.xcr0 = value
  deriveFpu(cpu.state)
}

const dr7 = { GD: 1n << 13n } as const
const dr6Fixed = 0xffff0ff0n
const dr6Writable = 0xe00fn
const dr7Writable = 0xffff_23ffn
const dr6BD = 1n << 13n

/** Numbers 4 and 5 are 6 and 7 unless CR4.DE. DR7.GD makes every access a #DB with DR6.BD. */
export function debugRegister(cpu: Processor, index: number): number {
  if (index > 7) throw invalidOpcode()
  if (index === 4 || index === 5) {
    if (cpu.state.cr4 & big(cr4.DE)) throw invalidOpcode()
    index += 2
  }
  if (cpu.state.dr[7] & dr7.GD) throw new Fault(vector.DB, undefined, dr6BD)
  return index
}

export function writeDebugRegister(cpu: Processor, index: number, value: bigint): void {
  const { dr } = cpu.state
  if (index < 4) dr[index] = value
  else if (value >> 32n) throw generalProtection()
  else if (index === 6) dr[6] = (value & dr6Writable) | dr6Fixed
  else dr[7] = (value & dr7Writable) | 0x400n
}
