/**
 * What two machines are compared by: the architectural registers of one CPU, as far as a peer can show them.
 */
import type { CpuRegisters } from '../../api.ts'
import type { CodeSize } from '../disassemble.ts'

export const GENERAL = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')
export const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const

export interface PeerState {
  /** The default operand size of CS; undefined when the peer cannot tell. */
  codeSize: CodeSize | undefined
  /**
   * By name: general registers, rip, rflags, selectors (`es`...), cr0, cr2, cr3, cr4, cr8, efer, fs_base, gs_base, and what else the
   * peer offers (`cs_base`, `cs_limit`, `cs_attributes`, `gdtr_base`, `xmm0`, `mxcsr`...). What it does not offer is missing.
   */
  values: Record<string, bigint>
}

export interface Difference {
  name: string
  left: bigint
  right: bigint
}

/** RFLAGS.RF: emulators differ on when it is visible between instructions, and it never lasts. */
const RF = 1n << 16n
const LOW_32 = 0xffffffffn

/**
 * What one peer calls the same, and another not, with no consequence for software: bases and limits of ES, CS, SS and DS in 64-bit mode
 * ("Segmentation in 64-Bit Mode": ignored), everything hidden behind a null selector, the upper halves of registers outside 64-bit mode
 * ("undefined" after a mode switch).
 */
function isComparable(name: string, size: CodeSize, values: Record<string, bigint>): boolean {
  const segment = /^(es|cs|ss|ds|fs|gs|ldtr|tr)_(base|limit|attributes)$/.exec(name)
  if (segment) {
    const [, register, part] = segment
    if (part === 'base' && (register === 'fs' || register === 'gs')) return true
    // QEMU does not show that a TSS is busy.
    if (register === 'ldtr' || register === 'tr') return part !== 'attributes' && (values[register] & 0xfffcn) !== 0n
    if (size === 64) return false
    const real = (values.cr0 & 1n) === 0n
    return real ? part === 'base' : (values[register] & 0xfffcn) !== 0n
  }
  if (size !== 64 && /^(r8|r9|r1\d)$/.test(name)) return false
  if (size !== 64 && /^xmm(8|9|1\d)$/.test(name)) return false
  return true
}

const NARROW: ReadonlySet<string> = new Set([...GENERAL.slice(0, 8), 'rip'])

/** The registers that both sides show and that differ. */
export function differences(left: PeerState, right: PeerState, ignore: ReadonlySet<string> = new Set()): Difference[] {
  const size = left.codeSize ?? right.codeSize ?? 64
  const found: Difference[] = []
  for (const name in left.values) {
    const a = left.values[name]
    const b = right.values[name]
    if (b === undefined || a === b || ignore.has(name) || !isComparable(name, size, left.values)) continue
    if (size !== 64 && NARROW.has(name) && (a & LOW_32) === (b & LOW_32)) continue
    if (name === 'rflags' && (a & ~RF) === (b & ~RF)) continue
    found.push({ name, left: a, right: b })
  }
  return found
}

/** Bits of the code segment, by EFER.LMA, CR0.PE and the attributes of CS. */
export function codeSizeOf(registers: Pick<CpuRegisters, 'segments' | 'efer' | 'cr0'>): CodeSize {
  const attributes = registers.segments.cs.attributes
  if ((registers.efer & 0x400n) !== 0n && (attributes & 0x2000) !== 0) return 64
  return (registers.cr0 & 1n) !== 0n && (attributes & 0x4000) !== 0 ? 32 : 16
}

/** The public picture of a CPU as a state to compare. */
export function stateOfRegisters(registers: CpuRegisters): PeerState {
  const values = registerValues(registers, segment => segment.attributes)
  values.cr8 = registers.cr8
  return { codeSize: codeSizeOf(registers), values }
}

