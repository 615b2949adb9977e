/** Multiboot 2 and PVH, from kernels made here by the specifications' formats; corrupt files of every kind are refused in one line. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMemoryMap } from '../memory-map.ts'
import { type BootProtocol, loadBootImage } from './boot.ts'
import { BootError, type BootImage, viewOf } from './image.ts'
import type { BootModule } from './modules.ts'

const map = createMemoryMap('q35', 128 * 2 ** 20)
const rsdp = Uint8Array.from({ length: 36 }, (_, index) => index + 1)
const place = { map, rsdp }

const u16 = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff]
const u32 = (value: number): number[] => [...u16(value), ...u16(value >>> 16)]
const padded = (bytes: number[], unit = 8): number[] => [...bytes, ...new Array<number>((unit - (bytes.length % unit)) % unit).fill(0)]
const headerTag = (type: number, words: number[] = [], flags = 0): number[] =>
  padded([...u16(type), ...u16(flags), ...u32(8 + words.length * 4), ...words.flatMap(u32)])
const endTag = headerTag(0)

/** "Layout of Multiboot2 header". */
function header(...tags: number[][]): number[] {
  const body = [...tags, endTag].flat()
  const length = 16 + body.length
  return [...u32(0xe85250d6), ...u32(0), ...u32(length), ...u32(-(0xe85250d6 + length)), ...body]
}

/** A flat kernel at 1 MiB whose header lies at 100h. */
function flat(...tags: number[][]): Uint8Array {
  const file = new Uint8Array(0x1000).fill(0x90)
  file.set(header(headerTag(2, [0x100100, 0x100000, 0x100800, 0x102000]), headerTag(3, [0x100010]), ...tags), 0x100)
  return file
}

/** ELF64 (System V ABI): one segment, a note, section headers for a null section, .text and .symtab. */
function elf64({ tags = [] as number[][], multiboot = true, notes = pvhNote(0x200020) } = {}): Uint8Array {
  const file = new Uint8Array(0x1000)
  const view = viewOf(file)
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  view.setUint16(16, 2, true)
  view.setUint16(18, 62, true)
  view.setBigUint64(24, 0xffffffff80200040n, true)
  view.setBigUint64(32, 64n, true)
  view.setBigUint64(40, 0x800n, true)
  ;[64, 56, 2, 64, 3, 0].forEach((value, index) => view.setUint16(52 + index * 2, value, true))
  const program = (index: number, type: number, fields: bigint[]): void => {
    view.setUint32(64 + index * 56, type, true)
    view.setUint32(64 + index * 56 + 4, 5, true)
    fields.forEach((value, at) => view.setBigUint64(64 + index * 56 + 8 + at * 8, value, true))
  }
  program(0, 1, [0x100n, 0xffffffff80200000n, 0x200000n, 0x400n, 0x3000n])
  program(1, 4, [0x600n, 0n, 0n, BigInt(notes.length)])
  if (multiboot) file.set(header(...tags), 0x100)
  file.set(notes, 0x600)
  const section = (index: number, type: number, address: bigint, offset: bigint, size: bigint): void => {
    view.setUint32(0x800 + index * 64 + 4, type, true)
    ;[address, offset, size].forEach((value, at) => view.setBigUint64(0x800 + index * 64 + 16 + at * 8, value, true))
  }
  section(1, 1, 0xffffffff80200000n, 0x100n, 0x400n)
  section(2, 2, 0n, 0x900n, 8n)
  file.set([1, 2, 3, 4, 5, 6, 7, 8], 0x900)
  return file
}

function pvhNote(entry: number): Uint8Array {
  const other = [...u32(4), ...u32(2), ...u32(9), 0x58, 0x65, 0x6e, 0, 1, 2, 0, 0]
  return Uint8Array.from([...other, ...u32(4), ...u32(8), ...u32(18), 0x58, 0x65, 0x6e, 0, ...u32(entry), ...u32(0)])
}

function memoryAt(image: BootImage, address: number, length: number): Uint8Array {
  const write = image.writes.find(({ address: base, bytes }) => address >= base && address + length <= base + bytes.length)
  assert.ok(write, `nothing is written at 0x${address.toString(16)}`)
  return write.bytes.subarray(address - write.address, address - write.address + length)
}
const u32At = (image: BootImage, address: number): number => viewOf(memoryAt(image, address, 4)).getUint32(0, true)
const u64At = (image: BootImage, address: number): number => Number(viewOf(memoryAt(image, address, 8)).getBigUint64(0, true))
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
const boot = (kernel: Uint8Array, protocol: BootProtocol, modules: BootModule[] = []): BootImage =>
  loadBootImage({ kernel, kernelName: 'path/kernel', commandLine: 'a=1 b', modules, protocol }, place)!
