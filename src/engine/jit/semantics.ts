/**
 * Semantics over instructions whose operands are known: general registers and flags are WebAssembly locals, immediates and addresses are
 * constants. Whatever is not plain (a TLB miss, a fault, a helper) leaves the region before the instruction, which the interpreter then
 * executes.
 */
import { at, segBaseAddress, segment } from '../../cpu/layout.ts'
import type { FieldName } from '../../cpu/layout.ts'
import type { Requirement } from '../../isa/builder.ts'
import type { Check } from '../../isa/define.ts'
import type { Operand } from '../../isa/operands.ts'
import type { FlagOrigin } from '../../isa/state-builder.ts'
import type { SharedName } from '../../isa/x87-functions.ts'
import { tlbDataEntries, tlbEntrySize } from '../../memory/map.ts'
import type { Label, Node, Operand as Value, Variable } from '../../wasm/function.ts'
import { recordSize } from '../../decode/record.ts'
import { dataSegment } from '../handler-code.ts'
import { leave } from '../leave.ts'
import type { SharedImports } from '../shared-functions.ts'
import { Addresses, pageOrigin, type AddressKnowledge, type KnownPage, type Origin } from './addresses.ts'
import type { BoundInstruction, ReturnSite } from './discover.ts'
import { exitEntrySize, exitField } from './pool.ts'
import type { FlagName } from './region-flags.ts'
import { RegionVectors } from './region-vectors.ts'

/**
 * Pages of code are where they were (distances from the entry's page), checks do not trap, SSE is in its usual state, no x87 exception is
 * told.
 */
export type Finding = number | Check | 'native' | 'x87 wait'
/** What the x87 FPU notes of its last instruction: in locals, for the next one notes it again. */
const noted: readonly FieldName[] = ['fpIp', 'fpCs', 'fpDp', 'fpDs']
/** Checks whose outcome only helpers change that regions do not call. */
const lasting: ReadonlySet<Check> = new Set(['fpu', 'sse', 'avx'])

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

/** Indices of the imports of a region's module: its only function, and its only global. */
const helperImport = 0
const poolImport = 0
/** Helpers that regions call; for others they leave. */
const calledInside: ReadonlySet<string> = new Set([
  'popf', 'rdtsc', 'rdtscp', 'rdpkru', 'stac', 'clac', 'rdsegbase', 'wrsegbase', 'movs', 'stos', 'lods', 'scas', 'cmps',
  // what a hypervisor does around a world switch
  'vmread', 'vmwrite', 'vmload', 'vmsave', 'clgi', 'stgi', 'rdmsr', 'wrmsr', 'mov_from_cr', 'mov_from_dr', 'sldt', 'str', 'sgdt', 'sidt',
  'lgdt', 'lidt', 'ltr', 'xgetbv', 'xsaves', 'xrstors', 'xsave', 'xsavec', 'xsaveopt', 'xrstor', 'fxsave', 'fxrstor',
])
/** Of those, the ones that look at vector registers, or change them. */
const seesVectors: ReadonlySet<string> = new Set(['xsaves', 'xrstors', 'xsave', 'xsavec', 'xsaveopt', 'xrstor', 'fxsave', 'fxrstor'])

export abstract class RegionSemantics extends RegionVectors {
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
  /** The current instruction is a call into the region, or a return that is expected to go to one of these places in it. */
  protected calls = false
  protected returnsTo: readonly ReturnSite[] = []
  /** Which of several sites the last return has found. */
  protected readonly returned: Variable
  /** The region's code lies in several pages: leaving says in which. */
  protected severalPages = false
  protected readonly usedRegisters = new Set<number>()
  protected readonly writtenRegisters = new Set<number>()
  protected readonly registers: Variable[]
  private readonly tables: { read: Variable; write: Variable }
  protected instruction!: BoundInstruction
  private readonly helperNumber: (name: string) => number
  private readonly sharedImports: SharedImports
  private readonly isWide: boolean
  override get wide(): boolean {
    return this.isWide
  }
  /** Where locals are stored and loaded around calls of helpers: known when everything is emitted. */
  private readonly savings: ((fill: () => void) => void)[] = []
  private readonly reloads: ((fill: () => void) => void)[] = []
  private readonly vectorSavings: ((fill: () => void) => void)[] = []
  private readonly vectorReloads: ((fill: () => void) => void)[] = []

