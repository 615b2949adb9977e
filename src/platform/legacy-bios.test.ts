/**
 * What a BIOS leaves behind: the timer ticks 18.2 times a second at vector 08h (IBM PC/AT Technical Reference, "System BIOS Usage"), and
 * memory sizes (ACPI specification, "INT 15H, E820H - Query System Address Map").
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { StopReason } from '../api.ts'
import { createMachine, type VitrineMachine } from '../machine.ts'

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

/** Runs real-mode code, with IDT and stack set, after a multiboot boot. */
function inRealMode(realMode: number[]): { stop: StopReason; machine: VitrineMachine } {
  // lgdt [0x7100]; jmp 18h:0x702e; then 16-bit: mov eax, cr0; and al, 0xfe; mov cr0, eax; jmp 0:x;
  // xor ax, ax; mov ss, ax; mov sp, 0x6f00; lidt [0x7110]
  const code = [
    0x0f, 0x01, 0x15, 0x00, 0x71, 0, 0,
    0xea, 0x2e, 0x70, 0, 0, 0x18, 0,
    0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0,
    0xea, 0x3b, 0x70, 0, 0,
    0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x6f, 0x0f, 0x01, 0x1e, 0x10, 0x71,
    ...realMode,
  ]
  const image = new Uint8Array(0x140)
  image.set(kernel([...code, ...new Array<number>(0x100 - code.length - 32).fill(0)]))
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
  }) as VitrineMachine
  return { stop: machine.run({ untilTime: 1e9 }), machine }
}

test('a real-mode HLT after a multiboot boot is ended by the timer, and the handler returns', () => {
  // sti; hlt; mov al, 0x11; out 0xf4, al
  const { stop, machine } = inRealMode([0xfb, 0xf4, 0xb0, 0x11, 0xe6, 0xf4])
  assert.deepEqual(stop, { kind: 'debug-exit', status: (0x11 << 1) | 1 })
  assert.ok(machine.now > 1e6 && machine.now < 60e6, `the tick came after ${machine.now} ns`)
})

test('INT 15h E820h gives the memory map, entry after entry, with EBX 0 at the last; other functions fail with carry', () => {
  // xor ax, ax; mov ds, ax; mov es, ax; xor ebx, ebx; mov di, 7a00h; next: mov eax, E820h; mov edx, 'SMAP'; mov ecx, 20; int 15h; jc out;
  // add di, cx; test ebx, ebx; jnz next; mov ah, 34h; int 15h; jnc out; int 12h; mov [79f0h], ax; out: mov al, 22h; out 0xf4, al
  const { stop, machine } = inRealMode([
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x66, 0x31, 0xdb, 0xbf, 0x00, 0x7a,
    0x66, 0xb8, 0x20, 0xe8, 0, 0, 0x66, 0xba, 0x50, 0x41, 0x4d, 0x53, 0x66, 0xb9, 20, 0, 0, 0, 0xcd, 0x15, 0x72, 0x12,
    0x01, 0xcf, 0x66, 0x85, 0xdb, 0x75, 0xe3, 0xb4, 0x34, 0xcd, 0x15, 0x73, 0x05, 0xcd, 0x12, 0xa3, 0xf0, 0x79,
    0xb0, 0x22, 0xe6, 0xf4,
  ])
  assert.deepEqual(stop, { kind: 'debug-exit', status: (0x22 << 1) | 1 })
  const { e820 } = machine.pc.map
  const bytes = machine.readPhysical(0x7a00, e820.length * 20)
  const view = new DataView(bytes.buffer)
  const found = e820.map((_, index) => ({
    base: Number(view.getBigUint64(index * 20, true)), size: Number(view.getBigUint64(index * 20 + 8, true)),
    type: view.getUint32(index * 20 + 16, true),
  }))
  assert.deepEqual(found, e820)
  assert.deepEqual([...machine.readPhysical(0x79f0, 2)], [639 & 0xff, 639 >> 8])
})
