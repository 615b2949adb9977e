/**
 * CPUID feature bits by the names that Linux gives them in /proc/cpuinfo. Intel SDM vol. 2, "CPUID-CPU Identification";
 * AMD APM vol. 3, appendix "Obtaining Processor Information Via the CPUID Instruction".
 */

/** Where a group of 32 feature bits is: leaf, subleaf and register (0 EAX, 1 EBX, 2 ECX, 3 EDX). */
export interface FeatureWord {
  readonly leaf: number
  readonly subleaf: number
  readonly register: 0 | 1 | 2 | 3
  /** Bit number → name. */
  readonly bits: Readonly<Record<string, number>>
}

/** `.` skips a bit, `@n` goes on at bit n: lists follow the tables of the manuals. */
function word(leaf: number, subleaf: number, register: 0 | 1 | 2 | 3, list: string): FeatureWord {
  const bits: Record<string, number> = {}
  let bit = 0
  for (const name of list.trim().split(/\s+/)) {
    if (name.startsWith('@')) bit = Number(name.slice(1))
    else {
      if (name !== '.') bits[name] = bit
      bit++
    }
  }
  return { leaf, subleaf, register, bits }
}

export const featureWords: readonly FeatureWord[] = [
  word(1, 0, 3,
    'fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov pat pse36 pn clflush . dts acpi mmx fxsr sse sse2 ss ht tm . pbe'),
  word(1, 0, 2, `
    pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm . pcid dca sse4_1 sse4_2 x2apic movbe popcnt
    tsc_deadline_timer aes xsave . avx f16c rdrand hypervisor`),
  word(6, 0, 0, '. . arat'),
  word(7, 0, 1, `
    fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx
    smap avx512ifma . clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`),
  word(7, 0, 2, `
    . avx512vbmi umip pku . waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq . la57 @22 rdpid
    . bus_lock_detect cldemote . movdiri movdir64b enqcmd sgx_lc pks`),
  word(7, 0, 3, `
    @4 fsrm @8 avx512_vp2intersect @10 md_clear @14 serialize @16 tsxldtrk @18 pconfig arch_lbr ibt
    . amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d
    arch_capabilities core_capabilities spec_ctrl_ssbd`),
  word(7, 1, 0, '@4 avx_vnni avx512_bf16 @10 fzrm fsrs fsrc'),
  word(7, 2, 3, 'psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no'),
  word(0xd, 1, 0, 'xsaveopt xsavec xgetbv1 xsaves'),
  word(0x80000001, 0, 3, '@11 syscall @19 mp nx . mmxext @25 fxsr_opt pdpe1gb rdtscp . lm 3dnowext 3dnow'),
  word(0x80000001, 0, 2, `
    lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt . lwp fma4 tce . nodeid_msr . tbm
    topoext perfctr_core perfctr_nb . bpext ptsc perfctr_llc mwaitx`),
  word(0x80000007, 0, 3, '@8 nonstop_tsc'),
  word(0x80000008, 0, 1, `
    clzero irperf xsaveerptr . rdpru @9 wbnoinvd @12 amd_ibpb . amd_ibrs amd_stibp @17 amd_stibp_always_on @24 amd_ssbd virt_ssbd
    amd_ssb_no @28 amd_psfd btc_no amd_ibpb_ret`),
  word(0x8000000a, 0, 3, `
    npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists @10 pausefilter @12 pfthreshold avic @15 v_vmsave_vmload
    vgif @18 x2avic @25 vnmi @28 svme_addr_chk @30 idle_hlt`),
  word(0x80000021, 0, 0, '@2 lfence_rdtsc @6 null_sel_clr_base @8 autoibrs @29 srso_no'),
  word(0x80000021, 0, 2, '@1 tsa_sq_no tsa_l1_no'),
  word(0x80000022, 0, 0, 'perfmon_v2'),
]

/** Other people's spellings. */
const aliases: Readonly<Record<string, string>> = {
  sse3: 'pni', tsc_deadline: 'tsc_deadline_timer', invtsc: 'nonstop_tsc', constant_tsc: 'nonstop_tsc', cmpxchg16b: 'cx16',
  cmpxchg8b: 'cx8', ssbd: 'spec_ctrl_ssbd',
  stibp: 'intel_stibp', lzcnt: 'abm', xd: 'nx', i64: 'lm', ffxsr: 'fxsr_opt', pclmuldq: 'pclmulqdq', xsaveerptr: 'xsaveerptr',
  ibpb: 'amd_ibpb', ht: 'ht',
  cr8legacy: 'cr8_legacy', ibrs: 'amd_ibrs', avx512bitalg: 'avx512_bitalg', avx512vbmi2: 'avx512_vbmi2',
  avx512vnni: 'avx512_vnni',   nrip_save: 'nrip_save', tsc_ratio: 'tsc_scale', pause_filter: 'pausefilter',
}

/**
 * What CPUID does not show: behaviour that processors are free to have, and the supervisor shadow-stack control of EPT
 * (IA32_VMX_EPT_VPID_CAP shows it), which kvm-unit-tests of 2025 takes for a reserved bit. Absent from `max` until it is asked for by name.
 */
const behaviours = ['strict_clean_bits', 'ept_shadow_stack']

export const featureNames: readonly string[] = [...featureWords.flatMap(each => Object.keys(each.bits)), ...behaviours]
const known: ReadonlySet<string> = new Set(featureNames)

/** The Linux name of a feature however people spell it (`sse4.2`, `tsc-deadline`), or undefined. */
export function featureName(spelling: string): string | undefined {
  const plain = spelling.toLowerCase().replace(/[-.]/g, '_')
  const name = aliases[plain] ?? plain
  return known.has(name) ? name : undefined
}

/** The known name with the fewest edits. */
export function nearest(word: string, names: readonly string[]): string {
  let best = names[0]
  let fewest = Infinity
  for (const name of names) {
    const edits = editDistance(word, name)
    if (edits < fewest) {
      fewest = edits
      best = name
    }
  }
  return best
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]
}
