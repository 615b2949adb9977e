/** VMCSs by chance: each is the one that works, with a few fields changed in ways that a hypervisor could get wrong. */
import { generator } from '../chance.ts'
import { fieldList, fields, type FieldName, type VmcsField } from '../../src/virt/vmx/fields.ts'
import { initial, place, type Write } from './guest.ts'

/** Capability MSRs of two processors, by index. */
export type Capabilities = ReadonlyMap<number, bigint>
export const capabilitiesOf = (lines: readonly string[]): Capabilities => new Map(lines.flatMap(line => {
  const [kind, index, value] = line.split(' ')
  return kind === 'M' ? [[Number(`0x${index}`), BigInt(`0x${value}`)] as const] : []
}))

/** Bits that one of two processors has and the other has not: they are left as they are. */
export function unlike(a: Capabilities, b: Capabilities): Partial<Record<FieldName, bigint>> {
  const bits = (msr: number): bigint => ((a.get(msr) ?? 0n) ^ (b.get(msr) ?? 0n)) >> 32n
  const cr4 = (a.get(0x489) ?? 0n) ^ (b.get(0x489) ?? 0n)
  return { pinControls: bits(0x48d), primaryControls: bits(0x48e), secondaryControls: bits(0x48b), exitControls: bits(0x48f),
    entryControls: bits(0x490), guestCr4: cr4, hostCr4: cr4 }
}

/** Physical addresses have 36 bits at the least and 52 at the most: bits between depend on the model. */
const betweenWidths = 0xffff0_0000_0000n & 0xf_fff0_0000_0000n
/** What the hypervisor itself needs to come back: only bits that make an entry fail may change. */
const hostMustSurvive: Partial<Record<FieldName, bigint>> = {
  hostCr3: 0xfff0_0000_0000_0000n, hostRip: 0xfe00_0000_0000_0000n, hostRsp: 0n, hostGdtrBase: 0xfe00_0000_0000_0000n,
  hostIdtrBase: 0xfe00_0000_0000_0000n, hostTrBase: 0xfe00_0000_0000_0000n, hostCr4: 0xffff_ffff_ff08_e6ffn, hostEfer: ~0n, hostCr0: ~0n,
}
/** The preemption timer must end a guest that halts; exceptions must exit; the timer must not be too long. */
const keep: Partial<Record<FieldName, bigint>> = {
  pinControls: 0x40n, exceptionBitmap: ~0n, preemptionTimer: 0xffff_f000n, guestActivity: ~7n, guestRip: 0x7fff_ffff_f000n,
  guestCsBase: 0xffff_f000n,
}

/** Memory that a field points to is the guest's own page, or none. */
const addresses = [0n, BigInt(place.guest), BigInt(place.guest) | 1n, BigInt(place.guest) | 0x10n, BigInt(place.guest) | 0x800n,
  1n << 52n, 1n << 63n]
const isAddress = (name: string): boolean => /Address$|Bitmap(A|B)?$|postedInterruptDescriptor|vmcsLinkPointer/.test(name)
const interesting: Partial<Record<FieldName, readonly bigint[]>> = {
  eptp: [0n, 6n, 0x1en, BigInt(place.pages) | 0x1en, BigInt(place.pages) | 0x5en, BigInt(place.pages) | 0x18n, 0x1fn, 0x9en],
  guestActivity: [0n, 1n, 1n, 2n, 4n, 5n], guestInterruptibility: [0n, 1n, 2n, 3n, 4n, 8n, 0x10n, 0x20n], vpid: [0n, 1n],
  entryInterruption: [0n, 0x80000202n, 0x80000030n, 0x80000306n, 0x80000b0dn, 0x80000b0en, 0x80000430n, 0x80000501n, 0x80000603n,
    0x80000700n, 0x80000b08n, 0x80000301n, 0x80000312n, 0x80000b11n, 0x80000315n],
  guestPendingDebug: [0n, 0x4000n, 0x1000n, 0x1001n, 0x10000n, 0x11000n, 1n], cr3TargetCount: [0n, 1n, 4n, 5n],
  entryMsrLoadCount: [0n, 0n, 1n, 2n], exitMsrStoreCount: [0n], exitMsrLoadCount: [0n], entryInstructionLength: [0n, 1n, 15n, 16n],
  tprThreshold: [0n, 1n, 15n, 16n], vmFunctionControls: [0n, 1n, 2n], guestRflags: [2n, 0x202n, 0x102n, 0x302n, 0x20002n, 0x3002n],
  guestEfer: [0n, 0x100n, 0x400n, 0x500n, 0x501n, 0xd01n, 0x502n], hostEfer: [0n, 0x100n, 0x400n, 0x500n, 0x501n, 0xd01n, 0x502n],
}
const accessRights = [0x10000n, 0x93n, 0xc093n, 0x91n, 0xf3n, 0xd3n, 0x9bn, 0xa09bn, 0xc09bn, 0x9fn, 0xbfn, 0xfbn, 0x82n, 0x8bn, 0x83n,
  0x13n, 0x8093n, 0x97n, 0xe09bn]
