/**
 * Builds the body of one WebAssembly function from expressions instead of a stack of opcodes.
 *
 * A `Node` is a value. Pure nodes that are used once are emitted where they are used, pure nodes that are used more than once get a local
 * at
 * the point where they were created, and nodes that nobody uses vanish: this is how unused flags cost nothing. Reads of memory and of
 * locals
 * are fixed at the point where they were created, so that a later write cannot change what was read.
 */
import { ByteWriter, valueTypeCode, type ValueType } from './encode.ts'
import { binary, comparison, conversion, load, store, unary, type LoadKind, type StoreKind } from './opcodes.ts'

export interface Node {
  /** A node is the statement that defines it. */
  readonly kind: 'define'
  position?: number
  readonly type: ValueType
  /** How it is emitted: an opcode with operands and immediates, a constant, or a local. */
  readonly op: number
  readonly args: readonly Node[]
  /** Constants: the value (i64 as bigint). Loads: [alignment, offset]. Others: immediate bytes. */
  readonly imm: number | bigint | Uint8Array | undefined
  /** A read of mutable state: evaluated where it was created. */
  readonly fixed: boolean
  uses: number
  local: number
  /** Emitted anew at each use instead of being kept in a local. */
  inline?: boolean
  /** Where in the order of emission it is created and last used, and in which loop it is created; -1: it is used in another. */
  created?: number
  lastUse?: number
  inLoop?: number
}

const neutralRight: ReadonlySet<string> = new Set(['add', 'sub', 'or', 'xor', 'shl', 'shrU'])
const neutralLeft: ReadonlySet<string> = new Set(['add', 'or', 'xor'])
const count = (value: bigint, bits: number): bigint => value & BigInt(bits - 1)
const folding: Record<string, ((p: bigint, q: bigint, bits: number) => bigint) | undefined> = {
  add: (p, q) => p + q,
  sub: (p, q) => p - q,
  mul: (p, q) => p * q,
  and: (p, q) => p & q,
  or: (p, q) => p | q,
  xor: (p, q) => p ^ q,
  shl: (p, q, bits) => p << count(q, bits),
  shrS: (p, q, bits) => p >> count(q, bits),
  shrU: (p, q, bits) => BigInt.asUintN(bits, p) >> count(q, bits),
  eq: (p, q) => (p === q ? 1n : 0n),
  ne: (p, q) => (p !== q ? 1n : 0n),
  ltS: (p, q) => (p < q ? 1n : 0n),
  ltU: (p, q, bits) => (BigInt.asUintN(bits, p) < BigInt.asUintN(bits, q) ? 1n : 0n),
}

/** A mutable local of the function. */
export interface Variable {
  readonly type: ValueType
  readonly index: number
}

/** Where `br` goes: a block (forwards) or a loop (backwards). */
export interface Label {
  readonly depthAtOpen: number
}

type Statement = Node | ({ position?: number } & (
  | { kind: 'effect'; op: number; args: Node[]; imm?: Uint8Array; memory?: number }
  | { kind: 'set'; variable: Variable; value: Node }
  | { kind: 'if'; condition: Node; then: Statement[]; otherwise: Statement[] | undefined; result: Variable | undefined }
  | { kind: 'block'; body: Statement[]; label: Label; loop: boolean }
  | { kind: 'branch'; label: Label; condition: Node | undefined }
  | { kind: 'table'; index: Node; labels: Label[]; fallback: Label }
  | { kind: 'return'; value: Node | undefined }
  | { kind: 'list'; body: Statement[] }
))

const CONSTANT = -1
const LOCAL = -2
const CALL = 0x10
const CALL_INDIRECT = 0x11
const SELECT = 0x1b

export type Operand = Node | number | bigint

const noArguments: readonly Node[] = []
/** All nodes have the same fields in the same order: there are many, and this keeps the engine's inline caches simple. */
const newNode = (type: ValueType, op: number, args: readonly Node[], imm: Node['imm'], fixed: boolean): Node => ({
  kind: 'define', position: 0, type, op, args, imm, fixed, uses: 0, local: -1, inline: false, created: undefined, lastUse: 0, inLoop: 0,
})

