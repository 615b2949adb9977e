/** From the tree of a function to its encoded body: declarations of locals and code. WebAssembly specification, "Binary Format". */
import { ByteWriter, valueTypeCode, type ValueType } from './encode.ts'
import { CALL, CALL_INDIRECT, CONSTANT, LOCAL, type Hint, type Label, type Node, type Statement } from './tree.ts'

export class Emitter {
  private readonly parameters: readonly ValueType[]
  private readonly locals: ValueType[]
  private readonly result: ValueType | undefined
  private readonly freeLocals: Record<ValueType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] }
  private readonly out = new ByteWriter(512)
  private depth = 0
  private readonly hints: number[] = []

  /** `locals`: those of variables; locals of values join them. */
  constructor(parameters: readonly ValueType[], locals: ValueType[], result: ValueType | undefined) {
    this.parameters = parameters
    this.locals = locals
    this.result = result
  }

  /** Of a tree whose lifetimes are known. */
  emit(root: readonly Statement[]): { body: Uint8Array; hints: number[] } {
    this.emitList(root)
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
    const start = writer.length
    writer.append(this.out.finish())
    return { body: writer.finish(), hints: this.hints.map((value, i) => (i % 2 === 0 ? value + start : value)) }
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

  private emitList(list: readonly Statement[]): void {
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
          this.hintAt(statement.hint)
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
          if (statement.condition) {
            this.emitValue(statement.condition)
            this.hintAt(statement.hint)
          }
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

  /** The opcode of a branch on the condition follows. */
  private hintAt(hint: Hint | undefined): void {
    if (hint !== undefined) this.hints.push(this.out.length, hint)
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
