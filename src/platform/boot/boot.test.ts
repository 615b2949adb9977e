/**
 * Tests of the boot loaders: Linux's boot protocol and multiboot 1 as their documents say, and the messages for files that cannot be
 * booted.
 */
import assert from 'node:assert/strict'
import test from 'node:test'
import { createMemoryMap, isUsable } from '../memory-map.ts'
import { loadBootImage } from './boot.ts'
import { parseElf, physicalEntry } from './elf.ts'
import { BootError, type BootImage, viewOf } from './image.ts'
import { loadLinux } from './linux.ts'
import type { BootModule } from './modules.ts'
import { loadMultiboot } from './multiboot.ts'

const MiB = 2 ** 20
const map = createMemoryMap('q35', 512 * MiB)
const place = { map, rsdp: new Uint8Array(36).fill(0x52) }

function bzImage(change: (view: DataView, file: Uint8Array) => void = () => {}): Uint8Array {
  const file = new Uint8Array(5 * 512 + 0x8000)
  const view = viewOf(file)
  file[0x1f1] = 4
  view.setUint32(0x1f4, 0x8000 / 16, true)
  view.setUint16(0x1fe, 0xaa55, true)
  file[0x201] = 0x66 // the header ends at 268h
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  file[0x211] = 1
  view.setUint32(0x22c, 0x7fffffff, true)
  view.setUint32(0x230, 0x200000, true)
  file[0x234] = 1
  view.setUint16(0x236, 0x7f, true)
  view.setUint32(0x238, 2047, true)
  view.setBigUint64(0x258, 0x1000000n, true)
  view.setUint32(0x260, 0x3378000, true)
  file.fill(0x90, 5 * 512)
  change(view, file)
  return file
}

const linux = (kernel: Uint8Array, more: { initrd?: Uint8Array; commandLine?: string } = {}, memory = map): BootImage =>
  loadLinux({ kernel, commandLine: '', e820: memory.e820, rsdp: memory.rsdp, ...more })

/** Bytes of an image as memory would hold them. */
function memoryAt(image: BootImage, address: number, length: number): Uint8Array {
  const write = image.writes.find(({ address: base, bytes }) => address >= base && address + length <= base + bytes.length)
  assert.ok(write, `nothing is written at 0x${address.toString(16)}`)
  return write.bytes.subarray(address - write.address, address - write.address + length)
}
const u32At = (image: BootImage, address: number): number => viewOf(memoryAt(image, address, 4)).getUint32(0, true)
const module = (name: string, text = '', bytes = Uint8Array.of(1, 2, 3)): BootModule => ({ name, arguments: text, bytes })
const stringAt = (image: BootImage, address: number): string => {
  const write = image.writes.find(({ address: base, bytes }) => address >= base && address < base + bytes.length)!
  const rest = write.bytes.subarray(address - write.address)
  return new TextDecoder().decode(rest.subarray(0, rest.indexOf(0)))
}
const fails = (pattern: RegExp, run: () => unknown): void =>
  assert.throws(run, error => {
    assert.ok(error instanceof BootError, String(error))
    assert.match(error.message, pattern)
    return !error.message.includes('\n')
  })

test('Linux starts at the 64-bit entry point with the zero page in RSI and identity-mapped memory', () => {
  const image = linux(bzImage(), { commandLine: 'console=ttyS0' })
  const { registers } = image
  assert.equal(registers.mode, 'long64')
  assert.equal(registers.rip, 0x1000200)
  assert.equal(memoryAt(image, 0x1000000, 1)[0], 0x90)
  const zeroPage = Number(registers.gpr[6])
  assert.equal(u32At(image, zeroPage + 0x202), 0x53726448)
  assert.equal(memoryAt(image, zeroPage + 0x210, 1)[0], 0xff)
  assert.equal(stringAt(image, u32At(image, zeroPage + 0x228)), 'console=ttyS0')
  assert.equal(u32At(image, zeroPage + 0x70), map.rsdp)
  assert.equal(memoryAt(image, zeroPage + 0x1ef, 1)[0], 0)
  assert.equal(memoryAt(image, zeroPage + 0x1e8, 1)[0], map.e820.length)
  assert.deepEqual([registers.selectors.cs, registers.selectors.ds, registers.selectors.ss], [0x10, 0x18, 0x18])
  assert.equal(viewOf(memoryAt(image, registers.gdt.base + 0x10, 8)).getBigUint64(0, true), 0x00af9b000000ffffn)
})

