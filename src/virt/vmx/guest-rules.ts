/**
 * Checks on the guest-state area. Intel SDM vol. 3, "Checks on the Guest State Area". A broken one is a VM exit with basic reason 33.
 */
import { entryBit as entry, pinBit as pin, secondaryBit as secondary, cr0Fixed0, cr4Fixed0 } from './controls.ts'
import { interruptionType } from './control-rules.ts'
import { globalControlBits } from '../../cpu/pmu-intel.ts'
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'
import { segmentRules } from './guest-segment-rules.ts'
import { cetRules, efer, isPat, reservedDebugctl, reservedEfer } from './register-rules.ts'
import { section, type Rule } from './rule.ts'

const registers = section('Checks on Guest Control Registers, Debug Registers, and MSRs')
const tables = section('Checks on Guest Descriptor-Table Registers')
const flags = section('Checks on Guest RIP, RFLAGS, and SSP')
const other = section('Checks on Guest Non-Register State')
const pointers = section('Checks on Guest Page-Directory-Pointer-Table Entries')

const PG = 1n << 31n
const PE = 1n
const pcide = 1n << 17n
const nonCanonical = 0x8000_0000_0000_0000n
const hasBit = (value: bigint, bit: bigint): boolean => (value & bit) !== 0n
const none = 0xffff_ffff_ffff_ffffn
const canonical = (make: typeof registers, field: FieldName): Rule =>
  make('the address is canonical', field, v => v.canonical(v.b(field)), { wants: () => 0n, breaks: [[field, nonCanonical]] })

const cr0Must = (v: EntryView): bigint => (v.unrestricted ? cr0Fixed0 & ~(PG | PE) : cr0Fixed0)
const loadsDebug = (v: EntryView): boolean => (v.entry & entry.loadDebug) !== 0
const loadsEfer = (v: EntryView): boolean => (v.entry & entry.loadEfer) !== 0