  /** `wide`: 64-bit code; else flat 32-bit code. */
  constructor(name: string, wide: boolean, helperNumber: (name: string) => number, shared: SharedImports) {
    super(name)
    this.sharedImports = shared
    this.isWide = wide
    this.helperNumber = helperNumber
    this.budget = this.variable('i32')
    this.page = this.variable('i64')
    this.status = this.variable('i32')
    this.resume = this.variable('i32')
    this.returned = this.variable('i32')
    this.registers = Array.from({ length: 16 }, () => this.variable('i64'))
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
  private loadScalars(): void {
    for (const register of this.usedRegisters) this.set(this.registers[register], this.load('i64', 0, at.gpr + 8 * register))
    for (const [name, variable] of this.notes) this.set(variable, super.state(name))
    this.loadFlags()
  }
  private storeScalars(): void {
    for (const register of this.writtenRegisters) this.store('i64', 0, this.get(this.registers[register]), at.gpr + 8 * register)
    for (const [name, variable] of this.notes) super.setState(name, this.get(variable))
    this.storeFlags()
  }
  private readonly notes = new Map<FieldName, Variable>()
  private noteOf(name: FieldName, type: Variable['type']): Variable {
    let variable = this.notes.get(name)
    if (!variable) this.notes.set(name, (variable = this.variable(type)))
    return variable
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
  /** Where in the module's pool it says how the region is left before the current instruction. */
  protected exitEntry(): number {
    const { offset } = this.instruction
    const last = this.exits[this.exits.length - 1]
    if (last?.offset !== offset || last.remaining !== this.remaining) this.exits.push({ remaining: this.remaining, offset })
    return this.exitTable + (this.exits.length - 1) * exitEntrySize
  }
  readonly exits: { remaining: number; offset: number }[] = []
  /** Where `exits` will lie in the pool. */
  protected exitTable = 0
  /** Linear address of the pool that the region's code shares with others. */
  protected pool(): Node {
    return this.global(poolImport)
  }
  /** A word of the pool about the current instruction. */
  protected ofRecord(field: 'record' | 'left'): Node {
    return this.load('i32', this.pool(), this.exitEntry() + exitField[field])
  }
  /** The interpreter counts RIP from the page of its record. */
  protected saveCodePage(): void {
    if (!this.severalPages) return
    super.setState('codePage', this.add(this.get(this.page), this.i64(Math.floor(this.instruction.offset / 4096) * 4096)))
  }
  /** A bail on a condition. */
  private bailIf(condition: Node): void {
    this.nestedIf(this.rarely(condition), () => this.bail())
  }
  // ---- registers and operands ----

  gpr(index: number): Node {
    this.usedRegisters.add(index)
    const value = this.get(this.registers[index])
    this.addresses.mark(value, this.addresses.ofRegister(index))
    return value
  }
  override setState(name: FieldName, value: Value, index = 0): void {
    if (name === 'segBase') this.addresses.setSegment(index)
    if (noted.includes(name) && typeof value === 'object') return this.set(this.noteOf(name, value.type), value)
    super.setState(name, value, index)
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
    if (!this.wide) return this.extendU(this.narrowOffset())
    const { base, index, scale, displacement } = this.instruction
    const constant = this.i64(displacement)
    const page = this.get(this.page)
    this.addresses.mark(page, pageOrigin)
    let sum = base === -2 ? this.add(page, constant) : base >= 0 ? this.add(this.gpr(base), constant) : constant
    if (index >= 0) sum = this.add(sum, this.shl(this.gpr(index), BigInt(scale)))
    return sum
  }
  private narrowOffset(): Node {
    const { base, index, scale, displacement } = this.instruction
    const constant = this.i32(Number(displacement))
    const sum = base >= 0 ? this.add(this.wrap(this.gpr(base)), constant) : constant
    return index >= 0 ? this.add(sum, this.shl(this.wrap(this.gpr(index)), scale)) : sum
  }
  address(operand: Operand): Node {
    const { segment: number } = this.instruction
    if (number >= segment.fs && !this.wide) return this.basedAddress(number, Math.max(1, operand.bits / 8))
    const offset = this.offset(operand)
    if (number < segment.fs) return offset
    const segmentBase = this.load('i64', 0, segBaseAddress(number))
    this.addresses.mark(segmentBase, this.addresses.ofSegment(number))
    return this.add(offset, segmentBase)
  }
  /** By FS or GS outside of 64-bit mode: a segment of writable data that does not expand down, within its limit; or the region is left. */
  private basedAddress(number: number, size: number): Node {
    const offset = this.narrowOffset()
    const kind = this.and(this.load('i32', 0, at.segAttributes + 4 * number), dataSegment.mask)
    const last = this.add(offset, size - 1)
    const fits = this.and(this.leU(last, this.load('i32', 0, at.segLimit + 4 * number)), this.leU(offset, last))
    this.bailIf(this.eqz(this.and(this.eq(kind, dataSegment.writable), fits)))
    const segmentBase = this.load('i32', 0, segBaseAddress(number))
    this.addresses.mark(segmentBase, this.addresses.ofSegment(number))
    return this.extendU(this.add(segmentBase, offset))
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
  firstSlot(): Node {
    return this.i32(this.instruction.slots[0])
  }
  dataSegment(): Node {
    return this.i32(this.instruction.segment)
  }
  dataPointer(operand: Operand): { offset: Node; selector: Node } {
    const { segment: number } = this.instruction
    const selector = this.load('i32', 0, at.segSelector + 4 * number)
    if (this.wide && number >= segment.fs) return { offset: this.offset(operand), selector }
    return { offset: this.wide ? this.offset(operand) : this.extendU(this.narrowOffset()), selector }
  }
  shared(name: SharedName, args: readonly (Node | number)[]): Node {
    return this.sharedImports.call(this, name, args)
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

  override once(check: 'x87 wait', emit: () => void): void {
    if (this.checked.has(check)) return
    emit()
    if (this.branchDepth === 0) this.checked.add(check)
  }
  override provedOr(requirements: readonly Requirement[], then: () => void, name: string, ...args: Node[]): void {
    if (this.branchDepth > 0) return super.provedOr(requirements, then, name, ...args)
    for (const requirement of requirements) {
      if (requirement === this.nativeFloat && this.checked.has('native')) continue
      const { likely, otherwise } = requirement
      this.nestedIf(this.rarely(this.eqz(likely())), () => (otherwise ? this.bailIf(this.eqz(otherwise())) : this.bail()))
      if (requirement === this.nativeFloat) this.checked.add('native')
    }
    then()
  }

  // ---- virtual time ----

  protected override budgetLeft(): Node {
    return this.sub(this.add(this.get(this.budget), this.remaining), this.ofRecord('left'))
  }
  protected givenOut(): Node {
    return this.ofRecord('left')
  }
  /** Also of the block: what follows in it has been given out to the region, and not to the interpreter's run. */
  override affords(nanoseconds: number): Node {
    return this.and(super.affords(nanoseconds), this.geS(this.get(this.budget), nanoseconds))
  }
  override spend(nanoseconds: number): void {
    this.set(this.budget, this.sub(this.get(this.budget), nanoseconds))
    super.setState('extraTime', this.add(super.state('extraTime'), nanoseconds))
  }
  override takeTables(tables: 'kernelTables' | 'userTables' | 'accessTables'): void {
    super.takeTables(tables)
    this.set(this.tables.read, super.state('tlbRead'))
    this.set(this.tables.write, super.state('tlbWrite'))
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
      if (this.inLoop) this.nestedIf(this.rarely(outside), () => this.learn(page!, write, address, bytes, origin.offset))
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
  private readonly addresses = new Addresses<Node, Variable>()
  private originOf(address: Node): Origin | undefined {
    // outside of 64-bit mode registers and addresses have 32 bits that count, and so have their differences
    const { base, offset } = this.wide ? this.splitSum(address) : this.splitNarrowSum(address)
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
  protected override firstLevelTable(write: boolean): Node {
    return this.get(write ? this.tables.write : this.tables.read)
  }
  protected slowPlace(_write: boolean, _address: Node, _sizeAndFlags: number): Node {
    throw new Error('regions have no slow accesses')
  }
  protected stackAddress(offset: Node, _sizeAndFlags: number): Node {
    return this.extendU(this.wrap(offset))
  }
  protected override mergeStackPointer(value: Node): Node {
    return this.and(value, 0xffffffffn)
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
    const reserved = this.sub(this.i32(this.remaining), this.ofRecord('left'))
    const record = this.add(this.ofRecord('record'), this.instruction.before * recordSize)
    this.savings.push(this.placeholder())
    if (seesVectors.has(name)) this.vectorSavings.push(this.placeholder())
    super.setState('budget', this.add(this.get(this.budget), reserved))
    this.saveCodePage()
    const status = this.call(helperImport, [this.i32(this.helperNumber(name)), record], ['i32', 'i32'], 'i32')
    this.set(this.status, status)
    this.reloads.push(this.placeholder())
    if (seesVectors.has(name)) {
      this.vectorReloads.push(this.placeholder())
      this.plainLanes.clear()
      this.forgetState()
    }
    this.set(this.tables.read, super.state('tlbRead'))
    this.set(this.tables.write, super.state('tlbWrite'))
    // the block may be longer than the interpreter's run: what is left may do for the run, and not for the block
    const short = this.ltS(super.state('budget'), this.sub(this.i32(this.remaining), this.ofRecord('left')))
    this.plainIf(this.and(this.eqz(this.get(this.status)), short), () => this.set(this.status, leave.after))
    this.plainIf(this.get(this.status), () => {
      this.set(this.status, this.or(this.get(this.status), leave.byHelper))
      this.set(this.resume, record)
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
  /** A branch's target with as many bits as addresses have. */
  protected target(rip: Node): Node {
    return this.wide ? rip : this.and(rip, 0xffffffffn)
  }
  /** Leaves the region for an address. */
  protected leaveTo(rip: Node): void {
    super.setState('rip', rip)
    this.set(this.status, 2)
    this.br(this.exit)
  }
  protected emitRelativeJump(operand: Operand, condition: Node | undefined): void {
    if (this.instruction.row.name === 'CALL' && !this.calls) return this.emitJump(this.target(this.relativeTarget(operand)))
    if (condition) condition.uses++
    this.branch = { condition }
  }
  override returnTo(target: Node, check: (target: Node) => Node): void {
    const sites = this.returnsTo
    if (sites.length === 0 || this.operandSize !== (this.wide ? 64 : 32)) return super.returnTo(target, check)
    const siteOf = ({ offset }: ReturnSite): Node => this.add(this.get(this.page), this.i64(offset))
    const goesTo = (site: ReturnSite): Node => this.eq(target, this.wide ? siteOf(site) : this.wrap(siteOf(site)))
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
    if (!this.callsInside(name) || this.branchDepth > 0) return this.bail()
    super.helper(name, ...args)
  }
  /** A helper's memory operand has a limit outside of 64-bit mode, which only the interpreter's record of the address knows. */
  protected callsInside(name: string): boolean {
    return calledInside.has(name) && (this.wide || !this.instruction.memory)
  }
  override fault(_vector: number, _error?: Value, _computed?: Node): void {
    this.bail()
  }
}
