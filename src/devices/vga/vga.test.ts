/** VGA's registers, planes and text screen, as the IBM VGA Technical Reference describes them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PciSlot } from '../pci/function.ts'
import { FakeClock } from '../testing/fakes.ts'
import { codePage437, mode3 } from './registers.ts'
import { Vga } from './vga.ts'

function make(afterFirmware = true) {
  const clock = new FakeClock()
  const vga = new Vga({} as PciSlot, clock, afterFirmware)
  const out = (port: number, value: number, size: 1 | 2 = 1): void => vga.ports.writePort(port, size, value)
  const input = (port: number): number => vga.ports.readPort(port, 1)
  return { vga, clock, out, input, read: (at: number) => vga.window.readMmio(at - 0xa0000, 1),
    write: (at: number, value: number, size: 1 | 2 | 4 = 1) => vga.window.writeMmio(at - 0xa0000, size, value) }
}

test('text at B8000h is shown, a line ends at its last character, and the start address scrolls', () => {
  const { vga, write, out } = make()
  assert.deepEqual([vga.screen()!.columns, vga.screen()!.rows], [80, 25])
  ;[...'Hi'].forEach((letter, index) => write(0xb8000 + 160 + index * 2, 0x0700 | letter.charCodeAt(0), 2))
  write(0xb8000 + 24 * 160, 0x07cd07c9, 4)
  assert.deepEqual([vga.screen()!.lines[0], vga.screen()!.lines[1], vga.screen()!.lines[24]], ['', 'Hi', '╔═'])
  out(0x3d4, (80 << 8) | 0x0d, 2)
  assert.equal(vga.screen()!.lines[0], 'Hi')
  out(0x3d4, (165 << 8) | 0x0f, 2)
  assert.deepEqual(vga.screen()!.cursor, { row: 1, column: 5 })
})

test('code page 437 has 256 characters', () => {
  assert.equal([...codePage437].length, 256)
  assert.deepEqual([codePage437[0x41], codePage437[0xdb], codePage437[0xff]], ['A', '█', ' '])
})

test('a font goes into plane 2 while planes are addressed one by one', () => {
  const { vga, out, write, read } = make()
  const settings = [[0x3c4, 2, 4], [0x3c4, 4, 7], [0x3ce, 5, 0], [0x3ce, 6, 4], [0x3ce, 4, 2]]
  for (const [port, index, value] of settings) out(port, (value << 8) | index, 2)
  write(0xa0020, 0x5a)
  assert.equal(read(0xa0020), 0x5a)
  assert.equal(read(0xb8000), 0xff, 'not in the window of 64 KiB')
  out(0x3ce, 0x0004, 2)
  assert.equal(read(0xa0020), 0x20, 'plane 0 has the blanks of the screen')
  assert.equal(vga.screen()!.lines.join(''), '')
})

test('write modes: set/reset and bit mask, latches, color expansion', () => {
  const { out, write, read } = make()
  for (const [port, index, value] of [[0x3c4, 2, 15], [0x3c4, 4, 6], [0x3ce, 5, 0], [0x3ce, 6, 5]]) out(port, (value << 8) | index, 2)
  const plane = (number: number, at: number): number => {
    out(0x3ce, (number << 8) | 4, 2)
    return read(at)
  }
  out(0x3ce, 0x0500, 2)
  out(0x3ce, 0x0f01, 2)
  out(0x3ce, 0xf008, 2)
  write(0xa1000, 0)
  assert.deepEqual([0, 1, 2, 3].map(each => plane(each, 0xa1000)), [0xf0, 0, 0xf0, 0])
  out(0x3ce, 0x0105, 2)
  write(0xa1001, 0)
  assert.deepEqual([0, 1, 2, 3].map(each => plane(each, 0xa1001)), [0xf0, 0, 0xf0, 0], 'mode 1 copies the latches')
  out(0x3ce, 0x0205, 2)
  out(0x3ce, 0xff08, 2)
  write(0xa1002, 0x0a)
  assert.deepEqual([0, 1, 2, 3].map(each => plane(each, 0xa1002)), [0, 0xff, 0, 0xff])
  out(0x3ce, 0x0805, 2)
  out(0x3ce, 0x0a02, 2)
  assert.equal(read(0xa1002), 0xff, 'read mode 1: all pixels have color 10')
})

test('registers: the attribute flip-flop, protected CRTC registers, the palette, retrace', () => {
  const { out, input, clock } = make()
  input(0x3da)
  out(0x3c0, 0x10)
  out(0x3c0, 0x41)
  out(0x3c0, 0x10)
  assert.equal(input(0x3c1), 0x41)
  out(0x3d4, 0x1100 | 0, 2)
  assert.equal((out(0x3d4, 0), input(0x3d5)), mode3.crtc[0], 'CR11 bit 7 protects registers 0 to 7')
  out(0x3c8, 5)
  ;[1, 2, 0xff].forEach(value => out(0x3c9, value))
  out(0x3c7, 5)
  assert.deepEqual([input(0x3c9), input(0x3c9), input(0x3c9)], [1, 2, 0x3f])
  assert.equal(input(0x3da) & 8, 8)
  clock.advance(1_000_000)
  assert.equal(input(0x3da) & 8, 0)
})

test('before a BIOS has set a mode nothing is shown; a graphics mode is not text; state comes back', () => {
  assert.equal(make(false).vga.screen(), undefined)
  const { vga, out, write } = make()
  write(0xb8000, 0x0741, 2)
  const saved = JSON.parse(JSON.stringify(vga.saveState())) as unknown
  out(0x3ce, 0x0506, 2)
  assert.equal(vga.screen(), undefined)
  const other = make(false)
  other.vga.restoreState(saved)
  assert.equal(other.vga.screen()!.lines[0], 'A')
})
