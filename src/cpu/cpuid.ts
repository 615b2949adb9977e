/**
 * CPUID: leaf and subleaf → EAX, EBX, ECX, EDX. Intel SDM vol. 2, "CPUID-CPU Identification"; AMD APM vol. 3, appendix "Obtaining
 * Processor Information Via the CPUID Instruction".
 */
import { featureWords } from './features.ts'
import type { Cache, CpuModel } from './model.ts'
import { counterLeaf } from './pmu-intel.ts'
import { extendedStateLayout, supportedXcr0, supportedXss, xsaveSizes } from './xsave-layout.ts'

export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number]

/** What CPUID shows of the processor's present state. */
export interface CpuidState {
  readonly apicId: number
  readonly apicEnabled: boolean
  readonly osxsave: boolean
  readonly ospke: boolean
  readonly xcr0: bigint
  readonly xss: bigint
}

const nothing: CpuidResult = [0, 0, 0, 0]

/** Values are unsigned 32-bit. A leaf above the highest gives the highest basic leaf's answer on Intel and zeros on AMD. */
export function cpuid(model: CpuModel, leaf: number, subleaf: number, state: CpuidState): CpuidResult {
  const { basicLeaves, extendedLeaves } = model.identity
  const extended = leaf >= 0x80000000
  if (extended ? leaf > extendedLeaves : leaf > basicLeaves)
    return model.vendor === 'GenuineIntel' ? answer(model, basicLeaves, subleaf, state) : nothing
  return answer(model, leaf, subleaf, state)
}

type Leaf = (model: CpuModel, subleaf: number, state: CpuidState) => CpuidResult

function answer(model: CpuModel, leaf: number, subleaf: number, state: CpuidState): CpuidResult {
  const one = leaves[leaf]
  const [a, b, c, d] = one ? one(model, subleaf, state) : nothing
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0]
}

/** The feature bits of each word of the table, worked out once a model. */
const knownBits = new WeakMap<CpuModel, readonly number[]>()

function bitsOf(model: CpuModel): readonly number[] {
  let all = knownBits.get(model)
  if (!all) {
    all = featureWords.map(
      word => Object.entries(word.bits).reduce((bits, [name, bit]) => (model.has(name) ? bits | (1 << bit) : bits), 0) >>> 0,
    )
    knownBits.set(model, all)
  }
  return all
}

/** The features of one register. */
export function featureBits(model: CpuModel, leaf: number, subleaf: number, register: number): number {
  const number = featureWords.findIndex(word => word.leaf === leaf && word.subleaf === subleaf && word.register === register)
  return number < 0 ? 0 : bitsOf(model)[number]
}

function ascii(text: string): number {
  return text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)
}

function vendorLeaf(highest: number, vendor: string): CpuidResult {
  return [highest, ascii(vendor.slice(0, 4)), ascii(vendor.slice(8, 12)), ascii(vendor.slice(4, 8))]
}

function brandLeaf(brand: string, part: number): CpuidResult {
  const text = brand.padEnd(48, '\0').slice(part * 16, part * 16 + 16)
  return [ascii(text), ascii(text.slice(4)), ascii(text.slice(8)), ascii(text.slice(12))]
}

const isIntel = (model: CpuModel): boolean => model.vendor === 'GenuineIntel'

const cacheType = { data: 1, instruction: 2, unified: 3 } as const
const lineBytes = 64

/** Leaves 4 and 8000001DH have one format; the core count in EAX[31:26] is Intel's. */
function cacheLeaf(model: CpuModel, cache: Cache | undefined): CpuidResult {
  if (!cache) return nothing
  const { processors } = model.identity
  const sharing = cache.sharedBy === 'all' ? powerOfTwo(processors) : cache.sharedBy
  const cores = isIntel(model) ? Math.min(powerOfTwo(processors), 64) - 1 : 0
  const sets = cache.bytes / (cache.ways * lineBytes)
  return [
    cacheType[cache.type] | (cache.level << 5) | (1 << 8) | ((sharing - 1) << 14) | (cores << 26),
    (lineBytes - 1) | ((cache.ways - 1) << 22),
    sets - 1,
    0,
  ]
}

