/** String instructions in a region, and other work that nearly always needs no helper: what is left is the helper's, inside the region. */
import { segment } from '../../cpu/layout.ts'
import type { Label, Node } from '../../wasm/function.ts'
import { isMoveOrStore } from '../string-semantics.ts'
import { RegionSemantics } from './semantics.ts'

export class RegionStrings extends RegionSemantics {
  override helper(name: string, ...args: Node[]): void {
    const { prefixes, segment: number } = this.instruction
    const flat = ((prefixes >> 2) & 3) === (this.wide ? 2 : 1) && number < segment.fs && (this.wide || number !== segment.cs)
    const repeat = (prefixes >> 4) & 3
    const inLine = isMoveOrStore(name) || name === 'scas' || name === 'cmps' || (name === 'lods' && repeat === 0)
    if (!inLine || !flat) return super.helper(name, ...args)
    const size = Number(this.constantOf(args[0]))
    this.flushPieces()
    this.block(done => {
      this.block(slow => {
        this.deeper(() => {
          if (isMoveOrStore(name)) this.stringInPage(name, size, repeat !== 0, slow)
          else if (name === 'lods') this.loadInPage(size, slow)
          else this.compareInPage(name, size, repeat, slow)
        })
        this.br(done)
      })
      super.helper(name, ...args)
    })
  }

  override quickOr(condition: () => Node, then: () => void, name: string, ...args: Node[]): void {
    if (!this.callsInside(name) || this.branchDepth > 0) return super.quickOr(condition, then, name, ...args)
    this.flushPieces()
    this.block(done => {
      this.block(slow => {
        this.deeper(() => {
          this.brIf(slow, this.rarely(this.eqz(condition())))
          then()
          this.commit()
        })
        this.br(done)
      })
      super.helper(name, ...args)
    })
  }
  protected override pointer(register: number): Node {
    return this.wide ? this.gpr(register) : this.and(this.gpr(register), 0xffffffffn)
  }
  protected override setPointer(register: number, value: Node): void {
    this.setGpr(register, this.wide ? value : this.and(value, 0xffffffffn))
  }

  protected override takeTime(nanoseconds: () => Node, slow: Label): void {
    const time = nanoseconds()
    const left = this.sub(this.get(this.budget), time)
    this.brIf(slow, this.rarely(this.or(this.ltS(left, 0), this.ltS(this.sub(this.add(left, this.remaining), this.ofRecord('left')), 0))))
    this.set(this.budget, left)
    this.setState('extraTime', this.add(this.state('extraTime'), time))
  }
}
