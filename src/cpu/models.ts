/**
 * The CPU models that one can ask for, as data, and the parser of `MODEL[,+feature][,-feature][,key=value]`. Features are named as in
 * features.ts.
 */
import { featureName, featureNames, nearest } from './features.ts'
import type { Cache, CpuIdentity, CpuModel } from './model.ts'

type Vendor = CpuModel['vendor']

interface ModelData {
  readonly vendor: Vendor
  readonly physicalBits: number
  readonly signature: number
  readonly brand: string
  readonly basicLeaves: number
  readonly extendedLeaves: number
  readonly features: string
}

/** EAX of leaf 1. Intel SDM vol. 2, "Version Information Returned by CPUID in EAX". */
function signature(family: number, model: number, stepping: number): number {
  const base = Math.min(family, 15)
  return ((family - base) << 20) | ((model >> 4) << 16) | (base << 8) | ((model & 15) << 4) | stepping
}

const words = (list: string): string[] => list.trim().split(/\s+/)

const base64 =
  'fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 pni cx16 syscall nx lm lahf_lm'
const modern = `
  fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht pni pclmulqdq ssse3 cx16 pcid
  sse4_1 sse4_2 x2apic movbe popcnt aes xsave rdrand fsgsbase smep erms invpcid rdseed adx smap clflushopt clwb sha_ni umip pku rdpid fsrm
  xsaveopt xsavec xgetbv1 xsaves syscall nx pdpe1gb rdtscp lm lahf_lm 3dnowprefetch nonstop_tsc arat`
const intelOnly = 'ss tsc_deadline_timer tsc_adjust md_clear spec_ctrl intel_stibp flush_l1d arch_capabilities spec_ctrl_ssbd bhi_ctrl'
const amdOnly = `
  mmxext fxsr_opt cmp_legacy cr8_legacy misalignsse abm topoext clzero wbnoinvd xsaveerptr amd_ibpb amd_ibrs amd_stibp amd_ssbd
  amd_ssb_no btc_no amd_ibpb_ret lfence_rdtsc null_sel_clr_base autoibrs srso_no tsa_sq_no tsa_l1_no`

/** Newer than the processor that `intel` is named after. */
const newer = 'la57 pks'

const intelServer: ModelData = {
  vendor: 'GenuineIntel', physicalBits: 46, basicLeaves: 0x16, extendedLeaves: 0x80000008,
  signature: signature(6, 0x6a, 6), brand: 'Vitrine virtual Xeon (Ice Lake) @ 1.00GHz',
  features: `${modern} ${intelOnly}`,
}
const amdServer: ModelData = {
  vendor: 'AuthenticAMD', physicalBits: 48, basicLeaves: 0x10, extendedLeaves: 0x80000021,
  signature: signature(0x19, 0x11, 1), brand: 'Vitrine virtual EPYC (Genoa)',
  features: `${modern} ${amdOnly}`,
}

/** `max` and `host` are everything that we implement, under Intel's name unless `+svm` says otherwise. */
const models: Readonly<Record<string, ModelData>> = {
  intel: intelServer,
  amd: amdServer,
  max: { ...intelServer, features: `${intelServer.features} ${newer}` },
  host: intelServer,
  qemu64: {
    vendor: 'AuthenticAMD', physicalBits: 40, basicLeaves: 0xd, extendedLeaves: 0x8000000a,
    signature: signature(15, 107, 1), brand: 'QEMU Virtual CPU version 2.5+',
    features: `${base64} svm`,
  },
  Opteron_G1: {
    vendor: 'AuthenticAMD', physicalBits: 40, basicLeaves: 5, extendedLeaves: 0x80000008,
    signature: signature(15, 6, 1), brand: 'AMD Opteron 240 (Gen 1 Class Opteron)',
    features: base64.replace(' cx16', '').replace(' lahf_lm', ''),
  },
  IvyBridge: {
    vendor: 'GenuineIntel', physicalBits: 40, basicLeaves: 0xd, extendedLeaves: 0x80000008,
    signature: signature(6, 58, 9), brand: 'Intel Xeon E3-12xx v2 (Ivy Bridge)',
    features: `
      ${base64} pclmulqdq ssse3 sse4_1 sse4_2 x2apic popcnt tsc_deadline_timer aes xsave rdrand fsgsbase smep erms xsaveopt rdtscp`,
  },
  'Skylake-Server': {
    vendor: 'GenuineIntel', physicalBits: 46, basicLeaves: 0xd, extendedLeaves: 0x80000008,
    signature: signature(6, 85, 4), brand: 'Intel Xeon Processor (Skylake)',
    features: `
      ${base64} pclmulqdq ssse3 pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave rdrand fsgsbase smep erms invpcid
      rdseed adx smap clflushopt clwb pku xsaveopt xsavec xgetbv1 rdtscp pdpe1gb 3dnowprefetch arat`,
  },
}

export const modelNames: readonly string[] = Object.keys(models)

/** What nothing behind CPUID implements yet; asking for it is answered, not obeyed. */
const notImplemented: ReadonlySet<string> = new Set(words(`
  psfd ipred_ctrl rrsba_ctrl ddpd_u mcdt_no amd_psfd vmx svm smx est tm2 dtes64 ds_cpl cid sdbg fma xtpr pdcm dca avx f16c sgx bmi1 bmi2
  hle rtm avx2 cqm mpx rdt_a avx512f avx512dq avx512ifma intel_pt avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi waitpkg
  avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq bus_lock_detect cldemote movdiri movdir64b
  enqcmd sgx_lc avx512_vp2intersect serialize tsxldtrk pconfig arch_lbr ibt core_capabilities avx_vnni avx512_bf16 3dnowext 3dnow
  sse4a osvw ibs xop skinit wdt lwp fma4 nodeid_msr tbm perfctr_core perfctr_nb bpext ptsc perfctr_llc mwaitx extapic irperf rdpru
  virt_ssbd npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold avic v_vmsave_vmload vgif
  svme_addr_chk pn dts acpi tm pbe`))

