/**
 * How an instruction is defined: once, as a row. Engines, decoder, documentation and tests are made from rows.
 *
 *   export const ADD = instruction('ADD', {
 *     forms: [form('00 /r', Eb, Gb, lockable), form('01 /r', Ev, Gv, lockable), form('83 /0 ib', Ev, Ibs, lockable)],
 *     semantics: (b, destination, source) => b.update(destination, old => { ... return result }),
 *   })
 *
 * Encoding strings are the manual's: an optional mandatory prefix (NP, 66, F3, F2), opcode bytes, then /r, /digit, a fixed ModR/M byte
 * (x87: 'D9 E8'),
 * +r (register in the opcode's low bits) or +i (x87 register in a fixed ModR/M byte). Immediates follow from the operands (`ib`, `iz` may
 * be
 * written for the reader; they are ignored). `REX.W` at the front demands REX.W = 1, `W0` demands 0.
 * A VEX prefix is written as in the manual, its length first: `VEX.LZ.NP.0F38.W0 F2 /r`.
 * In a body reads come before writes: register and flag writes take effect together at the end of the row, so a fault changes nothing.
 */
import type { Node } from '../wasm/function.ts'
import type { Operand, OperandSpec } from './operands.ts'
import type { Semantics } from './builder.ts'
import type { InterceptName } from '../cpu/intercepts.ts'

export type Body = (b: Semantics, ...operands: Operand[]) => void

export interface FormOptions {
  /** LOCK is legal (with a memory destination). Otherwise LOCK raises #UD. */
  lockable?: boolean
  /** #UD in 64-bit mode, or outside of it. */
  only?: 'legacy' | '64'
  /** Only without REX.B: NOP, which else is XCHG R8, RAX. */
  noRexB?: boolean
  /** Only in a mode of code with one of these bits (mode.ts): the form comes before what the bytes mean otherwise. */
  when?: number
  /** Operand size in 64-bit mode: `default64` is 64 unless 66 is given, `force64` always. */
  size64?: 'default64' | 'force64'
}

export interface Form {
  readonly encoding: string
  readonly operands: readonly OperandSpec[]
  readonly options: FormOptions
}

/** Conditions tested before operands are accessed, in this order; a failing one raises the fault named. */
export type Check =
  | 'cpl0' // #GP(0) unless CPL = 0
  | 'tsc' // #GP(0) by CR4.TSD and CPL
  | 'pmc' // #GP(0) by CR4.PCE and CPL
  | 'umip' // #GP(0) by CR4.UMIP and CPL
  | 'cpl0ud' // #UD unless CPL = 0
  | 'notV86' // #GP(0) in virtual-8086 mode
  | 'osxsave' // #UD unless CR4.OSXSAVE
  | 'svme' // #UD unless EFER.SVME
  | 'protected' // #UD in real-address and virtual-8086 mode
  | 'fpu' // #NM by CR0.EM, TS; pending x87 exceptions are the row's business
  | 'mmx' // #UD by CR0.EM, #NM by CR0.TS
  | 'sse' // #UD or #NM by CR0.EM, CR4.OSFXSR, CR0.TS
  | 'avx' // #UD by CR4.OSXSAVE and XCR0, #NM by CR0.TS

export interface Definition {
  forms: Form[]
  semantics: Body
  /** CPUID feature (Linux's name): #UD when the CPU model does not offer it. */
  feature?: string
  /** Another one that a form with a VEX prefix needs besides. */
  besides?: string
  checks?: Check[]
  /** What a guest's controls may keep it from executing: tested after the checks, before any effect. */
  intercept?: InterceptName
  /** The body depends on 64-bit mode or on the stack's width (pushes, pops, near branches). */
  modal?: boolean
  /** The body depends on the operand size although no operand shows it (CBW, PUSHF). */
  sized?: boolean
  /** The instruction ends a run of records: it always branches or always leaves. */
  ends?: boolean
  /** The memory operand is only an address: no segment, no limit (LEA). */
  addressOnly?: boolean
  /** The memory operand's address has a segment base, but nothing checks the segment (INVLPG, as silicon does it). */
  unchecked?: boolean
  /** A memory operand based on RSP is addressed with the RSP that is there after the row's pop (POP). */
  addressAfterPop?: boolean
}

export interface Instruction extends Definition {
  readonly name: string
}

export const registry: Instruction[] = []

/** Defines an instruction and registers it. One name may be defined several times, for forms with different bodies. */
export function instruction(name: string, definition: Definition): Instruction {
  const row = { name, ...definition }
  registry.push(row)
  return row
}

type FormPart = OperandSpec | FormOptions

/** One encoding of an instruction. Operands first, options anywhere after. */
export function form(encoding: string, ...parts: FormPart[]): Form {
  const operands = parts.filter((part): part is OperandSpec => 'letter' in part)
  const options = Object.assign({}, ...parts.filter(part => !('letter' in part))) as FormOptions
  return { encoding, operands, options }
}

export const lockable: FormOptions = { lockable: true }
export const legacyOnly: FormOptions = { only: 'legacy' }
export const only64: FormOptions = { only: '64' }
export const default64: FormOptions = { size64: 'default64' }
export const force64: FormOptions = { size64: 'force64' }

export type { InterceptName, Node, Operand, Semantics }