/** What every picture of a CPU has, and those with vectors. */
type Picture<Segment> = Pick<CpuRegisters, 'gpr' | 'rip' | 'rflags' | 'gdtr' | 'idtr' | 'cr0' | 'cr2' | 'cr3' | 'cr4' | 'efer'> & {
  segments: Record<keyof CpuRegisters['segments'], Segment>
  xmm?: CpuRegisters['xmm'] | undefined
  mxcsr?: number | undefined
}

/** Registers by the names under which states are compared. `attributesOf`: a segment's, as the public registers have them. */
export function registerValues<Segment extends { selector: number; base: bigint; limit: number }>(
  picture: Picture<Segment>, attributesOf: (segment: Segment) => number,
): Record<string, bigint> {
  const values: Record<string, bigint> = {}
  GENERAL.forEach((name, i) => (values[name] = picture.gpr[i]))
  values.rip = picture.rip
  values.rflags = picture.rflags
  for (const [name, segment] of Object.entries(picture.segments)) {
    values[name] = BigInt(segment.selector)
    values[`${name}_base`] = segment.base
    values[`${name}_limit`] = BigInt(segment.limit >>> 0)
    values[`${name}_attributes`] = BigInt(attributesOf(segment) & 0xf0ff)
  }
  for (const name of ['gdtr', 'idtr'] as const) {
    values[`${name}_base`] = picture[name].base
    values[`${name}_limit`] = BigInt(picture[name].limit)
  }
  for (const name of ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const) values[name] = picture[name]
  picture.xmm?.forEach(({ low, high }, i) => (values[`xmm${i}`] = (high << 64n) | low))
  if (picture.mxcsr !== undefined) values.mxcsr = BigInt(picture.mxcsr)
  return values
}

/** The linear address of the next instruction: bases count outside 64-bit mode only. */
export function linearRip(state: PeerState): bigint {
  const { rip, cs, cs_base: base } = state.values
  if (state.codeSize === 64) return rip
  // A peer without segment bases: in real mode the base follows from the selector; in protected mode flat segments are supposed.
  const start = base ?? ((state.values.cr0 ?? 1n) & 1n ? 0n : cs << 4n)
  return (start + rip) & LOW_32
}

/** What the two machines are called in a report. */
export interface Names {
  left: string
  right: string
}

/** A state in two columns, the registers that differ marked. */
export function sideBySide(left: PeerState, right: PeerState, names: Names, marked: readonly Difference[]): string {
  const differing = new Set(marked.map((difference) => difference.name))
  const show = (value: bigint | undefined): string => (value === undefined ? '-' : value.toString(16).padStart(16, '0')).padEnd(32)
  const rows = Object.keys(left.values)
    .filter((name) => differing.has(name) || (!/_|^xmm|^mxcsr/.test(name) && right.values[name] !== undefined))
    .map((name) => {
      const mark = differing.has(name) ? '>' : ' '
      const flags = name === 'rflags' ? `${flagNames(left.values[name])} | ${flagNames(right.values[name] ?? 0n)}` : ''
      return `${mark} ${name.padEnd(14)} ${show(left.values[name])} ${show(right.values[name])} ${flags}`.trimEnd()
    })
  return [`  ${''.padEnd(14)} ${names.left.padEnd(32)} ${names.right}`, ...rows].join('\n')
}

const FLAGS: [string, number][] = [
  ['OF', 11],
  ['DF', 10],
  ['IF', 9],
  ['TF', 8],
  ['SF', 7],
  ['ZF', 6],
  ['AF', 4],
  ['PF', 2],
  ['CF', 0],
  ['NT', 14],
  ['RF', 16],
  ['VM', 17],
  ['AC', 18],
  ['ID', 21],
]

/** The names of the flags that are 1, with spaces between them. */
export function flagNames(rflags: bigint): string {
  return FLAGS.filter(([, bit]) => (rflags >> BigInt(bit)) & 1n)
    .map(([name]) => name)
    .join(' ')
}
