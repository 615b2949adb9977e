/** Basic exit reasons into exits. Intel SDM vol. 3, "Exit Qualification", "Information for VM Exits Due to Instruction Execution". */
import { reason, reasonName } from '../../virt/vmx/exit-reasons.ts'
import type { AnyExit, RawExit } from '../exits.ts'
import { register } from '../port.ts'
import type { PendingEvent, Vcpu } from '../vcpu.ts'
import type { Vmcs } from './vmcs.ts'

const low32 = 0xffffffffn
const number = (value: bigint): number => Number(value & low32)
/** By type; those of INT n, INT1, INT3 and INTO are executed again. */
const eventTypes = ['interrupt', 'interrupt', 'nmi', 'exception'] as const
const valid = 0x80000000

/** With these, the qualification says more. */
const qualified = new Set<number>([reason.controlRegister, reason.io, reason.eptViolation, reason.movDr, reason.invlpg, reason.taskSwitch,
  reason.exceptionOrNmi, reason.apicAccess, reason.apicWrite, reason.virtualizedEoi])
/** Exits that can come while an event is being delivered. */
const interrupting = new Set<number>([reason.apicAccess, reason.exceptionOrNmi,
  reason.eptViolation, reason.eptMisconfiguration, reason.taskSwitch])

/** The exit reason and what belongs to it, as the exit that handlers see. */
export function readExit(vcpu: Vcpu, vmcs: Vmcs): AnyExit {
  const basic = number(vmcs.read('exitReason')) & 0xffff
  const info1 = qualified.has(basic) ? vmcs.read('exitQualification') : 0n
  const raw: RawExit = { name: reasonName(basic), code: basic, info1, info2: 0n }
  if (interrupting.has(basic)) noteInterrupted(vcpu, vmcs)
  const reader = readers[basic]
  return reader ? reader(vcpu, vmcs, raw) : { kind: 'other', name: raw.name, raw }
}

/**
 * The event is delivered anew, or its instruction is executed again: RIP is still there. SDM vol. 3, "Information for VM
 * Exits During Event Delivery".
 */
function noteInterrupted(vcpu: Vcpu, vmcs: Vmcs): void {
  const information = number(vmcs.read('idtVectoring'))
  if (!(information & valid)) return
  const type = eventTypes[(information >> 8) & 7]
  if (type === undefined) return
  const event: { -readonly [Key in keyof PendingEvent]: PendingEvent[Key] } = { type, vector: information & 0xff }
  if (information & 0x800) event.error = number(vmcs.read('idtVectoringErrorCode'))
  vcpu.event = event
}

type Reader = (vcpu: Vcpu, vmcs: Vmcs, raw: RawExit) => AnyExit

function exception(vcpu: Vcpu, vmcs: Vmcs, raw: RawExit): AnyExit {
  const information = number(vmcs.read('exitInterruption'))
  const vector = information & 0xff
  if (((information >> 8) & 7) === 2) return { kind: 'interrupt', raw }
  if (vector === 7 && vcpu.fpuTrapped) return { kind: 'fpu', raw }
  if (vector !== 14 && vcpu.shadow?.isReal) return { kind: 'realMode', vector, raw }
  const error = information & 0x800 ? number(vmcs.read('exitErrorCode')) : undefined
  if (vector === 14 && vcpu.shadow) return { kind: 'pageFault', address: raw.info1, error: error!, raw }
  return { kind: 'exception', vector, error, address: vector === 14 ? raw.info1 : undefined, raw }
}

/** Acknowledged on exit with a guest whose interrupts are posted: else it waits at the local APIC. */
function external(vcpu: Vcpu, vmcs: Vmcs, raw: RawExit): AnyExit {
  const information = vcpu.apic ? number(vmcs.read('exitInterruption')) : 0
  return information & valid ? { kind: 'interrupt', vector: information & 0xff, raw } : { kind: 'interrupt', raw }
}

/** An access to the APIC that the processor leaves to the hypervisor. SDM vol. 3, "Exit Qualification for APIC-Access VM Exits". */
function apicAccess(vcpu: Vcpu, _vmcs: Vmcs, raw: RawExit): AnyExit {
  const bits = number(raw.info1)
  const type = (bits >> 12) & 15
  const address = (vcpu.apic?.base ?? 0) + (bits & 0xfff)
  return { kind: 'memory', address, access: type === 1 ? 'write' : type === 2 ? 'execute' : 'read', present: true, raw }
}

function io(vcpu: Vcpu, _vmcs: Vmcs, raw: RawExit): AnyExit {
  const qualification = number(raw.info1)
  const size = (qualification & 7) + 1
  const port = qualification >>> 16
  if (qualification & 0x10) return { kind: 'stringIo', port, size, read: (qualification & 8) !== 0, raw }
  if (qualification & 8) return { kind: 'portRead', port, size, raw }
  return { kind: 'portWrite', port, size, value: Number(BigInt.asUintN(size * 8, vcpu.registers[register.rax])), raw }
}

