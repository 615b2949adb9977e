/**
 * The VM-execution, VM-exit and VM-entry controls: bit, name, and since which generation of processors. The capability MSRs are made from
 * this table and say nothing else. Intel SDM vol. 3, "VM-Execution Control Fields", appendix "VMX Capability Reporting Facility".
 */
import type { CpuModel } from '../../cpu/model.ts'
import { fieldList, type FieldName, regionSize, vmcsRevision } from './fields.ts'

/** What silicon of a generation has, oldest first. */
export const generations = ['nehalem', 'westmere', 'ivybridge', 'haswell', 'broadwell', 'skylake', 'icelake', 'newest'] as const
export type Generation = (typeof generations)[number]

export interface ControlRow {
  readonly bit: number
  readonly since?: Generation
  /** Only when the model has the CPUID feature, or one of them. */
  readonly feature?: string | readonly string[]
  /** Only when it has performance counters. */
  readonly counters?: true
}
type ControlTable = Readonly<Record<string, ControlRow>>

export const pin = {
  externalInterruptExiting: { bit: 0 }, nmiExiting: { bit: 3 }, virtualNmis: { bit: 5 }, preemptionTimer: { bit: 6 },
  postedInterrupts: { bit: 7, since: 'ivybridge' },
} as const satisfies ControlTable

export const primary = {
  interruptWindowExiting: { bit: 2 }, tscOffsetting: { bit: 3 }, hltExiting: { bit: 7 }, invlpgExiting: { bit: 9 },
  mwaitExiting: { bit: 10 }, rdpmcExiting: { bit: 11 }, rdtscExiting: { bit: 12 }, cr3LoadExiting: { bit: 15 },
    cr3StoreExiting: { bit: 16 }, tertiaryControls: { bit: 17, since: 'newest' },
  cr8LoadExiting: { bit: 19 }, cr8StoreExiting: { bit: 20 }, tprShadow: { bit: 21 }, nmiWindowExiting: { bit: 22 },
  movDrExiting: { bit: 23 }, unconditionalIoExiting: { bit: 24 }, ioBitmaps: { bit: 25 }, monitorTrapFlag: { bit: 27 },
  msrBitmaps: { bit: 28 }, monitorExiting: { bit: 29 }, pauseExiting: { bit: 30 }, secondaryControls: { bit: 31 },
} as const satisfies ControlTable

export const secondary = {
  virtualizeApicAccesses: { bit: 0 }, ept: { bit: 1 }, descriptorTableExiting: { bit: 2 }, rdtscp: { bit: 3, feature: 'rdtscp' },
  virtualizeX2apic: { bit: 4, since: 'westmere' }, vpid: { bit: 5 }, wbinvdExiting: { bit: 6 },
    unrestrictedGuest: { bit: 7, since: 'westmere' },
  apicRegisterVirtualization: { bit: 8, since: 'ivybridge' }, virtualInterruptDelivery: { bit: 9, since: 'ivybridge' },
  pauseLoopExiting: { bit: 10, since: 'westmere' }, rdrandExiting: { bit: 11, feature: 'rdrand' }, invpcid: { bit: 12, feature: 'invpcid' },
  vmFunctions: { bit: 13, since: 'haswell' }, vmcsShadowing: { bit: 14, since: 'haswell' }, rdseedExiting: { bit: 16, feature: 'rdseed' },
  pml: { bit: 17, since: 'broadwell' }, eptViolationVe: { bit: 18, since: 'broadwell' },
  xsaves: { bit: 20, feature: 'xsaves' }, modeBasedExecute: { bit: 22, since: 'skylake' },
    subPageWritePermissions: { bit: 23, since: 'icelake' }, tscScaling: { bit: 25, since: 'skylake' },
  userWait: { bit: 26, feature: 'waitpkg' },
  busLockDetection: { bit: 30, since: 'newest' },
  notifyExiting: { bit: 31, since: 'newest' },
} as const satisfies ControlTable

/** The tertiary controls have 64 bits and a capability MSR without bits that must be 1. */
export const tertiary = {
  hlat: { bit: 1, since: 'newest' }, eptPagingWrite: { bit: 2, since: 'newest' }, guestPagingVerification: { bit: 3, since: 'newest' },
  ipiVirtualization: { bit: 4, since: 'newest' },
} as const satisfies ControlTable

