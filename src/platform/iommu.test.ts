/** Remapping units in the machine: options, the DMAR table's bytes, and which unit a requester meets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bdf, type Bdf } from '../devices/pci/function.ts'
import type { MmioHandler } from '../devices/ports.ts'
import { FakeDma } from '../devices/testing/fakes.ts'
import { InputError } from '../errors.ts'
import { dmarBody } from './acpi/dmar.ts'
import { Iommu } from './iommu.ts'

interface Made {
  iommu: Iommu
  units: MmioHandler[]
  bases: number[]
}

function make(...properties: Record<string, string>[]): Made {
  const units: MmioHandler[] = []
  const bases: number[] = []
  const iommu = new Iommu(properties.map(each => ({ model: 'vtd', properties: each })), 46, {
    memory: new FakeDma(0x10000), deliver() {}, message() {}, log() {}, bridges: [bdf(0, 5, 0)],
    rootFunction: bus => (bus === 2 ? bdf(0, 5, 0) : undefined),
    addMmio: (base, _size, _name, handler) => {
      units.push(handler)
      bases.push(base)
    },
  })
  return { iommu, units, bases }
}

test('the DMAR table: one unit with all, the I/O APIC and the HPET', () => {
  const { iommu, bases } = make({})
  assert.deepEqual(bases, [0xfed9_0000])
  // "DMA Remapping Reporting Structure": width - 1, INTR_REMAP; then a unit of 32 bytes with INCLUDE_PCI_ALL.
  assert.deepEqual(dmarBody(iommu.dmar), [
    45, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0,
    3, 8, 0, 0, 0, 0xff, 0, 0,
    4, 8, 0, 0, 0, 0xff, 1, 0,
  ])
})

test('a unit of its own for some, a bridge among them; memory that firmware uses', () => {
  const { iommu, bases } = make({ scope: '03.1+05.0', rmrr: '0x8000-0x8fff@03.1', intremap: 'off' }, {})
  assert.deepEqual(bases, [0xfed9_0000, 0xfed9_1000])
  const body = dmarBody(iommu.dmar)
  assert.equal(body[1], 0, 'interrupts are remapped by all units or by none')
  assert.deepEqual(body.slice(12, 44), [
    0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 3, 1, 2, 8, 0, 0, 0, 0, 5, 0,
  ])
  assert.deepEqual(body.slice(76), [
    1, 0, 32, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0xff, 0x8f, 0, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 3, 1,
  ])
})

test('a requester meets the unit that has it, or the bridge before it, in its scope', () => {
  const { iommu, units } = make({ scope: '03.1+05.0' }, {})
  const enable = 0x8000_0000
  units[0].writeMmio(0x18, 4, enable) // without tables everything is refused
  const result = (source: Bdf): string => iommu.dmaFor(() => source).read(0x1000, new Uint8Array(4))
  const sources = [bdf(0, 3, 1), bdf(0, 3, 0), bdf(0, 5, 0), bdf(2, 0, 0), bdf(3, 0, 0), bdf(0xff, 0, 0)]
  assert.deepEqual(sources.map(result), ['blocked', 'ok', 'blocked', 'blocked', 'ok', 'ok'])
})

test('what does not fit is the user\'s to mend', () => {
  const wrong: [Record<string, string>[], RegExp][] = [
    [[{ 'aw-bits': '40' }], /aw-bits.*expected 39, 48 or 57, found '40'/],
    [[{ intremp: 'on' }], /no property 'intremp'; the nearest is 'intremap'/],
    [[{ eim: 'yes' }], /eim.*expected on or off, found 'yes'/],
    [[{ scope: '03.1' }], /expected the last unit, and no other, to be without scope/],
    [[{}, {}], /expected the last unit/], [[{ scope: '03.1' }, { scope: '03.1' }, {}], /a function is in the scope of two units/],
    [[{ scope: '01:00.0' }, {}], /expected DEVICE.FUNCTION on bus 0/], [[{ rmrr: '1000-1800@2.0' }], /of whole pages/],
  ]
  for (const [properties, pattern] of wrong)
    assert.throws(() => make(...properties), error => error instanceof InputError && pattern.test(error.message), String(pattern))
})
