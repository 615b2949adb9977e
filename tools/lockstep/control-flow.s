# Shadow stacks, their tokens and pages, the tracker, and every error code of #CP, in 64-bit mode at levels 0 and 3. Intel SDM vol. 1,
# "Control-flow Enforcement Technology". Instructions that older assemblers do not know are bytes.
.code64
.set CODE, 0x100000
.set SS0, 0x1f0ff8
.set SS1, 0x1f1ff8
.set SSIST, 0x1f2ff8
.set SSU, 0x1f5000
.globl _start
_start:
  cli
  mov $stack_top, %rsp
  xor %r15d, %r15d
# tokens: while the pages can still be written (CR0.WP = 0)
  mov %cr0, %rax
  and $~0x10000, %rax
  mov %rax, %cr0
  mov $pml4, %eax
  mov %rax, %cr3
  mov $SS0, %eax
  mov %rax, (%rax)
  mov $SSIST, %eax
  mov %rax, (%rax)
  mov $SS1, %eax
  lea 9(%rax), %rcx          # a restore token: the address above, bit 0
  mov %rcx, (%rax)
  mov %cr0, %rax
  or $0x10000, %rax
  mov %rax, %cr0
  lgdt gdtr
  pushq $8
  pushq $1f
  lretq
1:
  mov $0x10, %eax
  mov %eax, %ss
  mov %eax, %ds
  mov %eax, %es
  mov $tss+4, %edi
  movq $stack_top, (%rdi)
  mov $tss+0x24, %edi
  movq $ist_top, (%rdi)
  mov $0x28, %eax
  ltr %ax
# IDT
  mov $gates, %esi
  mov $8, %ecx
2:
  mov (%rsi), %eax
  mov 4(%rsi), %edx
  mov 8(%rsi), %ebx
  shl $4, %eax
  lea idt(%rax), %edi
  mov %dx, (%rdi)
  movw $8, 2(%rdi)
  mov %bx, 4(%rdi)
  shr $16, %edx
  mov %dx, 6(%rdi)
  movl $0, 8(%rdi)
  movl $0, 12(%rdi)
  add $12, %esi
  dec %ecx
  jnz 2b
  lidt idtr
# MSRs
  mov $0xc0000080, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $0xc0000081, %ecx
  xor %eax, %eax
  mov $0x00130008, %edx
  wrmsr
  mov $0xc0000082, %ecx
  mov $syscall_entry, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000084, %ecx
  xor %eax, %eax
  wrmsr
  mov %cr4, %rax
  or $0x800000, %rax
  mov %rax, %cr4
  xor %edx, %edx
  mov $0x6a4, %ecx
  mov $SS0, %eax
  wrmsr
  mov $0x6a7, %ecx
  mov $SSU, %eax
  wrmsr
  mov $0x6a8, %ecx
  mov $ssp_table, %eax
  wrmsr
  mov $0x6a0, %ecx
  mov $7, %eax
  wrmsr
  mov $0x6a2, %ecx
  mov $0x17, %eax
  wrmsr
  .byte 0xf3,0x0f,0x01,0xe8      # setssbsy
  .byte 0xf3,0x48,0x0f,0x1e,0xc8 # rdsspq rax
  mov (%rax), %rbx
# calls
  call f
  mov $f_endbr, %eax
  call *%rax
  mov $3f, %eax
  jmp *%rax
  nop
3: endbr64
  mov $4f, %eax
  notrack jmp *%rax
  nop
4:
  call 5f
5: pop %rcx
# leave a function without its return
  call g
  endbr64
# events
  int $0x40
  int $0x41
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
# another stack and back
  mov $SS1, %edi
  .byte 0xf3,0x0f,0x01,0x2f      # rstorssp (rdi)
  .byte 0xf3,0x0f,0x01,0xea      # saveprevssp
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  call f
  mov $SS0-8, %edi
  mov (%rdi), %rbx
  .byte 0xf3,0x0f,0x01,0x2f
  .byte 0xf3,0x0f,0x01,0xea
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
# wrss
  mov $SS0-64, %edi
  mov $0x12345678, %eax
  .byte 0x48,0x0f,0x38,0xf6,0x07 # wrssq
  .byte 0x0f,0x38,0xf6,0x47,0x04 # wrssd 4(rdi)
  mov (%rdi), %rbx
  mov $SSU-64, %edi
  .byte 0x66,0x48,0x0f,0x38,0xf5,0x07 # wrussq
  mov (%rdi), %rbx
# far
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  lcall *far_pointer
  lcall *far_hole
# faults: r14 is where to go on
  mov $10f, %r14d
  call spoil                      # CP(1)
10: endbr64
  mov $11f, %r14d
  mov $no_endbr, %eax
  jmp *%rax                       # CP(3)
11: endbr64
  mov $12f, %r14d
  mov $SS1-16, %edi
  .byte 0xf3,0x0f,0x01,0x2f      # CP(4)
12: endbr64
  mov $13f, %r14d
  mov $SS0, %edi
  lea 1(%rdi), %rax
  .byte 0x48,0x0f,0x38,0xf6,0x07 # Bochs frees the token of the stack in use at every IRET within level 0
  .byte 0xf3,0x0f,0x01,0xe8      # CP(5): busy
