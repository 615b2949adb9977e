/**
 * Every field of a VMCS: encoding, name, section. Width, type and access follow from the encoding. Intel SDM vol. 3, appendix "Field
 * Encoding in VMCS"; chapter "Virtual Machine Control Structures".
 */

export type FieldWidth = 16 | 32 | 64 | 'natural'
export type FieldKind = 'control' | 'readOnly' | 'guest' | 'host'

export interface VmcsField {
  readonly name: string
  readonly encoding: number
  readonly width: FieldWidth
  readonly kind: FieldKind
  readonly section: string
  /** Word of the VMCS region at which it lies: 8 bytes a field, whatever its width. */
  readonly word: number
}

const widths: readonly FieldWidth[] = [16, 64, 32, 'natural']
const kinds: readonly FieldKind[] = ['control', 'readOnly', 'guest', 'host']
const widthOf = (encoding: number): FieldWidth => widths[(encoding >> 13) & 3]
const kindOf = (encoding: number): FieldKind => kinds[(encoding >> 10) & 3]

const execution = 'VM-Execution Control Fields'
const exit = 'VM-Exit Control Fields'
const entry = 'VM-Entry Control Fields'
const information = 'VM-Exit Information Fields'
const guestRegisters = 'Guest Register State'
const guestOther = 'Guest Non-Register State'
const hostState = 'Host-State Area'

const registers = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const
type Register = (typeof registers)[number]
const perRegister = <Suffix extends string>(suffix: Suffix, first: number): Record<`guest${Register}${Suffix}`,
  readonly [number, string]> =>
  Object.fromEntries(registers.map((name, i) => [`guest${name}${suffix}`, [first + 2 * i, guestRegisters]])) as never

const list = {
  vpid: [0x0000, execution], postedInterruptVector: [0x0002, execution], eptpIndex: [0x0004, execution],
  hlatPrefixSize: [0x0006, execution], lastPidPointerIndex: [0x0008, execution],
  ...perRegister('Selector', 0x0800),
  guestInterruptStatus: [0x0810, guestOther], pmlIndex: [0x0812, guestOther],
  hostEsSelector: [0x0c00, hostState], hostCsSelector: [0x0c02, hostState], hostSsSelector: [0x0c04, hostState],
  hostDsSelector: [0x0c06, hostState], hostFsSelector: [0x0c08, hostState], hostGsSelector: [0x0c0a, hostState],
  hostTrSelector: [0x0c0c, hostState],

  ioBitmapA: [0x2000, execution], ioBitmapB: [0x2002, execution], msrBitmap: [0x2004, execution],
  exitMsrStoreAddress: [0x2006, exit], exitMsrLoadAddress: [0x2008, exit], entryMsrLoadAddress: [0x200a, entry],
  executiveVmcsPointer: [0x200c, execution], pmlAddress: [0x200e, execution], tscOffset: [0x2010, execution],
  virtualApicAddress: [0x2012, execution], apicAccessAddress: [0x2014, execution], postedInterruptDescriptor: [0x2016, execution],
  vmFunctionControls: [0x2018, execution], eptp: [0x201a, execution],
  eoiExitBitmap0: [0x201c, execution], eoiExitBitmap1: [0x201e, execution], eoiExitBitmap2: [0x2020, execution],
  eoiExitBitmap3: [0x2022, execution], eptpListAddress: [0x2024, execution], vmreadBitmap: [0x2026, execution],
  vmwriteBitmap: [0x2028, execution], virtualizationExceptionAddress: [0x202a, execution], xssExitingBitmap: [0x202c, execution],
  sppTablePointer: [0x2030, execution],
  tscMultiplier: [0x2032, execution], tertiaryControls: [0x2034, execution], hlatPointer: [0x2040, execution],
  pidPointerTable: [0x2042, execution],
  guestPhysicalAddress: [0x2400, information],
  vmcsLinkPointer: [0x2800, guestOther], guestDebugctl: [0x2802, guestRegisters], guestPat: [0x2804, guestRegisters],
  guestEfer: [0x2806, guestRegisters], guestPerfGlobalCtrl: [0x2808, guestRegisters],
  guestPdpte0: [0x280a, guestOther], guestPdpte1: [0x280c, guestOther],
  guestPdpte2: [0x280e, guestOther], guestPdpte3: [0x2810, guestOther], guestPkrs: [0x2818, guestRegisters],
  hostPat: [0x2c00, hostState], hostEfer: [0x2c02, hostState], hostPerfGlobalCtrl: [0x2c04, hostState],
  hostPkrs: [0x2c06, hostState],

  pinControls: [0x4000, execution], primaryControls: [0x4002, execution], exceptionBitmap: [0x4004, execution],
  pageFaultMask: [0x4006, execution], pageFaultMatch: [0x4008, execution], cr3TargetCount: [0x400a, execution],
  exitControls: [0x400c, exit], exitMsrStoreCount: [0x400e, exit], exitMsrLoadCount: [0x4010, exit],
  entryControls: [0x4012, entry], entryMsrLoadCount: [0x4014, entry], entryInterruption: [0x4016, entry],
  entryErrorCode: [0x4018, entry], entryInstructionLength: [0x401a, entry], tprThreshold: [0x401c, execution],
  secondaryControls: [0x401e, execution], pleGap: [0x4020, execution], pleWindow: [0x4022, execution], notifyWindow: [0x4024, execution],
  instructionError: [0x4400, information], exitReason: [0x4402, information], exitInterruption: [0x4404, information],
  exitErrorCode: [0x4406, information], idtVectoring: [0x4408, information], idtVectoringErrorCode: [0x440a, information],
  exitInstructionLength: [0x440c, information], exitInstructionInformation: [0x440e, information],
  ...perRegister('Limit', 0x4800),
  guestGdtrLimit: [0x4810, guestRegisters], guestIdtrLimit: [0x4812, guestRegisters],
  ...perRegister('AccessRights', 0x4814),
  guestInterruptibility: [0x4824, guestOther], guestActivity: [0x4826, guestOther], guestSmbase: [0x4828, guestRegisters],
  guestSysenterCs: [0x482a, guestRegisters], preemptionTimer: [0x482e, guestOther],
  hostSysenterCs: [0x4c00, hostState],

  cr0Mask: [0x6000, execution], cr4Mask: [0x6002, execution], cr0Shadow: [0x6004, execution], cr4Shadow: [0x6006, execution],
  cr3Target0: [0x6008, execution], cr3Target1: [0x600a, execution], cr3Target2: [0x600c, execution], cr3Target3: [0x600e, execution],
  exitQualification: [0x6400, information], ioRcx: [0x6402, information], ioRsi: [0x6404, information], ioRdi: [0x6406, information],
  ioRip: [0x6408, information], guestLinearAddress: [0x640a, information],
  guestCr0: [0x6800, guestRegisters], guestCr3: [0x6802, guestRegisters], guestCr4: [0x6804, guestRegisters],
  ...perRegister('Base', 0x6806),
  guestGdtrBase: [0x6816, guestRegisters], guestIdtrBase: [0x6818, guestRegisters], guestDr7: [0x681a, guestRegisters],
  guestRsp: [0x681c, guestRegisters], guestRip: [0x681e, guestRegisters], guestRflags: [0x6820, guestRegisters],
  guestPendingDebug: [0x6822, guestOther], guestSysenterEsp: [0x6824, guestRegisters], guestSysenterEip: [0x6826, guestRegisters],
  guestSCet: [0x6828, guestRegisters], guestSsp: [0x682a, guestRegisters], guestSspTable: [0x682c, guestRegisters],
  hostCr0: [0x6c00, hostState], hostCr3: [0x6c02, hostState], hostCr4: [0x6c04, hostState], hostFsBase: [0x6c06, hostState],
  hostGsBase: [0x6c08, hostState], hostTrBase: [0x6c0a, hostState], hostGdtrBase: [0x6c0c, hostState], hostIdtrBase: [0x6c0e, hostState],
  hostSysenterEsp: [0x6c10, hostState], hostSysenterEip: [0x6c12, hostState], hostRsp: [0x6c14, hostState], hostRip: [0x6c16, hostState],
  hostSCet: [0x6c18, hostState], hostSsp: [0x6c1a, hostState], hostSspTable: [0x6c1c, hostState],
} as const satisfies Record<string, readonly [encoding: number, section: string]>