function controlRegister(vcpu: Vcpu, _vmcs: Vmcs, raw: RawExit): AnyExit {
  const qualification = number(raw.info1)
  const which = qualification & 15
  const access = (qualification >> 4) & 3
  const general = vcpu.general((qualification >> 8) & 15)
  if (vcpu.fpuTrapped && which === 0) return { kind: 'fpu', raw }
  if (access === 0 && (which === 0 || which === 4)) return { kind: 'controlWrite', register: which, value: general, raw }
  if (access === 2) return { kind: 'controlWrite', register: 0, value: vcpu.seenControl(0) & ~8n, raw }
  // LMSW loads the low four bits and cannot clear PE
  if (access === 3)
    return { kind: 'controlWrite', register: 0, value: (vcpu.seenControl(0) & ~0xen) | ((raw.info1 >> 16n) & 15n), raw }
  const value = access === 0 ? general : which === 3 ? vcpu.get('cr3') : 0n
  return { kind: 'control', register: which, write: access === 0, value, general: (qualification >> 8) & 15, raw }
}

function violation(_vcpu: Vcpu, vmcs: Vmcs, raw: RawExit): AnyExit {
  const bits = number(raw.info1)
  const access = bits & 2 ? 'write' : bits & 4 ? 'execute' : 'read'
  return { kind: 'memory', address: Number(vmcs.read('guestPhysicalAddress')), access, present: (bits & 0x38) !== 0, raw }
}

const eax = (vcpu: Vcpu): bigint => vcpu.registers[register.rax] & low32
const ecx = (vcpu: Vcpu): number => number(vcpu.registers[register.rcx])
const edxEax = (vcpu: Vcpu): bigint => ((vcpu.registers[register.rdx] & low32) << 32n) | eax(vcpu)

const readers: Readonly<Partial<Record<number, Reader>>> = {
  [reason.exceptionOrNmi]: exception,
  [reason.externalInterrupt]: external,
  [reason.tripleFault]: (_vcpu, _vmcs, raw) => ({ kind: 'shutdown', raw }),
  [reason.interruptWindow]: (_vcpu, _vmcs, raw) => ({ kind: 'window', raw }),
  [reason.cpuid]: (vcpu, _vmcs, raw) => ({ kind: 'cpuid', leaf: number(eax(vcpu)), subleaf: ecx(vcpu), raw }),
  [reason.hlt]: (_vcpu, _vmcs, raw) => ({ kind: 'halt', raw }),
  [reason.invlpg]: (_vcpu, _vmcs, raw) => ({ kind: 'invalidate', address: raw.info1, raw }),
  [reason.invpcid]: (_vcpu, _vmcs, raw) => ({ kind: 'invpcid', raw }),
  [reason.vmcall]: (vcpu, _vmcs, raw) => ({ kind: 'hypercall', ...hypercall(vcpu), raw }),
  [reason.controlRegister]: controlRegister,
  [reason.movDr]: (_vcpu, _vmcs, raw) => ({ kind: 'debug', raw }),
  [reason.io]: io,
  [reason.rdmsr]: (vcpu, _vmcs, raw) => ({ kind: 'msrRead', index: ecx(vcpu), raw }),
  [reason.wrmsr]: (vcpu, _vmcs, raw) => ({ kind: 'msrWrite', index: ecx(vcpu), value: edxEax(vcpu), raw }),
  [reason.pause]: (_vcpu, _vmcs, raw) => ({ kind: 'pause', raw }),
  [reason.eptViolation]: violation,
  [reason.preemptionTimer]: (_vcpu, _vmcs, raw) => ({ kind: 'slice', raw }),
  [reason.apicAccess]: apicAccess,
  [reason.apicWrite]: (_vcpu, _vmcs, raw) => ({ kind: 'apicWrite', offset: number(raw.info1), raw }),
  [reason.virtualizedEoi]: (_vcpu, _vmcs, raw) => ({ kind: 'endOfInterrupt', vector: number(raw.info1) & 0xff, raw }),
  [reason.xsetbv]: (vcpu, _vmcs, raw) => ({ kind: 'xsetbv', index: ecx(vcpu), value: edxEax(vcpu), raw }),
}

/** What a hypercall says, by the convention of exits.ts. */
export function hypercall(vcpu: Vcpu): { number: bigint; arguments: readonly bigint[] } {
  const { rax, rbx, rcx, rdx, rsi } = register
  return { number: vcpu.registers[rax], arguments: [rbx, rcx, rdx, rsi].map(each => vcpu.registers[each]) }
}
