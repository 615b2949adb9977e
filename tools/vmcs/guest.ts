/**
 * A bare hypervisor for any PC: it tries VM entries with the VMCSs that a table describes, and writes to port E9h what each came to.
 * Intel SDM vol. 3, "Preparation and Launching a Virtual Machine".
 *
 *   M index value       a capability MSR
 *   F case error        the entry failed: VM-instruction error
 *   I case              VMfailInvalid
 *   X case reason qual  a VM exit
 *   E vector            an exception of the hypervisor itself: the table asked for too much
 */
import { interruptTable } from '../interrupt-table.ts'
import { rawStart, type StartState } from '../../src/insight/lockstep/start.ts'
import { fields, type FieldName } from '../../src/virt/vmx/fields.ts'
import { assemble } from '../lockstep/rom.ts'

export type Write = readonly [FieldName, bigint]

export const origin = 0x100000
const tableAt = 0x200000
const hostExitAt = 16
/** Physical addresses of what the processor uses. */
export const place = { vmxon: 0x110000, vmcs: 0x111000, gdt: 0x112000, idt: 0x113000, tss: 0x114000, guestStack: 0x116000, guest: 0x117000,
  hostStack: 0x119000, pages: 0x71000 } as const

const capabilities = Array.from({ length: 0x11 }, (_, i) => 0x480 + i)

const source = `
    .code64
    .globl _start
_start:
    jmp begin
    .org ${hostExitAt}
    jmp hostExit
begin:
    mov $${place.hostStack}, %rsp
    mov $${place.gdt}, %rdi
    lea gdt(%rip), %rsi
    mov $${5 * 8}, %ecx
    rep movsb
    lgdt gdtr(%rip)
    call makeIdt
    lidt idtr(%rip)
    mov $0x18, %ax
    ltr %ax
    mov $${place.guest}, %rdi
    mov $0xcc, %al
    mov $4096, %ecx
    rep stosb
    movl $0xccc1010f, ${place.guest}
    mov $0x3a, %ecx
    rdmsr
    test $1, %al
    jnz 1f
    or $5, %eax
    wrmsr
1:  mov %cr4, %rax
    or $0x2000, %rax
    mov %rax, %cr4
    mov %cr0, %rax
    or $0x20, %rax
    mov %rax, %cr0
    mov $0x480, %ebx
2:  mov %ebx, %ecx
    rdmsr
    shl $32, %rdx
    or %rax, %rdx
    mov %rdx, %r14
    mov $'M', %al
    call letter
    mov %rbx, %rdx
    call number
    mov %r14, %rdx
    call number
    call newline
    inc %ebx
    cmp $${0x480 + capabilities.length}, %ebx
    jb 2b
    mov $0x480, %ecx
    rdmsr
    and $0x7fffffff, %eax
    mov %eax, %r15d
    mov %r15d, revision(%rip)
    mov %r15d, ${place.vmxon}
    movq $${place.vmxon}, pointer(%rip)
    vmxon pointer(%rip)
    mov $${tableAt}, %rbp
    // the first list is the VMCS that all cases begin with
3:  cmpl $-1, (%rbp)
    lea 16(%rbp), %rbp
    jne 3b
    mov %rbp, next(%rip)
case:
    mov next(%rip), %rbp
    cmpl $-2, (%rbp)
    je done
    incl number_(%rip)
    mov $${place.vmcs}, %rdi
    xor %eax, %eax
    mov $4096, %ecx
    rep stosb
    mov revision(%rip), %r15d
    mov %r15d, ${place.vmcs}
    movq $${place.vmcs}, pointer(%rip)
    vmclear pointer(%rip)
    vmptrld pointer(%rip)
    mov $${tableAt}, %esi
    call fill
    mov %rbp, %rsi
    call fill
    mov %rsi, next(%rip)
    vmlaunch
    jc 4f
    mov $'F', %al
    call caseLetter
    mov $0x4400, %eax
    vmread %rax, %rdx
    call number
    call newline
    jmp case
4:  mov $'I', %al
    call caseLetter
    call newline
    jmp case
done:
    mov $'D', %al
    call letter
    call newline
    mov $0x8900, %dx
    lea shutdown(%rip), %rsi
    mov $8, %ecx
    rep outsb
    cli
    hlt

    .balign 16
hostExit:
    cld
    lgdt gdtr(%rip)
    lidt idtr(%rip)
    mov $'X', %al
    call caseLetter
    mov $0x4402, %eax
    vmread %rax, %rdx
    call number
    mov $0x6400, %eax
    vmread %rax, %rdx
    call number
    call newline
    jmp case

fill:
    mov (%rsi), %eax
    mov 8(%rsi), %rdx
    add $16, %rsi
    cmp $-1, %eax
    je 5f
    vmwrite %rdx, %rax
    jmp fill
5:  ret

caseLetter:
    out %al, $0xe9
    mov number_(%rip), %edx
    jmp number
letter: out %al, $0xe9
    ret
newline: mov $10, %al
    out %al, $0xe9
    ret
number:
    mov $32, %al
    out %al, $0xe9
    mov $16, %ecx
6:  rol $4, %rdx
    mov %dl, %al
    and $15, %al
    add $48, %al
    cmp $58, %al
    jb 7f
    add $39, %al
7:  out %al, $0xe9
    dec %ecx
    jnz 6b
    ret

makeIdt:
${interruptTable(place.idt, 8, 32)}    ret

    .balign 16
stubs:
    .set vector, 0
    .rept 32
    .balign 16
    mov $vector, %edx
    jmp broken
    .set vector, vector + 1
    .endr
    .balign 16
broken:
    mov $${place.hostStack}, %rsp
    mov %rdx, %r14
    mov $'E', %al
    call letter
    mov %r14, %rdx
    call number
    call newline
    jmp done

    .balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x0000891140000067, 0
gdtr: .word 39; .quad ${place.gdt}
idtr: .word 511; .quad ${place.idt}
shutdown: .ascii "Shutdown"
    .balign 8
pointer: .quad 0
next: .quad 0
number_: .long -1
revision: .long 0
`

