/**
 * A bare hypervisor for any PC with AMD-V: it runs the guests that a table describes, and writes to port E9h what each #VMEXIT changed in
 * the VMCB, in the guest's memory, in its page tables of both stages and in the registers. AMD APM vol. 2, "Secure Virtual Machine".
 *
 *   X case step [offset value]...   a #VMEXIT: what is not as it was, as offsets into the arena
 *   E case vector                   an exception of the hypervisor itself: the table asked for too much
 *
 * Every case begins with the same arena. A step writes to it, then runs the guest to its next exit.
 */
import { interruptTable } from '../interrupt-table.ts'
import { rawStart, type StartState } from '../../src/insight/lockstep/start.ts'
import type { Guest } from '../vmcs/guest.ts'
import { assemble } from '../lockstep/rom.ts'
import { initialArena, inArena, place } from './arena.ts'

export const origin = 0x100000
const pristineAt = 0x140000
const tableAt = 0x200000
const shadowAt = 0x30000
const hostAt = { idt: 0x50000, save: 0x51000, state: 0x52000, stack: 0x5f000 } as const
const compared = (inArena.compared / 8) | 0
const gprs = 'rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')
const slot = (i: number): number => place.registers + 8 + i * 8
const apic = { end: 0xfee000b0, spurious: 0xfee000f0, timer: 0xfee00320, count: 0xfee00380, divide: 0xfee003e0 } as const
/** A guest that does not leave by itself is interrupted, before its stack has grown over everything. */
const patience = 0x1000

/** One write of a step. `bytes` 16: the quadword at the address `value` is copied. */
export interface Poke {
  readonly address: number
  readonly bytes: 1 | 2 | 4 | 8 | 16
  readonly value: bigint
}
export type Step = readonly Poke[]
export type Case = readonly Step[]

