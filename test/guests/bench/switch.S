# World switches and nothing else: a multiboot kernel that is a hypervisor, whose guest executes CPUID for ever. AMD-V (AMD APM vol. 2,
# "Secure Virtual Machine") or, without it, VT-x with EPT and VPID (Intel SDM vol. 3, "Preparation and Launching a Virtual Machine").
# Build: gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 -Wl,-z,noexecstack -Wl,--build-id=none -o switch switch.S

        .set exits, 500000

        .section .text
        .code32
        .align 4
        .long 0x1badb002, 0, -0x1badb002
        .globl _start
_start: cli
        mov $stack, %esp
        # 1 GiB of identity, in pages of 2 MiB: ours, and the EPT's
        movl $pdpt + 7, pml4
        movl $pd + 7, pdpt
        movl $epdpt + 7, epml4
        movl $epd + 7, epdpt
        xor %ecx, %ecx
1:      mov %ecx, %eax
        shl $21, %eax
        or $0x87, %eax
        mov %eax, pd(, %ecx, 8)
        or $0x30, %eax
        mov %eax, epd(, %ecx, 8)
        inc %ecx
        cmp $512, %ecx
        jne 1b
        mov $pml4, %eax
        mov %eax, %cr3
        mov $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax                 # EFER.LME
        wrmsr
        mov $0x80000031, %eax           # PG, NE, ET, PE
        mov %eax, %cr0
        lgdt gdtr
        ljmp $8, $long

        .code64
long:   mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        mov $stack, %esp
        mov $0x3fb, %edx                # the serial port's line control: 8 bits
        mov $3, %al
        out %al, %dx
        mov $0x80000000, %eax
        cpuid
        cmp $0x80000001, %eax
        jb intel
        mov $0x80000001, %eax
        cpuid
        test $4, %ecx
        jnz amd
intel:  mov $1, %eax
        cpuid
        test $32, %ecx
        jnz vmx
        mov $none, %esi
        call print
        jmp done

# ---- AMD-V ----

amd:    mov $0xc0000080, %ecx
        rdmsr
        or $0x1000, %eax                # EFER.SVME
        wrmsr
        mov $0xc0010117, %ecx           # VM_HSAVE_PA
        mov $save, %eax
        xor %edx, %edx
        wrmsr
        mov $vmcb, %edi
        movl $1 << 18, 0x0c(%rdi)       # CPUID
        movl $1, 0x10(%rdi)             # VMRUN
        movl $1, 0x58(%rdi)             # ASID
        mov $0x400, %ecx                # ES, CS, SS, DS
1:      movl $0x0c930010, (%rdi, %rcx)
        movl $-1, 4(%rdi, %rcx)
        add $16, %ecx
        cmp $0x440, %ecx
        jne 1b
        movl $0x0a9b0008, 0x410(%rdi)
        movl $0x27, 0x464(%rdi)
        movl $gdt, 0x468(%rdi)
        movl $0x1500, 0x4d0(%rdi)       # EFER
        movl $0x620, 0x548(%rdi)        # CR4
        movl $pml4, 0x550(%rdi)         # CR3
        movl $0x80000031, 0x558(%rdi)   # CR0
        movl $0x400, 0x560(%rdi)        # DR7
        movl $0xffff0ff0, %eax
        mov %rax, 0x568(%rdi)           # DR6
        movl $2, 0x570(%rdi)            # RFLAGS
        movl $guest, 0x578(%rdi)        # RIP
        movl $stack, 0x5d8(%rdi)        # RSP
        movl $0x00070406, 0x668(%rdi)   # G_PAT
        movl $0x00070406, 0x66c(%rdi)
        mov $begin, %esi
        call print
        mov $vmcb, %eax
        mov $exits, %ebx
1:      vmrun
        cmpq $0x72, 0x70(%rax)          # VMEXIT_CPUID
        jne failed
        addq $2, 0x578(%rax)
        dec %ebx
        jnz 1b
        jmp ended

# ---- VT-x ----

vmx:    mov %cr4, %rax
        or $0x2000, %eax                # VMXE
        mov %rax, %cr4
        mov $0x3a, %ecx                 # IA32_FEATURE_CONTROL
        rdmsr
        test $1, %eax
        jnz 1f
        or $5, %eax
        wrmsr
1:      mov $0x480, %ecx                # IA32_VMX_BASIC
        rdmsr
        and $0x7fffffff, %eax
        mov $vmxon_region, %edi
        mov %eax, (%rdi)
        mov $vmcs, %edi
        mov %eax, (%rdi)
        mov $pointers, %edi
        vmxon (%rdi)
        jbe failed
        vmclear 8(%rdi)
        vmptrld 8(%rdi)
        jbe failed
        mov $fields, %esi               # encodings and values
1:      mov (%rsi), %edx
        cmp $-1, %edx
        je 2f
        movslq 4(%rsi), %rax
        vmwrite %rax, %rdx
        jbe failed
        add $8, %esi
        jmp 1b
