/**
 * The page walk against hand-made tables. Expected values: Intel SDM vol. 3, "Paging" ("Access Rights", "Page-Fault Exceptions", "Accessed
 * and Dirty Flags", the formats of entries).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  A, CR0, CR4, D, EFER, G, GiB, key, map, MiB, NX, outcome, P, PS, read64, root, setControl, setCpl, setPaging, startTables, testMachine,
  U, W, write32, write64, type TestMachine,
} from './testing.ts'

const supervisorAccess = 1 << 9
const stackAccess = 1 << 8

function level4(extra: Parameters<typeof setPaging>[2] = {}, options: Parameters<typeof testMachine>[0] = {}): TestMachine {
  const machine = testMachine(options)
  startTables()
  setPaging(machine, 'level4', extra)
  return machine
}

/** An access with nothing cached. */
function fresh(machine: TestMachine, what: 'read' | 'write' | 'fetch', linear: bigint, flags = 4): number | string {
  machine.control.flushAll()
  return outcome(machine, what, linear, flags)
}

test('without paging linear addresses are physical', () => {
  const machine = testMachine()
  setPaging(machine, 'none')
  assert.equal(outcome(machine, 'read', 0x12345n), 0x12345)
  assert.equal(outcome(machine, 'write', 0x12346n, 2), 0x12346)
  assert.equal(outcome(machine, 'fetch', 0xabcden), 0xabcde)
})

test('32-bit paging: 4 KiB pages, rights of both levels, accessed and dirty bits', () => {
  const machine = testMachine()
  setPaging(machine, 'bits32', { cr0: CR0.WP })
  const linear = 0x00c03123n
  write32(machine, root + 3 * 4, BigInt(root + 0x1000) | P | W | U)
  write32(machine, root + 0x1000 + 3 * 4, 0x7000n | P | W | U)
  setCpl(machine, 3)
  assert.equal(outcome(machine, 'read', linear), 0x7123)
  assert.equal(read64(machine, root + 3 * 4) & 0xffffffffn, BigInt(root + 0x1000) | P | W | U | A)
  assert.equal(read64(machine, root + 0x1000 + 3 * 4) & 0xffffffffn, 0x7000n | P | W | U | A)
  assert.equal(outcome(machine, 'write', linear), 0x7123)
  assert.equal(read64(machine, root + 0x1000 + 3 * 4) & 0xffffffffn, 0x7000n | P | W | U | A | D)
  write32(machine, root + 3 * 4, BigInt(root + 0x1000) | P | U)
  assert.equal(fresh(machine, 'write', linear), '#PF 7')
  assert.equal(fresh(machine, 'fetch', linear), 0x7123)
  write32(machine, root + 3 * 4, BigInt(root + 0x1000) | P | W)
  assert.equal(fresh(machine, 'read', linear), '#PF 5')
  assert.equal(fresh(machine, 'fetch', linear), '#PF 5')
  setCpl(machine, 0)
  assert.equal(fresh(machine, 'read', linear), 0x7123)
  write32(machine, root + 3 * 4, 0n)
  assert.equal(fresh(machine, 'write', linear), '#PF 2')
})

test('32-bit paging: PS counts only with CR4.PSE; PSE-36 gives address bits 39:32', () => {
  const machine = testMachine({ ram: [{ base: 0, size: 16 * MiB }, { base: 4 * GiB, size: 8 * MiB }] })
  setPaging(machine, 'bits32', { cr4: CR4.PSE })
  write32(machine, root + 4, 0x00400000n | P | W | PS)
  assert.equal(outcome(machine, 'write', 0x654321n), 0x654321)
  assert.equal(read64(machine, root + 4) & 0xffffffffn, 0x00400000n | P | W | PS | A | D)
  write32(machine, root + 8, (1n << 13n) | P | W | PS)
  assert.equal(outcome(machine, 'read', 0xa54321n), 4 * GiB + 0x254321)
  // Bit 21 is reserved, and so are the address bits beyond MAXPHYADDR.
  write32(machine, root + 12, (1n << 21n) | P | W | PS)
  assert.equal(outcome(machine, 'read', 0xc00000n), '#PF 9')
  const narrow = testMachine({ model: { physicalBits: 36 } })
  setPaging(narrow, 'bits32', { cr4: CR4.PSE })
  write32(narrow, root + 4, (1n << 17n) | P | PS)
  assert.equal(outcome(narrow, 'read', 0x400000n), '#PF 9')
  write32(narrow, root + 4, 0x00400000n | P | W | PS)
  setPaging(narrow, 'bits32')
  write32(narrow, 0x00400000 + 4, 0x9000n | P)
  assert.equal(outcome(narrow, 'read', 0x401010n), 0x9010, 'without PSE the entry points to a table')
})

