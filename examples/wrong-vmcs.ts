/**
 * A hypervisor of a few instructions, right or with one mistake in its VMCS, as a multiboot kernel. Intel SDM vol. 3, "Preparing and
 * Launching a Virtual Machine".
 *
 *   npx node examples/wrong-vmcs.ts host-selector > kernel
 *   npx vitrine run --explain --kernel kernel
 *
 * It prints G when its guest has run and F when VMLAUNCH has failed.
 */
import { fields, type FieldName } from '../src/virt/vmx/fields.ts'
import { address, dword, multibootImage, origin, print, printKernel } from './multiboot.ts'

/** Offsets in the image; everything is identity mapped. */
const at = { code: 0x40, table: 0x1000, pointers: 0x2000, pages: 0x3000, vmxon: 0x4000, vmcs: 0x5000, stack: 0x7000, end: 0x7000 } as const

const halt = [0xfa, 0xf4, 0xeb, 0xfc] // cli; hlt; jmp back to it
const hostExit = [...print('G'), ...halt]
const guest = [0x0f, 0x01, 0xc1] // vmcall

function code(count: number): number[] {
  return [
    0xb8, ...address(at.pages), 0x0f, 0x22, 0xd8, // CR3
    0x0f, 0x20, 0xe0, 0x0d, ...dword(0x2010), 0x0f, 0x22, 0xe0, // CR4: VMXE, PSE
    0x0f, 0x20, 0xc0, 0x0d, ...dword(0x80000021), 0x0f, 0x22, 0xc0, // CR0: PG, NE, PE
    0xb9, ...dword(0x3a), 0x31, 0xd2, 0xb8, ...dword(5), 0x0f, 0x30, // IA32_FEATURE_CONTROL: VMX outside SMX, locked
    0xb9, ...dword(0x480), 0x0f, 0x32, 0xa3, ...address(at.vmxon), 0xa3, ...address(at.vmcs), // IA32_VMX_BASIC: the revision
    0xf3, 0x0f, 0xc7, 0x35, ...address(at.pointers), // vmxon
    0x66, 0x0f, 0xc7, 0x35, ...address(at.pointers + 8), // vmclear
    0x0f, 0xc7, 0x35, ...address(at.pointers + 8), // vmptrld
    0xbe, ...address(at.table), 0xb9, ...dword(count),
    0x8b, 0x16, 0x8b, 0x46, 0x04, 0x0f, 0x79, 0xd0, 0x83, 0xc6, 0x08, 0xe2, 0xf3, // vmwrite each pair of the table
    0x0f, 0x01, 0xc2, // vmlaunch
    ...print('F'), ...halt,
  ]
}

const hostExitAt = 0x200
const guestAt = 0x240
const flatData = 0xc093
const flatCode = 0xc09b

/** 32-bit code with paging on both sides, and no control that can be off. */
const rightFields: Partial<Record<FieldName, number>> = {
  pinControls: 0x16, primaryControls: 0x04006172, exitControls: 0x36dfb, entryControls: 0x11fb, vmcsLinkPointer: 0xffffffff,
  hostCr0: 0x80000021, hostCr3: origin + at.pages, hostCr4: 0x2010, hostCsSelector: 8, hostSsSelector: 0x10, hostDsSelector: 0x10,
  hostEsSelector: 0x10, hostTrSelector: 0x18, hostRsp: origin + at.stack, hostRip: origin + hostExitAt,
  guestCr0: 0x80000021, guestCr3: origin + at.pages, guestCr4: 0x2010, guestRflags: 2, guestRip: origin + guestAt,
    guestRsp: origin + at.stack,
  guestCsSelector: 8, guestCsAccessRights: flatCode, guestCsLimit: 0xffffffff, guestSsSelector: 0x10, guestSsAccessRights: flatData,
  guestSsLimit: 0xffffffff, guestDsAccessRights: flatData, guestDsLimit: 0xffffffff, guestEsAccessRights: flatData,
    guestEsLimit: 0xffffffff,
  guestFsAccessRights: 0x10000, guestGsAccessRights: 0x10000, guestLdtrAccessRights: 0x10000, guestTrAccessRights: 0x8b, guestTrLimit: 0x67,
}

/** By name: what is wrong. */
export const mistakes: Readonly<Record<string, Partial<Record<FieldName, number>>>> = {
  'none': {},
  'host-selector': { hostCsSelector: 0x0b }, // the RPL of user code
  'guest-access-rights': { guestSsAccessRights: 0xc091 }, // a stack that cannot be written
  'reserved-control': { primaryControls: 0x04006172 & ~2 }, // a bit that must be 1
}

/** The kernel's bytes: a multiboot header that says where they go, then code and tables. */
export function wrongVmcs(mistake: string): Uint8Array {
  const values = Object.entries({ ...rightFields, ...mistakes[mistake] }) as [FieldName, number][]
  const pairs = values.flatMap(([name, value]) => [...dword(fields[name].encoding), ...dword(value)])
  pairs.push(...dword(fields.vmcsLinkPointer.encoding + 1), ...dword(0xffffffff)) // the high half
  return multibootImage(at.code, at.end, [
    [at.code, code(pairs.length / 8)],
    [hostExitAt, hostExit],
    [guestAt, guest],
    [at.table, pairs],
    [at.pointers, [...address(at.vmxon), 0, 0, 0, 0, ...address(at.vmcs), 0, 0, 0, 0]],
    [at.pages, dword(0x83)], // 4 MiB at 0
  ])
}

if (import.meta.main) printKernel(mistakes, wrongVmcs)
