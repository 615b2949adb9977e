/** Exit codes into exits. AMD APM vol. 2, "Intercept Operation", "IOIO Intercepts", "Nested Page Faults". */
import { exitCode, exitName, instructionIntercepts } from '../../virt/svm/exit-codes.ts'
import { eventInfo } from '../../virt/svm/vmcb.ts'
import type { AnyExit, RawExit } from '../exits.ts'
import { instructionAt } from '../guest-walk.ts'
import { hypercall } from '../intel/exit.ts'
import { codeSizeOf } from '../memory-operand.ts'
import { register } from '../port.ts'
import type { PendingEvent, Vcpu } from '../vcpu.ts'
import type { Vmcb } from './vmcb.ts'

const low32 = 0xffffffffn
const number = (value: bigint): number => Number(value & low32)
const eventTypes = ['interrupt', 'interrupt', 'nmi', 'exception', 'software', 'interrupt', 'interrupt', 'interrupt'] as const
/** EXITINFO1 of an access to a control register: the instruction is MOV. */
const isMov = 1n << 63n
const isShift = { string: 4, read: 1 } as const

/** EXITCODE and what belongs to it, as the exit that handlers see. */
export function readExit(vcpu: Vcpu, vmcb: Vmcb): AnyExit {
  const code = Number(BigInt.asIntN(64, vmcb.read('exitCode')))
  const raw: RawExit = { name: exitName(code), code, info1: vmcb.read('exitInfo1'), info2: vmcb.read('exitInfo2') }
  noteInterrupted(vcpu, vmcb)
  if (code >= exitCode.exception0 && code < exitCode.exception0 + 32) return exception(vcpu, code - exitCode.exception0, raw)
  if (code < 0x20) return controlRegister(vcpu, raw)
  if (code < 0x40) return { kind: 'debug', raw }
  const reader = readers[code]
  return reader ? reader(vcpu, raw) : { kind: 'other', name: raw.name, raw }
}

/** Of INT3 and INTO. */
const trapVectors: readonly number[] = [3, 4]

/**
 * The event whose delivery the exit interrupted is delivered anew. RIP is still that of INT n, INT3 and INTO: they are executed again. APM
 * vol. 2, "Intercepts during IDT interrupt delivery".
 */
function noteInterrupted(vcpu: Vcpu, vmcb: Vmcb): void {
  const information = vmcb.get('exitInterrupt')
  if (!(information & eventInfo.valid)) return
  const type = eventTypes[(information >> eventInfo.typeShift) & eventInfo.typeMask]
  const vector = information & eventInfo.vectorMask
  if (type === 'software' || (type === 'exception' && trapVectors.includes(vector))) return
  const event: { -readonly [Key in keyof PendingEvent]: PendingEvent[Key] } = { type, vector }
  if (information & eventInfo.hasError) event.error = vmcb.get('exitInterruptError')
  vcpu.event = event
}

function exception(vcpu: Vcpu, vector: number, raw: RawExit): AnyExit {
  if (vector === 7 && vcpu.fpuTrapped) return { kind: 'fpu', raw }
  if (vector === 14 && vcpu.shadow) return { kind: 'pageFault', address: raw.info2, error: number(raw.info1), raw }
  const hasError = [8, 10, 11, 12, 13, 14, 17, 21].includes(vector)
  return { kind: 'exception', vector, error: hasError ? number(raw.info1) : undefined, address: vector === 14 ? raw.info2 : undefined, raw }
}

/** With decode assists, bit 63 of EXITINFO1 says MOV, and bits 3:0 the general register. */
function controlRegister(vcpu: Vcpu, raw: RawExit): AnyExit {
  const which = raw.code & 15
  const write = (raw.code & 0x10) !== 0
  if (vcpu.fpuTrapped && which === 0) return { kind: 'fpu', raw }
  if (!(raw.info1 & isMov)) return withoutMov(vcpu, raw)
  const general = Number(raw.info1 & 15n)
  const value = write ? vcpu.general(general) : vcpu.get(which === 0 ? 'cr0' : which === 3 ? 'cr3' : 'cr4')
  if (write && (which === 0 || which === 4)) return { kind: 'controlWrite', register: which, value, raw }
  return { kind: 'control', register: which, write, value, general, raw }
}

