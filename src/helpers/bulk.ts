/** Moving blocks of bytes between memory as the instruction sees it and a buffer. */
import type { Processor } from '../cpu/processor.ts'

const pageBytes = 4096

export function copyIn(cpu: Processor, address: bigint, into: Uint8Array): void {
  forPages(address, into.length, (at, done, length) => {
    const place = cpu.memory.placeForRead(at)
    if (place) into.set(cpu.state.bytes.subarray(place, place + length), done)
    else for (let i = 0; i < length; i++) into[done + i] = cpu.memory.read8(at + BigInt(i))
  })
}

/** Faults before the first byte is written. */
export function copyOut(cpu: Processor, address: bigint, from: Uint8Array): void {
  cpu.memory.probeWrite(address, from.length)
  forPages(address, from.length, (at, done, length) => {
    const place = cpu.memory.placeForWrite(at)
    if (place) cpu.state.bytes.set(from.subarray(done, done + length), place)
    else for (let i = 0; i < length; i++) cpu.memory.write8(at + BigInt(i), from[done + i])
  })
}

function forPages(address: bigint, length: number, action: (at: bigint, done: number, length: number) => void): void {
  for (let done = 0; done < length; ) {
    const at = address + BigInt(done)
    const part = Math.min(length - done, pageBytes - Number(at & 0xfffn))
    action(at, done, part)
    done += part
  }
}
