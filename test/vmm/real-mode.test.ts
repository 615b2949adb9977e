/** Guests in real mode and on their way out of it, with a second stage and without one: on VT-x that is virtual-8086 mode then. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'

const place = { vectors: 0, code: 0x8000, handler: 0x8100, code32: 0x8200, gdtPointer: 0x9000, gdt: 0x9100 } as const

const real = [
  0x31, 0xc0, // xor ax, ax
  0x8e, 0xd8, // mov ds, ax
  0x8e, 0xd0, // mov ss, ax
  0xbc, 0x00, 0x70, // mov sp, 7000h
  0xb8, 0x34, 0x12, // mov ax, 1234h
  0xe7, 0x10, // out 10h, ax
  0xcd, 0x21, // int 21h
  0x93, // xchg ax, bx
  0xe7, 0x11, // out 11h, ax
  0x89, 0xe0, // mov ax, sp
  0xba, 0x13, 0x00, // mov dx, 13h
  0xef, // out dx, ax
  0x0f, 0x01, 0x16, 0x00, 0x90, // lgdt [9000h]
  0x0f, 0x20, 0xc0, // mov eax, cr0
  0x0c, 0x01, // or al, 1
  0x0f, 0x22, 0xc0, // mov cr0, eax
  0x66, 0xea, 0x00, 0x82, 0x00, 0x00, 0x08, 0x00, // jmp 8:8200h
]
const handler = [0xbb, 0x78, 0x56, 0xcf] // mov bx, 5678h; iret
const protectedMode = [
  0xb8, 0x10, 0x00, 0x00, 0x00, // mov eax, 10h
  0x8e, 0xd8, // mov ds, eax
  0x8e, 0xd0, // mov ss, eax
  0xb8, 0xdd, 0xcc, 0xbb, 0xaa, // mov eax, aabbccddh
  0xa3, 0x00, 0xa0, 0x00, 0x00, // mov [a000h], eax
  0xa1, 0x00, 0xa0, 0x00, 0x00, // mov eax, [a000h]
  0xe7, 0x12, // out 12h, eax
  0xf4, // hlt
]
const quads = (...values: bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(values).buffer)

for (const cpu of ['intel', 'amd'] as const) {
  for (const paging of ['nested', 'shadow'] as const) {
    test(`from real mode to protected mode, ${cpu}, ${paging}`, () => {
      const written: [number, number, number][] = []
      const vmm = createVmm({
        cpu, paging,
        handlers: {
          portWrite: ({ port, size, value }) => {
            written.push([port, size, value])
            return 'done'
          },
          halt: () => 'stop',
        },
      })
      const guest = vmm.createGuest({ memory: 1 << 20 })
      guest.memory.write(place.vectors + 0x21 * 4, Uint8Array.of(0, 1, 0, 8)) // 0800:0100
      guest.memory.write(place.code, Uint8Array.from(real))
      guest.memory.write(place.handler, Uint8Array.from(handler))
      guest.memory.write(place.code32, Uint8Array.from(protectedMode))
      guest.memory.write(place.gdtPointer, Uint8Array.of(23, 0, 0, 0x91, 0, 0))
      guest.memory.write(place.gdt, quads(0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn))
      vmm.createVcpu(guest, {
        registers: { rip: 0, rflags: 2n, cr0: 0x10n, csSelector: place.code >> 4, csBase: place.code, csLimit: 0xffff, csAttributes: 0x9b },
      })
      const end = vmm.run()
      assert.equal(end.kind, 'done', end.kind === 'exit' ? end.explanation : '')
      assert.deepEqual(written, [[0x10, 2, 0x1234], [0x11, 2, 0x5678], [0x13, 2, 0x7000], [0x12, 4, 0xaabbccdd]])
    })
  }
}
