/**
 * Builds the body of one WebAssembly function from expressions instead of a stack of opcodes.
 *
 * A `Node` is a value. Pure nodes that are used once are emitted where they are used, pure nodes that are used more than once get a local
 * at the point where they were created, and nodes that nobody uses vanish: this is how unused flags cost nothing. Reads of memory and of
 * locals are fixed at the point where they were created, so that a later write cannot change what was read.
 */
import { Emitter } from './emit.ts'
import { ByteWriter, type ValueType } from './encode.ts'
import { foldConstants, isNeutralLeft, isNeutralRight } from './fold.ts'
import { dropUnused, Lifetimes } from './lifetimes.ts'
import { binary, comparison, conversion, load, store, unary, type LoadKind, type StoreKind } from './opcodes.ts'
import {
  CALL, CALL_INDIRECT, CONSTANT, GLOBAL, LOCAL, newNode, noArguments, type Hint, type Label, type Node, type Statement, type Variable,
} from './tree.ts'

export type { Label, Node, Variable } from './tree.ts'

const select = 0x1b
/** The same with its type said, as vectors need it. */
const selectTyped = 0x1c

/** A hint is for one branch: its condition may be that of another. */
function hintOf(condition: Node): Hint | undefined {
  const { hint } = condition
  condition.hint = undefined
  return hint
}

export type Operand = Node | number | bigint

export class FunctionBuilder {
  readonly parameters: readonly ValueType[]
  readonly result: ValueType | undefined
  readonly name: string
  private readonly root: Statement[] = []
  private current: Statement[] = this.root
  private readonly locals: ValueType[] = []

  constructor(name: string, parameters: readonly ValueType[], result?: ValueType) {
    this.name = name
    this.parameters = parameters
    this.result = result
  }

  // ---- values ----

  private node(type: ValueType, op: number, args: readonly Node[], imm?: Node['imm'], fixed = false): Node {
    for (const arg of args) arg.uses++
    const node = newNode(type, op, args, imm, fixed)
    this.current.push(node)
    return node
  }

  i32(value: number): Node {
    return newNode('i32', CONSTANT, noArguments, value | 0, false)
  }
  i64(value: bigint | number): Node {
    return newNode('i64', CONSTANT, noArguments, BigInt.asIntN(64, BigInt(value)), false)
  }
  f64(value: number): Node {
    return newNode('f64', CONSTANT, noArguments, value, false)
  }
  /** A literal of the type that the context asks for. */
  literal(type: ValueType, value: Operand): Node {
    if (typeof value === 'object') return value
    if (type === 'i64') return this.i64(value)
    if (type === 'i32') return this.i32(Number(value))
    if (type === 'f64') return this.f64(Number(value))
    throw new Error(`no literal of type ${type}`)
  }
  /** The value of a constant node, or undefined. */
  constantOf(node: Node): number | bigint | undefined {
    return node.op === CONSTANT ? (node.imm as number | bigint) : undefined
  }

  /** An i64 as another value plus a constant, as far as it was built so. */
  splitSum(node: Node): { base: Node; offset: number } {
    let base = node
    let offset = 0
    while (base.type === 'i64' && (base.op === binary.add.i64 || base.op === binary.sub.i64)) {
      const [left, right] = base.args
      const constant = this.constantOf(right) ?? (base.op === binary.add.i64 ? this.constantOf(left) : undefined)
      if (constant === undefined) break
      offset += base.op === binary.add.i64 ? Number(constant) : -Number(constant)
      base = this.constantOf(right) === undefined ? right : left
    }
    return { base, offset }
  }

  /**
   * The same of a number of which 32 bits count: an i32, or an i64 whose upper half was cut off, also on the way. `base` is an i32 or an
   * i64 of which the lower half counts.
   */
  splitNarrowSum(node: Node): { base: Node; offset: number } {
    let base = node
    let offset = 0
    for (;;) {
      const [left, right] = base.args
      const [x, y] = [left && this.constantOf(left), right && this.constantOf(right)]
      const { op } = base
      if (op === conversion.wrap[0] || op === conversion.extendU[0]) base = left
      else if (op === binary.and.i64 && y !== undefined && BigInt.asUintN(32, BigInt(y)) === 0xffffffffn) base = left
      else if ((op === binary.add.i64 || op === binary.add.i32) && (x ?? y) !== undefined) {
        offset += Number(x ?? y)
        base = x === undefined ? left : right
      } else if ((op === binary.sub.i64 || op === binary.sub.i32) && y !== undefined) {
        offset -= Number(y)
        base = left
      } else return { base, offset: offset | 0 }
    }
  }