const registerRules: readonly Rule[] = [
  registers('CR0 has the bits that VMX operation fixes to 1 (PE and PG are free with "unrestricted guest")', 'guestCr0',
    v => (v.b('guestCr0') & cr0Must(v)) === cr0Must(v) && v.b('guestCr0') >> 32n === 0n,
    { wants: v => (v.b('guestCr0') | cr0Must(v)) & 0xffffffffn, breaks: [['guestCr0', old => old & ~0x20n]] }),
  registers('CR0.PG = 1 needs CR0.PE = 1', 'guestCr0', v => v.protectedMode,
    { when: v => v.paging, wants: v => v.b('guestCr0') | PE, breaks: [['guestCr0', old => old & ~1n]] }),
  registers('CR4 has the bits that VMX operation fixes to 1 and none that it fixes to 0', 'guestCr4',
    v => (v.b('guestCr4') & cr4Fixed0) === cr4Fixed0 && (v.b('guestCr4') & ~v.cr4Writable) === 0n,
    { wants: v => (v.b('guestCr4') | cr4Fixed0) & v.cr4Writable, breaks: [['guestCr4', old => old & ~0x2000n]] }),
  registers('reserved bits of IA32_DEBUGCTL are 0', 'guestDebugctl', v => (v.b('guestDebugctl') & reservedDebugctl) === 0n,
    { when: loadsDebug, wants: v => v.b('guestDebugctl') & ~reservedDebugctl,
      breaks: [['entryControls', old => old | 4n], ['guestDebugctl', 0x10000n]] }),
  registers('an IA-32e mode guest has paging on', ['guestCr0', 'entryControls'], v => v.paging,
    { when: v => v.guest64, wants: v => v.b('guestCr0') | PG | PE, breaks: [['guestCr0', old => old & ~PG]] }),
  registers('an IA-32e mode guest has CR4.PAE = 1', ['guestCr4', 'entryControls'], v => (v.b('guestCr4') & 0x20n) !== 0n,
    { when: v => v.guest64, wants: v => v.b('guestCr4') | 0x20n, breaks: [['guestCr4', old => old & ~0x20n]] }),
  registers('a guest outside IA-32e mode has CR4.PCIDE = 0', ['guestCr4', 'entryControls'], v => (v.b('guestCr4') & pcide) === 0n,
    { when: v => !v.guest64, wants: v => v.b('guestCr4') & ~pcide }),
  registers('CR3 has no bit beyond the physical-address width', 'guestCr3', v => v.physical(v.b('guestCr3')),
    { wants: v => v.b('guestCr3') & ((1n << BigInt(v.model.physicalBits)) - 1n), breaks: [['guestCr3', old => old | (1n << 62n)]] }),
  registers('bits 63:32 of DR7 are 0', 'guestDr7', v => v.b('guestDr7') >> 32n === 0n,
    { when: loadsDebug, wants: v => v.b('guestDr7') & 0xffffffffn, breaks: [['entryControls', old => old | 4n], ['guestDr7', 1n << 40n]] }),
  canonical(registers, 'guestSysenterEsp'),
  canonical(registers, 'guestSysenterEip'),
  registers('each byte of IA32_PAT is a memory type', 'guestPat', v => isPat(v.b('guestPat')),
    { when: v => (v.entry & entry.loadPat) !== 0, wants: () => 0x0007040600070406n,
      breaks: [['entryControls', old => old | 0x4000n], ['guestPat', 2n]] }),
  registers('reserved bits of IA32_PERF_GLOBAL_CTRL are 0', 'guestPerfGlobalCtrl', v =>
    (v.b('guestPerfGlobalCtrl') & ~globalControlBits(v.model.counters)) === 0n,
    { when: v => (v.entry & entry.loadPerfGlobalCtrl) !== 0, wants: v => v.b('guestPerfGlobalCtrl') & globalControlBits(v.model.counters),
      breaks: [['entryControls', old => old | 0x2000n], ['guestPerfGlobalCtrl', 1n << 63n]] }),
  registers('reserved bits of IA32_EFER are 0', 'guestEfer', v => (v.b('guestEfer') & reservedEfer(v.model)) === 0n,
    { when: loadsEfer, wants: v => v.b('guestEfer') & ~reservedEfer(v.model),
      breaks: [['entryControls', old => old | 0x8000n], ['guestEfer', 0x502n]] }),
  registers('IA32_EFER.LMA is as "IA-32e mode guest", and with paging LME is as LMA', ['guestEfer', 'entryControls', 'guestCr0'],
    v => hasBit(v.b('guestEfer'), efer.LMA) === v.guest64 && (!v.paging || hasBit(v.b('guestEfer'), efer.LME) === v.guest64),
    { when: loadsEfer, wants: v => (v.b('guestEfer') & ~efer.longBits) | (v.guest64 ? efer.longBits : 0n),
      breaks: [['entryControls', old => old | 0x8000n], ['guestEfer', 0n]] }),
  registers('bits 63:32 of IA32_PKRS are 0', 'guestPkrs', v => v.b('guestPkrs') >> 32n === 0n,
    { when: v => (v.entry & entry.loadPkrs) !== 0, wants: v => v.b('guestPkrs') & 0xffffffffn }),
  ...cetRules(registers, { loads: v => (v.entry & entry.loadCet) !== 0, load: ['entryControls', old => old | 0x100000n],
    long: v => v.guest64, control: 'guestSCet', pointer: 'guestSsp',
    table: 'guestSspTable', cr0: 'guestCr0', cr4: 'guestCr4' }),
]

const tableRules: readonly Rule[] = [
  canonical(tables, 'guestGdtrBase'),
  canonical(tables, 'guestIdtrBase'),
  tables('bits 31:16 of the limit are 0', 'guestGdtrLimit', v => v.n('guestGdtrLimit') >>> 16 === 0,
    { wants: v => BigInt(v.n('guestGdtrLimit') & 0xffff), breaks: [['guestGdtrLimit', 0x10000n]] }),
  tables('bits 31:16 of the limit are 0', 'guestIdtrLimit', v => v.n('guestIdtrLimit') >>> 16 === 0,
    { wants: v => BigInt(v.n('guestIdtrLimit') & 0xffff), breaks: [['guestIdtrLimit', 0x10000n]] }),
]

