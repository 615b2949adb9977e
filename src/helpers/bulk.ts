/** Moving blocks of words between memory as the instruction sees it and a buffer. */
import type { Processor } from '../cpu/processor.ts'

const pageBytes = 4096

/** Reads `count` words at a 4-byte aligned address into `into` from word `first`. */
export function copyIn(cpu: Processor, address: bigint, into: Uint32Array, first: number, count: number): void {
  const { memory, state } = cpu
  forPages(address, count * 4, (at, done, length) => {
    const place = memory.placeForRead(at) >>> 2
    const to = first + (done >> 2)
    if (place) for (let i = 0; i < length >> 2; i++) into[to + i] = state.words[place + i]
    else for (let i = 0; i < length >> 2; i++) into[to + i] = memory.read32(at + BigInt(i * 4))
  })
}

/** Writes words `first` to `first + count` of `from`. Faults before the first is written. */
export function copyOut(cpu: Processor, address: bigint, from: Uint32Array, first: number, count: number): void {
  const { memory, state } = cpu
  if (count === 0) return
  memory.probeWrite(address, count * 4)
  forPages(address, count * 4, (at, done, length) => {
    const place = memory.placeForWrite(at) >>> 2
    const source = first + (done >> 2)
    if (place) for (let i = 0; i < length >> 2; i++) state.words[place + i] = from[source + i]
    else for (let i = 0; i < length >> 2; i++) memory.write32(at + BigInt(i * 4), from[source + i])
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
