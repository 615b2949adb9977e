/**
 * The state of the CPU as a row's body reads and writes it: fields, and the arithmetic flags in the form in which they are kept. What a row
 * writes to registers and flags takes effect at its end. Intel SDM vol. 1, "EFLAGS Register" and "EFLAGS Condition Codes".
 */
import { at, fields, type FieldName } from '../cpu/layout.ts'
import { FunctionBuilder, type Node, type Operand as Value } from '../wasm/function.ts'
import type { Operand } from './operands.ts'

/**
 * The six arithmetic flags in the form in which they are stored: see the fields flagZero, flagSign, flagAux, flagCarry of the CPU's
 * layout.
 */
export interface FlagPieces {
  /** The comparison that the flags come from, for engines that can test it directly. */
  origin?: FlagOrigin
  /** i64: ZF = (zero == 0). */
  zero?: Node
  /** i64: SF = sign, PF = even parity of the low byte. */
  sign?: Node
  /** i64: AF = bit 4, OF = bit 63 XOR CF. */
  aux?: Node
  /** i32: CF, 0 or 1. */
  carry?: Node
}

/** sub: left - right; logic: the result alone, with CF = OF = 0. Values as `read` gives them. */
export interface FlagOrigin {
  readonly kind: 'sub' | 'logic'
  readonly bits: number
  readonly left: Node
  readonly right: Node
}

/** What a handler is generated for: the row's operands and what else its body may depend on. */
export interface RowContext {
  readonly operands: readonly Operand[]
  /** 16, 32 or 64. */
  readonly operandSize: number
  /** Code runs in 64-bit mode: the stack is 64 bits wide and flat, branches need no limit check. */
  readonly wide: boolean
}

export abstract class StateBuilder extends FunctionBuilder {
  protected row!: RowContext
  protected pending: (() => void)[] = []

  // ---- row frame ----

  get operandSize(): number {
    return this.row.operandSize
  }
  get wide(): boolean {
    return this.row.wide
  }

  protected beginRow(row: RowContext): void {
    this.row = row
    this.pending = []
  }
  /** Register and flag writes of the row take effect here. */
  protected commit(): void {
    const writes = this.pending
    this.pending = []
    for (const write of writes) write()
  }

  // ---- state ----

  /** A field of the CPU's state (its first element, or `index`): i32 or i64. */
  state(name: FieldName, index = 0): Node {
    const wide = fields[name].type !== 'u32'
    return this.load(wide ? 'i64' : 'i32', 0, at[name] + index * (wide ? 8 : 4))
  }
  /** Writes a field now (flags and registers have their own, deferred ways). */
  setState(name: FieldName, value: Value, index = 0): void {
    const wide = fields[name].type !== 'u32'
    this.store(wide ? 'i64' : 'i32', 0, this.literal(wide ? 'i64' : 'i32', value), at[name] + index * (wide ? 8 : 4))
  }

  // ---- flags ----

  /** Sets arithmetic flags at the end of the row; pieces that are not given stay. */
  setFlags(pieces: FlagPieces): void {
    const names = { zero: 'flagZero', sign: 'flagSign', aux: 'flagAux', carry: 'flagCarry' } as const
    for (const key of ['zero', 'sign', 'aux', 'carry'] as const) {
      const value = pieces[key]
      if (!value) continue
      value.uses++
      this.pending.push(() => {
        value.uses--
        this.writeFlagPiece(names[key], value)
      })
    }
  }
  protected writeFlagPiece(name: 'flagZero' | 'flagSign' | 'flagAux' | 'flagCarry', value: Node): void {
    this.setState(name, value)
  }
  protected readFlagPiece(name: 'flagZero' | 'flagSign' | 'flagAux' | 'flagCarry'): Node {
    return this.state(name)
  }

  /** One arithmetic flag now, i32 0 or 1. */
  flagNow(name: 'CF' | 'PF' | 'AF' | 'ZF' | 'SF' | 'OF'): Node {
    switch (name) {
      case 'CF':
        return this.readFlagPiece('flagCarry')
      case 'ZF':
        return this.eqz(this.readFlagPiece('flagZero'))
      case 'SF':
        return this.ltS(this.readFlagPiece('flagSign'), 0)
      case 'OF':
        return this.xor(this.ltS(this.readFlagPiece('flagAux'), 0), this.readFlagPiece('flagCarry'))
      case 'AF':
        return this.and(this.wrap(this.shrU(this.readFlagPiece('flagAux'), 4)), 1)
      case 'PF':
        return this.xor(this.and(this.unary('popcnt', this.and(this.wrap(this.readFlagPiece('flagSign')), 0xff)), 1), 1)
    }
  }
  /** A condition by its number in the opcode (Jcc, SETcc, CMOVcc): i32 0 or 1. */
  condition(code: number): Node {
    const negate = (value: Node): Node => (code & 1 ? this.xor(value, 1) : value)
    switch (code >> 1) {
      case 0:
        return negate(this.flagNow('OF'))
      case 1:
        return negate(this.flagNow('CF'))
      case 2:
        return negate(this.flagNow('ZF'))
      case 3:
        return negate(this.or(this.flagNow('CF'), this.flagNow('ZF')))
      case 4:
        return negate(this.flagNow('SF'))
      case 5:
        return negate(this.flagNow('PF'))
      case 6:
        return negate(this.less())
      default:
        return negate(this.or(this.less(), this.flagNow('ZF')))
    }
  }
  /** SF ≠ OF. */
  private less(): Node {
    return this.xor(this.ltS(this.xor(this.readFlagPiece('flagSign'), this.readFlagPiece('flagAux')), 0), this.readFlagPiece('flagCarry'))
  }
}
