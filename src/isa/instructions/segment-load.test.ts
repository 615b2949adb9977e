/** MOV Sreg, POP Sreg and IRET in flat 32-bit kernel code, descriptors by chance: generated code and the helpers alone leave the same. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flatLevels } from '../../cpu/derive.ts'
import { resetState } from '../../cpu/reset.ts'
import { bareCpu, firstEvent } from '../../engine/testing.ts'

const gdt = 0x1000
const stack = 0x2f00
const code = 0x4000
const selectors = [0, 3, 8, 0x10, 0x13, 0x14, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x38]
const [MOV, IRET] = [0x8e, 0xcf]
/** MOV DS, ES, FS, GS from EAX; POP DS, ES, FS, GS; IRET. */
const programs = [[MOV, 0xd8], [MOV, 0xc0], [MOV, 0xe0], [MOV, 0xe8], [0x1f], [0x07], [0x0f, 0xa1], [0x0f, 0xa9], [IRET], [IRET], [IRET]]
const usual = [0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn, 0x0040931234560fffn]

/** Numbers below `below`, the same in each run. */
function numbers(seed: number): (below: number) => number {
  let x = seed | 1
  return below => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    return Math.floor((x / 2 ** 32) * below)
  }
}

function make(quick: boolean): (seed: number) => { what: string; helpers: number; result: unknown } {
  const { core, cpu } = bareCpu('intel', { memory: 8 << 20 })
  const { state, physical } = core
  const words = (address: number, list: ArrayBufferView<ArrayBuffer>): void => void physical.write(address, new Uint8Array(list.buffer))
  if (!quick) {
    const derive = cpu.stateChanged.bind(cpu)
    Object.assign(cpu, { stateChanged: () => {
      derive()
      state.systemCalls &= ~flatLevels
    } })
  }
  let helpers = 0
  const original = cpu.callHelper
  Object.assign(cpu, { callHelper: (number: number, record: number) => (helpers++, original(number, record)) })
  return seed => {
    const next = numbers(seed * 7919)
    const program = programs[next(programs.length)]
    resetState(state, cpu.model, true)
    Object.assign(state, { cr0: 0x80000011n, cr3: 0x6000n, cr4: 0x10n, cpl: 0, gdtrBase: BigInt(gdt), activity: 0 })
    state.gdtrLimit = next(10) ? 0x2f : 0x17 + next(20)
    state.segLimit.fill(0xffffffff)
    state.segBase.fill(0n)
    state.segAttributes.fill(0xc093)
    state.segAttributes[1] = 0xc09b
    for (const segment of [0, 3, 4, 5]) if (next(3)) state.segAttributes[segment] = 0xc0f3
    const descriptors = usual.map(each => (next(6) ? each : each ^ (1n << BigInt(next(4) ? 40 + next(16) : next(64)))))
    words(gdt, BigUint64Array.of(0n, ...descriptors))
    words(0x6000, Uint32Array.of(0x87))
    words(code, Uint8Array.of(...program, 0xf4))
    const pick = (...usually: number[]): number => (next(3) ? usually[next(usually.length)] : selectors[next(selectors.length)])
    const isReturn = program[0] === IRET
    const outer = next(2) === 1
    const flags = next(4) ? 0x202 : next(2) ? next(0x400000) & ~0x20000 : 0x20202
    words(stack, isReturn
      ? Uint32Array.of(code + 0x100, outer ? pick(0x1b) : pick(8), flags, 0x3000, pick(0x23, 0x23, 0x23, 0x20))
      : Uint32Array.of(pick(0x10, 0x23, 0x28, 0)))
    words(code + 0x100, Uint8Array.of(0xf4))
    Object.assign(state, { rip: BigInt(code) })
    state.gpr[0] = BigInt(pick(0x10, 0x23, 0x28, 0))
    state.gpr[4] = BigInt(stack)
    core.mmu.flushAll()
    // the tables of both levels become known
    for (const cpl of [3, 0]) {
      state.cpl = cpl
      cpu.stateChanged()
    }
    helpers = 0
    cpu.stopRequested = false
    const before = cpu.retired
    const event = firstEvent(cpu, cpu.reached, 100)
    const { cpl, rip, eflags, mode, activity } = state
    const result = [event?.vector, event?.error, cpl, rip, eflags, mode, activity, cpu.retired - before, ...state.gpr, ...state.segSelector,
      ...state.segBase, ...state.segLimit, ...state.segAttributes, state.flagZero, state.flagSign, state.flagAux, state.flagCarry]
    return { what: program.join(' '), helpers, result }
  }
}

test('3,000 loads and returns by chance', () => {
  const [quick, slow] = [make(true), make(false)]
  const saved = { moves: 0, returns: 0 }
  for (let seed = 1; seed <= 3000; seed++) {
    const [found, expected] = [quick(seed), slow(seed)]
    assert.deepEqual(found.result, expected.result, `seed ${seed}: ${found.what}`)
    if (found.helpers < expected.helpers) saved[found.what.startsWith(String(IRET)) ? 'returns' : 'moves']++
  }
  assert.ok(saved.moves > 500 && saved.returns > 150, JSON.stringify(saved))
})
