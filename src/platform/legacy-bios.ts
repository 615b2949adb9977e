/**
 * What a PC BIOS leaves behind for software that goes back to real mode: interrupt vectors that end their interrupt, memory sizes by
 * INT 12h and 15h, 8259s at vectors 08h and 70h, the timer ticking 18.2 times a second. Disks (INT 13h) there are none, and nothing counts
 * ticks at 40:6Ch. IBM PC/AT Technical Reference, "System BIOS Usage"; ACPI specification, "INT 15H, E820H".
 */
import type { MemoryWrite } from './boot/image.ts'
import { type E820Entry, usableFrom } from './memory-map.ts'

interface Ports { write(port: number, size: 1, value: number): void }

const romSegment = 0xf000
/** Of a processor after reset. */
const smiEntry = 0x38000
/** The AT's own places of the timer's handler, INT 12h, 13h, 15h and the dummy interrupt; the memory map lies where nothing else is. */
const offset = {
  memoryMap: 0xe100, disk: 0xec59, memorySize: 0xf841, system: 0xf859, masterIrq: 0xfea5, slaveIrq: 0xfec0, dummy: 0xff53,
} as const
const firstVector = { master: 0x08, slave: 0x70 } as const
const conventionalKiB = 639
const ebdaSegment = 0x9fc0
const firstSerialPort = 0x3f8
const oneMiB = 0x100000
const mapEntrySize = 20

// push ax; mov al, 20h (end of interrupt); out ...; pop ax; iret
const endMaster = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]
const endSlave = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]
const iret = [0xcf]
// push bp; mov bp, sp; or/and byte [bp+6] (the caller's flags: CF); pop bp; iret
const setCarry = [0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xcf]
const clearCarry = [0x55, 0x89, 0xe5, 0x80, 0x66, 0x06, 0xfe, 0x5d, 0xcf]

const own: Readonly<Record<number, number>> = { 0x12: offset.memorySize, 0x13: offset.disk, 0x15: offset.system }

function handlerOf(vector: number): number {
  if (vector >= firstVector.master && vector < firstVector.master + 8) return offset.masterIrq
  if (vector >= firstVector.slave && vector < firstVector.slave + 8) return offset.slaveIrq
  return own[vector] ?? offset.dummy
}

export function biosWrites(e820: readonly E820Entry[]): MemoryWrite[] {
  const vectors = new DataView(new ArrayBuffer(256 * 4))
  for (let vector = 0; vector < 256; vector++) {
    vectors.setUint16(vector * 4, handlerOf(vector), true)
    vectors.setUint16(vector * 4 + 2, romSegment, true)
  }
  const code = (at: number, bytes: readonly number[]): MemoryWrite =>
    ({ address: romSegment * 16 + at, bytes: Uint8Array.from(bytes), what: 'BIOS' })
  return [
    { address: 0, bytes: new Uint8Array(vectors.buffer), what: 'interrupt vectors' },
    { address: 0x400, bytes: dataArea(), what: 'BIOS data area' },
    // there is no handler to relocate: SMIs end where they begin
    { address: smiEntry, bytes: Uint8Array.of(0x0f, 0xaa), what: 'RSM' },
    code(offset.masterIrq, endMaster), code(offset.slaveIrq, endSlave), code(offset.dummy, iret),
    code(offset.memorySize, [0xb8, ...word(conventionalKiB), 0xcf]), // mov ax, KiB; iret
    code(offset.disk, [0xb4, 0x01, ...setCarry]), // mov ah, 1: invalid command
    code(offset.memoryMap, [...mapBytes(e820)]), code(offset.system, systemServices(e820)),
  ]
}

/** 40:0 the first serial port, 40:0Eh the extended BIOS data area, 40:13h conventional memory. */
function dataArea(): Uint8Array {
  const bytes = new Uint8Array(256)
  bytes.set(word(firstSerialPort), 0)
  bytes.set(word(ebdaSegment), 0x0e)
  bytes.set(word(conventionalKiB), 0x13)
  return bytes
}

