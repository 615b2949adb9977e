/**
 * What a row's body is written against: values, operands, memory, control transfer, and flags (state-builder.ts). Engines extend it and
 * decide how operands and state are reached (a field of a decoded record, or a constant and a WebAssembly local); bodies do not know which
 * engine they serve.
 */
import type { Node, Operand as Value } from '../wasm/function.ts'
import type { ValueType } from '../wasm/encode.ts'
import type { LoadKind, StoreKind } from '../wasm/opcodes.ts'
import { vectorAddress } from '../cpu/layout.ts'
import { cr4, efer } from '../cpu/bits.ts'
import { vector as exception } from '../cpu/fault.ts'
import { flag } from '../cpu/rflags.ts'
import { tlbDataEntries, tlbEntrySize } from '../memory/map.ts'
import type { Check } from './define.ts'
import { interceptNumber, type InterceptName } from '../cpu/intercepts.ts'
import type { Operand } from './operands.ts'
import { StateBuilder } from './state-builder.ts'
import type { SharedName } from './x87-functions.ts'

/** Flags of a slow access besides its size in bytes: src/mmu understands them. */
export const accessFlag = { stack: 1 << 8, supervisor: 1 << 9, modify: 1 << 10 } as const

const loadKinds: Record<number, LoadKind> = { 8: 'i32_8u', 16: 'i32_16u', 32: 'i32', 64: 'i64' }
const storeKinds: Record<number, StoreKind> = { 8: 'i32_8', 16: 'i32_16', 32: 'i32', 64: 'i64' }

/** A condition (i32) for going on without a helper: it nearly always holds as first said; else another way to hold is asked. */
export interface Requirement {
  readonly likely: () => Node
  readonly otherwise?: () => Node
}

export abstract class Semantics extends StateBuilder {
  // ---- what an engine supplies ----

  /** A general register as i32 (8 and 16 bits zero-extended, 32 bits) or i64. */
  protected abstract readGpr(operand: Operand): Node
  protected abstract writeGpr(operand: Operand, value: Node): void
  /** A numbered general register (0 RAX .. 15 R15), i64. */
  abstract gpr(index: number): Node
  protected abstract setGpr(index: number, value: Node): void
  /** Immediate or relative target: i32 for widths up to 32 bits (8 and 16 zero-extended), else i64 sign-extended. */
  protected abstract readImmediate(operand: Operand): Node
  /** Effective address (base + index × scale + displacement) plus segment base: linear, i64. */
  abstract address(operand: Operand): Node
  /** Effective address without segment base, for LEA. */
  abstract offset(operand: Operand): Node
  /** i32 linear-memory address of a vector (mmx: x87) register operand. */
  abstract registerPlace(operand: Operand): Node
  /** i32 linear-memory address of vector register `index`. */
  vectorPlace(index: number): Node {
    return this.i32(vectorAddress(index))
  }
  /** i32 number of a segment, control or debug register operand. */
  abstract registerNumber(operand: Operand): Node
  /** i32: the record's prefix byte (operand size, address size, repeat, LOCK). */
  abstract prefixes(): Node
  /** i32: the record's first slot, where the i of an x87 register ST(i) is. */
  abstract firstSlot(): Node
  /** i32 number of the segment register of the operand in memory. */
  abstract dataSegment(): Node
  /** What the x87 FPU notes of an operand in memory: its offset in its segment (i64), and the selector (i32). */
  abstract dataPointer(operand: Operand): { offset: Node; selector: Node }
  /** Calls a function that all generated code shares, with up to three i32: its answer, i32. */
  abstract shared(name: SharedName, args: readonly (Node | number)[]): Node
  /** i64 RIP of the next instruction. */
  abstract nextRip(): Node
  /** RIP of the instruction, i64. */
  abstract instructionRip(): Node
  /** i32 from a slow access: the place, or the row has been left. `write` selects the function. */
  protected abstract slowPlace(write: boolean, address: Node, sizeAndFlags: number): Node
  /** Leaves the row with a fault that is already stored in the state. */
  protected abstract leaveWithFault(): void
  protected abstract emitJump(rip: Node): void
  protected abstract emitRelativeJump(operand: Operand, condition: Node | undefined): void
  protected abstract callHelper(name: string): void
  /** Legacy stacks: the linear address of SS:offset with limit checks; leaves with #SS. */
  protected abstract stackAddress(offset: Node, sizeAndFlags: number): Node