test('a kernel without the 64-bit entry starts at its beginning in protected mode', () => {
  const { registers } = linux(bzImage(view => view.setUint16(0x236, 0, true)))
  assert.deepEqual([registers.mode, registers.rip, registers.selectors.cs, registers.selectors.ds], ['protected32', 0x1000000, 0x10, 0x18])
  assert.deepEqual([registers.gpr[6], registers.gpr[3], registers.gpr[5], registers.gpr[7]], [0x7000n, 0n, 0n, 0n])
})

test('the last paragraph of the system may be cut, as its size counts whole ones', () => {
  assert.equal(memoryAt(linux(bzImage().subarray(0, -8)), 0x1000000, 1)[0], 0x90)
  fails(/truncated/, () => linux(bzImage().subarray(0, -16)))
})

test('the page tables map every address below 4 GiB to itself, as a table walk sees it', () => {
  const image = linux(bzImage())
  const entry = (table: number, index: number): number => Number(viewOf(memoryAt(image, table + index * 8, 8)).getBigUint64(0, true))
  for (const address of [0, 0x1234567, 0x40000000, 0xb0000000, 0xffffffff]) {
    const pdpt = entry(image.registers.cr3, 0)
    const pd = entry(pdpt & ~0xfff, Math.floor(address / 2 ** 30))
    const page = entry(pd & ~0xfff, Math.floor(address / 2 ** 21) % 512)
    assert.deepEqual([pdpt & 3, pd & 3, page & 0x83], [3, 3, 0x83])
    assert.equal(page - 0x83, Math.floor(address / 2 ** 21) * 2 ** 21)
  }
})

test('the initrd lies as high as the kernel and RAM allow, on a page', () => {
  const initrd = new Uint8Array(5000).fill(7)
  const image = linux(bzImage(), { initrd })
  const zeroPage = Number(image.registers.gpr[6])
  const address = u32At(image, zeroPage + 0x218)
  assert.equal(address, map.acpiTables.base - 8192)
  assert.equal(u32At(image, zeroPage + 0x21c), 5000)
  const low = linux(bzImage(view => view.setUint32(0x22c, 0x7ffffff, true)), { initrd })
  assert.equal(u32At(low, Number(low.registers.gpr[6]) + 0x218), 0x8000000 - 8192)
})

test('a relocatable kernel that does not fit at its preferred address goes to the lowest aligned one', () => {
  const small = createMemoryMap('pc', 64 * MiB)
  assert.equal(linux(bzImage(), {}, small).registers.rip, 0x200200)
  fails(/expected .* bytes of usable RAM .*more memory/, () => linux(bzImage(view => view.setUint8(0x234, 0)), {}, small))
  fails(/more memory/, () => linux(bzImage(), {}, createMemoryMap('pc', 32 * MiB)))
})

test('Linux files that cannot be booted are refused with what is wrong', () => {
  fails(/found 20000: the file is truncated/, () => linux(bzImage().subarray(0, 20000)))
  fails(/truncated/, () => linux(bzImage().subarray(0, 0x220)))
  fails(/the boot signature 0xaa55 at 0x1fe, found 0x0/, () => linux(bzImage(view => view.setUint16(0x1fe, 0, true))))
  fails(/a power of two at 0x230, found 0x300000/, () => linux(bzImage(view => view.setUint32(0x230, 0x300000, true))))
  fails(/one file for this kernel, found 2/, () => loadBootImage({ kernel: bzImage(), modules: [module('a'), module('b')] }, place))
  fails(/found 2\.4/, () => linux(bzImage(view => view.setUint16(0x206, 0x204, true))))
  fails(/at most 2047 bytes .* found 3000/, () => linux(bzImage(), { commandLine: 'x'.repeat(3000) }))
  fails(/initrd: expected at most .* found 503316480/, () => linux(bzImage(), { initrd: new Uint8Array(480 * MiB) }))
})

