/**
 * The interpreter's main function: a `br_table` over hot handlers, which are inline, and how it gets from one record to the next. What a
 * handler is: handler-code.ts.
 */
import { at } from '../cpu/layout.ts'
import { mode } from '../cpu/mode.ts'
import { recordField, recordSize } from '../decode/record.ts'
import { hotCounterCount, hotCounters, noHint, tlbEntrySize, tlbFetchEntries } from '../memory/map.ts'
import type { Label, Node, Variable } from '../wasm/function.ts'
import { addressSizeBits, importIndex, pseudo, RecordSemantics, type HandlerSpec } from './handler-code.ts'
import { leave } from './leave.ts'
import { addressUse } from './segment-address.ts'

/** The main function: dispatches records until something leaves. */
export class MainFunction extends RecordSemantics {
  private readonly writers: string[] = []

  /** Returns the keys of the handlers that write memory. */
  build(hot: HandlerSpec[], handlerType: number): string[] {
    const status = this.variable('i32')
    const target = this.variable('i32')
    const rip = this.variable('i64')
    const link = this.variable('i32')
    const hint = this.variable('i32')
    const home = this.variable('i32')
    this.set(this.record, this.get(this.parameter(0)))
    this.block(exit => {
      this.loop(dispatch => {
        this.block(arrive => {
          this.block(near => {
            this.main = { exit, near, arrive, status, target, rip, link, hint, home }
            this.cases(hot, handlerType, dispatch)
          })
          this.enterNear(exit, dispatch, target, status)
        })
        this.enterByRip(exit, dispatch, rip, status, link)
      })
    })
    this.store('i32', 0, this.get(this.record), at.leaveRecord)
    this.return(this.get(status))
    return this.writers
  }

  private cases(hot: HandlerSpec[], handlerType: number, dispatch: Label): void {
    const labels: Label[] = []
    const count = pseudo.count + hot.length
    const open = (index: number): void => {
      if (index < 0) {
        // the fallback, innermost: a handler in the table
        this.block(cold => this.brTable(this.field('i32_16u', recordField.handler), labels, cold))
        const handler = this.sub(this.field('i32_16u', recordField.handler), count)
        const result = this.callIndirect(handlerType, [this.get(this.record)], handler, 'i32')
        this.if(result, () => this.exitOrJump(result))
        return this.next(dispatch)
      }
      this.block(label => {
        labels[index] = label
        open(index - 1)
      })
      if (index < pseudo.count) this.pseudoCase(index, dispatch)
      else {
        this.emitRow(hot[index - pseudo.count])
        if (this.writes) this.writers.push(hot[index - pseudo.count].key)
        this.next(dispatch)
      }
    }
    open(count - 1)
  }
  private next(dispatch: Label): void {
    this.set(this.record, this.add(this.get(this.record), recordSize))
    this.br(dispatch)
  }
  private pseudoCase(index: number, dispatch: Label): void {
    const main = this.main!
    switch (index) {
      case pseudo.stop:
        return this.exitWith(leave.stop)
      case pseudo.resume:
        // the run goes on elsewhere: at its target record, or at an offset from the page
        this.set(main.target, this.field('i32', recordField.displacement))
        this.brIf(main.near, this.usually(this.get(main.target)))
        this.set(main.rip, this.relativeTarget())
        this.expect(this.i32(noHint))
        return this.br(main.arrive)
      case pseudo.segmentAddress: {
        this.legacyAddress(dispatch)
        const refused = this.call(importIndex.segmentAddress, [this.get(this.record)], ['i32'], 'i32')
        this.if(this.rarely(refused), () => this.exitWith(leave.abort))
        return this.next(dispatch)
      }
      case pseudo.crossing: {
        // the instruction goes on in the next page: it must still be the page that was decoded
        const linear = this.and(this.add(this.add(this.state('codePage'), this.state('codeBase')), 4096), this.state('addressMask'))
        const { offset, table } = this.fetchEntry(linear)
        const same = this.and(this.leU(offset, 4095n), this.eq(table, this.field('i32', recordField.displacement)))
        this.if(this.rarely(this.eqz(same)), () => this.exitWith(leave.crossing))
        return this.next(dispatch)
      }
      default:
        this.setState('faultVector', this.field('i32_16u', recordField.slotA))
        this.setState('faultHasError', this.field('i32_16u', recordField.slotB))
        this.setState('faultError', 0)
        return this.leaveWithFault()
    }
  }

