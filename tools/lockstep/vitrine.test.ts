/** Our machine beside QEMU, on small guests that take the paths a boot takes: exceptions, rings, paging, interrupts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatParting } from '../../src/insight/lockstep/report.ts'
import type { RawMode } from '../../src/insight/lockstep/start.ts'
import { followQemu } from './follow-qemu.ts'
import type { FollowResult } from './follow-qemu.ts'
import { Qemu } from './qemu.ts'
import { assemble } from './rom.ts'
import { startOfMachine } from './transplant.ts'
import { HeldMachine } from './vitrine.ts'

const MEMORY = 16 * 2 ** 20
const AT = 0x100000

async function follow(mode: RawMode, at: number, source: string): Promise<FollowResult & { machine: HeldMachine }> {
  const machine = new HeldMachine({ memory: MEMORY, raw: { image: assemble(source, at), at, mode } })
  const qemu = await Qemu.launch({ memory: MEMORY, start: startOfMachine(machine, MEMORY), cpu: 'max' })
  try {
    const result = await followQemu(qemu, machine, {
      memory: MEMORY,
      maxInstructions: 100_000,
      history: 12,
      ignore: new Set(),
      allowLoads: 0,
      floating: false,
      quietAfter: 700,
      onRemark: (text) => assert.fail(text),
    })
    if (result.parting) {
      const names = { left: 'Vitrine', right: 'QEMU' }
      assert.fail(await formatParting(result.parting, names, (linear, length) => result.follower.readLinear(linear, length)))
    }
    assert.equal(result.kind, 'quiet', 'the guest ends in HLT')
    return { ...result, machine }
  } finally {
    qemu.close()
  }
}

/** An interrupt gate for each of 256 vectors, all to `handler`; a TSS; the GDT grown by user segments and the TSS. */
const LONG_MODE_SETUP = `
    .code64
    .globl _start
_start:
    lea stack_top(%rip), %rsp
    lea handler(%rip), %rax
    lea idt(%rip), %rdi
    mov $256, %ecx
1:  mov %ax, (%rdi)
    mov %cs, %dx
    mov %dx, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    mov %rax, %rbx
    shr $16, %rbx
    mov %bx, 6(%rdi)
    shr $16, %rbx
    mov %ebx, 8(%rdi)
    add $16, %rdi
    loop 1b
    lidt idtr(%rip)
    lea tss(%rip), %rax
    mov %ax, gdt+42(%rip)
    shr $16, %rax
    mov %al, gdt+44(%rip)
    mov %ah, gdt+47(%rip)
    lea stack_top(%rip), %rax
    mov %rax, tss+4(%rip)
    lgdt gdtr(%rip)
    push $8
    lea 2f(%rip), %rax
    push %rax
    lretq
2:  mov $0x10, %ax
    mov %ax, %ss
    mov $0x28, %ax
    ltr %ax
    lea idt(%rip), %rdi
    mov $256, %ecx
3:  movw $8, 2(%rdi)
    add $16, %rdi
    loop 3b
`

const LONG_MODE_DATA = `
    .balign 16
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890000000067, 0
gdtr: .word 55
    .quad gdt
idtr: .word 4095
    .quad idt
    .balign 16
tss: .fill 104, 1, 0
    .balign 4096
idt: .fill 4096, 1, 0
    .fill 4096, 1, 0
stack_top:
`

test('arithmetic, REP and stack in real mode', async () => {
  const result = await follow('real16', 0x7c00, `.code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov $0x7000, %sp
    mov $500, %cx
1:  add %cx, %ax
    adc $0x1234, %bx
    imul $77, %bx, %dx
    push %dx
    rcr $3, %ax
    pop %si
    loop 1b
    mov $0x6000, %di
    mov $300, %cx
    rep stosw
    mov $0x6000, %si
    mov $0x6800, %di
    mov $50, %cx
    rep movsb
    int $0x20
    cli
    hlt
    .org 0x80
    iret
  `.replace('int $0x20', 'movw $0x7c80, 0x80\n movw $0, 0x82\n int $0x20'))
  assert.ok(result.count > 3500)
})

