# The smallest thing to boot: in real mode, says on the first serial port which CPU it runs on, and powers the machine off through ACPI.
# Intel SDM vol. 2 "CPUID", 16550 data sheet (line status register), ACPI "PM1 Control Registers".
        .code16
        .globl _start
_start: xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        cld
        mov $name, %di
        mov $0x80000002, %esi           # brand string: three leaves of sixteen characters
1:      mov %esi, %eax
        cpuid
        stosl
        xchg %eax, %ebx
        stosl
        xchg %eax, %ecx
        stosl
        xchg %eax, %edx
        stosl
        inc %esi
        cmp $0x80000005, %esi
        jb 1b
        mov $first, %si
        call print
        mov $name, %si
        call print
        mov $last, %si
        call print
        mov $0x604, %dx                 # PM1a control: sleep type 0 is S5, bit 13 goes there
        mov $0x2000, %ax
        out %ax, %dx
2:      hlt
        jmp 2b

print:  lodsb
        test %al, %al
        jz 4f
        mov %al, %ah
        mov $0x3fd, %dx
3:      in %dx, %al                     # wait until the transmitter's holding register is empty
        test $0x20, %al
        jz 3b
        mov $0x3f8, %dx
        mov %ah, %al
        out %al, %dx
        jmp print
4:      ret

first:  .asciz "\r\n  Hello from under the glass.\r\n\r\n  This is a PC in real mode, on a\r\n  "
last:   .asciz ".\r\n  Its first instruction was at 7C00h; its last one powers it off.\r\n\r\n"
name:   .skip 49, 0
