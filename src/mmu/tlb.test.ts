/** What the TLB keeps and what it must drop. Expected values: Intel SDM vol. 3, "Caching Translation Information". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  invlpg,
  CR0, CR4, D, EFER, firstLevelHit, G, map, MiB, NX, outcome, P, PS, read64, root, setControl, setCpl, setPaging, startTables,
  testMachine, U, W, write64, type TestMachine,
} from './testing.ts'
import { Tlb } from './tlb.ts'

function level4(extra: Parameters<typeof setPaging>[2] = {}, options: Parameters<typeof testMachine>[0] = {}): TestMachine {
  const machine = testMachine(options)
  startTables()
  setPaging(machine, 'level4', extra)
  return machine
}

const page = 0x40_0000n

test('a changed translation is used until INVLPG', () => {
  const machine = level4()
  const leaf = map(machine, page, 0x5000n | P | W | U)[3]
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, leaf, 0x6000n | P | W | U)
  assert.equal(outcome(machine, 'read', page), 0x5000, 'stale')
  assert.equal(outcome(machine, 'fetch', page), 0x5000, 'stale for every access')
  assert.ok(firstLevelHit(machine, 'read', page))
  invlpg(machine.control, page + 0x123n)
  assert.ok(!firstLevelHit(machine, 'read', page))
  assert.equal(outcome(machine, 'read', page), 0x6000)
})

test('an entry that is no longer present is used until INVLPG', () => {
  const machine = level4()
  const entries = map(machine, page, 0x5000n | P)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, entries[3], 0n)
  write64(machine, entries[1], 0n)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  invlpg(machine.control, page)
  assert.equal(outcome(machine, 'read', page), '#PF 0')
})

test('not-present is never cached, and more rights need no flush', () => {
  const machine = level4({ cr0: CR0.WP })
  const leaf = map(machine, page, 0n)[3]
  assert.equal(outcome(machine, 'read', page), '#PF 0')
  write64(machine, leaf, 0x5000n | P)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, leaf, 0x5000n | P | W)
  assert.equal(outcome(machine, 'write', page), 0x5000)
  setCpl(machine, 3)
  assert.equal(outcome(machine, 'read', page), '#PF 5')
  write64(machine, leaf, 0x5000n | P | W | U)
  assert.equal(outcome(machine, 'read', page), 0x5000)
})

test('a page fault drops the entry of its address', () => {
  const machine = level4({ cr0: CR0.WP })
  const leaf = map(machine, page, 0x5000n | P)[3]
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, leaf, 0x6000n | P)
  assert.equal(outcome(machine, 'write', page), '#PF 3')
  assert.ok(!firstLevelHit(machine, 'read', page))
  assert.equal(outcome(machine, 'read', page), 0x6000)
})

test('a hit whose dirty bit is not set is walked again for a write', () => {
  const machine = level4()
  const leaf = map(machine, page, 0x5000n | P | W)[3]
  assert.equal(outcome(machine, 'read', page), 0x5000)
  assert.ok(!firstLevelHit(machine, 'write', page))
  assert.equal(outcome(machine, 'write', page), 0x5000)
  assert.ok(firstLevelHit(machine, 'write', page))
  assert.ok(read64(machine, leaf) & D)
})

test('rights that change with no flush: WP, SMEP, SMAP with AC, NXE, CPL', () => {
  const machine = level4({ efer: EFER.NXE })
  map(machine, page, 0x5000n | P | U | NX)
  map(machine, 0x1000n, 0x6000n | P | W | U)
  map(machine, 0x2000n, 0x7000n | P | W)
  assert.equal(outcome(machine, 'write', page), 0x5000)
  assert.equal(outcome(machine, 'fetch', 0x1000n), 0x6000)
  setControl(machine, { cr0: machine.state.cr0 | CR0.WP })
  assert.ok(!firstLevelHit(machine, 'write', page))
  assert.equal(outcome(machine, 'write', page), '#PF 3')
  setControl(machine, { cr0: machine.state.cr0 & ~CR0.WP })
  assert.equal(outcome(machine, 'write', page), 0x5000)
  setControl(machine, { cr4: machine.state.cr4 | CR4.SMEP | CR4.SMAP })
  assert.equal(outcome(machine, 'fetch', 0x1000n), '#PF 11')
  assert.equal(outcome(machine, 'read', 0x1000n), '#PF 1')
  setCpl(machine, 0, true)
  assert.equal(outcome(machine, 'read', 0x1000n), 0x6000)
  assert.ok(firstLevelHit(machine, 'read', 0x1000n))
  setCpl(machine, 0, false)
  assert.ok(!firstLevelHit(machine, 'read', 0x1000n), 'CLAC must not leave user pages readable')
  assert.equal(outcome(machine, 'read', 0x2000n), 0x7000)
  setCpl(machine, 3)
  assert.ok(!firstLevelHit(machine, 'read', 0x2000n))
  assert.equal(outcome(machine, 'read', 0x2000n), '#PF 5')
  setCpl(machine, 0, true)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  setControl(machine, { efer: machine.state.efer & ~EFER.NXE })
  assert.equal(outcome(machine, 'read', page), '#PF 9', 'NX is a reserved bit without NXE')
})

test('MOV CR3 drops what is not global; PGE drops all', () => {
  const machine = level4({ cr4: CR4.PGE })
  const local = map(machine, 0x1000n, 0x5000n | P)[3]
  const shared = map(machine, 0x2000n, 0x6000n | P | G)[3]
  const load = (): unknown => [outcome(machine, 'read', 0x1000n), outcome(machine, 'read', 0x2000n)]
  assert.deepEqual(load(), [0x5000, 0x6000])
  write64(machine, local, 0x7000n | P)
  write64(machine, shared, 0x8000n | P | G)
  assert.deepEqual(load(), [0x5000, 0x6000])
  machine.control.cr3Written(false)
  assert.ok(!firstLevelHit(machine, 'read', 0x1000n))
  assert.ok(firstLevelHit(machine, 'read', 0x2000n), 'generated code need not ask again for what stays')
  assert.deepEqual(load(), [0x7000, 0x6000])
  invlpg(machine.control, 0x2000n)
  assert.ok(!firstLevelHit(machine, 'read', 0x2000n))
  assert.deepEqual(load(), [0x7000, 0x8000])
  write64(machine, shared, 0x6000n | P | G)
  invlpg(machine.control, 0x2000n)
  assert.deepEqual(load(), [0x7000, 0x6000])
  write64(machine, shared, 0x8000n | P | G)
  setControl(machine, { cr4: machine.state.cr4 & ~CR4.PGE })
  assert.deepEqual(load(), [0x7000, 0x8000])
  write64(machine, shared, 0x9000n | P | G)
  machine.control.cr3Written(false)
  assert.deepEqual(load(), [0x7000, 0x9000], 'without PGE nothing is global')
})

test('PCIDs: each has its own translations; bit 63 keeps them; global ones belong to all', () => {
  const machine = level4({ cr4: CR4.PCIDE | CR4.PGE })
  const other = 0x180000
  const leaf1 = map(machine, page, 0x5000n | P)[3]
  const shared = map(machine, 0x2000n, 0x9000n | P | G)[3]
  startTables(other)
  const leaf2 = map(machine, page, 0x6000n | P, { top: other })[3]
  const go = (table: number, pcid: number, keep: boolean): void => {
    machine.state.cr3 = BigInt(table) | BigInt(pcid)
    machine.control.cr3Written(keep)
  }
  go(root, 1, false)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  assert.equal(outcome(machine, 'read', 0x2000n), 0x9000)
  go(other, 2, false)
  assert.ok(!firstLevelHit(machine, 'read', page))
  assert.equal(outcome(machine, 'read', page), 0x6000)
  assert.equal(outcome(machine, 'read', 0x2000n), 0x9000, 'global, though these tables do not map it')
  write64(machine, leaf1, 0x7000n | P)
  write64(machine, leaf2, 0x8000n | P)
  go(root, 1, true)
  assert.ok(firstLevelHit(machine, 'read', page), 'kept')
  assert.equal(outcome(machine, 'read', page), 0x5000)
  go(root, 1, false)
  assert.equal(outcome(machine, 'read', page), 0x7000)
  go(other, 2, true)
  assert.equal(outcome(machine, 'read', page), 0x6000, 'the other PCID was not flushed')
  // INVLPG takes the current PCID's and every copy of a global page.
  write64(machine, shared, 0xa000n | P | G)
  invlpg(machine.control, 0x2000n)
  invlpg(machine.control, page)
  assert.equal(outcome(machine, 'read', page), 0x8000)
  assert.equal(outcome(machine, 'read', 0x2000n), '#PF 0')
  go(root, 1, true)
  assert.ok(!firstLevelHit(machine, 'read', 0x2000n))
  assert.equal(outcome(machine, 'read', 0x2000n), 0xa000)
})

test('INVPCID: four types', () => {
  const machine = level4({ cr4: CR4.PCIDE | CR4.PGE })
  const leaf = map(machine, page, 0n)[3]
  const shared = map(machine, 0x2000n, 0n)[3]
  /**
   * Caches old translations under PCIDs 1 and 2, changes the tables, does `flush` and tells which of PCID 1, PCID 2, global are still old.
   */
  const stale = (flush: () => void): boolean[] => {
    machine.control.flushAll()
    const set = (value: bigint): void => {
      write64(machine, leaf, value | P)
      write64(machine, shared, value | P | G)
    }
    const go = (pcid: number): void => {
      machine.state.cr3 = BigInt(root | pcid)
      machine.control.cr3Written(true)
    }
    set(0x5000n)
    for (const pcid of [1, 2]) {
      go(pcid)
      outcome(machine, 'read', page)
      outcome(machine, 'read', 0x2000n)
    }
    go(0)
    set(0x6000n)
    flush()
    const results = []
    for (const pcid of [1, 2]) {
      go(pcid)
      results.push(outcome(machine, 'read', page) === 0x5000)
    }
    return [...results, outcome(machine, 'read', 0x2000n) === 0x5000]
  }
  const { control } = machine
  assert.deepEqual(stale(() => {}), [true, true, true])
  assert.deepEqual(stale(() => control.invpcid(0, 1, page)), [false, true, true])
  assert.deepEqual(stale(() => control.invpcid(0, 1, 0x2000n)), [true, true, true], 'type 0 leaves global translations')
  assert.deepEqual(stale(() => control.invpcid(1, 2, 0n)), [true, false, true])
  assert.deepEqual(stale(() => control.invpcid(2, 0, 0n)), [false, false, false])
  assert.deepEqual(stale(() => control.invpcid(3, 0, 0n)), [false, false, true])
  const clearPcide = (): void => setControl(machine, { cr4: machine.state.cr4 & ~CR4.PCIDE })
  assert.deepEqual(stale(clearPcide).slice(2), [false], 'PCIDE to 0 drops everything')
})