export class FunctionBuilder {
  readonly parameters: readonly ValueType[]
  readonly result: ValueType | undefined
  readonly name: string
  private readonly root: Statement[] = []
  private current: Statement[] = this.root
  private readonly locals: ValueType[] = []
  private readonly freeLocals: Record<ValueType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] }
  private readonly out = new ByteWriter(512)
  private depth = 0

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

  /** Constant folding and identities for what the compiler of regions meets all the time. */
  private fold(name: string, type: ValueType, a: Node, b: Node, result: ValueType | undefined): Node | undefined {
    const x = a.op === CONSTANT ? a.imm : undefined
    const y = b.op === CONSTANT ? b.imm : undefined
    if ((x === undefined && y === undefined) || (type !== 'i32' && type !== 'i64')) return undefined
    if ((y === 0 || y === 0n) && neutralRight.has(name)) return a
    if ((x === 0 || x === 0n) && neutralLeft.has(name)) return b
    if (x === undefined || y === undefined) return undefined
    const operation = folding[name]
    if (!operation) return undefined
    const value = operation(BigInt(x as number | bigint), BigInt(y as number | bigint), type === 'i32' ? 32 : 64)
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

  /** `condition` (i32) is not zero ? a : b. Both are evaluated. */
  select(condition: Node, a: Operand, b: Operand): Node {
    const type = typeof a === 'object' ? a.type : (b as Node).type
    const x = this.literal(type, a)
    const y = this.literal(type, b)
    if (x.type !== y.type) throw new Error(`${this.name}: select of ${x.type} and ${y.type}`)
    const known = this.constantOf(condition)
    if (known !== undefined) return known ? x : y
    return this.node(type, type === 'v128' ? 0x1c : SELECT, [x, y, condition])
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
    this.current.push({ kind: 'if', condition, then: thenList, otherwise: otherwiseList, result: undefined })
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
    this.current.push({ kind: 'branch', label, condition: undefined })
  }
  brIf(label: Label, condition: Node): void {
    condition.uses++
    this.current.push({ kind: 'branch', label, condition })
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

  // ---- emission ----

  /** The encoded body: local declarations and code. Nothing can be added any more. */
  finish(): Uint8Array {
    this.finished ??= this.encode()
    this.root.length = 0
    return this.finished
  }
  private finished: Uint8Array | undefined
  private encode(): Uint8Array {
    this.dropUnused(this.root)
    this.findLifetimes()
    this.emitList(this.root)
    if (this.result) this.out.byte(0x00) // unreachable: every path has returned
    this.out.byte(0x0b)
    const writer = new ByteWriter(this.out.length + 64)
    const runs: { type: ValueType; count: number }[] = []
    for (const type of this.locals) {
      const last = runs[runs.length - 1]
      if (last && last.type === type) last.count++
      else runs.push({ type, count: 1 })
    }
    writer.unsigned(runs.length)
    for (const run of runs) {
      writer.unsigned(run.count)
      writer.byte(valueTypeCode[run.type])
    }
    writer.append(this.out.finish())
    return writer.finish()
  }

  private dropUnused(list: Statement[]): void {
    for (let i = list.length - 1; i >= 0; i--) {
      const statement = list[i]
      if (statement.kind === 'define') {
        if (statement.uses === 0) for (const arg of statement.args) arg.uses--
      } else if (statement.kind === 'if') {
        if (statement.otherwise) this.dropUnused(statement.otherwise)
        this.dropUnused(statement.then)
      } else if (statement.kind === 'block' || statement.kind === 'list') this.dropUnused(statement.body)
    }
  }

  // ---- how long values live; reads of variables need no copy when the variable stays as it is until their last use ----

  private position = 0
  private loopNumber = 0
  private readonly reads: Node[] = []
  private readonly assignments = new Map<number, number[]>()

  private findLifetimes(): void {
    this.orderList(this.root, 0)
    for (const read of this.reads) {
      if (read.inLoop! < 0) continue
      const created = read.created!
      const written = this.assignments.get(read.imm as number)?.some(position => position > created && position < read.lastUse!)
      if (!written) read.local = read.imm as number
    }
  }
  private orderList(list: Statement[], loop: number): void {
    for (const statement of list) {
      statement.position = ++this.position
      switch (statement.kind) {
        case 'define': {
          const node = statement
          if (node.uses === 0) break
          if (node.op !== LOCAL && (node.inline || (!node.fixed && node.uses <= 1))) break
          if (node.op === LOCAL) this.reads.push(node)
          else this.orderArguments(node, loop)
          node.created = this.position
          node.lastUse = this.position
          node.inLoop = loop
          break
        }
        case 'effect':
          for (const arg of statement.args) this.orderValue(arg, loop)
          break
        case 'set': {
          this.orderValue(statement.value, loop)
          const positions = this.assignments.get(statement.variable.index)
          if (positions) positions.push(this.position)
          else this.assignments.set(statement.variable.index, [this.position])
          break
        }
        case 'if':
          this.orderValue(statement.condition, loop)
          this.orderList(statement.then, loop)
          if (statement.otherwise) this.orderList(statement.otherwise, loop)
          break
        case 'block':
          this.orderList(statement.body, statement.loop ? ++this.loopNumber : loop)
          break
        case 'list':
          this.orderList(statement.body, loop)
          break
        case 'branch':
          if (statement.condition) this.orderValue(statement.condition, loop)
          break
        case 'table':
          this.orderValue(statement.index, loop)
          break
        case 'return':
          if (statement.value) this.orderValue(statement.value, loop)
          break
      }
    }
  }
  private orderArguments(node: Node, loop: number): void {
    for (const arg of node.args) this.orderValue(arg, loop)
  }
  /** A value is emitted here, with all that is emitted where it is used. */
  private orderValue(node: Node, loop: number): void {
    if (node.created === undefined) return this.orderArguments(node, loop)
    node.lastUse = this.position
    // a later turn of the loop uses it again
    if (node.inLoop !== loop) node.inLoop = -1
  }

  private takeLocal(type: ValueType): number {
    const free = this.freeLocals[type].pop()
    if (free !== undefined) return free
    this.locals.push(type)
    return this.parameters.length + this.locals.length - 1
  }

  /** Locals of values by the position of their last use. */
  private readonly expiring = new Map<number, { type: ValueType; index: number }[]>()
  private released = 0
  private releaseBefore(position: number): void {
    for (; this.released < position; this.released++) {
      const locals = this.expiring.get(this.released)
      if (!locals) continue
      for (const local of locals) this.freeLocals[local.type].push(local.index)
      this.expiring.delete(this.released)
    }
  }
  private keep(node: Node): void {
    node.local = this.takeLocal(node.type)
    if (node.inLoop! < 0) return
    const local = { type: node.type, index: node.local }
    const others = this.expiring.get(node.lastUse!)
    if (others) others.push(local)
    else this.expiring.set(node.lastUse!, [local])
  }

  private emitList(list: Statement[]): void {
    for (const statement of list) {
      this.releaseBefore(statement.position!)
      switch (statement.kind) {
        case 'define': {
          const node = statement
          if (node.uses === 0) break
          const isCall = node.op === CALL || node.op === CALL_INDIRECT
          if (node.inline || (!node.fixed && node.uses === 1)) break
          if (node.op === LOCAL && node.local >= 0) break
          this.emitOperation(node)
          if (isCall && node.uses === 1) this.out.byte(0x1a)
          else {
            this.keep(node)
            this.out.byte(0x21)
            this.out.unsigned(node.local)
          }
          break
        }
        case 'effect':
          for (const arg of statement.args) this.emitValue(arg)
          this.emitOpcode(statement.op)
          if (statement.memory !== undefined) this.memoryImmediate(statement.memory)
          if (statement.imm) this.out.append(statement.imm)
          break
        case 'set':
          this.emitValue(statement.value)
          this.out.byte(0x21)
          this.out.unsigned(statement.variable.index)
          break
        case 'if':
          this.emitValue(statement.condition)
          this.out.byte(0x04)
          this.out.byte(0x40)
          this.depth++
          this.emitList(statement.then)
          if (statement.otherwise) {
            this.out.byte(0x05)
            this.emitList(statement.otherwise)
          }
          this.depth--
          this.out.byte(0x0b)
          break
        case 'block':
          this.out.byte(statement.loop ? 0x03 : 0x02)
          this.out.byte(0x40)
          ;(statement.label as { depthAtOpen: number }).depthAtOpen = this.depth
          this.depth++
          this.emitList(statement.body)
          this.depth--
          this.out.byte(0x0b)
          break
        case 'list':
          this.emitList(statement.body)
          break
        case 'branch':
          if (statement.condition) this.emitValue(statement.condition)
          this.out.byte(statement.condition ? 0x0d : 0x0c)
          this.out.unsigned(this.distance(statement.label))
          break
        case 'table':
          this.emitValue(statement.index)
          this.out.byte(0x0e)
          this.out.unsigned(statement.labels.length)
          for (const label of statement.labels) this.out.unsigned(this.distance(label))
          this.out.unsigned(this.distance(statement.fallback))
          break
        case 'return':
          if (statement.value) this.emitValue(statement.value)
          this.out.byte(0x0f)
          break
      }
    }
  }

  private distance(label: Label): number {
    return this.depth - 1 - label.depthAtOpen
  }

  private emitValue(node: Node): void {
    if (node.local >= 0) {
      this.out.byte(0x20)
      this.out.unsigned(node.local)
    } else this.emitOperation(node)
  }

  private emitOperation(node: Node): void {
    if (node.op === CONSTANT) return this.emitConstant(node)
    if (node.op === LOCAL) {
      this.out.byte(0x20)
      this.out.unsigned(node.imm as number)
      return
    }
    for (const arg of node.args) this.emitValue(arg)
    if (node.op === 0x1c) {
      this.out.append(Uint8Array.of(0x1c, 1, valueTypeCode[node.type]))
      return
    }
    this.emitOpcode(node.op)
    if (typeof node.imm === 'number') this.memoryImmediate(node.imm)
    else if (node.imm instanceof Uint8Array) this.out.append(node.imm)
  }

  private emitConstant(node: Node): void {
    if (node.type === 'i32') {
      this.out.byte(0x41)
      this.out.signed32(node.imm as number)
    } else if (node.type === 'i64') {
      this.out.byte(0x42)
      this.out.signed64(node.imm as bigint)
    } else {
      this.out.byte(0x44)
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setFloat64(0, node.imm as number, true)
      this.out.append(bytes)
    }
  }

  private emitOpcode(op: number): void {
    if (op < 0x100) return this.out.byte(op)
    this.out.byte(op >= 0xfd00 ? 0xfd : 0xfc)
    this.out.unsigned(op >= 0xfd00 ? op - 0xfd00 : op & 0xff)
  }

  /** Alignment 0 (one byte) is always valid and costs nothing on any engine. */
  private memoryImmediate(offset: number): void {
    this.out.byte(0)
    this.out.unsigned(offset)
  }
}
