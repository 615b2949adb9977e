/*
 * Executes single instructions on the processor at hand and records what they do. User mode, x86-64 Linux.
 *
 * Usage: harness INPUT OUTPUT. Layouts: struct Input and struct Output below, mirrored by tools/vectors/exchange.ts.
 *
 * Everything goes through signal frames: returning from the handler loads all registers (also CS, so that a vector can
 * run in 32-bit compatibility mode), and the next signal - the INT3 that follows the instruction, or the instruction's
 * own fault - saves them all. So there is no code of ours between loading, executing and saving.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define WINDOW 0x10000000ull
#define WINDOW_SIZE 0x2000
#define CODE_PAGE 0x20000000ull
#define CODE (CODE_PAGE + 0x800)
#define GS_BASE (WINDOW + 0x200)
#define USER_CS64 0x33
#define USER_CS32 0x23
#define USER_DS 0x2b
#define TRAP_NONE 255

struct Input {
  uint8_t mode, code_length, trap_vector, pad;
  uint16_t patches, pad2;
  uint8_t code[24];
  uint64_t gpr[16]; /* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
  uint64_t rflags;
  uint8_t fxsave[512];
  uint8_t ymm_high[256];
  /* then `patches` times: uint16_t offset, length; uint8_t bytes[length] */
} __attribute__((packed));

struct Output {
  uint8_t trap; /* vector, or TRAP_NONE when the instruction completed */
  uint8_t pad[3];
  uint16_t selector[6]; /* es cs ss ds fs gs */
  uint64_t error, address;
  uint64_t gpr[16], rip, rflags;
  uint8_t fxsave[512];
  uint8_t ymm_high[256];
  uint16_t patches, pad2;
  /* then patches as in Input: what the instruction changed in the window */
} __attribute__((packed));

static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
static const uint8_t *next_input, *input_end;
static const struct Input *current;
static uint8_t before[WINDOW_SIZE], fill[WINDOW_SIZE];
static FILE *output;
static unsigned long recorded;

/* Known fill of the memory window; the same function is in test/vectors/format.ts. */
static void make_fill(void) {
  for (unsigned i = 0; i < WINDOW_SIZE; i++) fill[i] = (uint8_t)(i * 13 + (i >> 8) * 7 + 0x5a);
}

static void fail(const char *why) {
  fprintf(stderr, "harness: vector %lu: %s\n", recorded, why);
  _exit(1);
}

static uint8_t *ymm_high_of(ucontext_t *u) {
  uint8_t *fx = (uint8_t *)u->uc_mcontext.fpregs;
  uint32_t magic;
  memcpy(&magic, fx + 464, 4);
  if (magic != 0x46505853) return NULL; /* a plain FXSAVE frame */
  uint64_t features;
  memcpy(&features, fx + 472, 8);
  return features & 4 ? fx + 576 : NULL;
}

static void save_memory(struct Output *o) {
  static uint8_t buffer[WINDOW_SIZE * 5];
  const uint8_t *now = (const uint8_t *)WINDOW;
  size_t n = 0;
  for (unsigned i = 0; i < WINDOW_SIZE;) {
    if (now[i] == before[i]) { i++; continue; }
    unsigned end = i;
    while (end < WINDOW_SIZE && now[end] != before[end]) end++;
    uint16_t head[2] = { i, end - i };
    memcpy(buffer + n, head, 4);
    memcpy(buffer + n + 4, now + i, end - i);
    n += 4 + end - i;
    o->patches++;
    i = end;
  }
  fwrite(o, sizeof *o, 1, output);
  fwrite(buffer, n, 1, output);
}