const powerOfTwo = (count: number): number => 1 << bitsFor(count)
/** APIC ID bits that hold `count` processors. */
const bitsFor = (count: number): number => 32 - Math.clz32(count - 1)

/** Subleaf 0: SMT (one thread), 1: cores. */
const topologyLeaf: Leaf = (model, subleaf, { apicId }) => {
  if (subleaf === 0) return [0, 1, 0x100, apicId]
  if (subleaf === 1) return [bitsFor(model.identity.processors), model.identity.processors, 0x201, apicId]
  return [0, 0, subleaf & 0xff, apicId]
}

const extendedStateLeaf: Leaf = (model, subleaf, { xcr0, xss }) => {
  if (!model.has('xsave')) return nothing
  const users = supportedXcr0(model)
  const supervisors = supportedXss(model)
  if (subleaf === 0) return [Number(users & 0xffffffffn), xsaveSizes(xcr0).standard, xsaveSizes(users).standard, Number(users >> 32n)]
  if (subleaf === 1) {
    const compact = model.has('xsavec') || model.has('xsaves') ? xsaveSizes(xcr0 | (model.has('xsaves') ? xss : 0n)).compact : 0
    return [featureBits(model, 0xd, 1, 0), compact, Number(supervisors & 0xffffffffn), Number(supervisors >> 32n)]
  }
  const component = extendedStateLayout[subleaf]
  if (!component || !((users | supervisors) & (1n << BigInt(subleaf)))) return nothing
  return [component.size, component.offset, (component.supervisor ? 1 : 0) | (component.aligned ? 2 : 0), 0]
}

/**
 * Clocks the TSC and the APIC timer. One tick is one virtual nanosecond, so that timer tests and calibrations need no more of them than
 * they must.
 */
export const crystalHertz = 1_000_000_000
const tscRatio = 1
/** Address-space identifiers of guests, and the host's. */
const asids = 0x8000

