/**
 * CPU models as they can be asked for: the parser of `MODEL[,+feature][,-feature][,key=value]`, and what becomes of a model's features.
 * The models themselves are in model-table.ts, features in features.ts.
 */
import { featureName, featureNames, nearest } from './features.ts'
import type { Cache, CounterSet, CpuIdentity, CpuModel } from './model.ts'
import { amdCounters } from './pmu-amd.ts'
import { intelCounters } from './pmu-intel.ts'
import { amdOnly, amdServer, intelOnly, modelTable, type ModelData } from './model-table.ts'

type Vendor = CpuModel['vendor']

/** EAX of leaf 1. Intel SDM vol. 2, "Version Information Returned by CPUID in EAX". */
function encodeSignature([family, model, stepping]: ModelData['signature']): number {
  const base = Math.min(family, 15)
  return ((family - base) << 20) | ((model >> 4) << 16) | (base << 8) | ((model & 15) << 4) | stepping
}

const words = (list: string): string[] => list.trim().split(/\s+/)

export const modelNames: readonly string[] = Object.keys(modelTable)

/** What nothing behind CPUID implements yet; asking for it is answered, not obeyed. */
export const notImplemented: ReadonlySet<string> = new Set(words(`
  psfd ipred_ctrl rrsba_ctrl ddpd_u mcdt_no amd_psfd smx est tm2 dtes64 ds_cpl cid sdbg xtpr dca sgx hle
  rtm cqm mpx rdt_a avx512f avx512dq avx512ifma intel_pt avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi
  avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq bus_lock_detect movdir64b
  enqcmd sgx_lc avx512_vp2intersect tsxldtrk pconfig arch_lbr core_capabilities avx_vnni avx512_bf16 3dnowext 3dnow
  sse4a osvw ibs xop skinit wdt lwp fma4 nodeid_msr tbm perfctr_nb bpext ptsc perfctr_llc mwaitx extapic irperf rdpru
  virt_ssbd pn dts acpi tm pbe tce amx_bf16 avx512_fp16 amx_tile amx_int8`))

/** Implemented, but offered only to who asks by name: MWAIT wakes at once, so an operating system that idles in it never rests. */
const withheld: ReadonlySet<string> = new Set(['monitor'])

/** A feature goes when what it rests on goes. */
const needs: readonly (readonly [string, string])[] = [
  ['sse', 'fxsr'], ['sse2', 'sse'], ['pni', 'sse2'], ['ssse3', 'pni'], ['sse4_1', 'ssse3'], ['sse4_2', 'sse4_1'], ['aes',
    'sse2'], ['pclmulqdq', 'sse2'], ['sha_ni', 'sse2'],
  ['avx', 'xsave'], ['avx2', 'avx'], ['fma', 'avx'], ['f16c', 'avx'],
  ['xsaveopt', 'xsave'], ['xsavec', 'xsave'], ['xgetbv1', 'xsave'], ['xsaves', 'xsave'], ['pku', 'xsave'], ['xsaves',
    'xsavec'], ['invpcid', 'lm'], ['pcid', 'lm'], ['la57', 'lm'], ['x2apic', 'apic'],
  ['tsc_deadline_timer', 'apic'], ['perfmon_v2', 'perfctr_core'],
  ['avic', 'svm'], ['avic', 'npt'], ['x2avic', 'avic'], ['x2avic', 'x2apic'],
]

/** Keys of QEMU's models that mean nothing here. */
const ignoredKeys: ReadonlySet<string> = new Set([
  'host-phys-bits', 'host-phys-bits-limit', 'migratable', 'l3-cache', 'check', 'kvm', 'legacy-cache', 'host-cache-info', 'cpuid-0xb',
  'min-level', 'min-xlevel', 'full-cpuid-auto-level', 'fill-mtrr-mask', 'x-vendor-cpuid-only',
])

/** QEMU's names for single capabilities of VMX, which CPUID does not show. */
const vmxCapability = /^[+-]vmx-[a-z0-9-]+$/