const two: BootModule[] = [
  { name: 'dir/one', arguments: 'x y', bytes: Uint8Array.of(7, 8, 9) }, { name: 'two', arguments: '', bytes: new Uint8Array(5000) },
]

/** The information's tags, by type. */
function tagsOf(image: BootImage): Map<number, Uint8Array[]> {
  const start = Number(image.registers.gpr[3])
  const size = u32At(image, start)
  assert.equal(start % 8, 0)
  const tags = new Map<number, Uint8Array[]>()
  for (let at = start + 8; at < start + size;) {
    const [type, length] = [u32At(image, at), u32At(image, at + 4)]
    tags.set(type, [...(tags.get(type) ?? []), memoryAt(image, at + 8, length - 8)])
    at += (length + 7) & ~7
    if (type === 0) assert.equal(at, start + size)
  }
  return tags
}

const fails = (pattern: RegExp, run: () => unknown): void =>
  assert.throws(run, error => {
    assert.ok(error instanceof BootError, String(error))
    assert.match(error.message, pattern)
    return !error.message.includes('\n')
  })

test('multiboot 2: ESP, which the specification leaves open, is the end of a free KiB of RAM, as under GRUB', () => {
  const image = boot(flat(), 'multiboot2')
  const top = Number(image.registers.gpr[4])
  assert.ok(memoryAt(image, top - 1024, 1024).every(byte => byte === 0))
})

test('multiboot 2: a flat kernel, and the information that it gets', () => {
  const image = boot(flat(), 'multiboot2', two)
  assert.deepEqual([image.registers.mode, image.registers.rip, image.registers.gpr[0]], ['protected32', 0x100010, 0x36d76289n])
  assert.equal(memoryAt(image, 0x100000, 0x800).length, 0x800)
  assert.deepEqual(image.zeros, [{ address: 0x100800, length: 0x1800 }])
  const tags = tagsOf(image)
  assert.deepEqual([...tags.keys()], [1, 2, 3, 4, 6, 14, 15, 0])
  assert.equal(text(tags.get(1)![0]), 'a=1 b')
  assert.match(text(tags.get(2)![0]), /GRUB 2/)
  const modules = tags.get(3)!.map(bytes => [viewOf(bytes).getUint32(0, true), viewOf(bytes).getUint32(4, true), text(bytes.subarray(8))])
  const shapes = modules.map(([start, end, line]) => [Number(start) % 4096, Number(end) - Number(start), line])
  assert.deepEqual(shapes, [[0, 3, 'x y'], [0, 5000, '']])
  assert.deepEqual([...memoryAt(image, Number(modules[0][0]), 3)], [7, 8, 9])
  assert.ok(Number(modules[0][0]) >= 0x102000)
  assert.equal(viewOf(tags.get(4)![0]).getUint32(0, true), 639)
  const memory = viewOf(tags.get(6)![0])
  assert.deepEqual([memory.getUint32(0, true), memory.getUint32(4, true), memory.byteLength], [24, 0, 8 + 24 * map.e820.length])
  assert.deepEqual([memory.getBigUint64(8 + 24, true), memory.getUint32(8 + 24 + 16, true)], [BigInt(map.e820[1].base), map.e820[1].type])
  assert.deepEqual([[...tags.get(14)![0]], [...tags.get(15)![0]]], [[...rsdp.subarray(0, 20)], [...rsdp]])
})

test('multiboot 2: a 64-bit ELF file with its sections', () => {
  const image = boot(elf64(), 'multiboot2')
  assert.equal(image.registers.rip, 0x200040)
  const sections = tagsOf(image).get(9)![0]
  const view = viewOf(sections)
  assert.deepEqual([0, 4, 8].map(at => view.getUint32(at, true)), [3, 64, 0])
  assert.equal(view.getBigUint64(12 + 64 + 16, true), 0xffffffff80200000n)
  const symbols = Number(view.getBigUint64(12 + 2 * 64 + 16, true))
  assert.ok(symbols >= 0x203000)
  assert.deepEqual([...memoryAt(image, symbols, 8)], [1, 2, 3, 4, 5, 6, 7, 8])
})

