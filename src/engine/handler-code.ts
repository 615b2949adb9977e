/**
 * The code of the interpreter's handlers, made from the rows: what stands in its main function (main-function.ts), and a function for each
 * other handler. When they are made, and who calls them: interpreter.ts.
 */
import { at, segment } from '../cpu/layout.ts'
import { accessFlag } from '../isa/builder.ts'
import type { Instruction, InterceptName } from '../isa/define.ts'
import { interceptNumber } from '../cpu/intercepts.ts'
import { flag } from '../cpu/rflags.ts'
import type { SharedName } from '../isa/x87-functions.ts'
import { mode } from '../cpu/mode.ts'
import type { Operand } from '../isa/operands.ts'
import type { RowContext } from '../isa/state-builder.ts'
import type { Label, Node, Variable } from '../wasm/function.ts'
import { recordField, slotField } from '../decode/record.ts'
import { noHint, returnHintCount, returnHints } from '../memory/map.ts'
import { leave } from './leave.ts'
import { SharedImports } from './shared-functions.ts'
import { isMoveOrStore, StringSemantics } from './string-semantics.ts'

/** Of `imports` in interpreter.ts. */
export const importIndex = { slowRead: 0, slowWrite: 1, helper: 2, stackAddress: 3, segmentAddress: 4, shared: 5 } as const

/** Handlers that are no instruction. */
export const pseudo = { stop: 0, resume: 1, segmentAddress: 2, undefined: 3, crossing: 4, count: 5 } as const

const stackPointer = 4
/** In a record's prefixes. */
export const addressSizeBits = 0x0c
const addressSize64 = 0x08
const addressSize32 = 0x04
const repeatBits = 0x30
/** L0 to G3 of DR7. */
const anyBreakpoint = 0xff
/** Present, not a system segment, data, expanding up, writable. */
export const dataSegment = { mask: 0x9e, writable: 0x92 } as const

export interface HandlerSpec {
  /** Unique: the row's number and what its code depends on. */
  readonly key: string
  readonly row: Instruction
  readonly context: RowContext
  /** Memory operands are base + displacement: no index, no segment base. */
  readonly simpleAddress: boolean
}

/** Semantics over decoded records: operands are fields of the record at `record`. */
export class RecordSemantics extends StringSemantics {
  protected record: Variable
  private slots: (Node | undefined)[] = []
  private simpleAddress = false
  private rowName = ''
  /** The row last emitted writes its memory operand. */
  writes = false
  private readonly helperNumber: (name: string) => number
  /** Main function: where to go instead of returning. */
  protected main:
    | {
      exit: Label; near: Label; arrive: Label
      status: Variable; target: Variable; rip: Variable; link: Variable
      /** Where a jump led the last time, or 0, and the address of the word that remembers it. */
      hint: Variable; home: Variable
    }
    | undefined

  constructor(name: string, helperNumber: (name: string) => number, parameters: 'record' | 'main') {
    super(name, ['i32'], 'i32')
    this.helperNumber = helperNumber
    this.record = parameters === 'record' ? this.parameter(0) : this.variable('i32')
  }

  field(kind: 'i32' | 'i64' | 'i32_8u' | 'i32_16u' | 'i64_32s', offset: number): Node {
    return this.load(kind, this.get(this.record), offset)
  }

  /** The whole row: checks, body, writes. What follows it runs when the row falls through. */
  emitRow(spec: HandlerSpec): void {
    this.beginRow(spec.context)
    this.rowName = spec.row.name
    this.writes = false
    this.simpleAddress = spec.simpleAddress
    this.slots = spec.context.operands.map(operand =>
      operand.class === 'gpr' ||
      operand.class === 'vector' ||
      operand.class === 'mmx' ||
      operand.class === 'segment' ||
      operand.class === 'control' ||
      operand.class === 'debug'
        ? this.field('i32_16u', slotField[operand.slot])
        : undefined,
    )
    for (const check of spec.row.checks ?? []) this.emitCheck(check)
    if (spec.row.intercept) this.emitIntercept(spec.row.intercept, spec.context)
    spec.row.semantics(this, ...spec.context.operands)
    this.commit()
  }

