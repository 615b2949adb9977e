/**
 * Virtual nanoseconds that instructions done by helpers cost besides the one that every instruction costs. Follows no manual: tens of
 * cycles, as
 * on silicon, so that software which measures or waits with them needs as few of them as there. Port I/O and strings charge themselves.
 */
import type { HelperName } from './index.ts'

export const helperTime: Readonly<Partial<Record<HelperName, number>>> = {
  cpuid: 100,
  rdtsc: 20,
  rdtscp: 25,
  rdrand: 100,
  rdseed: 300,
  rdpmc: 25,
  rdmsr: 60,
  wrmsr: 100,
  xgetbv: 5,
  xsetbv: 60,
  rdpkru: 5,
  wrpkru: 20,
  mov_to_cr: 60,
  mov_from_cr: 20,
  mov_to_dr: 60,
  mov_from_dr: 20,
  lmsw: 60,
  clts: 20,
  invlpg: 100,
  invpcid: 100,
  wbinvd: 2000,
  invd: 2000,
  clflush: 10,
  iret: 30,
  int: 30,
  int1: 30,
  int3: 30,
  into: 5,
  far_jmp: 20,
  far_call: 30,
  far_ret: 30,
  far_jmp_wide: 20,
  far_call_wide: 30,
  far_jmp_immediate: 20,
  far_call_immediate: 30,
  hlt: 20,
  pause: 140,
  rsm: 500,
}