const limits = [0n, 0xffffn, 0xfffffn, 0xfffffffn, 0xffffffffn, 0xfffff000n, 0x67n]
const selectors = [0n, 8n, 0x10n, 0x13n, 0x14n, 0x1bn, 0x18n]

/** Fields that matter at an entry, and whose values both processors understand alike. */
const left: ReadonlySet<string> = new Set(['exitMsrLoadCount', 'exitMsrStoreCount', 'guestSmbase', 'pmlIndex', 'eptpIndex', 'guestPkrs',
  'hostPkrs', 'executiveVmcsPointer', 'tscMultiplier', 'hostRsp', 'guestInterruptStatus', 'guestDebugctl', 'pleGap', 'pleWindow'])
const candidates = fieldList.filter(({ kind, name }) => kind !== 'readOnly' && !left.has(name))
const byKind = { control: candidates.filter(({ kind }) => kind === 'control'), guest: candidates.filter(({ kind }) => kind === 'guest'),
  host: candidates.filter(({ kind }) => kind === 'host') }
const words = candidates.filter(({ name }) => /Controls$/.test(name))

function change({ name, width }: VmcsField, old: bigint, random: (below: number) => number, fixed: bigint): bigint {
  const field = name as FieldName
  const one = <T>(list: readonly T[]): T => list[random(list.length)]
  const bits = width === 'natural' ? 64 : width
  const chosen = interesting[field] ?? (isAddress(name) ? addresses : /AccessRights$/.test(name) ? accessRights
    : /Limit$/.test(name) && !/dtrLimit/.test(name) ? limits : /Selector$/.test(name) ? selectors : undefined)
  const flips = random(3) === 0 ? 2 : 1
  let value = chosen && random(3) !== 0 ? one(chosen) : old
  if (value === old) for (let i = 0; i < flips; i++) value ^= 1n << BigInt(random(bits))
  const may = (hostMustSurvive[field] ?? ~0n) & ~fixed & ~(keep[field] ?? 0n) & ~betweenWidths
  return BigInt.asUintN(bits, (old & ~may) | (value & may))
}

/** Cases of one seed. */
export function randomCases(seed: number, count: number, fixed: Partial<Record<FieldName, bigint>>): Write[][] {
  const random = generator(seed)
  return Array.from({ length: count }, () => {
    const pools = [byKind.control, byKind.guest, byKind.guest, byKind.guest, byKind.host, words] as const
    const values = new Map<FieldName, bigint>()
    // most VMCSs are wrong in few places: else every case would end in the first checks
    const changes = 1 + random(4)
    const pool = pools[random(pools.length)]
    for (let i = 0; i < changes; i++) {
      const from = random(4) === 0 ? pools[random(pools.length)] : pool
      const field = from[random(from.length)]
      const name = field.name as FieldName
      values.set(name, change(field, values.get(name) ?? initial.get(name) ?? 0n, random, fixed[name] ?? 0n))
    }
    if ((values.get('primaryControls') ?? 0n) & 0x80000000n && !values.has('secondaryControls'))
      values.set('secondaryControls', change(fields.secondaryControls, 0n, random, fixed.secondaryControls ?? 0n))
    return [...values]
  })
}