test('what is no kernel at all is named', () => {
  const file = (text: string): Uint8Array => new TextEncoder().encode(text)
  fails(/found a text file beginning "hello/, () => loadBootImage({ kernel: file('hello world\n') }, place))
  fails(/found an empty file/, () => loadBootImage({ kernel: new Uint8Array(0) }, place))
  fails(/gzip/, () => loadBootImage({ kernel: Uint8Array.of(0x1f, 0x8b, 8, 0) }, place))
  fails(/initrd: expected a kernel/, () => loadBootImage({ initrd: file('x') }, place))
})

interface ElfOptions {
  bits?: 32 | 64
  machine?: number
  physical?: number
  virtual?: number
  entry?: number
  memorySize?: number
  flags?: number
}

/** An ELF file with one segment of 64 bytes at file offset 100h, which begins with a multiboot header. */
function elfFile(options: ElfOptions = {}): Uint8Array {
  const {
    bits = 32, machine = 3, physical = 0x400000, virtual = physical, entry = virtual + 0x20, memorySize = 0x2040, flags = 0,
  } = options
  const file = new Uint8Array(0x140)
  const view = viewOf(file)
  file.set([0x7f, 0x45, 0x4c, 0x46, bits / 32, 1, 1])
  view.setUint16(16, 2, true)
  view.setUint16(18, machine, true)
  const word = (offset: number, value: number): void => {
    if (bits === 32) view.setUint32(offset, value, true)
    else view.setBigUint64(offset, BigInt(value), true)
  }
  const [programOffset, wide] = bits === 32 ? [52, 4] : [64, 8]
  word(24, entry)
  word(24 + wide, programOffset)
  view.setUint16(bits === 32 ? 42 : 54, bits === 32 ? 32 : 56, true)
  view.setUint16(bits === 32 ? 44 : 56, 1, true)
  view.setUint32(programOffset, 1, true)
  view.setUint32(programOffset + (bits === 32 ? 24 : 4), 5, true)
  const fields = programOffset + (bits === 32 ? 4 : 8)
  ;[0x100, virtual, physical, 0x40, memorySize].forEach((value, index) => word(fields + index * wide, value))
  view.setUint32(0x100, 0x1badb002, true)
  view.setUint32(0x104, flags, true)
  view.setUint32(0x108, -(0x1badb002 + flags), true)
  return file
}

const multiboot = (kernel: Uint8Array, modules: BootModule[] = [], commandLine = 'foo bar'): BootImage =>
  loadMultiboot({ kernel, kernelName: 'x.flat', commandLine, modules, e820: map.e820 })

test('multiboot: ESP, which the specification leaves open, is the end of a free KiB of RAM, as under GRUB', () => {
  const image = multiboot(elfFile())
  const top = Number(image.registers.gpr[4])
  assert.ok(isUsable(map.e820, top - 1024, 1024))
  const pieces = [...image.writes.map(({ address, bytes }) => ({ address, length: bytes.length })), ...image.zeros]
  assert.deepEqual(pieces.filter(({ address, length }) => address < top && address + length > top - 1024), [])
})

test('multiboot: flags, memory, command line and map as QEMU 7.2 gives them', () => {
  const image = multiboot(elfFile())
  const { registers } = image
  assert.deepEqual([registers.mode, registers.rip, registers.gpr[0]], ['protected32', 0x400020, 0x2badb002n])
  const info = Number(registers.gpr[3])
  assert.equal(u32At(image, info), 0x24f)
  assert.equal(u32At(image, info + 4), 639)
  assert.equal(u32At(image, info + 8), (map.acpiTables.base - MiB) / 1024)
  assert.equal(u32At(image, info + 12), 0x8000ffff)
  assert.equal(stringAt(image, u32At(image, info + 16)), 'x.flat foo bar')
  assert.equal(u32At(image, info + 20), 0)
  const [length, address] = [u32At(image, info + 44), u32At(image, info + 48)]
  assert.equal(length, map.e820.length * 24)
  assert.deepEqual([0, 4, 8, 12, 16, 20].map(offset => u32At(image, address + offset)), [20, 0, 0, 0x9fc00, 0, 1])
  assert.deepEqual(image.zeros, [{ address: 0x400040, length: 0x2000 }])
  assert.deepEqual([registers.selectors.cs, registers.selectors.ds], [8, 0x10])
})

test('multiboot modules lie on pages behind the kernel, with start, end and command line in the list', () => {
  const given = [{ bytes: Uint8Array.of(1, 2, 3), name: 'env', arguments: '' }, { bytes: Uint8Array.of(4), name: 'two', arguments: 'a=b' }]
  const image = multiboot(elfFile(), given)
  const info = Number(image.registers.gpr[3])
  assert.equal(u32At(image, info + 20), 2)
  const list = u32At(image, info + 24)
  assert.ok(list >= 0x402040)
  const modules = [0, 1].map(index => [0, 4, 8].map(offset => u32At(image, list + index * 16 + offset)))
  const seen = modules.map(([start, end, name]) => [start % 4096, end - start, stringAt(image, name)])
  assert.deepEqual(seen, [[0, 3, 'env'], [0, 1, 'two a=b']])
  assert.deepEqual([...memoryAt(image, modules[0][0], 3)], [1, 2, 3])
})

test('a kernel that lies where QEMU keeps the information block gets both whole', () => {
  const image = multiboot(elfFile({ physical: 0x8000 }), [{ bytes: new Uint8Array(MiB), name: 'big', arguments: '' }])
  assert.equal(image.registers.rip, 0x8020)
  const info = Number(image.registers.gpr[3])
  assert.ok(info >= 0xb000 && info < 0x9fc00)
  assert.equal(u32At(image, u32At(image, info + 48)), 20)
  assert.ok(u32At(image, info + 24) >= MiB)
})

test('the a.out address fields say where a flat image goes', () => {
  const file = new Uint8Array(0x1000)
  const view = viewOf(file)
  const fields = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x100040, 0x100000, 0x100800, 0x101000, 0x100060]
  fields.forEach((value, index) => view.setUint32(0x40 + index * 4, value, true))
  const image = multiboot(file)
  assert.equal(image.registers.rip, 0x100060)
  const kernel = image.writes.find(({ what }) => what === 'kernel')!
  assert.deepEqual([kernel.address, kernel.bytes.length], [0x100000, 0x800])
  assert.deepEqual(image.zeros, [{ address: 0x100800, length: 0x800 }])
  view.setUint32(0x40 + 20, 0x200000, true)
  fails(/expected 1048576 bytes to load .* found 4096/, () => multiboot(file))
})

