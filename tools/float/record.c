/*
 * Records what this machine's own processor answers to floating-point instructions: the oracle of src/float.
 * Build and run: see tools/float/record.sh. Needs an x86-64 processor with AVX, FMA and F16C.
 * Usage: record sse|x87|transcendental COUNT SEED [MODE]: COUNT cases of each instruction, one line each, on standard output.
 *
 * sse:            name mxcsr a b c result mxcsr-after          result "-": #XM was raised and nothing was written
 * x87:            name control-word a b status-word st0 st1 [memory]
 *   a is ST(0), b is ST(1), both loaded before; 80-bit values are 20 hex digits, "memory" is what a store left (filled with cc).
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

static u64 seed = 1;

static u64 next(void)
{
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed * 0x2545F4914F6CDD1Dull;
}

static u32 below(u32 n) { return (u32)((next() >> 32) * n >> 32); }

/* Significands that meet ties, carries and sticky bits more often than uniform ones do. */
static u64 fraction(int bits)
{
  u64 all = bits == 64 ? ~0ull : (1ull << bits) - 1, r = next() & all;
  switch (below(8)) {
    case 0: return 0;
    case 1: return 1ull << below(bits);
    case 2: return all & ~(1ull << below(bits));
    case 3: return all & ~0ull << below(bits);
    case 4: return all >> below(bits);
    case 5: return r & ~0ull << below(bits);
    default: return r;
  }
}

/* ---- SSE ---- */

u64 A[4], B[4], C[4], R[4], resume;
u32 mxcsrIn, mxcsrOut;
static const u32 mxcsrDefault = 0x1f80;
static volatile int trapped;

static void onTrap(int number, siginfo_t *info, void *context)
{
  ucontext_t *c = context;
  (void)number, (void)info;
  trapped = 1;
  mxcsrOut = c->uc_mcontext.fpregs->mxcsr;
  c->uc_mcontext.fpregs->mxcsr = mxcsrDefault;
  c->uc_mcontext.gregs[REG_RIP] = (long long)resume;
}

#define WRAP(insn) \
  asm volatile("vmovups A(%%rip), %%ymm0\n vmovups B(%%rip), %%ymm1\n vmovups C(%%rip), %%ymm2\n mov A(%%rip), %%rcx\n" \
    "lea 1f(%%rip), %%rax\n mov %%rax, resume(%%rip)\n" \
    "mov $0, %%eax\n mov $0, %%edx\n ldmxcsr mxcsrIn(%%rip)\n" insn "\n" \
    "stmxcsr mxcsrOut(%%rip)\n 1: ldmxcsr %0\n vmovups %%ymm0, R(%%rip)\n" \
    :: "m"(mxcsrDefault) : "rax", "rcx", "rdx", "memory", "cc", "xmm0", "xmm1", "xmm2")
#define TO_R "\n movq %%rax, %%xmm0"
#define COMI(insn) insn " %%xmm1, %%xmm0\n setb %%al\n setz %%dl\n setp %%cl\n movzx %%cl, %%ecx\n lea (%%rax,%%rdx,2), %%eax\n lea (%%rax,%%rcx,4), %%eax\n" TO_R

/* Operand types: s single, d double, i int32, q int64, h half; one letter per operand. result: its bytes. */
struct sse { const char *name, *operands; int bytes; void (*run)(void); };
#define F(id, insn) static void f_##id(void) { WRAP(insn); }
#define BOTH(id) F(id##ss, #id "ss %%xmm1, %%xmm0") F(id##sd, #id "sd %%xmm1, %%xmm0")
BOTH(add) BOTH(sub) BOTH(mul) BOTH(div) BOTH(min) BOTH(max)
F(sqrtss, "sqrtss %%xmm0, %%xmm0") F(sqrtsd, "sqrtsd %%xmm0, %%xmm0")
F(addps, "addps %%xmm1, %%xmm0") F(mulps, "mulps %%xmm1, %%xmm0")
F(comiss, COMI("comiss")) F(comisd, COMI("comisd")) F(ucomiss, COMI("ucomiss")) F(ucomisd, COMI("ucomisd"))
#define CMP(n) F(cmpss##n, "vcmpss $" #n ", %%xmm1, %%xmm0, %%xmm0") F(cmpsd##n, "vcmpsd $" #n ", %%xmm1, %%xmm0, %%xmm0")
#define EACH32(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
  X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
