// shstk.c - user shadow stacks of Linux 6.6 and later, as a program without a C library that knows them asks for them.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARCH_SHSTK_ENABLE 0x5001
#define ARCH_SHSTK_SHSTK 1

/* In line: the function that turns them on can never return. */
static inline __attribute__((always_inline)) long enable(void) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "0"(158L), "D"((long)ARCH_SHSTK_ENABLE), "S"((long)ARCH_SHSTK_SHSTK) : "rcx", "r11", "memory");
  return result;
}
static unsigned long pointer(void) {
  unsigned long value = 0;
  __asm__ volatile("rdsspq %0" : "+r"(value));
  return value;
}
/* Spoils its return address. */
void spoil(void);
__asm__(".text\nspoil: incq (%rsp)\nret\n");

static __attribute__((noinline)) unsigned long factorial(unsigned long n) { return n < 2 ? 1 : n * factorial(n - 1); }
static volatile int signals;
static void on_usr(int number) { signals += number == SIGUSR1; }
static void on_segv(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  _exit(info->si_code); /* SEGV_CPERR is 10 */
}

int main(void) {
  int status = 0;
  if (enable() != 0) {
    puts("shstk: the kernel has none");
    fflush(stdout);
    _exit(1);
  }
  signal(SIGUSR1, on_usr);
  for (int i = 0; i < 100; i++) raise(SIGUSR1);
  for (int i = 0; i < 5; i++) {
    if (fork() == 0) _exit(factorial(5) == 120 ? 0 : 1);
    wait(&status);
    if (status != 0) break;
  }
  int spoiled = 0;
  if (fork() == 0) {
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    spoil();
    _exit(1);
  }
  wait(&spoiled);
  printf("shstk: pointer %s, factorial %lu, signals %d, forks %d, spoiled %d\n", pointer() ? "set" : "zero", factorial(20), signals, status,
         WEXITSTATUS(spoiled));
  fflush(stdout);
  _exit(0);
}
