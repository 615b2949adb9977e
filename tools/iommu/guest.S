# A kernel for any PC that does what a list says, to ask devices and remapping units what they do. A multiboot 1 kernel; the list is its
# module: records of four words, { what, address, value, mask }. What it has to say goes to port E9h.

        .section .text
        .code32
        .align 4
        .long 0x1badb002, 0, -0x1badb002
        .globl _start
_start: cli
        cld
        mov $stack, %esp
        mov 24(%ebx), %esi              # mods_addr
        mov (%esi), %esi                # where the first module begins
        lgdt gdtr
        ljmp $8, $1f
1:      mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $stubs, %edx                # the IDT: each vector has a stub of 16 bytes
        mov $idt, %edi
2:      movzwl %dx, %eax
        or $0x80000, %eax
        mov %eax, (%edi)
        mov %edx, %eax
        mov $0x8e00, %ax
        mov %eax, 4(%edi)
        add $8, %edi
        add $16, %edx
        cmp $stubs + 256 * 16, %edx
        jne 2b
        lidt idtr
        mov $0xff, %al                  # the 8259As stay silent
        out %al, $0x21
        out %al, $0xa1
        sti

next:   mov (%esi), %eax
        mov 4(%esi), %ebx
        mov 8(%esi), %ecx
        mov 12(%esi), %edx
        add $16, %esi
        cmp $8, %eax
        ja end
        jmp *actions(, %eax, 4)

store:  mov %ecx, (%ebx)
        jmp next
wide:   movq -8(%esi), %mm0            # one access of 64 bits
        movq %mm0, (%ebx)
        jmp next
say:    mov (%ebx), %ebx
        call number
        jmp next
line:   mov $10, %al
        out %al, $0xe9
        jmp next
await:  pause                           # until the bits of the value are those of the mask
        mov (%ebx), %eax
        and %edx, %eax
        cmp %ecx, %eax
        jne await
        jmp next
clear:  mov %ebx, %edi
        xor %eax, %eax
        shr $2, %ecx
        rep stosl
        jmp next
port:   mov %ebx, %edx
        mov %ecx, %eax
        out %eax, %dx
        jmp next
taken:  mov $vectors, %edi              # interrupts since the last time, in their order
3:      cmp %edi, nextVector
        je 4f
        mov (%edi), %ebx
        call number
        add $4, %edi
        jmp 3b
4:      movl $vectors, nextVector
        jmp next
end:    mov $'E', %al
        out %al, $0xe9
        mov $10, %al
        out %al, $0xe9
        xor %eax, %eax
        mov $0x501, %edx
        out %al, %dx
        cli
        hlt

number: mov $8, %ecx
5:      rol $4, %ebx
        mov %ebx, %eax
        and $15, %eax
        mov digits(%eax), %al
        out %al, $0xe9
        loop 5b
        mov $' ', %al
        out %al, $0xe9
        ret

interrupted:
        push %eax
        push %edi
        mov 8(%esp), %eax
        cmp $32, %eax
        jb end                          # an exception of ours
        mov nextVector, %edi
        cmp $vectors + 64, %edi
        je 6f
        mov %eax, (%edi)
        addl $4, nextVector
6:      movl $0, 0xfee000b0             # EOI
        pop %edi
        pop %eax
        add $4, %esp
        iret

        .balign 16
stubs:  .set vector, 0
        .rept 256
        .balign 16
        pushl $vector
        jmp interrupted
        .set vector, vector + 1
        .endr

        .balign 8
actions: .long end, store, say, line, await, clear, port, taken, wide
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long gdt
idtr:   .word 2047
        .long idt
digits: .ascii "0123456789abcdef"
        .balign 4
nextVector: .long vectors
        .section .bss
        .balign 16
idt:    .skip 2048
vectors: .skip 64
        .skip 4096
stack:
