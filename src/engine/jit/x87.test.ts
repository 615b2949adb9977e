/** Loops of x87 instructions in compiled code: what they compute, what the FPU notes of them, and that no helper is called for them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { segment } from '../../cpu/layout.ts'
import { initialFpuControl, resetState } from '../../cpu/reset.ts'
import { bareCpu } from '../testing.ts'

const code = 0x8000
const data = 0x9000
const fsBase = 0x40
/** FLD m64; FMUL m64; FLDCW; FSTP m64 by FS, lower each time; DEC ECX; JNZ; HLT. The registers are 32 or 64 bits wide. */
const loop = [0xdd, 0x06, 0xdc, 0x4e, 8, 0xd9, 0x6e, 0x18, 0x64, 0xdd, 0x5c, 0xce, 0x10, 0xff, 0xc9, 0x75, 0xef, 0xf4]
const last = 8
/** Where that is in the last turn, in FS. */
const stored = data + 0x18
const turns = 5000n

for (const mode of [64, 32])
  test(`${mode}-bit x87 code without helpers`, () => {
    const { core, cpu } = bareCpu('intel', { jit: true, hotThreshold: 64 })
    core.jit!.compileEagerly()
    const { state, physical } = core
    resetState(state, cpu.model, true)
    initialFpuControl(state)
    const put = (address: number, words: ArrayBufferView<ArrayBuffer>): void => void physical.write(address, new Uint8Array(words.buffer))
    const quad = (address: number, value: bigint): void => put(address, BigUint64Array.of(value))
    const double = (address: number, value: number): void => put(address, Float64Array.of(value))
    quad(0x1000, 0x2003n)
    quad(0x2000, 0x83n)
    Object.assign(state, { cr0: 0x80000033n, cr4: 0x6a0n, cr3: 0x1000n, efer: mode === 64 ? 0x500n : 0n, cpl: 0, rip: BigInt(code) })
    if (mode === 32) state.cr0 &= ~0x80000000n
    state.segAttributes.fill(0xc093)
    state.segAttributes[segment.cs] = mode === 64 ? 0xa09b : 0xc09b
    state.segLimit.fill(0xffffffff)
    state.segBase.fill(0n)
    state.segBase[segment.fs] = BigInt(fsBase)
    state.segSelector.set([0x10, 8, 0x10, 0x10, 0x33])
    state.gpr[1] = turns
    state.gpr[6] = BigInt(data)
    double(data, 1 / 3)
    double(data + 8, 3)
    quad(data + 0x18, 0x27fn) // 53 bits
    physical.write(code, Uint8Array.from(loop))
    cpu.stateChanged()
    let calls = 0
    const original = cpu.callHelper
    Object.assign(cpu, { callHelper: (number: number, record: number) => (calls++, original(number, record)) })
    for (let stop = 'time'; stop === 'time';) {
      stop = cpu.execute(cpu.reached, 1000)
      core.jit!.compile()
    }
    assert.equal(state.gpr[1], 0n)
    assert.ok(core.jit!.statistics.regions > 0, 'nothing was compiled')
    assert.equal(calls, 1, 'HLT alone is a helper')
    const result = new Uint8Array(8)
    physical.peek(stored + fsBase, result)
    assert.equal(new Float64Array(result.buffer)[0], 1)
    const { fpIp, fpCs, fpDp, fpDs, fpControl, fpTags, fpTop } = state
    assert.deepEqual({ fpIp, fpCs, fpDp, fpDs, fpControl, fpTags, fpTop },
      { fpIp: BigInt(code + last), fpCs: 8, fpDp: BigInt(stored), fpDs: 0x33, fpControl: 0x27f, fpTags: 0, fpTop: 0 })
  })