  private binaryOp(table: Partial<Record<ValueType, number>>, name: string, left: Operand, right: Operand, result?: ValueType): Node {
    const type = typeof left === 'object' ? left.type : (right as Node).type
    const a = this.literal(type, left)
    const b = this.literal(type, right)
    if (a.type !== b.type) throw new Error(`${this.name}: ${name} of ${a.type} and ${b.type}`)
    const opcode = table[type]
    if (opcode === undefined) throw new Error(`${this.name}: no ${name} for ${type}`)
    const folded = this.fold(name, type, a, b, result)
    return folded ?? this.node(result ?? type, opcode, [a, b])
  }

  /** The same value without an operation, if there is one. */
  private fold(name: string, type: ValueType, a: Node, b: Node, result: ValueType | undefined): Node | undefined {
    const x = this.constantOf(a)
    const y = this.constantOf(b)
    if ((x === undefined && y === undefined) || (type !== 'i32' && type !== 'i64')) return undefined
    if (y !== undefined && isNeutralRight(name, y)) return a
    if (x !== undefined && isNeutralLeft(name, x)) return b
    if (x === undefined || y === undefined) return undefined
    const value = foldConstants(name, type, x, y)
    if (value === undefined) return undefined
    return (result ?? type) === 'i32' ? this.i32(Number(BigInt.asIntN(32, value))) : this.i64(value)
  }

