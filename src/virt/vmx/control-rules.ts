/** Checks on the VMX controls. Intel SDM vol. 3, "Checks on VMX Controls". A broken one is VMfailValid with error 7. */
import { pinBit as pin, primaryBit as primary, secondaryBit as secondary, tertiaryBit as tertiary, exitBit as exit, tertiaryAllowed, groups,
  hasCet,  eptBit, cr3Targets, mostHlatPrefix, type GroupName } from './controls.ts'
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'
import { section, type Rule } from './rule.ts'

const execution = section('Checks on VMX Controls: VM-Execution Control Fields')
const exits = section('Checks on VMX Controls: VM-Exit Control Fields')
const entries = section('Checks on VMX Controls: VM-Entry Control Fields')

const page = 12

/** A bit that no model has. */
const noControl: Readonly<Record<GroupName, bigint>> =
  { pin: 1n << 31n, primary: 1n << 18n, secondary: 1n << 27n, exit: 1n << 31n, entry: 1n << 31n }

const capabilityMsr: Readonly<Record<GroupName, string>> = {
  pin: 'true capability MSR (48Dh)', primary: 'true capability MSR (48Eh)', secondary: 'capability MSR (48Bh)',
  exit: 'true capability MSR (48Fh)', entry: 'true capability MSR (490h)',
}

const reserved = (name: GroupName, field: FieldName, make: typeof execution,
  options: { when?: Rule['when']; enabling?: Rule['breaks'] } = {}): Rule =>
  make(`reserved bits of the ${groups[name].title} are as their ${capabilityMsr[name]} says: bits of its low half must be 1, others of its `
    + 'high half may be', field,
    v => v.controlsAllowed(name, v.n(field)),
    { when: options.when, wants: v => v.nearestControls(name, v.n(field)),
      breaks: [...(options.enabling ?? []), [field, old => old | noControl[name]]] })

type Writes = NonNullable<Rule['breaks']>
/** Writes that turn controls on. */
const turnOn = (field: FieldName, bit: number): Writes[number] => [field, old => old | BigInt(bit >>> 0)]
const onPrimary = (bit: number): Writes => [turnOn('primaryControls', bit)]
const onSecondary = (bit: number): Writes => [turnOn('primaryControls', primary.secondaryControls), turnOn('secondaryControls', bit)]
const onTertiary = (bit: number): Writes => [turnOn('primaryControls', primary.tertiaryControls), turnOn('tertiaryControls', bit)]
const onHlat: Writes = [...onSecondary(secondary.ept), ['eptp', 0x1000n | 0x1en], ...onTertiary(tertiary.hlat)]
const onPin = (bit: number): Writes => [turnOn('pinControls', bit)]

/** An address that a control makes meaningful. */
const address = (field: FieldName, what: string, bits: number, when: (v: EntryView) => boolean, enabling: Writes): Rule =>
  execution(`the ${what} is a multiple of ${1 << bits} and within the physical-address width`, field, v => v.aligned(v.b(field), bits),
    { when, wants: v => v.b(field) & ~((1n << BigInt(bits)) - 1n) & ((1n << BigInt(v.model.physicalBits)) - 1n),
      breaks: [...enabling, [field, old => old | 1n]] })

const p = (bit: number) => (v: EntryView): boolean => (v.primary & bit) !== 0
const s = (bit: number) => (v: EntryView): boolean => (v.secondary & bit) !== 0
const t = (bit: number) => (v: EntryView): boolean => (v.tertiary & bit) !== 0
const without = (field: FieldName, ...bits: number[]) => (v: EntryView): bigint =>
  BigInt((v.n(field) & ~bits.reduce((a, b) => a | b, 0)) >>> 0)
const withBits = (field: FieldName, bit: number) => (v: EntryView): bigint => BigInt((v.n(field) | bit) >>> 0)

/** EPTP as the "enable EPT" control wants it; INVEPT and VMFUNC check the same. */
export function isValidEptp(v: Pick<EntryView, 'eptCapabilities' | 'physical'>, eptp: bigint): boolean {
  const type = eptp & 7n
  const length = (eptp >> 3n) & 7n
  if (type !== 6n && !(type === 0n && v.eptCapabilities & eptBit.uncacheable)) return false
  if (length !== 3n && !(length === 4n && v.eptCapabilities & eptBit.walk5)) return false
  if (eptp & 0x40n && !(v.eptCapabilities & eptBit.accessedDirty)) return false
  if (eptp & 0x80n && !(v.eptCapabilities & eptBit.supervisorShadowStack)) return false
  return (eptp & 0xf00n) === 0n && v.physical(eptp)
}

