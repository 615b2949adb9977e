/** Entry points and structures by the rules of DMTF DSP0134, "SMBIOS Entry Point", "Structure standards". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMemoryMap } from './memory-map.ts'
import { smbios, type SmbiosOptions } from './smbios.ts'

const GiB = 2 ** 30
const options = (memory: number): SmbiosOptions => ({
  map: createMemoryMap('q35', memory), cpus: 4, seed: 7,
  processor: { vendor: 'AuthenticAMD', brand: 'a processor', signature: 0x800f12, features: 0x178bfbff, megahertz: 1000 },
})
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0)
const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes)

/** Walks the table: type, handle and offset of each structure. */
function walk(table: Uint8Array): { type: number; handle: number; area: DataView }[] {
  const found = []
  for (let at = 0; at < table.length;) {
    const length = table[at + 1]
    const area = new DataView(table.buffer, table.byteOffset + at, length)
    found.push({ type: table[at], handle: area.getUint16(2, true), area })
    for (at += length; table[at] !== 0 || table[at + 1] !== 0;) at++
    at += 2
  }
  return found
}

test('both entry points lie on paragraphs of the F-segment, have right checksums and lead to the same table', () => {
  const { writes } = smbios(options(512 << 20))
  const [v21, v30, table] = writes
  for (const { address } of [v21, v30]) assert.ok(address >= 0xf0000 && address < 0x100000 && address % 16 === 0)
  assert.equal(text(v21.bytes.subarray(0, 4)), '_SM_')
  assert.equal(text(v21.bytes.subarray(16, 21)), '_DMI_')
  assert.equal(text(v30.bytes.subarray(0, 5)), '_SM3_')
  assert.deepEqual([v21.bytes.length, v30.bytes.length], [0x1f, 0x18])
  assert.deepEqual([sum(v21.bytes), sum(v21.bytes.subarray(16)), sum(v30.bytes)], [0, 0, 0])
  const old = new DataView(v21.bytes.buffer)
  const young = new DataView(v30.bytes.buffer)
  const found = walk(table.bytes)
  assert.deepEqual([old.getUint32(0x18, true), old.getUint16(0x16, true), old.getUint16(0x1c, true)],
    [table.address, table.bytes.length, found.length])
  assert.deepEqual([young.getBigUint64(0x10, true), young.getUint32(0x0c, true)], [BigInt(table.address), table.bytes.length])
})

test('the required structures are there, with handles of their own, and the table ends with type 127', () => {
  const found = walk(smbios(options(4 * GiB)).writes[2].bytes)
  assert.deepEqual(found.map(({ type }) => type), [0, 1, 3, 4, 16, 17, 19, 19, 32, 127])
  assert.equal(new Set(found.map(({ handle }) => handle)).size, found.length)
  // 4 GiB on a q35: 2 GiB below, 2 GiB from 4 GiB; in KiB
  const ranges = found.filter(({ type }) => type === 19).map(({ area }) => [area.getUint32(4, true), area.getUint32(8, true)])
  assert.deepEqual(ranges, [[0, 0x1fffff], [0x400000, 0x5fffff]])
})

test('sizes from 32 GiB go into the extended field', () => {
  const device = walk(smbios(options(40 * GiB)).writes[2].bytes).find(({ type }) => type === 17)!
  assert.deepEqual([device.area.getUint16(0x0c, true), device.area.getUint32(0x1c, true)], [0x7fff, 40 * 1024])
})

test('firmware gets table and anchor by fw_cfg', () => {
  const { files, writes } = smbios(options(512 << 20))
  assert.deepEqual([...files.keys()], ['etc/smbios/smbios-anchor', 'etc/smbios/smbios-tables'])
  assert.deepEqual(files.get('etc/smbios/smbios-tables'), writes[2].bytes)
})