test('INVLPG on any address takes a whole large page, and both halves of 4 MiB', () => {
  const machine = level4({}, { ram: [{ base: 0, size: 32 * MiB }] })
  const entry = map(machine, 0x20_0000n, 0x40_0000n | P | W | PS, { leafLevel: 2 })[2]
  for (const offset of [0n, 0x1000n, 0x7f000n, 0x1ff000n])
    assert.equal(outcome(machine, 'write', 0x20_0000n + offset), Number(0x40_0000n + offset))
  write64(machine, entry, 0x60_0000n | P | W | PS)
  assert.equal(outcome(machine, 'read', 0x20_5000n), 0x40_5000, 'one entry serves all of the page')
  invlpg(machine.control, 0x2f_f123n)
  for (const offset of [0n, 0x1000n, 0x7f000n, 0x1ff000n]) {
    assert.ok(!firstLevelHit(machine, 'write', 0x20_0000n + offset))
    assert.equal(outcome(machine, 'read', 0x20_0000n + offset), Number(0x60_0000n + offset))
  }
  setPaging(machine, 'bits32', { cr4: CR4.PSE })
  write64(machine, root + 8, 0x80_0000n | P | PS)
  assert.equal(outcome(machine, 'read', 0x80_1000n), 0x80_1000)
  assert.equal(outcome(machine, 'read', 0xa0_1000n), 0xa0_1000)
  write64(machine, root + 8, 0x40_0000n | P | PS)
  invlpg(machine.control, 0x80_0000n)
  assert.equal(outcome(machine, 'read', 0xa0_1000n), 0x60_1000)
})

