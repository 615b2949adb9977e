/** What a BIOS leaves behind: the timer ticks 18.2 times a second at vector 08h. IBM PC/AT Technical Reference, "System BIOS Usage". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from '../machine.ts'

/** A multiboot kernel by addresses: the header, then 32-bit code. */
function kernel(code: number[]): Uint8Array {
  const load = 0x7000
  const bytes = new Uint8Array(32 + code.length)
  const view = new DataView(bytes.buffer)
  const flags = 0x10000
  ;[0x1badb002, flags, -(0x1badb002 + flags), load, load, load + bytes.length, load + bytes.length, load + 32].forEach((value, i) =>
    view.setUint32(i * 4, value, true),
  )
  bytes.set(code, 32)
  return bytes
}

test('a real-mode HLT after a multiboot boot is ended by the timer, and the handler returns', () => {
  // lgdt [0x7100]; jmp 18h:0x702e; then 16-bit: mov eax, cr0; and al, 0xfe; mov cr0, eax; jmp 0:x;
  // xor ax, ax; mov ss, ax; mov sp, 0x6f00; lidt [0x7110]; sti; hlt; mov al, 0x11; out 0xf4, al
  const code = [
    0x0f, 0x01, 0x15, 0x00, 0x71, 0, 0,
    0xea, 0x2e, 0x70, 0, 0, 0x18, 0,
    0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0,
    0xea, 0x3b, 0x70, 0, 0,
    0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x6f, 0x0f, 0x01, 0x1e, 0x10, 0x71,
    0xfb, 0xf4, 0xb0, 0x11, 0xe6, 0xf4,
  ]
  const image = new Uint8Array(0x140)
  image.set(kernel([...code, ...new Array<number>(0x120 - code.length - 32).fill(0)]).subarray(0, 0x120))
  const view = new DataView(image.buffer)
  const gdt = 0x7120
  view.setUint32(20, 0x7000 + image.length, true)
  view.setUint32(24, 0x7000 + image.length, true)
  view.setUint16(0x100, 31, true)
  view.setUint32(0x102, gdt, true)
  view.setUint16(0x110, 0x3ff, true)
  view.setBigUint64(0x120 + 24, 0x00009b000000ffffn, true)
  const machine = createMachine({
    kernel: image, memory: 4 << 20,
    devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x4' } }],
  })
  assert.deepEqual(machine.run({ untilTime: 1e9 }), { kind: 'debug-exit', status: (0x11 << 1) | 1 })
  assert.ok(machine.now > 1e6 && machine.now < 60e6, `the tick came after ${machine.now} ns`)
})