  /** Whoever runs the guest decides: it exits, or the row goes on. */
  private emitIntercept(name: InterceptName, context: RowContext): void {
    const memory = context.operands.find(operand => operand.class === 'memory')
    this.if(this.rarely(this.intercepted(name)), () => {
      if (memory) this.setState('argument', this.address())
      this.setState('argument', this.i64(interceptNumber[name]), 1)
      this.setState('argument', this.i64(memory ? 1 : 0), 2)
      const status = this.call(importIndex.helper, [this.helperNumber('intercept'), this.get(this.record)], ['i32', 'i32'], 'i32')
      this.if(status, () => (this.main ? this.exitOrJump(status) : this.return(status)))
    })
  }

  private slotOf(operand: Operand): Node {
    const slot = this.slots[this.row.operands.indexOf(operand)]
    if (!slot) throw new Error(`${this.name}: operand of class ${operand.class} has no slot`)
    return slot
  }
  protected readGpr(operand: Operand): Node {
    return this.load(
      operand.bits === 64 ? 'i64' : operand.bits === 32 ? 'i32' : operand.bits === 16 ? 'i32_16u' : 'i32_8u',
      this.slotOf(operand),
    )
  }
  protected writeGpr(operand: Operand, value: Node): void {
    const place = this.slotOf(operand)
    if (operand.bits === 64) this.store('i64', place, value)
    else if (operand.bits === 32) this.store('i64', place, this.extendU(value))
    else this.store(operand.bits === 16 ? 'i32_16' : 'i32_8', place, value)
  }
  gpr(index: number): Node {
    return this.load('i64', 0, at.gpr + 8 * index)
  }
  protected setGpr(index: number, value: Node): void {
    this.store('i64', 0, value, at.gpr + 8 * index)
  }
  registerPlace(operand: Operand): Node {
    return this.slotOf(operand)
  }
  registerNumber(operand: Operand): Node {
    return this.slotOf(operand)
  }
  protected readImmediate(operand: Operand): Node {
    if (operand.bits === 64) return this.field('i64', recordField.immediate)
    const value = this.field('i32', recordField.immediate)
    return this.unsigned(value, operand.bits)
  }
  offset(): Node {
    const base = this.load('i64', this.field('i32_16u', recordField.base))
    const displaced = this.add(base, this.field('i64_32s', recordField.displacement))
    if (this.simpleAddress) return displaced
    const index = this.load('i64', this.field('i32_16u', recordField.index))
    return this.add(displaced, this.shl(index, this.extendU(this.field('i32_8u', recordField.scale))))
  }
  address(): Node {
    if (this.simpleAddress) return this.offset()
    return this.add(this.offset(), this.load('i64', this.field('i32_16u', recordField.segBase)))
  }
  nextRip(): Node {
    const offset = this.add(this.field('i32_16u', recordField.offset), this.and(this.field('i32_8u', recordField.length), 15))
    return this.add(this.state('codePage'), this.extendU(offset))
  }
  protected givenOut(): Node {
    return this.field('i32_8u', recordField.left)
  }
  instructionRip(): Node {
    return this.add(this.state('codePage'), this.extendU(this.field('i32_16u', recordField.offset)))
  }
  relativeTarget(): Node {
    return this.add(this.state('codePage'), this.field('i64', recordField.immediate))
  }
  prefixes(): Node {
    return this.field('i32_8u', recordField.prefixes)
  }
  firstSlot(): Node {
    return this.field('i32_16u', recordField.slotA)
  }
  dataSegment(): Node {
    return this.shrU(this.and(this.field('i32_8u', recordField.length), 0x70), 4)
  }
  dataPointer(): { offset: Node; selector: Node } {
    const number = this.dataSegment()
    const wide = this.eq(this.and(this.state('mode'), mode.codeMask), mode.code64)
    const hasBase = this.or(this.eqz(wide), this.geU(number, segment.fs))
    const base = this.select(hasBase, this.load('i64', this.shl(number, 3), at.segBase), this.i64(0))
    const mask = this.select(wide, this.i64(-1), this.i64(0xffffffffn))
    return { offset: this.and(this.sub(this.address(), base), mask), selector: this.load('i32', this.shl(number, 2), at.segSelector) }
  }
  /** Of the module that the code will be part of. */
  sharedImports = new SharedImports(importIndex.shared)
  shared(name: SharedName, args: readonly (Node | number)[]): Node {
    return this.sharedImports.call(this, name, args)
  }

  // ---- leaving ----