test('a huge page goes as a whole', () => {
  const machine = level4()
  const entry = map(machine, 0x4000_0000n, P | W | PS, { leafLevel: 3 })[1]
  assert.equal(outcome(machine, 'read', 0x4000_5000n), 0x5000)
  assert.equal(outcome(machine, 'read', 0x4060_5000n), 0x605000)
  write64(machine, entry, 0n)
  invlpg(machine.control, 0x7fff_0000n)
  assert.ok(!firstLevelHit(machine, 'read', 0x4000_5000n))
  assert.equal(outcome(machine, 'read', 0x4060_5000n), '#PF 0')
})

test('paging switched off and on forgets everything', () => {
  const machine = level4({ cr4: CR4.PGE })
  map(machine, page, 0x5000n | P | G)
  assert.equal(outcome(machine, 'read', page), 0x5000)
  setPaging(machine, 'none')
  assert.equal(outcome(machine, 'read', page), Number(page))
  setPaging(machine, 'level4', { cr4: CR4.PGE })
  assert.equal(outcome(machine, 'read', page), 0x5000)
})

test('capacity evicts oldest first, and the first level holds nothing that the TLB does not hold', () => {
  const machine = level4({}, { ram: [{ base: 0, size: 16 * MiB }] })
  // Nine pages of one row (their numbers differ by multiples of 1024 × 1024), eight ways.
  const pages = Array.from({ length: 9 }, (_, index) => (BigInt(index) << 42n) | 0x5000n)
  const leaves = pages.map(linear => map(machine, linear, 0x5000n | P)[3])
  for (const linear of pages.slice(0, 8)) assert.equal(outcome(machine, 'read', linear), 0x5000)
  for (const leaf of leaves) write64(machine, leaf, 0x6000n | P)
  const results = (): unknown[] => pages.slice(0, 8).map(linear => outcome(machine, 'read', linear))
  const again = results()
  assert.deepEqual(again, Array(8).fill(0x5000))
  assert.equal(outcome(machine, 'read', pages[8]), 0x6000)
  assert.ok(!firstLevelHit(machine, 'read', pages[0]))
})