/** Bits 63:22, 15, 5, 3 are 0. */
const reservedRflags = none & ~0x3f7fd7n
const in64BitMode = (v: EntryView): boolean => v.guest64 && (v.n('guestCsAccessRights') & 0x2000) !== 0
const flagRules: readonly Rule[] = [
  flags('outside 64-bit mode bits 63:32 of RIP are 0', ['guestRip', 'entryControls', 'guestCsAccessRights'], v =>
    v.high('guestRip') === 0,
    { when: v => !in64BitMode(v), wants: v => v.b('guestRip') & 0xffffffffn }),
  // Canonical to N + 1 bits: the address after the last canonical one is accepted.
  flags('in 64-bit mode bits 63:N of RIP are equal, for N linear-address bits', ['guestRip', 'entryControls', 'guestCsAccessRights'],
    v => {
      const high = v.high('guestRip') >> (v.model.linearBits - 32)
      return high === 0 || high === -1
    }, { when: in64BitMode, wants: () => 0n, breaks: [['guestRip', nonCanonical]] }),
  flags('reserved bits of RFLAGS (63:22, 15, 5, 3) are 0', 'guestRflags', v => (v.b('guestRflags') & reservedRflags) === 0n,
    { wants: v => v.b('guestRflags') & ~reservedRflags, breaks: [['guestRflags', old => old | 8n]] }),
  flags('bit 1 of RFLAGS is 1', 'guestRflags', v => (v.n('guestRflags') & 2) !== 0,
    { wants: v => v.b('guestRflags') | 2n, breaks: [['guestRflags', old => old & ~2n]] }),
  flags('RFLAGS.VM is 0 in IA-32e mode and when CR0.PE = 0', ['guestRflags', 'entryControls', 'guestCr0'], v => !v.v86,
    { when: v => v.guest64 || !v.protectedMode, wants: v => v.b('guestRflags') & ~0x20000n,
      breaks: [['guestRflags', old => old | 0x20000n]] }),
  flags('RFLAGS.IF is 1 when an external interrupt is injected', ['guestRflags', 'entryInterruption'], v =>
    (v.n('guestRflags') & 0x200) !== 0,
    { when: v => v.injects && v.injectedType === interruptionType.external, wants: v => v.b('guestRflags') | 0x200n,
      breaks: [['entryInterruption', 0x80000030n], ['guestRflags', 2n]] }),
]

const activity = { active: 0, halt: 1, shutdown: 2, waitForSipi: 3 } as const
const sti = 1
const movSs = 2
const smi = 4
const nmi = 8
const interruptibility = (v: EntryView): number => v.n('guestInterruptibility')
const IF = (v: EntryView): boolean => (v.n('guestRflags') & 0x200) !== 0
const TF = (v: EntryView): boolean => (v.n('guestRflags') & 0x100) !== 0
const injectsType = (type: number) => (v: EntryView): boolean => v.injects && v.injectedType === type
/** Events that an inactive processor may take: what would wake it. */
const allowedWhen: Readonly<Record<number, (v: EntryView) => boolean>> = {
  [activity.halt]: v => [0, 2].includes(v.injectedType) || (v.injectedType === 3 && [1, 18].includes(v.injectedVector))
    || v.injectedType === 7,
  [activity.shutdown]: v => v.injectedType === 2 || (v.injectedType === 3 && v.injectedVector === 18),
  [activity.waitForSipi]: () => false,
}

const without = (bits: number) => (v: EntryView): bigint => BigInt((interruptibility(v) & ~bits) >>> 0)
type StateOptions = Pick<Rule, 'when' | 'wants' | 'breaks'> & { fields?: FieldName[] }
const state = (text: string, holds: Rule['holds'], { fields = [], ...options }: StateOptions = {}): Rule =>
  other(text, ['guestInterruptibility', ...fields], holds, options)

const linkIsSet = (v: EntryView): boolean => !v.isAllOnes('vmcsLinkPointer')
const shadowing = (v: EntryView): boolean => (v.secondary & secondary.vmcsShadowing) !== 0