EACH32(CMP)
F(cvtsd2ss, "cvtsd2ss %%xmm0, %%xmm0") F(cvtss2sd, "cvtss2sd %%xmm0, %%xmm0")
F(cvtsi2ss, "cvtsi2ssl %%ecx, %%xmm0") F(cvtsi2sd, "cvtsi2sdl %%ecx, %%xmm0")
F(cvtsi2ssq, "cvtsi2ssq %%rcx, %%xmm0") F(cvtsi2sdq, "cvtsi2sdq %%rcx, %%xmm0")
#define TOINT(id) F(id, #id " %%xmm0, %%eax" TO_R) F(id##q, #id " %%xmm0, %%rax" TO_R)
TOINT(cvtss2si) TOINT(cvtsd2si) TOINT(cvttss2si) TOINT(cvttsd2si)
#define ROUND(n) F(roundss##n, "roundss $" #n ", %%xmm0, %%xmm0") F(roundsd##n, "roundsd $" #n ", %%xmm0, %%xmm0")
#define EACH16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
EACH16(ROUND)
#define FMA(id) F(id##ss, #id "ss %%xmm2, %%xmm1, %%xmm0") F(id##sd, #id "sd %%xmm2, %%xmm1, %%xmm0")
FMA(vfmadd132) FMA(vfmadd213) FMA(vfmadd231) FMA(vfmsub213) FMA(vfnmadd213) FMA(vfnmsub231)
F(rcpss, "rcpss %%xmm0, %%xmm0") F(rsqrtss, "rsqrtss %%xmm0, %%xmm0")
F(vcvtph2ps, "vcvtph2ps %%xmm0, %%xmm0")
#define TOHALF(n) F(vcvtps2ph##n, "vcvtps2ph $" #n ", %%xmm0, %%xmm0")
TOHALF(0) TOHALF(1) TOHALF(2) TOHALF(3) TOHALF(4) TOHALF(5) TOHALF(6) TOHALF(7)

#define BIN(id) { #id "ss", "ss", 4, f_##id##ss }, { #id "sd", "dd", 8, f_##id##sd },
#define FLAGS(id) { #id "ss", "ss", 1, f_##id##ss }, { #id "sd", "dd", 1, f_##id##sd },
#define CMPROW(n) { "cmpss" #n, "ss", 4, f_cmpss##n }, { "cmpsd" #n, "dd", 8, f_cmpsd##n },
#define INTROW(id, t) { #id, t, 4, f_##id }, { #id "q", t, 8, f_##id##q },
#define ROUNDROW(n) { "roundss" #n, "s", 4, f_roundss##n }, { "roundsd" #n, "d", 8, f_roundsd##n },
#define FMAROW(id) { #id "ss", "sss", 4, f_##id##ss }, { #id "sd", "ddd", 8, f_##id##sd },
#define HALFROW(n) { "vcvtps2ph" #n, "s", 2, f_vcvtps2ph##n },
static const struct sse sseTable[] = {
  BIN(add) BIN(sub) BIN(mul) BIN(div) BIN(min) BIN(max)
  { "sqrtss", "s", 4, f_sqrtss }, { "sqrtsd", "d", 8, f_sqrtsd },
  { "addps", "pp", 8, f_addps }, { "mulps", "pp", 8, f_mulps },
  FLAGS(comi) FLAGS(ucomi)
  EACH32(CMPROW)
  { "cvtsd2ss", "d", 4, f_cvtsd2ss }, { "cvtss2sd", "s", 8, f_cvtss2sd },
  { "cvtsi2ss", "i", 4, f_cvtsi2ss }, { "cvtsi2sd", "i", 8, f_cvtsi2sd },
  { "cvtsi2ssq", "q", 4, f_cvtsi2ssq }, { "cvtsi2sdq", "q", 8, f_cvtsi2sdq },
  INTROW(cvtss2si, "s") INTROW(cvttss2si, "s") INTROW(cvtsd2si, "d") INTROW(cvttsd2si, "d")
  EACH16(ROUNDROW)
  FMAROW(vfmadd132) FMAROW(vfmadd213) FMAROW(vfmadd231) FMAROW(vfmsub213) FMAROW(vfnmadd213) FMAROW(vfnmsub231)
  { "vcvtph2ps", "h", 4, f_vcvtph2ps }, { "rcpss", "s", 4, f_rcpss }, { "rsqrtss", "s", 4, f_rsqrtss },
  HALFROW(0) HALFROW(1) HALFROW(2) HALFROW(3) HALFROW(4) HALFROW(5) HALFROW(6) HALFROW(7)
};