const executionRules: readonly Rule[] = [
  reserved('pin', 'pinControls', execution),
  reserved('primary', 'primaryControls', execution),
  reserved('secondary', 'secondaryControls', execution, { when: p(primary.secondaryControls),
    enabling: onPrimary(primary.secondaryControls) }),
  execution('reserved bits of the tertiary processor-based VM-execution controls are 0', 'tertiaryControls',
    v => (v.b('tertiaryControls') & ~tertiaryAllowed(v.model)) === 0n,
    { when: p(primary.tertiaryControls), wants: v => v.b('tertiaryControls') & tertiaryAllowed(v.model),
      breaks: [...onPrimary(primary.tertiaryControls), ['tertiaryControls', 1n << 40n]] }),
  execution('without "use TPR shadow" "IPI virtualization" is 0', ['tertiaryControls', 'primaryControls'], p(primary.tprShadow),
    { when: t(tertiary.ipiVirtualization), wants: v => v.b('tertiaryControls') & ~BigInt(tertiary.ipiVirtualization),
      breaks: onTertiary(tertiary.ipiVirtualization) }),
  execution('the PID-pointer table is a multiple of 8, and its last entry lies within the physical-address width',
    ['pidPointerTable', 'lastPidPointerIndex'],
    v => v.aligned(v.b('pidPointerTable'), 3) && v.physical(v.b('pidPointerTable') + v.b('lastPidPointerIndex') * 8n + 7n),
    { when: t(tertiary.ipiVirtualization), wants: v => v.b('pidPointerTable') & ~7n & ((1n << BigInt(v.model.physicalBits)) - 1n),
      breaks: [...onTertiary(tertiary.ipiVirtualization), ['pidPointerTable', 4n]] }),
  ...([['enable HLAT', tertiary.hlat], ['EPT paging-write control', tertiary.eptPagingWrite],
    ['guest-paging verification', tertiary.guestPagingVerification]] as const).map(([name, bit]) =>
    execution(`"${name}" needs "enable EPT"`, ['tertiaryControls', 'secondaryControls'], s(secondary.ept),
      { when: t(bit), wants: v => v.b('tertiaryControls') & ~BigInt(bit), breaks: onTertiary(bit) })),
  execution('bits 2:0 and 11:5 of HLATP are 0, and it is within the physical-address width', 'hlatPointer',
    v => (v.b('hlatPointer') & 0xfe7n) === 0n && v.physical(v.b('hlatPointer')),
    { when: t(tertiary.hlat), wants: v => v.b('hlatPointer') & ~0xfe7n & ((1n << BigInt(v.model.physicalBits)) - 1n),
      breaks: [...onHlat, ['hlatPointer', 1n]] }),
  execution('the HLAT prefix size is at most what IA32_VMX_EPT_VPID_CAP says', 'hlatPrefixSize',
    v => v.n('hlatPrefixSize') <= mostHlatPrefix,
    { when: t(tertiary.hlat), wants: () => BigInt(mostHlatPrefix), breaks: [...onHlat, ['hlatPrefixSize', BigInt(mostHlatPrefix) + 1n]] }),
  execution('the CR3-target count is at most 4', 'cr3TargetCount', v => v.n('cr3TargetCount') <= cr3Targets,
    { wants: () => 4n, breaks: [['cr3TargetCount', 5n]] }),
  address('ioBitmapA', 'address of I/O bitmap A', page, p(primary.ioBitmaps), onPrimary(primary.ioBitmaps)),
  address('ioBitmapB', 'address of I/O bitmap B', page, p(primary.ioBitmaps), onPrimary(primary.ioBitmaps)),
  address('msrBitmap', 'address of the MSR bitmaps', page, p(primary.msrBitmaps), onPrimary(primary.msrBitmaps)),
  address('virtualApicAddress', 'virtual-APIC address', page, p(primary.tprShadow), onPrimary(primary.tprShadow)),
  execution('bits 31:4 of the TPR threshold are 0 (no virtual-interrupt delivery)', 'tprThreshold', v => v.n('tprThreshold') >>> 4 === 0,
    { when: v => p(primary.tprShadow)(v) && !s(secondary.virtualInterruptDelivery)(v), wants: v => BigInt(v.n('tprThreshold') & 15),
      breaks: [...onPrimary(primary.tprShadow), ['tprThreshold', 0x10n]] }),
  execution('the TPR threshold is not above bits 7:4 of VTPR', 'tprThreshold',
    v => (v.n('tprThreshold') & 15) <= ((v.readPhysical32(v.b('virtualApicAddress') + 0x80n) >> 4) & 15),
    { always: true, wants: () => 0n, breaks: [...onPrimary(primary.tprShadow), ['tprThreshold', 15n]],
      when: v => p(primary.tprShadow)(v) && !s(secondary.virtualizeApicAccesses)(v) && !s(secondary.virtualInterruptDelivery)(v) }),
  execution('without "use TPR shadow", "virtualize x2APIC mode", "APIC-register virtualization" and "virtual-interrupt delivery" are 0',
    ['secondaryControls', 'primaryControls'],
    v => !s(secondary.virtualizeX2apic | secondary.apicRegisterVirtualization | secondary.virtualInterruptDelivery)(v),
    { when: v => !p(primary.tprShadow)(v),
      wants: without('secondaryControls', secondary.virtualizeX2apic, secondary.apicRegisterVirtualization,
        secondary.virtualInterruptDelivery), breaks: onSecondary(secondary.virtualizeX2apic) }),
  execution('"virtual NMIs" needs "NMI exiting"', 'pinControls', v => (v.pin & pin.nmiExiting) !== 0,
    { when: v => (v.pin & pin.virtualNmis) !== 0, wants: withBits('pinControls', pin.nmiExiting),
      breaks: [['pinControls', old => (old & ~8n) | 0x20n]] }),
  execution('"NMI-window exiting" needs "virtual NMIs"', ['primaryControls', 'pinControls'], v => (v.pin & pin.virtualNmis) !== 0,
    { when: p(primary.nmiWindowExiting), wants: without('primaryControls', primary.nmiWindowExiting),
      breaks: [['pinControls', old => old & ~0x20n], ['primaryControls', old => old | 0x400000n]] }),
  address('apicAccessAddress', 'APIC-access address', page, s(secondary.virtualizeApicAccesses),
    onSecondary(secondary.virtualizeApicAccesses)),
  execution('"virtualize x2APIC mode" excludes "virtualize APIC accesses"', 'secondaryControls', v =>
    !s(secondary.virtualizeApicAccesses)(v),
    { when: s(secondary.virtualizeX2apic), wants: without('secondaryControls', secondary.virtualizeApicAccesses),
      breaks: onSecondary(secondary.virtualizeX2apic | secondary.virtualizeApicAccesses) }),
  execution('"virtual-interrupt delivery" needs "external-interrupt exiting"', ['pinControls', 'secondaryControls'],
    v => (v.pin & pin.externalInterruptExiting) !== 0,
    { when: s(secondary.virtualInterruptDelivery), wants: withBits('pinControls', pin.externalInterruptExiting),
      breaks: onSecondary(secondary.virtualInterruptDelivery) }),
  execution('"process posted interrupts" needs "virtual-interrupt delivery"', ['pinControls', 'secondaryControls'],
    s(secondary.virtualInterruptDelivery),
    { when: v => (v.pin & pin.postedInterrupts) !== 0, wants: without('pinControls', pin.postedInterrupts),
      breaks: onPin(pin.postedInterrupts) }),
  execution('"process posted interrupts" needs "acknowledge interrupt on exit"', ['exitControls', 'pinControls'],
    v => (v.exit & exit.acknowledgeInterrupt) !== 0,
    { when: v => (v.pin & pin.postedInterrupts) !== 0, wants: withBits('exitControls', exit.acknowledgeInterrupt),
      breaks: onPin(pin.postedInterrupts) }),
  execution('the posted-interrupt notification vector is from 0 to 255', 'postedInterruptVector', v => v.n('postedInterruptVector') < 256,
    { when: v => (v.pin & pin.postedInterrupts) !== 0, wants: v => BigInt(v.n('postedInterruptVector') & 255),
      breaks: [...onPin(pin.postedInterrupts), ['postedInterruptVector', 256n]] }),
  address('postedInterruptDescriptor', 'posted-interrupt descriptor address', 6, v => (v.pin & pin.postedInterrupts) !== 0,
    onPin(pin.postedInterrupts)),
  execution('the VPID is not 0', 'vpid', v => v.n('vpid') !== 0,
    { when: s(secondary.vpid), wants: () => 1n, breaks: [['vpid', 0n], ['primaryControls', old => old | 0x80000000n],
      ['secondaryControls', old => old | 0x20n]] }),
  execution('the EPTP has a supported memory type and walk length, and no reserved bit', 'eptp', v => isValidEptp(v, v.b('eptp')),
    { when: s(secondary.ept), wants: v => (v.b('eptp') & ~0xfffn & ((1n << BigInt(v.model.physicalBits)) - 1n)) | 0x1en,
      breaks: [...onSecondary(secondary.ept), ['eptp', 6n]] }),
  execution('"enable PML" needs "enable EPT"', 'secondaryControls', s(secondary.ept),
    { when: s(secondary.pml), wants: without('secondaryControls', secondary.pml), breaks: onSecondary(secondary.pml) }),
  address('pmlAddress', 'PML address', page, s(secondary.pml), onSecondary(secondary.pml)),
  execution('"unrestricted guest" needs "enable EPT"', 'secondaryControls', s(secondary.ept),
    { when: s(secondary.unrestrictedGuest), wants: without('secondaryControls', secondary.unrestrictedGuest),
      breaks: onSecondary(secondary.unrestrictedGuest) }),
  execution('"mode-based execute control for EPT" needs "enable EPT"', 'secondaryControls', s(secondary.ept),
    { when: s(secondary.modeBasedExecute), wants: without('secondaryControls', secondary.modeBasedExecute),
      breaks: onSecondary(secondary.modeBasedExecute) }),
  execution('"sub-page write permissions for EPT" needs "enable EPT"', 'secondaryControls', s(secondary.ept),
    { when: s(secondary.subPageWritePermissions), wants: without('secondaryControls', secondary.subPageWritePermissions),
      breaks: onSecondary(secondary.subPageWritePermissions) }),
  address('sppTablePointer', 'sub-page-permission-table pointer', page, s(secondary.subPageWritePermissions),
    [...onSecondary(secondary.subPageWritePermissions | secondary.ept), ['eptp', 0x1000n | 0x1en]]),
  execution('VM functions that are enabled exist', 'vmFunctionControls', v => (v.b('vmFunctionControls') & ~1n) === 0n,
    { when: s(secondary.vmFunctions), wants: v => v.b('vmFunctionControls') & 1n,
      breaks: [...onSecondary(secondary.vmFunctions), ['vmFunctionControls', 2n]] }),
  execution('"EPTP switching" needs "enable EPT"', ['vmFunctionControls', 'secondaryControls'], s(secondary.ept),
    { when: v => s(secondary.vmFunctions)(v) && (v.n('vmFunctionControls') & 1) !== 0, wants: () => 0n,
      breaks: [...onSecondary(secondary.vmFunctions), ['vmFunctionControls', 1n]] }),
  address('eptpListAddress', 'EPTP-list address', page, v => s(secondary.vmFunctions)(v) && (v.n('vmFunctionControls') & 1) !== 0,
    [...onSecondary(secondary.vmFunctions), ['vmFunctionControls', 1n]]),
  address('vmreadBitmap', 'VMREAD-bitmap address', page, s(secondary.vmcsShadowing), onSecondary(secondary.vmcsShadowing)),
  address('vmwriteBitmap', 'VMWRITE-bitmap address', page, s(secondary.vmcsShadowing), onSecondary(secondary.vmcsShadowing)),
  address('virtualizationExceptionAddress', 'virtualization-exception information address', page, s(secondary.eptViolationVe),
    onSecondary(secondary.eptViolationVe)),
  execution('the TSC multiplier is not 0', 'tscMultiplier', v => v.b('tscMultiplier') !== 0n,
    { when: s(secondary.tscScaling), wants: () => 1n << 48n, breaks: onSecondary(secondary.tscScaling) }),
]

