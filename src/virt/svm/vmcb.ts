/**
 * The virtual machine control block as a table: offset, width, name, clean bit, section. AMD APM vol. 2, appendix "Layout of VMCB";
 * accessors, copies of state at world switches and documentation come from here.
 */

/** Groups of the VMCB clean field by their bit. APM vol. 2, "VMCB Clean Bits". */
export const cleanBit = { intercepts: 0, permissionMaps: 1, asid: 2, tpr: 3, nestedPaging: 4, cr: 5, dr: 6, dt: 7, seg: 8, cr2: 9, lbr: 10,
  avic: 11, cet: 12 } as const
export type CleanGroup = keyof typeof cleanBit

export interface VmcbField {
  readonly offset: number
  /** Bytes. */
  readonly size: 1 | 2 | 4 | 8
  /** As in the manual. */
  readonly title: string
  readonly clean?: CleanGroup
  readonly section: string
}

const field = (offset: number, size: VmcbField['size'], title: string, section: string, clean?: CleanGroup): VmcbField =>
  ({ offset, size, title, section, clean })

const intercepts = 'Instruction Intercepts'
const exits = 'Intercept Operation'
const paging = 'Nested Paging'
const interrupts = 'Event Injection and Virtual Interrupts'
const avic = 'AVIC VMCB Fields'
const state = 'VMRUN Instruction'

const control = {
  crIntercepts: field(0x000, 4, 'Intercept reads (15:0) and writes (31:16) of CR0-15', intercepts, 'intercepts'),
  drIntercepts: field(0x004, 4, 'Intercept reads (15:0) and writes (31:16) of DR0-15', intercepts, 'intercepts'),
  exceptionIntercepts: field(0x008, 4, 'Intercept exception vectors 0-31', 'Exception Intercepts', 'intercepts'),
  intercepts3: field(0x00c, 4, 'Intercept vector 3', intercepts, 'intercepts'),
  intercepts4: field(0x010, 4, 'Intercept vector 4', intercepts, 'intercepts'),
  intercepts5: field(0x014, 4, 'Intercept vector 5', intercepts, 'intercepts'),
  pauseThreshold: field(0x03c, 2, 'PAUSE Filter Threshold', 'Pause Intercept Filtering', 'intercepts'),
  pauseCount: field(0x03e, 2, 'PAUSE Filter Count', 'Pause Intercept Filtering', 'intercepts'),
  iopmBase: field(0x040, 8, 'IOPM_BASE_PA', 'IOIO Intercepts', 'permissionMaps'),
  msrpmBase: field(0x048, 8, 'MSRPM_BASE_PA', 'MSR Intercepts', 'permissionMaps'),
  tscOffset: field(0x050, 8, 'TSC_OFFSET', 'TSC Ratio MSR', 'intercepts'),
  asid: field(0x058, 4, 'Guest ASID', 'TLB Control', 'asid'),
  tlbControl: field(0x05c, 1, 'TLB_CONTROL', 'TLB Control'),
  virtualInterrupt: field(0x060, 4, 'V_TPR, V_IRQ, V_GIF, V_NMI, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, AVIC, x2AVIC enable', interrupts,
    'tpr'),
  virtualVector: field(0x064, 4, 'V_INTR_VECTOR', interrupts, 'tpr'),
  interruptState: field(0x068, 8, 'INTERRUPT_SHADOW, GUEST_INTERRUPT_MASK', 'Interrupt Shadows'),
  exitCode: field(0x070, 8, 'EXITCODE', exits),
  exitInfo1: field(0x078, 8, 'EXITINFO1', exits),
  exitInfo2: field(0x080, 8, 'EXITINFO2', exits),
  exitInterrupt: field(0x088, 4, 'EXITINTINFO', 'Exit Interrupt Information'),
  exitInterruptError: field(0x08c, 4, 'EXITINTINFO error code', 'Exit Interrupt Information'),
  nestedControl: field(0x090, 8, 'NP_ENABLE and other modes', paging, 'nestedPaging'),
  apicBar: field(0x098, 8, 'AVIC APIC_BAR', avic, 'avic'),
  eventInjection: field(0x0a8, 4, 'EVENTINJ', 'Event Injection'),
  eventInjectionError: field(0x0ac, 4, 'EVENTINJ error code', 'Event Injection'),
  nestedCr3: field(0x0b0, 8, 'N_CR3', paging, 'nestedPaging'),
  virtualExtensions: field(0x0b8, 8, 'LBR_VIRTUALIZATION_ENABLE, virtualized VMSAVE and VMLOAD', 'LBR Virtualization', 'lbr'),
  clean: field(0x0c0, 4, 'VMCB Clean Bits', 'VMCB Clean Bits'),
  nextRip: field(0x0c8, 8, 'nRIP', 'State Saved on Exit'),
  fetchedLength: field(0x0d0, 1, 'Number of bytes fetched', 'Decode Assists'),
  apicBackingPage: field(0x0e0, 8, 'AVIC APIC_BACKING_PAGE Pointer', avic, 'avic'),
  apicLogicalTable: field(0x0f0, 8, 'AVIC LOGICAL_TABLE Pointer', avic, 'avic'),
  apicPhysicalTable: field(0x0f8, 8, 'AVIC PHYSICAL_TABLE Pointer, AVIC_PHYSICAL_MAX_INDEX', avic, 'avic'),
} as const

type SegmentName = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'gdtr' | 'ldtr' | 'idtr' | 'tr'
/** Where the 16 bytes of a segment lie: selector, attributes, limit, base. */
export const segmentOffset: Readonly<Record<SegmentName, number>> = { es: 0x400, cs: 0x410, ss: 0x420, ds: 0x430, fs: 0x440, gs: 0x450,
  gdtr: 0x460, ldtr: 0x470, idtr: 0x480, tr: 0x490 }