const exitControl = {
  saveDebug: { bit: 2 }, host64: { bit: 9 }, loadPerfGlobalCtrl: { bit: 12, counters: true }, acknowledgeInterrupt: { bit: 15 },
  savePat: { bit: 18 }, loadPat: { bit: 19 },
  saveEfer: { bit: 20 }, loadEfer: { bit: 21 }, savePreemptionTimer: { bit: 22 }, loadCet: { bit: 28, feature: ['shstk', 'ibt'] },
  loadPkrs: { bit: 29, feature: 'pks' },
} as const satisfies ControlTable

const entryControl = {
  loadDebug: { bit: 2 }, guest64: { bit: 9 }, loadPerfGlobalCtrl: { bit: 13, counters: true }, loadPat: { bit: 14 },
  loadEfer: { bit: 15 }, loadCet: { bit: 20, feature: ['shstk', 'ibt'] },
  loadPkrs: { bit: 22, feature: 'pks' },
} as const satisfies ControlTable

/** Each bit as a number, for tests of a control word. */
const masks = <Table extends ControlTable>(table: Table): { readonly [Name in keyof Table]: number } =>
  Object.fromEntries(Object.entries(table).map(([name, { bit }]) => [name, 1 << bit])) as never
export const pinBit = masks(pin)
export const primaryBit = masks(primary)
export const secondaryBit = masks(secondary)
export const tertiaryBit = masks(tertiary)
export const exitBit = masks(exitControl)
export const entryBit = masks(entryControl)

export interface ControlGroup {
  readonly title: string
  readonly table: ControlTable
  /** Reserved bits that must be 1, by the plain and by the "true" capability MSR. */
  readonly default1: number
  readonly trueDefault1: number
}
export const groups = {
  pin: { title: 'pin-based VM-execution controls', table: pin, default1: 0x16, trueDefault1: 0x16 },
  primary: { title: 'primary processor-based VM-execution controls', table: primary, default1: 0x0401e172, trueDefault1: 0x04006172 },
  secondary: { title: 'secondary processor-based VM-execution controls', table: secondary, default1: 0, trueDefault1: 0 },
  exit: { title: 'primary VM-exit controls', table: exitControl, default1: 0x36dff, trueDefault1: 0x36dfb },
  entry: { title: 'VM-entry controls', table: entryControl, default1: 0x11ff, trueDefault1: 0x11fb },
} as const satisfies Record<string, ControlGroup>
export type GroupName = keyof typeof groups

/** By family 6 model number. */
const generationOf: Readonly<Record<number, Generation>> = {
  0x1a: 'nehalem', 0x1e: 'nehalem', 0x2e: 'nehalem', 0x25: 'westmere', 0x2c: 'westmere', 0x2a: 'westmere', 0x2d: 'westmere',
  0x3a: 'ivybridge', 0x3e: 'ivybridge', 0x3c: 'haswell', 0x3f: 'haswell', 0x45: 'haswell', 0x3d: 'broadwell', 0x47: 'broadwell',
  0x4f: 'broadwell', 0x4e: 'skylake', 0x5e: 'skylake', 0x55: 'skylake', 0x8e: 'skylake', 0x9e: 'skylake', 0x6a: 'icelake', 0x6c: 'icelake',
  0x7d: 'icelake', 0x7e: 'icelake',
}

export function generation(model: CpuModel): Generation {
  const { signature } = model.identity
  const number = ((signature >> 12) & 0xf0) | ((signature >> 4) & 15)
  return generationOf[number] ?? 'newest'
}
const isSince = (model: CpuModel, since: Generation): boolean => generations.indexOf(generation(model)) >= generations.indexOf(since)

/** EPT came with Nehalem; execute-only pages and 1 GiB pages are reported where the model has them. */
const hasFeature = (model: CpuModel, { feature }: ControlRow): boolean =>
  feature === undefined || [feature].flat().some(each => model.has(each))
function offered(model: CpuModel, row: ControlRow): boolean {
  return (row.since === undefined || isSince(model, row.since)) && hasFeature(model, row) && (!row.counters || model.counters.version > 0)
}

/** Bits that may be 1 (not counting the reserved ones). */
export function allowed1(model: CpuModel, group: ControlGroup): number {
  let bits = 0
  for (const row of Object.values(group.table)) if (offered(model, row)) bits |= 1 << row.bit
  return bits
}

