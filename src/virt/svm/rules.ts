/**
 * What VMRUN demands of a VMCB, as named rules: the checker and the explanation are this list. AMD APM vol. 2, "VMRUN Instruction",
 * "Canonicalization and Consistency Checks".
 */
import { cr0, cr4, efer } from '../../cpu/bits.ts'
import { isCetControl } from '../../cpu/control-flow.ts'
import { cr4Writable } from '../../cpu/control.ts'
import { vector } from '../../cpu/fault.ts'
import type { CpuModel } from '../../cpu/model.ts'
import { intercept3, intercept4 } from './exit-codes.ts'
import {
  eventInfo, eventType, nestedControl, offsetOf, physicalTableIndex, virtualInterrupt, vmcbFields, type VmcbFieldName,
} from './vmcb.ts'

/** A VMCB to be looked at: unsigned words. */
export interface VmcbView {
  readonly words: Int32Array | Uint32Array
  /** Word index of the VMCB's first byte. */
  readonly start: number
}

/** The host as VMRUN finds it. */
export interface RuleContext {
  readonly model: CpuModel
  /** Bits that EFER has. */
  readonly eferBits: number
  readonly hostCr0: number
  readonly hostPae: boolean
}

export interface Rule {
  /** The rule in words. */
  readonly title: string
  readonly section: string
  /** The first is the one to change. */
  readonly fields: readonly VmcbFieldName[]
  readonly broken: (vmcb: VmcbView, context: RuleContext) => boolean
  /** A value of the first field that would do; words where no field can do it. */
  readonly wants: ((vmcb: VmcbView, context: RuleContext) => bigint) | string
  /** What breaks it in a VMCB that is right: for tests. Absent: it takes more than a VMCB. */
  readonly breaks?: Readonly<Partial<Record<VmcbFieldName, bigint | ((value: bigint) => bigint)>>>
}

const low = (vmcb: VmcbView, name: VmcbFieldName): number => vmcb.words[vmcb.start + (offsetOf[name] >> 2)] >>> 0
const high = (vmcb: VmcbView, name: VmcbFieldName): number => vmcb.words[vmcb.start + (offsetOf[name] >> 2) + 1] >>> 0
const byte = (vmcb: VmcbView, name: VmcbFieldName): number => (low(vmcb, name) >>> ((offsetOf[name] & 3) * 8)) & 0xff

const checks = 'Canonicalization and Consistency Checks'
const rule = (title: string, fields: readonly VmcbFieldName[], wants: Rule['wants'], breaks: Rule['breaks'], broken: Rule['broken'],
  section = checks): Rule => ({ title, fields, wants, broken, section, ...(breaks ? { breaks } : {}) })

/** What a VMCB's field holds. */
export function readField({ words, start }: VmcbView, name: VmcbFieldName): bigint {
  const { offset, size } = vmcbFields[name]
  const first = BigInt(words[start + (offset >> 2)] >>> 0) >> BigInt((offset & 3) * 8)
  if (size === 8) return first | (BigInt(words[start + (offset >> 2) + 1] >>> 0) << 32n)
  return BigInt.asUintN(size * 8, first)
}
const setting = (name: VmcbFieldName, bits: bigint) => (vmcb: VmcbView): bigint => readField(vmcb, name) | bits
const keeping = (name: VmcbFieldName, bits: bigint) => (vmcb: VmcbView): bigint => readField(vmcb, name) & bits
const clearing = (name: VmcbFieldName, bits: bigint) => (vmcb: VmcbView): bigint => readField(vmcb, name) & ~bits
const set = (bits: bigint) => (value: bigint): bigint => value | bits
const clear = (bits: bigint) => (value: bigint): bigint => value & ~bits
/** The upper half is left out, so that what begins there ends below the highest address too. */
const address = (name: VmcbFieldName) => (vmcb: VmcbView, { model }: RuleContext): bigint =>
  readField(vmcb, name) & ((1n << BigInt(model.physicalBits - 1)) - 0x1000n)
const farAway = 1n << 60n
const low32 = 0xffffffffn

