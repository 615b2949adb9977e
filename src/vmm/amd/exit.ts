/** Exit codes into exits. AMD APM vol. 2, "Intercept Operation", "IOIO Intercepts", "Nested Page Faults". */
import { exitCode, exitName, instructionIntercepts } from '../../virt/svm/exit-codes.ts'
import { eventInfo } from '../../virt/svm/vmcb.ts'
import type { AnyExit, RawExit } from '../exits.ts'
import { hypercall } from '../intel/exit.ts'
import { register } from '../port.ts'
import type { PendingEvent, Vcpu } from '../vcpu.ts'
import type { Vmcb } from './vmcb.ts'

const low32 = 0xffffffffn
const number = (value: bigint): number => Number(value & low32)
const eventTypes = ['interrupt', 'interrupt', 'nmi', 'exception', 'software', 'interrupt', 'interrupt', 'interrupt'] as const
const isShift = { string: 4, read: 1 } as const

export function readExit(vcpu: Vcpu, vmcb: Vmcb): AnyExit {
  const code = Number(BigInt.asIntN(64, vmcb.read('exitCode')))
  const raw: RawExit = { name: exitName(code), code, info1: vmcb.read('exitInfo1'), info2: vmcb.read('exitInfo2') }
  noteInterrupted(vcpu, vmcb)
  if (code >= exitCode.exception0 && code < exitCode.exception0 + 32) return exception(vcpu, code - exitCode.exception0, raw)
  if (code < 0x20) return controlRegister(vcpu, vmcb, raw)
  if (code < 0x40) return { kind: 'debug', raw }
  const reader = readers[code]
  return reader ? reader(vcpu, raw) : { kind: 'other', name: raw.name, raw }
}

/** The event whose delivery the exit interrupted is delivered anew. */
function noteInterrupted(vcpu: Vcpu, vmcb: Vmcb): void {
  const information = vmcb.get('exitInterrupt')
  if (!(information & eventInfo.valid)) return
  const type = eventTypes[(information >> eventInfo.typeShift) & eventInfo.typeMask]
  const event: { -readonly [Key in keyof PendingEvent]: PendingEvent[Key] } = { type, vector: information & eventInfo.vectorMask }
  if (information & eventInfo.hasError) event.error = vmcb.get('exitInterruptError')
  vcpu.event = event
}

function exception(vcpu: Vcpu, vector: number, raw: RawExit): AnyExit {
  if (vector === 7 && vcpu.fpuTrapped) return { kind: 'fpu', raw }
  const hasError = [8, 10, 11, 12, 13, 14, 17, 21].includes(vector)
  return { kind: 'exception', vector, error: hasError ? number(raw.info1) : undefined, address: vector === 14 ? raw.info2 : undefined, raw }
}

/** With decode assists, bit 63 of EXITINFO1 says MOV, and bits 3:0 the general register. */
function controlRegister(vcpu: Vcpu, vmcb: Vmcb, raw: RawExit): AnyExit {
  const which = raw.code & 15
  const write = (raw.code & 0x10) !== 0
  if (vcpu.fpuTrapped && which === 0) return { kind: 'fpu', raw }
  const general = Number(raw.info1 & 15n)
  const value = write ? vcpu.general(general) : vmcb.read(which === 3 ? 'cr3' : 'cr0')
  return { kind: 'control', register: which, write, value, general, raw }
}

function io(vcpu: Vcpu, raw: RawExit): AnyExit {
  const information = number(raw.info1)
  const port = information >>> 16
  const size = (information >> 4) & 7
  if (information & isShift.string) return { kind: 'other', name: `${information & 1 ? 'INS' : 'OUTS'} at port 0x${port.toString(16)}`,
    raw }
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
const codeOf = (name: 'cpuid' | 'hlt' | 'vmmcall' | 'pause' | 'invlpg' | 'xsetbv'): number => instructionIntercepts[name]!.code

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
  [codeOf('xsetbv')]: (vcpu, raw) => ({ kind: 'xsetbv', index: number(vcpu.registers[register.rcx]),
    value: ((vcpu.registers[register.rdx] & low32) << 32n) | (vcpu.registers[register.rax] & low32), raw }),
}