/** A feature goes when what it rests on goes. */
const needs: readonly (readonly [string, string])[] = [
  ['sse', 'fxsr'], ['sse2', 'sse'], ['pni', 'sse2'], ['ssse3', 'pni'], ['sse4_1', 'ssse3'], ['sse4_2', 'sse4_1'], ['aes',
    'sse2'], ['pclmulqdq', 'sse2'], ['sha_ni', 'sse2'],
  ['xsaveopt', 'xsave'], ['xsavec', 'xsave'], ['xgetbv1', 'xsave'], ['xsaves', 'xsave'], ['pku', 'xsave'], ['xsaves',
    'xsavec'], ['invpcid', 'lm'], ['pcid', 'lm'], ['la57', 'lm'], ['x2apic', 'apic'],
  ['tsc_deadline_timer', 'apic'],
]

/** Options of QEMU's models that mean nothing here. */
const ignoredOption = /^(host-phys-bits|migratable|pmu|l3-cache|enforce|check)(=.*)?$/

export interface ModelOptions {
  readonly processors?: number
  readonly seed?: bigint
}

export interface NamedModel extends CpuModel {
  /** Features that were asked for by name and are not implemented; the face says so. */
  readonly notOffered: readonly string[]
}

const caches: Record<Vendor, readonly Cache[]> = {
  GenuineIntel: [
    { level: 1, type: 'data', bytes: 48 << 10, ways: 12, sharedBy: 1 },
    { level: 1, type: 'instruction', bytes: 32 << 10, ways: 8, sharedBy: 1 },
    { level: 2, type: 'unified', bytes: 1280 << 10, ways: 20, sharedBy: 1 },
    { level: 3, type: 'unified', bytes: 24 << 20, ways: 12, sharedBy: 'all' },
  ],
  AuthenticAMD: [
    { level: 1, type: 'data', bytes: 32 << 10, ways: 8, sharedBy: 1 },
    { level: 1, type: 'instruction', bytes: 32 << 10, ways: 8, sharedBy: 1 },
    { level: 2, type: 'unified', bytes: 1 << 20, ways: 8, sharedBy: 1 },
    { level: 3, type: 'unified', bytes: 32 << 20, ways: 16, sharedBy: 'all' },
  ],
}

/**
 * The model that a specification such as `intel,+la57,-pcid,vendor=AuthenticAMD,phys-bits=40` names. Throws an Error that names the nearest
 * known word for one that is not known.
 */
export function createModel(specification: string, options: ModelOptions = {}): NamedModel {
  const [name, ...changes] = specification.split(',').filter(part => part !== '')
  const data = models[name]
  if (!data) {
    const known = modelNames.join(', ')
    throw new Error(`unknown CPU model '${name}'; did you mean '${nearest(name ?? '', modelNames)}'? Known: ${known}`)
  }
  const features = new Set(words(data.features))
  const asked: string[] = []
  let { vendor, physicalBits, signature: id } = data
  let { brand } = data
  for (const change of changes) {
    if (change.startsWith('+') || change.startsWith('-')) {
      const feature = checkedFeature(change.slice(1))
      if (change[0] === '-') features.delete(feature)
      else {
        asked.push(feature)
        features.add(feature)
      }
    } else if (change.startsWith('vendor=')) vendor = checkedVendor(change.slice(7))
    else if (change.startsWith('phys-bits=')) physicalBits = checkedBits(change.slice(10))
    else if (!ignoredOption.test(change)) {
      const expected = 'expected +feature, -feature, vendor=NAME or phys-bits=N'
      throw new Error(`cannot read '${change}' in CPU model '${specification}': ${expected}`)
    }
  }
  if ((name === 'max' || name === 'host') && asked.includes('svm') && !changes.some(change => change.startsWith('vendor='))) {
    ;({ vendor, signature: id, brand } = amdServer)
    for (const feature of words(`${intelOnly} pks`)) features.delete(feature)
    for (const feature of words(amdOnly)) features.add(feature)
  }
  const notOffered = asked.filter(feature => notImplemented.has(feature))
  for (const feature of notImplemented) features.delete(feature)
  for (const [feature, base] of needs) if (!features.has(base)) features.delete(feature)
  const processors = options.processors ?? 1
  if (processors === 1) features.delete('ht')
  const identity: CpuIdentity = {
    signature: id, brand, basicLeaves: data.basicLeaves, extendedLeaves: vendor === data.vendor ? data.extendedLeaves
      : 0x80000021, processors, seed: options.seed ?? 1n, caches: caches[vendor],
  }
  return { name, vendor, physicalBits, linearBits: features.has('la57') ? 57 : 48, has: feature => features.has(feature), identity,
    notOffered }
}

function checkedFeature(spelling: string): string {
  const feature = featureName(spelling)
  if (!feature) throw new Error(`unknown CPU feature '${spelling}'; did you mean '${nearest(spelling, featureNames)}'?`)
  return feature
}

function checkedVendor(text: string): Vendor {
  if (text === 'GenuineIntel' || text === 'AuthenticAMD') return text
  throw new Error(`unknown CPU vendor '${text}': expected GenuineIntel or AuthenticAMD`)
}

function checkedBits(text: string): number {
  const bits = Number(text)
  if (Number.isInteger(bits) && bits >= 32 && bits <= 52) return bits
  throw new Error(`phys-bits=${text}: expected a number from 32 to 52`)
}
