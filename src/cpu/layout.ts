/**
 * The layout of one CPU's state in linear memory: the only description of it, for generated code, TypeScript, snapshots and GDB alike.
 *
 * The state of the CPU that runs lies at `stateBase`; a parked CPU's state is copied out and in at the ends of its quantum, so that
 * generated code has constant addresses, all below 64 KiB (records hold register addresses in 16 bits).
 */

export type FieldType = 'u32' | 'i64' | 'v512' | 'x87'

export interface Field<Type extends FieldType = FieldType> {
  readonly type: Type
  readonly count: number
  /**
   * architectural: what software can see, part of snapshots and of the state hash. derived: recomputed from it. scratch: meaningless
   * between instructions.
   */
  readonly kind: 'architectural' | 'derived' | 'scratch'
  readonly text: string
}

const bytesOf: Record<FieldType, number> = { u32: 4, i64: 8, v512: 64, x87: 16 }

const field = <Type extends FieldType>(type: Type, count: number, kind: Field['kind'],
  text: string): Field<Type> => ({ type, count, kind, text })
const u32 = (text: string, count = 1): Field<'u32'> => field('u32', count, 'architectural', text)
const i64 = (text: string, count = 1): Field<'i64'> => field('i64', count, 'architectural', text)
const derived32 = (text: string, count = 1): Field<'u32'> => field('u32', count, 'derived', text)
const derived64 = (text: string, count = 1): Field<'i64'> => field('i64', count, 'derived', text)
const scratch32 = (text: string, count = 1): Field<'u32'> => field('u32', count, 'scratch', text)
const scratch64 = (text: string, count = 1): Field<'i64'> => field('i64', count, 'scratch', text)

