/**
 * How long values live: a read of a variable needs no copy when the variable stays as it is until the read's last use, and the local of a
 * value is free for another one after its last use.
 */
import { LOCAL, type Node, type Statement } from './tree.ts'

/** Values that nobody uses use nothing either. */
export function dropUnused(list: readonly Statement[]): void {
  for (let i = list.length - 1; i >= 0; i--) {
    const statement = list[i]
    if (statement.kind === 'define') {
      if (statement.uses === 0) for (const arg of statement.args) arg.uses--
    } else if (statement.kind === 'if') {
      if (statement.otherwise) dropUnused(statement.otherwise)
      dropUnused(statement.then)
    } else if (statement.kind === 'block' || statement.kind === 'list') dropUnused(statement.body)
  }
}

/** Notes in each value where it is created and last used. */
export class Lifetimes {
  private position = 0
  private loopNumber = 0
  private readonly reads: Node[] = []
  private readonly assignments = new Map<number, number[]>()

  find(root: readonly Statement[]): void {
    this.orderList(root, 0)
    for (const read of this.reads) {
      if (read.inLoop! < 0) continue
      const created = read.created!
      const written = this.assignments.get(read.imm as number)?.some(position => position > created && position < read.lastUse!)
      if (!written) read.local = read.imm as number
    }
  }
  private orderList(list: readonly Statement[], loop: number): void {
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
}
