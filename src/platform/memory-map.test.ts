/** Tests of the address map: the split of RAM that QEMU 7.2's machines show, and the E820 rules of the ACPI specification. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { createMemoryMap, e820Type, isUsable, reserveRanges, usableTop } from './memory-map.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30

const splits = [
  // chipset, RAM, below 4 GiB: QEMU 7.2, "info mtree -f" with -m
  ['pc', 4 * GiB, 3 * GiB],
  ['q35', 4 * GiB, 2 * GiB],
  ['pc', 3 * GiB, 3 * GiB],
  ['q35', 1 * GiB, 1 * GiB],
  ['q35', 2560 * MiB, 2560 * MiB],
  ['q35', 2816 * MiB, 2 * GiB],
  ['pc', 3584 * MiB, 3 * GiB],
] as const

for (const [chipset, size, low] of splits) {
  test(`${chipset} with ${size / MiB} MiB keeps ${low / MiB} MiB below 4 GiB`, () => {
    const map = createMemoryMap(chipset, size)
    assert.equal(map.lowTop, low)
    const above = map.ram.filter(range => range.base >= 4 * GiB).reduce((sum, range) => sum + range.size, 0)
    assert.equal(above, size - low)
  })
}

for (const chipset of ['pc', 'q35'] as const) {
  for (const size of [2 * MiB, 512 * MiB, 3 * GiB, 4 * GiB, 64 * GiB]) {
    test(`the E820 map of ${chipset} with ${size / MiB} MiB is ascending, without overlap, and usable only where RAM is`, () => {
      const map = createMemoryMap(chipset, size)
      map.e820.forEach((range, index) => {
        const next = map.e820[index + 1]
        assert.ok(!next || range.base + range.size <= next.base, `entry ${index}`)
        if (range.type === e820Type.usable) {
          assert.ok(map.ram.some(ram => range.base >= ram.base && range.base + range.size <= ram.base + ram.size), `entry ${index}`)
        }
      })
      for (const window of [map.pciMemory32, map.pciMemory64, map.ecam]) {
        if (window) assert.ok(map.ram.every(ram => window.base >= ram.base + ram.size || window.base + window.size <= ram.base))
      }
    })
  }
}

test('ACPI tables lie in type 3 and the FACS in type 4', () => {
  const map = createMemoryMap('q35', 512 * MiB)
  const typeAt = (address: number): number | undefined =>
    map.e820.find(range => address >= range.base && address < range.base + range.size)?.type
  assert.equal(typeAt(map.acpiTables.base), e820Type.acpiReclaimable)
  assert.equal(typeAt(map.acpiNvs.base), e820Type.acpiNvs)
  assert.ok(map.rsdp >= 0xe0000 && map.rsdp < 0x100000 && map.rsdp % 16 === 0)
})

test('sizes that are no multiple of 1 MiB are refused', () => {
  assert.throws(() => createMemoryMap('pc', MiB), RangeError)
  assert.throws(() => createMemoryMap('pc', 3 * MiB + 1), RangeError)
})

test('usableTop and isUsable respect the limit and the holes', () => {
  const map = createMemoryMap('pc', 4 * GiB)
  assert.equal(usableTop(map.e820, 4 * GiB), map.acpiTables.base)
  assert.equal(usableTop(map.e820, 0x37ffffff), 0x37ffffff)
  assert.equal(isUsable(map.e820, 0x9f000, 0x1000), false)
  assert.equal(isUsable(map.e820, 0x100000, 0x1000), true)
})

test('what firmware keeps is cut out of usable memory, and only there', () => {
  const map = createMemoryMap('q35', 512 * MiB)
  const kept = reserveRanges(map, [{ base: 0x80_0000, size: 0x2000 }, { base: 0x9e000, size: 0x1000 }])
  assert.equal(kept.e820.length, map.e820.length + 4)
  for (const [base, expected] of [[0x7f_f000, true], [0x80_0000, false], [0x80_1000, false], [0x80_2000, true]] as const)
    assert.equal(isUsable(kept.e820, base, 0x1000), expected)
  assert.equal(kept.e820.find(({ base }) => base === 0x9e000)?.type, e820Type.reserved)
})