const isLong = (v: VmcbView): boolean => (low(v, 'efer') & efer.LME) !== 0 && (low(v, 'cr0') & cr0.PG) !== 0
const beyond = (hi: number, lo: number, model: CpuModel, size: number): boolean =>
  hi * 2 ** 32 + lo + size > 2 ** model.physicalBits
const pageOf = (value: number): number => (value & ~0xfff) >>> 0
const isPatType = (type: number): boolean => type === 0 || type === 1 || (type >= 4 && type <= 7)

function illegalEvent(v: VmcbView): boolean {
  const info = low(v, 'eventInjection')
  if (!(info & eventInfo.valid)) return false
  const type = (info >>> eventInfo.typeShift) & eventInfo.typeMask
  const vector = info & eventInfo.vectorMask
  if (type === eventType.interrupt || type === eventType.nmi || type === eventType.software) return false
  return type !== eventType.exception || vector === 2 || vector > 31
}

/** The manual's example of an event that is impossible in the guest's mode: nothing but BOUND raises it. */
function impossibleEvent(v: VmcbView): boolean {
  const info = low(v, 'eventInjection')
  const isException = ((info >>> eventInfo.typeShift) & eventInfo.typeMask) === eventType.exception
  return (info & eventInfo.valid) !== 0 && isException && (info & eventInfo.vectorMask) === vector.BR && isLong(v) &&
    (low(v, 'csSelector') >>> 16 & 0x200) !== 0
}

function illegalPat(v: VmcbView): boolean {
  for (const word of [low(v, 'gPat'), high(v, 'gPat')])
    for (let shift = 0; shift < 32; shift += 8) if (!isPatType((word >>> shift) & 0xff)) return true
  return false
}

const nested = (v: VmcbView): boolean => (low(v, 'nestedControl') & nestedControl.enable) !== 0
const intercepts3 = (v: VmcbView, bit: number): boolean => (low(v, 'intercepts3') & (1 << bit)) !== 0

const avicOn = (v: VmcbView, { model }: RuleContext): boolean =>
  model.has('avic') && (low(v, 'virtualInterrupt') & virtualInterrupt.avicEnable) !== 0
const x2avicOn = (v: VmcbView, { model }: RuleContext): boolean =>
  model.has('x2avic') && (low(v, 'virtualInterrupt') & virtualInterrupt.x2avicEnable) !== 0
const lastApicIndex = (v: VmcbView, context: RuleContext): number => (x2avicOn(v, context) ? 511 : 255)
const withAvic = set(1n << 31n)
const avicPointer = (name: 'apicBackingPage' | 'apicLogicalTable' | 'apicPhysicalTable', what: string,
  asked: (v: VmcbView, context: RuleContext) => boolean): Rule =>
  rule(`the ${what} of AVIC must lie below the highest physical address`, [name, 'virtualInterrupt'], address(name),
    { [name]: farAway, virtualInterrupt: withAvic },
    (v, context) => asked(v, context) && beyond(high(v, name), pageOf(low(v, name)), context.model, 0),
    'Physical Address Pointer Restrictions')

