/**
 * A VMCS as people have it in text: lines of FIELD = VALUE, what Linux's KVM prints into its log when an entry fails (dump_vmcs), or what
 * Xen's debug key `v` shows. A field is named as in our tables (`guestCsAccessRights`), in the manual's words, or by its encoding.
 */
import { InputError } from '../errors.ts'
import { fieldList, fieldTitle, type FieldName } from '../virt/vmx/fields.ts'

export type VmcsValues = ReadonlyMap<FieldName, bigint>

const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '')
const byName = new Map(fieldList.flatMap(({ name }) => [[plain(name), name as FieldName], [plain(fieldTitle(name)), name as FieldName]]))
const byEncoding = new Map(fieldList.map(({ encoding, name }) => [encoding, name as FieldName]))

/** Numbers of these dumps are hexadecimal, with 0x or without. */
const number = (text: string): bigint => BigInt(`0x${text.replace(/^0x/i, '')}`)
const hex = '(?:0x)?([0-9a-f]+)'

type Section = 'guest' | 'host' | 'control'
type Row = readonly [pattern: RegExp, fields: readonly FieldName[]]
const row = (pattern: string, ...fields: FieldName[]): Row => [new RegExp(pattern.replaceAll('#', hex), 'i'), fields]

const guestSegments = (['Cs', 'Ds', 'Ss', 'Es', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const).map(name => row(
  `^\\s*${name}:\\s*(?:sel=)?#[, ]\\s*(?:attr=)?#[, ]\\s*(?:limit=)?#[, ]\\s*(?:base=)?#`, `guest${name}Selector`,
  `guest${name}AccessRights`, `guest${name}Limit`, `guest${name}Base`))
const rows: Readonly<Record<Section, readonly Row[]>> = {
  guest: [
    row('CR0: actual=#, shadow=#, gh_mask=#', 'guestCr0', 'cr0Shadow', 'cr0Mask'),
    row('CR4: actual=#, shadow=#, gh_mask=#', 'guestCr4', 'cr4Shadow', 'cr4Mask'),
    row('CR3 ?= ?#', 'guestCr3'), row('RSP = #', 'guestRsp'), row('RIP = #', 'guestRip'), row('RFLAGS ?= ?#', 'guestRflags'),
    row('DR7 ?= ?#', 'guestDr7'), row('Sysenter RSP=#\\s+CS:RIP=#:#', 'guestSysenterEsp', 'guestSysenterCs', 'guestSysenterEip'),
    ...guestSegments, row('GDTR:\\s+(?:limit=)?#[, ]\\s*(?:base=)?#', 'guestGdtrLimit', 'guestGdtrBase'),
    row('IDTR:\\s+(?:limit=)?#[, ]\\s*(?:base=)?#', 'guestIdtrLimit', 'guestIdtrBase'),
    row('EFER(?:\\(VMCS\\))? ?= ?#', 'guestEfer'), row('PAT ?= ?#', 'guestPat'), row('PerfGlobCtl ?= ?#', 'guestPerfGlobalCtrl'),
    row('DebugCtl ?= ?#', 'guestDebugctl'), row('DebugExceptions ?= ?#', 'guestPendingDebug'),
    row('Interruptibility ?= ?#', 'guestInterruptibility'), row('ActivityState ?= ?#', 'guestActivity'),
    row('InterruptStatus ?= ?#', 'guestInterruptStatus'), row('PreemptionTimer ?= ?#', 'preemptionTimer'),
    row('PDPTR0 ?= ?#\\s+PDPTR1 ?= ?#', 'guestPdpte0', 'guestPdpte1'), row('PDPTR2 ?= ?#\\s+PDPTR3 ?= ?#', 'guestPdpte2', 'guestPdpte3'),
    row('PDPTE0 ?= ?#\\s+PDPTE1 ?= ?#', 'guestPdpte0', 'guestPdpte1'), row('PDPTE2 ?= ?#\\s+PDPTE3 ?= ?#', 'guestPdpte2', 'guestPdpte3'),
  ],
  host: [
    row('\\bRIP = #', 'hostRip'), row('\\bRSP = #', 'hostRsp'),
    row('CS=# SS=# DS=# ES=# FS=# GS=# TR=#', 'hostCsSelector', 'hostSsSelector', 'hostDsSelector', 'hostEsSelector', 'hostFsSelector',
      'hostGsSelector', 'hostTrSelector'),
    row('FSBase=# GSBase=# TRBase=#', 'hostFsBase', 'hostGsBase', 'hostTrBase'), row('GDTBase=# IDTBase=#', 'hostGdtrBase', 'hostIdtrBase'),
    row('CR0=# CR3=# CR4=#', 'hostCr0', 'hostCr3', 'hostCr4'),
    row('Sysenter RSP=#\\s+CS:RIP=#:#', 'hostSysenterEsp', 'hostSysenterCs', 'hostSysenterEip'),
    row('EFER ?= ?#', 'hostEfer'), row('PAT ?= ?#', 'hostPat'), row('PerfGlobCtl ?= ?#', 'hostPerfGlobalCtrl'),
  ],
  control: [
    row('PinBased=#', 'pinControls'), row('CPUBased=#', 'primaryControls'), row('SecondaryExec=#', 'secondaryControls'),
    row('EntryControls=#', 'entryControls'), row('ExitControls=#', 'exitControls'),
    row('ExceptionBitmap=#', 'exceptionBitmap'), row('PFECmask=#', 'pageFaultMask'), row('PFECmatch=#', 'pageFaultMatch'),
    row('VMEntry: intr_info=# errcode=# ilen=#', 'entryInterruption', 'entryErrorCode', 'entryInstructionLength'),
    row('TSC Offset = #', 'tscOffset'), row('TSC Multiplier = #', 'tscMultiplier'), row('TPR Threshold = #', 'tprThreshold'),
    row('APIC-access addr = #', 'apicAccessAddress'), row('virt-APIC addr = #', 'virtualApicAddress'),
    row('PostedIntrVec = #', 'postedInterruptVector'), row('EPT pointer = #', 'eptp'), row('PLE Gap=#', 'pleGap'),
    row('Window=#', 'pleWindow'), row('(?:Virtual processor ID|VPID) = #', 'vpid'),
  ],
}

const heading = /\*\*\* (guest|host|control) state \*\*\*/i
const pair = /^\s*([a-z][\w ]*?|(?:0x)?[0-9a-f]{4})\s*(?:\((?:0x)?([0-9a-f]{4})\))?\s*[=:]\s*(?:0x)?([0-9a-f]+)\s*$/i

/** `file` is for messages. */
export function readVmcsText(text: string, file: string): VmcsValues {
  const values = new Map<FieldName, bigint>()
  let section: Section | undefined
  text.split('\n').forEach((line, index) => {
    const found = heading.exec(line)
    if (found) section = found[1].toLowerCase() as Section
    else if (section !== undefined) takeRows(rows[section], line, values)
    else takePair(line, values, `${file}:${index + 1}`)
  })
  if (values.size > 0) return values
  throw new InputError(`'${file}': expected a VMCS or VMCB of 4096 bytes, lines of FIELD = VALUE, or a dump of KVM's or Xen's; found none`)
}

function takeRows(known: readonly Row[], line: string, values: Map<FieldName, bigint>): void {
  for (const [pattern, fields] of known) {
    const match = pattern.exec(line)
    if (match) fields.forEach((field, i) => values.set(field, number(match[i + 1])))
  }
}

function takePair(line: string, values: Map<FieldName, bigint>, where: string): void {
  const content = line.replace(/#.*$/, '')
  if (content.trim() === '') return
  const match = pair.exec(content)
  if (!match) throw new InputError(`${where}: expected FIELD = VALUE (hexadecimal), found '${content.trim().slice(0, 60)}'`)
  const [, name, encoding, value] = match
  const code = encoding ?? (/^(0x)?[0-9a-f]{4}$/i.test(name) ? name : undefined)
  const field = code === undefined ? byName.get(plain(name)) : byEncoding.get(Number(number(code)))
  if (!field) throw new InputError(`${where}: expected a field's name or encoding, found '${name}'`)
  values.set(field, number(value))
}