function mapBytes(e820: readonly E820Entry[]): Uint8Array {
  const bytes = new Uint8Array(e820.length * mapEntrySize)
  const view = new DataView(bytes.buffer)
  e820.forEach(({ base, size, type }, index) => {
    view.setBigUint64(index * mapEntrySize, BigInt(base), true)
    view.setBigUint64(index * mapEntrySize + 8, BigInt(size), true)
    view.setUint32(index * mapEntrySize + 16, type, true)
  })
  return bytes
}

/** INT 15h: E820h, E801h and 88h; anything else fails with AH = 86h. */
function systemServices(e820: readonly E820Entry[]): number[] {
  const count = e820.length
  const above = usableFrom(e820, oneMiB)
  const upTo16 = Math.min(above, 15 * 1024)
  const blocks = Math.min(Math.floor((above - upTo16) / 64), 0xffff)
  return assemble([
    0x3d, 0x20, 0xe8, { jump: 0x75, to: 'not E820' }, // cmp ax, E820h; jne
    0x66, 0x81, 0xfa, 0x50, 0x41, 0x4d, 0x53, { jump: 0x75, to: 'fail' }, // cmp edx, 'SMAP'; jne
    0x66, 0x83, 0xfb, count, { jump: 0x73, to: 'fail' }, // cmp ebx, count; jae
    0x56, 0x57, 0x1e, 0x0e, 0x1f, // push si, di, ds; push cs; pop ds
    0x6b, 0xf3, mapEntrySize, 0x81, 0xc6, ...word(offset.memoryMap), // imul si, bx, 20; add si, memoryMap
    0xb9, ...word(mapEntrySize / 2), 0xfc, 0xf3, 0xa5, // mov cx, 10; cld; rep movsw
    0x1f, 0x5f, 0x5e, // pop ds, di, si
    0x66, 0x89, 0xd0, 0x66, 0xb9, mapEntrySize, 0, 0, 0, // mov eax, edx; mov ecx, 20
    0x66, 0x43, 0x66, 0x83, 0xfb, count, { jump: 0x72, to: 'done' }, // inc ebx; cmp ebx, count; jb
    0x66, 0x31, 0xdb, { jump: 0xeb, to: 'done' }, // xor ebx, ebx: that was the last
    { label: 'not E820' }, 0x3d, 0x01, 0xe8, { jump: 0x75, to: 'not E801' }, // cmp ax, E801h; jne
    0xb8, ...word(upTo16), 0x89, 0xc1, 0xbb, ...word(blocks), 0x89, 0xda, // mov ax, KiB; mov cx, ax; mov bx, blocks; mov dx, bx
    { jump: 0xeb, to: 'done' },
    { label: 'not E801' }, 0x80, 0xfc, 0x88, { jump: 0x75, to: 'fail' }, // cmp ah, 88h; jne
    0xb8, ...word(Math.min(above, 0xfc00)), // mov ax, KiB
    { label: 'done' }, ...clearCarry,
    { label: 'fail' }, 0xb4, 0x86, ...setCarry, // mov ah, 86h
  ])
}

type Item = number | { label: string } | { jump: number; to: string }

/** Bytes with short jumps to labels. */
function assemble(items: readonly Item[]): number[] {
  const labels = new Map<string, number>()
  let at = 0
  for (const item of items) {
    if (typeof item === 'number') at++
    else if ('label' in item) labels.set(item.label, at)
    else at += 2
  }
  const bytes: number[] = []
  for (const item of items) {
    if (typeof item === 'number') bytes.push(item)
    else if ('jump' in item) bytes.push(item.jump, (labels.get(item.to)! - bytes.length - 2) & 0xff)
  }
  return bytes
}

const word = (value: number): number[] => [value & 0xff, value >>> 8]

/** The 8254's channel 0: mode 2, 65,536 clocks. Then ICW1-ICW4 and masks of both 8259s: the timer and the cascade are open. */
const portWrites: readonly (readonly [number, number])[] = [
  [0x43, 0x34], [0x40, 0], [0x40, 0],
  [0x20, 0x11], [0x21, firstVector.master], [0x21, 0x04], [0x21, 0x01], [0x21, 0xfa],
  [0xa0, 0x11], [0xa1, firstVector.slave], [0xa1, 0x02], [0xa1, 0x01], [0xa1, 0xff],
]

export function startBios(ports: Ports): void {
  for (const [port, value] of portWrites) ports.write(port, 1, value)
}
