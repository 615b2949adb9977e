/** Where Bochs is not what the manual says, or the manual leaves it open. AMD APM vol. 2, by section. */
import { exitCode } from '../../src/virt/svm/exit-codes.ts'
import { eventInfo, eventType, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import type { Difference } from './compare.ts'

export interface Explanation {
  readonly why: string
  readonly applies: (each: Difference) => boolean
}

const is = (code: number | undefined, ...codes: readonly number[]): boolean => code !== undefined && codes.includes(code)
const same = ({ codes }: Difference): boolean => codes[0] === codes[1]
const isException = (code: number | undefined): boolean => code !== undefined && code >= exitCode.exception0 &&
  code < exitCode.exception0 + 32
/** What stands in a field, ours. */
const info = (value: bigint | undefined): number => Number(value ?? 0n)
const field = ({ of }: Difference, name: VmcbFieldName): bigint => of.fields[name] ?? 0n
/** Refused by one of both. */
const onlyHere = ({ codes }: Difference): boolean => is(codes[0], exitCode.invalid) && codes[1] !== exitCode.invalid
const onlyThere = ({ codes }: Difference): boolean => is(codes[1], exitCode.invalid) && codes[0] !== exitCode.invalid
const isReal = (each: Difference): boolean => (field(each, 'cr0') & 1n) === 0n
const injects = ({ of }: Difference): number => info(of.fields.eventInjection)
const injected = (each: Difference, type: number): boolean =>
  (injects(each) & eventInfo.valid) !== 0 && ((injects(each) >>> eventInfo.typeShift) & eventInfo.typeMask) === type
const onlyBit = (each: Difference, bit: bigint): boolean => (each.ours ?? 0n) !== (each.theirs ?? 0n) &&
  ((each.ours ?? 0n) ^ (each.theirs ?? 0n)) === bit
const invlpga = 0x7a

const segmentChanged = ({ of }: Difference): boolean => Object.keys(of.changed).some(name => /Attributes$|Selector$/.test(name))
/** System or absent segments, a stack that is not writable data, code that is none: no descriptor could have brought them there. */
const malformed = ({ of }: Difference): boolean => Object.entries(of.changed).some(([name, value]) => name.endsWith('Attributes') &&
  ((value & 0x90n) !== 0x90n || (name === 'ssAttributes' && (value & 0xan) !== 2n) || (name === 'csAttributes' && !(value & 8n))))
export const explanations: readonly Explanation[] = [
  { why: 'SS.DPL is not looked at, CPL decides ("Segment State in the VMCB"): it is saved as it was; Bochs 2.7 saves CPL',
    applies: each => each.what === 'ssAttributes' && (((each.ours ?? 0n) ^ (each.theirs ?? 0n)) & ~0x60n) === 0n },
  { why: 'what instructions do with a segment that could not have been loaded is left to the model', applies: malformed },
  { why: 'attributes that no descriptor has, or of a segment that is not there, are what the model makes of them',
    applies: each => /^(es|cs|ss|ds|fs|gs|tr|ldtr)(Attributes|Limit|Base)$/.test(each.what) && same(each) &&
      (segmentChanged(each) || each.what.startsWith('ldtr')) },
  { why: 'bases of the tables are made canonical, bits above 48 alike',
    applies: each => /^[gi]dtrBase$/.test(each.what) && BigInt.asUintN(48, (each.ours ?? 0n) ^ (each.theirs ?? 0n)) === 0n },
  { why: 'outside of 64-bit mode the upper half of RSP means nothing',
    applies: each => (each.of.mode !== 'long64' && each.of.mode !== 'user64' || 'csAttributes' in each.of.changed) &&
      'rsp' in each.of.changed },
  { why: 'with TLB_CONTROL = 0 the translations of the case before are still there ("TLB Control"); Bochs 2.7 has dropped them',
    applies: each => field(each, 'tlbControl') === 0n && /^(pml4|pdpt|directory|legacy|nested)/.test(each.what) },
  { why: 'DR4 and DR5 with CR4.DE above CPL 0: the manual does not order #UD and #GP',
    applies: each => each.of.name.includes('with DE') && is(each.codes[0], exitCode.exception0 + 13) },
  { why: 'an intercepted exception has not ended the interrupt shadow ("Interrupt Shadows"); Bochs 2.7 ends it',
    applies: each => each.what === 'interruptState' && isException(each.codes[0]) && each.ours === 1n },
  { why: 'in real mode the vector is read before anything is pushed (vol. 3, "INT (Interrupt to Vector)"); Bochs 2.7 pushes first',
    applies: each => isReal(each) && is(each.codes[0], exitCode.npf) && same(each) },
  { why: 'EXT: the source is outside of the processor ("Selector-Error Code"), as Linux expects of silicon; Bochs 2.7 has it as on Intel',
    applies: each => (each.what === 'exitInfo1' || each.what.startsWith('stack')) && onlyBit(each, 1n) &&
      ((each.theirs ?? 0n) & 1n) === 1n && !injected(each, eventType.interrupt) && !injected(each, eventType.nmi) },
  { why: 'Bochs 2.7 came to its end', applies: each => each.what === 'exit' && each.theirs === -1n },
  { why: 'no debug trap of a guest reaches the host ("#VMEXIT"); one of Bochs 2.7 does', applies: each => each.what === 'exit' &&
    each.theirs === 1n },
  { why: 'of VMEXIT_INVALID only EXITCODE is promised ("Canonicalization and Consistency Checks"); Bochs 2.7 saves what it has loaded',
    applies: each => same(each) && is(each.codes[0], exitCode.invalid) },
  { why: 'MBZ bits of CR3 make a VMCB invalid ("Canonicalization and Consistency Checks"); Bochs 2.7 does not look at them',
    applies: each => onlyHere(each) && info(field(each, 'cr3') >> 32n) !== 0 },
  { why: 'TLB_CONTROL has the values 0, 1, 3 and 7 ("TLB Control"); Bochs 2.7 flushes whatever it says',
    applies: each => onlyHere(each) && ![0n, 1n, 3n, 7n].includes(field(each, 'tlbControl')) },
  { why: 'CS.L and CS.D exclude each other in long mode only ("Canonicalization and Consistency Checks"); Bochs 2.7 looks always',
    applies: each => onlyThere(each) && (field(each, 'csAttributes') & 0x600n) === 0x600n },
  { why: 'VMRUN loads CR2; Bochs 2.7 does not', applies: each => ['cr2', 'registers+90'].includes(each.what) && 'cr2' in each.of.changed },
  { why: 'upper halves of SFMASK and SYSENTER_CS are what the model makes of them',
    applies: each => ['sfmask', 'sysenterCs'].includes(each.what) && ((each.ours ?? 0n) & 0xffffffffn) === (each.theirs ?? 0n) },
  { why: 'nRIP is that of intercepted instructions, INT3, INTO and BOUND, and else 0 ("State Saved on Exit"); Bochs 2.7 saves it always',
    applies: each => each.what === 'nextRip' && same(each) && each.ours === 0n },
  { why: 'the saved DR6 and DR7 are those that a handler of #DB would see ("#DB (Debug)"); Bochs 2.7 exits before it changes them',
    applies: each => ['dr6', 'dr7', 'registers+80'].includes(each.what) && same(each) && is(each.codes[0], exitCode.exception0 + 1) },
  { why: 'of CS in real mode D, L and R are observed ("Segment State in the VMCB"): the type is saved as it was; Bochs 2.7 makes it data',
    applies: each => each.what === 'csAttributes' && isReal(each) },
  { why: 'an event being delivered stands in EXITINTINFO, INT n as type 4 ("Exit Interrupt Information"); Bochs 2.7 knows exceptions only',
    applies: each => each.what === 'exitInterrupt' && same(each) &&
      ((info(each.ours) >>> eventInfo.typeShift) & eventInfo.typeMask) !== eventType.exception },
  { why: 'the error code means nothing where EXITINTINFO.EV is 0',
    applies: each => each.what === 'exitInterruptError' && each.ours === 0n },
  { why: 'RF is set in what a fault pushes, not before an intercept ("#VMEXIT"); Bochs 2.7 sets it in RFLAGS while it delivers',
    applies: each => each.what === 'rflags' && same(each) && (isException(each.codes[0]) ||
      is(each.codes[0], exitCode.npf, exitCode.taskSwitch)) && onlyBit(each, 0x10000n) },
  { why: 'an injected fault is delivered as the guest\'s own, and so pushes RF = 1 ("Event Injection"); Bochs 2.7 does not',
    applies: each => injected(each, eventType.exception) && (onlyBit(each, 0x10000n) || onlyBit(each, 0x1000000000000n)) },
  { why: 'an intercepted #DF comes up while an exception is delivered ("Exit Interrupt Information"); Bochs 2.7 follows VT-x',
    applies: each => ['exitInterrupt', 'exitInterruptError'].includes(each.what) && same(each) &&
      is(each.codes[0], exitCode.exception0 + 8) },
  { why: 'what a null selector leaves in base and limit is the model\'s',
    applies: each => /^(es|ds|fs|gs)(Base|Limit|Attributes)$/.test(each.what) && same(each) && /iret to user|8086/.test(each.of.name) },
  { why: 'what segments hold that a failing task switch has not loaded yet is left to the model',
    applies: each => /^[cdefgs]s(Base|Limit|Attributes)$/.test(each.what) && same(each) && is(each.codes[0], exitCode.exception0 + 10) },
  { why: 'a virtual interrupt that is admitted at VMRUN comes before the first instruction; Bochs 2.7 waits for a change of IF',
    applies: each => (info(each.of.fields.virtualInterrupt) & 0x100) !== 0 &&
      ((info(each.of.fields.rflags) & 0x200) !== 0 || each.step > 0) },
  { why: 'an intercepted NMI or interrupt leaves at once, whatever shadow there is: so KVM has it; the manual says nothing',
    applies: each => is(each.codes[0], exitCode.nmi, exitCode.intr) && each.of.name.includes('in a shadow') },
  { why: 'RSM outside of SMM: the intercept comes before #UD, as kvm-unit-tests\' rsm has it on silicon', applies: each =>
    is(each.codes[0], 0x73) },
  { why: 'the selective intercept of CR0 takes every LMSW that changes it, as kvm-unit-tests has it on silicon',
    applies: each => each.of.name.includes('selective lmsw') && is(each.codes[0], exitCode.selectiveCr0) },
  { why: 'SYSENTER is undefined in long mode (vol. 3, "SYSENTER"); Bochs 2.7 executes it', applies: each =>
    each.of.name.includes('sysenter') },
  { why: 'injected #BP and #OF push nRIP where there is nRIP ("Event Injection"); Bochs 2.7 pushes RIP',
    applies: each => each.what.startsWith('stack+') && (injected(each, eventType.software)
      || (injected(each, eventType.exception) && [3, 4].includes(injects(each) & 0xff))) },
  { why: 'RF is not set in what #DF pushes, an abort; Bochs 2.7 has it from the first exception',
    applies: each => each.what.startsWith('stack+') && same(each) && onlyBit(each, 0x10000n) },
  { why: 'MONITOR has an intercept ("Instruction Intercepts"), which Bochs 2.7 does not look at', applies: each =>
    is(each.codes[0], 0x8a) },
  { why: 'real mode has no error codes', applies: each => isReal(each) && each.what === 'exitInfo1' && same(each) &&
    isException(each.codes[0]) },
  { why: 'with V_INTR_MASKING the host\'s IF decides on physical interrupts; Bochs 2.7 asks the guest\'s',
    applies: each => is(each.codes[0], exitCode.intr) && (info(each.of.fields.rflags) & 0x200) === 0 },
  { why: 'bits 11 and 12 of DR7 are 0', applies: each => each.of.name.startsWith('dr') && ['dr7', 'registers+28'].includes(each.what) &&
    onlyBit(each, 0x800n) },
  { why: 'an injected #BP or #OF is a software exception, whose faults have EXT = 0; Bochs 2.7 sets it',
    applies: each => each.what === 'exitInfo1' && injected(each, eventType.exception) && [3, 4].includes(injects(each) & 0xff) &&
      onlyBit(each, 1n) },
  { why: 'TSS descriptors have 16 bytes in all of long mode, and bits 12:8 of the upper half are 0; Bochs 2.7 looks in 64-bit mode only',
    applies: each => each.of.name.startsWith('ltr') && each.of.mode === 'compatibility' },
  { why: 'illegal values for control registers come before the intercept ("Instruction Intercepts"); Bochs 2.7 looks at some of them later',
    applies: each => is(each.codes[0], exitCode.exception0 + 13) &&
      /^(no PE|reserved cr3|no PAE|reserved cr4|NW without CD|above 32|no PG)/.test(each.of.name) },
  { why: 'when accessed bits of the tables on the way are set is left to the model',
    applies: each => /^(pml4|pdpt|directory|table)\+/.test(each.what) && same(each) && is(each.codes[0], exitCode.npf) },
  { why: 'an NMI that comes before the first instruction leaves RIP at it; Bochs 2.7 takes that RIP for its handler\'s too',
    applies: each => each.of.name.startsWith('NMI') && ['rip', 'nextRip'].includes(each.what) },
  { why: 'what a port reads that nothing answers is the board\'s', applies: each => ['rax', 'data+100'].includes(each.what) &&
    /^ins?[bl ]/.test(each.of.name) },
  { why: 'a string instruction whose count is 0 does nothing, and so does not exit', applies: each =>
    each.of.name.startsWith('rep outs none') },
  { why: 'ICEBP raises #DB, and so the intercept of #DB takes it ("#DB (Debug)"); Bochs 2.7 delivers it',
    applies: each => each.of.name.includes('ICEBP') && (is(each.codes[0], exitCode.exception0 + 1) || same(each)) },
  { why: 'a handler whose address is not canonical is #GP before anything is pushed; Bochs 2.7 has pushed by then',
    applies: each => each.of.name.includes('far handler') && /^stack\+/.test(each.what) },
  { why: 'VMCBs have no address of INVLPGA without decode assists', applies: each => is(each.codes[0], invlpga) &&
    each.what === 'exitInfo1' },
]
