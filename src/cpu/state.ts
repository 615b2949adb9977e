/** Typed access from TypeScript to the state of the running CPU, derived from layout.ts. */
import { at, fieldBytes, fields, type FieldName } from './layout.ts'

/** Fields with several elements: typed arrays, all others are scalars. `vector` is 8 words a register, `fpr` two. */
export type ArrayField = 'gpr' | 'segBase' | 'segLimit' | 'segSelector' | 'segAttributes' | 'pdpte' | 'dr' | 'fpr' | 'vector' | 'msrMisc'
  | 'argument' | 'bounce' | 'interceptMask' | 'vmxPause' | 'pmcControl' | 'pmcValue' | 'pmcMark' | 'lastBranch' | 'lastBranches'
  | 'msrPlSsp'

type ValueOf<Name extends FieldName> = (typeof fields)[Name]['type'] extends 'u32'
  ? Name extends ArrayField ? Uint32Array : number
  : Name extends ArrayField ? BigUint64Array : bigint

/** One property a field: a number (u32, unsigned), a bigint (i64, unsigned) or a typed array of them. `gpr[4]` is RSP. */
export type CpuState = { [Name in FieldName]: ValueOf<Name> } & MemoryViews

/** All of linear memory, for hot paths: `words[at.rip >> 2]` is the low half of RIP, and makes no BigInt. */
export interface MemoryViews {
  readonly words: Uint32Array
  readonly bytes: Uint8Array
}

const arrayFields: ReadonlySet<string> = new Set<ArrayField>([
  'gpr', 'segBase', 'segLimit', 'segSelector', 'segAttributes', 'pdpte', 'dr', 'fpr', 'vector', 'msrMisc', 'argument', 'bounce',
  'interceptMask', 'vmxPause', 'pmcControl', 'pmcValue', 'pmcMark', 'lastBranch', 'lastBranches', 'msrPlSsp',
])

/** The state of the running CPU of the machine whose linear memory this is. The memory never grows, so views stay valid. */
export function createCpuState(memory: WebAssembly.Memory): CpuState {
  const state = {}
  Object.defineProperty(state, 'words', { value: new Uint32Array(memory.buffer) })
  Object.defineProperty(state, 'bytes', { value: new Uint8Array(memory.buffer) })
  for (const name of Object.keys(fields) as FieldName[]) {
    const wide = fields[name].type !== 'u32'
    const words = fieldBytes(name) / (wide ? 8 : 4)
    const view = wide ? new BigUint64Array(memory.buffer, at[name], words) : new Uint32Array(memory.buffer, at[name], words)
    if (arrayFields.has(name)) Object.defineProperty(state, name, { value: view, enumerable: true })
    else
      Object.defineProperty(state, name, {
        enumerable: true,
        get: () => view[0],
        set: (value: number & bigint) => {
          view[0] = value
        },
      })
  }
  return state as CpuState
}
