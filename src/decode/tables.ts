/** Opcode maps made from the rows of isa/. Intel SDM vol. 2, "Instruction Format" and appendix "Opcode Map". */
import type { Form, Instruction } from '../isa/define.ts'
import type { OperandSpec } from '../isa/operands.ts'

/** What a form with a VEX prefix demands of it. Intel SDM vol. 2, "The VEX Prefix". */
export interface VexDemands {
  /** VEX.L and VEX.W, or -1. */
  readonly l: number
  readonly w: number
  /** W chooses the width of a general register, and means nothing outside of 64-bit mode. */
  readonly wideOnly: boolean
  /** VEX.vvvv names an operand; otherwise it must be 1111b. */
  readonly usesV: boolean
  /** The memory operand has a SIB byte whose index is a vector register. */
  readonly vsib: boolean
}

/** One form of one instruction, its encoding taken apart. */
export interface Candidate {
  readonly row: Instruction
  readonly form: Form
  /** Unique number of the form. */
  readonly number: number
  /** Mandatory prefix: 'any' takes 66 as operand size and ignores F3, F2. */
  readonly prefix: 'any' | 'none' | '66' | 'f3' | 'f2'
  readonly hasModrm: boolean
  /** ModR/M reg field that the form demands, or -1. */
  readonly digit: number
  /** Whole ModR/M byte that the form demands (x87 and 0F 01 forms), or -1; with `plusI` its low three bits are free. */
  readonly fixedModrm: number
  readonly plusI: boolean
  /** REX.W that the form demands, or -1. */
  readonly w: number
  /** The r/m operand must be (2) a register, (1) memory, or may be both (0); (3) it is a register whatever the mod field says. */
  readonly modrmKind: 0 | 1 | 2 | 3
  /** Where each operand's register number goes: record slots, in the order of register operands. */
  readonly slots: readonly (0 | 1 | 2)[]
  readonly vex: VexDemands | undefined
}

/** map 0: one byte; 1: 0F; 2: 0F 38; 3: 0F 3A; the same from 4 on with a VEX prefix. Index: map * 256 + opcode. */
export type OpcodeTables = Candidate[][]

const registerLetters = 'EGRZSCDVWUPQNHFBX'
const memoryLetters = 'EMWQO'
const modrmLetters = 'EGRMSCDVWUPQN'

const hexDigits = '0123456789ABCDEF'
/** `0F`; `B8+r` and `D0+i`, with a register in the low three bits. */
function isByte(word: string): boolean {
  if (word.length < 2 || !hexDigits.includes(word[0]) || !hexDigits.includes(word[1])) return false
  return word.length === 2 || (word.length === 4 && (word.endsWith('+r') || word.endsWith('+i')))
}
/** Immediates, branch displacements and memory offsets: operands say what they are. */
const furtherOn: ReadonlySet<string> = new Set(['ib', 'iw', 'id', 'iz', 'iv', 'i16', 'cb', 'cz', 'mo'])

const vexMaps: Readonly<Record<string, number>> = { '0F': 5, '0F38': 6, '0F3A': 7 }
const vexLengths: Readonly<Record<string, number>> = { 128: 0, LZ: 0, 256: 1, LIG: -1 }

/** `VEX.256.66.0F38.W0`; `undefined`: another word. */
function parseVex(form: Form): { map: number; prefix: Candidate['prefix']; demands: VexDemands } | undefined {
  if (!form.encoding.startsWith('VEX.')) return undefined
  const [, length, prefix, map, w] = form.encoding.split(/[ .]/)
  const l = vexLengths[length]
  const place = vexMaps[map]
  if (l === undefined || place === undefined || !['NP', '66', 'F3', 'F2'].includes(prefix) || !['W0', 'W1', 'WIG'].includes(w))
    throw new Error(`cannot read the VEX prefix of '${form.encoding}'`)
  const { operands } = form
  const wideOnly = operands.some(o => 'EGRB'.includes(o.letter))
  const usesV = operands.some(o => o.letter === 'H' || o.letter === 'B')
  const demands = { l, w: w === 'WIG' ? -1 : Number(w[1]), wideOnly, usesV, vsib: operands.some(o => o.letter === 'X') }
  return { map: place, prefix: prefix === 'NP' ? 'none' : (prefix.toLowerCase() as Candidate['prefix']), demands }
}