/** An MSR list: 16 bytes an entry. */
const msrList = (make: typeof exits, what: string, listAddress: FieldName, count: FieldName): Rule =>
  make(`the ${what} address is a multiple of 16, and the list ends within the physical-address width`, [listAddress, count],
    v => v.aligned(v.b(listAddress), 4) && v.physical(v.b(listAddress) + BigInt(v.n(count)) * 16n - 1n),
    { when: v => v.n(count) !== 0, wants: v => v.b(listAddress) & ~15n & ((1n << BigInt(v.model.physicalBits)) - 1n),
      breaks: [[count, 1n], [listAddress, 8n]] })

const exitRules: readonly Rule[] = [
  reserved('exit', 'exitControls', exits),
  exits('"save VMX-preemption timer value" needs "activate VMX-preemption timer"', ['exitControls', 'pinControls'],
    v => (v.pin & pin.preemptionTimer) !== 0,
    { when: v => (v.exit & exit.savePreemptionTimer) !== 0, wants: without('exitControls', exit.savePreemptionTimer),
      breaks: [['pinControls', old => old & ~0x40n], ['exitControls', old => old | 0x400000n]] }),
  msrList(exits, 'VM-exit MSR-store', 'exitMsrStoreAddress', 'exitMsrStoreCount'),
  msrList(exits, 'VM-exit MSR-load', 'exitMsrLoadAddress', 'exitMsrLoadCount'),
]