const leaves: Readonly<Record<number, Leaf>> = {
  0x0: model => vendorLeaf(model.identity.basicLeaves, model.vendor),
  0x1: (model, _, { apicId, apicEnabled, osxsave }) => [
    model.identity.signature,
    ((apicId & 0xff) << 24) | (Math.min(powerOfTwo(model.identity.processors), 255) << 16) | ((lineBytes / 8) << 8),
    featureBits(model, 1, 0, 2) | (osxsave ? 1 << 27 : 0),
    featureBits(model, 1, 0, 3) & ~(apicEnabled ? 0 : 1 << 9),
  ],
  // Descriptor bytes: 0xFF sends software to leaf 4; no TLB descriptors are given.
  0x2: model => (isIntel(model) ? [0x00feff01, 0xf0, 0, 0] : nothing),
  0x4: (model, subleaf) => (isIntel(model) ? cacheLeaf(model, model.identity.caches[subleaf]) : nothing),
  0x5: model => (model.has('monitor') ? [64, 64, 3, 0] : nothing),
  0x6: model => [featureBits(model, 6, 0, 0), 0, 0, 0],
  0x7: (model, subleaf, { ospke }) => {
    if (subleaf === 0)
      return [2, featureBits(model, 7, 0, 1), featureBits(model, 7, 0, 2) | (ospke ? 1 << 4 : 0), featureBits(model, 7, 0, 3)]
    if (subleaf === 1) return [featureBits(model, 7, 1, 0), 0, 0, 0]
    return subleaf === 2 ? [0, 0, 0, featureBits(model, 7, 2, 3)] : nothing
  },
  0xa: model => (isIntel(model) ? counterLeaf(model.counters) : nothing),
  0xb: topologyLeaf,
  0xd: extendedStateLeaf,
  0x15: model => (isIntel(model) ? [1, tscRatio, crystalHertz, 0] : nothing),
  0x16: model => (isIntel(model) ? [(crystalHertz * tscRatio) / 1e6, (crystalHertz * tscRatio) / 1e6, 100, 0] : nothing),
  0x80000000: model =>
    isIntel(model) ? [model.identity.extendedLeaves, 0, 0, 0] : vendorLeaf(model.identity.extendedLeaves, model.vendor),
  0x80000001: model => {
    // AMD repeats in EDX the bits of leaf 1 that it had first.
    const repeated = isIntel(model) ? 0 : featureBits(model, 1, 0, 3) & 0x0183f3ff
    return [
      isIntel(model) ? 0 : model.identity.signature,
      0,
      featureBits(model, 0x80000001, 0, 2),
      featureBits(model, 0x80000001, 0, 3) | repeated,
    ]
  },
  0x80000002: model => brandLeaf(model.identity.brand, 0),
  0x80000003: model => brandLeaf(model.identity.brand, 1),
  0x80000004: model => brandLeaf(model.identity.brand, 2),
  0x80000005: model => (isIntel(model) ? nothing : [0xff40ff40, 0xff40ff40, l1(model, 'data'), l1(model, 'instruction')]),
  0x80000006: model => [0, 0, l2(model), isIntel(model) ? 0 : l3(model)],
  0x80000007: model => [0, 0, 0, featureBits(model, 0x80000007, 0, 3)],
  0x80000008: model => {
    const { processors } = model.identity
    const cores = isIntel(model) ? 0 : (processors - 1) | (bitsFor(processors) << 12)
    return [model.physicalBits | (model.linearBits << 8), featureBits(model, 0x80000008, 0, 1), cores, 0]
  },
  0x8000000a: model => (model.has('svm') ? [1, asids, 0, featureBits(model, 0x8000000a, 0, 3)] : nothing),
  0x8000001d: (model, subleaf) => (model.has('topoext') ? cacheLeaf(model, model.identity.caches[subleaf]) : nothing),
  0x8000001e: (model, _, { apicId }) => (model.has('topoext') ? [apicId, apicId & 0xff, 0, 0] : nothing),
  0x80000021: model => [featureBits(model, 0x80000021, 0, 0), 0, featureBits(model, 0x80000021, 0, 2), 0],
  0x80000022: model => (model.has('perfmon_v2') ? [featureBits(model, 0x80000022, 0, 0), model.counters.general, 0, 0] : nothing),
}

/** AMD leaf 80000005H: size in KiB, associativity, lines per tag, line size. */
function l1(model: CpuModel, type: Cache['type']): number {
  const cache = model.identity.caches.find(each => each.level === 1 && each.type === type)
  return cache ? ((cache.bytes >> 10) << 24) | (cache.ways << 16) | (1 << 8) | lineBytes : 0
}

/** Associativity as leaf 80000006H encodes it. */
const associativity: Readonly<Record<number, number>> = { 2: 2, 4: 4, 8: 6, 16: 8, 32: 10, 48: 11, 64: 12, 96: 13, 128: 14 }

function sharedCache(model: CpuModel, level: 2 | 3): Cache | undefined {
  return model.identity.caches.find(each => each.level === level)
}

function l2(model: CpuModel): number {
  const cache = sharedCache(model, 2)
  return cache ? ((cache.bytes >> 10) << 16) | ((associativity[cache.ways] ?? 6) << 12) | (1 << 8) | lineBytes : 0
}

/** Its size counts in 512 KiB. */
function l3(model: CpuModel): number {
  const cache = sharedCache(model, 3)
  return cache ? ((cache.bytes >> 19) << 18) | ((associativity[cache.ways] ?? 9) << 12) | (1 << 8) | lineBytes : 0
}
