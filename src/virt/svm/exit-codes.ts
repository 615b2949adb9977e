/** Exit codes and the intercepts that lead to them. AMD APM vol. 2, appendix "SVM Intercept Exit Codes"; "Layout of VMCB". */
import { interceptNumber, interceptWords, type InterceptName } from '../../cpu/intercepts.ts'

export const exitCode = {
  readCr0: 0x00, writeCr0: 0x10, readDr0: 0x20, writeDr0: 0x30, exception0: 0x40,
  intr: 0x60, nmi: 0x61, smi: 0x62, init: 0x63, vintr: 0x64, selectiveCr0: 0x65, taskSwitch: 0x7d, shutdown: 0x7f,
  ioio: 0x7b, msr: 0x7c, writeTrapEfer: 0x8f, writeTrapCr0: 0x90, idleHlt: 0xa6, npf: 0x400,
  avicIncompleteIpi: 0x401, avicNoAccel: 0x402, invalid: -1,
} as const

/** Bits of the third intercept vector (0CH) that are no instruction's, and HLT's. */
export const intercept3 = { intr: 0, nmi: 1, smi: 2, init: 3, vintr: 4, selectiveCr0: 5, hlt: 24, ioio: 27, msr: 28, taskSwitch: 29,
  ferr: 30, shutdown: 31 } as const

/** Of the fourth (10H). Traps are exits after the write; CR0 to CR15 are bits 16 to 31. */
export const intercept4 = { vmrun: 0, writeTrapEfer: 15, writeTrapCr0: 16 } as const

/** Of the fifth (14H): HLT, but not while a virtual interrupt or NMI waits. */
export const intercept5 = { idleHlt: 6 } as const

interface InstructionIntercept {
  /** Offset of the intercept vector in the VMCB, and the bit. */
  readonly vector: 0x0c | 0x10 | 0x14
  readonly bit: number
  readonly code: number
}
const at = (vector: InstructionIntercept['vector'], bit: number, code: number): InstructionIntercept => ({ vector, bit, code })

/** Instructions with a bit of their own. */
export const instructionIntercepts: Readonly<Partial<Record<InterceptName, InstructionIntercept>>> = {
  sidt: at(0x0c, 6, 0x66), sgdt: at(0x0c, 7, 0x67), sldt: at(0x0c, 8, 0x68), str: at(0x0c, 9, 0x69),
  lidt: at(0x0c, 10, 0x6a), lgdt: at(0x0c, 11, 0x6b), lldt: at(0x0c, 12, 0x6c), ltr: at(0x0c, 13, 0x6d),
  rdtsc: at(0x0c, 14, 0x6e), rdpmc: at(0x0c, 15, 0x6f), pushf: at(0x0c, 16, 0x70), popf: at(0x0c, 17, 0x71), cpuid: at(0x0c, 18, 0x72),
  rsm: at(0x0c, 19, 0x73), iret: at(0x0c, 20, 0x74), intn: at(0x0c, 21, 0x75), invd: at(0x0c, 22, 0x76), pause: at(0x0c, 23, 0x77),
  hlt: at(0x0c, 24, 0x78), invlpg: at(0x0c, 25, 0x79), invlpga: at(0x0c, 26, 0x7a),
  vmrun: at(0x10, 0, 0x80), vmmcall: at(0x10, 1, 0x81), vmload: at(0x10, 2, 0x82), vmsave: at(0x10, 3, 0x83), stgi: at(0x10, 4, 0x84),
  clgi: at(0x10, 5, 0x85), skinit: at(0x10, 6, 0x86), rdtscp: at(0x10, 7, 0x87), icebp: at(0x10, 8, 0x88), wbinvd: at(0x10, 9, 0x89),
  wbnoinvd: at(0x10, 9, 0x89), monitor: at(0x10, 10, 0x8a), mwait: at(0x10, 11, 0x8b), xsetbv: at(0x10, 13, 0x8d),
  rdpru: at(0x10, 14, 0x8e), invpcid: at(0x14, 2, 0xa2),
}

/** MWAIT intercepted only while the monitor is armed. */
export const mwaitArmed = { vector: 0x10, bit: 12, code: 0x8c } as const

/** Fills the CPU's mask from the six intercept vectors of a VMCB. */
export function fillMask(mask: Uint32Array, vectors: ArrayLike<number>): void {
  mask.fill(0)
  const set = (name: InterceptName): void => {
    mask[interceptNumber[name] >>> 5] |= 1 << (interceptNumber[name] & 31)
  }
  for (const [name, { vector, bit }] of Object.entries(instructionIntercepts) as [InterceptName, InstructionIntercept][])
    if (vectors[vector >> 2] & (1 << bit)) set(name)
  const [cr, dr] = [vectors[0], vectors[1]]
  if (cr & 0xffff) set('readCr')
  if (cr & 1) set('smsw')
  if (cr >>> 16 || vectors[3] & (1 << intercept3.selectiveCr0)) {
    set('writeCr')
    set('lmsw')
    set('clts')
  }
  if (dr & 0xffff) set('readDr')
  if (dr >>> 16) set('writeDr')
  if (vectors[3] & (1 << intercept3.msr)) {
    set('rdmsr')
    set('wrmsr')
  }
  const traps = vectors[4] >>> intercept4.writeTrapCr0
  if (traps) set('writeCr')
  if (traps & 1) {
    set('lmsw')
    set('clts')
  }
  if (vectors[4] & (1 << intercept4.writeTrapEfer)) set('wrmsr')
  if (vectors[5] & (1 << intercept5.idleHlt)) set('hlt')
  if (vectors[4] & (1 << mwaitArmed.bit)) set('mwait')
}
if (interceptWords !== 4) throw new Error('fillMask fills four words')

const named: Readonly<Record<number, string>> = { 0x60: 'INTR', 0x61: 'NMI', 0x62: 'SMI', 0x63: 'INIT', 0x64: 'VINTR',
  0x65: 'CR0_SEL_WRITE', 0x7b: 'IOIO', 0x7c: 'MSR', 0x7d: 'TASK_SWITCH', 0x7e: 'FERR_FREEZE', 0x7f: 'SHUTDOWN', 0x8f: 'EFER_WRITE_TRAP',
  0xa6: 'IDLE_HLT', 0x400: 'NPF', 0x401: 'AVIC_INCOMPLETE_IPI', 0x402: 'AVIC_NOACCEL' }

/** The manual's name of an exit code, without VMEXIT_. */
export function exitName(code: number): string {
  if (code === exitCode.invalid) return 'INVALID'
  if (code < 0x40) return `${['CR', 'CR', 'DR', 'DR'][code >> 4]}${code & 15}_${code & 0x10 ? 'WRITE' : 'READ'}`
  if (code < 0x60) return `EXCP${code - 0x40}`
  if (code >= exitCode.writeTrapCr0 && code < exitCode.writeTrapCr0 + 16) return `CR${code - exitCode.writeTrapCr0}_WRITE_TRAP`
  const instruction = Object.entries(instructionIntercepts).find(([, row]) => row.code === code)
  return named[code] ?? instruction?.[0].toUpperCase() ?? `${code.toString(16).toUpperCase()}H`
}
