/** VMCSs and VMCBs from files: regions, pairs, and the dumps that KVM and Xen print. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createModel } from '../cpu/models.ts'
import { InputError } from '../errors.ts'
import { explainFile } from './explain.ts'
import { readVmcsText } from './vmcs-text.ts'

const model = (vendor: 'intel' | 'amd'): ReturnType<typeof createModel> => createModel(vendor)
const explainText = (text: string): string => explainFile(new TextEncoder().encode(text), 'dump', model, () => undefined).text

/** As Linux 6.1 prints it (arch/x86/kvm/vmx/vmx.c, dump_vmcs), with a guest CS whose access rights have S = 0. */
const kvm = `*** Guest State ***
CR0: actual=0x0000000080050033, shadow=0x0000000080050033, gh_mask=fffffffffffefff7
CR4: actual=0x0000000000002620, shadow=0x0000000000000620, gh_mask=fffffffffffef871
CR3 = 0x000000000281a000
RSP = 0xffffffff82803e90  RIP = 0xffffffff81c36e2e
RFLAGS=0x00000246         DR7 = 0x0000000000000400
Sysenter RSP=fffffe0000003000 CS:RIP=0010:ffffffff81e01490
CS:   sel=0x0010, attr=0x0a08b, limit=0xffffffff, base=0x0000000000000000
DS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
SS:   sel=0x0018, attr=0x0c093, limit=0xffffffff, base=0x0000000000000000
ES:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
FS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
GS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0xffff88813bc00000
GDTR:                           limit=0x0000007f, base=0xfffffe0000001000
LDTR: sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0x0000000000000000
IDTR:                           limit=0x00000fff, base=0xfffffe0000000000
TR:   sel=0x0040, attr=0x0008b, limit=0x00004087, base=0xfffffe0000003000
EFER= 0x0000000000000d01
PAT = 0x0407050600070106
DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
Interruptibility = 00000000  ActivityState = 00000000
*** Host State ***
RIP = 0xffffffffc0a1b0d0  RSP = 0xffffc90000b5fc90
CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
FSBase=00007f4ee9a0b700 GSBase=ffff88846fa00000 TRBase=fffffe0000078000
GDTBase=fffffe0000076000 IDTBase=fffffe0000000000
CR0=0000000080050033 CR3=0000000104a4e003 CR4=00000000003726e0
Sysenter RSP=fffffe0000078000 CS:RIP=0010:ffffffff81e01490
PAT = 0x0407050600070106
*** Control State ***
CPUBased=0xb5986dfa SecondaryExec=0x000000aa TertiaryExec=0x0000000000000000
PinBased=0x0000003f EntryControls=000053ff ExitControls=002befff
ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
VMEntry: intr_info=00000000 errcode=00000000 ilen=00000000
EPT pointer = 0x000000010a5f901e
Virtual processor ID = 0x0001
`

test("KVM's dump: every field is read, and the one rule that is broken is named with its value", () => {
  const values = readVmcsText(kvm, 'dump')
  assert.deepEqual([values.get('guestRip'), values.get('hostRip'), values.get('guestCsAccessRights'), values.get('hostCr4')],
    [0xffffffff81c36e2en, 0xffffffffc0a1b0d0n, 0xa08bn, 0x3726e0n])
  assert.deepEqual([values.get('guestGdtrBase'), values.get('secondaryControls'), values.get('vpid'), values.get('eptp')],
    [0xfffffe0000001000n, 0xaan, 1n, 0x10a5f901en])
  const text = explainText(kvm)
  assert.match(text, /VM exit 33: invalid guest state/)
  assert.match(text, /guest CS access rights \(0x4816\) = 0xa08b\n {4}rule: S \(bit 4\)/)
  assert.match(explainText(kvm.replace('attr=0x0a08b', 'attr=0x0a09b')), /no rule is broken/)
})

test('pairs: names, words of the manual and encodings; without controls only rules that have no condition', () => {
  assert.match(explainText('guest RFLAGS = 0 # bit 1\n0x0c02 = b\n'), /error 8[^]*host CS selector \(0x0c02\) = 0xb[^]*guest RFLAGS/)
  assert.match(explainText('guestRflags: 2\n'), /no rule is broken.*\n1 of \d+ fields are given/)
  assert.throws(() => explainText('guestRflag = 2'), new InputError("dump:1: expected a field's name or encoding, found 'guestRflag'"))
  assert.throws(() => explainText(''), /expected a VMCS or VMCB of 4096 bytes/)
})

test('4096 bytes without our revision are a VMCB', () => {
  const { text, broken } = explainFile(new Uint8Array(4096), 'vmcb', model, () => undefined)
  assert.match(text, /^VMCB: VMEXIT_INVALID\.\n.*EFER[^]*EFER\.SVME must be 1[^]*ASID/)
  assert.ok(broken >= 3)
})
