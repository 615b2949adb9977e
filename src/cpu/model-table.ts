/**
 * The processors that one can ask for, as data: identity, sizes, caches, and the features that silicon has, by the names of Linux's
 * /proc/cpuinfo. Sources: Intel SDM vol. 4, table of family and model signatures; AMD's revision guides; the flags that such machines
 * print in /proc/cpuinfo; names as in QEMU. What we do not implement is taken out in models.ts.
 */
import type { CpuModel } from './model.ts'

export interface ModelData {
  readonly vendor: CpuModel['vendor']
  /** Family, model and stepping as displayed: extended fields added. */
  readonly signature: readonly [family: number, model: number, stepping: number]
  readonly brand: string
  readonly physicalBits: number
  /** Highest leaf that we answer: silicon's own may be higher. */
  readonly basicLeaves: number
  readonly extendedLeaves: number
  /** Sizes in KiB and ways of the first-level data and instruction caches, the second and the third level (shared by all). */
  readonly caches: string
  readonly features: string
}

const intel = { vendor: 'GenuineIntel', extendedLeaves: 0x80000008 } as const
const amd = { vendor: 'AuthenticAMD' } as const

/** A list with words taken out. */
const without = (list: string, ...words: string[]): string => list.split(/\s+/).filter(word => !words.includes(word)).join(' ')

// Intel, each generation on top of the one before.
const core2 = `
  fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts acpi mmx fxsr sse sse2 ss ht tm pbe syscall nx lm
  pni dtes64 monitor ds_cpl vmx est tm2 ssse3 cx16 xtpr pdcm lahf_lm`
const penryn = `${core2} sse4_1`
const nehalem = `${penryn} sse4_2 popcnt rdtscp nonstop_tsc`
const westmere = `${nehalem} pclmulqdq pcid aes arat`
const sandyBridge = `${westmere} x2apic tsc_deadline_timer xsave avx xsaveopt`
const ivyBridge = `${sandyBridge} f16c rdrand fsgsbase smep erms`
const haswell = `${ivyBridge} tsc_adjust sdbg fma movbe abm pdpe1gb bmi1 hle avx2 bmi2 invpcid rtm`
const broadwell = `${haswell} 3dnowprefetch rdseed adx smap intel_pt`
const skylake = `${broadwell} mpx clflushopt xsavec xgetbv1 xsaves`
const skylakeServer = `${skylake} dca cqm rdt_a avx512f avx512dq clwb avx512cd avx512bw avx512vl pku`
const mitigated = 'md_clear spec_ctrl intel_stibp flush_l1d arch_capabilities spec_ctrl_ssbd'
const cascadelake = `${skylakeServer} avx512_vnni ${mitigated}`
const icelake = `
  ${without(cascadelake, 'mpx', 'hle', 'rtm')} sgx sgx_lc avx512ifma avx512vbmi sha_ni umip avx512_vbmi2 gfni vaes vpclmulqdq avx512_bitalg
  tme avx512_vpopcntdq la57 rdpid fsrm pconfig wbnoinvd bhi_ctrl`
const sapphireRapids = `
  ${icelake} avx_vnni avx512_bf16 waitpkg shstk ibt serialize tsxldtrk arch_lbr bus_lock_detect cldemote movdiri movdir64b enqcmd fzrm fsrs
  fsrc amx_bf16 avx512_fp16 amx_tile amx_int8 ept_shadow_stack`

// AMD.
const k8 = `
  fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx mmxext lm 3dnowext 3dnow pni`
const k8f = `${k8} ht fxsr_opt rdtscp cx16 lahf_lm cmp_legacy svm extapic cr8_legacy`
const k10 = `
  ${k8f} monitor popcnt pdpe1gb abm sse4a misalignsse 3dnowprefetch osvw ibs npt lbrv svm_lock nonstop_tsc`
const bulldozer = `
  ${without(k10, '3dnow', '3dnowext')} pclmulqdq ssse3 sse4_1 sse4_2 aes xsave avx xop skinit wdt lwp fma4 nodeid_msr topoext perfctr_core
  perfctr_nb nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold`
const piledriver = `${bulldozer} f16c fma tce tbm bmi1`
const zen = `
  ${without(piledriver, 'xop', 'lwp', 'fma4', 'tbm', 'nodeid_msr')} movbe rdrand fsgsbase avx2 smep bmi2 rdseed adx smap clflushopt sha_ni
  xsaveopt xsavec xgetbv1 xsaves clzero irperf xsaveerptr arat bpext perfctr_llc mwaitx avic v_vmsave_vmload vgif amd_ibpb`
