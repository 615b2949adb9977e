/**
 * Semantics over instructions whose operands are known: general registers and flags are WebAssembly locals, immediates and addresses are
 * constants. Whatever is not plain (a TLB miss, a fault, a helper) leaves the region before the instruction, which the interpreter then
 * executes.
 */
import { at, segBaseAddress, segment, vectorAddress } from '../../cpu/layout.ts'
import type { FieldName } from '../../cpu/layout.ts'
import { Semantics, type FlagOrigin, type FlagPieces, type Requirement } from '../../isa/builder.ts'
import type { Check } from '../../isa/define.ts'
import type { Operand } from '../../isa/operands.ts'
import { tlbDataEntries, tlbEntrySize } from '../../memory/map.ts'
import type { Label, Node, Operand as Value, Variable } from '../../wasm/function.ts'
import type { ValueType } from '../../wasm/encode.ts'
import { simd, type LoadKind, type StoreKind } from '../../wasm/opcodes.ts'
import { leave } from '../leave.ts'
import { Addresses, pageOrigin, type AddressKnowledge, type KnownPage, type Origin } from './addresses.ts'
import type { BoundInstruction, ReturnSite } from './discover.ts'

const flagNames = ['flagZero', 'flagSign', 'flagAux', 'flagCarry'] as const
type FlagName = (typeof flagNames)[number]
const isFlag = (name: string): name is FlagName => (flagNames as readonly string[]).includes(name)

const vectorCount = 16
const vectorStride = 64

interface Lane {
  readonly bytes: number
  readonly opcode: number
  readonly type: ValueType
}
const loadLanes: Partial<Record<LoadKind, Lane>> = {
  i64: { bytes: 8, opcode: simd.extractI64, type: 'i64' },
  f64: { bytes: 8, opcode: simd.extractF64, type: 'f64' },
  i32: { bytes: 4, opcode: simd.extractI32, type: 'i32' },
  f32: { bytes: 4, opcode: simd.extractF32, type: 'f32' },
  i32_16u: { bytes: 2, opcode: simd.extractI16U, type: 'i32' },
  i32_8u: { bytes: 1, opcode: simd.extractI8U, type: 'i32' },
}
const storeLanes: Partial<Record<StoreKind, { readonly bytes: number; readonly opcode: number }>> = {
  i64: { bytes: 8, opcode: simd.replaceI64 },
  f64: { bytes: 8, opcode: simd.replaceF64 },
  i32: { bytes: 4, opcode: simd.replaceI32 },
  f32: { bytes: 4, opcode: simd.replaceF32 },
  i32_16: { bytes: 2, opcode: simd.replaceI16 },
  i32_8: { bytes: 1, opcode: simd.replaceI8 },
}

/** Pages of code are where they were (distances from the entry's page), checks do not trap, SSE is in its usual state. */
export type Finding = number | Check | 'native'
/** Checks whose outcome only helpers change that regions do not call. */
const lasting: ReadonlySet<Check> = new Set(['fpu', 'sse'])

/** Floating-point elements of a value: twice their byte, and 1 if they are 64 bits wide. */
const elementsOf = (value: Node, bits: number): number[] => {
  const one = bits === 64 ? 1 : 0
  return Array.from({ length: value.type === 'v128' ? 128 / bits : 1 }, (_, i) => (i * bits) / 4 + one)
}
const byteOf = (element: number): number => element >> 1
const endOf = (element: number): number => byteOf(element) + (element & 1 ? 8 : 4)
/** Those of the `bytes` from `byte` on, counted from there. */
const inside = (elements: ReadonlySet<number>, byte: number, bytes: number): Set<number> =>
  new Set([...elements].filter(element => byteOf(element) >= byte && endOf(element) <= byte + bytes).map(element => element - 2 * byte))

/** What holds at a point of the region whatever way led there. */
interface Knowledge {
  flags: Partial<Record<FlagName, Node>>
  origin: FlagOrigin | undefined
  /** The locals may hold operands of a comparison in place of flags. */
  compared: boolean
  addresses: AddressKnowledge<Variable>
  checked: ReadonlySet<Finding>
  plain: ReadonlyMap<number, ReadonlySet<number>>
}

