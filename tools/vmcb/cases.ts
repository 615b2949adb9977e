/** Cases from snippets in every mode they are for, and by chance: a snippet, a mode, and a few fields of the VMCB as nobody meant them. */
import { generator } from '../chance.ts'
import { vmcbFields, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { assemble } from '../lockstep/rom.ts'
import { initialFields, place } from './arena.ts'
import type { Case, Poke } from './guest.ts'
import { modes, type Fields, type ModeName } from './modes.ts'
import { codeFor, snippets, type Snippet } from './snippets.ts'

export interface NamedCase {
  readonly name: string
  readonly snippet: Snippet
  readonly mode: ModeName
  readonly nested: boolean
  /** As VMRUN finds it first. */
  readonly fields: Fields
  /** Changed by chance. */
  readonly changed: Fields
  readonly steps: Case
}

const slotBytes = 128
/** The code of every snippet in each size, by one run of the assembler. */
function assembleAll(): (snippet: Snippet, bits: 16 | 32 | 64) => Uint8Array {
  const sizes = [16, 32, 64] as const
  const wanted = snippets.flatMap(snippet => sizes.filter(bits => snippet.modes.some(mode => modes[mode].bits === bits))
    .map(bits => ({ snippet, bits })))
  const source = wanted.map(({ snippet, bits }, i) => {
    const lines = codeFor(snippet, bits).split(';').map(line => line.trim()).join('\n')
    return `.org ${i * slotBytes}, 0xf4\n.code${bits}\n${lines}\n`
  }).join('')
  const bytes = assemble(`.globl _start\n_start:\n${source}.org ${wanted.length * slotBytes}, 0xf4\n`, 0)
  const place = new Map(wanted.map(({ snippet, bits }, i) => [`${bits} ${snippet.name}`, i] as const))
  if (place.size !== wanted.length) {
    const twice = wanted.find(({ snippet, bits }, i) => place.get(`${bits} ${snippet.name}`) !== i)
    throw new Error(`two snippets are called "${twice?.snippet.name}"`)
  }
  return (snippet, bits) => {
    const at = place.get(`${bits} ${snippet.name}`)! * slotBytes
    let end = at + slotBytes
    while (end > at && bytes[end - 1] === 0xf4) end--
    return bytes.subarray(at, end)
  }
}
let codeOf: ReturnType<typeof assembleAll> | undefined

const fieldPokes = (fields: Fields): Poke[] => (Object.entries(fields) as [VmcbFieldName, bigint][]).map(([name, value]) =>
  ({ address: place.vmcb + vmcbFields[name].offset, bytes: vmcbFields[name].size, value }))
function codePokes(code: Uint8Array): Poke[] {
  const padded = new Uint8Array((code.length + 7) & ~7).fill(0xf4)
  padded.set(code)
  return [...new BigUint64Array(padded.buffer)].map((value, i) => ({ address: place.code + i * 8, bytes: 8, value }))
}

function makeCase(snippet: Snippet, mode: ModeName, nested: boolean, more: Fields = {}): NamedCase {
  codeOf ??= assembleAll()
  const fields = { ...modes[mode].fields, ...snippet.fields, ...(nested ? { nestedControl: 1n } : {}), ...more }
  const first: Poke[] = [...codePokes(codeOf(snippet, modes[mode].bits)), ...fieldPokes(fields),
    { address: place.otherTss + 0x1c, bytes: 4, value: fields.cr3 ?? initialFields.cr3! }, ...(snippet.pokes ?? [])]
  return { name: `${snippet.name} [${mode}${nested ? ', nested' : ''}]`, snippet, mode, nested, fields: { ...initialFields, ...fields },
    changed: more,
    steps: [first, ...(snippet.then ?? [])] }
}

/** Every snippet in every mode it is for, with and without nested paging. */
export const allCases = (): NamedCase[] => snippets.flatMap(snippet => snippet.modes.flatMap(mode =>
  (snippet.nested === undefined ? [false, true] : [snippet.nested]).map(nested => makeCase(snippet, mode, nested))))

// ---- by chance ----

const attributes = [0x9bn, 0xa9bn, 0xc9bn, 0x29bn, 0x89bn, 0x93n, 0xc93n, 0x91n, 0x97n, 0xf3n, 0xcf3n, 0xfbn, 0xafbn, 0x82n, 0x8bn, 0x13n,
  0n, 0xe9bn]
const interesting: Partial<Record<VmcbFieldName, readonly bigint[]>> = {
  efer: [0x1500n, 0x1000n, 0x1100n, 0x1400n, 0x500n, 0x1501n, 0x1d00n, 0x5500n, 0x3500n, 0x1502n],
  cr0: [0x80000031n, 0x31n, 0x30n, 0x80000030n, 0xc0000031n, 0xa0000031n, 0xe0000031n, 0x80010031n, 0x80000021n, 0x80050033n],
  cr4: [0n, 0x20n, 0x620n, 0x600n, 0x610n, 0xa0n, 0x6a0n, 0x40620n, 0x100620n], asid: [0n, 1n, 1n, 5n, 0x7fffn],
  rflags: [2n, 0x202n, 0x102n, 0x10002n, 0x3002n, 0x4002n], cpl: [0n, 3n, 1n, 2n],
  tlbControl: [0n, 1n, 3n, 7n], interruptState: [0n, 1n, 2n, 3n], nestedControl: [0n, 1n],
  cr3: [BigInt(place.pml4), BigInt(place.pml4) | 0x18n, BigInt(place.paePdpt), BigInt(place.legacyDirectory), 0n, 1n << 60n],
  eventInjection: [0n, 0x80000306n, 0x80000b0dn, 0x80000b0en, 0x80000021n, 0x80000202n, 0x80000421n, 0x80000302n, 0x80000501n, 0x80000303n],
  dr6: [0xffff0ff0n, 0n, 0xffffffffn, 1n << 32n], dr7: [0x400n, 0n, 0xffffffffn, 0x2400n, 1n << 40n],
  rip: [BigInt(place.code), BigInt(place.code) + 0x10n, 1n << 47n, 1n << 63n, 0x100000000n, BigInt(place.code) + 0x100000000n],
  gPat: [0x0007040600070406n, 0x0207040600070406n, 0n], nestedCr3: [BigInt(place.nestedPml4), BigInt(place.nestedPml4) | 0x18n, 1n << 60n],
  iopmBase: [BigInt(place.iopm), BigInt(place.iopm) | 5n, 1n << 60n], msrpmBase: [BigInt(place.msrpm), BigInt(place.msrpm) | 5n, 1n << 60n],
  csBase: [0n, 0n, 0x10n, 1n << 47n], idtrLimit: [0xfffn, 0xffffn, 0x1ffffn, 0n], gdtrLimit: [0x7fn, 0x1007fn],
}
const untouched: ReadonlySet<string> = new Set(['exitCode', 'exitInfo1', 'exitInfo2', 'exitInterrupt', 'exitInterruptError',
  'fetchedLength',
  'tscOffset', 'pauseThreshold', 'clean', 'virtualExtensions', 'debugctl', 'brFrom', 'brTo', 'lastExceptionFrom', 'lastExceptionTo'])
const candidates = (Object.keys(vmcbFields) as VmcbFieldName[]).filter(name => !untouched.has(name))
/** The guest must leave: these bits stay, and those of extensions that one of both has not. */
const keep: Partial<Record<VmcbFieldName, bigint>> = { intercepts3: 0x81000011n, virtualInterrupt: 0xffe0_fef0n,
  // code stays where code is, tables where tables are
  rip: 0xffff_ffff_ffefn, csBase: 0xffff_fff0n, cr3: 0xffff_ffff_f000n, nestedCr3: 0xffff_ffff_f000n, rsp: 0xffff_0000n,
  intercepts5: ~0n, nestedControl: ~1n, tlbControl: ~7n, virtualVector: ~0xffn, cpl: ~3n, rflags: 0xffff_ffff_ffc0_802an,
    interruptState: ~1n }

const addresses: ReadonlySet<string> = new Set(['cr3', 'nestedCr3', 'iopmBase', 'msrpmBase'])

function change(name: VmcbFieldName, old: bigint, random: (below: number) => number): bigint {
  const { size } = vmcbFields[name]
  const chosen = interesting[name] ?? (name.endsWith('Attributes') ? attributes : undefined)
  let value = chosen && random(4) !== 0 ? chosen[random(chosen.length)] : old
  if (value === old) for (let i = random(3) === 0 ? 2 : 1; i > 0; i--) value ^= 1n << BigInt(random(size * 8))
  const kept = keep[name] ?? 0n
  // physical addresses have 40 bits at the least and 52 at the most: bits between depend on the model
  const open = addresses.has(name) ? ~0xf_ff00_0000_0000n : ~0n
  return BigInt.asUintN(size * 8, (old & (kept | ~open)) | (value & ~kept & open))
}

export function randomCases(seed: number, count: number): NamedCase[] {
  const random = generator(seed)
  const plain = snippets.filter(({ pokes, then }) => !pokes && !then)
  return Array.from({ length: count }, () => {
    const snippet = plain[random(plain.length)]
    const mode = snippet.modes[random(snippet.modes.length)]
    const nested = snippet.nested ?? random(2) === 1
    const before = makeCase(snippet, mode, nested).fields
    const fields: Partial<Record<VmcbFieldName, bigint>> = {}
    for (let i = 1 + random(3); i > 0; i--) {
      const name = candidates[random(candidates.length)]
      fields[name] = change(name, fields[name] ?? before[name] ?? 0n, random)
    }
    return makeCase(snippet, mode, nested, fields)
  })
}