const zen2 = `${zen} cqm rdt_a clwb umip rdpid wbnoinvd rdpru amd_ibrs amd_stibp amd_ssbd`
const zen3 = `${zen2} x2apic erms fsrm pcid invpcid pku vaes vpclmulqdq shstk svme_addr_chk lfence_rdtsc null_sel_clr_base`
const zen4 = `
  ${zen3} avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_bf16 avx512vbmi avx512_vbmi2 gfni avx512_vnni avx512_bitalg
  avx512_vpopcntdq la57 flush_l1d autoibrs vnmi x2avic perfmon_v2`

/** The least that 64-bit software expects. */
const base64 =
  'fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 pni cx16 syscall nx lm lahf_lm'

/** Our own two: what is newest on each side, under a name of ours, with the clocks that the machine has. */
const modern = `
  fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht pni pclmulqdq ssse3 cx16 pcid
  sse4_1 sse4_2 x2apic movbe popcnt aes xsave rdrand fsgsbase smep erms invpcid rdseed adx smap clflushopt clwb sha_ni umip pku rdpid fsrm
  xsaveopt xsavec xgetbv1 xsaves syscall nx pdpe1gb rdtscp lm lahf_lm abm 3dnowprefetch nonstop_tsc arat`
export const intelOnly = `vmx ss pdcm tsc_deadline_timer tsc_adjust ${mitigated} bhi_ctrl`
export const amdOnly = `
  mmxext fxsr_opt cmp_legacy cr8_legacy misalignsse topoext clzero wbnoinvd xsaveerptr amd_ibpb amd_ibrs amd_stibp amd_ssbd
  amd_ssb_no btc_no amd_ibpb_ret lfence_rdtsc null_sel_clr_base autoibrs srso_no tsa_sq_no tsa_l1_no
  svm npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold v_vmsave_vmload vgif
  avic x2avic vnmi svme_addr_chk shstk perfctr_core perfmon_v2`

const intelServer: ModelData = {
  ...intel, signature: [6, 0x6a, 6], brand: 'Vitrine virtual Xeon (Ice Lake) @ 1.00GHz', physicalBits: 46, basicLeaves: 0x16,
  caches: '48/12 32/8 1280/20 24576/12', features: `${modern} ${intelOnly}`,
}
export const amdServer: ModelData = {
  ...amd, signature: [0x19, 0x11, 1], brand: 'Vitrine virtual EPYC (Genoa)', physicalBits: 48, basicLeaves: 0x10,
  extendedLeaves: 0x80000022, caches: '32/8 32/8 1024/8 32768/16', features: `${modern} ${amdOnly}`,
}

const xeonCaches = '32/8 32/8 256/8 8192/16'

