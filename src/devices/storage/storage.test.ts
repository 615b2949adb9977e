/** Tests of stores: snapshots, and qcow2 images built by hand from the description of the format. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deflateRawSync } from 'node:zlib'
import type { BlockStore } from './block-store.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { openDrive } from './drive.ts'
import { SnapshotStore } from './snapshot-store.ts'

const log = (): void => {}
const pattern = (length: number, seed: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed) & 0xff)

function readAll(store: BlockStore, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  assert.equal(store.read(offset, bytes), 'ok')
  return bytes
}

test('a snapshot keeps writes to itself, across its units and at an odd end', () => {
  const original = pattern(200_000, 1)
  const base = new MemoryStore(original.slice(), { readOnly: true })
  const snapshot = new SnapshotStore(base)
  const change = pattern(70_000, 99)
  assert.equal(snapshot.write(65_000, change), 'ok')
  assert.equal(snapshot.write(199_000, change.subarray(0, 1000)), 'ok')
  const expected = original.slice()
  expected.set(change, 65_000)
  expected.set(change.subarray(0, 1000), 199_000)
  assert.deepEqual(readAll(snapshot, 0, 200_000), expected)
  assert.deepEqual(base.bytes, original)
  assert.equal(snapshot.write(199_001, change.subarray(0, 1000)), 'error')
  assert.equal(snapshot.read(199_001, new Uint8Array(1000)), 'error')
})

test('a read-only drive refuses writes, and a drive of less than a sector is refused', () => {
  const disk = openDrive({ id: 'd', store: new MemoryStore(new Uint8Array(512)), readOnly: true }, log)
  assert.equal(disk.readOnly, true)
  assert.equal(disk.write(0, new Uint8Array(1)), 'error')
  const small = { id: 'd', store: new MemoryStore(new Uint8Array(511)) }
  assert.throws(() => openDrive(small, log), /drive 'd': expected at least one sector/)
  assert.throws(() => openDrive({ ...small, name: 'disk.img' }, log), /drive 'disk.img': expected at least one sector/)
})

/**
 * The header and tables by hand, from the format's description: clusters of 512 bytes, so that tables are small and grow. Cluster 0 header,
 * 1 refcount table, 2 refcount block, 3 L1 table (32 entries; an L2 table covers 64 clusters).
 */
function emptyImage(size: number, change: (header: DataView) => void = () => {}): MemoryStore {
  const bytes = new Uint8Array(4 * 512)
  const view = new DataView(bytes.buffer)
  const words: [number, number][] = [
    [0, 0x514649fb], [4, 3], [20, 9], [28, size], [36, 32], [44, 3 * 512], [52, 512], [56, 1], [96, 4], [100, 104], [512 + 4, 2 * 512],
  ]
  for (const [offset, value] of words) view.setUint32(offset, value)
  for (let cluster = 0; cluster < 4; cluster++) view.setUint16(2 * 512 + cluster * 2, 1)
  change(view)
  return new MemoryStore(bytes, { extensible: true })
}

const qcow2 = (store: BlockStore, base?: BlockStore): BlockStore =>
  openDrive({ id: 'd', store, format: 'qcow2', openBacking: base && (() => base) }, log)

test('an empty image reads as zeroes, and what is written is found again after opening anew', () => {
  const file = emptyImage(1 << 20)
  const disk = qcow2(file)
  assert.equal(disk.byteLength, 1 << 20)
  assert.deepEqual(readAll(disk, 0, 1000), new Uint8Array(1000))
  const expected = new Uint8Array(1 << 20)
  for (const [offset, length] of [[0, 512], [700, 100], [33_000, 40_000], [(1 << 20) - 300, 300], [33_100, 50]]) {
    const bytes = pattern(length, offset)
    expected.set(bytes, offset)
    assert.equal(disk.write(offset, bytes), 'ok')
  }
  assert.deepEqual(readAll(disk, 0, 1 << 20), expected)
  assert.deepEqual(readAll(qcow2(file), 0, 1 << 20), expected)
})