static void save(ucontext_t *u) {
  greg_t *g = u->uc_mcontext.gregs;
  struct Output o;
  memset(&o, 0, sizeof o);
  int trap = g[REG_TRAPNO];
  uint64_t rip = g[REG_RIP];
  o.trap = trap;
  if (trap == 3 && current->trap_vector != 3) {
    o.trap = TRAP_NONE;
    rip--; /* the INT3 of the filled code page, wherever it was met */
  }
  if ((trap >= 10 && trap <= 14) || trap == 8 || trap == 17) o.error = g[REG_ERR];
  if (trap == 14) o.address = g[REG_CR2];
  o.rip = rip;
  o.rflags = g[REG_EFL];
  for (int i = 0; i < 16; i++) o.gpr[i] = g[order[i]];
  asm volatile("movw %%es, %0" : "=m"(o.selector[0]));
  o.selector[1] = g[REG_CSGSFS] & 0xffff;
  o.selector[2] = (g[REG_CSGSFS] >> 48) & 0xffff;
  asm volatile("movw %%ds, %0" : "=m"(o.selector[3]));
  asm volatile("movw %%fs, %0" : "=m"(o.selector[4]));
  asm volatile("movw %%gs, %0" : "=m"(o.selector[5]));
  memcpy(o.fxsave, u->uc_mcontext.fpregs, 512);
  uint8_t *high = ymm_high_of(u);
  if (high) memcpy(o.ymm_high, high, 256);
  save_memory(&o);
}

static void restore_segments(void) {
  uint16_t gs;
  asm volatile("movw %0, %%ds; movw %0, %%es" : : "r"((uint16_t)USER_DS));
  asm volatile("movw %%gs, %0" : "=r"(gs));
  if (gs) {
    asm volatile("movw %0, %%gs" : : "r"((uint16_t)0));
    syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE);
  }
}

static void load(ucontext_t *u) {
  current = (const struct Input *)next_input;
  next_input += sizeof *current;
  memcpy((void *)WINDOW, fill, WINDOW_SIZE);
  for (int i = 0; i < current->patches; i++) {
    uint16_t head[2];
    memcpy(head, next_input, 4);
    if (head[0] + head[1] > WINDOW_SIZE) fail("patch outside the window");
    memcpy((void *)(WINDOW + head[0]), next_input + 4, head[1]);
    next_input += 4 + head[1];
  }
  memcpy(before, (void *)WINDOW, WINDOW_SIZE);
  memset((void *)CODE, 0xcc, 32);
  memcpy((void *)CODE, current->code, current->code_length);
  greg_t *g = u->uc_mcontext.gregs;
  for (int i = 0; i < 16; i++) g[order[i]] = current->gpr[i];
  g[REG_RIP] = CODE;
  g[REG_EFL] = current->rflags;
  g[REG_CSGSFS] = (greg_t)(current->mode == 32 ? USER_CS32 : USER_CS64) | ((greg_t)USER_DS << 48);
  uint8_t *fx = (uint8_t *)u->uc_mcontext.fpregs;
  memcpy(fx, current->fxsave, 416); /* what is behind belongs to the kernel's frame */
  uint8_t *high = ymm_high_of(u);
  if (high) {
    memcpy(high, current->ymm_high, 256);
    fx[512] |= 7; /* XSTATE_BV: x87, SSE, AVX are in the image */
  }
}

/* The stack is aligned anew because some emulators' signal frames are not. */
__attribute__((force_align_arg_pointer)) static void on_signal(int number, siginfo_t *info, void *context) {
  /* AC, NT and ID may be left by the vector; the kernel keeps them for us and would keep them for the next one. */
  asm volatile("pushfq; andl $~0x244000, (%%rsp); popfq" : : : "memory", "cc");
  ucontext_t *u = context;
  (void)number, (void)info;
  if (current) {
    save(u);
    recorded++;
  }
  restore_segments();
  if (next_input >= input_end) {
    fclose(output);
    _exit(0);
  }
  load(u);
}

static void *map(uint64_t address, size_t size) {
  void *p = mmap((void *)address, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (p != (void *)address) fail("cannot map a fixed address");
  return p;
}

int main(int argc, char **argv) {
  if (argc != 3) fail("usage: harness INPUT OUTPUT");
  int fd = open(argv[1], O_RDONLY);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) || !(output = fopen(argv[2], "wb"))) fail("cannot open a file");
  next_input = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  input_end = next_input + st.st_size;
  map(WINDOW, WINDOW_SIZE);
  memset(map(CODE_PAGE, 0x1000), 0xcc, 0x1000);
  make_fill();
  restore_segments();
  syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE);

  stack_t stack = { .ss_sp = malloc(1 << 18), .ss_size = 1 << 18 };
  sigaltstack(&stack, NULL);
  struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
  const int signals[] = { SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS };
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
  asm volatile("int3");
  fail("not reached");
}