test('multiboot refusals: 64-bit ELF, unknown required flags, an entry outside, no RAM, a cut file', () => {
  fails(/32-bit i386 ELF .* found 64-bit/, () => multiboot(elfFile({ bits: 64, machine: 62 })))
  fails(/machine 62/, () => multiboot(elfFile({ machine: 62 })))
  fails(/flags .* 0x8/, () => multiboot(elfFile({ flags: 8 })))
  fails(/entry point 0x10 in a loaded segment/, () => multiboot(elfFile({ entry: 0x10 })))
  fails(/usable RAM at 0x30000000/, () => multiboot(elfFile({ physical: 0x30000000 })))
  fails(/usable RAM at 0xa0000/, () => multiboot(elfFile({ physical: 0xa0000 })))
  fails(/truncated/, () => multiboot(elfFile().subarray(0, 0x120)))
  fails(/module 0: expected at most/, () => multiboot(elfFile(), [{ bytes: new Uint8Array(600 * MiB), name: 'x', arguments: '' }]))
})

test('a 64-bit ELF file with the headers of multiboot 1 and 2 goes by the second, which loads it', () => {
  const kernel = elfFile({ bits: 64, machine: 62 })
  fails(/32-bit i386 ELF/, () => loadBootImage({ kernel }, place))
  const header = [0xe85250d6, 0, 24, -(0xe85250d6 + 24), 0, 8] // magic, i386, length, checksum, the tag that ends it
  header.forEach((word, i) => viewOf(kernel).setUint32(0x110 + 4 * i, word, true))
  assert.equal(loadBootImage({ kernel }, place)?.registers.gpr[0], 0x36d76289n)
})

test('ELF entry points that are virtual become physical', () => {
  assert.equal(physicalEntry(parseElf(elfFile({ physical: 0x200000, virtual: 0xc0200000 }))), 0x200020)
  assert.equal(physicalEntry(parseElf(elfFile({ physical: 0x200000, virtual: 0xc0200000, entry: 0x200030 }))), 0x200030)
})

test('raw images start where they lie, in the mode asked for', () => {
  const image = Uint8Array.of(0xf4)
  const real = loadBootImage({ raw: { image, at: 0x7c00, mode: 'real16' } }, place)!
  assert.deepEqual([real.registers.rip, real.registers.selectors.cs], [0x7c00, 0])
  const long = loadBootImage({ raw: { image, at: 0x100000, mode: 'long64' } }, place)!
  assert.equal(long.registers.rip, 0x100000)
  assert.equal(viewOf(memoryAt(long, long.registers.gdt.base + long.registers.selectors.cs, 8)).getBigUint64(0, true), 0x00af9b000000ffffn)
  fails(/raw image/, () => loadBootImage({ raw: { image, at: 0x40000000, mode: 'long64' } }, place))
})