/**
 * How a region is left before an instruction: u32 record, i32 instructions of its block not executed, i32 its offset, u32 how often (only
 * when the region is profiled).
 */
export const exitEntrySize = 16
/** Index of the only import of a region's module. */
export const helperImport = 0
/** Helpers that regions call; for others they leave. */
export const calledInside: ReadonlySet<string> = new Set([
  'sti', 'popf', 'rdtsc', 'rdtscp', 'rdpkru', 'stac', 'clac', 'rdsegbase', 'movs', 'stos', 'lods', 'scas', 'cmps',
  // what a hypervisor does around a world switch
  'vmread', 'vmwrite', 'vmload', 'vmsave', 'clgi', 'stgi', 'rdmsr', 'wrmsr', 'mov_from_cr', 'mov_from_dr', 'sldt', 'str', 'sgdt', 'sidt',
  'lgdt', 'lidt', 'ltr', 'xgetbv', 'xsaves', 'xrstors', 'xsave', 'xsavec', 'xsaveopt', 'xrstor', 'fxsave', 'fxrstor',
])
/** Of those, the ones that look at vector registers, or change them. */
const seesVectors: ReadonlySet<string> = new Set(['xsaves', 'xrstors', 'xsave', 'xsavec', 'xsaveopt', 'xrstor', 'fxsave', 'fxrstor'])

export class RegionSemantics extends Semantics {
  protected readonly budget: Variable
  protected readonly page: Variable
  protected readonly status: Variable
  protected readonly resume: Variable
  protected exit!: Label
  /** Set by a row that ends in a relative branch: its condition, or undefined when it always branches. */
  protected branch: { condition: Node | undefined } | undefined
  /** The row has left the region on every path. */
  protected left = false
  /** Instructions of the block from the current one to its end: what leaving gives back to the budget. */
  protected remaining = 0
  /** Record at which the interpreter goes on when the current instruction is left to it. */
  protected record = 0
  /** What that record has in its field `left`. */
  protected recordLeft = 0
  /** The current instruction is a call into the region, or a return that is expected to go to one of these places in it. */
  protected calls = false
  protected returnsTo: readonly ReturnSite[] = []
  /** Which of several sites the last return has found. */
  protected readonly returned: Variable
  /** The region's code lies in several pages: leaving says in which. */
  protected severalPages = false
  protected readonly usedRegisters = new Set<number>()
  protected readonly writtenRegisters = new Set<number>()
  protected usesFlags = false
  protected readonly registers: Variable[]
  protected readonly flagVariables: Record<FlagName, Variable>
  private readonly vectors = new Map<number, Variable>()
  private readonly writtenVectors = new Set<number>()
  private readonly tables: { read: Variable; write: Variable }
  protected instruction!: BoundInstruction
  /** Flags of the block so far that are not yet in their locals: they are computed only where somebody looks. */
  private lazyFlags: Partial<Record<FlagName, Node>> = {}
  private origin: FlagOrigin | undefined
  private branchDepth = 0
  /**
   * Flags in locals: the pieces, or what they come from. `shift` is 0 when the pieces are there; else it is one more than what moves the
   * operands of a subtraction to the upper end of 64 bits: computing the pieces is left to whoever looks.
   */
  private readonly difference: { left: Variable; right: Variable; shift: Variable }
  /** `shift` may be other than 0 here. */
  private mayBeDifference = false
  /** Some path sets it. */
  private usesDifference = false

  private readonly helperNumber: (name: string) => number
  /** Where locals are stored and loaded around calls of helpers: known when everything is emitted. */
  private readonly savings: ((fill: () => void) => void)[] = []
  private readonly reloads: ((fill: () => void) => void)[] = []
  private readonly vectorSavings: ((fill: () => void) => void)[] = []
  private readonly vectorReloads: ((fill: () => void) => void)[] = []