  // ---- operands ----

  /**
   * The operand's value: i32 (8 and 16 bits zero-extended) or i64; a 128-bit memory or vector operand is a v128. Reading memory happens
   * here.
   */
  read(operand: Operand): Node {
    switch (operand.class) {
      case 'gpr':
        return this.readGpr(operand)
      case 'immediate':
      case 'relative':
        return this.readImmediate(operand)
      case 'memory':
        return operand.bits === 128
          ? this.readMemory(this.address(operand), 'v128', 16)
          : this.readMemory(this.address(operand), loadKinds[operand.bits], operand.bits / 8)
      case 'vector':
        return this.load('v128', this.registerPlace(operand))
      case 'mmx':
        return this.load('i64', this.registerPlace(operand))
      default:
        throw new Error(`${this.name}: cannot read a ${operand.class} operand`)
    }
  }
  /** As read, sign-extended from the operand's width (i32 for 8 to 32 bits). */
  readSigned(operand: Operand): Node {
    return this.signed(this.read(operand), operand.bits)
  }
  /** Sign-extends an i32 that holds a value of 8 or 16 bits; wider values stay as they are. */
  signed(value: Node, bits: number): Node {
    return bits === 8 ? this.unary('extend8S', value) : bits === 16 ? this.unary('extend16S', value) : value
  }
  /** Zero-extends an i32 that may have garbage above 8 or 16 bits. */
  unsigned(value: Node, bits: number): Node {
    return bits === 8 ? this.and(value, 0xff) : bits === 16 ? this.and(value, 0xffff) : value
  }
  /** i64 of a value of this width, sign-extended. */
  widen(value: Node, bits: number): Node {
    return value.type === 'i64' ? value : this.extendS(this.signed(value, bits))
  }
  /** i64 of a value of this width, zero-extended. */
  widenUnsigned(value: Node, bits: number): Node {
    return value.type === 'i64' ? value : this.extendU(this.unsigned(value, bits))
  }
  /** A literal of the type in which values of this width are held. */
  constant(bits: number, value: number | bigint): Node {
    return bits === 64 ? this.i64(value) : this.i32(Number(value))
  }

  /**
   * Writes an operand. Memory is written here; registers at the end of the row (32-bit writes clear the upper half). Upper bits of narrow
   * values are ignored.
   */
  write(operand: Operand, value: Node): void {
    switch (operand.class) {
      case 'gpr':
        value.uses++
        this.pending.push(() => {
          value.uses--
          this.writeGpr(operand, value)
        })
        return
      case 'memory':
        if (operand.bits === 128) return this.writeMemory(this.address(operand), 'v128', value, 16)
        return this.writeMemory(this.address(operand), storeKinds[operand.bits], value, operand.bits / 8)
      case 'vector':
        return this.storeAtEnd(value.type as StoreKind, operand, value)
      case 'mmx':
        return this.storeAtEnd('i64', operand, value)
      default:
        throw new Error(`${this.name}: cannot write a ${operand.class} operand`)
    }
  }
  /** Writes bits 255:128 of a vector register at the end of the row. */
  writeUpper(operand: Operand, value: Node): void {
    this.storeAtEnd('v128', operand, value, 16)
  }
  /** At an offset of the place of a register. */
  private storeAtEnd(kind: StoreKind, operand: Operand, value: Node, offset = 0): void {
    const place = this.registerPlace(operand)
    value.uses++
    place.uses++
    this.pending.push(() => {
      value.uses--
      place.uses--
      this.store(kind, place, value, offset)
    })
  }
  /**
   * Reads, computes and writes one operand with a single translation; the write's permission is tested before anything changes. Returns
   * nothing: use the values inside.
   */
  update(operand: Operand, compute: (old: Node) => Node): void {
    if (operand.class !== 'memory') return this.write(operand, compute(this.read(operand)))
    const bytes = operand.bits / 8
    const place = this.writablePlace(this.address(operand), bytes | accessFlag.modify)
    const old = this.load(loadKinds[operand.bits], place)
    this.store(storeKinds[operand.bits], place, compute(old))
  }
  /** Writes a general register by number, at the end of the row. */
  writeRegister(index: number, value: Node): void {
    value.uses++
    this.pending.push(() => {
      value.uses--
      this.setGpr(index, value)
    })
  }