function parse(row: Instruction, form: Form, number: number): { opcodes: number[]; map: number; candidate: Candidate } {
  const vex = parseVex(form)
  const words = form.encoding.split(' ').slice(vex ? 1 : 0)
  let prefix: Candidate['prefix'] = vex?.prefix ?? 'any'
  let mandatory = false
  let w = -1
  const bytes: number[] = []
  let digit = -1
  let plusR = false
  let plusI = false
  let slashR = false
  for (const word of words) {
    if (bytes.length === 0 && word === 'REX.W') w = 1
    else if (bytes.length === 0 && word === 'W0') w = 0
    else if (bytes.length === 0 && word === 'NP') prefix = 'none'
    else if (bytes.length === 0 && !vex && !mandatory && (word === '66' || word === 'F3' || word === 'F2') && words.length > 1) {
      prefix = word.toLowerCase() as Candidate['prefix']
      mandatory = true
    } else if (isByte(word)) {
      bytes.push(parseInt(word, 16))
      plusR ||= word.endsWith('+r')
      plusI ||= word.endsWith('+i')
    } else if (word === '/r') slashR = true
    else if (word.length === 2 && word >= '/0' && word <= '/7') digit = Number(word[1])
    else if (!furtherOn.has(word)) throw new Error(`${row.name}: cannot read '${word}' in the encoding '${form.encoding}'`)
  }
  const [first, second] = bytes
  const escaped = first === 0x0f && bytes.length > 1
  const legacyMap = !escaped ? 0 : second === 0x38 && bytes.length > 2 ? 2 : second === 0x3a && bytes.length > 2 ? 3 : 1
  if (!vex) bytes.splice(0, legacyMap === 0 ? 0 : legacyMap === 1 ? 1 : 2)
  const map = vex?.map ?? legacyMap
  const opcode = bytes[0]
  const fixedModrm = bytes.length > 1 ? bytes[1] : -1
  const rm = form.operands.find(o => 'ERMWUQN'.includes(o.letter))
  const anyMod = form.operands.some(o => o.letter === 'C' || o.letter === 'D')
  const modrmKind = anyMod ? 3 : !rm ? 0 : rm.letter === 'M' ? 1 : 'RUN'.includes(rm.letter) ? 2 : 0
  let slot = 0
  const slots = form.operands.map(o => (registerLetters.includes(o.letter) ? (Math.min(slot++, 2) as 0 | 1 | 2) : 0))
  const hasModrm = slashR || digit >= 0 || fixedModrm >= 0 || form.operands.some(o => modrmLetters.includes(o.letter))
  const candidate: Candidate = { row, form, number, prefix, hasModrm, digit, fixedModrm, plusI, w, modrmKind, slots, vex: vex?.demands }
  const opcodes = plusR ? [0, 1, 2, 3, 4, 5, 6, 7].map(r => opcode + r) : [opcode]
  return { opcodes, map, candidate }
}

/** How much a candidate demands: those that demand more are tried first. */
function strictness(candidate: Candidate): number {
  return (
    (candidate.form.options.when ? 128 : 0) +
    (candidate.fixedModrm >= 0 ? (candidate.plusI ? 32 : 64) : 0) +
    (candidate.prefix !== 'any' ? 16 : 0) +
    (candidate.digit >= 0 ? 8 : 0) +
    (candidate.w >= 0 ? 4 : 0) +
    (candidate.form.options.only || candidate.form.options.noRexB ? 2 : 0) +
    (candidate.modrmKind ? 1 : 0)
  )
}

/** Rows with a VEX prefix that the CPU model does not offer are left out: they are nearly half of all, and every start reads them. */
export function buildTables(rows: readonly Instruction[], offers: (feature: string) => boolean = () => true): OpcodeTables {
  const tables: OpcodeTables = Array.from({ length: 8 * 256 }, () => [])
  let number = 0
  for (const row of rows) {
    if (row.forms[0].encoding.startsWith('VEX') && !offers(row.feature ?? '')) continue
    for (const form of row.forms) {
      const { opcodes, map, candidate } = parse(row, form, number++)
      for (const opcode of opcodes) tables[map * 256 + opcode].push(candidate)
    }
  }
  for (const list of tables) if (list.length > 1) list.sort((a, b) => strictness(b) - strictness(a))
  return tables
}

export const hasMemoryForm = (spec: OperandSpec): boolean => memoryLetters.includes(spec.letter)
