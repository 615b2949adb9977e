/**
 * String instructions in generated code: what lies within a page, forwards, is done in line; the rest is the helper's
 * (src/helpers/string.ts), which takes the same virtual time. Intel SDM vol. 2, "REP/REPE/REPZ/REPNE/REPNZ—Repeat String Operation Prefix".
 */
import { flag } from '../cpu/rflags.ts'
import { bytesPerNanosecond, shortestTimed } from '../helpers/string-time.ts'
import { Semantics } from '../isa/builder.ts'
import { subFlags } from '../isa/flags.ts'
import { tlbDataEntries, tlbEntrySize } from '../memory/map.ts'
import type { Label, Node, Variable } from '../wasm/function.ts'
import type { LoadKind, StoreKind } from '../wasm/opcodes.ts'

const rax = 0
const rcx = 1
const rsi = 6
const rdi = 7
const pageBytes = 4096
/** Up to so many bytes a loop over elements beats a call of memory.copy or memory.fill. */
const shortBytes = 64

const loads: Record<number, LoadKind> = { 1: 'i32_8u', 2: 'i32_16u', 4: 'i32', 8: 'i64' }
const stores: Record<number, StoreKind> = { 1: 'i32_8', 2: 'i32_16', 4: 'i32', 8: 'i64' }

/** Of a record's prefixes. */
const whileEqual = 1

export const isMoveOrStore = (name: string): name is 'movs' | 'stos' => name === 'movs' || name === 'stos'

export abstract class StringSemantics extends Semantics {
  /** i32 address of the first-level table. */
  protected abstract firstLevelTable(write: boolean): Node
  /** Takes so much virtual time besides that of instructions; to `slow` when it is more than what is left: the helper ends the quantum. */
  protected abstract takeTime(nanoseconds: () => Node, slow: Label): void

  /** RCX, RSI or RDI as far as the address size goes. */
  protected pointer(register: number): Node {
    return this.gpr(register)
  }
  protected setPointer(register: number, value: Node): void {
    this.setGpr(register, value)
  }

  /**
   * The whole instruction in 64-bit code with 64-bit addresses, or in flat 32-bit code with 32-bit ones, and neither FS nor GS; to `slow`
   * before anything has changed.
   */
  protected stringInPage(name: 'movs' | 'stos', size: number, repeats: boolean, slow: Label): void {
    this.brIf(slow, this.rarely(this.and(this.state('eflags'), flag.DF)))
    if (repeats) this.brIf(slow, this.rarely(this.gtU(this.sub(this.pointer(rcx), 1n), BigInt(pageBytes / size - 1))))
    const bytes = this.variable('i32')
    this.set(bytes, repeats ? this.mul(this.wrap(this.pointer(rcx)), size) : size)
    const from = name === 'movs' ? this.placeOf(this.pointer(rsi), false, bytes, slow) : undefined
    const to = this.placeOf(this.pointer(rdi), true, bytes, slow)
    if (repeats) this.takeTime(() => this.timeOf(bytes), slow)
    if (!repeats) this.element(size, to, from)
    else if (from) this.move(size, to, from, bytes)
    else this.fill(size, to, bytes)
    const advance = this.extendU(this.get(bytes))
    if (from) this.setPointer(rsi, this.add(this.pointer(rsi), advance))
    this.setPointer(rdi, this.add(this.pointer(rdi), advance))
    if (repeats) this.setGpr(rcx, this.i64(0))
  }

  /** LODS without a prefix: the same. */
  protected loadInPage(size: number, slow: Label): void {
    this.brIf(slow, this.rarely(this.and(this.state('eflags'), flag.DF)))
    const place = this.placeOf(this.pointer(rsi), false, this.sizeOf(size), slow)
    const value = this.load(loads[size], this.get(place))
    const old = this.gpr(rax)
    const mask = (1n << BigInt(8 * size)) - 1n
    this.setGpr(rax, size === 8 ? value : size === 4 ? this.extendU(value) : this.or(this.and(old, ~mask), this.extendU(value)))
    this.setPointer(rsi, this.add(this.pointer(rsi), BigInt(size)))
  }