export type FieldName = keyof typeof list

/** Revision identifier, abort indicator and launch state come first. */
const firstFieldByte = 64

export const fields = Object.fromEntries(
  (Object.entries(list) as [FieldName, readonly [number, string]][]).map(([name, [encoding, section]], i) => [
    name,
    { name, encoding, section, width: widthOf(encoding), kind: kindOf(encoding), word: firstFieldByte / 4 + 2 * i },
  ]),
) as unknown as Record<FieldName, VmcsField>

export const fieldList: readonly VmcsField[] = Object.values(fields)

/** Words of a region by field, for the paths that run at every world switch. */
export const at = Object.fromEntries(fieldList.map(field => [field.name, field.word])) as Record<FieldName, number>

const byEncoding = new Map(fieldList.map(field => [field.encoding, field]))

/** The field of an encoding; bit 0 asks for the high half of a 64-bit field. */
export function fieldOf(number: number): VmcsField | undefined {
  const field = byEncoding.get((number & ~1) >>> 0)
  return field && number & 1 && field.width !== 64 ? undefined : field
}

const upper = new RegExp('^(es|cs|ss|ds|fs|gs|ldtr|tr|gdtr|idtr|cr[0-4]|dr7|rip|rsp|rflags|efer|pat|msr|vmcs|eptp|pml|spp|tsc|pkrs|vpid|pid'
  + '|perf|ctrl|hlat|rcx|rsi|rdi)$')

/** The manual's words for it: `guestCsAccessRights` is "guest CS access rights". */
export function fieldTitle(name: string): string {
  const parts = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase().split(' ')
  return parts.map(part => (upper.test(part) ? part.toUpperCase() : part)).join(' ')
}

/** Of the region: bits 30:0 of the first dword. Software was seen that keeps 30 bits of it, which no processor's has needed yet. */
export const vmcsRevision = 0x16495452
export const regionSize = 4096
export const regionWord = { revision: 0, abort: 1, launched: 2 } as const