function segmentFields(): Record<string, VmcbField> {
  const fields: Record<string, VmcbField> = {}
  for (const [name, offset] of Object.entries(segmentOffset)) {
    const table = name === 'gdtr' || name === 'idtr'
    const clean: CleanGroup | undefined = table ? 'dt' : ['es', 'cs', 'ss', 'ds'].includes(name) ? 'seg' : undefined
    const title = name.toUpperCase()
    if (!table) {
      fields[`${name}Selector`] = field(offset, 2, `${title}.selector`, state, clean)
      fields[`${name}Attributes`] = field(offset + 2, 2, `${title}.attrib`, state, clean)
    }
    fields[`${name}Limit`] = field(offset + 4, 4, `${title}.limit`, state, clean)
    fields[`${name}Base`] = field(offset + 8, 8, `${title}.base`, state, clean)
  }
  return fields
}

const save = {
  cpl: field(0x4cb, 1, 'CPL', state, 'seg'),
  efer: field(0x4d0, 8, 'EFER', state, 'cr'),
  cr4: field(0x548, 8, 'CR4', state, 'cr'),
  cr3: field(0x550, 8, 'CR3', state, 'cr'),
  cr0: field(0x558, 8, 'CR0', state, 'cr'),
  dr7: field(0x560, 8, 'DR7', state, 'dr'),
  dr6: field(0x568, 8, 'DR6', state, 'dr'),
  rflags: field(0x570, 8, 'RFLAGS', state),
  rip: field(0x578, 8, 'RIP', state),
  rsp: field(0x5d8, 8, 'RSP', state),
  sCet: field(0x5e0, 8, 'S_CET', state, 'cet'),
  ssp: field(0x5e8, 8, 'SSP', state, 'cet'),
  isstAddress: field(0x5f0, 8, 'ISST_ADDR', state, 'cet'),
  rax: field(0x5f8, 8, 'RAX', state),
  star: field(0x600, 8, 'STAR', 'VMSAVE and VMLOAD Instructions'),
  lstar: field(0x608, 8, 'LSTAR', 'VMSAVE and VMLOAD Instructions'),
  cstar: field(0x610, 8, 'CSTAR', 'VMSAVE and VMLOAD Instructions'),
  sfmask: field(0x618, 8, 'SFMASK', 'VMSAVE and VMLOAD Instructions'),
  kernelGsBase: field(0x620, 8, 'KernelGsBase', 'VMSAVE and VMLOAD Instructions'),
  sysenterCs: field(0x628, 8, 'SYSENTER_CS', 'VMSAVE and VMLOAD Instructions'),
  sysenterEsp: field(0x630, 8, 'SYSENTER_ESP', 'VMSAVE and VMLOAD Instructions'),
  sysenterEip: field(0x638, 8, 'SYSENTER_EIP', 'VMSAVE and VMLOAD Instructions'),
  cr2: field(0x640, 8, 'CR2', state, 'cr2'),
  gPat: field(0x668, 8, 'G_PAT', paging, 'nestedPaging'),
  debugctl: field(0x670, 8, 'DBGCTL', 'LBR Virtualization', 'lbr'),
  brFrom: field(0x678, 8, 'BR_FROM', 'LBR Virtualization', 'lbr'),
  brTo: field(0x680, 8, 'BR_TO', 'LBR Virtualization', 'lbr'),
  lastExceptionFrom: field(0x688, 8, 'LASTEXCPFROM', 'LBR Virtualization', 'lbr'),
  lastExceptionTo: field(0x690, 8, 'LASTEXCPTO', 'LBR Virtualization', 'lbr'),
} as const

export type VmcbFieldName = keyof typeof control | keyof typeof save | `${SegmentName}${'Selector' | 'Attributes' | 'Limit' | 'Base'}`

export const vmcbFields = { ...control, ...segmentFields(), ...save } as Readonly<Record<VmcbFieldName, VmcbField>>

/** Byte offsets. */
export const offsetOf = Object.fromEntries(Object.entries(vmcbFields).map(([name, row]) => [name, row.offset])) as
  Readonly<Record<VmcbFieldName, number>>

/** Bytes of the guest's instruction, up to 15, follow their count. */
export const fetchedBytes = 0x0d1

/** Of the field at 60H. */
export const virtualInterrupt = {
  tprMask: 0xf, irq: 1 << 8, gif: 1 << 9, nmiPending: 1 << 11, nmiBlocked: 1 << 12, priorityShift: 16, priorityMask: 0xf << 16,
  ignoreTpr: 1 << 20, masking: 1 << 24, gifEnable: 1 << 25, nmiEnable: 1 << 26,
  x2avicEnable: 1 << 30, avicEnable: 1 << 31,
} as const

/** AVIC_PHYSICAL_MAX_INDEX, below the pointer. */
export const physicalTableIndex = 0xfff

/** EVENTINJ and EXITINTINFO. APM vol. 2, "Event Injection". */
export const eventInfo = { vectorMask: 0xff, typeShift: 8, typeMask: 7, hasError: 1 << 11, valid: 1 << 31 } as const
export const eventType = { interrupt: 0, nmi: 2, exception: 3, software: 4 } as const

export const tlbControl = { nothing: 0, flushAll: 1, flushAsid: 3, flushAsidNonGlobal: 7 } as const
export const nestedControl = { enable: 1 } as const
export const virtualExtension = { lbr: 1, vmloadVmsave: 2 } as const