2:      mov $controls, %esi             # encodings, capability MSRs and bits that are wanted
3:      mov (%rsi), %ebx
        cmp $-1, %ebx
        je 4f
        mov 4(%rsi), %ecx
        rdmsr
        or 8(%rsi), %eax
        and %edx, %eax
        mov %eax, %eax
        vmwrite %rax, %rbx
        add $12, %esi
        jmp 3b
4:      mov $0x80000031, %eax
        mov $0x6800, %edx               # CR0 of the guest and of the host
        vmwrite %rax, %rdx
        mov $0x6c00, %edx
        vmwrite %rax, %rdx
        mov $begin, %esi
        call print
        mov $exits, %ebx
        vmlaunch
        jmp failed
left:   mov $0x4402, %edx               # exit reason
        vmread %rdx, %rax
        cmp $10, %eax                   # CPUID
        jne failed
        mov $0x681e, %edx               # RIP
        vmread %rdx, %rax
        add $2, %rax
        vmwrite %rax, %rdx
        dec %ebx
        jz ended
        vmresume
        jmp failed

# ---- both ----

guest:  cpuid
        jmp guest

failed: mov $wrong, %esi
        call print
        jmp done
ended:  mov $end, %esi
        call print
done:   mov $over, %esi
        call print
        mov $0x10, %eax
        out %al, $0xf4                  # isa-debug-exit, where there is one
1:      hlt
        jmp 1b

print:  lodsb
        test %al, %al
        jz 2f
        mov %al, %ah
        mov $0x3fd, %edx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        mov %ah, %al
        mov $0x3f8, %edx
        out %al, %dx
        jmp print
2:      ret

        .section .data
begin:  .asciz "@@START switch\n"
end:    .asciz "@@END switch check=500000\n"
wrong:  .asciz "@@END switch check=failed\n"
none:   .asciz "neither AMD-V nor VT-x\n"
over:   .asciz "@@DONE\n"
        .align 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x0000890000000067, 0
gdtr:   .word 39
        .long gdt
        .long 0
        .align 8
pointers:
        .long vmxon_region, 0, vmcs, 0
        # pin, primary (secondary controls), secondary (EPT, VPID), exit (64-bit host), entry (64-bit guest)
controls:
        .long 0x4000, 0x481, 0, 0x4002, 0x482, 0x80000000, 0x401e, 0x48b, 0x22, 0x400c, 0x483, 0x200, 0x4012, 0x484, 0x200, -1
fields: .long 0x0000, 1, 0x201a, epml4 + 0x1e, 0x201b, 0, 0x2800, -1, 0x2801, -1, 0x4004, 0, 0x400a, 0, 0x400e, 0, 0x4010, 0, 0x4014, 0
        .long 0x4016, 0, 0x6000, 0, 0x6002, 0
        .long 0x0800, 16, 0x0802, 8, 0x0804, 16, 0x0806, 16, 0x0808, 16, 0x080a, 16, 0x080c, 0, 0x080e, 24
        .long 0x4800, -1, 0x4802, -1, 0x4804, -1, 0x4806, -1, 0x4808, -1, 0x480a, -1, 0x480c, 0, 0x480e, 0x67, 0x4810, 39, 0x4812, 0
        .long 0x4814, 0xc093, 0x4816, 0xa09b, 0x4818, 0xc093, 0x481a, 0xc093, 0x481c, 0xc093, 0x481e, 0xc093, 0x4820, 0x10000, 0x4822, 0x8b
        .long 0x6806, 0, 0x6808, 0, 0x680a, 0, 0x680c, 0, 0x680e, 0, 0x6810, 0, 0x6812, 0, 0x6814, 0, 0x6816, gdt, 0x6818, 0
        .long 0x4824, 0, 0x4826, 0, 0x482a, 0, 0x6802, pml4, 0x6804, 0x2620, 0x681a, 0x400, 0x681c, stack, 0x681e, guest, 0x6820, 2
        .long 0x6822, 0, 0x6824, 0, 0x6826, 0, 0x2802, 0
        .long 0x0c00, 16, 0x0c02, 8, 0x0c04, 16, 0x0c06, 16, 0x0c08, 16, 0x0c0a, 16, 0x0c0c, 24
        .long 0x4c00, 0, 0x6c02, pml4, 0x6c04, 0x2620, 0x6c06, 0, 0x6c08, 0, 0x6c0a, 0, 0x6c0c, gdt, 0x6c0e, 0, 0x6c10, 0, 0x6c12, 0
        .long 0x6c14, stack, 0x6c16, left, -1

        .section .bss
        .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096
epml4:  .skip 4096
epdpt:  .skip 4096
epd:    .skip 4096
vmcb:   .skip 4096
save:   .skip 4096
vmxon_region:
        .skip 4096
vmcs:   .skip 4096
        .skip 4096
stack:
