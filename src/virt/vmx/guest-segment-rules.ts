/** Checks on guest segment registers. Intel SDM vol. 3, "Checks on Guest Segment Registers". */
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'
import { section, type Rule } from './rule.ts'

const segments = section('Checks on Guest Segment Registers')

const names = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs'] as const
type Name = (typeof names)[number] | 'Ldtr' | 'Tr'
const rights = (name: Name): FieldName => `guest${name}AccessRights`
const selector = (name: Name): FieldName => `guest${name}Selector`
const limit = (name: Name): FieldName => `guest${name}Limit`
const base = (name: Name): FieldName => `guest${name}Base`
const upper = (name: Name): string => name.toUpperCase()

const bit = { accessed: 1, writable: 2, code: 8, conforming: 4, s: 0x10, present: 0x80, l: 0x2000, db: 0x4000, g: 0x8000,
  unusable: 0x10000 } as const
const ar = (v: EntryView, name: Name): number => v.n(rights(name))
const usable = (name: Name) => (v: EntryView): boolean => (ar(v, name) & bit.unusable) === 0
const type = (v: EntryView, name: Name): number => ar(v, name) & 15
const dpl = (v: EntryView, name: Name): number => (ar(v, name) >> 5) & 3
const rpl = (v: EntryView, name: Name): number => v.n(selector(name)) & 3
const isLegacy = (v: EntryView): boolean => !v.v86
const legacyAndUsable = (name: Name) => (v: EntryView): boolean => !v.v86 && (name === 'Cs' || usable(name)(v))
const nonCanonical = 0x8000_0000_0000_0000n
const state: readonly FieldName[] = ['guestRflags', 'guestCr0', 'entryControls']

/** Of granularity: G = 0 needs a limit below 1 MiB, G = 1 one that ends in FFFH. */
function granularityFits(v: EntryView, name: Name): boolean {
  const value = v.n(limit(name))
  const g = (ar(v, name) & bit.g) !== 0
  if (g && (value & 0xfff) !== 0xfff) return false
  return g || value >>> 20 === 0
}
const fitGranularity = (name: Name) => (v: EntryView): bigint =>
  BigInt(ar(v, name) & bit.g ? (v.n(limit(name)) | 0xfff) >>> 0 : v.n(limit(name)) & 0xfffff)
const breakLimit = (name: Name): Rule['breaks'] => [[rights(name), old => old & ~0x18000n], [limit(name), 0xfffff000n]]

const selectorRules: readonly Rule[] = [
  segments('TI of the TR selector is 0', selector('Tr'), v => (v.n(selector('Tr')) & 4) === 0,
    { wants: v => BigInt(v.n(selector('Tr')) & ~4), breaks: [[selector('Tr'), old => old | 4n]] }),
  segments('TI of the LDTR selector is 0', [selector('Ldtr'), rights('Ldtr')], v => (v.n(selector('Ldtr')) & 4) === 0,
    { when: usable('Ldtr'), wants: v => BigInt(v.n(selector('Ldtr')) & ~4), breaks: [[rights('Ldtr'), 0x82n], [selector('Ldtr'), 4n]] }),
  segments('RPL of SS equals RPL of CS', [selector('Ss'), selector('Cs'), ...state], v => rpl(v, 'Ss') === rpl(v, 'Cs'),
    { when: v => isLegacy(v) && !v.unrestricted, wants: v => BigInt((v.n(selector('Ss')) & ~3) | rpl(v, 'Cs')),
      breaks: [[selector('Ss'), old => old ^ 3n]] }),
]

const isHighZero = (v: EntryView, name: Name): boolean => v.b(base(name)) >> 32n === 0n
const baseRules: readonly Rule[] = [
  ...names.map(name => segments(`in virtual-8086 mode the ${upper(name)} base is its selector × 16`,
    [base(name), selector(name), 'guestRflags'],
    v => v.b(base(name)) === BigInt(v.n(selector(name)) << 4), { when: v => v.v86, wants: v => BigInt(v.n(selector(name)) << 4) })),
  ...(['Tr', 'Fs', 'Gs'] as const).map(name => segments(`the ${upper(name)} base is canonical`, base(name), v =>
    v.canonical(v.b(base(name))),
    { wants: () => 0n, breaks: [[base(name), nonCanonical]] })),
  segments('the LDTR base is canonical', [base('Ldtr'), rights('Ldtr')], v => v.canonical(v.b(base('Ldtr'))),
    { when: usable('Ldtr'), wants: () => 0n, breaks: [[rights('Ldtr'), 0x82n], [base('Ldtr'), nonCanonical]] }),
  segments('bits 63:32 of the CS base are 0', base('Cs'), v => isHighZero(v, 'Cs'), { wants: () => 0n, breaks: [[base('Cs'), 1n << 32n]] }),
  ...(['Ss', 'Ds', 'Es'] as const).map(name => segments(`bits 63:32 of the ${upper(name)} base are 0`, [base(name), rights(name)],
    v => isHighZero(v, name), { when: usable(name), wants: () => 0n, breaks: [[base(name), 1n << 32n]] })),
]

const virtual8086Rules: readonly Rule[] = names.flatMap(name => [
  segments(`in virtual-8086 mode the ${upper(name)} limit is FFFFH`, [limit(name), 'guestRflags'], v => v.n(limit(name)) === 0xffff,
    { when: v => v.v86, wants: () => 0xffffn }),
  segments(`in virtual-8086 mode the ${upper(name)} access rights are F3H`, [rights(name), 'guestRflags'], v => ar(v, name) === 0xf3,
    { when: v => v.v86, wants: () => 0xf3n }),
])

const set = (name: Name, bits: number, clear = 0) => (v: EntryView): bigint => BigInt(((ar(v, name) | bits) & ~clear) >>> 0)

const codeRules: readonly Rule[] = [
  segments('the CS type is accessed code (9, 11, 13, 15), or with "unrestricted guest" also 3',
    [rights('Cs'), 'secondaryControls', 'guestRflags'],
    v => [9, 11, 13, 15].includes(type(v, 'Cs')) || (v.unrestricted && type(v, 'Cs') === 3),
      { when: isLegacy, wants: set('Cs', 9), breaks: [[rights('Cs'), old => old & ~9n]] }),
  segments('the CS DPL fits its type: equal to SS.DPL for non-conforming, at most it for conforming code, 0 for type 3',
    [rights('Cs'), rights('Ss'), 'guestRflags'], v => {
      const kind = type(v, 'Cs')
      if (kind === 3) return dpl(v, 'Cs') === 0
      return kind >= 13 ? dpl(v, 'Cs') <= dpl(v, 'Ss') : dpl(v, 'Cs') === dpl(v, 'Ss')
    }, { when: isLegacy, wants: v => BigInt((ar(v, 'Cs') & ~0x60) | (dpl(v, 'Ss') << 5)), breaks: [[rights('Cs'), old => old | 0x60n]] }),
  segments('in IA-32e mode CS.L and CS.D are not both 1', [rights('Cs'), 'entryControls'], v =>
    (ar(v, 'Cs') & (bit.l | bit.db)) !== (bit.l | bit.db),
    { when: v => isLegacy(v) && v.guest64, wants: set('Cs', 0, bit.db), breaks: [[rights('Cs'), old => old | 0x6000n]] }),
]

const stackRules: readonly Rule[] = [
  segments('the SS type is writable data (3 or 7)', [rights('Ss'), 'guestRflags'], v => [3, 7].includes(type(v, 'Ss')),
    { when: legacyAndUsable('Ss'), wants: v => BigInt((ar(v, 'Ss') & ~15) | 3), breaks: [[rights('Ss'), old => (old & ~0x1000fn) | 1n]] }),
  segments('the SS DPL equals the RPL of its selector', [rights('Ss'), selector('Ss'), ...state], v => dpl(v, 'Ss') === rpl(v, 'Ss'),
    { when: v => isLegacy(v) && !v.unrestricted, wants: v => BigInt((ar(v, 'Ss') & ~0x60) | (rpl(v, 'Ss') << 5)),
      breaks: [[rights('Ss'), old => old ^ 0x60n]] }),
  segments('the SS DPL is 0 when the CS type is 3 or CR0.PE = 0', [rights('Ss'), rights('Cs'), ...state], v => dpl(v, 'Ss') === 0,
    { when: v => isLegacy(v) && (type(v, 'Cs') === 3 || !v.protectedMode), wants: set('Ss', 0, 0x60) }),
]

const dataNames = ['Ds', 'Es', 'Fs', 'Gs'] as const
const dataRules: readonly Rule[] = dataNames.flatMap(name => [
  segments(`the ${upper(name)} type is accessed, and readable if it is code`, [rights(name), 'guestRflags'],
    v => (type(v, name) & 1) !== 0 && (!(type(v, name) & 8) || (type(v, name) & 2) !== 0),
    { when: legacyAndUsable(name), wants: set(name, 3), breaks: [[rights(name), old => old & ~0x10001n]] }),
  segments(`the ${upper(name)} DPL is not below the RPL of its selector (data and non-conforming code)`,
    [rights(name), selector(name), ...state],
    v => dpl(v, name) >= rpl(v, name),
    { when: v => legacyAndUsable(name)(v) && !v.unrestricted && type(v, name) <= 11, wants: v =>
      BigInt((ar(v, name) & ~0x60) | (rpl(v, name) << 5)),
      breaks: [[rights(name), 0xc093n], [limit(name), 0xffffffffn], [selector(name), old => old | 3n]] }),
])

const commonRules: readonly Rule[] = names.flatMap(name => [
  segments(`S (bit 4) of the ${upper(name)} access rights is 1`, [rights(name), 'guestRflags'], v => (ar(v, name) & bit.s) !== 0,
    { when: legacyAndUsable(name), wants: set(name, bit.s), breaks: [[rights(name), old => old & ~0x10010n]] }),
  segments(`P (bit 7) of the ${upper(name)} access rights is 1`, [rights(name), 'guestRflags'], v => (ar(v, name) & bit.present) !== 0,
    { when: legacyAndUsable(name), wants: set(name, bit.present), breaks: [[rights(name), old => old & ~0x10080n]] }),
  segments(`reserved bits (11:8, 31:17) of the ${upper(name)} access rights are 0`, [rights(name), 'guestRflags'], v =>
    (ar(v, name) & 0xfffe0f00) === 0,
    { when: legacyAndUsable(name), wants: set(name, 0, 0xfffe0f00), breaks: [[rights(name), old => (old & ~0x10000n) | 0x100n]] }),
  segments(`the ${upper(name)} limit fits its granularity`, [limit(name), rights(name), 'guestRflags'], v => granularityFits(v, name),
    { when: legacyAndUsable(name), wants: fitGranularity(name), breaks: breakLimit(name) }),
])

const systemRules: readonly Rule[] = [
  segments('the TR type is a busy TSS: 11, or outside IA-32e mode also 3', [rights('Tr'), 'entryControls'],
    v => type(v, 'Tr') === 11 || (type(v, 'Tr') === 3 && !v.guest64),
      { wants: v => BigInt((ar(v, 'Tr') & ~15) | 11), breaks: [[rights('Tr'), old => old & ~2n]] }),
  segments('S (bit 4) of the TR access rights is 0', rights('Tr'), v => (ar(v, 'Tr') & bit.s) === 0,
    { wants: set('Tr', 0, bit.s), breaks: [[rights('Tr'), old => old | 0x10n]] }),
  segments('TR is present', rights('Tr'), v => (ar(v, 'Tr') & bit.present) !== 0,
    { wants: set('Tr', bit.present), breaks: [[rights('Tr'), old => old & ~0x80n]] }),
  segments('TR is usable', rights('Tr'), usable('Tr'), { wants: set('Tr', 0, bit.unusable),
    breaks: [[rights('Tr'), old => old | 0x10000n]] }),
  segments('reserved bits (11:8, 31:17) of the TR access rights are 0', rights('Tr'), v => (ar(v, 'Tr') & 0xfffe0f00) === 0,
    { wants: set('Tr', 0, 0xfffe0f00), breaks: [[rights('Tr'), old => old | 0x100n]] }),
  segments('the TR limit fits its granularity', [limit('Tr'), rights('Tr')], v => granularityFits(v, 'Tr'),
    { wants: fitGranularity('Tr'), breaks: [[rights('Tr'), 0x8bn], [limit('Tr'), 0xfffff000n]] }),
  segments('the LDTR type is 2', rights('Ldtr'), v => type(v, 'Ldtr') === 2,
    { when: usable('Ldtr'), wants: v => BigInt((ar(v, 'Ldtr') & ~15) | 2), breaks: [[rights('Ldtr'), 0x83n]] }),
  segments('S (bit 4) of the LDTR access rights is 0', rights('Ldtr'), v => (ar(v, 'Ldtr') & bit.s) === 0,
    { when: usable('Ldtr'), wants: set('Ldtr', 0, bit.s), breaks: [[rights('Ldtr'), 0x92n]] }),
  segments('LDTR is present', rights('Ldtr'), v => (ar(v, 'Ldtr') & bit.present) !== 0,
    { when: usable('Ldtr'), wants: set('Ldtr', bit.present), breaks: [[rights('Ldtr'), 2n]] }),
  segments('reserved bits (11:8, 31:17) of the LDTR access rights are 0', rights('Ldtr'), v => (ar(v, 'Ldtr') & 0xfffe0f00) === 0,
    { when: usable('Ldtr'), wants: set('Ldtr', 0, 0xfffe0f00), breaks: [[rights('Ldtr'), 0x182n]] }),
  segments('the LDTR limit fits its granularity', [limit('Ldtr'), rights('Ldtr')], v => granularityFits(v, 'Ldtr'),
    { when: usable('Ldtr'), wants: fitGranularity('Ldtr'), breaks: [[rights('Ldtr'), 0x82n], [limit('Ldtr'), 0xfffff000n]] }),
]

export const segmentRules: readonly Rule[] = [...selectorRules, ...baseRules, ...virtual8086Rules, ...codeRules, ...stackRules,
  ...dataRules,
  ...commonRules, ...systemRules]