test('faults, traps and traps of the debugger in 64-bit mode: each is delivered alike and returned from', async () => {
  const result = await follow('long64', AT, `${LONG_MODE_SETUP}
    int $0x80
    int3
    xor %edx, %edx
    mov $5, %eax
    xor %ebx, %ebx
    div %ebx                    # DE: the handler steps over two bytes
    ud2
    movabs $0x7fffffff0000, %rsi
    mov (%rsi), %al             # PF, not present
    movabs $0x800000000000, %rsi
    mov (%rsi), %al             # GP, not canonical
    mov %rsp, %rbp
    pushf
    orl $0x100, (%rsp)
    popf                        # TF: DB after the next instruction
    nop
    cli
    hlt

handler:                        # R15 counts; faults are stepped over by two bytes, by the vector that the stack tells
    inc %r15
    testl $0xffff0000, (%rsp)   # an error code is small, an address is not: all code lies above 64 KiB
    jnz 1f
    pop %r14
    addq $2, (%rsp)
    iretq
1:  mov (%rsp), %r13
    cmpw $0xf3f7, (%r13)
    je 2f
    cmpw $0x0b0f, (%r13)
    je 2f
    andl $~0x100, 16(%rsp)
    iretq
2:  addq $2, (%rsp)
    iretq
    ${LONG_MODE_DATA}`)
  assert.equal(result.machine.registers().gpr[15], 7n, 'INT 80h, INT3, DE, UD, PF, GP, DB')
})

test('ring 3 and back by IRET, SYSCALL and an exception', async () => {
  await follow('long64', AT, `${LONG_MODE_SETUP}
    orb $4, 0x71000             # user rights for the first 2 MiB, whatever the tables are
    mov %cr3, %rax
    orq $4, (%rax)
    mov (%rax), %rbx
    and $~0xfff, %rbx
    orq $4, (%rbx)
    mov (%rbx), %rbx
    and $~0xfff, %rbx
    orq $4, (%rbx)
    mov %cr3, %rax
    mov %rax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $1, %eax
    wrmsr
    mov $0xc0000081, %ecx
    xor %eax, %eax
    mov $0x00100008, %edx       # SYSCALL: CS 8, SS 10h; SYSRET: CS 23h, SS 1Bh
    wrmsr
    mov $0xc0000082, %ecx
    lea entry(%rip), %rax
    xor %edx, %edx
    wrmsr
    mov $0xc0000084, %ecx
    mov $0x700, %eax
    wrmsr
    push $0x23
    lea -1024(%rsp), %rax
    push %rax
    push $0x2
    push $0x1b
    lea user(%rip), %rax
    push %rax
    iretq
user:
    mov $7, %edi
    add %rdi, %rdi
    syscall
    hlt                         # GP at CPL 3: to the handler
entry:
    mov %rcx, %r12
    mov %r11, %r13
    pushq $0x23
    pushq %rsp
    pushq %r11
    pushq $0x1b
    pushq %r12
    iretq
handler:
    cli
    hlt
    ${LONG_MODE_DATA}`)
})

test('interrupts of QEMU\'s timer are delivered here where they came there', async () => {
  const result = await follow('long64', AT, `${LONG_MODE_SETUP}
    mov $0xfee00000, %eax       # virtual wire: the local APIC's LINT0 takes the 8259's interrupts
    movl $0x1ff, 0xf0(%rax)
    movl $0x700, 0x350(%rax)
    mov $0x11, %al
    out %al, $0x20
    mov $0x20, %al
    out %al, $0x21
    mov $4, %al
    out %al, $0x21
    mov $1, %al
    out %al, $0x21
    mov $0xfe, %al
    out %al, $0x21              # IRQ 0 alone
    mov $0x34, %al
    out %al, $0x43
    mov $0x10, %al
    out %al, $0x40
    mov $0, %al
    out %al, $0x40              # 16 ticks: 13.4 us
    mov $0x300000, %edi
    sti
1:  mov $3, %ecx                # half of it in REP, which is interrupted
    rep stosb
    cmp $6, %r15
    jb 1b
    hlt
    cli
    hlt
handler:
    push %rax
    inc %r15
    mov $0x20, %al
    out %al, $0x20
    pop %rax
    iretq
    ${LONG_MODE_DATA}`)
  assert.ok((result.repairs.get('interrupt') ?? 0) >= 7, 'six while it ran, one in HLT')
})

test('a register that only one of the two models has faults on one side: the other side follows', async () => {
  const result = await follow('long64', AT, `${LONG_MODE_SETUP}
    mov $0xc0010010, %ecx       # AMD's SYSCFG: QEMU has it, our Intel model raises GP
    rdmsr
    mov $1, %esi
    cli
    hlt
handler:
    mov $2, %esi
    cli
    hlt
    ${LONG_MODE_DATA}`)
  assert.equal(result.machine.registers().gpr[6], 1n)
  assert.deepEqual([...result.repairs], [['rdmsr of another model', 1]])
})