/** CLTS, LMSW, and SMSW to a register: the processor does not say which. APM vol. 3, "CLTS", "LMSW", "SMSW". */
function withoutMov(vcpu: Vcpu, raw: RawExit): AnyExit {
  const bytes = instructionAt(vcpu)
  const at = bytes.findIndex((byte, i) => byte === 0x0f && (bytes[i + 1] === 1 || bytes[i + 1] === 6))
  const [, opcode, modRm] = bytes.subarray(at)
  const rex = at > 0 && (bytes[at - 1] & 0xf0) === 0x40 && codeSizeOf(vcpu) === 64 ? bytes[at - 1] : 0
  const general = (modRm & 7) | (rex & 1 ? 8 : 0)
  const seen = vcpu.seenControl(0)
  if (at >= 0 && opcode === 6) return { kind: 'controlWrite', register: 0, value: seen & ~8n, raw }
  if (at >= 0 && (modRm & 0xf8) === 0xf0)
    return { kind: 'controlWrite', register: 0, value: (seen & ~0xen) | (vcpu.general(general) & 15n), raw }
  if (at >= 0 && (modRm & 0xf8) === 0xe0) return { kind: 'control', register: 0, write: false, value: seen, general, raw }
  return { kind: 'other', name: raw.name, raw }
}

function io(vcpu: Vcpu, raw: RawExit): AnyExit {
  const information = number(raw.info1)
  const port = information >>> 16
  const size = (information >> 4) & 7
  if (information & isShift.string) return { kind: 'stringIo', port, size, read: (information & isShift.read) !== 0, raw }
  if (information & isShift.read) return { kind: 'portRead', port, size, raw }
  return { kind: 'portWrite', port, size, value: Number(BigInt.asUintN(size * 8, vcpu.registers[register.rax])), raw }
}

/** EXITINFO1 is a page fault's error code: present, write, and instruction fetch in bit 4. */
function nestedFault(_vcpu: Vcpu, raw: RawExit): AnyExit {
  const error = number(raw.info1)
  const access = error & 0x10 ? 'execute' : error & 2 ? 'write' : 'read'
  return { kind: 'memory', address: Number(raw.info2), access, present: (error & 1) !== 0, raw }
}

function msr(vcpu: Vcpu, raw: RawExit): AnyExit {
  const index = number(vcpu.registers[register.rcx])
  const value = ((vcpu.registers[register.rdx] & low32) << 32n) | (vcpu.registers[register.rax] & low32)
  return raw.info1 === 0n ? { kind: 'msrRead', index, raw } : { kind: 'msrWrite', index, value, raw }
}

type Reader = (vcpu: Vcpu, raw: RawExit) => AnyExit
const codeOf = (name: 'cpuid' | 'hlt' | 'vmmcall' | 'pause' | 'invlpg' | 'invpcid' | 'xsetbv'): number => instructionIntercepts[name]!.code

const readers: Readonly<Partial<Record<number, Reader>>> = {
  [exitCode.intr]: (_vcpu, raw) => ({ kind: 'interrupt', raw }),
  [exitCode.nmi]: (_vcpu, raw) => ({ kind: 'interrupt', raw }),
  [exitCode.vintr]: (_vcpu, raw) => ({ kind: 'window', raw }),
  [exitCode.shutdown]: (_vcpu, raw) => ({ kind: 'shutdown', raw }),
  [exitCode.ioio]: io,
  [exitCode.msr]: msr,
  [exitCode.npf]: nestedFault,
  [codeOf('cpuid')]: (vcpu, raw) =>
    ({ kind: 'cpuid', leaf: number(vcpu.registers[register.rax]), subleaf: number(vcpu.registers[register.rcx]), raw }),
  [codeOf('hlt')]: (_vcpu, raw) => ({ kind: 'halt', raw }),
  [codeOf('vmmcall')]: (vcpu, raw) => ({ kind: 'hypercall', ...hypercall(vcpu), raw }),
  [codeOf('pause')]: (_vcpu, raw) => ({ kind: 'pause', raw }),
  [codeOf('invlpg')]: (_vcpu, raw) => ({ kind: 'invalidate', address: raw.info1, raw }),
  [codeOf('invpcid')]: (_vcpu, raw) => ({ kind: 'invpcid', raw }),
  [codeOf('xsetbv')]: (vcpu, raw) => ({ kind: 'xsetbv', index: number(vcpu.registers[register.rcx]),
    value: ((vcpu.registers[register.rdx] & low32) << 32n) | (vcpu.registers[register.rax] & low32), raw }),
}