  /**
   * SCAS and CMPS: the same. `repeat`: that of the prefixes. What is not decided within the page, or by the count there, is left to the
   * helper from the start.
   */
  protected compareInPage(name: 'scas' | 'cmps', size: number, repeat: number, slow: Label): void {
    this.brIf(slow, this.rarely(this.and(this.state('eflags'), flag.DF)))
    const bits = 8 * size
    const bytes = this.sizeOf(size)
    const from = name === 'cmps' ? this.placeOf(this.pointer(rsi), false, bytes, slow) : undefined
    const to = this.placeOf(this.pointer(rdi), false, bytes, slow)
    const left = this.variable(this.typeOf(bits))
    const right = this.variable(this.typeOf(bits))
    const done = this.variable('i32')
    this.set(done, 0)
    if (!from) this.set(left, size === 8 ? this.gpr(rax) : this.unsigned(this.wrap(this.gpr(rax)), bits))
    const compare = (): void => {
      if (from) this.set(left, this.load(loads[size], this.add(this.get(from), this.get(done))))
      this.set(right, this.load(loads[size], this.add(this.get(to), this.get(done))))
      this.set(done, this.add(this.get(done), size))
    }
    const elements = (): Node => this.shrU(this.extendU(this.get(done)), BigInt(Math.log2(size)))
    if (repeat === 0) compare()
    else {
      const end = this.endInPage(size, from ? [from, to] : [to], slow)
      this.block(ended => {
        this.loop(again => {
          compare()
          const equal = this.eq(this.get(left), this.get(right))
          this.brIf(ended, repeat === whileEqual ? this.eqz(equal) : equal)
          this.brIf(again, this.ltU(this.get(done), this.get(end)))
        })
        this.brIf(slow, this.rarely(this.ne(elements(), this.pointer(rcx))))
      })
      this.takeTime(() => this.timeOf(done), slow)
    }
    subFlags(this, bits, this.get(left), this.get(right), this.sub(this.get(left), this.get(right)))
    this.commit()
    const advance = this.extendU(this.get(done))
    if (from) this.setPointer(rsi, this.add(this.pointer(rsi), advance))
    this.setPointer(rdi, this.add(this.pointer(rdi), advance))
    if (repeat !== 0) this.setPointer(rcx, this.sub(this.pointer(rcx), elements()))
  }
  /** Bytes of the elements that RCX counts, as far as they lie in the pages of these places; to `slow` when it counts none. */
  private endInPage(size: number, places: readonly Variable[], slow: Label): Variable {
    const end = this.variable('i32')
    const room = (place: Variable): Node => this.and(this.sub(pageBytes, this.and(this.get(place), pageBytes - 1)), -size)
    this.set(end, room(places[0]))
    for (const other of places.slice(1)) this.set(end, this.select(this.ltU(room(other), this.get(end)), room(other), this.get(end)))
    this.brIf(slow, this.rarely(this.eqz(this.ne(this.pointer(rcx), 0n))))
    const counted = this.leU(this.pointer(rcx), BigInt(pageBytes))
    const all = this.mul(this.wrap(this.pointer(rcx)), size)
    this.set(end, this.select(this.and(counted, this.ltU(all, this.get(end))), all, this.get(end)))
    return end
  }
  private sizeOf(size: number): Variable {
    const bytes = this.variable('i32')
    this.set(bytes, size)
    return bytes
  }

  /** The first-level entry of an address, if it holds all bytes. */
  private placeOf(address: Node, write: boolean, bytes: Variable, slow: Label): Variable {
    const index = this.and(this.shrU(this.wrap(address), 12 - 4), (tlbDataEntries - 1) * tlbEntrySize)
    const entry = this.add(this.firstLevelTable(write), index)
    const inPage = this.xor(address, this.load('i64', entry))
    this.brIf(slow, this.rarely(this.gtU(inPage, this.extendU(this.sub(this.i32(pageBytes), this.get(bytes))))))
    const place = this.variable('i32')
    this.set(place, this.add(this.wrap(inPage), this.load('i32', entry, 8)))
    return place
  }

  private element(size: number, to: Variable, from: Variable | undefined): void {
    const value = from ? this.load(loads[size], this.get(from)) : size === 8 ? this.gpr(rax) : this.wrap(this.gpr(rax))
    this.store(stores[size], this.get(to), value)
  }

  private elements(size: number, to: Variable, from: Variable | undefined, bytes: Variable): void {
    const end = this.variable('i32')
    this.set(end, this.add(this.get(to), this.get(bytes)))
    this.loop(again => {
      this.element(size, to, from)
      if (from) this.set(from, this.add(this.get(from), size))
      this.set(to, this.add(this.get(to), size))
      this.brIf(again, this.ltU(this.get(to), this.get(end)))
    })
  }

  /** A destination on the way of the source repeats a pattern: element by element. */
  private move(size: number, to: Variable, from: Variable, bytes: Variable): void {
    const overlaps = this.ltU(this.sub(this.get(to), this.get(from)), this.get(bytes))
    const short = this.or(this.leU(this.get(bytes), shortBytes), overlaps)
    this.if(
      short,
      () => this.elements(size, to, from, bytes),
      () => this.memoryCopy(this.get(to), this.get(from), this.get(bytes)),
    )
  }

  private fill(size: number, to: Variable, bytes: Variable): void {
    const value = this.gpr(rax)
    const low = this.and(this.wrap(value), 0xff)
    const bits = size === 8 ? value : this.and(value, (1n << BigInt(size * 8)) - 1n)
    const repeated = this.mul(this.extendU(low), 0x0101010101010101n >> BigInt(64 - 8 * size))
    const mixed = size === 1 ? this.i32(0) : this.ne(bits, repeated)
    this.if(
      this.or(this.leU(this.get(bytes), shortBytes), mixed),
      () => this.elements(size, to, undefined, bytes),
      () => this.memoryFill(this.get(to), low, this.get(bytes)),
    )
  }

  private timeOf(bytes: Variable): Node {
    const charged = this.shrU(this.add(this.get(bytes), bytesPerNanosecond - 1), Math.log2(bytesPerNanosecond))
    return this.select(this.gtU(this.get(bytes), shortestTimed), charged, 0)
  }
}