export interface ModelOptions {
  readonly processors?: number
  readonly seed?: bigint
}

export interface NamedModel extends CpuModel {
  /** Features that were asked for by name and are not implemented; the face says so. */
  readonly notOffered: readonly string[]
  /** Features that the processor of this name has in silicon, and this model has not. */
  readonly lacking: readonly string[]
}

/** What the words after the name change. */
interface Settings {
  vendor: Vendor
  signature: [family: number, model: number, stepping: number]
  brand: string
  physicalBits: number
  basicLeaves: number
  extendedLeaves: number
  enforce: boolean
  /** QEMU's `pmu=off`: no performance counters. AMD's four are always there. */
  pmu: boolean
}

/**
 * The model that a specification such as `intel,+la57,-pcid,vendor=AuthenticAMD,phys-bits=40` names. Throws an Error that names the nearest
 * known word for one that is not known.
 */
export function createModel(specification: string, options: ModelOptions = {}): NamedModel {
  const [name = '', ...changes] = specification.split(',').filter(part => part !== '')
  const data = modelTable[name]
  if (!data) throw new Error(`unknown CPU model '${name}'; did you mean '${nearest(name, modelNames)}'? Known: ${modelNames.join(', ')}`)
  const features = new Set(words(data.features))
  const asked = new Set<string>()
  const vmxAsked: string[] = []
  const settings: Settings = { ...data, signature: [...data.signature], enforce: false, pmu: true }
  for (const change of changes) {
    const sign = change[0]
    if (vmxCapability.test(change)) vmxAsked.push(...(sign === '+' ? [change.slice(1)] : []))
    else if (sign === '-' || sign === '+') {
      const feature = checkedFeature(change.slice(1))
      if (sign === '+') asked.add(feature)
      else for (const set of [features, asked]) set.delete(feature)
    } else applyKey(settings, change, specification)
  }
  if (['max', 'host'].includes(name) && asked.has('svm') && !changes.some(each => each.startsWith('vendor='))) becomeAmd(settings, features)
  const silicon = [...features]
  for (const feature of asked) features.add(feature)
  const notOffered = [...[...asked].filter(feature => notImplemented.has(feature)), ...vmxAsked]
  if (settings.enforce && notOffered.length > 0) throw new Error(`CPU model '${specification}': not implemented: ${notOffered.join(', ')}`)
  takeOut(features, asked, options.processors ?? 1)
  const counters = countersOf(settings, features)
  return {
    name, vendor: settings.vendor, physicalBits: settings.physicalBits, linearBits: features.has('la57') ? 57 : 48,
    has: feature => features.has(feature),
    identity: identityOf(settings, data, options),
    counters,
    notOffered,
    lacking: silicon.filter(feature => !features.has(feature) && feature !== 'ht'),
  }
}

/** Leaves of `features` what is implemented and makes sense together. */
function takeOut(features: Set<string>, asked: ReadonlySet<string>, processors: number): void {
  for (const feature of notImplemented) features.delete(feature)
  for (const feature of withheld) if (!asked.has(feature)) features.delete(feature)
  for (const [feature, base] of needs) if (!features.has(base)) features.delete(feature)
  if (processors === 1) features.delete('ht')
}

/** A processor of a family other than 6 has none of Intel's. */
function countersOf({ vendor, signature: [family, number], pmu, basicLeaves }: Settings, features: Set<string>): CounterSet {
  const isIntel = vendor === 'GenuineIntel'
  const isThere = pmu && (!isIntel || (family === 6 && basicLeaves >= 0xa))
  if (!isThere) for (const feature of ['perfctr_core', 'perfmon_v2', 'pdcm']) features.delete(feature)
  if (!isIntel) return amdCounters(features.has('perfctr_core'), features.has('perfmon_v2'))
  return isThere ? intelCounters(number) : { version: 0, general: 0, fixed: 0, width: 0 }
}

