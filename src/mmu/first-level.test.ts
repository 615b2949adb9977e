/**
 * A property of the two levels: whatever software does, the first level never answers otherwise than the authoritative TLB and its checks
 * would.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tlbDataEntries, tlbEntrySize } from '../memory/map.ts'
import {
  invlpg,
  attempt, CR0, CR4, firstLevelHit, G, map, MiB, P, PS, root, setControl, setCpl, setPaging, startTables, testMachine, U, W,
  type TestMachine,
} from './testing.ts'

/** Numerical Recipes' linear congruential generator: the same sequence on every run. */
function generator(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const linears = [0n, 0x1000n, 0x2000n, 0x40_0000n, 0x40_1000n, 0x5f_f000n, 0x100_0000n, 0x100_1000n, 0x140_0000n]
  .concat([-0x1000n, -0x20_0000n, 0x4000_0000n])
/** Mapped by one page of 2 MiB. */
const inLarge = [0x40_0000n, 0x40_1000n, 0x5f_f000n]

function entryAt(machine: TestMachine, linear: bigint, choose: (below: number) => number): void {
  const flags = P | (choose(4) ? W : 0n) | (choose(3) ? U : 0n) | (choose(3) ? 0n : G)
  const large = (choose(2) ? 0x40_0000n : 0x60_0000n) | flags | PS
  if (inLarge.includes(linear)) map(machine, inLarge[0], large, { leafLevel: 2 })
  else map(machine, linear, choose(5) ? BigInt(0x20_0000 + choose(4) * 0x1000) | flags : 0n)
}

function place(machine: TestMachine, what: 'read' | 'write', linear: bigint): number {
  const table = what === 'read' ? machine.state.tlbRead : machine.state.tlbWrite
  return machine.physical.words[(table + Number((linear >> 12n) & BigInt(tlbDataEntries - 1)) * tlbEntrySize + 8) >> 2] >>> 0
}

function step(machine: TestMachine, choose: (below: number) => number, tops: readonly number[]): void {
  const linear = linears[choose(linears.length)]
  const { state, control, physical, mmu } = machine
  switch (choose(16)) {
    case 0: return entryAt(machine, linear, choose)
    case 1: return invlpg(control, linear)
    case 2: return setCpl(machine, choose(2) * 3, choose(2) === 1)
    case 3: return setControl(machine, { cr0: state.cr0 ^ CR0.WP })
    case 4: return setControl(machine, { cr4: state.cr4 ^ (choose(2) ? CR4.SMAP : choose(4) ? CR4.SMEP : CR4.PGE) })
    case 5: case 6:
      state.cr3 = BigInt(tops[choose(2)] | choose(3))
      return control.cr3Written(choose(3) > 0)
    case 7: return control.invpcid(choose(4), choose(3), linear)
    case 8: {
      const page = physical.pagePlace(0x20_0000 + choose(4) * 0x1000, 0)
      return choose(2) ? physical.pageHoldsCode(page) : physical.pageIsClean(page)
    }
    case 9: return mmu.switchCpu(choose(2))
    default: return compare(machine, choose(2) ? 'read' : 'write', linear)
  }
}

function compare(machine: TestMachine, what: 'read' | 'write', linear: bigint): void {
  const hit = firstLevelHit(machine, what, linear) ? place(machine, what, linear) : undefined
  const result = attempt(machine, what, linear, 1)
  if (hit !== undefined) assert.deepEqual({ place: hit }, result, `${what} ${linear.toString(16)}`)
}

for (const seed of [1, 2, 3])
  test(`the first level agrees with the TLB over random operations, seed ${seed}`, () => {
    const machine = testMachine({ cpus: 2, ram: [{ base: 0, size: 16 * MiB }] })
    machine.physical.code = { tableFor: () => 0x1000000, written: () => {}, isBeside: () => false, forget: () => {} }
    const choose = generator(seed)
    const tops = [root, 0x180000]
    setPaging(machine, 'level4', { cr4: CR4.PCIDE | CR4.PGE })
    for (const top of tops) {
      startTables(top)
      for (const linear of linears) if (!inLarge.includes(linear)) map(machine, linear, 0x20_0000n | P | W | U, { top })
      map(machine, 0x40_0000n, 0x40_0000n | P | W | U | PS, { top, leafLevel: 2 })
    }
    for (let count = 0; count < 40_000; count++) step(machine, choose, tops)
  })
