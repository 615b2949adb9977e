/**
 * The instructions that the hypervisor executes, as bytes in its code page: what differs between two executions is in registers. Intel SDM
 * vol. 2, "Instruction Set Reference"; AMD APM vol. 3, "System Instruction Reference".
 */
import { place, slotSize } from './layout.ts'

/** Operands are RAX, and RCX where there is a second one; what the manual fixes (ECX and EDX:EAX of RDMSR, DX of IN) is as there. */
export const operations = {
  vmxon: [0xf3, 0x0f, 0xc7, 0x30], // vmxon [rax]
  vmxoff: [0x0f, 0x01, 0xc4],
  vmclear: [0x66, 0x0f, 0xc7, 0x30], // vmclear [rax]
  vmptrld: [0x0f, 0xc7, 0x30], // vmptrld [rax]
  vmread: [0x0f, 0x78, 0xc1], // vmread rcx, rax
  vmwrite: [0x0f, 0x79, 0xc1], // vmwrite rax, rcx
  vmlaunch: [0x0f, 0x01, 0xc2],
  vmresume: [0x0f, 0x01, 0xc3],
  invept: [0x66, 0x0f, 0x38, 0x80, 0x01], // invept rax, [rcx]
  invvpid: [0x66, 0x0f, 0x38, 0x81, 0x01], // invvpid rax, [rcx]
  vmrun: [0x0f, 0x01, 0xd8], // vmrun rax
  vmload: [0x0f, 0x01, 0xda], // vmload rax
  vmsave: [0x0f, 0x01, 0xdb], // vmsave rax
  stgi: [0x0f, 0x01, 0xdc],
  clgi: [0x0f, 0x01, 0xdd],
  invlpga: [0x0f, 0x01, 0xdf], // invlpga rax, ecx
  rdmsr: [0x0f, 0x32],
  wrmsr: [0x0f, 0x30],
  cpuid: [0x0f, 0xa2],
  rdtsc: [0x0f, 0x31],
  readCr0: [0x0f, 0x20, 0xc0], // mov rax, cr0
  writeCr0: [0x0f, 0x22, 0xc0], // mov cr0, rax
  readCr2: [0x0f, 0x20, 0xd0], // mov rax, cr2
  writeCr2: [0x0f, 0x22, 0xd0], // mov cr2, rax
  writeCr3: [0x0f, 0x22, 0xd8], // mov cr3, rax
  readCr4: [0x0f, 0x20, 0xe0], // mov rax, cr4
  writeCr4: [0x0f, 0x22, 0xe0], // mov cr4, rax
  readDr0: [0x0f, 0x21, 0xc0], readDr1: [0x0f, 0x21, 0xc8], readDr2: [0x0f, 0x21, 0xd0], readDr3: [0x0f, 0x21, 0xd8],
  readDr6: [0x0f, 0x21, 0xf0], // mov rax, dr6
  writeDr0: [0x0f, 0x23, 0xc0], writeDr1: [0x0f, 0x23, 0xc8], writeDr2: [0x0f, 0x23, 0xd0], writeDr3: [0x0f, 0x23, 0xd8],
  writeDr6: [0x0f, 0x23, 0xf0], // mov dr6, rax
  lgdt: [0x0f, 0x01, 0x10], // lgdt [rax]
  lidt: [0x0f, 0x01, 0x18], // lidt [rax]
  ltr: [0x0f, 0x00, 0xd8], // ltr ax
  loadData: [0x8e, 0xd8], // mov ds, eax
  loadExtra: [0x8e, 0xc0], // mov es, eax
  loadStack: [0x8e, 0xd0], // mov ss, eax
  loadCode: [0x48, 0xcb], // retfq: CS from the stack
  fxsave: [0x48, 0x0f, 0xae, 0x00], // fxsave64 [rax]
  fxrstor: [0x48, 0x0f, 0xae, 0x08], // fxrstor64 [rax]
  xsave: [0x48, 0x0f, 0xae, 0x21], // xsave64 [rcx], EDX:EAX the components
  xrstor: [0x48, 0x0f, 0xae, 0x29], // xrstor64 [rcx]
  xsetbv: [0x0f, 0x01, 0xd1],
  load32: [0x8b, 0x08], // mov ecx, [rax]
  store32: [0x89, 0x08], // mov [rax], ecx
  in8: [0xec], // in al, dx
  out8: [0xee], // out dx, al
  in32: [0xed], // in eax, dx
  out32: [0xef], // out dx, eax
  hlt: [0xf4],
  pause: [0xf3, 0x90],
  sti: [0xfb],
  cli: [0xfa],
  nop: [0x90],
  stiHlt: [0xfb, 0xf4], // two: no interrupt comes between them
  iret: [0x48, 0xcf], // iretq
} as const satisfies Readonly<Record<string, readonly number[]>>

export type Operation = keyof typeof operations

const names = Object.keys(operations) as Operation[]
if (names.length * slotSize > 4096) throw new Error('the code page is full')

/** Linear address of each operation. */
export const addressOf = Object.fromEntries(names.map((name, i) => [name, BigInt(place.code + i * slotSize)])) as
  Readonly<Record<Operation, bigint>>

/** A page of UD2. */
function undefinedPage(): Uint8Array {
  const page = new Uint8Array(4096)
  for (let i = 0; i < page.length; i += 2) page.set([0x0f, 0x0b], i)
  return page
}

/** The code page; what follows an instruction is never reached. */
export function codePage(): Uint8Array {
  const page = undefinedPage()
  names.forEach((name, i) => page.set(operations[name], i * slotSize))
  return page
}

/** The handlers: where a processor stands when an interrupt or exception has been delivered. They are never executed. */
export const handlerPage = undefinedPage

/** Of a handler's address, the vector that it serves. */
export function vectorAt(rip: bigint): number | undefined {
  const offset = Number(rip) - place.handlers
  return offset >= 0 && offset < 4096 && offset % slotSize === 0 ? offset / slotSize : undefined
}

/** Instructions of the trampoline; the last leads to the code page. */
export const trampolineInstructions = 13

/**
 * From real mode into 64-bit mode with the hypervisor's page tables and segments. Intel SDM vol. 3, "Switching to Protected Mode",
 * "Initializing IA-32e Mode". `gdtPointer` lies in the same page, at 0xF0.
 */
export function trampoline(gdtLimit: number): Uint8Array {
  const dword = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
  const page = new Uint8Array(4096)
  const real = [
    0xfa, // cli
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0xf0, 0x00, // lgdt [cs:0xf0]
    0x66, 0xb8, ...dword(0x20), // mov eax, CR4.PAE
    0x0f, 0x22, 0xe0, // mov cr4, eax
    0x66, 0xb8, ...dword(place.pageTables), // mov eax, the page tables
    0x0f, 0x22, 0xd8, // mov cr3, eax
    0x66, 0xb9, ...dword(0xc0000080), // mov ecx, IA32_EFER
    0x66, 0xb8, ...dword(0x100), // mov eax, LME
    0x66, 0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0x66, 0xb8, ...dword(0x80000031), // mov eax, PG, NE, ET, PE
    0x0f, 0x22, 0xc0, // mov cr0, eax
  ]
  page.set(real, 0)
  page.set([0x66, 0xea, ...dword(place.code), 0x10, 0x00], real.length) // jmp dword 0x10:code page
  page.set([gdtLimit & 0xff, gdtLimit >> 8, ...dword(place.gdt)], 0xf0)
  return page
}