  /**
   * Outside 64-bit mode: an address in a writable data segment, within its limit, is computed here; all else is left to
   * SegmentAddressing, which knows every rule.
   */
  private legacyAddress(dispatch: Label): void {
    const offset = this.variable('i32')
    const use = this.field('i32_16u', recordField.slotA)
    this.if(this.ne(this.and(this.state('mode'), mode.codeMask), mode.code64), () => {
      const index = this.load('i32', this.field('i32_16u', recordField.index))
      const scaled = this.shl(index, this.field('i32_8u', recordField.scale))
      const sum = this.add(this.load('i32', this.field('i32_16u', recordField.base)), scaled)
      const wide = this.ne(this.and(this.field('i32_8u', recordField.prefixes), addressSizeBits), 0)
      const mask = this.or(this.sub(this.i32(0), wide), 0xffff)
      this.set(offset, this.and(this.add(sum, this.field('i32', recordField.immediate)), mask))
      this.if(this.and(use, addressUse.addressOnly), () => {
        this.setState('segmentAddress', this.extendU(this.get(offset)))
        this.next(dispatch)
      })
      const number = this.shrU(this.field('i32_8u', recordField.length), 4)
      this.if(this.inDataSegment(number, offset, this.and(use, addressUse.size)), () => {
        const base = this.load('i32', this.shl(number, 3), at.segBase)
        this.setState('segmentAddress', this.extendU(this.add(this.get(offset), base)))
        this.next(dispatch)
      })
    })
  }

  private left(record: Variable): Node {
    return this.load('i32_8u', this.get(record), recordField.left)
  }

  /** A branch was taken to a record of the same page: give back what the rest of the old run had reserved, take what the new one needs. */
  private enterNear(exit: Label, dispatch: Label, target: Variable, status: Variable): void {
    const credited = this.sub(this.add(this.state('budget'), this.left(this.record)), 1)
    const budget = this.sub(credited, this.left(target))
    this.if(this.rarely(this.ltS(budget, 0)), () => {
      this.setState('budget', credited)
      this.setState('rip', this.add(this.state('codePage'), this.extendU(this.load('i32_16u', this.get(target), recordField.offset))))
      this.set(status, leave.budget)
      this.br(exit)
    })
    this.countArrival(this.get(target), () => {
      this.setState('budget', credited)
      this.setState('rip', this.add(this.state('codePage'), this.extendU(this.load('i32_16u', this.get(target), recordField.offset))))
      this.set(status, leave.hot)
      this.br(exit)
    })
    this.setState('budget', budget)
    this.set(this.record, this.get(target))
    this.br(dispatch)
  }

  /** Counts arrivals at a record, which may share its counter with others; every so many of them, leaves to have it compiled. */
  private countArrival(record: Node, hot: () => void): void {
    if (this.hotThreshold === 0) return
    const counter = this.and(this.shrU(record, 3), (hotCounterCount - 1) * 4) // record / recordSize words
    const count = this.add(this.load('i32', counter, hotCounters), 1)
    this.store('i32', counter, count, hotCounters)
    this.if(this.rarely(this.eqz(this.and(count, this.hotThreshold - 1))), hot)
  }
  /** The first-level fetch entry of a linear address: its page's code table is good when `offset` (i64) is below 4096. */
  private fetchEntry(linear: Node): { offset: Node; table: Node } {
    const index = this.and(this.wrap(this.shrU(linear, 12 - 4)), (tlbFetchEntries - 1) * tlbEntrySize)
    const entry = this.add(this.state('tlbFetch'), index)
    return { offset: this.xor(linear, this.load('i64', entry)), table: this.load('i32', entry, 8) }
  }

  /** Finds the record of `rip`: fetch translation, then the code table of the physical page. */
  private enterByRip(exit: Label, dispatch: Label, rip: Variable, status: Variable, link: Variable): void {
    const credited = this.sub(this.add(this.state('budget'), this.left(this.record)), 1)
    this.setState('budget', credited)
    const linear = this.and(this.add(this.get(rip), this.state('codeBase')), this.state('addressMask'))
    const { offset, table } = this.fetchEntry(linear)
    this.if(this.usually(this.leU(offset, 4095n)), () => {
      const found = this.load('i32', this.add(table, this.shl(this.wrap(offset), 2)))
      this.if(this.usually(found), () => {
        const budget = this.sub(credited, this.load('i32_8u', found, recordField.left))
        this.if(this.usually(this.geS(budget, 0)), () => {
          const page = this.sub(this.get(rip), offset)
          // a relative branch within its page remembers the record, until the page's code is dropped
          this.if(this.rarely(this.and(this.get(link), this.eq(page, this.state('codePage')))), () =>
            this.store('i32', this.get(this.record), found, recordField.displacement),
          )
          this.set(link, 0)
          this.countArrival(found, () => {
            this.setState('rip', this.get(rip))
            this.set(status, leave.hot)
            this.br(exit)
          })
          this.setState('codePage', page)
          this.setState('budget', budget)
          // The record that was expected is at hand early, and a branch that is foreseen says that it is right: what comes next need not
          // wait for the tables.
          const { hint, home } = this.main!
          this.if(this.eq(found, this.get(hint)), () => {
            this.set(this.record, this.get(hint))
            this.br(dispatch)
          })
          this.store('i32', this.get(home), found)
          this.set(this.record, found)
          this.br(dispatch)
        })
        this.setState('rip', this.get(rip))
        this.set(status, leave.budget)
        this.br(exit)
      })
    })
    this.setState('rip', this.get(rip))
    this.set(status, leave.lookup)
    this.br(exit)
  }
}
