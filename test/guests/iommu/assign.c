// A hypervisor of one page that owns the edu device by VFIO: DMA in and outside of its domain, and interrupts posted to a vCPU of KVM.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define check(what) ({ long r_ = (what); if (r_ < 0) { perror(#what); exit(1); } r_; })

enum { iova = 0x100000, page = 4096, vector = 0x40, gsi = 24 };
enum { raise = 0x60, acknowledge = 0x64, source = 0x80, target = 0x88, count = 0x90, command = 0x98, buffer = 0x40000 };
// Where the guest keeps its words.
enum { loops = 0x600, interrupts = 0x604, halts = 0x608, stop = 0x60c, code = 0x1000, handler = 0x1100 };

static volatile uint8_t *registers;
static uint8_t *memory;
static int vcpu;
static struct kvm_run *run;

static void write32(int at, uint32_t value) { *(volatile uint32_t *)(registers + at) = value; }
static void write64(int at, uint64_t value) { *(volatile uint64_t *)(registers + at) = value; }
static volatile uint32_t *word(int at) { return (volatile uint32_t *)(memory + at); }

static void dma(uint64_t from, uint64_t to, int direction)
{
	write64(source, from);
	write64(target, to);
	write64(count, page);
	write32(command, 1 | direction);
	while (*(volatile uint32_t *)(registers + command) & 1)
		usleep(100);
}

// The sum over processors of a line of /proc/interrupts.
static long events(const char *name)
{
	char line[4096];
	long sum = 0;
	FILE *file = fopen("/proc/interrupts", "r");
	while (fgets(line, sizeof line, file)) {
		char *at = strchr(line, ':');
		if (!at || !strstr(line, name))
			continue;
		for (char *end = ++at; sum += strtol(at, &end, 10), end != at;)
			at = end;
	}
	fclose(file);
	return sum;
}

// VM exits of all guests so far.
static long exits(void)
{
	long value = -1;
	FILE *file = fopen("/sys/kernel/debug/kvm/exits", "r");
	if (file && fscanf(file, "%ld", &value) == 1)
		fclose(file);
	return value;
}

static int open_device(const char *name, const char *group_path)
{
	int container = check(open("/dev/vfio/vfio", O_RDWR));
	int group = check(open(group_path, O_RDWR));
	check(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
	check(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
	int device = check(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name));
	struct vfio_region_info region = { .argsz = sizeof region, .index = VFIO_PCI_CONFIG_REGION_INDEX };
	check(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region));
	uint16_t enable = 6;
	check(pwrite(device, &enable, 2, region.offset + 4));
	region.index = VFIO_PCI_BAR0_REGION_INDEX;
	check(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region));
	registers = mmap(0, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, region.offset);
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory, .iova = iova, .size = 4 * page };
	check(ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
	return device;
}

static int wire_interrupt(int device)
{
	int event = check(eventfd(0, 0));
	struct { struct vfio_irq_set set; int event; } irq = { { .argsz = sizeof irq, .index = VFIO_PCI_MSI_IRQ_INDEX, .count = 1,
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER }, event };
	check(ioctl(device, VFIO_DEVICE_SET_IRQS, &irq));
	return event;
}

// ES is the local APIC. Counts loops; halts when asked; its handler counts interrupts.
static const uint8_t program[] = {
	0x66, 0x26, 0xc7, 0x06, 0xf0, 0x00, 0xff, 0x01, 0x00, 0x00, // mov dword es:[0xf0], 0x1ff
	0xfb,                                                       // sti
	0x66, 0xff, 0x06, loops & 255, loops >> 8,                  // next: inc dword [loops]
	0x80, 0x3e, stop & 255, stop >> 8, 0x01, 0x74, 0x0a,        // cmp byte [stop], 1; je end
	0x80, 0x3e, halts & 255, halts >> 8, 0x01, 0x75, 0xed,      // cmp byte [halts], 1; jne next
	0xf4, 0xeb, 0xea,                                           // hlt; jmp next
	0xe6, 0x10, 0xf4,                                           // end: out 0x10, al; hlt
};
static const uint8_t service[] = {
	0x66, 0xff, 0x06, interrupts & 255, interrupts >> 8,        // inc dword [interrupts]
	0x66, 0x26, 0xc7, 0x06, 0xb0, 0x00, 0x00, 0x00, 0x00, 0x00, // mov dword es:[0xb0], 0
	0xcf,                                                       // iret
};