static u64 binary(int exponentBits, int fractionBits)
{
  int max = (1 << exponentBits) - 1, bias = max >> 1, e;
  u64 f = fraction(fractionBits);
  switch (below(10)) {
    case 0: e = 0; break;
    case 1: e = max; break;
    case 2: e = 1 + below(3); break;
    case 3: e = max - 1 - below(3); break;
    case 4: e = below(max + 1); break;
    case 5: e = bias + (int)below(70) - 35, e = e < 0 ? 0 : e > max ? max : e; break;
    default: e = bias + (int)below(9) - 4;
  }
  return (next() >> 63) << (exponentBits + fractionBits) | (u64)e << fractionBits | f;
}

static u64 operand(char type)
{
  switch (type) {
    case 's': return binary(8, 23);
    case 'd': return binary(11, 52);
    case 'h': return next() & 0xffff;
    case 'p': return binary(8, 23) | binary(8, 23) << 32;
    case 'i': return (u32)(next() >> below(33));
    default: return next() & 1 ? next() >> below(64) : -(next() >> below(64));
  }
}

static void recordSse(int count)
{
  struct sigaction action = { .sa_sigaction = onTrap, .sa_flags = SA_SIGINFO };
  sigaction(SIGFPE, &action, 0);
  for (size_t i = 0; i < sizeof sseTable / sizeof *sseTable; i++) {
    const struct sse *row = &sseTable[i];
    int n = strchr("cr", row->name[0]) && row->name[1] != 'v' && row->name[strlen(row->name) - 1] <= '9' ? (count + 3) / 4 : count;
    for (int k = 0; k < n; k++) {
      u64 *operands[] = { A, B, C };
      memset(A, 0, sizeof A), memset(B, 0, sizeof B), memset(C, 0, sizeof C);
      for (int o = 0; row->operands[o]; o++) operands[o][0] = operand(row->operands[o]);
      if (row->operands[1] && below(8) == 0) B[0] = A[0];
      mxcsrIn = (next() & 0xe040) | 0x1f80;
      if (below(4) == 0) mxcsrIn &= next() | ~0x1f80u;
      if (below(4)) mxcsrIn &= ~0x8040u;
      trapped = 0;
      row->run();
      u64 result = row->bytes == 8 ? R[0] : R[0] & ((1ull << row->bytes * 8) - 1);
      printf("%s %x %lx %lx %lx ", row->name, mxcsrIn, A[0], B[0], C[0]);
      trapped ? printf("- %x\n", mxcsrOut) : printf("%lx %x\n", result, mxcsrOut);
    }
  }
}

/* ---- x87 ---- */

struct ext { u64 significand; u16 signExponent; } __attribute__((packed));
struct ext X, Y;
u16 controlWord;
u8 state[108], memory[16];

struct x87 { const char *name, *operands; int bytes; void (*run)(void); };
/* FNSAVE does not wait: an unmasked exception stays pending, and is forgotten. */
#define X87(id, insn) static void x_##id(void) \
  { asm volatile("fninit\n fldt Y(%%rip)\n fldt X(%%rip)\n fldcw controlWord(%%rip)\n" insn "\n fnsave state(%%rip)" ::: "memory", "cc"); }
