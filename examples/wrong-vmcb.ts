/**
 * A hypervisor of a few instructions, right or with one mistake in its VMCB, as a multiboot kernel. AMD APM vol. 2, "Secure Virtual
 * Machine", "VMRUN Instruction".
 *
 *   npx node examples/wrong-vmcb.ts asid > kernel
 *   npx vitrine run --explain --cpu amd --kernel kernel
 *
 * It prints G when its guest has run and F when VMRUN has refused it.
 */
import { vmcbFields, type VmcbFieldName } from '../src/virt/svm/vmcb.ts'
import { address, dword, multibootImage, origin, print, printKernel } from './multiboot.ts'

/** Offsets in the image. Nobody pages. */
const at = { code: 0x40, table: 0x1000, vmcb: 0x2000, hostSave: 0x3000, stack: 0x5000, end: 0x5000 } as const

const halt = [0xfa, 0xf4, 0xeb, 0xfc] // cli; hlt; jmp back to it
const guest = [0x0f, 0x01, 0xd9] // vmmcall
const guestAt = 0x240

function code(count: number): number[] {
  const failed = [...print('F'), ...halt]
  return [
    0xb9, ...dword(0xc0000080), 0x0f, 0x32, 0x0d, ...dword(0x1000), 0x0f, 0x30, // EFER.SVME
    0xb9, ...dword(0xc0010117), 0xb8, ...address(at.hostSave), 0x31, 0xd2, 0x0f, 0x30, // VM_HSAVE_PA
    0xb8, ...address(at.vmcb), 0x0f, 0x01, 0xdb, // vmsave: FS, GS, TR and LDTR are the host's
    0xbe, ...address(at.table), 0xb9, ...dword(count),
    0x8b, 0x1e, 0x8b, 0x56, 0x04, 0x89, 0x14, 0x18, 0x83, 0xc6, 0x08, 0xe2, 0xf3, // write each pair of the table: [eax + ebx] = edx
    0x0f, 0x01, 0xd8, // vmrun
    0x83, 0x78, 0x70, 0xff, 0x75, failed.length, // EXITCODE = -1?
    ...failed, ...print('G'), ...halt,
  ]
}

const flatData = 0xc93
const flatCode = 0xc9b
const segment = (selector: number, attributes: number): number => selector | (attributes << 16)

/** 32-bit code without paging on both sides, and no intercept but those of VMRUN and VMMCALL. Names are of the dwords that are written. */
const rightFields: Partial<Record<VmcbFieldName, number>> = {
  intercepts4: 3, asid: 1, efer: 0x1000, cr0: 0x11, rflags: 2, rip: origin + guestAt, rsp: origin + at.stack, dr6: 0xffff0ff0, dr7: 0x400,
  csSelector: segment(8, flatCode), csLimit: 0xffffffff, ssSelector: segment(0x10, flatData), ssLimit: 0xffffffff,
  dsSelector: segment(0x10, flatData), dsLimit: 0xffffffff, esSelector: segment(0x10, flatData), esLimit: 0xffffffff,
}

/** By name: what is wrong. */
export const mistakes: Readonly<Record<string, Partial<Record<VmcbFieldName, number>>>> = {
  'none': {},
  'asid': { asid: 0 }, // the host's
  'svme': { efer: 0 }, // a guest's EFER has SVME too
  'vmrun-intercept': { intercepts4: 2 }, // VMRUN of the guest must be intercepted
}

/** The kernel's bytes: a multiboot header that says where they go, then code and tables. */
export function wrongVmcb(mistake: string): Uint8Array {
  const pairs = Object.entries({ ...rightFields, ...mistakes[mistake] }).flatMap(([name, value]) =>
    [...dword(vmcbFields[name as VmcbFieldName].offset), ...dword(value)])
  return multibootImage(at.code, at.end, [
    [at.code, code(pairs.length / 8)],
    [guestAt, guest],
    [at.table, pairs],
  ])
}

if (import.meta.main) printKernel(mistakes, wrongVmcb)
