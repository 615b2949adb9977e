/** Assembly that our small 64-bit hypervisors share. */

/** Gates of 64-bit interrupts to an IDT, for handlers of 16 bytes each from the label `stubs` on. Changes RAX, RCX, RDX and RDI. */
export const interruptTable = (address: number, selector: number, count: number): string => `
    mov $${address}, %rdi
    lea stubs(%rip), %rax
    mov $${count}, %ecx
8:  mov %ax, (%rdi)
    movw $${selector}, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    mov %rax, %rdx
    shr $16, %rdx
    mov %dx, 6(%rdi)
    movq $0, 8(%rdi)
    add $16, %rdi
    add $16, %rax
    dec %ecx
    jnz 8b
`
