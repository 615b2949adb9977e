/** A remapping unit and devices that mean harm: what tables do not allow changes nothing and is recorded. And caches against cold walks. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { offsets } from '../../src/iommu/registers.ts'
import { device, place, type World, world } from '../../src/iommu/testing/world.ts'
import { Random } from './random.ts'

const page = 4096
const other = 0x28

interface Page {
  host: number
  bits: number
}

/** Pages of the device's domain, all within the first 64 MiB of its addresses, and what they may be used for. */
function randomDomain(w: World, random: Random, root: number, hosts: readonly number[]): Map<number, Page> {
  const pages = new Map<number, Page>()
  for (let count = 0; count < 40; count++) {
    const entry = { host: random.pick(hosts), bits: 1 + random.below(3) }
    const number = random.below(0x4000)
    pages.set(number, entry)
    w.map(root, number * page, entry.host, entry.bits)
  }
  return pages
}

/** A hostile address: near what is mapped, in the interrupt range, anywhere. */
function hostileAddress(random: Random, pages: ReadonlyMap<number, Page>): number {
  const known = [...pages.keys()]
  switch (random.below(6)) {
    case 0: return random.pick(known) * page + random.below(page)
    case 1: return random.pick(known) * page + page - 1 - random.below(16)
    case 2: return (random.pick(known) + random.below(3) - 1 + 0x4000) % 0x4000 * page + random.below(page)
    case 3: return random.word() % 2 ** 26
    case 4: return 0xfee0_0000 + random.below(2 ** 20)
    default: return random.word() * 2 ** random.below(20)
  }
}

const inInterruptRange = (address: number): boolean => address >= 0xfee0_0000 && address <= 0xfeef_ffff

test('20,000 hostile accesses: memory is what the tables allow, and every refusal is told', () => {
  const random = new Random(7)
  const w = world()
  const root = w.table()
  w.attach(device, root)
  const hosts = Array.from({ length: 16 }, (_, index) => 0xa0_0000 + index * page)
  const pages = randomDomain(w, random, root, hosts)
  w.startTranslation()
  w.startInterrupts(7) // no entry is present
  const expected = w.ram.memory.slice()
  const dma = w.dma()
  let refused = 0
  for (let turn = 0; turn < 20_000; turn++) {
    const address = hostileAddress(random, pages)
    const bytes = random.fill(new Uint8Array(1 + random.below(random.chance(4) ? 5000 : 24)))
    const write = random.chance(2)
    const before = w.told.length
    const recordsBefore = w.faults.length
    let at = 0
    let allowed = true
    // What the tables say, page by page.
    while (at < bytes.length) {
      const here = address + at
      const entry = pages.get(Math.floor(here / page))
      if (inInterruptRange(here) || !entry || !(entry.bits & (write ? 2 : 1))) { allowed = false; break }
      const length = Math.min(bytes.length - at, page - (here % page))
      const host = entry.host + (here % page)
      if (write) expected.set(bytes.subarray(at, at + length), host)
      at += length
    }
    // Four bytes written to the interrupt range are an interrupt: of a table without entries.
    const isInterrupt = write && bytes.length - at === 4 && inInterruptRange(address + at) && (address + at) % 4 === 0
    const result = write ? dma.write(address, bytes) : dma.read(address, bytes)
    const what = `turn ${turn}: ${write ? 'write' : 'read'} of ${bytes.length} at ${address.toString(16)}`
    assert.equal(result, allowed || isInterrupt ? 'ok' : 'blocked', what)
    if (allowed) continue
    refused++
    assert.ok(w.faults.length === recordsBefore + 1 || (w.read(offsets.faultStatus) & 1) === 1, `turn ${turn} is recorded`)
    if (before < 30) assert.ok(w.told.length > before)
    if (random.chance(3)) w.clearFaults()
  }
  assert.deepEqual(w.delivered, [])
  assert.ok(refused > 5000)
  assert.ok(Buffer.compare(w.ram.memory, expected) === 0, 'memory is as the tables allow')
})

test('20,000 forged interrupt messages: only what an entry grants its own source arrives', () => {
  const random = new Random(11)
  const w = world()
  w.startInterrupts(7)
  const entries = new Map<number, { vector: number; source: number }>()
  for (let count = 0; count < 60; count++) {
    const [index, vector, source] = [random.below(256), 0x20 + random.below(0xd0), random.chance(2) ? device : other]
    entries.set(index, { vector, source })
    w.interruptEntry(index, 1n | (BigInt(vector) << 16n), BigInt(source) | (1n << 18n))
  }
  let refused = 0
  for (let turn = 0; turn < 20_000; turn++) {
    const source = random.chance(3) ? other : device
    const subhandle = random.chance(4)
    const remappable = !random.chance(5)
    const handle = random.below(random.chance(8) ? 0x1_0000 : 300)
    const data = random.chance(4) ? random.word() : random.below(40)
    const address = 0xfee0_0000 + (remappable ? 0x10 : 0) + ((handle & 0x7fff) << 5) + (handle >> 15 ? 4 : 0) + (subhandle ? 8 : 0)
    const entry = subhandle && data > 0xffff ? undefined : entries.get(handle + (subhandle ? data : 0))
    const expected = remappable && entry?.source === source ? [entry.vector] : []
    const records = w.faults.length
    w.delivered.length = 0
    if (random.chance(2)) w.signal(address, data, source)
    else w.dma(source).write(address, Uint8Array.of(data, data >>> 8, data >>> 16, data >>> 24))
    assert.deepEqual(w.delivered.map(({ vector }) => vector), expected, `turn ${turn}`)
    if (expected.length > 0) continue
    refused++
    assert.ok(w.faults.length === records + 1 || (w.read(offsets.faultStatus) & 1) === 1, `turn ${turn} is recorded`)
    if (random.chance(3)) w.clearFaults()
  }
  assert.deepEqual(w.messages, [])
  assert.ok(refused > 10_000)
})