const big = (bits: number): bigint => BigInt(bits >>> 0)
const capability = (model: CpuModel, group: ControlGroup, must: number): bigint =>
  (big(allowed1(model, group) | group.default1) << 32n) | big(must)

type NeededControl = readonly [group: ControlGroup, bit: number]
/** Fields that "exist only on processors that support the 1-setting" of a control: appendix "Field Encoding in VMCS". */
const fieldNeeds: readonly (readonly [NeededControl, readonly FieldName[]])[] = [
  [[groups.pin, pinBit.postedInterrupts], ['postedInterruptVector', 'postedInterruptDescriptor']],
  [[groups.primary, primaryBit.tertiaryControls],
    ['tertiaryControls', 'hlatPrefixSize', 'hlatPointer', 'lastPidPointerIndex', 'pidPointerTable']],
  [[groups.secondary, secondaryBit.virtualInterruptDelivery],
    ['guestInterruptStatus', 'eoiExitBitmap0', 'eoiExitBitmap1', 'eoiExitBitmap2', 'eoiExitBitmap3']],
  [[groups.secondary, secondaryBit.pauseLoopExiting], ['pleGap', 'pleWindow']],
  [[groups.secondary, secondaryBit.vmFunctions], ['vmFunctionControls', 'eptpListAddress']],
  [[groups.secondary, secondaryBit.vmcsShadowing], ['vmreadBitmap', 'vmwriteBitmap']],
  [[groups.secondary, secondaryBit.pml], ['pmlIndex', 'pmlAddress']],
  [[groups.secondary, secondaryBit.eptViolationVe], ['eptpIndex', 'virtualizationExceptionAddress']],
  [[groups.secondary, secondaryBit.xsaves], ['xssExitingBitmap']],
  [[groups.secondary, secondaryBit.subPageWritePermissions], ['sppTablePointer']],
  [[groups.secondary, secondaryBit.tscScaling], ['tscMultiplier']],
  [[groups.secondary, secondaryBit.notifyExiting], ['notifyWindow']],
  [[groups.entry, entryBit.loadPerfGlobalCtrl], ['guestPerfGlobalCtrl']],
  [[groups.entry, entryBit.loadPkrs], ['guestPkrs']],
  [[groups.entry, entryBit.loadCet], ['guestSCet', 'guestSsp', 'guestSspTable']],
  [[groups.exit, exitBit.loadPerfGlobalCtrl], ['hostPerfGlobalCtrl']],
  [[groups.exit, exitBit.loadPkrs], ['hostPkrs']],
  [[groups.exit, exitBit.loadCet], ['hostSCet', 'hostSsp', 'hostSspTable']],
]

/** Fields that VMREAD and VMWRITE do not know on a model. */
export function absentFields(model: CpuModel): ReadonlySet<FieldName> {
  return new Set(fieldNeeds.filter(([[group, bit]]) => !(allowed1(model, group) & bit)).flatMap(([, names]) => names))
}
/** Of any encoding that the model has, for IA32_VMX_VMCS_ENUM. */
function highestIndex(model: CpuModel): number {
  const absent = absentFields(model)
  return Math.max(...fieldList.filter(({ name }) => !absent.has(name as FieldName)).map(({ encoding }) => (encoding >> 1) & 0x1ff))
}

const memoryTypeWriteBack = 6n
const basic = BigInt(vmcsRevision) | (BigInt(regionSize) << 32n) | (memoryTypeWriteBack << 50n) | (1n << 54n) | (1n << 55n)

/** The preemption timer counts when bit 2 of the TSC changes: 2^32 ticks take 17 s, long enough for KVM to use it. */
export const preemptionTimerShift = 2
export const cr3Targets = 4
/** Entries of an MSR list are limited to 512 × (this + 1). */
export const msrListLimit = 512
/** LMA is stored at exits (5); activity states HLT, shutdown, wait-for-SIPI (6-8); VMWRITE to all (29); injection of length 0 (30). */
const misc = BigInt(preemptionTimerShift) | 0x1e0n | (BigInt(cr3Targets) << 16n) | (3n << 29n)