test('PAE paging uses the four loaded PDPTEs; 2 MiB pages, NX, reserved bits to 62', () => {
  const machine = testMachine()
  write64(machine, root + 8, BigInt(root + 0x1000) | P)
  setPaging(machine, 'pae', { efer: EFER.NXE })
  write64(machine, root + 0x1000, 0x200000n | P | W | U | PS | NX)
  write64(machine, root + 0x1008, BigInt(root + 0x2000) | P | W | U)
  write64(machine, root + 0x2000, 0x5000n | P)
  assert.equal(outcome(machine, 'read', 0x40012345n), 0x212345)
  assert.equal(outcome(machine, 'read', 0x40200008n), 0x5008)
  assert.equal(outcome(machine, 'fetch', 0x40000000n), '#PF 11')
  assert.equal(outcome(machine, 'read', 0x80000000n), '#PF 0')
  write64(machine, root + 8, 0n)
  assert.equal(fresh(machine, 'read', 0x40012345n), 0x212345, 'the register counts, not memory')
  write64(machine, root + 0x2000, 0x5000n | P | (1n << 59n))
  assert.equal(fresh(machine, 'read', 0x40200008n), '#PF 9')
  write64(machine, root + 0x1000, 0x202000n | P | PS)
  assert.equal(fresh(machine, 'read', 0x40000000n), '#PF 9')
})

test('loading PDPTEs with reserved bits raises #GP and changes nothing', () => {
  const machine = testMachine()
  write64(machine, root, 0x5000n | P)
  setPaging(machine, 'pae')
  for (const bad of [2n, 4n, 0x20n, 0x100n, 1n << 46n, NX]) {
    write64(machine, root + 0x40, 0x6000n | P | bad)
    machine.state.cr3 = BigInt(root + 0x40)
    assert.throws(() => machine.control.cr3Written(false), { vector: 13, error: 0 })
    assert.equal(machine.state.pdpte[0], 0x5000n | P)
  }
  write64(machine, root + 0x40, 2n) // not present: nothing is reserved
  machine.control.cr3Written(false)
  assert.equal(machine.state.pdpte[0], 2n)
})

test('4-level paging: the three page sizes', () => {
  const machine = level4({}, { ram: [{ base: 0, size: 16 * MiB }, { base: 4 * GiB, size: GiB }] })
  map(machine, 0x7fff_1234_5000n, 0x9000n | P | W | U)
  map(machine, -0x8000_0000n, 0x400000n | P | W | PS, { leafLevel: 2 })
  map(machine, 0x40_0000_0000n, BigInt(4 * GiB) | P | W | PS, { leafLevel: 3 })
  assert.equal(outcome(machine, 'read', 0x7fff_1234_5678n), 0x9678)
  assert.equal(outcome(machine, 'read', -0x8000_0000n + 0x123456n), 0x523456)
  assert.equal(outcome(machine, 'read', 0x40_0123_4567n), 4 * GiB + 0x1234567)
  assert.equal(machine.control.probe(0x40_0123_4567n), 4 * GiB + 0x1234567)
  assert.equal(machine.control.probe(0x40_4000_0000n), undefined)
})