const pendingRtm = (v: EntryView): boolean => (v.n('guestPendingDebug') & 0x10000) !== 0

const nonRegisterRules: readonly Rule[] = [
  other('the activity state is supported (0 to 3)', 'guestActivity', v => v.n('guestActivity') <= 3,
    { wants: () => 0n, breaks: [['guestActivity', 4n]] }),
  other('the activity state HLT needs SS.DPL = 0', ['guestActivity', 'guestSsAccessRights'], v => (v.n('guestSsAccessRights') & 0x60) === 0,
    { when: v => v.n('guestActivity') === activity.halt, wants: () => 0n }),
  other('blocking by STI or by MOV SS needs the active state', ['guestActivity', 'guestInterruptibility'], v =>
    v.n('guestActivity') === activity.active,
    { when: v => (interruptibility(v) & (sti | movSs)) !== 0, wants: () => 0n,
      breaks: [['guestInterruptibility', 2n], ['guestActivity', 1n]] }),
  other('the injected event is one that an inactive processor takes', ['guestActivity', 'entryInterruption'], v =>
    allowedWhen[v.n('guestActivity')](v),
    { when: v => v.injects && v.n('guestActivity') in allowedWhen, wants: () => 0n,
      breaks: [['guestActivity', 3n], ['entryInterruption', 0x80000202n]] }),
  state('reserved bits of the interruptibility state (31:5) are 0, and enclave interruption too', v => interruptibility(v) >>> 4 === 0,
    { wants: without(~15), breaks: [['guestInterruptibility', 0x20n]] }),
  state('blocking by STI and by MOV SS are not both set', v => (interruptibility(v) & (sti | movSs)) !== (sti | movSs),
    { wants: without(sti | movSs), breaks: [['guestRflags', 0x202n], ['guestInterruptibility', 3n]] }),
  state('blocking by STI needs RFLAGS.IF = 1', v => IF(v),
    { when: v => (interruptibility(v) & sti) !== 0, fields: ['guestRflags'], wants: without(sti),
      breaks: [['guestRflags', 2n], ['guestInterruptibility', 1n]] }),
  state('no blocking by STI or MOV SS when an external interrupt is injected', v => (interruptibility(v) & (sti | movSs)) === 0,
    { when: injectsType(0), fields: ['entryInterruption'], wants: without(sti | movSs),
      breaks: [['guestRflags', 0x202n], ['entryInterruption', 0x80000030n], ['guestInterruptibility', 1n]] }),
  { ...state('no blocking by MOV SS when an NMI is injected', v => (interruptibility(v) & movSs) === 0,
    { when: injectsType(2), fields: ['entryInterruption'], wants: without(movSs),
      breaks: [['entryInterruption', 0x80000202n], ['guestInterruptibility', 2n]] }),
  qualification: 3 },
  state('blocking by SMI is 0 outside SMM', v => (interruptibility(v) & smi) === 0,
    { wants: without(smi), breaks: [['guestInterruptibility', 4n]] }),
  { ...state('no blocking by STI when an NMI is injected', v => (interruptibility(v) & sti) === 0,
    { when: injectsType(2), fields: ['entryInterruption'], wants: without(sti) }), qualification: 3 },
  { ...state('with "virtual NMIs" no blocking by NMI when an NMI is injected', v => (interruptibility(v) & nmi) === 0,
    { when: v => injectsType(2)(v) && (v.pin & pin.virtualNmis) !== 0, fields: ['entryInterruption'], wants: without(nmi) }),
      qualification: 3 },
  other('reserved bits of the pending debug exceptions (63:17, 15, 13, 11:4) are 0', 'guestPendingDebug',
    v => (v.b('guestPendingDebug') & ~0x1500fn) === 0n, { wants: v => v.b('guestPendingDebug') & 0x1500fn,
      breaks: [['guestPendingDebug', 0x10n]] }),
  other('with pending RTM (bit 16) bits 11:0 are 0 and bit 12 is 1', 'guestPendingDebug',
    v => (v.n('guestPendingDebug') & 0x1fff) === 0x1000,
    { when: pendingRtm, wants: () => 0x11000n, breaks: [['guestPendingDebug', 0x10000n]] }),
  other('pending RTM (bit 16) needs a processor with RTM', 'guestPendingDebug', v => v.model.has('rtm'),
    { when: pendingRtm, wants: v => v.b('guestPendingDebug') & ~0x10000n, breaks: [['guestPendingDebug', 0x11000n]] }),
  other('with pending RTM (bit 16) there is no blocking by MOV SS', ['guestPendingDebug', 'guestInterruptibility'],
    v => (interruptibility(v) & movSs) === 0, { when: pendingRtm, wants: v => v.b('guestPendingDebug') & ~0x10000n }),
  other('with STI or MOV SS blocking, or in HLT, pending BS is 1 if and only if RFLAGS.TF = 1 and DEBUGCTL.BTF = 0',
    ['guestPendingDebug', 'guestRflags', 'guestInterruptibility', 'guestActivity', 'guestDebugctl'],
    v => ((v.n('guestPendingDebug') & 0x4000) !== 0) === (TF(v) && (v.n('guestDebugctl') & 2) === 0),
    { when: v => (interruptibility(v) & (sti | movSs)) !== 0 || v.n('guestActivity') === activity.halt, wants: v =>
      v.b('guestPendingDebug') ^ 0x4000n,
      breaks: [['guestInterruptibility', 2n], ['guestPendingDebug', 0x4000n]] }),
  { ...other('the VMCS link pointer is a multiple of 4096 and within the physical-address width', 'vmcsLinkPointer', v =>
    v.aligned(v.b('vmcsLinkPointer'), 12),
    { when: linkIsSet, wants: () => none, breaks: [['vmcsLinkPointer', 1n]] }), qualification: 4 },
  { ...other('the linked VMCS has the revision identifier of this processor, and is a shadow VMCS as "VMCS shadowing" says',
    'vmcsLinkPointer', v => v.aligned(v.b('vmcsLinkPointer'), 12)
      && v.readPhysical32(v.b('vmcsLinkPointer')) === ((shadowing(v) ? 0x80000000 : 0) | v.revision),
    { when: linkIsSet, wants: () => none, always: true, breaks: [['vmcsLinkPointer', 0n]] }), qualification: 4 },
  { ...other('the VMCS link pointer is not that of the current VMCS', 'vmcsLinkPointer', v =>
    v.b('vmcsLinkPointer') !== BigInt(v.vmcs.address),
    { when: linkIsSet, wants: () => none }), qualification: 4 },
]

