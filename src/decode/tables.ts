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
function parseVex(form: Form): { prefix: Candidate['prefix']; demands: VexDemands } | undefined {
  if (!form.encoding.startsWith('VEX.')) return undefined
  const [, length, prefix, map, w] = form.encoding.split(/[ .]/)
  const l = vexLengths[length]
  if (l === undefined || vexMaps[map] === undefined || !['NP', '66', 'F3', 'F2'].includes(prefix) || !['W0', 'W1', 'WIG'].includes(w))
    throw new Error(`cannot read the VEX prefix of '${form.encoding}'`)
  const { operands } = form
  const wideOnly = operands.some(o => 'EGRB'.includes(o.letter))
  const usesV = operands.some(o => o.letter === 'H' || o.letter === 'B')
  const demands = { l, w: w === 'WIG' ? -1 : Number(w[1]), wideOnly, usesV, vsib: operands.some(o => o.letter === 'X') }
  return { prefix: prefix === 'NP' ? 'none' : (prefix.toLowerCase() as Candidate['prefix']), demands }
}

function parse(row: Instruction, form: Form, number: number): Candidate {
  const vex = parseVex(form)
  const words = form.encoding.split(' ').slice(vex ? 1 : 0)
  let prefix: Candidate['prefix'] = vex?.prefix ?? 'any'
  let mandatory = false
  let w = -1
  const bytes: number[] = []
  let digit = -1
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
      plusI ||= word.endsWith('+i')
    } else if (word === '/r') slashR = true
    else if (word.length === 2 && word >= '/0' && word <= '/7') digit = Number(word[1])
    else if (!furtherOn.has(word)) throw new Error(`${row.name}: cannot read '${word}' in the encoding '${form.encoding}'`)
  }
  // bytes that choose the map are not the opcode's; a VEX prefix holds them
  if (!vex && bytes[0] === 0x0f && bytes.length > 1) bytes.splice(0, (bytes[1] === 0x38 || bytes[1] === 0x3a) && bytes.length > 2 ? 2 : 1)
  const fixedModrm = bytes.length > 1 ? bytes[1] : -1
  const rm = form.operands.find(o => 'ERMWUQN'.includes(o.letter))
  const anyMod = form.operands.some(o => o.letter === 'C' || o.letter === 'D')
  const modrmKind = anyMod ? 3 : !rm ? 0 : rm.letter === 'M' ? 1 : 'RUN'.includes(rm.letter) ? 2 : 0
  let slot = 0
  const slots = form.operands.map(o => (registerLetters.includes(o.letter) ? (Math.min(slot++, 2) as 0 | 1 | 2) : 0))
  const hasModrm = slashR || digit >= 0 || fixedModrm >= 0 || form.operands.some(o => modrmLetters.includes(o.letter))
  return { row, form, number, prefix, hasModrm, digit, fixedModrm, plusI, w, modrmKind, slots, vex: vex?.demands }
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

/** Where a form belongs: what comes before its opcode, the escape (`0F`, `0F 38`, `0F 3A`), the opcode, a register in its low bits. */
const place = /^(?:(?:NP|66|F3|F2|REX\.W|W0|VEX\.\w+\.\w+\.(\w+)\.\w+) )*(0F (?:3[8A] (?=[0-9A-F]{2}))?(?=[0-9A-F]{2}))?([0-9A-F]{2})(\+r)?/
const escapes: Readonly<Record<string, number>> = { '0F ': 1, '0F 38 ': 2, '0F 3A ': 3 }

const noCandidates: readonly Candidate[] = []

/**
 * The opcode maps: 0 is that of one byte, 1 of 0F, 2 of 0F 38, 3 of 0F 3A; the same from 4 on with a VEX prefix. Forms are only sorted by
 * opcode here, and taken apart when theirs is asked for the first time: there are thousands, and every start would wait for them.
 */
export class OpcodeTables {
  private readonly rows: Instruction[] = []
  private readonly forms: Form[] = []
  /** Numbers of forms, by map * 256 + opcode. */
  private readonly numbers: number[][] = []
  private readonly lists: (readonly Candidate[])[] = []

  /** Rows with a VEX prefix that the CPU model does not offer are left out: they are nearly half of all. */
  constructor(rows: readonly Instruction[], offers: (feature: string) => boolean = () => true) {
    for (const row of rows) {
      if (row.forms[0].encoding.startsWith('VEX') && !offers(row.feature ?? '')) continue
      for (const form of row.forms) this.add(row, form)
    }
  }

  private add(row: Instruction, form: Form): void {
    const found = place.exec(form.encoding)
    if (!found) throw new Error(`${row.name}: no opcode in the encoding '${form.encoding}'`)
    const [, vexMap, escape, opcode, plusR] = found
    const map = vexMap === undefined ? (escapes[escape] ?? 0) : vexMaps[vexMap]
    const first = map * 256 + parseInt(opcode, 16)
    const number = this.forms.push(form) - 1
    this.rows.push(row)
    for (let index = first; index < first + (plusR ? 8 : 1); index++) (this.numbers[index] ??= []).push(number)
  }

  /** The candidates at map * 256 + opcode, those that demand more before those that demand less. */
  at(index: number): readonly Candidate[] {
    return this.lists[index] ?? (this.lists[index] = this.takeApart(index))
  }

  private takeApart(index: number): readonly Candidate[] {
    const numbers = this.numbers[index]
    if (!numbers) return noCandidates
    return numbers.map(number => parse(this.rows[number], this.forms[number], number)).sort((a, b) => strictness(b) - strictness(a))
  }

  /** Every form once. */
  all(): Candidate[] {
    return this.forms.map((form, number) => parse(this.rows[number], form, number))
  }
}

export const hasMemoryForm = (spec: OperandSpec): boolean => memoryLetters.includes(spec.letter)
