/**
 * What a world switch copies, as generated code: lists of words become one WebAssembly function each, in which a word costs a load and a
 * store. Follows no manual: the lists are the vendors'.
 */
import { FunctionBuilder, type Node } from '../wasm/function.ts'
import { encodeModule } from '../wasm/module.ts'

/** A word from a place in linear memory to another, in words; the structure's side counts from the start of the structure. */
export type Move = readonly [from: number, to: number]
/** Which side is in the structure whose address the function is given. */
export type Side = 'from' | 'to' | 'neither'
export type Emit = (f: FunctionBuilder, structure: Node) => void

/** `words` words from here to there. */
export const moves = (from: number, to: number, words = 1): Move[] => Array.from({ length: words }, (_, i) => [from + i, to + i] as const)

/** Two words that lie together on both sides move as one. */
export const emitMoves = (list: readonly Move[], side: Side): Emit => (f, structure) => {
  const address = (where: 'from' | 'to'): Node | number => (side === where ? structure : 0)
  for (let i = 0; i < list.length; i++) {
    const [from, to] = list[i]
    const wide = i + 1 < list.length && list[i + 1][0] === from + 1 && list[i + 1][1] === to + 1
    const kind = wide ? 'i64' : 'i32'
    f.store(kind, address('to'), f.load(kind, address('from'), from * 4), to * 4)
    if (wide) i++
  }
}
export const both = (...parts: readonly Emit[]): Emit => (f, structure) => {
  for (const part of parts) part(f, structure)
}

/** The functions by name: they take the linear address of the structure. */
export function generate<Name extends string>(memory: WebAssembly.Memory, bodies: Readonly<Record<Name, Emit>>):
  Readonly<Record<Name, (structure: number) => void>> {
  const names = Object.keys(bodies) as Name[]
  const functions = names.map(name => {
    const f = new FunctionBuilder(name, ['i32'])
    bodies[name](f, f.get(f.parameter(0)))
    return f
  })
  const pages = memory.buffer.byteLength / 65536
  const bytes = encodeModule({ imports: [], memory: { minimum: pages, maximum: pages }, functions,
    exports: names.map((name, functionIndex) => ({ name, functionIndex })) })
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } })
  return exports as unknown as Record<Name, (structure: number) => void>
}