function becomeAmd(settings: Settings, features: Set<string>): void {
  const { vendor, signature, brand, basicLeaves, extendedLeaves } = amdServer
  Object.assign(settings, { vendor, signature: [...signature], brand, basicLeaves, extendedLeaves })
  for (const feature of words(`${intelOnly} pks ibt`)) features.delete(feature)
  for (const feature of words(amdOnly)) features.add(feature)
}

function identityOf(settings: Settings, data: ModelData, { processors = 1, seed = 1n }: ModelOptions): CpuIdentity {
  const { vendor, signature, brand, basicLeaves, extendedLeaves } = settings
  const caches = vendor === data.vendor ? data.caches : amdServer.caches
  return {
    signature: encodeSignature(signature), brand, basicLeaves, processors, seed, caches: cachesOf(caches),
    // Another vendor's leaves than those that the model was written for.
    extendedLeaves: vendor === data.vendor ? extendedLeaves : Math.max(extendedLeaves, amdServer.extendedLeaves),
  }
}

/** From KiB and ways of L1 data, L1 instruction, L2 and L3. */
function cachesOf(text: string): Cache[] {
  const kinds = [[1, 'data'], [1, 'instruction'], [2, 'unified'], [3, 'unified']] as const
  return words(text).map((size, i) => {
    const [kilobytes, ways] = size.split('/').map(Number)
    const [level, type] = kinds[i]
    return { level, type, bytes: kilobytes << 10, ways, sharedBy: level === 3 ? 'all' : 1 }
  })
}

function applyKey(settings: Settings, change: string, specification: string): void {
  const equals = change.indexOf('=')
  const [key, value] = equals < 0 ? [change, 'on'] : [change.slice(0, equals), change.slice(equals + 1)]
  switch (key) {
    case 'vendor': return void (settings.vendor = checkedVendor(value))
    case 'phys-bits': return void (settings.physicalBits = checkedNumber(key, value, 32, 52))
    case 'family': return void (settings.signature[0] = checkedNumber(key, value, 0, 0x10e))
    case 'model': return void (settings.signature[1] = checkedNumber(key, value, 0, 0xff))
    case 'stepping': return void (settings.signature[2] = checkedNumber(key, value, 0, 15))
    case 'level': return void (settings.basicLeaves = checkedNumber(key, value, 1, 0x1f))
    case 'xlevel': return void (settings.extendedLeaves = checkedNumber(key, value, 0x80000000, 0x80000028))
    case 'model-id': return void (settings.brand = checkedBrand(value))
    case 'pmu': return void (settings.pmu = value !== 'off')
    case 'enforce': return void (settings.enforce = value !== 'off')
  }
  if (ignoredKeys.has(key)) return
  const expected = '+feature, -feature, feature=on|off, vendor=, phys-bits=, family=, model=, stepping=, level=, xlevel= or model-id='
  throw new Error(`cannot read '${change}' in CPU model '${specification}': expected ${expected}`)
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

function checkedBrand(text: string): string {
  if (text.length < 48 && /^[\x20-\x7e]*$/.test(text)) return text
  throw new Error(`model-id=${text}: expected at most 47 characters of ASCII`)
}

function checkedNumber(key: string, text: string, least: number, most: number): number {
  const number = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isInteger(number) && number >= least && number <= most) return number
  const shown = (value: number): string => (value > 0xff ? `0x${value.toString(16)}` : String(value))
  throw new Error(`${key}=${text}: expected a number from ${shown(least)} to ${shown(most)}`)
}

/** What a model is, for people. */
export function describeModel(specification: string): string {
  const model = createModel(specification)
  const { signature, brand } = model.identity
  const lines = [
    `${model.name}: ${brand}`,
    `  vendor ${model.vendor}, CPUID 1 EAX ${signature.toString(16).padStart(8, '0')}, ` +
    `${model.physicalBits} bits of physical and ${model.linearBits} of linear address`,
    `  has      ${featureNames.filter(feature => model.has(feature)).join(' ')}`,
  ]
  if (model.lacking.length > 0) lines.push(`  lacks    ${model.lacking.join(' ')} (in silicon; not implemented here)`)
  return `${lines.join('\n')}\n`
}