  // ---- memory ----

  /** i32 place in linear memory of `bytes` readable bytes at a linear address (i64). Leaves the row when there are none. */
  readablePlace(address: Node, sizeAndFlags: number): Node {
    return this.place(false, address, sizeAndFlags)
  }
  /** The same for writing (and reading). */
  writablePlace(address: Node, sizeAndFlags: number): Node {
    return this.place(true, address, sizeAndFlags)
  }

  /** One exclusive-or and one unsigned compare decide tag, canonicality and page crossing at once. */
  protected place(write: boolean, address: Node, sizeAndFlags: number): Node {
    const bytes = sizeAndFlags & 0xff
    const index = this.and(this.shrU(this.wrap(address), 12 - 4), (tlbDataEntries - 1) * tlbEntrySize)
    const entry = this.add(this.tlbTable(write), index)
    const inPage = this.xor(address, this.load('i64', entry))
    return this.ifValue(
      this.usually(this.leU(inPage, this.i64(4096 - bytes))),
      'i32',
      () => this.add(this.wrap(inPage), this.load('i32', entry, 8)),
      () => this.slowPlace(write, address, sizeAndFlags),
    )
  }
  /** i32 address of the first-level TLB table of the current context. */
  protected tlbTable(write: boolean): Node {
    return this.state(write ? 'tlbWrite' : 'tlbRead')
  }

  /** Reads memory at a linear address. `kind` is a load of opcodes.ts; `bytes` how many bytes it touches. */
  readMemory(address: Node, kind: LoadKind, bytes: number, flags = 0): Node {
    return this.load(kind, this.readablePlace(address, bytes | flags))
  }
  /** Writes memory at a linear address, now: do it before register and flag writes can be seen to matter (they are deferred anyway). */
  writeMemory(address: Node, kind: StoreKind, value: Node, bytes: number, flags = 0): void {
    this.store(kind, this.writablePlace(address, bytes | flags), value)
  }

  // ---- stack ----

  /** Pushes `value` (i32 or i64 by `bits`: 16, 32 or 64). RSP changes at the end of the row. One push a row. */
  push(value: Node, bits: number): void {
    const bytes = bits / 8
    const top = this.sub(this.gpr(4), bytes)
    this.writeMemory(this.wide ? top : this.stackAddress(top, bytes | accessFlag.stack), storeKinds[bits], value, bytes, accessFlag.stack)
    this.setStackPointer(top)
  }
  /** Pops a value; `extra` more bytes are released (RET imm16). RSP changes at the end of the row, before later register writes. */
  pop(bits: number, extra?: Node): Node {
    return this.popFrom(this.gpr(4), bits, extra)
  }
  /** The same where another register is the pointer to the stack's top (LEAVE). */
  popFrom(top: Node, bits: number, extra?: Node): Node {
    const bytes = bits / 8
    const value = this.readMemory(
      this.wide ? top : this.stackAddress(top, bytes | accessFlag.stack),
      loadKinds[bits],
      bytes,
      accessFlag.stack,
    )
    const next = this.add(top, bytes)
    this.setStackPointer(extra ? this.add(next, extra) : next)
    return value
  }
  /** RSP, ESP or SP, by the stack's width, at the end of the row. */
  setStackPointer(value: Node): void {
    this.writeRegister(4, this.wide ? value : this.mergeStackPointer(value))
  }
  protected mergeStackPointer(value: Node): Node {
    const wideStack = this.and(this.state('mode'), 4)
    const old = this.gpr(4)
    return this.select(wideStack, this.and(value, 0xffffffffn), this.or(this.and(old, ~0xffffn), this.and(value, 0xffffn)))
  }