const pdpteFields: readonly FieldName[] = ['guestPdpte0', 'guestPdpte1', 'guestPdpte2', 'guestPdpte3']
const pdpteReserved = 0x1e6n
const pdpteIsGood = (v: EntryView, entry_: bigint): boolean => !(entry_ & 1n) || ((entry_ & pdpteReserved) === 0n && v.physical(entry_))
const readPdpte = (v: EntryView, i: number): bigint => {
  const at = (v.b('guestCr3') & 0xffffffe0n) + BigInt(i * 8)
  return BigInt(v.readPhysical32(at) >>> 0) | (BigInt(v.readPhysical32(at + 4n) >>> 0) << 32n)
}

const pointerRules: readonly Rule[] = [
  ...pdpteFields.map((field): Rule => ({
    ...pointers('reserved bits of a PDPTE that is present are 0', [field, 'guestCr0', 'guestCr4', 'entryControls'], v =>
      pdpteIsGood(v, v.b(field)),
      { when: v => v.ept && v.usesPdptes, wants: v => v.b(field) & ~1n }), qualification: 2,
  })),
  { ...pointers('reserved bits of the PDPTEs in memory that are present are 0', ['guestCr3', 'guestCr0', 'guestCr4', 'entryControls'],
    v => [0, 1, 2, 3].every(i => pdpteIsGood(v, readPdpte(v, i))), { when: v => !v.ept && v.usesPdptes, always: true }), qualification: 2 },
]

export const guestRules: readonly Rule[] = [...registerRules, ...segmentRules, ...tableRules, ...flagRules, ...nonRegisterRules,
  ...pointerRules]
