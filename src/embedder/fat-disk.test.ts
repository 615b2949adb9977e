/** Disks made of folders, read by GRUB's file system driver and by Linux' rules for names (Microsoft's FAT specification, 1.03). */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isInputError } from '../errors.ts'
import { fatDisk, type FatEntry } from './fat-disk.ts'
import { openFatFolder } from './node/fat-folder.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-fat-'))
after(() => rmSync(folder, { recursive: true }))

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff)

/** What GRUB says of the partition of a disk. */
function grub(image: string, ...command: string[]): string {
  return execFileSync('grub-fstest', [image, ...command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

function imageOf(source: string): string {
  const disk = openFatFolder(source)
  const all = new Uint8Array(disk.byteLength)
  // in pieces that begin and end anywhere
  for (let at = 0; at < all.length; at += 999_983) assert.equal(disk.read(at, all.subarray(at, Math.min(all.length, at + 999_983))), 'ok')
  const image = join(folder, 'image')
  writeFileSync(image, all)
  return image
}

test('GRUB reads a folder: long names, names alike in their first letters, more than a cluster of entries, contents', () => {
  const source = join(folder, 'source')
  mkdirSync(join(source, 'EFI/many'), { recursive: true })
  const many = Array.from({ length: 700 }, (_, i) => `a file with a long name ${i}`)
  for (const name of many) writeFileSync(join(source, 'EFI/many', name), name)
  writeFileSync(join(source, 'KERNEL.BIN'), bytes(100_001))
  writeFileSync(join(source, 'größe.tar.gz'), 'umlaut')
  writeFileSync(join(source, 'empty'), '')
  const image = imageOf(source)
  const listed = grub(image, 'ls', '(loop0,msdos1)/EFI/many/')
  assert.deepEqual(grub(image, 'ls', '(loop0,msdos1)/').trim().split(' ').sort(), ['efi/', 'empty', 'größe.tar.gz', 'kernel.bin'])
  assert.ok(many.every(name => listed.includes(`${name} `)))
  assert.equal(grub(image, 'cat', `(loop0,msdos1)/EFI/many/${many[699]}`), many[699])
  assert.equal(grub(image, 'cat', '(loop0,msdos1)/größe.tar.gz'), 'umlaut')
  assert.equal(grub(image, 'cat', '(loop0,msdos1)/empty'), '')
  grub(image, 'cmp', '(loop0,msdos1)/kernel.bin', join(source, 'KERNEL.BIN'))
})

/** Offsets of the root folder's entries: sector 63, one boot sector, two tables. */
function rootOf(files: FatEntry[]): string[] {
  const disk = fatDisk(files)
  const boot = new Uint8Array(512)
  disk.read(63 * 512, boot)
  const root = new Uint8Array(512 * 32)
  disk.read((64 + 2 * (boot[22] | boot[23] << 8)) * 512, root)
  const entries = Array.from({ length: 512 }, (_, i) => root.subarray(i * 32, i * 32 + 32))
  return entries.filter(entry => entry[0] !== 0 && entry[11] !== 0x0f).map(entry => String.fromCharCode(...entry.subarray(0, 11)))
}

test('short names are told apart', () => {
  const names = ['A.TXT', 'a.tx', 'longer than eight.text', 'longer than nine.text', '.hidden', 'x+y.c', 'X_Y.C']
  assert.deepEqual(rootOf(names.map(name => ({ name, content: bytes(1) }))), [
    'A       TXT', 'A       TX ', 'LONGER~1TEX', 'LONGER~2TEX', 'HIDDEN~1   ', 'X_Y~1   C  ', 'X_Y     C  ',
  ])
})

test('the same contents make the same disk; it cannot be written', () => {
  const files = [{ name: 'a', content: [{ name: 'b', content: bytes(70_000) }] }]
  const [first, second] = [fatDisk(files), fatDisk(files)].map(disk => {
    const start = new Uint8Array(1 << 20)
    disk.read(0, start)
    return start
  })
  assert.deepEqual(first, second)
  assert.equal(fatDisk(files).write(0, bytes(512)), 'error')
  assert.equal(fatDisk(files).read(fatDisk(files).byteLength - 1, bytes(2)), 'error')
})

test('what does not fit is said', () => {
  const refused = (files: FatEntry[], pattern: RegExp): void =>
    assert.throws(() => fatDisk(files), error => isInputError(error) && pattern.test(error.message))
  refused(Array.from({ length: 513 }, (_, i) => ({ name: `F${i}`, content: bytes(0) })), /at most 512 entries .* found 513/)
  refused([{ name: 'n'.repeat(256), content: bytes(0) }], /a name of at most 255 letters/)
  const large = { name: 'a', content: new Uint8Array(0) }
  Object.defineProperty(large.content, 'length', { value: 2 ** 31 })
  refused([large], /at most 2 GiB/)
  assert.throws(() => openFatFolder(join(folder, 'nowhere')), /cannot make a disk of the folder '.*nowhere': no such file/)
})
