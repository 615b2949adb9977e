/**
 * What recordings of single instructions leave open: pointers, environments in each format, and how exceptions are told
 * (SDM vol. 1, "Programming with the x87 FPU").
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { initialFpuControl, resetState } from '../cpu/reset.ts'
import { bareCpu } from '../engine/testing.ts'

type Mode = 64 | 32 | 'real'

const code = 0x8000
const data = 0x9000
const codeSegment: Record<Mode, number> = { 64: 0xa09b, 32: 0xc09b, real: 0x9b }

/** A CPU in one of three modes, code at 0x8000, data at 0x9000, DS base 0; no exception is delivered, only named. */
function machine(mode: Mode, model = 'intel') {
  const logged: string[] = []
  const log = (_who: string, text: string): void => { logged.push(text) }
  const { core, cpu } = bareCpu(model, { log })
  const { state, physical } = core
  resetState(state, cpu.model, true)
  initialFpuControl(state)
  const quad = (address: number, value: bigint): void => {
    physical.write(address, new Uint8Array(BigUint64Array.of(value).buffer))
  }
  quad(0x1000, 0x2003n)
  quad(0x2000, 0x83n)
  const cr0 = { 64: 0x80000033n, 32: 0x33n, real: 0x32n }[mode]
  Object.assign(state, { cr0, cr4: mode === 64 ? 0x6a0n : 0x600n, cr3: 0x1000n, efer: mode === 64 ? 0x500n : 0n })
  Object.assign(state, { cpl: 0, rip: BigInt(code) })
  for (let i = 0; i < 6; i++) {
    state.segAttributes[i] = i === 1 ? codeSegment[mode] : mode === 'real' ? 0x93 : 0xc093
    state.segSelector[i] = mode === 'real' ? 0 : i === 1 ? 8 : 16
    state.segLimit[i] = mode === 'real' ? 0xffff : 0xffffffff
    state.segBase[i] = 0n
  }
  state.gpr[6] = BigInt(data)
  let raised: number | undefined
  cpu.onEvent = event => {
    raised = event.vector
    cpu.stopRequested = true
    return false
  }
  /** Runs `bytes` as one instruction; the vector that it raised. */
  const step = (...bytes: number[]): number | undefined => {
    physical.write(Number(state.rip), Uint8Array.from(bytes))
    cpu.stateChanged()
    cpu.stopRequested = false
    raised = undefined
    cpu.stepOne()
    return raised
  }
  const words = (count: number, bytes: 2 | 4): number[] => {
    const out = new Uint8Array(count * bytes)
    physical.peek(data, out)
    const view = new DataView(out.buffer)
    return Array.from({ length: count }, (_, i) => (bytes === 2 ? view.getUint16(2 * i, true) : view.getUint32(4 * i, true)))
  }
  return { state, step, words, quad, logged }
}

/** In 16-bit code 32-bit addresses and [RSI] need a prefix. */
const atRsi = (mode: Mode, ...bytes: number[]): number[] => (mode === 'real' ? [0x67, ...bytes] : bytes)

test('an exception that waits is raised by the next waiting instruction, and by no other', () => {
  const { state, step } = machine(64)
  state.fpControl = 0x37b
  assert.equal(step(0xd9, 0xe8), undefined, 'FLD1')
  assert.equal(step(0xd9, 0xee), undefined, 'FLDZ')
  assert.equal(step(0xde, 0xf9), undefined, 'FDIVP reports, and raises nothing')
  assert.equal(state.fpStatus & 0x80bf, 0x8084)
  assert.equal(step(0xdf, 0xe0), undefined, 'FNSTSW AX does not wait')
  assert.equal(state.gpr[0] & 0xffffn, BigInt(0x8084 | (6 << 11)))
  assert.equal(step(0x9b), 16, 'FWAIT')
  assert.equal(step(0xdd, 0x86, 0, 0, 0, 0x7f), 16, 'FLD, before its operand faults')
  assert.equal(step(0xdb, 0xe2), undefined, 'FNCLEX')
  assert.equal(step(0x9b), undefined, 'FWAIT')
})

test('without CR0.NE nothing is raised, and the log says so', () => {
  const { state, step, logged } = machine(64)
  state.cr0 &= ~0x20n
  Object.assign(state, { fpControl: 0x37b, fpStatus: 0x8084 })
  assert.equal(step(0x9b), undefined)
  assert.equal(logged.length, 1)
})

test('#NM: by TS or EM for x87 instructions, by MP with TS for FWAIT', () => {
  const { state, step } = machine(64)
  const [MP, EM, TS] = [2n, 4n, 8n]
  const expected: [bigint, number | undefined, number | undefined][] = [
    [0n, undefined, undefined], [EM, 7, undefined], [TS, 7, undefined],
    [MP, undefined, undefined], [MP | TS, 7, 7], [MP | EM, 7, undefined],
  ]
  for (const [bits, x87, wait] of expected) {
    state.cr0 = (state.cr0 & ~0xen) | bits
    assert.equal(step(0xd9, 0xd0), x87, `FNOP with CR0 bits ${bits}`)
    assert.equal(step(0x9b), wait, `FWAIT with CR0 bits ${bits}`)
  }
})