test('every CPU has its own translations', () => {
  const machine = level4({}, { cpus: 2 })
  const leaf = map(machine, page, 0x5000n | P)[3]
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, leaf, 0x6000n | P)
  machine.mmu.switchCpu(1)
  assert.ok(!firstLevelHit(machine, 'read', page))
  assert.equal(outcome(machine, 'read', page), 0x6000)
  machine.control.flushAll()
  machine.mmu.switchCpu(0)
  assert.ok(firstLevelHit(machine, 'read', page))
  assert.equal(outcome(machine, 'read', page), 0x5000, 'a flush on one CPU leaves the other stale')
})

test('more contexts than sets of tables', () => {
  const machine = level4({ cr4: CR4.PCIDE })
  map(machine, page, 0x5000n | P)
  const go = (pcid: number): void => {
    machine.state.cr3 = BigInt(root | pcid)
    machine.control.cr3Written(true)
  }
  for (let pcid = 0; pcid < 200; pcid++) {
    go(pcid)
    assert.ok(!firstLevelHit(machine, 'read', page))
    assert.equal(outcome(machine, 'read', page), 0x5000)
  }
  go(199)
  assert.ok(firstLevelHit(machine, 'read', page))
})

test('a flush can be repeated for ever: generations wrap', () => {
  const machine = level4()
  const leaf = map(machine, page, 0x5000n | P)[3]
  assert.equal(outcome(machine, 'read', page), 0x5000)
  write64(machine, leaf, 0x6000n | P)
  for (let count = 0; count < 0x10000; count++) machine.control.cr3Written(false)
  assert.equal(outcome(machine, 'read', page), 0x6000)
})

test('an empty first-level entry never matches', () => {
  const machine = level4()
  for (const what of ['read', 'write', 'fetch'] as const)
    for (const linear of [0n, 0xfffn, 0x1000n, 0x40_0000n, 0x100_0000n, 0x100_1000n, -1n, -0x1000n])
      assert.ok(!firstLevelHit(machine, what, linear), `${what} ${linear}`)
  map(machine, 0n, 0x5000n | P | W)
  assert.equal(outcome(machine, 'write', 0n), 0x5000)
  assert.ok(firstLevelHit(machine, 'write', 0xfffn))
  assert.ok(!firstLevelHit(machine, 'write', 0xfffn, 2))
  invlpg(machine.control, 0n)
  for (const linear of [0n, 0x1000n, 0x100_0000n]) assert.ok(!firstLevelHit(machine, 'write', linear))
  machine.control.cr3Written(false)
  for (const linear of [0n, 0x1000n, 0x100_0000n]) assert.ok(!firstLevelHit(machine, 'write', linear))
})

test('a saved TLB is as stale as it was', () => {
  const machine = level4({ cr4: CR4.PGE })
  const leaf = map(machine, page, 0x5000n | P)[3]
  const shared = map(machine, 0x1000n, 0x5000n | P | G)[3]
  const large = map(machine, 0x20_0000n, 0x40_0000n | P | PS, { leafLevel: 2 })[2]
  const load = (): unknown => [page, 0x1000n, 0x20_3000n].map(linear => outcome(machine, 'read', linear))
  const old = load()
  for (const entry of [leaf, shared, large]) write64(machine, entry, 0n)
  const saved = JSON.parse(JSON.stringify(machine.mmu.saveState()))
  machine.control.flushAll()
  assert.deepEqual(load(), ['#PF 0', '#PF 0', '#PF 0'])
  machine.mmu.restoreState(saved)
  assert.ok(!firstLevelHit(machine, 'read', page))
  assert.deepEqual(load(), old)
  machine.control.cr3Written(false)
  assert.deepEqual(load(), ['#PF 0', 0x5000, '#PF 0'])
})

test('a range of 128 MiB in pages of 4 KiB stays whole', () => {
  const machine = level4()
  const tlb = new Tlb(machine.mmu.firstLevel)
  const tag = tlb.tagOf(tlb.tagIndex(0, 0)!)
  const pages = 32768
  for (let index = 0; index < pages; index++) tlb.insert(index << 12, 0, tag, 0, index << 12, 0)
  for (let index = 0; index < pages; index++) assert.notEqual(tlb.find(index << 12, 0, tag, tag), -1)
})