export const eptBit = {
  executeOnly: 1n, walk4: 1n << 6n, walk5: 1n << 7n, uncacheable: 1n << 8n, writeBack: 1n << 14n, page2M: 1n << 16n, page1G: 1n << 17n,
  invept: 1n << 20n, accessedDirty: 1n << 21n, advancedInformation: 1n << 22n, supervisorShadowStack: 1n << 23n,
  inveptSingle: 1n << 25n, inveptAll: 1n << 26n,
  invvpid: 1n << 32n, invvpidAddress: 1n << 40n, invvpidSingle: 1n << 41n, invvpidAll: 1n << 42n, invvpidSingleRetainingGlobals: 1n << 43n,
} as const
/** Bits 53:48 of the same: "It is expected that any processor that supports [HLAT] will enumerate this value as 1". */
export const mostHlatPrefix = 1
const hlatPrefixShift = 48n

export function eptVpidCapabilities(model: CpuModel): bigint {
  let bits = eptBit.executeOnly | eptBit.walk4 | eptBit.uncacheable | eptBit.writeBack | eptBit.page2M
    | eptBit.invept | eptBit.inveptSingle | eptBit.inveptAll
    | eptBit.invvpid | eptBit.invvpidAddress | eptBit.invvpidSingle | eptBit.invvpidAll | eptBit.invvpidSingleRetainingGlobals
  if (model.has('pdpe1gb')) bits |= eptBit.page1G
  if (isSince(model, 'haswell')) bits |= eptBit.accessedDirty
  if (isSince(model, 'skylake')) bits |= eptBit.advancedInformation
  if (model.has('la57')) bits |= eptBit.walk5
  if (tertiaryAllowed(model) & BigInt(tertiaryBit.hlat)) bits |= BigInt(mostHlatPrefix) << hlatPrefixShift
  if (model.has('shstk') && model.has('ept_shadow_stack')) bits |= eptBit.supervisorShadowStack
  return bits
}

/** CR0 and CR4 in VMX operation: bits that must be 1, and bits that may be. */
export const cr0Fixed0 = 0x80000021n
const cr0Fixed1 = 0xffffffffn
export const cr4Fixed0 = 0x2000n

/** Bits of the tertiary controls that may be 1. */
export const tertiaryAllowed = (model: CpuModel): bigint =>
  big(Object.values(tertiary).reduce((bits, row) => offered(model, row) ? bits | (1 << row.bit) : bits, 0))

/** CET gave exception 21 an error code: its processors deliver any exception with or without one. */
export const hasCet = (model: CpuModel): boolean => model.has('shstk') || model.has('ibt')
const anyErrorCode = 1n << 56n

/** CPUID leaf of each MSR is the same: it is there with VMX. `cr4Writable` are the bits that the model has. */
export function capabilityMsrs(model: CpuModel, cr4Writable: bigint): ReadonlyMap<number, bigint> {
  const secondaryThere = (allowed1(model, groups.primary) & primaryBit.secondaryControls) !== 0
  const known = new Map<number, bigint>([
    [0x480, hasCet(model) ? basic | anyErrorCode : basic],
    [0x481, capability(model, groups.pin, groups.pin.default1)],
    [0x482, capability(model, groups.primary, groups.primary.default1)],
    [0x483, capability(model, groups.exit, groups.exit.default1)],
    [0x484, capability(model, groups.entry, groups.entry.default1)],
    [0x485, misc],
    [0x486, cr0Fixed0],
    [0x487, cr0Fixed1],
    [0x488, cr4Fixed0],
    [0x489, cr4Writable],
    [0x48a, BigInt(highestIndex(model) << 1)],
    [0x48d, capability(model, groups.pin, groups.pin.trueDefault1)],
    [0x48e, capability(model, groups.primary, groups.primary.trueDefault1)],
    [0x48f, capability(model, groups.exit, groups.exit.trueDefault1)],
    [0x490, capability(model, groups.entry, groups.entry.trueDefault1)],
  ])
  if (secondaryThere) {
    known.set(0x48b, capability(model, groups.secondary, 0))
    known.set(0x48c, eptVpidCapabilities(model))
  }
  if (isSince(model, 'haswell')) known.set(0x491, 1n)
  if (allowed1(model, groups.primary) & primaryBit.tertiaryControls) known.set(0x492, tertiaryAllowed(model))
  return known
}