  add(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.add, 'add', a, b)
  }
  sub(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.sub, 'sub', a, b)
  }
  mul(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.mul, 'mul', a, b)
  }
  divS(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.divS, 'divS', a, b)
  }
  divU(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.divU, 'divU', a, b)
  }
  remS(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.remS, 'remS', a, b)
  }
  remU(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.remU, 'remU', a, b)
  }
  divF(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.divF, 'divF', a, b)
  }
  and(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.and, 'and', a, b)
  }
  or(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.or, 'or', a, b)
  }
  xor(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.xor, 'xor', a, b)
  }
  shl(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.shl, 'shl', a, b)
  }
  shrS(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.shrS, 'shrS', a, b)
  }
  shrU(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.shrU, 'shrU', a, b)
  }
  rotl(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.rotl, 'rotl', a, b)
  }
  rotr(a: Operand, b: Operand): Node {
    return this.binaryOp(binary.rotr, 'rotr', a, b)
  }
  eq(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.eq, 'eq', a, b, 'i32')
  }
  ne(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.ne, 'ne', a, b, 'i32')
  }
  ltS(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.ltS, 'ltS', a, b, 'i32')
  }
  ltU(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.ltU, 'ltU', a, b, 'i32')
  }
  gtS(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.gtS, 'gtS', a, b, 'i32')
  }
  gtU(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.gtU, 'gtU', a, b, 'i32')
  }
  leS(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.leS, 'leS', a, b, 'i32')
  }
  leU(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.leU, 'leU', a, b, 'i32')
  }
  geS(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.geS, 'geS', a, b, 'i32')
  }
  geU(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.geU, 'geU', a, b, 'i32')
  }
  ltF(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.ltF, 'ltF', a, b, 'i32')
  }
  gtF(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.gtF, 'gtF', a, b, 'i32')
  }
  leF(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.leF, 'leF', a, b, 'i32')
  }
  geF(a: Operand, b: Operand): Node {
    return this.binaryOp(comparison.geF, 'geF', a, b, 'i32')
  }

  /** A one-operand operation of the table, such as `unary('clz', x)`. */
  unary(name: keyof typeof unary, a: Node): Node {
    const opcode = (unary[name] as Partial<Record<ValueType, number>>)[a.type]
    if (opcode === undefined) throw new Error(`${this.name}: no ${name} for ${a.type}`)
    return this.node(a.type, opcode, [a])
  }
  eqz(a: Node): Node {
    const value = this.constantOf(a)
    if (value !== undefined) return this.i32(BigInt(value) === 0n ? 1 : 0)
    return this.node('i32', a.type === 'i32' ? 0x45 : 0x50, [a])
  }
  not(a: Node): Node {
    return this.xor(a, -1)
  }
  neg(a: Node): Node {
    return this.sub(this.literal(a.type, 0), a)
  }

  /** A conversion of the table, such as `convert('wrap', x)`. */
  convert(name: keyof typeof conversion, a: Node): Node {
    const [opcode, from, to] = conversion[name]
    if (a.type !== from) throw new Error(`${this.name}: ${name} of ${a.type}`)
    const value = this.constantOf(a)
    if (value !== undefined) {
      if (name === 'wrap') return this.i32(Number(BigInt.asIntN(32, BigInt(value))))
      if (name === 'extendS') return this.i64(BigInt(value))
      if (name === 'extendU') return this.i64(BigInt.asUintN(32, BigInt(value)))
    }
    return this.node(to, opcode, [a])
  }
  wrap(a: Node): Node {
    return this.convert('wrap', a)
  }
  extendU(a: Node): Node {
    return this.convert('extendU', a)
  }
  extendS(a: Node): Node {
    return this.convert('extendS', a)
  }

  /** The condition of an `if` or `brIf` that is nearly always false. */
  rarely(condition: Node): Node {
    condition.hint = 0
    return condition
  }
  /** The condition of an `if` or `brIf` that is nearly always true. */
  usually(condition: Node): Node {
    condition.hint = 1
    return condition
  }

  /** `condition` (i32) is not zero ? a : b. Both are evaluated. */
  select(condition: Node, a: Operand, b: Operand): Node {
    const type = typeof a === 'object' ? a.type : (b as Node).type
    const x = this.literal(type, a)
    const y = this.literal(type, b)
    if (x.type !== y.type) throw new Error(`${this.name}: select of ${x.type} and ${y.type}`)
    const known = this.constantOf(condition)
    if (known !== undefined) return known ? x : y
    return this.node(type, type === 'v128' ? selectTyped : select, [x, y, condition])
  }

  /** A SIMD operation by its opcode after the prefix 0xFD; `lane` is an immediate byte (or bytes) where the operation has one. */
  simd(opcode: number, result: ValueType, args: Node[], lane?: number | Uint8Array): Node {
    const imm = typeof lane === 'number' ? Uint8Array.of(lane) : lane
    return this.node(result, 0xfd00 + opcode, args, imm)
  }
  v128(bytes: Uint8Array): Node {
    return this.node('v128', 0xfd00 + 12, [], bytes)
  }

  // ---- memory ----

  /** Reads linear memory at `address` + `offset`; the read happens here, before later writes. */
  load(kind: LoadKind, address: Operand, offset = 0): Node {
    const [opcode, type] = load[kind]
    return this.node(type, opcode, [this.literal('i32', address)], offset, true)
  }
  store(kind: StoreKind, address: Operand, value: Node, offset = 0): void {
    this.effect(store[kind], [this.literal('i32', address), value], undefined, offset)
  }
  private effect(op: number, args: Node[], imm?: Uint8Array, memory?: number): void {
    for (const arg of args) arg.uses++
    this.current.push({ kind: 'effect', op, args, imm, memory })
  }
  memoryFill(address: Node, byte: Node, length: Node): void {
    this.effect(0xfc0b, [address, byte, length], Uint8Array.of(0))
  }
  memoryCopy(to: Node, from: Node, length: Node): void {
    this.effect(0xfc0a, [to, from, length], Uint8Array.of(0, 0))
  }

  // ---- variables ----

  variable(type: ValueType): Variable {
    this.locals.push(type)
    return { type, index: this.parameters.length + this.locals.length - 1 }
  }
  parameter(index: number): Variable {
    return { type: this.parameters[index], index }
  }
  get(variable: Variable): Node {
    return this.node(variable.type, LOCAL, [], variable.index, true)
  }
  set(variable: Variable, value: Operand): void {
    const node = this.literal(variable.type, value)
    if (node.type !== variable.type) throw new Error(`${this.name}: set ${variable.type} to ${node.type}`)
    node.uses++
    this.current.push({ kind: 'set', variable, value: node })
  }

  /** The value of immutable global `index`, an i32 (fewer than 128 of them). */
  global(index: number): Node {
    return this.node('i32', GLOBAL, [], Uint8Array.of(index))
  }

  // ---- calls ----

  /** Calls function `index`; the call happens here. Without a result type, the call is a statement. */
  call(index: number, args: Operand[], types: readonly ValueType[], result: ValueType): Node {
    const nodes = args.map((arg, i) => this.literal(types[i], arg))
    const writer = new ByteWriter(8)
    writer.unsigned(index)
    const value = this.node(result, CALL, nodes, writer.finish(), true)
    value.uses++ // a call is never dropped
    return value
  }
  callIndirect(typeIndex: number, args: Node[], callee: Node, result: ValueType): Node {
    const writer = new ByteWriter(8)
    writer.unsigned(typeIndex)
    writer.unsigned(0)
    const value = this.node(result, CALL_INDIRECT, [...args, callee], writer.finish(), true)
    value.uses++
    return value
  }

  // ---- control ----

  private nested(body: () => void): Statement[] {
    const outer = this.current
    const list: Statement[] = []
    this.current = list
    body()
    this.current = outer
    return list
  }
  if(condition: Node, then: () => void, otherwise?: () => void): void {
    const known = this.constantOf(condition)
    if (known !== undefined) {
      if (known) then()
      else otherwise?.()
      return
    }
    condition.uses++
    const thenList = this.nested(then)
    const otherwiseList = otherwise && this.nested(otherwise)
    this.current.push({ kind: 'if', condition, hint: hintOf(condition), then: thenList, otherwise: otherwiseList })
  }
  /** A value that one of two branches computes. */
  ifValue(condition: Node, type: ValueType, then: () => Operand, otherwise: () => Operand): Node {
    const result = this.variable(type)
    this.if(
      condition,
      () => this.set(result, then()),
      () => this.set(result, otherwise()),
    )
    return this.get(result)
  }
  /** A place for statements that become known only later: the returned function fills it. */
  placeholder(): (fill: () => void) => void {
    const body: Statement[] = []
    this.current.push({ kind: 'list', body })
    return fill => {
      const outer = this.current
      this.current = body
      fill()
      this.current = outer
    }
  }
  /**
   * From now on a pure value is computed where it is used: it costs nothing on paths that do not use it. What it is made from is kept in
   * locals.
   */
  rematerialize(node: Node): void {
    if (node.fixed || node.op < 0 || node.inline) return
    node.inline = true
    for (const arg of node.args) {
      if (arg.uses === 1) this.rematerialize(arg)
      else arg.uses++
    }
  }
  block(body: (label: Label) => void): void {
    this.open(body, false)
  }
  loop(body: (label: Label) => void): void {
    this.open(body, true)
  }
  private open(body: (label: Label) => void, loop: boolean): void {
    const label = { depthAtOpen: -1 }
    const list = this.nested(() => body(label))
    this.current.push({ kind: 'block', body: list, label, loop })
  }
  br(label: Label): void {
    this.current.push({ kind: 'branch', label, condition: undefined, hint: undefined })
  }
  brIf(label: Label, condition: Node): void {
    condition.uses++
    this.current.push({ kind: 'branch', label, condition, hint: hintOf(condition) })
  }
  brTable(index: Node, labels: Label[], fallback: Label): void {
    index.uses++
    this.current.push({ kind: 'table', index, labels, fallback })
  }
  return(value?: Operand): void {
    const node = value === undefined ? undefined : this.literal(this.result!, value)
    if (node) node.uses++
    this.current.push({ kind: 'return', value: node })
  }

  /** The encoded body: local declarations and code. Nothing can be added any more. */
  finish(): Uint8Array {
    this.finished ??= this.encode()
    this.root.length = 0
    return this.finished
  }
  private finished: Uint8Array | undefined
  /** Of the finished body: offsets of its branches with a hint, and the hints, in turn. */
  hints: readonly number[] = []
  private encode(): Uint8Array {
    dropUnused(this.root)
    new Lifetimes().find(this.root)
    const { body, hints } = new Emitter(this.parameters, this.locals, this.result).emit(this.root)
    this.hints = hints
    return body
  }
}