/** Every field, in the order of its address. Segment registers are numbered ES CS SS DS FS GS LDTR TR, as in the ModR/M encoding. */
export const fields = {
  gpr: i64('RAX RCX RDX RBX RSP RBP RSI RDI R8..R15', 16),
  zero: derived64('always 0: the base or index of an operand that has none'),
  codePage: scratch64('RIP of byte 0 of the page of code that runs: RIP = codePage + the offset in the record'),
  rip: i64('RIP, valid whenever generated code does not run'),
  segBase: i64('segment bases', 8),
  flagZero: i64('ZF = (this == 0)'),
  flagSign: i64('SF = sign of this; PF = even parity of its low byte'),
  flagAux: i64('AF = bit 4; OF = bit 63 XOR CF'),
  flagCarry: u32('CF, 0 or 1'),
  eflags: u32('RFLAGS without the six arithmetic flags (those bits are 0); bit 1 is 1'),
  segLimit: u32('segment limits in bytes, granularity applied', 8),
  segSelector: u32('selectors', 8),
  segAttributes: u32('descriptor attributes: bits 0-7 type, S, DPL, P; bits 8-11: 0; bits 12-15 AVL, L, D/B, G; bit 16: unusable', 8),
  gdtrBase: i64('GDTR base'),
  idtrBase: i64('IDTR base'),
  gdtrLimit: u32('GDTR limit'),
  idtrLimit: u32('IDTR limit'),
  cr0: i64('CR0'),
  cr2: i64('CR2'),
  cr3: i64('CR3'),
  cr4: i64('CR4'),
  xcr0: i64('XCR0'),
  efer: i64('IA32_EFER'),
  pdpte: i64('PAE page-directory-pointer entries, loaded by MOV CR3', 4),
  dr: i64('DR0..DR3, unused, unused, DR6, DR7', 8),
  msrStar: i64('IA32_STAR'),
  msrLstar: i64('IA32_LSTAR'),
  msrCstar: i64('IA32_CSTAR'),
  msrFmask: i64('IA32_FMASK'),
  msrKernelGsBase: i64('IA32_KERNEL_GS_BASE'),
  msrSysenterCs: i64('IA32_SYSENTER_CS'),
  msrSysenterEsp: i64('IA32_SYSENTER_ESP'),
  msrSysenterEip: i64('IA32_SYSENTER_EIP'),
  msrTscAux: i64('IA32_TSC_AUX'),
  msrTscAdjust: i64('IA32_TSC_ADJUST'),
  tscOffset: i64('TSC = virtual nanoseconds + this'),
  msrPat: i64('IA32_PAT'),
  msrPkrs: i64('IA32_PKRS'),
  pkru: u32('PKRU'),
  mxcsr: u32('MXCSR'),
  cpl: u32('current privilege level'),
  activity: u32('0 running, 1 HLT, 2 shutdown, 3 wait for SIPI'),
  interruptShadow: u32('blocked by: bit 0 STI, bit 1 MOV SS, bit 2 SMI (in SMM), bit 3 NMI; cleared as the SDM says'),
  pendingNmi: u32('an NMI is latched'),
  pendingSmi: u32('an SMI is latched'),
  smiPort: u32('the port access that the latched SMI came in: port << 16, size << 4, 2, 1 for a read; 0: none'),
  smiRip: i64('RIP of its instruction'),
  smbase: i64('SMBASE'),
  pendingDebug: u32('DR6 bits of a trap that is delivered before the next instruction (single step, data breakpoint)'),
  fpControl: u32('x87 control word'),
  fpStatus: u32('x87 status word without TOP'),
  fpTop: u32('x87 TOP'),
  fpTags: u32('x87 abridged tags: bit i = physical register i is not empty'),
  fpOpcode: u32('x87 last opcode'),
  fpCs: u32('x87 last instruction selector'),
  fpDs: u32('x87 last data selector'),
  fpIp: i64('x87 last instruction pointer'),
  fpDp: i64('x87 last data pointer'),
  fpr: field('x87', 8, 'architectural', 'x87 physical registers R0..R7: 8 bytes of significand (an MMX register), then sign and exponent'),
  vector: field('v512', 32, 'architectural', 'XMM, YMM, ZMM registers'),
  pmcControl: i64('event selects: IA32_PERFEVTSEL0..7, PERF_CTL0..5', 8),
  pmcValue: i64('performance counters as they were at pmcMark: IA32_PMC0..7 or PERF_CTR0..5, from the ninth on IA32_FIXED_CTR0..2', 11),
  pmcFixedControl: i64('IA32_FIXED_CTR_CTRL'),
  pmcGlobalControl: i64('IA32_PERF_GLOBAL_CTRL'),
  pmcStatus: i64('IA32_PERF_GLOBAL_STATUS at pmcMark'),
  pmcMark: i64('instructions retired, and virtual nanoseconds of running, when the counters were last brought up to date', 2),
  pmcLevel: u32('where the processor has been since then: bit 0 above privilege level 0, bit 1 in a guest, bit 2 with EFER.SVME'),
  resumed: i64('string instructions that were left before their end: each has retired once too often for those who count'),
  unhalted: i64('virtual nanoseconds for which this CPU has run, up to its present turn'),
  msrXss: i64('IA32_XSS'),
  ssp: i64('shadow-stack pointer'),
  msrUCet: i64('IA32_U_CET'),
  msrSCet: i64('IA32_S_CET'),
  msrPlSsp: i64('IA32_PL0_SSP..IA32_PL3_SSP', 4),
  msrSspTable: i64('IA32_INTERRUPT_SSP_TABLE_ADDR'),
  msrDebugctl: i64('IA32_DEBUGCTL'),
  lastBranch: i64('AMD: LastBranchFromIP, LastBranchToIP, LastIntFromIP, LastIntToIP; Intel: the last two', 4),
  lastBranches: i64('Intel: sources, targets and INFO of the last branches, 32 each', 96),
  lastBranchTop: i64('Intel: MSR_LASTBRANCH_TOS'),
  lastBranchSelect: i64('Intel: MSR_LBR_SELECT'),
  guestMode: u32('1: a guest runs (SVM guest, VMX non-root operation)'),
  interruptGate: u32('external interrupts are taken 0 as RFLAGS.IF says, 1 whatever it says, 2 not at all (guests, GIF)'),
  interceptMask: u32('instructions that a guest does not execute by itself: bits numbered by src/cpu/intercepts.ts; 0 in a host', 4),
  translationSpace: u32('number of the address space that tags translations; 0 in a host (mmu.ts)'),
  secondStage: u32('1: what the page tables give is translated again (NPT, EPT)'),
  vmxFlags: u32('VT-x: bit 0 VMX operation; bits of what a guest has pending (src/virt/vmx/unit.ts)'),
  fixedCr0: u32('bits of CR0 that VMX operation holds at 1'),
  fixedCr4: u32('bits of CR4 that VMX operation holds at 1'),
  vmxonPointer: i64('physical address of the VMXON region'),
  vmcsPointer: i64('physical address of the current VMCS; all ones: none'),
  eptPointer: i64('EPTP of the guest that runs'),
  hlatPointer: i64('HLATP of the guest that runs, with bit 0 set, and bit 1 when only addresses whose bit 63 is 1 are meant; 0: none'),
  vmxDeadline: i64('virtual time at which the VMX-preemption timer ends; all ones: it does not run'),
  apicAccessPage: i64('physical address of the APIC-access page of the guest that runs, with bit 0 set; 0: none'),
  vmxTrap: i64('an exit that follows the instruction which runs: bit 63 set, reason and qualification in the halves; 0: none'),
  vmxPause: i64('virtual times of the first and the last PAUSE of a loop, for PAUSE-loop exiting', 2),
  vmxInSmm: i64('in SMM: VMX operation as it was (src/virt/vmx/smm.ts)', 11),
  svm: i64('state of AMD-V: src/virt/svm/state.ts has its names', 192),
  vmcbCache: u32('AMD-V with strict_clean_bits: what the processor keeps of the VMCB that it left last (src/virt/svm/clean-bits.ts)', 96),
  doorbell: u32('1: an AVIC doorbell rang, and the guest\'s page has not been looked at since (src/virt/svm/avic.ts)'),
  randomState: i64('state of the generator behind RDRAND and RDSEED'),
  msrMisc: i64('other MSRs that are storage only; numbered by the MSR table', 128),

  mode: derived32('mode of code: see mode.ts'),
  addressMask: derived64('all ones in 64-bit mode, 0xFFFFFFFF otherwise: applied to RIP + code segment base'),
  codeBase: derived64('base of CS as it takes part in fetching: 0 in 64-bit mode'),
  tlbRead: derived32('linear address of the read table of the current translation context'),
  tlbWrite: derived32('linear address of the write table'),
  tlbFetch: derived32('linear address of the fetch table'),
  sseNative: derived32('1 when SSE arithmetic may run natively: all exceptions masked, round to nearest, no DAZ or FTZ, PE already set'),
  fpuTrap: derived32('vector raised by CR0.EM, TS, CR4.OSFXSR, OSXSAVE and XCR0, or 0: bits 0-7 x87, 8-15 SSE, 16-23 MMX, 24-31 AVX'),
  kernelTables: derived32('tlbRead, tlbWrite, tlbFetch of level 0 in this address space; 0 while they or userTables are unknown', 3),
  userTables: derived32('the same of privilege level 3', 3),
  accessTables: derived32('the same of level 0 with RFLAGS.AC set (STAC); 0 while they or kernelTables are unknown', 3),
  systemCalls: derived32('bit 0: SYSCALL and SYSRET may do without a helper (64-bit mode, EFER.SCE); bit 1: SYSRET loads all of SS;'
    + ' bit 2: FCOMI leaves C1 of the x87 status word;'
    + ' bit 3: SYSENTER, SYSEXIT, IRET and segment loads may do without a helper (flat 32-bit code outside of long mode)'),
  vmcsPlace: derived32('linear address of the current VMCS in root operation, when generated code may use it; else 0'),
  interruptPending: derived32('1: the interrupt controller asks for an interrupt, so setting IF must leave generated code'),

  budget: scratch32('virtual nanoseconds that this quantum may still use; below 0 ends it (signed)'),
  quantumBase: scratch64('virtual time at which the budget will be 0: at a border between instructions, time = this - budget'),
  extraTime: scratch32("virtual nanoseconds taken from this run's budget that are no instructions: PAUSE, I/O, blocks of bytes"),
  shadowMark: scratch32('budget, instructions left in the run and extraTime together, at the last STI that was generated code; 0: none'),
  stepping: scratch32('1: accesses to what is not plain RAM are performed, not refused'),
  leaveStatus: scratch32('why a slow access refused: 1 a fault is stored, 2 the instruction needs a step'),
  leaveRecord: scratch32('record at which generated code stopped'),
  resumeRecord: scratch32('record at which the interpreter goes on when a region leaves an instruction to it'),
  faultVector: scratch32('vector of the fault that a Leave reports'),
  faultError: scratch32('its error code'),
  faultHasError: scratch32('1: it has an error code'),
  faultAddress: scratch64('linear address of a page fault'),
  segmentAddress: scratch64('linear address computed by a segment-address record for the operation after it'),
  argument: scratch64('arguments of a helper', 4),
  bounce: field('v512', 16, 'scratch', 'where accesses that are not one piece of RAM are put together'),
} as const satisfies Record<string, Field>

export type FieldName = keyof typeof fields

export const stateBase = 0x8000

let next = stateBase
/** Linear address of a field of the running CPU. Made in one piece: V8 keeps an object that grew so large as a slow dictionary. */
export const at = Object.fromEntries((Object.entries(fields) as [FieldName, Field][]).map(([name, { type, count }]) => {
  const size = bytesOf[type]
  const align = Math.min(size, 64)
  const place = (next + align - 1) & -align
  next = place + size * count
  return [name, place]
})) as Record<FieldName, number>

/** Size of one CPU's state in bytes. */
export const stateSize = ((next + 63) & ~63) - stateBase
if (stateBase + stateSize > 0x10000) throw new Error('CPU state must lie below 64 KiB')

export const fieldBytes = (name: FieldName): number => bytesOf[fields[name].type] * fields[name].count

/** Segment register numbers. */
export const segment = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, ldtr: 6, tr: 7 } as const

/** Linear address of general register `index` of the running CPU. */
export const gprAddress = (index: number): number => at.gpr + index * 8
export const vectorAddress = (index: number): number => at.vector + index * 64
export const segBaseAddress = (index: number): number => at.segBase + index * 8