  constructor(name: string, helperNumber: (name: string) => number) {
    super(name, ['i32'], 'i32')
    this.helperNumber = helperNumber
    this.budget = this.variable('i32')
    this.page = this.variable('i64')
    this.status = this.variable('i32')
    this.resume = this.variable('i32')
    this.returned = this.variable('i32')
    this.registers = Array.from({ length: 16 }, () => this.variable('i64'))
    this.flagVariables = {
      flagZero: this.variable('i64'),
      flagSign: this.variable('i64'),
      flagAux: this.variable('i64'),
      flagCarry: this.variable('i32'),
    }
    this.difference = { left: this.variable('i64'), right: this.variable('i64'), shift: this.variable('i32') }
    this.tables = { read: this.variable('i32'), write: this.variable('i32') }
  }

  /** Loads of everything that lives in locals; call it when all rows are emitted, in a placeholder at the start. */
  protected emitPrologue(): void {
    this.set(this.budget, super.state('budget'))
    this.set(this.page, super.state('codePage'))
    this.set(this.tables.read, super.state('tlbRead'))
    this.set(this.tables.write, super.state('tlbWrite'))
    this.loadScalars()
    this.loadVectors()
    for (const save of this.savings) save(() => this.storeScalars())
    for (const reload of this.reloads) reload(() => this.loadScalars())
    for (const save of this.vectorSavings) save(() => this.storeVectors())
    for (const reload of this.vectorReloads) reload(() => this.loadVectors())
  }
  protected emitEpilogue(): void {
    if (this.usesDifference) this.computePieces()
    this.storeVectors()
    this.storeScalars()
  }
  private loadVectors(): void {
    for (const [index, variable] of this.vectors) this.set(variable, super.load('v128', 0, vectorAddress(index)))
  }
  private storeVectors(): void {
    for (const index of this.writtenVectors) super.store('v128', 0, this.get(this.vectors.get(index)!), vectorAddress(index))
  }
  private loadScalars(): void {
    for (const register of this.usedRegisters) this.set(this.registers[register], this.load('i64', 0, at.gpr + 8 * register))
    if (this.usesFlags) for (const name of flagNames) this.set(this.flagVariables[name], super.state(name))
  }
  private storeScalars(): void {
    for (const register of this.writtenRegisters) this.store('i64', 0, this.get(this.registers[register]), at.gpr + 8 * register)
    if (this.usesFlags) for (const name of flagNames) super.setState(name, this.get(this.flagVariables[name]))
  }

  // ---- rows ----

  /** Emits one instruction; afterwards `branch` or `left` tell whether it ended the block. */
  protected emitInstruction(instruction: BoundInstruction): void {
    this.instruction = instruction
    this.branch = undefined
    this.left = false
    if (!instruction.flat) return this.bail()
    this.beginRow(instruction.context)
    for (const check of instruction.row.checks ?? []) {
      if (this.checked.has(check)) continue
      this.emitCheck(check)
      if (lasting.has(check)) this.checked.add(check)
    }
    if (instruction.row.intercept) this.bailIf(this.intercepted(instruction.row.intercept))
    instruction.row.semantics(this, ...instruction.context.operands)
    if (!this.left && !this.branch) this.commit()
  }