static void make_guest(int event)
{
	int kvm = check(open("/dev/kvm", O_RDWR));
	int vm = check(ioctl(kvm, KVM_CREATE_VM, 0));
	check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
	check(ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	struct kvm_userspace_memory_region region = { .memory_size = 4 * page, .userspace_addr = (uintptr_t)memory };
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
	vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0));
	run = mmap(0, check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	struct kvm_sregs sregs;
	check(ioctl(vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	sregs.es.base = 0xfee00000;
	check(ioctl(vcpu, KVM_SET_SREGS, &sregs));
	struct kvm_regs regs = { .rip = code, .rsp = 0x3000, .rflags = 2 };
	check(ioctl(vcpu, KVM_SET_REGS, &regs));
	memcpy(memory + code, program, sizeof program);
	memcpy(memory + handler, service, sizeof service);
	*word(vector * 4) = handler;
	struct { struct kvm_irq_routing routing; struct kvm_irq_routing_entry entry; } table = { { .nr = 1 },
		{ .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = vector } } };
	check(ioctl(vm, KVM_SET_GSI_ROUTING, &table));
	struct kvm_irqfd irqfd = { .fd = event, .gsi = gsi };
	check(ioctl(vm, KVM_IRQFD, &irqfd));
}

static void *run_guest(void *unused)
{
	do
		check(ioctl(vcpu, KVM_RUN, 0));
	while (run->exit_reason == KVM_EXIT_INTR);
	printf("guest ended: exit %d\n", run->exit_reason);
	return unused;
}

static void interrupt(int times)
{
	for (int i = 0; i < times; i++) {
		uint32_t next = *word(interrupts) + 1;
		write32(raise, 1);
		while (*word(interrupts) != next)
			usleep(50);
		write32(acknowledge, 1);
	}
}

int main(int argc, char **argv)
{
	memory = mmap(0, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(memory + 2 * page, 0x5a, page);
	int device = open_device(argv[1], argv[2]);

	dma(iova + 2 * page, buffer, 0);
	dma(buffer, iova + 3 * page, 2);
	printf("dma inside: %s\n", memcmp(memory + 2 * page, memory + 3 * page, page) ? "different" : "same");
	dma(0x900000, buffer, 0);
	dma(buffer, 0x900000, 2);

	int event = wire_interrupt(device);
	uint64_t once = 0;
	write32(raise, 1);
	check(read(event, &once, 8));
	write32(acknowledge, 1);
	printf("eventfd: %ld\n", (long)once);

	memset(memory, 0, page);
	make_guest(event);
	pthread_t thread;
	pthread_create(&thread, 0, run_guest, 0);
	while (*word(loops) == 0)
		usleep(1000);
	long vfio = events("vfio-msi[0]"), posted = events("PIN:"), woken = events("PIW:");
	long before = exits();
	interrupt(100);
	long after = exits();
	printf("running: interrupts %d, exits %ld, notifications outside of the guest %ld\n", *word(interrupts), after - before,
		events("PIN:") - posted);
	*word(halts) = 1;
	interrupt(50);
	printf("halting: interrupts %d, woken %s\n", *word(interrupts), events("PIW:") - woken > 0 ? "yes" : "no");
	printf("by the host: %ld\n", events("vfio-msi[0]") - vfio);
	*word(halts) = 0;
	*word(stop) = 1;
	write32(raise, 1);
	pthread_join(thread, 0);
	return 0;
}
