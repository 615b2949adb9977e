/** Hints are bytes that WebAssembly engines may ignore: these tests read them as an engine does. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FunctionBuilder } from './function.ts'
import { encodeModule } from './module.ts'

class Reader {
  at = 8
  readonly bytes: Uint8Array
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
  number(): number {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = this.bytes[this.at++]
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  take(length: number): Uint8Array {
    return this.bytes.subarray(this.at, (this.at += length))
  }
}

/** What the section says: of each function, the opcodes at the offsets, with their hints. Core Specification, "Binary Format". */
function hintsOf(module: Uint8Array, imports: number): Record<number, [string, number][]> {
  const reader = new Reader(module)
  const hints: [index: number, offset: number, value: number][] = []
  const bodies: Uint8Array[] = []
  while (reader.at < module.length) {
    const id = reader.number()
    const end = reader.number() + reader.at
    if (id === 0 && new TextDecoder().decode(reader.take(reader.number())) === 'metadata.code.branch_hint') {
      assert.equal(bodies.length, 0, 'it comes before the code')
      for (let functions = reader.number(); functions > 0; functions--) {
        const index = reader.number()
        for (let count = reader.number(); count > 0; count--) {
          const offset = reader.number()
          assert.equal(reader.number(), 1)
          hints.push([index, offset, reader.number()])
        }
      }
    } else if (id === 10) for (let count = reader.number(); count > 0; count--) bodies.push(reader.take(reader.number()))
    reader.at = end
  }
  const names: Record<number, string> = { 0x04: 'if', 0x0d: 'br_if' }
  const found: Record<number, [string, number][]> = {}
  for (const [index, offset, value] of hints) (found[index] ??= []).push([names[bodies[index - imports][offset]], value])
  return found
}

test('a hint stands at the opcode of its branch, and only there', () => {
  const build = (name: string, hinted: boolean): FunctionBuilder => {
    const f = new FunctionBuilder(name, ['i32'], 'i32')
    const x = f.variable('i64')
    f.set(x, 1n)
    const argument = f.get(f.parameter(0))
    const small = f.ltU(argument, 300)
    f.block(out => {
      f.brIf(out, hinted ? f.rarely(small) : small)
      // the same condition again: the hint was for the branch before
      f.if(small, () => f.set(x, 2n))
      const large = f.gtU(argument, 1000)
      f.if(hinted ? f.usually(large) : large, () => f.set(x, 3n), () => f.set(x, 4n))
    })
    f.return(f.wrap(f.get(x)))
    return f
  }
  const functions = [build('none', false), build('hinted', true)]
  const imports = [{ module: 'env', name: 'unused', parameters: [], result: undefined }]
  const bytes = encodeModule({ imports, functions, exports: functions.map((_, i) => ({ name: `f${i}`, functionIndex: 1 + i })) })
  assert.deepEqual(hintsOf(bytes, 1), { 2: [['br_if', 0], ['if', 1]] })
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes as Uint8Array<ArrayBuffer>), { env: { unused: () => {} } })
  const [plain, hinted] = [exports['f0'], exports['f1']] as ((x: number) => number)[]
  for (const [x, result] of [[5, 1], [300, 4], [1001, 3]]) assert.deepEqual([plain(x), hinted(x)], [result, result])
})