  // ---- checks ----

  protected emitCheck(check: Check): void {
    switch (check) {
      case 'cpl0':
        return this.faultIf(this.state('cpl'), exception.GP, 0)
      case 'cpl0ud':
        return this.faultIf(this.state('cpl'), exception.UD)
      case 'tsc':
        return this.faultIf(this.and(this.userOfProtected(), this.controlBit(cr4.TSD)), exception.GP, 0)
      case 'pmc':
        return this.faultIf(this.and(this.userOfProtected(), this.eqz(this.controlBit(cr4.PCE))), exception.GP, 0)
      case 'umip':
        return this.faultIf(this.and(this.userOfProtected(), this.controlBit(cr4.UMIP)), exception.GP, 0)
      case 'notV86':
        return this.faultIf(this.and(this.state('eflags'), flag.VM), exception.GP, 0)
      case 'svme':
        return this.faultIf(this.eqz(this.and(this.wrap(this.state('efer')), efer.SVME)), exception.UD)
      case 'osxsave':
        return this.faultIf(this.eqz(this.controlBit(cr4.OSXSAVE)), exception.UD)
      case 'protected':
        return this.faultIf(this.and(this.state('mode'), 8), exception.UD)
      case 'fpu':
        return this.trap(0)
      case 'sse':
        return this.trap(8)
      case 'avx':
        return this.trap(24)
      case 'mmx': {
        this.trap(16)
        // ES of the x87 status with CR0.NE: an exception that waits
        const waits = this.and(this.and(this.shrU(this.state('fpStatus'), 7), this.wrap(this.shrU(this.state('cr0'), 5n))), 1)
        return this.faultIf(waits, exception.MF)
      }
    }
  }
  /** i32, 1 when CPL is not 0: only in protected mode. */
  private userOfProtected(): Node {
    return this.gtU(this.state('cpl'), 0)
  }
  /** i32, 1 when a bit of CR4 is set. */
  private controlBit(bit: number): Node {
    return this.gtU(this.and(this.wrap(this.state('cr4')), bit), 0)
  }
  private trap(shift: number): void {
    const faultVector = this.and(this.shrU(this.state('fpuTrap'), shift), 0xff)
    this.if(this.rarely(faultVector), () => this.fault(0, undefined, faultVector))
  }

  /** i32: not 0 when the running guest does not execute the instruction by itself. */
  protected intercepted(name: InterceptName): Node {
    const number = interceptNumber[name]
    return this.and(this.state('interceptMask', number >>> 5), 1 << (number & 31))
  }

  // ---- leaving the straight line ----

  /** Raises a fault; with an error code when one is given. What the row has written to memory stays, registers and flags are unchanged. */
  fault(vector: number, error?: Value, computedVector?: Node): void {
    this.setState('faultVector', computedVector ?? vector)
    this.setState('faultHasError', error === undefined ? 0 : 1)
    if (error !== undefined) this.setState('faultError', error)
    this.leaveWithFault()
  }
  faultIf(condition: Node, vector: number, error?: Value): void {
    this.if(this.rarely(condition), () => this.fault(vector, error))
  }
  undefinedOpcode(): void {
    this.fault(exception.UD)
  }

  /** Continues at `rip` (i64) after the row's writes. The last thing that a body does. */
  jump(rip: Node): void {
    rip.uses++
    this.commit()
    rip.uses--
    this.emitJump(this.wide ? rip : this.and(rip, this.operandSize === 16 ? 0xffffn : 0xffffffffn))
  }
  /** Returns to `target`, as wide as the operand size. `check` refuses what is no address: an engine may know better where it goes. */
  returnTo(target: Node, check: (target: Node) => Node): void {
    this.jump(check(target))
  }
  /** Continues at a relative target, if the condition (i32) holds. */
  jumpRelative(target: Operand, condition?: Node): void {
    if (condition) condition.uses++
    this.commit()
    if (condition) condition.uses--
    this.emitRelativeJump(target, condition)
  }
  /** RIP of a relative target, i64. */
  abstract relativeTarget(operand: Operand): Node

