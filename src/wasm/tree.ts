/** The tree of a function under construction: values and statements. What becomes of them is said in function.ts. */
import type { ValueType } from './encode.ts'

export interface Node {
  /** A node is the statement that defines it. */
  readonly kind: 'define'
  position?: number
  readonly type: ValueType
  /** How it is emitted: an opcode with operands and immediates, a constant, or a local. */
  readonly op: number
  readonly args: readonly Node[]
  /** Constants: the value (i64 as bigint). Loads: [alignment, offset]. Others: immediate bytes. */
  readonly imm: number | bigint | Uint8Array | undefined
  /** A read of mutable state: evaluated where it was created. */
  readonly fixed: boolean
  uses: number
  local: number
  /** Of the branch that it will be the condition of. */
  hint?: Hint
  /** Emitted anew at each use instead of being kept in a local. */
  inline?: boolean
  /** Where in the order of emission it is created and last used, and in which loop it is created; -1: it is used in another. */
  created?: number
  lastUse?: number
  inLoop?: number
}

/** A mutable local of the function. */
export interface Variable {
  readonly type: ValueType
  readonly index: number
}

/**
 * A condition that is nearly always 0, or 1: what hangs on the other value is moved out of the way, and values are kept in registers as if
 * it were never executed.
 */
export type Hint = 0 | 1

/** Where `br` goes: a block (forwards) or a loop (backwards). */
export interface Label {
  readonly depthAtOpen: number
}

export type Statement = Node | ({ position?: number } & (
  | { kind: 'effect'; op: number; args: Node[]; imm?: Uint8Array; memory?: number }
  | { kind: 'set'; variable: Variable; value: Node }
  | { kind: 'if'; condition: Node; hint: Hint | undefined; then: Statement[]; otherwise: Statement[] | undefined }
  | { kind: 'block'; body: Statement[]; label: Label; loop: boolean }
  | { kind: 'branch'; label: Label; condition: Node | undefined; hint: Hint | undefined }
  | { kind: 'table'; index: Node; labels: Label[]; fallback: Label }
  | { kind: 'return'; value: Node | undefined }
  | { kind: 'list'; body: Statement[] }
))

/** Of nodes that are no operation of WebAssembly. */
export const CONSTANT = -1
export const LOCAL = -2
export const CALL = 0x10
export const CALL_INDIRECT = 0x11
export const GLOBAL = 0x23

export const noArguments: readonly Node[] = []
/** All nodes have the same fields in the same order: there are many, and this keeps the engine's inline caches simple. */
export const newNode = (type: ValueType, op: number, args: readonly Node[], imm: Node['imm'], fixed: boolean): Node => ({
  kind: 'define', position: 0, type, op, args, imm, fixed, uses: 0, local: -1, hint: undefined, inline: false, created: undefined,
  lastUse: 0, inLoop: 0,
})
