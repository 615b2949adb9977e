/** Calls and returns remember where they led the last time; what they remember may be wrong at any time, and must not be believed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../machine.ts'

const origin = 0x10_0000
const callee = 0x3000
const turns = 200

/** 64-bit code: a function in another page is called from two places, changed, left by other returns, and returned to without a call. */
function image(): Uint8Array {
  const bytes = new Uint8Array(0x4000).fill(0xf4)
  const view = new DataView(bytes.buffer)
  let at = 0
  const put = (...code: number[]): void => {
    bytes.set(code, at)
    at += code.length
  }
  const call = (target: number): void => {
    put(0xe8, 0, 0, 0, 0)
    view.setInt32(at - 4, target - at, true)
  }
  put(0xbc, 0, 0, 0x20, 0) // mov esp, 200000h
  put(0xbb, turns, 0, 0, 0) // mov ebx, turns
  const loop = at
  call(callee)
  call(callee)
  put(0x83, 0xc5, 0x01) // add ebp, 1
  call(callee + 0x100)
  // the immediate of the callee's ADD becomes BL: its decoded instruction is stale
  put(0x88, 0x1c, 0x25, 0, 0, 0, 0) // mov [callee + 2], bl
  view.setUint32(at - 4, origin + callee + 2, true)
  // a return that no CALL has announced, where one was before
  put(0x68, 0, 0, 0, 0, 0xc3) // push after; ret
  view.setUint32(at - 5, origin + at + 1, true)
  put(0x90)
  put(0x83, 0xeb, 0x01, 0x0f, 0x85, 0, 0, 0, 0) // sub ebx, 1; jnz loop
  view.setInt32(at - 4, loop - at, true)
  put(0xf4)
  at = callee
  put(0x83, 0xc0, 0x05, 0xc3) // add eax, 5; ret
  at = callee + 0x100
  put(0xf6, 0xc3, 0x03, 0x74, 0x01, 0xc3) // test bl, 3; jz; ret
  put(0x59, 0xff, 0xe1) // pop rcx; jmp rcx
  return bytes
}

function ended(pieces: number, engine: 'interpreter' | 'jit'): { retired: number; turns: bigint; hash: string } {
  const machine = new VitrineMachine({ raw: { image: image(), at: origin, mode: 'long64' }, memory: 4 << 20, engine })
  for (let i = 0; i < turns * 40; i++) if (machine.run({ maxInstructions: pieces }).kind !== 'budget') break
  return { retired: machine.retired, turns: machine.registers().gpr[5], hash: machine.stateHash() }
}

test('a call or return that leads elsewhere than the last time goes there', () => {
  const stepped = ended(1, 'interpreter')
  assert.equal(stepped.turns, BigInt(turns))
  assert.deepEqual(ended(100_000, 'interpreter'), stepped)
  assert.deepEqual(ended(100_000, 'jit'), stepped)
})