test('multiboot 2: a relocatable kernel goes where its preference says', () => {
  const relocated = (preference: number, lowest = 0x400000): BootImage =>
    boot(elf64({ tags: [headerTag(10, [lowest, 0x7ffffff, 0x200000, preference]), headerTag(3, [0x200020])] }), 'multiboot2')
  assert.equal(relocated(1).registers.rip, 0x400020)
  assert.equal(viewOf(tagsOf(relocated(1)).get(21)![0]).getUint32(0, true), 0x400000)
  assert.equal(relocated(2).registers.rip, 0x7e00020)
  assert.equal(relocated(0, 0x100000).registers.rip, 0x200020)
})

test('multiboot 2 refusals', () => {
  fails(/tags that this loader knows, found 77 at 0x/, () => boot(flat(headerTag(77)), 'multiboot2'))
  fails(/multiboot 2 tag 17 at/, () => boot(flat(headerTag(1, [6, 17])), 'multiboot2'))
  fails(/without a framebuffer, found tag 5 required/, () => boot(flat(headerTag(5, [0, 0, 32])), 'multiboot2'))
  assert.ok(boot(flat(headerTag(77, [], 1), headerTag(1, [17], 1), headerTag(5, [0, 0, 32], 1), headerTag(9, [0x100000], 1)), 'multiboot2'))
  const noEnd = flat()
  noEnd.set([...u32(0xe85250d6), ...u32(0), ...u32(16), ...u32(-(0xe85250d6 + 16))], 0x100)
  fails(/expected an end tag .* found none/, () => boot(noEnd, 'multiboot2'))
  fails(/a multiboot 2 header in the first 32768 bytes, found none/, () => boot(elf64({ multiboot: false }), 'multiboot2'))
  fails(/truncated/, () => boot(elf64().subarray(0, 0x4ff), 'multiboot2'))
})

test('PVH: the note names the entry, RBX points to the start information', () => {
  const image = boot(elf64({ multiboot: false }), 'pvh', two)
  assert.deepEqual([image.registers.mode, image.registers.rip], ['protected32', 0x200020])
  const start = Number(image.registers.gpr[3])
  assert.deepEqual([0, 4, 8, 12].map(at => u32At(image, start + at)), [0x336ec578, 1, 0, 2])
  const [list, line, acpi, memory] = [16, 24, 32, 40].map(at => u64At(image, start + at))
  assert.deepEqual([u32At(image, start + 48), acpi], [map.e820.length, map.rsdp])
  assert.equal(text(memoryAt(image, line, 6)), 'a=1 b')
  assert.deepEqual([...memoryAt(image, u64At(image, list), 3)], [7, 8, 9])
  assert.equal(u64At(image, list + 8), 3)
  assert.equal(text(memoryAt(image, u64At(image, list + 16), 4)), 'x y')
  assert.equal(u64At(image, list + 32 + 8), 5000)
  const { [1]: second } = map.e820
  const found = [u64At(image, memory + 24), u64At(image, memory + 32), u32At(image, memory + 40)]
  assert.deepEqual(found, [second.base, second.size, second.type])
})

test('PVH refusals', () => {
  fails(/in a loaded segment, found it in none/, () => boot(elf64({ notes: pvhNote(0x10) }), 'pvh'))
  fails(/an ELF note of Xen with a PVH entry point \(type 18\), found none/, () => boot(elf64({ notes: new Uint8Array(8) }), 'pvh'))
})

test('the kind is told from the bytes: multiboot 2 before PVH', () => {
  const entry = (kernel: Uint8Array): number => loadBootImage({ kernel }, place)!.registers.rip
  assert.deepEqual([entry(elf64()), entry(elf64({ multiboot: false }))], [0x200040, 0x200020])
})

test('corrupt and truncated files end in one line, whatever is wrong with them', () => {
  let seed = 1
  const random = (below: number): number => {
    seed = Math.imul(seed, 1103515245) + 12345 >>> 0
    return (seed >>> 8) % below
  }
  const protocols: BootProtocol[] = ['linux', 'multiboot', 'multiboot2', 'pvh']
  for (let round = 0; round < 4000; round++) {
    const whole = round & 1 ? elf64() : flat(headerTag(10, [0, 0x7ffffff, 4096, 1]), headerTag(1, [1]))
    const file = whole.subarray(0, random(8) ? undefined : random(0x1000))
    const places = Array.from({ length: 1 + random(3) }, () => (random(2) ? random(0xa00) : 0x100 + random(0x60)))
    for (const at of places) if (at < file.length) file[at] = random(4) ? random(256) : 0xff
    try {
      boot(file, protocols[random(4)], two)
    } catch (error) {
      assert.ok(error instanceof BootError, error as Error)
      assert.ok(!error.message.includes('\n'))
    }
  }
})