X87(fadd, "fadd %%st(1), %%st") X87(fsub, "fsub %%st(1), %%st") X87(fsubr, "fsubr %%st(1), %%st") X87(fmul, "fmul %%st(1), %%st")
X87(fdiv, "fdiv %%st(1), %%st") X87(fdivr, "fdivr %%st(1), %%st") X87(fsqrt, "fsqrt") X87(faddp, "faddp %%st, %%st(1)")
X87(fcom, "fcom %%st(1)") X87(fucom, "fucom %%st(1)") X87(fcompp, "fcompp") X87(ftst, "ftst") X87(fxam, "fxam")
X87(frndint, "frndint") X87(fscale, "fscale") X87(fxtract, "fxtract") X87(fprem, "fprem") X87(fprem1, "fprem1")
X87(fabs, "fabs") X87(fchs, "fchs")
X87(fsts, "fstps memory(%%rip)") X87(fstl, "fstpl memory(%%rip)") X87(fist16, "fistps memory(%%rip)") X87(fist32, "fistpl memory(%%rip)")
X87(fist64, "fistpll memory(%%rip)") X87(fisttp16, "fisttps memory(%%rip)") X87(fisttp32, "fisttpl memory(%%rip)")
X87(fisttp64, "fisttpll memory(%%rip)") X87(fbstp, "fbstp memory(%%rip)")
X87(flds, "flds X(%%rip)") X87(fldl, "fldl X(%%rip)") X87(fild16, "filds X(%%rip)") X87(fild32, "fildl X(%%rip)")
X87(fild64, "fildll X(%%rip)") X87(fbld, "fbld X(%%rip)")
X87(fld1, "fld1") X87(fldl2t, "fldl2t") X87(fldl2e, "fldl2e") X87(fldpi, "fldpi") X87(fldlg2, "fldlg2") X87(fldln2, "fldln2") X87(fldz, "fldz")
X87(f2xm1, "f2xm1") X87(fyl2x, "fyl2x") X87(fyl2xp1, "fyl2xp1") X87(fptan, "fptan") X87(fpatan, "fpatan")
X87(fsin, "fsin") X87(fcos, "fcos") X87(fsincos, "fsincos")

#define ROW(id, operands, bytes) { #id, operands, bytes, x_##id },
static const struct x87 x87Table[] = {
  ROW(fadd, "xx", 0) ROW(fsub, "xx", 0) ROW(fsubr, "xx", 0) ROW(fmul, "xx", 0) ROW(fdiv, "xx", 0) ROW(fdivr, "xx", 0) ROW(faddp, "xx", 0)
  ROW(fsqrt, "x", 0) ROW(fcom, "xx", 0) ROW(fucom, "xx", 0) ROW(fcompp, "xx", 0) ROW(ftst, "x", 0) ROW(fxam, "x", 0)
  ROW(frndint, "r", 0) ROW(fscale, "xr", 0) ROW(fxtract, "x", 0) ROW(fprem, "xx", 0) ROW(fprem1, "xx", 0) ROW(fabs, "x", 0) ROW(fchs, "x", 0)
  ROW(fsts, "S", 4) ROW(fstl, "D", 8) ROW(fist16, "r", 2) ROW(fist32, "r", 4) ROW(fist64, "r", 8)
  ROW(fisttp16, "r", 2) ROW(fisttp32, "r", 4) ROW(fisttp64, "r", 8) ROW(fbstp, "r", 10)
  ROW(flds, "s", 0) ROW(fldl, "d", 0) ROW(fild16, "q", 0) ROW(fild32, "q", 0) ROW(fild64, "q", 0) ROW(fbld, "b", 0)
};
static const struct x87 constantTable[] = {
  ROW(fld1, "", 0) ROW(fldl2t, "", 0) ROW(fldl2e, "", 0) ROW(fldpi, "", 0) ROW(fldlg2, "", 0) ROW(fldln2, "", 0) ROW(fldz, "", 0)
};
static const struct x87 transcendentalTable[] = {
  ROW(f2xm1, "1", 0) ROW(fyl2x, "yx", 0) ROW(fyl2xp1, "1x", 0) ROW(fptan, "t", 0) ROW(fpatan, "xx", 0)
  ROW(fsin, "t", 0) ROW(fcos, "t", 0) ROW(fsincos, "t", 0)
};