/** `max` and `host` are everything that we implement, under Intel's name unless `+svm` says otherwise. */
export const modelTable: Readonly<Record<string, ModelData>> = {
  intel: intelServer,
  amd: amdServer,
  // `la57`, `pks`, `shstk` and `ibt` are newer than the processor that `intel` is named after.
  max: { ...intelServer, features: `${intelServer.features} la57 pks shstk ibt` },
  host: { ...intelServer, features: `${intelServer.features} la57 pks shstk ibt` },
  qemu64: {
    ...amd, signature: [15, 107, 1], brand: 'QEMU Virtual CPU version 2.5+', physicalBits: 40, basicLeaves: 0xd, extendedLeaves: 0x8000000a,
    caches: '64/2 64/2 512/16 16384/16', features: `${base64} svm`,
  },
  kvm64: {
    ...intel, signature: [15, 6, 1], brand: 'Common KVM processor', physicalBits: 40, basicLeaves: 0xd,
    caches: '32/8 32/8 4096/16 16384/16', features: without(base64, 'lahf_lm'),
  },
  Conroe: {
    ...intel, signature: [6, 15, 3], brand: 'Intel Celeron_4x0 (Conroe/Merom Class Core 2)', physicalBits: 36, basicLeaves: 0xa,
    caches: '32/8 32/8 4096/16', features: core2,
  },
  Penryn: {
    ...intel, signature: [6, 23, 3], brand: 'Intel Core 2 Duo P9xxx (Penryn Class Core 2)', physicalBits: 36, basicLeaves: 0xa,
    caches: '32/8 32/8 6144/24', features: penryn,
  },
  Nehalem: {
    ...intel, signature: [6, 26, 3], brand: 'Intel Core i7 9xx (Nehalem Class Core i7)', physicalBits: 36, basicLeaves: 0xb,
    caches: '32/8 32/4 256/8 8192/16', features: nehalem,
  },
  Westmere: {
    ...intel, signature: [6, 44, 1], brand: 'Westmere E56xx/L56xx/X56xx (Nehalem-C)', physicalBits: 40, basicLeaves: 0xb,
    caches: '32/8 32/4 256/8 12288/16', features: `${westmere} dca pdpe1gb`,
  },
  SandyBridge: {
    ...intel, signature: [6, 42, 1], brand: 'Intel Xeon E312xx (Sandy Bridge)', physicalBits: 36, basicLeaves: 0xd,
    caches: xeonCaches, features: sandyBridge,
  },
  IvyBridge: {
    ...intel, signature: [6, 58, 9], brand: 'Intel Xeon E3-12xx v2 (Ivy Bridge)', physicalBits: 36, basicLeaves: 0xd,
    caches: xeonCaches, features: ivyBridge,
  },
  Haswell: {
    ...intel, signature: [6, 60, 4], brand: 'Intel Core Processor (Haswell)', physicalBits: 39, basicLeaves: 0xd,
    caches: xeonCaches, features: haswell,
  },
  Broadwell: {
    ...intel, signature: [6, 61, 2], brand: 'Intel Core Processor (Broadwell)', physicalBits: 39, basicLeaves: 0x14,
    caches: xeonCaches, features: broadwell,
  },
  'Skylake-Client': {
    ...intel, signature: [6, 94, 3], brand: 'Intel Core Processor (Skylake)', physicalBits: 39, basicLeaves: 0x16,
    caches: '32/8 32/8 256/4 8192/16', features: `${skylake} sgx`,
  },
  'Skylake-Server': {
    ...intel, signature: [6, 85, 4], brand: 'Intel Xeon Processor (Skylake)', physicalBits: 46, basicLeaves: 0x16,
    caches: '32/8 32/8 1024/16 25344/11', features: skylakeServer,
  },
  'Cascadelake-Server': {
    ...intel, signature: [6, 85, 6], brand: 'Intel Xeon Processor (Cascadelake)', physicalBits: 46, basicLeaves: 0x16,
    caches: '32/8 32/8 1024/16 36608/11', features: cascadelake,
  },
  'Icelake-Server': {
    ...intel, signature: [6, 106, 6], brand: 'Intel Xeon Processor (Icelake)', physicalBits: 46, basicLeaves: 0x16,
    caches: '48/12 32/8 1280/20 24576/12', features: icelake,
  },
  SapphireRapids: {
    ...intel, signature: [6, 143, 8], brand: 'Intel Xeon Processor (SapphireRapids)', physicalBits: 46, basicLeaves: 0x16,
    caches: '48/12 32/8 2048/16 30720/15', features: sapphireRapids,
  },
  Opteron_G1: {
    ...amd, signature: [15, 6, 1], brand: 'AMD Opteron 240 (Gen 1 Class Opteron)', physicalBits: 40, basicLeaves: 5,
    extendedLeaves: 0x80000008, caches: '64/2 64/2 1024/16', features: k8,
  },
  Opteron_G2: {
    ...amd, signature: [15, 65, 3], brand: 'AMD Opteron 22xx (Gen 2 Class Opteron)', physicalBits: 40, basicLeaves: 5,
    extendedLeaves: 0x8000000a, caches: '64/2 64/2 1024/16', features: k8f,
  },
  Opteron_G3: {
    ...amd, signature: [16, 2, 3], brand: 'AMD Opteron 23xx (Gen 3 Class Opteron)', physicalBits: 48, basicLeaves: 5,
    extendedLeaves: 0x8000001a, caches: '64/2 64/2 512/16 2048/32', features: k10,
  },
  Opteron_G4: {
    ...amd, signature: [21, 1, 2], brand: 'AMD Opteron 62xx class CPU', physicalBits: 48, basicLeaves: 0xd, extendedLeaves: 0x8000001e,
    caches: '16/4 64/2 2048/16 6144/64', features: bulldozer,
  },
  Opteron_G5: {
    ...amd, signature: [21, 2, 0], brand: 'AMD Opteron 63xx class CPU', physicalBits: 48, basicLeaves: 0xd, extendedLeaves: 0x8000001e,
    caches: '16/4 64/2 2048/16 6144/64', features: piledriver,
  },
  EPYC: {
    ...amd, signature: [23, 1, 2], brand: 'AMD EPYC Processor', physicalBits: 48, basicLeaves: 0xd, extendedLeaves: 0x8000001f,
    caches: '32/8 64/4 512/8 8192/16', features: zen,
  },
  'EPYC-Rome': {
    ...amd, signature: [23, 49, 0], brand: 'AMD EPYC-Rome Processor', physicalBits: 48, basicLeaves: 0x10, extendedLeaves: 0x80000020,
    caches: '32/8 32/8 512/8 16384/16', features: zen2,
  },
  'EPYC-Milan': {
    ...amd, signature: [25, 1, 1], brand: 'AMD EPYC-Milan Processor', physicalBits: 48, basicLeaves: 0x10, extendedLeaves: 0x80000021,
    caches: '32/8 32/8 512/8 32768/16', features: zen3,
  },
  'EPYC-Genoa': {
    ...amd, signature: [25, 17, 0], brand: 'AMD EPYC-Genoa Processor', physicalBits: 52, basicLeaves: 0x10, extendedLeaves: 0x80000022,
    caches: '32/8 32/8 1024/8 32768/16', features: zen4,
  },
}