/** "Host cluster management": every cluster of the file has a count, and none is used twice. */
test('each cluster of a file that has grown is counted once, also by refcount blocks and a table that had to grow', () => {
  // 64-bit counts: a table of one cluster covers 64 blocks of 64 clusters, and the disk alone has 4,096 clusters.
  const file = emptyImage(2 << 20, header => {
    header.setUint32(36, 64)
    header.setUint32(96, 6)
    new Uint8Array(header.buffer).fill(0, 2 * 512, 3 * 512)
    for (let cluster = 0; cluster < 4; cluster++) header.setUint32(2 * 512 + cluster * 8 + 4, 1)
  })
  const disk = qcow2(file)
  for (let offset = 0; offset < 2 << 20; offset += 512) assert.equal(disk.write(offset, pattern(512, offset)), 'ok')
  const grown = new DataView(file.bytes.buffer, 0, file.byteLength)
  const table = Number(grown.getBigUint64(48))
  assert.notEqual(table, 512)
  const counts = Array.from({ length: file.byteLength / 512 }, (_, cluster) => {
    const block = Number(grown.getBigUint64(table + Math.floor(cluster / 64) * 8))
    return block === 0 ? 0n : grown.getBigUint64(block + (cluster % 64) * 8)
  })
  assert.equal(counts.length > 4096, true)
  assert.deepEqual(counts.filter(count => count !== 1n), [])
})

test('what an image lacks comes from its backing file, whose end is followed by zeroes', () => {
  const file = emptyImage(4096, header => {
    header.setUint32(12, 108 + 4)
    header.setUint32(16, 4)
    new Uint8Array(header.buffer).set(new TextEncoder().encode('base'), 112)
  })
  const base = new MemoryStore(pattern(1500, 3), { readOnly: true })
  const disk = qcow2(file, base)
  const expected = new Uint8Array(4096)
  expected.set(pattern(1500, 3))
  assert.deepEqual(readAll(disk, 0, 4096), expected)
  assert.equal(disk.write(1400, pattern(10, 9)), 'ok')
  expected.set(pattern(10, 9), 1400)
  assert.deepEqual(readAll(disk, 0, 4096), expected)
  assert.throws(() => qcow2(file), /backing file 'base' cannot be opened/)
  const unsuited = { id: 'd', store: file, format: 'qcow2', openBacking: () => emptyImage(512) } as const
  assert.throws(() => openDrive(unsuited, log), /drive 'd': its backing file 'base': it looks like a qcow2 image/)
})

test('a zero cluster hides the backing file; a compressed one is an error, not wrong bytes', () => {
  const entries = (first: bigint): MemoryStore => {
    const image = emptyImage(4096)
    const bytes = new Uint8Array(6 * 512)
    bytes.set(image.bytes)
    const view = new DataView(bytes.buffer)
    view.setBigUint64(3 * 512, (1n << 63n) | BigInt(4 * 512))
    view.setBigUint64(4 * 512, first)
    bytes.fill(0xaa, 5 * 512)
    return new MemoryStore(bytes, { extensible: true })
  }
  assert.deepEqual(readAll(qcow2(entries((1n << 63n) | BigInt(5 * 512))), 0, 4), Uint8Array.of(0xaa, 0xaa, 0xaa, 0xaa))
  const zero = qcow2(entries((1n << 63n) | BigInt(5 * 512) | 1n))
  assert.deepEqual(readAll(zero, 0, 4), new Uint8Array(4))
  assert.equal(zero.write(2, Uint8Array.of(7)), 'ok')
  assert.deepEqual(readAll(zero, 0, 4), Uint8Array.of(0, 0, 7, 0))
  const compressed = qcow2(entries((1n << 62n) | 2560n))
  assert.equal(compressed.read(0, new Uint8Array(4)), 'error')
  assert.equal(compressed.write(0, new Uint8Array(4)), 'error')
})

test('autoclear features, which this software does not know, last until the first write', () => {
  const file = emptyImage(4096, header => header.setUint32(92, 1))
  const disk = qcow2(file)
  assert.equal(file.bytes[95], 1)
  assert.equal(disk.write(0, Uint8Array.of(1)), 'ok')
  assert.equal(file.bytes[95], 0)
})

const refusals: readonly [string, RegExp, (header: DataView) => void][] = [
  ['version 4', /version 4/, header => header.setUint32(4, 4)],
  ['clusters of 256 bytes', /2\^8/, header => header.setUint32(20, 8)],
  ['encryption', /encrypted/, header => header.setUint32(32, 1)],
  ['a dirty image', /not closed cleanly/, header => header.setUint32(76, 1)],
  ['an external data file', /external data file/, header => header.setUint32(76, 4)],
  ['a feature that nobody knows', /bit 40/, header => header.setUint32(72, 0x100)],
  ['an L1 table too short for the size', /L1 table of 32 entries/, header => header.setUint32(28, 2 << 20)],
  ['an L1 table behind the end', /ends within its L1 table/, header => header.setUint32(44, 0x100000)],
  ['a place beyond 2^53', /beyond 2\^53/, header => header.setUint32(40, 0x80000000)],
]
for (const [what, message, change] of refusals) {
  test(`refused: ${what}`, () => assert.throws(() => qcow2(emptyImage(1 << 20, change)), message))
}