const end = 0xffffffffn
function tableOf(lists: readonly (readonly Write[])[]): Uint8Array {
  const words: bigint[] = []
  for (const list of lists) {
    for (const [name, value] of list) words.push(BigInt(fields[name].encoding), value)
    words.push(end, 0n)
  }
  words.push(end - 1n, 0n)
  return new Uint8Array(BigUint64Array.from(words).buffer)
}

/** 64-bit code and the same page tables on both sides; the least of controls, but the preemption timer and every exception. No IDT. */
function baseline(): Write[] {
  const list: Write[] = [
    ['pinControls', 0x56n], ['primaryControls', 0x04006172n], ['exitControls', 0x36ffbn], ['entryControls', 0x13fbn],
    ['exceptionBitmap', 0xffffffffn], ['preemptionTimer', 0x1000n], ['entryMsrLoadAddress', BigInt(place.guest)],
    ['vmcsLinkPointer', 0xffff_ffff_ffff_ffffn],
    ['hostCr0', 0x80000031n], ['hostCr3', BigInt(place.pages)], ['hostCr4', 0x2620n], ['hostCsSelector', 8n], ['hostSsSelector', 0x10n],
    ['hostDsSelector', 0x10n], ['hostEsSelector', 0x10n], ['hostTrSelector', 0x18n], ['hostGdtrBase', BigInt(place.gdt)],
    ['hostIdtrBase', BigInt(place.idt)], ['hostTrBase', BigInt(place.tss)], ['hostRip', BigInt(origin + hostExitAt)],
    ['hostRsp', BigInt(place.hostStack)], ['hostEfer', 0x500n], ['hostPat', 0x0007040600070406n],
    ['guestCr0', 0x80000031n], ['guestCr3', BigInt(place.pages)], ['guestCr4', 0x2620n], ['guestEfer', 0x500n],
    ['guestPat', 0x0007040600070406n], ['guestRflags', 2n], ['guestRip', BigInt(place.guest)], ['guestRsp', BigInt(place.guestStack)],
    ['guestGdtrBase', BigInt(place.gdt)], ['guestGdtrLimit', 39n], ['guestIdtrBase', BigInt(place.guest)], ['guestIdtrLimit', 0n],
    ['guestDr7', 0x400n], ['guestTrSelector', 0x18n], ['guestTrBase', BigInt(place.tss)], ['guestTrLimit', 0x67n],
    ['guestTrAccessRights', 0x8bn], ['guestLdtrAccessRights', 0x10000n], ['guestCsSelector', 8n], ['guestCsAccessRights', 0xa09bn],
    ['guestCsLimit', 0xffffffffn],
  ]
  for (const name of ['Es', 'Ss', 'Ds', 'Fs', 'Gs'] as const)
    list.push([`guest${name}Selector`, 0x10n], [`guest${name}AccessRights`, 0xc093n], [`guest${name}Limit`, 0xffffffffn])
  return list
}

/** The value of every field that is not 0 to begin with. */
export const initial: ReadonlyMap<FieldName, bigint> = new Map(baseline())

export interface Guest {
  readonly start: StartState
  /** All of it in one piece, to be loaded at `origin`. */
  readonly image: Uint8Array
}

let assembled: Uint8Array | undefined

export function makeGuest(cases: readonly (readonly Write[])[]): Guest {
  const code = (assembled ??= assemble(source, origin))
  const table = tableOf([[...initial], ...cases])
  const start = rawStart(code, origin, 'long64')
  start.memory.push({ address: tableAt, bytes: table })
  const image = new Uint8Array(tableAt - origin + table.length)
  image.set(code)
  image.set(table, tableAt - origin)
  return { start, image }
}