test('instruction and data pointers follow FLD; FNSTENV stores them and masks all exceptions', () => {
  const { state, step, words, quad } = machine(64)
  state.fpControl = 0x340
  quad(data + 0x100, 0x3ff0_0000_0000_0000n)
  step(0xdd, 0x86, 0, 1, 0, 0)
  assert.equal(state.fpTags, 0x80)
  assert.equal(step(0xd9, 0x36), undefined, 'FNSTENV [RSI]')
  const [control, status, tags, ip, , dp] = words(7, 4)
  assert.deepEqual([control, status, tags], [0xffff0340, 0xffff3800, 0xffff3fff])
  assert.deepEqual([ip, dp], [code, data + 0x100])
  assert.equal(state.fpControl, 0x37f)
})

test('the last opcode is that of an unmasked exception', () => {
  const { state, step } = machine(64)
  state.fpControl = 0x37e
  step(0xd9, 0xe8)
  assert.equal(state.fpOpcode, 0)
  step(0x40, 0xd8, 0xc3)
  assert.equal(state.fpStatus & 0x80ff, 0x80c1, 'ST(3) is empty')
  assert.equal(state.fpOpcode, 0x0c3)
})

test('environments of protected mode: 32-bit and 16-bit fields', () => {
  const pointers = { fpIp: 0x12345678n, fpCs: 0x1b, fpDp: 0x9abcdef0n, fpDs: 0x23, fpOpcode: 0x5c3 }
  const long = machine(32)
  Object.assign(long.state, pointers)
  long.step(0xd9, 0x36)
  assert.deepEqual(long.words(7, 4).slice(3), [0x12345678, 0x05c3001b, 0x9abcdef0, 0xffff0023])
  const short = machine(32)
  Object.assign(short.state, pointers)
  short.step(0x66, 0xd9, 0x36)
  assert.deepEqual(short.words(7, 2), [0x37f, 0, 0xffff, 0x5678, 0x1b, 0xdef0, 0x23])
})

test('environments of real-address mode hold linear addresses and the opcode', () => {
  const pointers = { fpIp: 0x5678n, fpCs: 0x3000, fpDp: 0xdef0n, fpDs: 0x4000, fpOpcode: 0x5c3 }
  const short = machine('real')
  Object.assign(short.state, pointers)
  short.step(...atRsi('real', 0xd9, 0x36))
  assert.deepEqual(short.words(7, 2).slice(3), [0x5678, 0x35c3, 0xdef0, 0x4000])
  const long = machine('real')
  Object.assign(long.state, pointers)
  long.step(0x66, ...atRsi('real', 0xd9, 0x36))
  assert.deepEqual(long.words(7, 4).slice(3), [0xffff5678, 0x35c3, 0xffffdef0, 0x4000])
})

test('FNSAVE and FRSTOR bring back every register in each format', () => {
  for (const mode of [64, 32, 'real'] as const)
    for (const prefix of [[], [0x66]]) {
      const { state, step } = machine(mode)
      for (let i = 0; i < 16; i += 2) {
        state.fpr[i] = 0x8000_0000_0000_0000n + BigInt(i)
        state.fpr[i + 1] = BigInt(0x4000 + i)
      }
      Object.assign(state, { fpControl: 0x27f, fpStatus: 0x4700, fpTop: 3, fpTags: 0x5b })
      const before = [state.fpr.join(), state.fpControl, state.fpStatus, state.fpTop, state.fpTags]
      assert.equal(step(...prefix, ...atRsi(mode, 0xdd, 0x36)), undefined)
      assert.deepEqual([state.fpControl, state.fpStatus, state.fpTop, state.fpTags], [0x37f, 0, 0, 0], 'FNSAVE initializes')
      state.fpr.fill(0n)
      assert.equal(step(...prefix, ...atRsi(mode, 0xdd, 0x26)), undefined)
      assert.deepEqual([state.fpr.join(), state.fpControl, state.fpStatus, state.fpTop, state.fpTags], before, `mode ${mode}`)
    }
})

test('FCOMI with an unmasked invalid operation: Intel keeps ZF, PF and CF, and clears OF', () => {
  const { state, step } = machine(64)
  state.fpControl = 0x37e
  state.flagZero = 0n // ZF
  state.flagAux = 1n << 63n // OF, with CF = 0
  assert.equal(step(0xdb, 0xf1), undefined)
  assert.equal(state.fpStatus & 0x80ff, 0x80c1)
  assert.equal(state.flagZero, 0n)
  assert.equal(state.flagCarry, 0)
  assert.equal(state.flagAux >> 63n, 0n)
})

test('an unmasked SSE exception is #XM, or #UD without CR4.OSXMMEXCPT; its flag is set and the register stays', () => {
  for (const [cr4, vector] of [[0x6a0n, 19], [0x2a0n, 6]] as const) {
    const { state, step } = machine(64)
    Object.assign(state, { cr4, mxcsr: 0x1d80 })
    state.vector[0] = 0x3ff0_0000_0000_0000n
    state.vector[8] = 0n
    assert.equal(step(0xf2, 0x0f, 0x5e, 0xc1), vector, 'DIVSD by zero')
    assert.equal(state.mxcsr, 0x1d84)
    assert.equal(state.vector[0], 0x3ff0_0000_0000_0000n)
  }
})