test('the format is never guessed', () => {
  assert.throws(() => openDrive({ id: 'd', store: emptyImage(4096) }, log), /looks like a qcow2 image/)
  assert.throws(() => openDrive({ id: 'd', store: new MemoryStore(new Uint8Array(4096)), format: 'qcow2' }, log), /expected a qcow2 image/)
})

test("other emulators' images are no raw disks, unless that is said", () => {
  for (const [name, at, magic] of [['VMDK', 0, 'KDMV\x01'], ['VHDX', 0, 'vhdxfile'], ['VHD', 0, 'conectix'], ['QED', 0, 'QED\0'],
    ['VDI', 64, '\x7f\x10\xda\xbe']] as const) {
    const store = new MemoryStore(new Uint8Array(4096))
    store.write(at, Uint8Array.from(magic, letter => letter.charCodeAt(0)))
    assert.throws(() => openDrive({ id: 'd', store }, log), { name: 'InputError', message: new RegExp(`looks like a ${name} image`) })
    assert.equal(openDrive({ id: 'd', store, format: 'raw' }, log).byteLength, 4096)
  }
})

test('a file that ends within the header is refused', () => {
  for (const length of [72, 80, 103]) {
    const file = new MemoryStore(emptyImage(1 << 20).bytes.slice(0, length))
    assert.throws(() => qcow2(file), { name: 'InputError', message: /expected a header of 104 bytes, found \d+/ })
  }
})

test('compressed clusters are read at any place in their sectors, and written anew', () => {
  const file = emptyImage(1 << 20)
  const [first, second] = [pattern(512, 5).fill(9, 100, 400), pattern(512, 6).fill(3, 0, 300)]
  const streams = [first, second].map(bytes => deflateRawSync(bytes))
  const offsets = [4 * 512 + 512, 4 * 512 + 512 + streams[0].length]
  // Cluster 4 is the L2 table. Clusters of 2^9 bytes: 61 bits of offset, then the number of further sectors.
  const table = new DataView(new ArrayBuffer(512))
  streams.forEach((stream, i) => {
    const further = Math.floor((offsets[i] + stream.length - 1) / 512) - Math.floor(offsets[i] / 512)
    table.setBigUint64(8 * i, (1n << 62n) | (BigInt(further) << 61n) | BigInt(offsets[i]))
    file.write(offsets[i], stream)
  })
  file.write(4 * 512, new Uint8Array(table.buffer))
  file.write(3 * 512, Uint8Array.of(0x80, 0, 0, 0, 0, 0, 8, 0))
  const disk = qcow2(file)
  const expected = new Uint8Array(1536)
  expected.set(first)
  expected.set(second, 512)
  assert.deepEqual(readAll(disk, 0, 1536), expected)
  assert.equal(disk.write(500, Uint8Array.of(1, 2, 3)), 'ok')
  expected.set([1, 2, 3], 500)
  assert.deepEqual(readAll(qcow2(file), 0, 1536), expected)
})

test('whole clusters of zeroes are entries only, over a backing file too', () => {
  const base = new MemoryStore(pattern(1 << 20, 3))
  const file = emptyImage(1 << 20, header => {
    header.setBigUint64(8, 200n)
    header.setUint32(16, 1)
  })
  file.write(200, Uint8Array.of(0x62))
  const disk = qcow2(file, base)
  assert.ok(disk.zero)
  assert.equal(disk.zero(100, 512 * 20), 'ok')
  assert.ok(file.byteLength < 512 * 12)
  const expected = base.bytes.slice()
  expected.fill(0, 100, 100 + 512 * 20)
  assert.deepEqual(readAll(qcow2(file, base), 0, 1 << 20), expected)
})

test('what a machine wrote to a disk can be put back, on a snapshot at any time, on an image before other writes', () => {
  const base = new MemoryStore(pattern(300_000, 1))
  const disk = openDrive({ id: 'd', store: base, snapshot: true }, log)
  disk.write(1000, pattern(100, 2))
  const [changes, then] = [[...disk.changes()], readAll(disk, 0, 300_000)]
  disk.write(1050, pattern(100, 3))
  disk.write(200_000, pattern(100, 4))
  disk.restoreChanges(changes)
  assert.deepEqual(readAll(disk, 0, 300_000), then)
  assert.deepEqual([...disk.changes()], changes)
  const direct = openDrive({ id: 'd', store: base }, log)
  direct.restoreChanges(changes)
  assert.deepEqual(readAll(direct, 0, 300_000), then)
  direct.write(200_000, Uint8Array.of(1))
  assert.throws(() => direct.restoreChanges(changes), /drive 'd': .* expected a drive with snapshot=on/)
})
