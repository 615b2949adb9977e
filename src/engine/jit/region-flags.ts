/**
 * Flags in a region: symbolic while a path runs through a block, then in locals, as pieces or as the operands of the comparison that they
 * come from. Intel SDM vol. 1, "Status Flags".
 */
import type { FieldName } from '../../cpu/layout.ts'
import type { FlagOrigin, FlagPieces } from '../../isa/state-builder.ts'
import type { Label, Node, Variable } from '../../wasm/function.ts'
import { StringSemantics } from '../string-semantics.ts'

const flagNames = ['flagZero', 'flagSign', 'flagAux', 'flagCarry'] as const
export type FlagName = (typeof flagNames)[number]
const isFlag = (name: string): name is FlagName => (flagNames as readonly string[]).includes(name)

export abstract class RegionFlags extends StringSemantics {
  protected usesFlags = false
  protected readonly flagVariables: Record<FlagName, Variable>
  /** Flags of the block so far that are not yet in their locals: they are computed only where somebody looks. */
  protected lazyFlags: Partial<Record<FlagName, Node>> = {}
  protected origin: FlagOrigin | undefined
  protected branchDepth = 0
  /**
   * Flags in locals: the pieces, or what they come from. `shift` is 0 when the pieces are there; else it is one more than what moves the
   * operands of a subtraction to the upper end of 64 bits: computing the pieces is left to whoever looks.
   */
  protected readonly difference: { left: Variable; right: Variable; shift: Variable }
  /** `shift` may be other than 0 here. */
  protected mayBeDifference = false
  /** Some path sets it. */
  protected usesDifference = false

  constructor(name: string) {
    super(name, ['i32'], 'i32')
    this.flagVariables = {
      flagZero: this.variable('i64'),
      flagSign: this.variable('i64'),
      flagAux: this.variable('i64'),
      flagCarry: this.variable('i32'),
    }
    this.difference = { left: this.variable('i64'), right: this.variable('i64'), shift: this.variable('i32') }
  }

  protected loadFlags(): void {
    if (this.usesFlags) for (const name of flagNames) this.set(this.flagVariables[name], super.state(name))
  }
  protected storeFlags(): void {
    if (this.usesFlags) for (const name of flagNames) super.setState(name, this.get(this.flagVariables[name]))
  }

  // ---- paths: flags that are pending are put into their locals where paths part ----

  protected bailLabel!: Label
  protected nearLabel!: Label
  /** Changes when flags become pending or are put into their locals. */
  protected flagVersion = 0
  /**
   * Emits instructions, while flags stay as they are, so that all ways out among them share the code that computes what is pending. `emit`
   * says whether paths go on after it.
   */
  protected segment(emit: () => boolean): void {
    const flags = { ...this.lazyFlags }
    if (Object.keys(flags).length === 0) {
      this.bailLabel = this.nearLabel
      emit()
      return
    }
    const { origin, mayBeDifference } = this
    super.block(after => {
      super.block(label => {
        this.bailLabel = label
        if (emit()) this.br(after)
      })
      this.setFlagVariables(flags, origin, mayBeDifference)
      this.br(this.nearLabel)
    })
  }
  protected nestedIf(condition: Node, then: () => void, otherwise?: () => void): void {
    super.if(condition, () => this.deeper(then), otherwise && (() => this.deeper(otherwise)))
  }
  /** Emits what not every path executes. */
  protected deeper(body: () => void): void {
    this.branchDepth++
    body()
    this.branchDepth--
  }
  override if(condition: Node, then: () => void, otherwise?: () => void): void {
    const known = this.constantOf(condition)
    if (known !== undefined) return super.if(condition, then, otherwise)
    this.nestedIf(condition, then, otherwise)
  }
  /** Writes inside a branch go to the locals at once, so what is pending must be there before. */
  override when(condition: Node, then: () => void, otherwise?: () => void): void {
    if (this.constantOf(condition) === undefined) this.flushPieces()
    super.when(condition, then, otherwise)
  }
  override loop(body: (label: Label) => void): void {
    super.loop(label => this.deeper(() => body(label)))
  }

  /** Control flow between blocks, as opposed to that inside a row. */
  protected plainIf(condition: Node, then: () => void): void {
    super.if(condition, then)
  }
  protected plainLoop(body: (label: Label) => void): void {
    super.loop(body)
  }

  // ---- flags ----

