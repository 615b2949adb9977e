/** The files between the recorder and harness.c: struct Input and struct Output there, bytes here. */
import { abridgedTag, copyState, fullTag, WINDOW_SIZE } from '../../test/vectors/state.ts'
import type { Mode, State } from '../../test/vectors/state.ts'
import { COMPLETED, hasErrorCode } from '../../test/vectors/format.ts'
import type { Fault } from '../../test/vectors/format.ts'

const MAX_CODE = 24
const INPUT_SIZE = 8 + MAX_CODE + 17 * 8 + 512 + 256
const OUTPUT_SIZE = 16 + 16 + 18 * 8 + 512 + 256 + 4
const MASK_64 = (1n << 64n) - 1n

export interface Task {
  mode: Mode
  code: Uint8Array
  /** Set when the instruction itself raises this trap: it cannot be told from the INT3 after the instruction otherwise. */
  trapVector: number
  before: State
}

/** FXSAVE layout, SDM vol. 1 "FXSAVE Area". */
function writeFxsave(to: Buffer, state: State): void {
  to.writeUInt16LE(state.x87.control, 0)
  to.writeUInt16LE(state.x87.status, 2)
  to[4] = abridgedTag(state.x87.tag)
  to.writeUInt32LE(state.mxcsr, 24)
  state.x87.st.forEach((value, i) => {
    to.writeBigUInt64LE(value & MASK_64, 32 + 16 * i)
    to.writeUInt16LE(Number(value >> 64n), 40 + 16 * i)
  })
  state.xmm.forEach(({ low, high }, i) => {
    to.writeBigUInt64LE(low, 160 + 16 * i)
    to.writeBigUInt64LE(high, 168 + 16 * i)
  })
}

function readFxsave(from: Buffer, state: State): void {
  const status = from.readUInt16LE(2)
  const st = state.x87.st.map((_, i) => from.readBigUInt64LE(32 + 16 * i) | (BigInt(from.readUInt16LE(40 + 16 * i)) << 64n))
  state.x87 = { control: from.readUInt16LE(0), status, tag: fullTag(from[4], status, st), st }
  state.mxcsr = from.readUInt32LE(24)
  state.xmm = state.xmm.map((_, i) => ({ low: from.readBigUInt64LE(160 + 16 * i), high: from.readBigUInt64LE(168 + 16 * i) }))
}

export function encodeTask({ mode, code, trapVector, before }: Task, fill: Uint8Array): Buffer {
  if (code.length > MAX_CODE) throw new Error(`code of ${code.length} bytes`)
  const fixed = Buffer.alloc(INPUT_SIZE)
  const patches: Buffer[] = []
  for (let i = 0; i < WINDOW_SIZE; i++) {
    if (before.memory[i] === fill[i]) continue
    let end = i
    while (end < WINDOW_SIZE && before.memory[end] !== fill[end]) end++
    const head = Buffer.alloc(4)
    head.writeUInt16LE(i, 0)
    head.writeUInt16LE(end - i, 2)
    patches.push(head, Buffer.from(before.memory.subarray(i, end)))
    i = end
  }
  fixed[0] = mode
  fixed[1] = code.length
  fixed[2] = trapVector
  fixed.writeUInt16LE(patches.length / 2, 4)
  fixed.set(code, 8)
  before.gpr.forEach((value, i) => fixed.writeBigUInt64LE(value, 32 + 8 * i))
  fixed.writeBigUInt64LE(before.rflags, 160)
  writeFxsave(fixed.subarray(168, 680), before)
  before.ymmHigh!.forEach(({ low, high }, i) => {
    fixed.writeBigUInt64LE(low, 680 + 16 * i)
    fixed.writeBigUInt64LE(high, 688 + 16 * i)
  })
  return Buffer.concat([fixed, ...patches])
}

const RESUME_FLAG = 0x10000n

/** The outcome of `task` at `position` of the harness's output, and where the next one starts. */
export function decodeOutcome(output: Buffer, position: number, task: Task): { after: State | Fault; next: number } {
  const state = copyState(task.before)
  const at = (offset: number): number => position + offset
  const [es, cs, ss, ds, fs, gs] = Array.from({ length: 6 }, (_, i) => output.readUInt16LE(at(4 + 2 * i)))
  state.selectors = { es, cs, ss, ds, fs, gs }
  state.gpr = state.gpr.map((_, i) => output.readBigUInt64LE(at(32 + 8 * i)))
  if (task.mode === 32) state.gpr = state.gpr.map((value, i) => (i < 8 ? BigInt.asUintN(32, value) : 0n))
  state.rip = output.readBigUInt64LE(at(160))
  state.rflags = output.readBigUInt64LE(at(168)) & ~RESUME_FLAG
  readFxsave(output.subarray(at(176), at(688)), state)
  state.ymmHigh = state.ymmHigh!.map((_, i) => ({
    low: output.readBigUInt64LE(at(688 + 16 * i)),
    high: output.readBigUInt64LE(at(696 + 16 * i)),
  }))
  let next = at(OUTPUT_SIZE)
  for (let count = output.readUInt16LE(at(944)); count > 0; count--) {
    const length = output.readUInt16LE(next + 2)
    state.memory.set(output.subarray(next + 4, next + 4 + length), output.readUInt16LE(next))
    next += 4 + length
  }
  const trap = output[position]
  if (trap === COMPLETED) return { after: state, next }
  const errorCode = hasErrorCode(trap) ? Number(output.readBigUInt64LE(at(16))) : undefined
  const address = trap === 14 ? output.readBigUInt64LE(at(24)) : undefined
  return { after: { vector: trap, errorCode, address, state }, next }
}
