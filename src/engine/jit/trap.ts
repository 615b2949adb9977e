/** The handler of a record that begins a region which is at hand: it stops there, so that the region is put in its place. */
import { at } from '../../cpu/layout.ts'
import { recordField } from '../../decode/record.ts'
import { FunctionBuilder } from '../../wasm/function.ts'
import { encodeModule } from '../../wasm/module.ts'
import { leave } from '../leave.ts'

/** (record) → `leave.hot`, with RIP and budget as before the record. */
export function trapFunction(memory: WebAssembly.Memory): unknown {
  const pages = memory.buffer.byteLength / 65536
  const f = new FunctionBuilder('trap', ['i32'], 'i32')
  const record = f.parameter(0)
  f.store('i32', 0, f.add(f.load('i32', 0, at.budget), f.load('i32_8u', f.get(record), recordField.left)), at.budget)
  const offset = f.extendU(f.load('i32_16u', f.get(record), recordField.offset))
  f.store('i64', 0, f.add(f.load('i64', 0, at.codePage), offset), at.rip)
  f.return(leave.hot)
  const bytes = encodeModule({
    imports: [],
    memory: { minimum: pages, maximum: pages },
    functions: [f],
    exports: [{ name: 'trap', functionIndex: 0 }],
  })
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports.trap
}
