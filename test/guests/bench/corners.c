/*
 * Corners of the processor that kernels and debuggers count on: null selectors after a return from the kernel, and what MOV SS does to
 * breakpoints. Prints one line, the same on silicon of both vendors.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t traps;
static unsigned short stack_selector;
extern char broken[];

static void count(int signal) {
  (void)signal;
  traps++;
}

/* The access of a fresh page is a fault: the kernel returns by IRET, which clears the RPL of null selectors. */
static unsigned null_selectors(void) {
  char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  unsigned long es = 3, ds = 1;
  __asm__ volatile("mov %0, %%es; mov %1, %%ds; movb $1, (%2); mov %%es, %0; mov %%ds, %1" : "+r"(es), "+r"(ds) : "r"(page) : "memory");
  return es << 4 | ds;
}

static long poke(pid_t process, int index, unsigned long value) {
  return ptrace(PTRACE_POKEUSER, process, (void *)(offsetof(struct user, u_debugreg) + index * sizeof(long)), value);
}

/* A child gives its parent two breakpoints: accesses of stack_selector, and execution at `broken`. */
static int set_breakpoints(void) {
  pid_t parent = getpid();
  int status;
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_ATTACH, parent, NULL, NULL) != 0 || waitpid(parent, &status, 0) != parent) _exit(1);
    _exit(poke(parent, 0, (unsigned long)&stack_selector) || poke(parent, 1, (unsigned long)broken) || poke(parent, 7, 0x7000a)
      || ptrace(PTRACE_DETACH, parent, NULL, NULL));
  }
  while (waitpid(child, &status, 0) != child) continue;
  return status;
}

int main(void) {
  unsigned selectors = null_selectors();
  __asm__ volatile("mov %%ss, %0" : "=r"(stack_selector));
  signal(SIGTRAP, count);
  int status = set_breakpoints();
  __asm__ volatile("mov %0, %%ss; nop" ::"m"(stack_selector)); /* the data breakpoint waits for the NOP */
  int after_nop = traps;
  __asm__ volatile("mov %0, %%ss; broken: nop" ::"m"(stack_selector)); /* both at once, or (Intel) only the one for data */
  int at_nop = traps - after_nop;
  long call = SYS_getpid;
  __asm__ volatile("mov %1, %%ss; syscall" : "+a"(call) : "m"(stack_selector) : "rcx", "r11", "memory"); /* comes in the kernel */
  printf("corners: selectors %02x, status %d, traps %d %d, call %s\n", selectors, status, after_nop, at_nop,
    call == getpid() ? "right" : "wrong");
  return 0;
}
