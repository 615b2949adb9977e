/**
 * A rule of VM entry: the same list is the checker, the explanation, and what tests are generated from. Intel SDM vol. 3, chapter
 * "VM Entries".
 */
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'

export interface Rule {
  /** The rule in words. */
  readonly text: string
  readonly section: string
  /** The fields that it is about, the one to change first. Those of the control words need not be named. */
  readonly fields: readonly FieldName[]
  /** Whether it applies; absent: always. */
  readonly when?: (view: EntryView) => boolean
  readonly holds: (view: EntryView) => boolean
  /** Looks at memory or at what changes by itself: checked at every entry. */
  readonly always?: boolean
  /** Exit qualification of the failure, for rules on guest state. */
  readonly qualification?: number
  /** A value of the first field that would satisfy it. */
  readonly wants?: (view: EntryView) => bigint
  /** Writes that break it in a VMCS that is otherwise right: for tests. Only values in the model's reach. */
  readonly breaks?: readonly (readonly [FieldName, bigint | ((old: bigint) => bigint)])[]
}

type Options = Pick<Rule, 'when' | 'always' | 'qualification' | 'wants' | 'breaks'>

/** Rules of one section. */
export function section(title: string): (text: string, fields: FieldName | readonly FieldName[], holds: Rule['holds'],
  options?: Options) => Rule {
  return (text, fields, holds, options = {}) => ({
    text, section: title, fields: typeof fields === 'string' ? [fields] : fields, holds, ...options,
  })
}

/** A rule that is broken, for people. */
export interface BrokenRule {
  readonly rule: Rule
  readonly values: readonly { readonly name: FieldName; readonly value: bigint; readonly writer: bigint | undefined }[]
  readonly wants: bigint | undefined
}