/** In the manual's order. */
export const rules: readonly Rule[] = [
  rule('EFER.SVME must be 1', ['efer'], setting('efer', 0x1000n), { efer: clear(0x1000n) }, v => !(low(v, 'efer') & efer.SVME)),
  rule('CR0.CD = 0 and CR0.NW = 1 cannot be together', ['cr0'], clearing('cr0', 0x20000000n), { cr0: set(0x20000000n) },
    v => !(low(v, 'cr0') & cr0.CD) && (low(v, 'cr0') & cr0.NW) !== 0),
  rule('CR0[63:32] must be 0', ['cr0'], keeping('cr0', low32), { cr0: set(1n << 32n) }, v => high(v, 'cr0') !== 0),
  rule('reserved bits of CR3 must be 0', ['cr3'], (v, { model }) => readField(v, 'cr3') & ((1n << BigInt(model.physicalBits)) - 1n),
    { cr3: set(farAway) }, (v, { model }) => high(v, 'cr3') >= 2 ** (model.physicalBits - 32)),
  rule('reserved bits of CR4 must be 0', ['cr4'], (v, { model }) => readField(v, 'cr4') & BigInt.asUintN(32, cr4Writable(model)),
    { cr4: set(1n << 31n) }, (v, { model }) => high(v, 'cr4') !== 0 || (low(v, 'cr4') & ~Number(cr4Writable(model))) !== 0),
  rule('CR4.CET needs CR0.WP', ['cr0', 'cr4'], setting('cr0', 0x10000n), { cr4: set(1n << 23n) },
    v => (low(v, 'cr4') & cr4.CET) !== 0 && !(low(v, 'cr0') & cr0.WP)),
  rule('reserved bits of S_CET must be 0 with CR4.CET', ['sCet', 'cr4'], keeping('sCet', 3n),
    { cr4: set(1n << 23n), cr0: set(0x10000n), sCet: set(0x40n) },
    v => (low(v, 'cr4') & cr4.CET) !== 0 && !isCetControl(readField(v, 'sCet'), false)),
  rule('DR6[63:32] must be 0', ['dr6'], keeping('dr6', low32), { dr6: set(1n << 32n) }, v => high(v, 'dr6') !== 0),
  rule('DR7[63:32] must be 0', ['dr7'], keeping('dr7', low32), { dr7: set(1n << 63n) }, v => high(v, 'dr7') !== 0),
  rule('reserved bits of EFER must be 0', ['efer'], (v, { eferBits }) => readField(v, 'efer') & BigInt(eferBits), { efer: set(0x200n) },
    (v, { eferBits }) => high(v, 'efer') !== 0 || (low(v, 'efer') & ~eferBits) !== 0),
  rule('EFER.LMA and EFER.LME need a processor with long mode', ['efer'], clearing('efer', 0x500n), undefined,
    (v, { model }) => (low(v, 'efer') & (efer.LME | efer.LMA)) !== 0 && !model.has('lm')),
  rule('EFER.LME and CR0.PG need CR4.PAE', ['cr4', 'efer', 'cr0'], setting('cr4', 0x20n), { cr4: clear(0x20n) },
    v => isLong(v) && !(low(v, 'cr4') & cr4.PAE)),
  rule('EFER.LME and CR0.PG need CR0.PE', ['cr0', 'efer'], setting('cr0', 1n), { cr0: clear(1n) },
    v => isLong(v) && !(low(v, 'cr0') & cr0.PE)),
  rule('in long mode CS.L and CS.D cannot both be 1', ['csAttributes', 'efer', 'cr0', 'cr4'], clearing('csAttributes', 0x400n),
    { csAttributes: set(0x600n) }, v => isLong(v) && (low(v, 'cr4') & cr4.PAE) !== 0 && (low(v, 'csSelector') >>> 16 & 0x600) === 0x600),
  rule('the VMRUN intercept must be set', ['intercepts4'], setting('intercepts4', 1n), { intercepts4: clear(1n) },
    v => !(low(v, 'intercepts4') & (1 << intercept4.vmrun))),
  rule('the I/O permission map must lie below the highest physical address', ['iopmBase'], address('iopmBase'), { iopmBase: farAway },
    (v, { model }) => beyond(high(v, 'iopmBase'), pageOf(low(v, 'iopmBase')), model, 8193)),
  rule('the MSR permission map must lie below the highest physical address', ['msrpmBase'], address('msrpmBase'), { msrpmBase: farAway },
    (v, { model }) => beyond(high(v, 'msrpmBase'), pageOf(low(v, 'msrpmBase')), model, 8193)),
  rule('EVENTINJ must be an event that exists: types 1, 5, 6, 7 are reserved, exceptions have vectors 0 to 31 but 2', ['eventInjection'],
    clearing('eventInjection', 0x700n), { eventInjection: 0x80000302n }, illegalEvent, 'Event Injection'),
  rule('EVENTINJ must be possible in the guest\'s mode: 64-bit code has no #BR', ['eventInjection', 'csAttributes', 'efer', 'cr0'],
    clearing('eventInjection', 0x80000000n), { eventInjection: 0x80000305n }, impossibleEvent, 'Event Injection'),
  rule('the ASID must not be 0: it is the host\'s', ['asid'], () => 1n, { asid: 0n }, v => low(v, 'asid') === 0),
  rule('nested paging needs a host with paging', ['nestedControl'], 'VMRUN with CR0.PG = 1', undefined,
    (v, { hostCr0 }) => nested(v) && !(hostCr0 & cr0.PG), 'Nested Paging'),
  rule('reserved bits of nCR3 must be 0', ['nestedCr3', 'nestedControl'], address('nestedCr3'),
    { nestedCr3: farAway, nestedControl: set(1n) },
    (v, { model }) => nested(v) && beyond(high(v, 'nestedCr3'), pageOf(low(v, 'nestedCr3')), model, 0), 'Nested Paging'),
  rule('every field of G_PAT must be a memory type', ['gPat', 'nestedControl'], () => 0x0007040600070406n,
    { gPat: 0x0207040600070406n, nestedControl: set(1n) }, v => nested(v) && illegalPat(v), 'Nested Paging'),
  rule('V_NMI_ENABLE needs the NMI intercept', ['intercepts3', 'virtualInterrupt'], setting('intercepts3', 2n),
    { virtualInterrupt: set(1n << 26n), intercepts3: clear(2n) }, v =>
      (low(v, 'virtualInterrupt') & virtualInterrupt.nmiEnable) !== 0 && !intercepts3(v, intercept3.nmi), 'NMI Virtualization'),
  rule('x2AVIC needs AVIC', ['virtualInterrupt'], setting('virtualInterrupt', 1n << 31n), { virtualInterrupt: set(1n << 30n) },
    (v, context) => x2avicOn(v, context) && !avicOn(v, context), 'VMCB Virtual Interrupt Control Word'),
  // the manual demands it, and does not say what becomes of a VMRUN without
  rule('AVIC needs nested paging', ['nestedControl', 'virtualInterrupt'], setting('nestedControl', 1n),
    { nestedControl: clear(1n), virtualInterrupt: withAvic }, (v, context) => avicOn(v, context) && !nested(v),
    'VMCB Virtual Interrupt Control Word'),
  rule('AVIC_PHYSICAL_MAX_INDEX must be at most 255, with x2AVIC 511', ['apicPhysicalTable', 'virtualInterrupt'],
    (v, context) => (readField(v, 'apicPhysicalTable') & ~0xfffn) | BigInt(lastApicIndex(v, context)),
    { apicPhysicalTable: set(0x100n), virtualInterrupt: withAvic },
    (v, context) => avicOn(v, context) && (low(v, 'apicPhysicalTable') & physicalTableIndex) > lastApicIndex(v, context),
    'Physical Address Pointer Restrictions'),
  avicPointer('apicBackingPage', 'backing page', avicOn),
  avicPointer('apicPhysicalTable', 'physical APIC ID table', avicOn),
  avicPointer('apicLogicalTable', 'logical APIC ID table', (v, context) => avicOn(v, context) && !x2avicOn(v, context)),
  rule('TLB_CONTROL must be 0, 1, 3 or 7', ['tlbControl'], () => 0n, { tlbControl: 2n },
    v => ![0, 1, 3, 7].includes(byte(v, 'tlbControl')), 'TLB Control'),
]

/** Words of the VMCB that any rule looks at, by index. */
export const ruleWords: readonly number[] = [...new Set(rules.flatMap(each => each.fields).concat('nestedControl', 'intercepts3')
  .flatMap(name => vmcbFields[name].size === 8 ? [offsetOf[name] >> 2, (offsetOf[name] >> 2) + 1] : [offsetOf[name] >> 2]))]

/** The first rule that a VMCB breaks: what the processor finds. */
export function firstBroken(vmcb: VmcbView, context: RuleContext): Rule | undefined {
  for (const each of rules) if (each.broken(vmcb, context)) return each
  return undefined
}

/** All rules that a VMCB breaks: what people want to know. */
export const allBroken = (vmcb: VmcbView, context: RuleContext): Rule[] => rules.filter(each => each.broken(vmcb, context))
