// disk.c - fixed work on a disk, one per argv[1], around the page cache. gcc -O2 -static. The disk holds the words 0, 1, 2, ... of 8 bytes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <unistd.h>

enum { small = 4096, large = 1 << 20, reads = 20000, rounds = 4 };

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static char *buffer;

static uint64_t random_reads(int disk, uint64_t bytes) {
  uint64_t sum = 0, word;
  for (int i = 0; i < reads; i++) {
    uint64_t at = next() % (bytes / small) * small;
    if (pread(disk, buffer, small, at) != small) return 0;
    memcpy(&word, buffer + small - 8, 8);
    sum = sum * 31 + word;
  }
  return sum;
}

static uint64_t sequential_reads(int disk, uint64_t bytes) {
  uint64_t sum = 0, word;
  for (int round = 0; round < rounds; round++)
    for (uint64_t at = 0; at + large <= bytes; at += large) {
      if (pread(disk, buffer, large, at) != large) return 0;
      memcpy(&word, buffer + large - 8, 8);
      sum = sum * 31 + word;
    }
  return sum;
}

/* The same words again, so that the order of the work does not matter. */
static uint64_t sequential_writes(int disk, uint64_t bytes) {
  uint64_t count = 0;
  for (uint64_t at = 0; at + large <= bytes; at += large) {
    for (uint64_t i = 0; i < large; i += 8) {
      uint64_t word = (at + i) / 8;
      memcpy(buffer + i, &word, 8);
    }
    if (pwrite(disk, buffer, large, at) != large) return 0;
    count++;
  }
  return fsync(disk) ? 0 : count;
}

static struct {
  const char *name;
  uint64_t (*run)(int, uint64_t);
} const works[] = {{"random", random_reads}, {"read", sequential_reads}, {"write", sequential_writes}};

int main(int count, char **words) {
  uint64_t bytes;
  if (count < 2 || strlen(words[1]) < 4) return 2;
  const char *work = words[1] + 4; /* after "disk" or "nvme" */
  int disk = open(strncmp(words[1], "nvme", 4) ? "/dev/vda" : "/dev/nvme0n1", O_RDWR | O_DIRECT);
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) || posix_memalign((void **)&buffer, large, large)) return 1;
  setvbuf(stdout, 0, _IOLBF, 0);
  for (unsigned i = 0; i < sizeof works / sizeof *works; i++) {
    if (strcmp(work, works[i].name)) continue;
    printf("@@START %s\n", words[1]);
    printf("@@END %s check=%016llx\n", words[1], (unsigned long long)works[i].run(disk, bytes));
    return 0;
  }
  return 2;
}