  /** Ends the row with a status: the value that a handler function returns, or the main function's way out. */
  protected exitWith(status: Node | number): void {
    if (!this.main) return this.return(status)
    this.set(this.main.status, status)
    this.br(this.main.exit)
  }
  protected leaveWithFault(): void {
    this.setState('leaveStatus', 1)
    this.exitWith(leave.abort)
  }
  protected slowPlace(write: boolean, address: Node, sizeAndFlags: number): Node {
    if (write && !(sizeAndFlags & accessFlag.stack)) this.writes = true
    const place = this.call(
      write ? importIndex.slowWrite : importIndex.slowRead,
      [this.wrap(address), this.wrap(this.shrU(address, 32n)), this.or(this.i32(sizeAndFlags), this.stackFlag())],
      ['i32', 'i32', 'i32'],
      'i32',
    )
    this.if(this.rarely(this.eqz(place)), () => this.exitWith(leave.abort))
    return place
  }
  /** Operands based on RSP or RBP use SS: an address that is not canonical raises #SS. */
  private stackFlag(): Node {
    return this.shl(this.eq(this.and(this.field('i32_8u', recordField.length), 0x70), segment.ss << 4), 8)
  }
  protected stackAddress(offset: Node, sizeAndFlags: number): Node {
    const place = this.variable('i32')
    this.set(place, this.wrap(offset))
    const wide = this.ne(this.and(this.state('mode'), mode.stack32), 0)
    const plain = this.and(wide, this.inDataSegment(this.i32(segment.ss), place, this.i32(sizeAndFlags & 0xff)))
    this.if(
      this.usually(plain),
      () => {
        const base = this.load('i32', 0, at.segBase + 8 * segment.ss)
        this.setState('segmentAddress', this.extendU(this.add(this.get(place), base)))
      },
      () => {
        const refused = this.call(importIndex.stackAddress, [this.get(place), sizeAndFlags], ['i32', 'i32'], 'i32')
        this.if(this.rarely(refused), () => this.exitWith(leave.abort))
      },
    )
    return this.state('segmentAddress')
  }

