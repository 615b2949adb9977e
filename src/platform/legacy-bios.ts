/**
 * What a PC BIOS leaves behind for real-mode software: interrupt vectors that end their interrupt, 8259s at vectors 08h and 70h, the timer
 * ticking 18.2 times a second. There are no BIOS services, and nothing counts ticks at 40:6Ch. IBM PC/AT Technical Reference,
 * "System BIOS Usage".
 */
import type { MemoryWrite } from './boot/image.ts'

interface Ports { write(port: number, size: 1, value: number): void }

const romSegment = 0xf000
/** The AT's own places of the timer's handler and of the dummy interrupt. */
const offset = { masterIrq: 0xfea5, slaveIrq: 0xfec0, dummy: 0xff53 } as const
const firstVector = { master: 0x08, slave: 0x70 } as const

// push ax; mov al, 20h (end of interrupt); out ...; pop ax; iret
const endMaster = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]
const endSlave = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]
const iret = [0xcf]

function handlerOf(vector: number): number {
  if (vector >= firstVector.master && vector < firstVector.master + 8) return offset.masterIrq
  if (vector >= firstVector.slave && vector < firstVector.slave + 8) return offset.slaveIrq
  return offset.dummy
}

export function biosWrites(): MemoryWrite[] {
  const vectors = new DataView(new ArrayBuffer(256 * 4))
  for (let vector = 0; vector < 256; vector++) {
    vectors.setUint16(vector * 4, handlerOf(vector), true)
    vectors.setUint16(vector * 4 + 2, romSegment, true)
  }
  const code = (at: number, bytes: number[]): MemoryWrite =>
    ({ address: romSegment * 16 + at, bytes: Uint8Array.from(bytes), what: 'BIOS' })
  return [
    { address: 0, bytes: new Uint8Array(vectors.buffer), what: 'interrupt vectors' },
    code(offset.masterIrq, endMaster), code(offset.slaveIrq, endSlave), code(offset.dummy, iret),
  ]
}

/** The 8254's channel 0: mode 2, 65,536 clocks. Then ICW1-ICW4 and masks of both 8259s: the timer and the cascade are open. */
const portWrites: readonly (readonly [number, number])[] = [
  [0x43, 0x34], [0x40, 0], [0x40, 0],
  [0x20, 0x11], [0x21, firstVector.master], [0x21, 0x04], [0x21, 0x01], [0x21, 0xfa],
  [0xa0, 0x11], [0xa1, firstVector.slave], [0xa1, 0x02], [0xa1, 0x01], [0xa1, 0xff],
]

export function startBios(ports: Ports): void {
  for (const [port, value] of portWrites) ports.write(port, 1, value)
}