test('5-level paging uses bits 56:48', () => {
  const machine = testMachine()
  startTables()
  setPaging(machine, 'level5')
  map(machine, 0x12_3456_789a_b000n, 0xa000n | P, { levels: 5 })
  assert.equal(outcome(machine, 'read', 0x12_3456_789a_bcden), 0xacde)
  assert.equal(outcome(machine, 'read', 0x1_0000_0000_0000n), '#PF 0')
  assert.equal(outcome(machine, 'read', 0x100_0000_0000_0000n), '#GP 0')
})

test('addresses that are not canonical: #GP(0), for stack accesses #SS(0)', () => {
  const machine = level4()
  map(machine, 0x7fff_ffff_f000n, 0x9000n | P | W)
  for (const linear of [0x8000_0000_0000n, 0xffff_7fff_ffff_fff0n]) {
    assert.equal(outcome(machine, 'read', linear), '#GP 0')
    assert.equal(outcome(machine, 'write', linear, 8 | stackAccess), '#SS 0')
    assert.equal(outcome(machine, 'fetch', linear), '#GP 0')
    assert.equal(machine.control.probe(linear), undefined)
  }
  machine.state.stepping = 1
  assert.equal(outcome(machine, 'read', 0x7fff_ffff_fffcn, 8 | stackAccess), '#SS 0', 'the second half is not canonical')
  assert.equal(outcome(machine, 'read', -0x8000_0000_0000n), '#PF 0')
})

test('reserved bits: MAXPHYADDR, PS where there is no large page, low address bits of large pages, NX without NXE', () => {
  const machine = level4()
  const check = (leaf: bigint, leafLevel: number, expected: number | string): void => {
    startTables()
    map(machine, 0n, leaf, { leafLevel })
    assert.equal(fresh(machine, 'read', 0n), expected)
    for (const address of map(machine, 0n, leaf, { leafLevel })) write64(machine, address, 0n)
  }
  check(0x5000n | P | (1n << 46n), 1, '#PF 9')
  check(0x5000n | P | (1n << 51n), 1, '#PF 9')
  check(0x5000n | P | (1n << 52n), 1, 0x5000)
  check(0x5000n | P | NX, 1, '#PF 9')
  check(0x2000n | P | PS, 2, '#PF 9')
  check(0x1000n | P | PS, 2, 0) // bit 12 is PAT
  check(0x200000n | P | PS, 3, '#PF 9')
  check(P | PS, 3, 0)
  check(P | PS, 4, '#PF 9')
  check(PS | NX | 0x2000n, 2, '#PF 0') // reserved bits of what is not present are not looked at
  const plain = level4({}, { model: { hugePages: false } })
  map(plain, 0n, P | PS, { leafLevel: 3 })
  assert.equal(outcome(plain, 'read', 0n), '#PF 9')
})

test('AMD reserves bit 8 in upper-level entries, Intel ignores it', () => {
  for (const globalReservedInTables of [false, true]) {
    const machine = level4({}, { model: { globalReservedInTables } })
    map(machine, 0n, 0x5000n | P, { tables: P | W | U | G })
    assert.equal(outcome(machine, 'read', 0n), globalReservedInTables ? '#PF 9' : 0x5000)
  }
})