  private variableOf(name: FlagName): Variable {
    this.usesFlags = true
    return this.flagVariables[name]
  }
  protected override readFlagPiece(name: FlagName): Node {
    const pending = this.lazyFlags[name]
    if (pending) return pending
    const variable = this.variableOf(name)
    this.needPieces()
    return this.get(variable)
  }
  protected override writeFlagPiece(name: FlagName, value: Node): void {
    const variable = this.variableOf(name)
    if (this.branchDepth > 0) {
      this.needPieces()
      this.set(variable, value)
      return
    }
    this.rematerialize(value)
    value.uses++
    this.lazyFlags[name] = value
    this.origin = undefined
    this.flagVersion++
  }
  override setFlags(pieces: FlagPieces): void {
    super.setFlags(pieces)
    const complete = pieces.zero && pieces.sign && pieces.aux && pieces.carry
    this.pending.push(() => {
      this.origin = complete && this.branchDepth === 0 ? pieces.origin : undefined
    })
    if (pieces.origin) for (const node of [pieces.origin.left, pieces.origin.right]) node.uses++
  }
  /** Puts pending flags into locals: as what they come from when that is cheaper. */
  private setFlagVariables(flags: Partial<Record<FlagName, Node>>, origin: FlagOrigin | undefined, mayBeDifference: boolean): void {
    const names = flagNames.filter(name => flags[name])
    if (names.length === 0) return
    if (origin) {
      this.usesDifference = true
      this.set(this.difference.left, this.widenUnsigned(origin.left, origin.bits))
      this.set(this.difference.right, origin.kind === 'sub' ? this.widenUnsigned(origin.right, origin.bits) : 0n)
      this.set(this.difference.shift, 65 - origin.bits)
      return
    }
    if (mayBeDifference && names.length < flagNames.length) this.computePieces()
    for (const name of names) this.set(this.variableOf(name), flags[name]!)
    if (mayBeDifference) this.set(this.difference.shift, 0)
  }
  /** Puts the flags into their locals: at the ends of blocks, and where paths part. */
  protected flushFlags(): void {
    const { lazyFlags, origin } = this
    this.setFlagVariables(lazyFlags, origin, this.mayBeDifference)
    if (origin) this.mayBeDifference = true
    else if (Object.keys(lazyFlags).length > 0) this.mayBeDifference = false
    this.lazyFlags = {}
    this.origin = undefined
    this.flagVersion++
  }
  /** The same for those who look at the pieces. */
  protected flushPieces(): void {
    this.origin = undefined
    this.flushFlags()
    this.needPieces()
  }
  private needPieces(): void {
    if (!this.mayBeDifference) return
    this.computePieces()
    if (this.branchDepth === 0) this.mayBeDifference = false
  }
  protected computePieces(): void {
    const { left, right, shift } = this.difference
    this.usesFlags = true
    super.if(this.get(shift), () => {
      const by = this.extendU(this.sub(this.get(shift), 1))
      const upper = (operand: Variable): Node => this.shl(this.get(operand), by)
      const lower = (value: Node): Node => this.shrS(value, by)
      const result = lower(this.sub(upper(left), upper(right)))
      this.set(this.flagVariables.flagZero, result)
      this.set(this.flagVariables.flagSign, result)
      this.set(this.flagVariables.flagAux, this.xor(this.xor(lower(upper(left)), lower(upper(right))), result))
      this.set(this.flagVariables.flagCarry, this.ltU(upper(left), upper(right)))
      this.set(shift, 0)
    })
  }
  override state(name: FieldName, index = 0): Node {
    return isFlag(name) ? this.readFlagPiece(name) : super.state(name, index)
  }

  /** Conditions after a comparison test its operands, not its flags. */
  override condition(code: number): Node {
    const origin = this.origin
    if (!origin) return super.condition(code)
    const direct = origin.kind === 'sub' ? this.compared(origin, code >> 1) : this.tested(origin, code >> 1)
    if (!direct) return super.condition(code)
    return code & 1 ? this.eqz(direct) : direct
  }
  private compared(origin: FlagOrigin, kind: number): Node | undefined {
    const { bits, left, right } = origin
    const signed = (value: Node): Node => this.signed(value, bits)
    switch (kind) {
      case 1:
        return this.ltU(left, right)
      case 2:
        return this.eq(left, right)
      case 3:
        return this.leU(left, right)
      case 4:
        return this.ltS(signed(this.sub(left, right)), 0)
      case 6:
        return this.ltS(signed(left), signed(right))
      case 7:
        return this.leS(signed(left), signed(right))
      default:
        return undefined
    }
  }
  private tested(origin: FlagOrigin, kind: number): Node | undefined {
    const value = this.signed(origin.left, origin.bits)
    switch (kind) {
      case 0:
      case 1:
        return this.i32(0)
      case 2:
      case 3:
        return this.eqz(value)
      case 4:
      case 6:
        return this.ltS(value, 0)
      case 7:
        return this.leS(value, 0)
      default:
        return undefined
    }
  }
}