static struct ext extended(int low, int high)
{
  struct ext v;
  u64 integer = below(40) ? 1ull << 63 : 0;
  int e;
  v.significand = fraction(63) | integer;
  switch (below(12)) {
    case 0: e = 0; break;
    case 1: e = 0x7fff; break;
    case 2: e = 1 + below(3); break;
    case 3: e = 0x7ffe - below(3); break;
    case 4: e = below(0x8000); break;
    case 5: e = 0x3fff + (int)below(160) - 80; break;
    default: e = low + (int)below(high - low + 1);
  }
  if (e == 0 && below(3)) v.significand &= ~(1ull << 63);
  if (below(24) == 0) e = 0, v.significand = 0;
  v.signExponent = (u16)((next() >> 63) << 15 | e);
  return v;
}

static struct ext x87Operand(char type)
{
  struct ext v = { 0, 0 };
  switch (type) {
    case 'x': case 'y':
      v = extended(0x3ffb, 0x4004);
      if (type == 'y' && below(4)) v.signExponent &= 0x7fff;
      return v;
    case 'r': return extended(0x3ffc, 0x4041);
    case 'S': return below(3) ? extended(0x3f60, 0x3f90) : below(2) ? extended(0x3fff + 125, 0x3fff + 130) : extended(0x3ffb, 0x4004);
    case 'D': return below(3) ? extended(0x3bc0, 0x3c10) : below(2) ? extended(0x3fff + 1021, 0x3fff + 1026) : extended(0x3ffb, 0x4004);
    case '1': return extended(0x3fff - 66, 0x3ffe);
    case 't': return extended(0x3fff - 34, 0x403f);
    case 's': v.significand = binary(8, 23); return v;
    case 'd': v.significand = binary(11, 52); return v;
    case 'b':
      for (int i = 0; i < 16; i++) v.significand |= (u64)below(10) << 4 * i;
      v.significand >>= 4 * below(16);
      v.signExponent = (u16)(below(10) | below(10) << 4 | (below(2) << 15));
      return v;
    default: v.significand = operand('q'); return v;
  }
}

static void printExtended(const void *at)
{
  struct ext v;
  memcpy(&v, at, 10);
  printf(" %04x%016lx", v.signExponent, v.significand);
}

static void recordX87(const struct x87 *table, size_t rows, int count, int allMasked)
{
  for (size_t i = 0; i < rows; i++) {
    const struct x87 *row = &table[i];
    int n = row->operands[0] ? count : 12;
    for (int k = 0; k < n; k++) {
      static const u16 precisions[] = { 0x000, 0x200, 0x300, 0x300 };
      X = row->operands[0] ? x87Operand(row->operands[0]) : (struct ext){ 0, 0 };
      Y = row->operands[0] && row->operands[1] ? x87Operand(row->operands[1]) : (struct ext){ 1ull << 63, 0x3fff };
      if (row->operands[0] && row->operands[1] && below(10) == 0) Y = X;
      controlWord = (u16)(0x3f | precisions[below(4)] | (next() & 0xc00));
      if (!allMasked && below(4) == 0) controlWord &= (u16)(next() | ~0x3fu);
      if (!row->operands[0]) controlWord = (u16)(0x3f | k % 3 << 8 | k / 3 << 10);
      memset(memory, 0xcc, sizeof memory);
      row->run();
      printf("%s %x", row->name, controlWord);
      printExtended(&X), printExtended(&Y);
      printf(" %x", *(u16 *)(state + 4));
      printExtended(state + 28), printExtended(state + 38);
      if (row->bytes) {
        putchar(' ');
        for (int b = row->bytes; b--;) printf("%02x", memory[b]);
      }
      putchar('\n');
    }
  }
}

#define TABLE(t) t, sizeof t / sizeof *t

int main(int argc, char **argv)
{
  int count = argc > 2 ? atoi(argv[2]) : 100;
  seed = argc > 3 ? strtoull(argv[3], 0, 0) * 0x9E3779B97F4A7C15ull + 1 : 1;
  if (argc < 2) return 1;
  if (!strcmp(argv[1], "sse")) recordSse(count);
  if (!strcmp(argv[1], "x87")) recordX87(TABLE(x87Table), count, 0), recordX87(TABLE(constantTable), count, 1);
  if (!strcmp(argv[1], "transcendental")) recordX87(TABLE(transcendentalTable), count, argc > 4);
  return 0;
}