/** Rights of a page by every level's bits, at CPL 0 and 3, with the controls that matter: "Determination of Access Rights". */
test('access rights and error codes', () => {
  const machine = level4()
  const pages = { user: 0x1000n, userReadOnly: 0x2000n, kernel: 0x3000n, kernelReadOnly: 0x4000n, userNx: 0x5000n, kernelNx: 0x6000n }
  map(machine, pages.user, 0x1000n | P | W | U)
  map(machine, pages.userReadOnly, 0x2000n | P | U)
  map(machine, pages.kernel, 0x3000n | P | W)
  map(machine, pages.kernelReadOnly, 0x4000n | P)
  setPaging(machine, 'level4', { efer: EFER.NXE })
  map(machine, pages.userNx, 0x5000n | P | W | U | NX)
  map(machine, pages.kernelNx, 0x6000n | P | W | NX)
  type Row = [page: keyof typeof pages, read: string, write: string, fetch: string]
  const check = (rows: Row[], flags = 4): void => {
    for (const [page, ...expected] of rows) {
      const results = (['read', 'write', 'fetch'] as const).map(what => fresh(machine, what, pages[page], flags))
      const got = results.map(each => (typeof each === 'number' ? 'ok' : each))
      assert.deepEqual(got, expected, page)
    }
  }
  setCpl(machine, 3)
  check([
    ['user', 'ok', 'ok', 'ok'], ['userReadOnly', 'ok', '#PF 7', 'ok'], ['kernel', '#PF 5', '#PF 7', '#PF 15'],
    ['kernelReadOnly', '#PF 5', '#PF 7', '#PF 15'], ['userNx', 'ok', 'ok', '#PF 15'], ['kernelNx', '#PF 5', '#PF 7', '#PF 15'],
  ])
  setCpl(machine, 0)
  check([
    ['user', 'ok', 'ok', 'ok'], ['userReadOnly', 'ok', 'ok', 'ok'], ['kernelReadOnly', 'ok', 'ok', 'ok'],
    ['kernelNx', 'ok', 'ok', '#PF 11'],
  ])
  setControl(machine, { cr0: machine.state.cr0 | CR0.WP })
  check([['userReadOnly', 'ok', '#PF 3', 'ok'], ['kernelReadOnly', 'ok', '#PF 3', 'ok'], ['kernel', 'ok', 'ok', 'ok']])
  setControl(machine, { cr4: machine.state.cr4 | CR4.SMEP })
  check([['user', 'ok', 'ok', '#PF 11'], ['kernel', 'ok', 'ok', 'ok']])
  setControl(machine, { cr4: machine.state.cr4 | CR4.SMAP })
  check([['user', '#PF 1', '#PF 3', '#PF 11'], ['kernel', 'ok', 'ok', 'ok']])
  setCpl(machine, 0, true)
  check([['user', 'ok', 'ok', '#PF 11'], ['userReadOnly', 'ok', '#PF 3', '#PF 11']])
  assert.equal(fresh(machine, 'read', pages.user, 4 | supervisorAccess), '#PF 1', 'AC does not count for implicit supervisor accesses')
  setCpl(machine, 3, true)
  assert.equal(fresh(machine, 'read', pages.kernel, 4 | supervisorAccess), 0x3000)
  assert.equal(fresh(machine, 'read', pages.user, 4 | supervisorAccess), '#PF 1')
  assert.equal(fresh(machine, 'write', pages.kernelReadOnly, 4 | supervisorAccess), '#PF 3')
})

test('every level takes rights away', () => {
  const machine = level4({ cr0: CR0.WP, efer: EFER.NXE })
  const entries = map(machine, 0n, 0x5000n | P | W | U)
  setCpl(machine, 3)
  for (const address of entries) {
    const entry = read64(machine, address)
    write64(machine, address, entry & ~W)
    assert.equal(fresh(machine, 'write', 0n), '#PF 7')
    write64(machine, address, entry & ~U)
    assert.equal(fresh(machine, 'read', 0n), '#PF 5')
    write64(machine, address, entry | NX)
    assert.equal(fresh(machine, 'fetch', 0n), '#PF 15')
    write64(machine, address, entry & ~P)
    assert.equal(fresh(machine, 'fetch', 0n), '#PF 14')
    write64(machine, address, entry)
  }
})

test('bit 4 of the error code needs SMEP or NXE', () => {
  const machine = level4()
  assert.equal(outcome(machine, 'fetch', 0n), '#PF 0')
  setControl(machine, { cr4: machine.state.cr4 | CR4.SMEP })
  assert.equal(outcome(machine, 'fetch', 0n), '#PF 10')
})