  /** Bytes from an offset on lie in a segment of writable data that does not expand down, and within its limit. */
  protected inDataSegment(number: Node, offset: Variable, size: Node): Node {
    const word = this.shl(number, 2)
    const kind = this.and(this.load('i32', word, at.segAttributes), dataSegment.mask)
    const last = this.add(this.get(offset), this.sub(size, 1))
    const fits = this.and(this.leU(last, this.load('i32', word, at.segLimit)), this.leU(this.get(offset), last))
    return this.and(this.eq(kind, dataSegment.writable), fits)
  }
  protected emitJump(rip: Node): void {
    if (this.main) {
      this.set(this.main.rip, rip)
      if (this.rowName === 'RET') this.expectReturn()
      else this.expect(this.i32(noHint))
      this.br(this.main.arrive)
    } else {
      this.setState('rip', rip)
      this.return(2)
    }
  }
  /** A word remembers where the jump led the last time, if it has been there. */
  protected expect(home: Node): void {
    this.set(this.main!.home, home)
    this.set(this.main!.hint, this.load('i32', this.get(this.main!.home)))
  }
  /** Of a return: the CALL that pushed to the same place of the stack remembers what followed it. */
  private expectReturn(): void {
    // RSP is above the return address by now
    const rsp = this.sub(this.wrap(this.gpr(stackPointer)), this.operandSize >> 3)
    this.expect(this.add(this.load('i32', this.returnSlot(rsp), returnHints), recordField.returned))
  }
  private returnSlot(rsp: Node): Node {
    return this.and(this.shrU(rsp, 1), (returnHintCount - 1) * 4) // a word for eight bytes of stack
  }
  protected emitRelativeJump(operand: Operand, condition: Node | undefined): void {
    const go = (): void => {
      if (!this.main) return this.emitJump(this.targetOf())
      const { target, near, link, rip, arrive } = this.main
      if (this.rowName === 'CALL') this.store('i32', this.returnSlot(this.wrap(this.gpr(stackPointer))), this.get(this.record), returnHints)
      this.set(target, this.field('i32', recordField.displacement))
      this.brIf(near, this.usually(this.get(target)))
      this.set(link, 1)
      this.set(rip, this.targetOf())
      this.expect(condition ? this.i32(noHint) : this.add(this.get(this.record), recordField.far))
      this.br(arrive)
    }
    if (!condition) return go()
    this.if(condition, () => {
      this.countInRecord(recordField.taken)
      go()
    })
    this.countInRecord(recordField.notTaken)
  }
  private targetOf(): Node {
    const target = this.relativeTarget()
    return this.wide ? target : this.and(target, this.operandSize === 16 ? 0xffffn : 0xffffffffn)
  }
  /** What compiled regions are chosen by. */
  private countInRecord(field: number): void {
    if (this.hotThreshold > 0) this.store('i32', this.get(this.record), this.add(this.field('i32', field), 1), field)
  }
  /** Arrivals that make a record hot, a power of two; 0: nothing is compiled, and nothing counted. */
  hotThreshold = 0
  /** MOVS and STOS: in line as far as that goes, which only the record tells. */
  override helper(name: string, ...args: Node[]): void {
    if (!isMoveOrStore(name)) return super.helper(name, ...args)
    const size = Number(this.constantOf(args[0]))
    this.block(done => {
      this.block(slow => {
        const addressSize = this.and(this.prefixes(), addressSizeBits)
        const isFlat = this.and(this.eq(addressSize, addressSize32), this.ne(this.and(this.state('mode'), mode.flat), 0))
        this.brIf(slow, this.rarely(this.eqz(this.or(this.eq(addressSize, addressSize64), isFlat))))
        const number = this.dataSegment()
        this.brIf(slow, this.rarely(this.or(this.geU(number, segment.fs), this.and(isFlat, this.eq(number, segment.cs)))))
        this.set((this.pointerMask ??= this.variable('i64')), this.select(isFlat, 0xffffffffn, this.i64(-1)))
        // single steps and breakpoints want one element a time
        const breaks = this.and(this.load('i32', 0, at.dr + 8 * 7), anyBreakpoint)
        this.brIf(slow, this.rarely(this.or(this.and(this.state('eflags'), flag.TF), breaks)))
        this.if(
          this.and(this.prefixes(), repeatBits),
          () => this.stringInPage(name, size, true, slow),
          () => this.stringInPage(name, size, false, slow),
        )
        this.br(done)
      })
      super.helper(name, ...args)
    })
  }
  /** What of RCX, RSI and RDI a string instruction uses. */
  private pointerMask: Variable | undefined
  protected override pointer(register: number): Node {
    return this.and(this.gpr(register), this.get(this.pointerMask!))
  }
  protected override setPointer(register: number, value: Node): void {
    this.setGpr(register, this.and(value, this.get(this.pointerMask!)))
  }
  protected firstLevelTable(write: boolean): Node {
    return this.state(write ? 'tlbWrite' : 'tlbRead')
  }
  protected takeTime(nanoseconds: () => Node, slow: Label): void {
    const time = this.variable('i32')
    this.set(time, nanoseconds())
    this.brIf(slow, this.rarely(this.ltS(this.budgetLeft(), this.get(time))))
    this.setState('budget', this.sub(this.budgetLeft(), this.get(time)))
    this.setState('extraTime', this.add(this.state('extraTime'), this.get(time)))
  }
  protected callHelper(name: string): void {
    const status = this.call(importIndex.helper, [this.helperNumber(name), this.get(this.record)], ['i32', 'i32'], 'i32')
    if (this.main) this.if(status, () => this.exitOrJump(status))
    else this.return(status)
  }
  /** Main function: a handler's nonzero status. */
  protected exitOrJump(status: Node): void {
    const main = this.main!
    this.if(this.eq(status, 2), () => {
      this.set(main.rip, this.state('rip'))
      this.expect(this.i32(noHint))
      this.br(main.arrive)
    })
    this.if(this.eq(status, leave.near), () => {
      this.set(main.target, this.state('resumeRecord'))
      this.br(main.near)
    })
    this.if(this.geS(status, leave.byHelper), () => {
      this.set(this.record, this.state('resumeRecord'))
      this.if(this.eq(status, leave.byHelper | 2), () => {
        this.set(main.rip, this.state('rip'))
        this.expect(this.i32(noHint))
        this.br(main.arrive)
      })
      this.exitWith(this.sub(status, leave.byHelper))
    })
    this.exitWith(status)
  }
}

export class HandlerFunction extends RecordSemantics {
  /** With `counter`, a u64 in linear memory is increased at each execution. */
  build(spec: HandlerSpec, counter: number | undefined): void {
    if (counter !== undefined) this.store('i64', 0, this.add(this.load('i64', 0, counter), 1), counter)
    this.emitRow(spec)
    this.return(0)
  }
}