const source = `
    .code64
    .globl _start
_start:
    mov $${hostAt.stack}, %rsp
${interruptTable(hostAt.idt, 0x18, 256)}    lidt idtr(%rip)
    mov %cr4, %rax
    or $0x600, %eax
    mov %rax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x1800, %eax
    wrmsr
    mov $0xc0010117, %ecx
    mov $${hostAt.save}, %eax
    xor %edx, %edx
    wrmsr
    mov $${hostAt.state}, %eax
    vmsave
    clgi
    sti
    mov $${apic.spurious}, %eax
    movl $0x1ff, (%rax)
    mov $${apic.divide}, %eax
    movl $0xb, (%rax)
    mov $${apic.timer}, %eax
    movl $0x40, (%rax)
    mov $${tableAt}, %ebp
nextCase:
    mov %rbp, table(%rip)
    cmpl $-3, (%rbp)
    je done
    incl case(%rip)
    movl $-1, step(%rip)
    mov $${pristineAt}, %esi
    mov $${place.arena}, %edi
    mov $${inArena.size / 8}, %ecx
    rep movsq
    xor %eax, %eax
    mov %rax, %dr0
    mov %rax, %dr1
    mov %rax, %dr2
    mov %rax, %dr3
    mov %rax, %cr2
    mov %rax, %cr8
    mov $0xffff0ff0, %eax
    mov %rax, %dr6
    fninit
    ldmxcsr mxcsr(%rip)
    pxor %xmm0, %xmm0
nextStep:
    incl step(%rip)
poke:
    mov (%rbp), %edi
    mov 4(%rbp), %ecx
    mov 8(%rbp), %rax
    add $16, %rbp
    cmp $-1, %edi
    je run
    cmp $-2, %edi
    je nextCase
    cmp $8, %ecx
    ja 3f
    je 4f
    cmp $2, %ecx
    ja 5f
    je 6f
    mov %al, (%rdi)
    jmp poke
6:  mov %ax, (%rdi)
    jmp poke
5:  mov %eax, (%rdi)
    jmp poke
3:  mov (%rax), %rax
4:  mov %rax, (%rdi)
    jmp poke

run:
    mov %rbp, table(%rip)
    mov $${place.arena}, %esi
    mov $${shadowAt}, %edi
    mov $${compared}, %ecx
    rep movsq
    mov $${apic.count}, %eax
    movl $${patience}, (%rax)
    ${gprs.map((name, i) => `mov ${slot(i)}, %${name}`).join('\n    ')}
    mov $${place.vmcb}, %eax
    vmload
    vmrun
    vmsave
    ${gprs.map((name, i) => `mov %${name}, ${slot(i)}`).join('\n    ')}
    mov $${hostAt.state}, %eax
    vmload
    mov $${apic.count}, %eax
    movl $0, (%rax)
    cld
    ${['dr6', 'dr7', 'cr2', 'cr8', 'dr0'].map((name, i) =>
      `mov %${name}, %rax\n    mov %rax, ${place.registers + 0x80 + i * 8}`).join('\n    ')}
    stgi
    nop
    nop
    clgi
    mov $'X', %al
    out %al, $0xe9
    mov case(%rip), %edx
    call number
    mov step(%rip), %edx
    call number
    mov $${shadowAt}, %esi
    mov $${place.arena}, %edi
    mov $${compared}, %r8d
    mov $120, %r9d
7:  mov %r8d, %ecx
    test %ecx, %ecx
    jz 8f
    repe cmpsq
    mov %ecx, %r8d
    je 8f
    lea -${place.arena + 8}(%rdi), %rdx
    call number
    mov -8(%rdi), %rdx
    call number
    dec %r9d
    jnz 7b
8:  call newline
    mov table(%rip), %rbp
    jmp nextStep

done:
    mov $'D', %al
    out %al, $0xe9
    call newline
    mov $0x8900, %dx
    lea shutdown(%rip), %rsi
    mov $8, %ecx
    rep outsb
    stgi
    cli
    hlt

newline: mov $10, %al
    out %al, $0xe9
    ret
/* a space, then RDX without leading zeroes */
number:
    mov $32, %al
    out %al, $0xe9
    mov $60, %cl
9:  mov %rdx, %rax
    shr %cl, %rax
    jnz 10f
    sub $4, %cl
    ja 9b
10: mov %rdx, %rax
    shr %cl, %rax
    and $15, %al
    add $48, %al
    cmp $58, %al
    jb 11f
    add $39, %al
11: out %al, $0xe9
    sub $4, %cl
    jae 10b
    ret

    .balign 16
stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .if vector == 2
    iretq
    .else
    mov $vector, %edx
    jmp broken
    .endif
    .set vector, vector + 1
    .endr
    .rept 224
    .balign 16
    push %rax
    mov $${apic.end}, %eax
    movl $0, (%rax)
    pop %rax
    iretq
    .endr
    .balign 16
broken:
    mov $${hostAt.stack}, %rsp
    mov %rdx, %rbx
    mov $'E', %al
    out %al, $0xe9
    mov case(%rip), %edx
    call number
    mov %rbx, %rdx
    call number
    call newline
    mov table(%rip), %rbp
13: cmpl $-2, (%rbp)
    lea 16(%rbp), %rbp
    jne 13b
    jmp nextCase

idtr: .word 4095; .quad ${hostAt.idt}
shutdown: .ascii "Shutdown"
    .balign 8
mxcsr: .long 0x1f80
    .balign 8
table: .quad 0
case: .long -1
step: .long 0
`

const ends = { step: 0xffffffffn, ofCase: 0xfffffffen, all: 0xfffffffdn } as const
function tableOf(cases: readonly Case[]): Uint8Array {
  const words: bigint[] = []
  for (const steps of cases) {
    for (const step of steps) {
      for (const { address, bytes, value } of step) words.push(BigInt(address) | (BigInt(bytes) << 32n), BigInt.asUintN(64, value))
      words.push(ends.step, 0n)
    }
    words.push(ends.ofCase, 0n)
  }
  words.push(ends.all, 0n)
  return new Uint8Array(BigUint64Array.from(words).buffer)
}

let assembled: Uint8Array | undefined

export function makeGuest(cases: readonly Case[]): Guest {
  const code = (assembled ??= assemble(source, origin))
  const table = tableOf(cases)
  const image = new Uint8Array(tableAt - origin + table.length)
  image.set(code)
  image.set(initialArena(), pristineAt - origin)
  image.set(table, tableAt - origin)
  const start: StartState = rawStart(image.subarray(0, pristineAt - origin + inArena.size), origin, 'long64')
  start.memory.push({ address: tableAt, bytes: table })
  return { start, image }
}
