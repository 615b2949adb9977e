/**
 * SSE arithmetic of the embedder against that of src/float, which is held to silicon: results and flags of numbers that are tiny, huge,
 * denormal, infinite or none. With PE set in MXCSR the embedder's operations may be used, with PE clear they never are.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resetState } from '../../src/cpu/reset.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import { Random } from './random.ts'

const code = 0x8000
const input = 0x20000
const output = 0x30000
const turns = 24
const quiet = 0x1f80
const precision = 0x20

const operations = { ADD: 0x58, MUL: 0x59, SUB: 0x5c, MIN: 0x5d, DIV: 0x5e, MAX: 0x5f, SQRT: 0x51 }
const shapes = { PS: [], PD: [0x66], SS: [0xf3], SD: [0xf2] }

/** LDMXCSR; in a loop MOVUPS of both operands, the operation, MOVUPS of the result, DEC ECX, JNZ; STMXCSR; HLT. */
const program = (prefix: readonly number[], opcode: number): number[] => {
  const body = [0x0f, 0x10, 0x06, 0x0f, 0x10, 0x4e, 0x10, ...prefix, 0x0f, opcode, 0xc1, 0x0f, 0x11, 0x07, 0xff, 0xc9]
  return [0x0f, 0xae, 0x57, 0x20, ...body, 0x75, 256 - body.length - 2, 0x0f, 0xae, 0x5f, 0x10, 0xf4]
}

const doubles = [
  0n, 1n, 0x000fffffffffffffn, 0x0010000000000000n, 0x0010000000000001n, 0x001fffffffffffffn, 0x0020000000000000n, 0x0020000000000001n,
  0x3ca0000000000000n, 0x3ff0000000000000n, 0x3ff5555555555555n, 0x4008000000000000n, 0x5fefffffffffffffn, 0x7fe0000000000000n,
  0x7fefffffffffffffn, 0x7ff0000000000000n, 0x7ff0000000000001n, 0x7ff8000000000000n, 0x1ff0000000000000n, 0x2000000000000001n,
]
const singles = [
  0, 1, 0x7fffff, 0x800000, 0x800001, 0xffffff, 0x1000000, 0x1000001, 0x33800000, 0x3f800000, 0x3faaaaab, 0x40400000, 0x5f7fffff,
  0x7f000000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x1f800000, 0x20000001,
]
/** Sixteen bytes of such numbers, the same one twice at times. */
function operand(random: Random, bits: 32 | 64): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  const usual = random.chance(2)
  for (let i = 0; i < 16; i += bits / 8) {
    const at = usual && !random.chance(4) ? 8 + random.below(5) : random.below(doubles.length)
    const sign = random.chance(2)
    if (bits === 64) view.setBigUint64(i, doubles[at] | (sign ? 1n << 63n : 0n), true)
    else view.setUint32(i, (singles[at] | (sign ? 1 << 31 : 0)) >>> 0, true)
  }
  return bytes
}

interface Bench {
  /** The result, and MXCSR after the last turn. */
  run(code: readonly number[], operands: readonly Uint8Array[], mxcsr: number): Buffer
  regions(): number
}

function machine(jit: boolean): Bench {
  const { core, cpu } = bareCpu('intel', jit ? { jit: true, hotThreshold: 8 } : {})
  core.jit?.compileEagerly()
  const { state, physical } = core
  const put = (address: number, bytes: ArrayLike<number>): void => void physical.write(address, Uint8Array.from(bytes))
  let before = ''
  return {
    regions: () => core.jit?.statistics.regions ?? 0,
    run(program, operands, mxcsr) {
      resetState(state, cpu.model, true)
      Object.assign(state, { cr0: 0x80000033n, cr4: 0x6a0n, cr3: 0x1000n, efer: 0x500n, cpl: 0, rip: BigInt(code), activity: 0 })
      state.segAttributes.fill(0xc093)
      state.segAttributes[1] = 0xa09b
      state.gpr[1] = BigInt(turns)
      state.gpr[6] = BigInt(input)
      state.gpr[7] = BigInt(output)
      cpu.stateChanged()
      if (before !== String(program)) {
        put(0x1000, [3, 0x20])
        put(0x2000, [0x83])
        put(code, program)
        before = String(program)
      }
      operands.forEach((bytes, i) => put(input + 16 * i, bytes))
      put(output + 32, [mxcsr & 255, mxcsr >> 8, 0, 0])
      for (let stop = 'time'; stop === 'time';) {
        stop = cpu.execute(cpu.reached, 60)
        core.jit?.compile()
      }
      const result = new Uint8Array(20)
      physical.peek(output, result)
      return Buffer.from(result)
    },
  }
}

const cases = 250
for (const jit of [false, true])
  test(`SSE arithmetic with and without the embedder's operations, ${jit ? 'compiled' : 'interpreted'}`, () => {
    const random = new Random(jit ? 5 : 6)
    const [native, held] = [machine(jit), machine(false)]
    for (const [shape, prefix] of Object.entries(shapes))
      for (const [operation, opcode] of Object.entries(operations))
        for (let n = 0; n < cases; n++) {
          const bits = shape.endsWith('D') ? 64 : 32
          const operands = [operand(random, bits), operand(random, bits)]
          const bytes = program(prefix, opcode)
          const found = native.run(bytes, operands, quiet | precision)
          const expected = held.run(bytes, operands, quiet)
          expected[16] |= precision
          const says = `${operation}${shape} of ${operands.map(bytes => Buffer.from(bytes).toString('hex')).join(' and ')}`
          assert.equal(found.toString('hex'), expected.toString('hex'), says)
        }
    if (jit) assert.ok(native.regions() >= Object.keys(shapes).length * Object.keys(operations).length, 'nothing was compiled')
  })
