/** A name of what a machine starts, by which its compiled code is kept: of a few thousand of its bytes, since only speed depends on it. */
import type { MachineOptions } from '../../api.ts'

const samples = 64
const sampleBytes = 64

/** Of the kernel, or the firmware. Undefined: neither is at hand. */
export function nameOfStarted({ kernel, bios, raw }: MachineOptions): string | undefined {
  const bytes = kernel ?? bios ?? raw?.image
  if (!bytes) return undefined
  let hash = 0x811c9dc5
  for (let i = 0; i < samples; i++) {
    const from = Math.floor((i * bytes.length) / samples)
    for (const byte of bytes.subarray(from, from + sampleBytes)) hash = Math.imul(hash ^ byte, 0x01000193)
  }
  return `${bytes.length}-${(hash >>> 0).toString(16)}`
}
