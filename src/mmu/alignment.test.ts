/** Alignment checks. Expected values: Intel SDM vol. 3, "Interrupt 17-Alignment Check Exception (#AC)". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, vector } from '../cpu/fault.ts'
import {
  attempt, CR0, firstLevelHit, map, P, setCpl, setControl, setPaging, startTables, testMachine, U, W, type TestMachine,
} from './testing.ts'

const AM = 1n << 18n
const supervisor = 1 << 9

function machineWith(cpl: number, ac: boolean, am: boolean, kind: 'level4' | 'none' = 'level4'): TestMachine {
  const machine = testMachine()
  startTables()
  setPaging(machine, kind, { cr0: CR0.WP | (am ? AM : 0n) })
  if (kind === 'level4') for (const page of [0x3000n, 0x4000n]) map(machine, page, page | P | W | U)
  setCpl(machine, cpl, ac)
  return machine
}
const vectorOf = (machine: TestMachine, what: 'read' | 'write', linear: bigint, sizeAndFlags: number): number | 'none' => {
  machine.state.stepping = 1
  const result = attempt(machine, what, linear, sizeAndFlags)
  machine.mmu.dropPendingStores()
  return typeof result === 'object' && 'vector' in result ? result.vector : 'none'
}

test('a misaligned access faults at CPL 3 with CR0.AM and EFLAGS.AC alone', () => {
  for (const kind of ['level4', 'none'] as const)
    for (const cpl of [0, 3]) for (const ac of [false, true]) for (const am of [false, true]) {
    const machine = machineWith(cpl, ac, am, kind)
    const checked = cpl === 3 && ac && am
    for (const what of ['read', 'write'] as const) for (const size of [1, 2, 4, 8]) for (let offset = 0; offset < 8; offset++)
      assert.equal(
        vectorOf(machine, what, 0x3100n + BigInt(offset), size), checked && offset % size ? vector.AC : 'none',
        `${size} bytes at ${offset}`,
      )
  }
})

test('16 bytes are checked on AMD processors', () => {
  for (const checksVectorAlignment of [false, true]) {
    const machine = testMachine({ model: { checksVectorAlignment } })
    startTables()
    setPaging(machine, 'level4', { cr0: AM })
    map(machine, 0x3000n, 0x3000n | P | W | U)
    setCpl(machine, 3, true)
    assert.equal(vectorOf(machine, 'read', 0x3008n, 16), checksVectorAlignment ? vector.AC : 'none')
    assert.equal(vectorOf(machine, 'read', 0x3010n, 16), 'none')
  }
})

test('an aligned access does not open the way for a misaligned one, and what was cached before does not either', () => {
  const machine = machineWith(3, false, true)
  attempt(machine, 'read', 0x3100n, 4)
  assert.ok(firstLevelHit(machine, 'read', 0x3100n, 4))
  setCpl(machine, 3, true)
  assert.ok(!firstLevelHit(machine, 'read', 0x3100n, 4))
  attempt(machine, 'read', 0x3100n, 4)
  assert.ok(!firstLevelHit(machine, 'read', 0x3100n, 4))
  setControl(machine, { cr0: machine.state.cr0 & ~AM })
  assert.ok(firstLevelHit(machine, 'read', 0x3100n, 4))
})

test('a page fault comes first, an access across pages is checked, implicit supervisor accesses are not', () => {
  const machine = machineWith(3, true, true)
  assert.equal(vectorOf(machine, 'read', 0x5001n, 4), vector.PF)
  assert.equal(vectorOf(machine, 'write', 0x3ffen, 4), vector.AC)
  assert.equal(vectorOf(machine, 'read', 0x3101n, 4 | supervisor), 'none')
})

test("helpers' accesses are checked, and get no place for many bytes", () => {
  const { linear } = machineWith(3, true, true)
  const alignmentCheck = (error: unknown): boolean => error instanceof Fault && error.vector === vector.AC && error.error === 0
  assert.throws(() => linear.read32(0x3102n), alignmentCheck)
  assert.throws(() => linear.write64(0x3ffcn, 1n), alignmentCheck)
  assert.equal(linear.placeForRead(0x3100n), 0)
  linear.write32(0x3104n, 0x12345678)
  assert.equal(linear.read32(0x3104n), 0x12345678)
  assert.equal(linear.read16(0x3105n, 'supervisor'), 0x3456)
})
