/*
 * The same loops outside of a guest and in a guest of KVM, in turn, on the same memory: what nested paging costs. 4 KiB pages in
 * both; the memory is never written, so all of it is Linux's page of zeros, and translations decide, not caches. The first time of
 * each loop, when its code is new, is not reported. Statically linked.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

#define MEMORY (320ul << 20)
#define DATA (16ul << 20)
#define ROUNDS 3

/* rbx: what is added, or the size of the memory; rdi: the memory; rcx: how many times */
#define COMPUTE "1: add %%rbx,%%rax; xor %%rax,%%rdx; dec %%rcx; jnz 1b"
#define WALK "1: add (%%rdi,%%rsi),%%rax; add $69696,%%rsi; cmp %%rbx,%%rsi; jb 2f; sub %%rbx,%%rsi; 2: dec %%rcx; jnz 1b"
#define OPERANDS "+a"(rax), "+c"(rcx), "+d"(rdx), "+S"(rsi) : "b"(rbx), "D"(rdi) : "memory", "cc"

extern char compute[], compute_end[], walk[], walk_end[];
__attribute__((used)) static void guest_code(void)
{
	asm volatile("compute: " COMPUTE "; hlt; compute_end: walk: " WALK "; hlt; walk_end:" :::"memory");
}

struct loop { const char *name; char *code, *end; uint64_t place, count, rbx; };
static const struct loop loops[] = {
	{"compute", compute, compute_end, 0x8000, 250000000, 3},
	{"mem", walk, walk_end, 0x9000, 50000000, 48 << 20},
	{"mem_wide", walk, walk_end, 0xa000, 10000000, 256 << 20},
};

static char *memory;
static int cpu;
static struct kvm_run *run;

static int ask(int file, unsigned long request, void *argument, const char *name)
{
	int result = ioctl(file, request, argument);
	if (result < 0) { perror(name); exit(3); }
	return result;
}

/* long mode, 320 MiB mapped one to one by 4 KiB pages */
static void make_guest(void)
{
	int kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0) { perror("/dev/kvm"); exit(2); }
	int guest = ask(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	ioctl(guest, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uint64_t)memory };
	ask(guest, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	uint64_t *level4 = (void *)(memory + 0x1000), *level3 = (void *)(memory + 0x2000), *level2 = (void *)(memory + 0x3000);
	level4[0] = 0x2003, level3[0] = 0x3003;
	for (uint64_t i = 0; i < MEMORY >> 21; i++) {
		uint64_t *level1 = (void *)(memory + 0x10000 + i * 0x1000);
		level2[i] = (0x10000 + i * 0x1000) | 3;
		for (uint64_t j = 0; j < 512; j++) level1[j] = (i << 21 | j << 12) | 3;
	}
	cpu = ask(guest, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run = mmap(0, ask(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	struct kvm_sregs system;
	ask(cpu, KVM_GET_SREGS, &system, "KVM_GET_SREGS");
	system.cr3 = 0x1000, system.cr4 = 0x20, system.cr0 = 0x80000033, system.efer = 0x500;
	struct kvm_segment code = { .limit = ~0u, .selector = 8, .present = 1, .type = 11, .s = 1, .l = 1, .g = 1 }, data = code;
	data.type = 3, data.selector = 16, data.l = 0, data.db = 1;
	system.cs = code, system.ds = system.es = system.fs = system.gs = system.ss = data;
	ask(cpu, KVM_SET_SREGS, &system, "KVM_SET_SREGS");
	for (unsigned i = 0; i < sizeof loops / sizeof *loops; i++)
		memcpy(memory + loops[i].place, loops[i].code, loops[i].end - loops[i].code);
}

static uint64_t nested(const struct loop *loop)
{
	struct kvm_regs registers = { .rip = loop->place, .rflags = 2, .rsp = 0x7000, .rcx = loop->count, .rbx = loop->rbx, .rdi = DATA };
	ask(cpu, KVM_SET_REGS, &registers, "KVM_SET_REGS");
	do ask(cpu, KVM_RUN, 0, "KVM_RUN"); while (run->exit_reason == KVM_EXIT_INTR);
	if (run->exit_reason != KVM_EXIT_HLT) { printf("KVM_EXIT %u\n", run->exit_reason); exit(4); }
	ask(cpu, KVM_GET_REGS, &registers, "KVM_GET_REGS");
	return registers.rax;
}

static uint64_t outside(const struct loop *loop)
{
	uint64_t rax = 0, rcx = loop->count, rdx = 0, rsi = 0, rbx = loop->rbx, rdi = (uint64_t)memory + DATA;
	if (loop->code == compute) asm volatile(COMPUTE : OPERANDS);
	else asm volatile(WALK : OPERANDS);
	return rax;
}

static void phase(const char *where, const struct loop *loop, uint64_t (*work)(const struct loop *), int reported)
{
	if (!reported) { work(loop); return; }
	printf("@@START %s_%s\n", where, loop->name);
	fflush(stdout), tcdrain(1);
	uint64_t result = work(loop);
	printf("@@END %s_%s rax=%llx\n", where, loop->name, (unsigned long long)result);
	fflush(stdout), tcdrain(1);
}

int main(void)
{
	memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(memory, MEMORY, MADV_NOHUGEPAGE);
	make_guest();
	for (unsigned i = 0; i < sizeof loops / sizeof *loops; i++)
		for (int round = 0; round <= ROUNDS; round++) {
			phase("outside", &loops[i], outside, round > 0);
			phase("nested", &loops[i], nested, round > 0);
		}
	return 0;
}