test('protection keys: PKRU for user pages, PKRS for supervisor pages, not for fetches', () => {
  const machine = level4({ cr4: CR4.PKE | CR4.PKS })
  map(machine, 0x1000n, 0x1000n | P | W | U | key(3))
  map(machine, 0x2000n, 0x2000n | P | W | key(3))
  map(machine, 0x3000n, 0x3000n | P | U | key(3))
  const pkru = (bits: number): void => {
    machine.state.pkru = bits << 6
    machine.control.updateContext()
  }
  const accessDisable = 1
  const writeDisable = 2
  setCpl(machine, 3)
  assert.equal(outcome(machine, 'read', 0x1000n), 0x1000)
  pkru(writeDisable)
  assert.equal(outcome(machine, 'read', 0x1000n), 0x1000, 'no flush is needed')
  assert.equal(outcome(machine, 'write', 0x1000n), '#PF 27')
  assert.equal(outcome(machine, 'write', 0x3000n), '#PF 27')
  pkru(accessDisable)
  assert.equal(outcome(machine, 'read', 0x1000n), '#PF 25')
  assert.equal(outcome(machine, 'fetch', 0x1000n), 0x1000)
  setCpl(machine, 0)
  assert.equal(outcome(machine, 'read', 0x1000n), '#PF 21')
  pkru(writeDisable)
  assert.equal(outcome(machine, 'write', 0x1000n), 0x1000, 'supervisor writes obey WD only with WP')
  setControl(machine, { cr0: machine.state.cr0 | CR0.WP })
  assert.equal(outcome(machine, 'write', 0x1000n), '#PF 23')
  assert.equal(outcome(machine, 'read', 0x2000n), 0x2000)
  machine.state.msrPkrs = BigInt(accessDisable << 6)
  machine.control.updateContext()
  assert.equal(outcome(machine, 'read', 0x2000n), '#PF 21')
  setControl(machine, { cr4: machine.state.cr4 & ~CR4.PKS })
  assert.equal(outcome(machine, 'read', 0x2000n), 0x2000)
})

test('accessed and dirty bits: all levels used, dirty in the leaf only, nothing when the access faults', () => {
  const machine = level4({ cr0: CR0.WP })
  const entries = map(machine, 0n, 0x5000n | P | U)
  const bits = (): bigint[] => entries.map(address => read64(machine, address) & (A | D))
  assert.equal(outcome(machine, 'write', 0n), '#PF 3')
  assert.deepEqual(bits(), [0n, 0n, 0n, 0n])
  assert.equal(outcome(machine, 'read', 0n), 0x5000)
  assert.deepEqual(bits(), [A, A, A, A])
  write64(machine, entries[3], 0x5000n | P | U | W)
  assert.equal(outcome(machine, 'write', 0n), 0x5000, 'a cached entry without the right is walked again')
  assert.deepEqual(bits(), [A, A, A, A | D])
  write64(machine, entries[3], 0x5000n | P | U | W)
  assert.equal(outcome(machine, 'write', 0n), 0x5000)
  assert.deepEqual(bits(), [A, A, A, 0n], 'the cached entry is dirty: memory is not looked at')
})

test('tables in ROM and in nothing', () => {
  const machine = testMachine()
  const rom = new Uint8Array(4096)
  new DataView(rom.buffer).setBigUint64(0, BigInt(root + 0x1000) | P | W | U, true)
  machine.physical.addRom(0xfffff000, rom)
  startTables()
  map(machine, 0n, 0x5000n | P)
  setPaging(machine, 'level4')
  machine.state.cr3 = 0xfffff000n
  machine.control.cr3Written(false)
  assert.equal(outcome(machine, 'read', 0n), 0x5000)
  assert.equal(read64(machine, 0xfffff000) & A, 0n, 'ROM keeps its bits')
  machine.state.cr3 = 0xe0000000n
  machine.control.cr3Written(false)
  assert.equal(outcome(machine, 'read', 0n), '#PF 9', 'all ones: present, with reserved bits set')
})