export const interruptionType = { external: 0, nmi: 2, exception: 3, softwareInterrupt: 4, privilegedSoftware: 5, softwareException: 6,
  other: 7 } as const
const withErrorCode = new Set([8, 10, 11, 12, 13, 14, 17])
const injects = (v: EntryView): boolean => v.injects
const deliversCode = (v: EntryView): boolean => (v.n('entryInterruption') & 0x800) !== 0
/** Whether the event has an error code by its nature. */
const hasCode = (v: EntryView): boolean => v.injectedType === interruptionType.exception && withErrorCode.has(v.injectedVector)
  && (!v.unrestricted || v.protectedMode)
const inject = (value: bigint): Rule['breaks'] => [['entryInterruption', value]]
const info: FieldName = 'entryInterruption'
const noInjection = (v: EntryView): bigint => v.b(info) & 0x7fffffffn

const entryRules: readonly Rule[] = [
  reserved('entry', 'entryControls', entries),
  entries('the type of the injected event is not reserved (1)', info, v => v.injectedType !== 1,
    { when: injects, wants: noInjection, breaks: inject(0x80000120n) }),
  entries('an injected NMI has vector 2', info, v => v.injectedVector === 2,
    { when: v => injects(v) && v.injectedType === interruptionType.nmi, wants: () => 0x80000202n, breaks: inject(0x80000203n) }),
  entries('an injected exception has a vector of at most 31', info, v => v.injectedVector <= 31,
    { when: v => injects(v) && v.injectedType === interruptionType.exception, wants: noInjection, breaks: inject(0x80000320n) }),
  entries('an injected "other event" (pending MTF) has vector 0', info, v => v.injectedVector === 0,
    { when: v => injects(v) && v.injectedType === interruptionType.other, wants: () => 0x80000700n, breaks: inject(0x80000701n) }),
  entries('"deliver error code" is 1 if and only if the event is an exception that has one (in protected mode)', [info, 'guestCr0'],
    v => deliversCode(v) === hasCode(v),
    { when: v => injects(v) && !hasCet(v.model), wants: v => v.b(info) ^ 0x800n }),
  entries('"deliver error code" is 1 for exceptions (in protected mode) only', [info, 'guestCr0'],
    v => v.injectedType === interruptionType.exception && (!v.unrestricted || v.protectedMode),
    { when: v => injects(v) && deliversCode(v) && hasCet(v.model), wants: v => v.b(info) & ~0x800n,
      breaks: inject(0x80000830n) }),
  entries('bits 30:12 of the interruption-information field are 0', info, v => (v.n(info) & 0x7ffff000) === 0,
    { when: injects, wants: v => v.b(info) & 0x80000fffn, breaks: inject(0x80001030n) }),
  entries('bits 31:16 of the exception error code are 0', 'entryErrorCode', v => v.n('entryErrorCode') >>> 16 === 0,
    { when: v => injects(v) && deliversCode(v), wants: v => v.b('entryErrorCode') & 0xffffn,
      breaks: [[info, 0x80000b0dn], ['entryErrorCode', 0x10000n]] }),
  entries('the instruction length of an injected software event is from 0 to 15', 'entryInstructionLength', v =>
    v.n('entryInstructionLength') <= 15,
    { when: v => injects(v) && [4, 5, 6].includes(v.injectedType), wants: () => 2n,
      breaks: [[info, 0x80000430n], ['entryInstructionLength', 16n]] }),
  msrList(entries, 'VM-entry MSR-load', 'entryMsrLoadAddress', 'entryMsrLoadCount'),
]

export const controlRules: readonly Rule[] = [...executionRules, ...exitRules, ...entryRules]
