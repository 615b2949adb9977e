/**
 * A CPU's turn on the machine's one clock. Its budget, in virtual nanoseconds, counts down in the state area, by one with each instruction:
 * what is left tells the time.
 */
import { word } from './state-words.ts'

export class Quantum {
  /** Virtual time at which the turn is over. */
  end = 0
  /** now = base - budget, at a border between instructions; generated code has it as state.quantumBase. */
  private base = 0
  private setBase(time: number): void {
    this.base = time
    this.words[word.quantumBase] = time % 2 ** 32
    this.words[word.quantumBase + 1] = Math.floor(time / 2 ** 32)
  }
  private start = 0
  private isOver = true
  private readonly words: Int32Array

  constructor(words: Int32Array) {
    this.words = words
  }

  begin(start: number, nanoseconds: number): void {
    this.start = start
    this.end = start + nanoseconds
    this.setBase(this.end)
    this.words[word.budget] = nanoseconds
    this.spent = 0
    this.isOver = false
  }
  /** Answers how long it was. */
  finish(): number {
    this.isOver = true
    return this.reached - this.start
  }

  /** Virtual time at the border where the run loop stands. */
  get reached(): number {
    return this.base - this.words[word.budget]
  }
  /** Virtual nanoseconds since the turn began, at an instruction that has `left` in its run; 0 between turns. */
  elapsed(left: number): number {
    return this.isOver ? 0 : this.reached - left - this.start
  }

  shorten(deadline: number): void {
    const less = this.end - deadline
    this.end = deadline
    this.setBase(this.base - less)
    this.words[word.budget] -= less
  }

  /** Virtual nanoseconds taken from the budget that are not instructions: generated code adds to it too. */
  get spent(): number {
    return this.words[word.extraTime]
  }
  set spent(nanoseconds: number) {
    this.words[word.extraTime] = nanoseconds
  }
  spend(nanoseconds: number): void {
    this.words[word.budget] -= nanoseconds
    this.words[word.extraTime] += nanoseconds
  }

  /** Puts aside all of the budget but `count`, which has been given out; answers what `takeBack` wants. */
  putAside(count: number): number {
    const rest = this.words[word.budget] - count
    this.setBase(this.base - rest)
    this.words[word.budget] = 0
    return rest
  }
  takeBack(rest: number): void {
    this.setBase(this.base + rest)
    this.words[word.budget] += rest
  }
}