  /** Leaves the region before the current instruction: the interpreter executes it. */
  protected bail(): void {
    this.set(this.resume, this.exitEntry())
    this.br(this.bailLabel)
    if (this.branchDepth === 0) this.left = true
  }
  /** Address of the words that say how the region is left before the current instruction. */
  protected exitEntry(): number {
    const { offset } = this.instruction
    const last = this.exits[this.exits.length - 1]
    if (last?.offset !== offset || last.remaining !== this.remaining || last.record !== this.record)
      this.exits.push({ record: this.record, remaining: this.remaining, offset })
    return this.exitTable + (this.exits.length - 1) * exitEntrySize
  }
  readonly exits: { record: number; remaining: number; offset: number }[] = []
  /** Where `exits` will lie in linear memory. */
  protected exitTable = 0
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
  /** The interpreter counts RIP from the page of its record. */
  protected saveCodePage(): void {
    if (!this.severalPages) return
    super.setState('codePage', this.add(this.get(this.page), this.i64(Math.floor(this.instruction.offset / 4096) * 4096)))
  }
  /** A bail on a condition. */
  private bailIf(condition: Node): void {
    this.nestedIf(condition, () => this.bail())
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
  private computePieces(): void {
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
  override setState(name: FieldName, value: Value, index = 0): void {
    if (name === 'segBase') this.addresses.setSegment(index)
    super.setState(name, value, index)
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

  // ---- registers and operands ----

  gpr(index: number): Node {
    this.usedRegisters.add(index)
    const value = this.get(this.registers[index])
    this.addresses.mark(value, this.addresses.ofRegister(index))
    return value
  }
  protected setGpr(index: number, value: Node): void {
    this.usedRegisters.add(index)
    this.writtenRegisters.add(index)
    this.addresses.setRegister(index, this.branchDepth === 0 ? this.originOf(value) : undefined)
    this.set(this.registers[index], value)
  }
  /** Number of a general register, and whether its bits 15:8 are meant. */
  private registerOf(operand: Operand): { index: number; high: boolean } {
    const distance = this.instruction.slots[operand.slot] - at.gpr
    return { index: distance >> 3, high: (distance & 7) === 1 }
  }
  protected readGpr(operand: Operand): Node {
    const { index, high } = this.registerOf(operand)
    const value = this.gpr(index)
    if (operand.bits === 64) return value
    const low = this.wrap(high ? this.shrU(value, 8n) : value)
    return operand.bits === 32 ? low : this.and(low, operand.bits === 16 ? 0xffff : 0xff)
  }
  protected writeGpr(operand: Operand, value: Node): void {
    const { index, high } = this.registerOf(operand)
    if (operand.bits === 64) return this.setGpr(index, value)
    if (operand.bits === 32) return this.setGpr(index, this.extendU(value))
    const mask = operand.bits === 16 ? 0xffffn : 0xffn
    const shift = high ? 8n : 0n
    const part = this.shl(this.extendU(this.and(value, Number(mask))), shift)
    this.setGpr(index, this.or(this.and(this.gpr(index), ~(mask << shift)), part))
  }
  protected readImmediate(operand: Operand): Node {
    const value = this.instruction.immediate
    if (operand.bits === 64) return this.i64(value)
    return this.i32(Number(BigInt.asIntN(32, operand.bits === 32 ? value : BigInt.asUintN(operand.bits, value))))
  }
  offset(_operand?: Operand): Node {
    const { base, index, scale, displacement } = this.instruction
    const constant = this.i64(displacement)
    const page = this.get(this.page)
    this.addresses.mark(page, pageOrigin)
    let sum = base === -2 ? this.add(page, constant) : base >= 0 ? this.add(this.gpr(base), constant) : constant
    if (index >= 0) sum = this.add(sum, this.shl(this.gpr(index), BigInt(scale)))
    return sum
  }
  address(operand: Operand): Node {
    const { segment: number } = this.instruction
    const offset = this.offset(operand)
    if (number < segment.fs) return offset
    const segmentBase = this.load('i64', 0, segBaseAddress(number))
    this.addresses.mark(segmentBase, this.addresses.ofSegment(number))
    return this.add(offset, segmentBase)
  }
  registerPlace(operand: Operand): Node {
    return this.i32(this.instruction.slots[operand.slot])
  }
  registerNumber(operand: Operand): Node {
    return this.i32(this.instruction.slots[operand.slot])
  }
  prefixes(): Node {
    return this.i32(this.instruction.prefixes)
  }
  nextRip(): Node {
    return this.add(this.get(this.page), this.i64(this.instruction.offset + this.instruction.length))
  }
  instructionRip(): Node {
    return this.add(this.get(this.page), this.i64(this.instruction.offset))
  }
  relativeTarget(_operand: Operand): Node {
    return this.add(this.get(this.page), this.i64(this.instruction.immediate))
  }

  // ---- vector registers: their low 128 bits are locals, and accesses to their places become lanes ----

  /** The vector register and the byte in it that a constant address of `size` bytes means; undefined: the address is something else. */
  private vectorAt(address: Value, offset: number, size: number): { index: number; byte: number } | undefined {
    const constant = typeof address === 'object' ? this.constantOf(address) : address
    if (constant === undefined) return undefined
    const distance = Number(constant) + offset - at.vector
    if (distance < 0 || distance >= vectorCount * vectorStride) return undefined
    const byte = distance % vectorStride
    if (byte % size !== 0 || byte + size > 16) throw new Error(`${this.name}: ${size} bytes at byte ${byte} of a vector register`)
    return { index: Math.floor(distance / vectorStride), byte }
  }
  private vectorVariable(index: number): Variable {
    let variable = this.vectors.get(index)
    if (!variable) this.vectors.set(index, (variable = this.variable('v128')))
    return variable
  }
  override load(kind: LoadKind, address: Value, offset = 0): Node {
    const lane = loadLanes[kind]
    const found = this.vectorAt(address, offset, lane?.bytes ?? 1)
    const sum = typeof address === 'object' ? this.folded.get(address) : undefined
    if (sum) return super.load(kind, sum.base, sum.offset + offset)
    if (!found) return super.load(kind, address, offset)
    const register = this.get(this.vectorVariable(found.index))
    if (kind !== 'v128' && !lane) throw new Error(`${this.name}: no lane for a load of ${kind}`)
    const value = lane ? this.simd(lane.opcode, lane.type, [register], found.byte / lane.bytes) : register
    this.lanes.set(value, { ...found, bytes: lane?.bytes ?? 16 })
    const plain = this.plainLanes.get(found.index)
    if (plain) this.plainElements.set(value, inside(plain, found.byte, lane?.bytes ?? 16))
    return value
  }
  override store(kind: StoreKind, address: Value, value: Node, offset = 0): void {
    const lane = storeLanes[kind]
    const found = this.vectorAt(address, offset, lane?.bytes ?? 1)
    const sum = typeof address === 'object' ? this.folded.get(address) : undefined
    if (sum) return super.store(kind, sum.base, value, sum.offset + offset)
    if (!found) return super.store(kind, address, value, offset)
    const variable = this.vectorVariable(found.index)
    this.writtenVectors.add(found.index)
    this.keepPlain(found, lane?.bytes ?? 16, value)
    if (kind === 'v128') return this.set(variable, value)
    if (!lane) throw new Error(`${this.name}: no lane for a store of ${kind}`)
    this.set(variable, this.simd(lane.opcode, 'v128', [this.get(variable), value], found.byte / lane.bytes))
  }

  // ---- elements of vectors that are known not to be denormal: numbers that say the byte of a register and the width ----

  private plainLanes = new Map<number, ReadonlySet<number>>()
  private readonly plainElements = new WeakMap<Node, Set<number>>()
  private readonly lanes = new WeakMap<Node, { index: number; byte: number; bytes: number }>()
  override isPlain(value: Node, bits: number): boolean {
    const known = this.plainElements.get(value)
    return known !== undefined && elementsOf(value, bits).every(element => known.has(element))
  }
  override markPlain(value: Node, bits: number): void {
    const known = this.plainElements.get(value) ?? new Set()
    for (const element of elementsOf(value, bits)) known.add(element)
    this.plainElements.set(value, known)
    const lane = this.lanes.get(value)
    if (lane && this.branchDepth === 0) this.keepPlain(lane, 0, value)
  }
  /** `bytes` of a register are replaced by a value, or (0) something was found about the value that they have. */
  private keepPlain({ index, byte }: { index: number; byte: number }, bytes: number, value: Node): void {
    const before = [...(this.plainLanes.get(index) ?? [])]
    const kept = before.filter(element => endOf(element) <= byte || byteOf(element) >= byte + bytes)
    const added = this.branchDepth === 0 ? [...(this.plainElements.get(value) ?? [])].map(element => element + 2 * byte) : []
    this.plainLanes.set(index, new Set([...kept, ...added]))
  }
  override provedOr(requirements: readonly Requirement[], then: () => void, name: string, ...args: Node[]): void {
    if (this.branchDepth > 0) return super.provedOr(requirements, then, name, ...args)
    for (const requirement of requirements) {
      if (requirement === this.nativeFloat && this.checked.has('native')) continue
      const { likely, otherwise } = requirement
      this.nestedIf(this.eqz(likely()), () => (otherwise ? this.bailIf(this.eqz(otherwise())) : this.bail()))
      if (requirement === this.nativeFloat) this.checked.add('native')
    }
    then()
  }

  // ---- memory ----

  protected override place(write: boolean, address: Node, sizeAndFlags: number): Node {
    const bytes = sizeAndFlags & 0xff
    const origin = this.originOf(address)
    if (!origin) return this.lookUp(write, address, bytes).place
    let page = this.addresses.known(origin, write)
    if (page) {
      const outside = this.gtU(this.add(this.get(page.start), origin.offset), 4096 - bytes)
      // another page: in a loop that may happen again and again
      if (this.inLoop) this.nestedIf(outside, () => this.learn(page!, write, address, bytes, origin.offset))
      else this.bailIf(outside)
    } else {
      if (this.branchDepth > 0) return this.lookUp(write, address, bytes).place
      page = this.addresses.learn(origin, write, () => ({ start: this.variable('i32'), base: this.variable('i32') }))
      this.learn(page, write, address, bytes, origin.offset)
    }
    const base = this.get(page.base)
    const place = this.add(base, origin.offset)
    if (origin.offset >= 0) this.folded.set(place, { base, offset: origin.offset })
    return place
  }
  /** The first-level entry of an address, or the region is left. */
  private lookUp(write: boolean, address: Node, bytes: number): { inPage: Node; place: Node } {
    const index = this.and(this.shrU(this.wrap(address), 12 - 4), (tlbDataEntries - 1) * tlbEntrySize)
    const entry = this.add(this.firstLevelTable(write), index)
    const distance = this.xor(address, this.load('i64', entry))
    this.bailIf(this.gtU(distance, this.i64(4096 - bytes)))
    const inPage = this.wrap(distance)
    return { inPage, place: this.add(inPage, this.load('i32', entry, 8)) }
  }
  private learn(page: KnownPage<Variable>, write: boolean, address: Node, bytes: number, offset: number): void {
    const { inPage, place } = this.lookUp(write, address, bytes)
    this.set(page.start, this.sub(inPage, offset))
    this.set(page.base, this.sub(place, offset))
  }
  /** Places that are a sum, so that the sum becomes the offset of the access. */
  private readonly folded = new WeakMap<Node, { base: Node; offset: number }>()
  private readonly addresses = new Addresses<Node, Variable>()
  private originOf(address: Node): Origin | undefined {
    const { base, offset } = this.splitSum(address)
    const origin = this.addresses.of(base)
    const sum = origin && origin.offset + offset
    return sum !== undefined && Math.abs(sum) < 1 << 20 ? { root: origin!.root, offset: sum } : undefined
  }

  // ---- what is known on a path ----

  protected knowledge(): Knowledge {
    const addresses = this.addresses.snapshot()
    const { origin, mayBeDifference: compared } = this
    return { flags: { ...this.lazyFlags }, origin, compared, addresses, checked: new Set(this.checked), plain: new Map(this.plainLanes) }
  }
  /** Sets what is known at the start of a block; `undefined`: nothing but what was checked. */
  protected know(knowledge: Knowledge | undefined, checked: ReadonlySet<Finding> | undefined = knowledge?.checked): void {
    this.lazyFlags = { ...knowledge?.flags }
    this.origin = knowledge?.origin
    this.mayBeDifference = knowledge ? knowledge.compared : true
    this.addresses.restore(knowledge?.addresses)
    this.checked = new Set(checked)
    if (!knowledge && this.restoresState) this.forgetState()
    this.plainLanes = new Map(knowledge?.plain)
    this.flagVersion++
  }
  private forgetState(): void {
    for (const finding of this.checked) if (typeof finding !== 'number') this.checked.delete(finding)
  }
  /** Somewhere in the region FPU state is restored: findings about it hold only as far as a path has no fork. */
  protected restoresState = false
  protected inLoop = false
  /** What was found on every way here and stays so in the region. */
  protected checked = new Set<Finding>()

  /** i32 address of the first-level table. */
  protected firstLevelTable(write: boolean): Node {
    return this.get(write ? this.tables.write : this.tables.read)
  }
  protected slowPlace(_write: boolean, _address: Node, _sizeAndFlags: number): Node {
    throw new Error('regions have no slow accesses')
  }
  protected stackAddress(_offset: Node, _sizeAndFlags: number): Node {
    throw new Error('regions are of 64-bit mode')
  }

  // ---- leaving ----

  protected leaveWithFault(): void {
    this.bail()
  }
  /** Calls a helper that neither branches nor changes translations, with the CPU's state as the interpreter would leave it to it. */
  protected callHelper(name: string): void {
    this.flushPieces()
    this.addresses.restore(undefined)
    this.usesFlags = true
    const reserved = this.remaining - this.recordLeft
    this.savings.push(this.placeholder())
    if (seesVectors.has(name)) this.vectorSavings.push(this.placeholder())
    super.setState('budget', this.add(this.get(this.budget), reserved))
    this.saveCodePage()
    const status = this.call(helperImport, [this.i32(this.helperNumber(name)), this.i32(this.record)], ['i32', 'i32'], 'i32')
    this.set(this.status, status)
    this.reloads.push(this.placeholder())
    if (seesVectors.has(name)) {
      this.vectorReloads.push(this.placeholder())
      this.plainLanes.clear()
      this.forgetState()
    }
    this.set(this.tables.read, super.state('tlbRead'))
    this.set(this.tables.write, super.state('tlbWrite'))
    this.plainIf(this.get(this.status), () => {
      this.set(this.status, this.or(this.get(this.status), leave.byHelper))
      this.set(this.resume, this.record)
      this.set(this.budget, super.state('budget'))
      this.br(this.exit)
    })
    this.set(this.budget, this.sub(super.state('budget'), reserved))
  }
  protected emitJump(rip: Node): void {
    this.flushFlags()
    this.leaveTo(rip)
    this.left = true
  }
  /** Leaves the region for an address. */
  protected leaveTo(rip: Node): void {
    super.setState('rip', rip)
    this.set(this.status, 2)
    this.br(this.exit)
  }
  protected emitRelativeJump(operand: Operand, condition: Node | undefined): void {
    if (this.instruction.row.name === 'CALL' && !this.calls) return this.emitJump(this.relativeTarget(operand))
    if (condition) condition.uses++
    this.branch = { condition }
  }
  override returnTo(target: Node, check: (target: Node) => Node): void {
    const sites = this.returnsTo
    if (sites.length === 0 || this.operandSize !== 64) return super.returnTo(target, check)
    const goesTo = (site: ReturnSite): Node => this.eq(target, this.add(this.get(this.page), this.i64(site.offset)))
    const last = sites.length - 1
    this.bailIf(this.eqz(sites.slice(0, last).reduceRight((others, site) => this.or(goesTo(site), others), goesTo(sites[last]))))
    if (last > 0) {
      const number = sites.slice(0, last).reduceRight((others, site, i) => this.select(goesTo(site), this.i32(i), others), this.i32(last))
      this.pending.push(() => this.set(this.returned, number))
    }
    this.commit()
    this.branch = { condition: undefined }
  }
  override helper(name: string, ...args: Node[]): void {
    if (!calledInside.has(name) || this.branchDepth > 0) return this.bail()
    super.helper(name, ...args)
  }
  override fault(_vector: number, _error?: Value, _computed?: Node): void {
    this.bail()
  }
}