13: endbr64
  mov $14f, %r14d
  mov $stack_top-64, %edi
  .byte 0x48,0x0f,0x38,0xf6,0x07 # PF: not a shadow stack
14: endbr64
  mov $15f, %r14d
  mov $SS0-64, %edi
  mov %rax, (%rdi)                # PF: a plain store there
15: endbr64
  mov $16f, %r14d
  mov $SSU-64, %edi
  .byte 0x48,0x0f,0x38,0xf6,0x07 # PF: a user's
16: endbr64
  mov $17f, %r14d
  mov $SS0-60, %edi
  .byte 0x48,0x0f,0x38,0xf6,0x07 # GP: not aligned
17: endbr64
  mov $18f, %r14d
  int $0x43                       # IRET to a spoiled address: CP(2)
18: endbr64
# to the user, with nothing left on the shadow stack
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov $SS0, %ecx
  sub %rax, %rcx
  shr $3, %ecx
  mov %rcx, %rax
  .byte 0xf3,0x48,0x0f,0xae,0xe8
  mov $SS0, %edi
  lea 1(%rdi), %rax
  .byte 0x48,0x0f,0x38,0xf6,0x07 # Bochs frees the token of the stack in use at every IRET within level 0
  pushq $0x1b
  pushq $user_top
  pushq $0x202 & ~0x200
  pushq $0x23
  pushq $user
  iretq
user:
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  call f
  mov $uf, %eax
  call *%rax
  mov $1, %eax
  call 20f
  nop
20: .byte 0xf3,0x48,0x0f,0xae,0xe8 # incsspq rax
  pop %rcx
  syscall
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  int $0x42
uf: endbr64
  ret
syscall_entry:
  endbr64
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  .byte 0xf3,0x0f,0x01,0xe8      # setssbsy
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov $SS0, %edi
  mov %rdi, %rax
  .byte 0x48,0x0f,0x38,0xf6,0x07 # frees it: Bochs 2.7 says the opposite of what CLRSSBSY's CF means
  sysretq
f_endbr: endbr64
f: .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov (%rax), %rbx
  ret
g: pop %rcx
  mov $1, %eax
  .byte 0xf3,0x48,0x0f,0xae,0xe8 # incsspq rax
  jmp *%rcx
far_function: endbr64
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov (%rax), %rbx
  mov 8(%rax), %rbx
  mov 16(%rax), %rbx
  lretl
spoil:
  incq (%rsp)
  ret
no_endbr: nop
event: endbr64
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov (%rax), %rbx
  mov 8(%rax), %rbx
  mov 16(%rax), %rbx
  iretq
event_last: endbr64
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov $0x6a7, %ecx
  rdmsr
  mov $0x6a0, %ecx
  rdmsr
  mov $0x6a2, %ecx
  rdmsr
  mov $0x1ee, %ebx
done: hlt
  jmp done
event_spoils: endbr64
  incq (%rsp)
  iretq
# with an error code: goes on at r14, on both stacks, and drops what a spoiled call left there
fault: endbr64
  pop %r13
  shl $8, %r15
  or %r13, %r15
  mov %r14, (%rsp)
  .byte 0xf3,0x48,0x0f,0x1e,0xc8
  mov 8(%rax), %rbx
  lea 8(%rax), %rdi
  mov %r14, %rax
  .byte 0x48,0x0f,0x38,0xf6,0x07
  mov %cr2, %rdx
  iretq

.balign 8
gates:
  .long 13, fault, 0x8e00
  .long 14, fault, 0x8e00
  .long 21, fault, 0x8e00
  .long 0x40, event, 0xee00
  .long 0x41, event, 0xee01
  .long 0x42, event_last, 0xee00
  .long 0x43, event_spoils, 0xee00
  .long 8, done, 0x8e00
.balign 8
far_pointer: .long far_function
  .word 8
.balign 8
far_hole: .long far_function
  .word 8
.balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0x0000890000000067 | ((tss_low & 0xffffff) << 16), 0
gdtr: .word . - gdt - 1
  .quad gdt
idtr: .word 0xfff
  .quad idt
.balign 8
ssp_table: .quad 0, SSIST, 0, 0, 0, 0, 0, 0
.balign 4096
pml4: .quad pdpt + 7
  .fill 511, 8, 0
pdpt: .quad directory + 7
  .fill 511, 8, 0
directory: .quad table + 0x67
  .fill 511, 8, 0
table:
.set page, 0
.rept 512
.if page >= 0x1f0000 && page < 0x1f4000
  .quad page + 0x61
.elseif page >= 0x1f4000 && page < 0x1f6000
  .quad page + 0x65
.else
  .quad page + 0x67
.endif
.set page, page + 4096
.endr
idt: .fill 4096, 1, 0
.set tss_low, CODE + (tss - _start)
tss: .fill 4096, 1, 0
  .fill 4096, 1, 0
stack_top: .fill 4096, 1, 0
ist_top: .fill 4096, 1, 0
user_top: .fill 16, 1, 0
