/**
 * Reading descriptors, gates and TSS fields as 32-bit words, without a BigInt an access. Intel SDM vol. 3, "Implicit supervisor-mode
 * accesses" in "Access Rights".
 */
import { join } from './bits.ts'
import type { LinearMemory, Processor } from './processor.ts'

/** Reads `count` words at base + offset into `into`, with supervisor rights. */
export function readWords(cpu: Processor, baseLow: number, baseHigh: number, offset: number, count: number, into: Uint32Array): void {
  const sum = baseLow + offset
  const low = sum >>> 0
  const high = sum > 0xffffffff ? (baseHigh + 1) >>> 0 : baseHigh
  const { memory } = cpu
  if ((low & 0xfff) + count * 4 <= 4096 && (low & 3) === 0) {
    const place = memory.knownPlace?.(low, high, false) || memory.placeForRead(join(low, high), 'supervisor')
    if (place !== 0) {
      const { words } = cpu.state
      const first = place >>> 2
      for (let i = 0; i < count; i++) into[i] = words[first + i]
      return
    }
  }
  const address = join(low, high)
  for (let i = 0; i < count; i++) into[i] = memory.read32(address + BigInt(i * 4), 'supervisor')
}

/** Index of the first of the words at base + offset, where they are in the kernel's first-level table and in one page; else 0. */
export function knownWords(memory: LinearMemory, baseLow: number, baseHigh: number, offset: number, bytes: number): number {
  const low = baseLow + offset
  if (low > 0xffffffff || low & 3 || (low & 0xfff) > 4096 - bytes) return 0
  return (memory.knownPlace?.(low, baseHigh, false) ?? 0) >>> 2
}