  /**
   * Runs a TypeScript helper with up to four arguments (i32 are zero-extended); it may fault, branch or leave. The last thing that a body
   * does.
   */
  helper(name: string, ...args: Node[]): void {
    args.forEach((value, i) => this.setState('argument', value.type === 'i64' ? value : this.extendU(value), i))
    this.commit()
    this.callHelper(name)
  }

  /** Does what `then` does when all requirements hold; else a helper does the row's work. */
  provedOr(requirements: readonly Requirement[], then: () => void, name: string, ...args: Node[]): void {
    const whole = requirements.map(({ likely, otherwise }) => (otherwise ? this.ifValue(likely(), 'i32', () => 1, otherwise) : likely()))
    this.when(whole.reduce((p, q) => this.and(p, q), this.i32(1)), then, () => this.helper(name, ...args))
  }
  /** SSE arithmetic may run natively: see state.sseNative. */
  readonly nativeFloat: Requirement = { likely: () => this.state('sseNative') }
  /** The floating-point elements (of 32 or 64 bits) of this value are known not to be denormal. */
  isPlain(_value: Node, _bits: number): boolean {
    return false
  }
  /** From here on they are. */
  markPlain(_value: Node, _bits: number): void {}

  /**
   * Does what `then` does on a condition that usually holds; else a helper does the row's work. For what generated code asks of a helper
   * again and again.
   */
  quickOr(condition: () => Node, then: () => void, name: string, ...args: Node[]): void {
    this.when(condition(), then, () => this.helperInside(name, ...args))
  }

  // ---- virtual time ----

  /** i32: virtual nanoseconds of the quantum beyond the instructions that were given out together with this one. */
  protected budgetLeft(): Node {
    return this.state('budget')
  }
  /** i32: those instructions, from this one on. */
  protected abstract givenOut(): Node
  /** Virtual time at this instruction, i64. */
  time(): Node {
    return this.sub(this.state('quantumBase'), this.extendS(this.add(this.budgetLeft(), this.givenOut())))
  }
  /** i32: the row may take so many virtual nanoseconds besides an instruction's own; a helper that takes more ends the quantum. */
  affords(nanoseconds: number): Node {
    return this.geS(this.budgetLeft(), nanoseconds)
  }
  spend(nanoseconds: number): void {
    this.setState('budget', this.sub(this.state('budget'), nanoseconds))
    this.setState('extraTime', this.add(this.state('extraTime'), nanoseconds))
  }
  /** What InterruptShadow.settle makes an instruction's number of, when the run is over. */
  markShadow(): void {
    this.setState('shadowMark', this.add(this.add(this.budgetLeft(), this.givenOut()), this.state('extraTime')))
  }
  /** Goes on with the first-level tables of another privilege, which are known (their first word is not 0). */
  takeTables(tables: 'kernelTables' | 'userTables' | 'accessTables'): void {
    this.setState('tlbRead', this.state(tables))
    this.setState('tlbWrite', this.state(tables, 1))
    this.setState('tlbFetch', this.state(tables, 2))
  }

  /** A helper inside a branch of `when`: what the body writes after it in that branch is not possible. */
  helperInside(name: string, ...args: Node[]): void {
    this.helper(name, ...args)
  }
  /** Makes a check whose outcome no row changes that stays in generated code: an engine may know that it was made on every way here. */
  once(_check: 'x87 wait', emit: () => void): void {
    emit()
  }
  /** A branch of the body with its own register and flag writes, which take effect at its end. Memory is best accessed outside. */
  when(condition: Node, then: () => void, otherwise?: () => void): void {
    const scoped = (body: () => void) => (): void => {
      const outer = this.pending
      this.pending = []
      body()
      this.commit()
      this.pending = outer
    }
    this.if(condition, scoped(then), otherwise && scoped(otherwise))
  }
  /** The type in which values of this width are held. */
  typeOf(bits: number): ValueType {
    return bits === 64 ? 'i64' : 'i32'
  }
}