/** A unit with the same registers and memory, and nothing in its caches. */
function cold(w: World, scalableMode: boolean): World {
  const fresh = world({ scalableMode }, w.ram)
  const state = JSON.parse(JSON.stringify(w.unit.saveState())) as { caches: unknown }
  fresh.unit.restoreState({ ...state, caches: { contexts: [], pasids: [], interrupts: [], translations: [], structures: [] } })
  return fresh
}

const outcome = (w: World, address: number): string => {
  const walked = w.unit.translate({ source: device, address, write: false })
  return 'fault' in walked ? 'fault' : String(walked.translation.output + (address - walked.translation.input))
}

for (const scalable of [false, true]) {
  test(`${scalable ? 'first' : 'second'} stage under random edits: after invalidation a unit says what a cold one does`, () => {
    const random = new Random(scalable ? 17 : 13)
    const w = world({ scalableMode: scalable })
    const root = w.table()
    if (scalable) {
      w.quad(place.root, place.context | 1)
      w.quad(place.context + device * 32, 0x6001)
      w.quad(place.context + device * 32 + 8, 3)
      w.quad(0x6000, 0x7001)
      w.quad(0x7000 + 3 * 64, 0x41 | (2 << 2))
      w.quad(0x7000 + 3 * 64 + 8, 1)
      w.quad(0x7000 + 3 * 64 + 16, root)
    } else w.attach(device, root)
    w.startTranslation(place.root | (scalable ? 0x400 : 0))
    w.startQueue(scalable ? 0x800 : 0)
    const submit = (low: bigint, high: bigint): void => (scalable ? w.submit([low, high], [0n, 0n]) : w.submit([low, high]))
    const tables: number[] = [root, ...Array.from({ length: 6 }, () => w.table())]
    const levelOf = (table: number): number => (table === root ? 4 : 3 - ((tables.indexOf(table) - 1) % 3))
    const flags = scalable ? 7 : 3
    const spans = [2 ** 39, 2 ** 30, 2 ** 21, page]
    const addresses = Array.from({ length: 24 }, () => spans.reduce((sum, span) => sum + random.below(3) * span, 0))
    const seen = new Map(addresses.map(address => [address, new Set([outcome(cold(w, scalable), address)])]))
    for (let turn = 0; turn < 400; turn++) {
      const table = random.pick(tables)
      const level = levelOf(table)
      const below = tables.filter(each => each !== root && levelOf(each) === level - 1)
      const leaf = level === 1 || (level < 4 && random.chance(5))
      const pageAt = level === 1 ? 0x40_0000 + random.below(64) * page : random.below(4) * spans[4 - level]
      const entry = leaf ? pageAt + (level > 1 ? 0x80 : 0) : random.pick(below)
      const value = random.chance(4) ? 0 : entry + flags
      w.quad(table + random.below(3) * 8, value)
      for (const address of addresses) if (random.chance(3)) seen.get(address)!.add(outcome(w, address))
      if (!random.chance(3)) continue
      const all = random.chance(3)
      submit(all ? 0x12n : scalable ? 0x1_0026n | (3n << 32n) : 0x1_0022n, 0n)
      const fresh = cold(w, scalable)
      for (const address of addresses) assert.equal(outcome(w, address), outcome(fresh, address), `turn ${turn}, ${address.toString(16)}`)
    }
    assert.ok([...seen.values()].some(({ size }) => size > 5), 'the tables change what addresses mean')
  })
}

test('one page invalidated with its tables: that page is as the tables say, whatever else is cached', () => {
  const random = new Random(19)
  const w = world()
  const root = w.table()
  w.attach(device, root)
  w.startTranslation()
  w.startQueue()
  for (let turn = 0; turn < 1500; turn++) {
    const address = random.below(64) * page
    w.map(root, address, 0x40_0000 + random.below(64) * page, random.chance(4) ? 0 : 3)
    for (let probe = 0; probe < 4; probe++) outcome(w, random.below(64) * page)
    const mask = random.below(3)
    w.submit([0x1_0032n, BigInt(address - (address % (page << mask)) + mask)])
    const fresh = cold(w, false)
    for (let at = address - (address % (page << mask)), end = at + (page << mask); at < end; at += page) {
      assert.equal(outcome(w, at), outcome(fresh, at), `turn ${turn}`)
    }
    w.clearFaults()
  }
})
