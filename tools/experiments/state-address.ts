/**
 * How generated code should reach the state of the CPU it runs for: a constant address (state copied in and out per quantum), or a
 * parameter to which offsets are added. An interpreter-like loop reads two registers named by records, adds them, writes one; ns per
 * operation, best of several rounds.
 *   npx node tools/experiments/state-address.ts
 */
import { FunctionBuilder, type Node } from '../../src/wasm/function.ts'
import { encodeModule } from '../../src/wasm/module.ts'

const operations = 30_000_000
const recordsBase = 0x20000
const recordCount = 64
const stateBase = 0x8000

type Kind = 'constant' | 'sum of parameter and offset'

/** Records hold absolute register addresses (constant), or offsets that a base is added to. */
function build(kind: Kind): FunctionBuilder {
  const f = new FunctionBuilder(kind, ['i32'], 'i32')
  const base = f.parameter(0)
  const record = f.variable('i32')
  const left = f.variable('i32')
  f.set(left, operations)
  f.set(record, recordsBase)
  const place = (field: number): Node => {
    const value = f.load('i32_16u', f.get(record), field)
    return kind === 'constant' ? value : f.add(f.get(base), value)
  }
  f.loop(again => {
    const destination = place(0)
    const sum = f.add(f.load('i64', destination), f.load('i64', place(2)))
    f.store('i64', destination, sum)
    // flags at a fixed field of the state
    if (kind === 'constant') f.store('i64', 0, sum, stateBase + 512)
    else f.store('i64', f.get(base), sum, 512)
    f.set(record, f.add(f.i32(recordsBase), f.and(f.add(f.sub(f.get(record), recordsBase), 8), recordCount * 8 - 1)))
    f.set(left, f.sub(f.get(left), 1))
    f.brIf(again, f.get(left))
  })
  f.return(0)
  return f
}

const memory = new WebAssembly.Memory({ initial: 16, maximum: 16 })
const view = new DataView(memory.buffer)
function run(kind: Kind): () => number {
  const bytes = encodeModule({
    imports: [],
    memory: { minimum: 16, maximum: 16 },
    functions: [build(kind)],
    exports: [{ name: 'run', functionIndex: 0 }],
  })
  const exported = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports.run as (base: number) => number
  return () => {
    const origin = kind === 'constant' ? stateBase : 0
    for (let i = 0; i < recordCount; i++) {
      view.setUint16(recordsBase + i * 8, origin + ((i * 5) % 16) * 8, true)
      view.setUint16(recordsBase + i * 8 + 2, origin + ((i * 3) % 16) * 8, true)
    }
    const start = performance.now()
    exported(stateBase)
    return ((performance.now() - start) * 1e6) / operations
  }
}

const kinds: Kind[] = ['constant', 'sum of parameter and offset']
const runs = kinds.map(run)
const best = kinds.map(() => Infinity)
for (let round = 0; round < 8; round++) runs.forEach((measure, i) => (best[i] = Math.min(best[i], measure())))
kinds.forEach((kind, i) => console.log(`${kind}: ${best[i].toFixed(2)} ns an operation`))
const copy = new Uint8Array(memory.buffer)
const start = performance.now()
for (let i = 0; i < 1e6; i++) copy.copyWithin(0x10000, stateBase, stateBase + 4416)
console.log(`copying one CPU's state: ${((performance.now() - start) / 1e3).toFixed(3)} µs`)
