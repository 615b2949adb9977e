/** The ELF file inside of a bzImage, as its own decompressor makes it (Linux documentation, "The Linux/x86 Boot Protocol": payload). */
import { DebianError } from './packages.ts'

const legacyMagic = 0x184c2102

/** For kernels packed with LZ4, as Debian's cloud kernel is. */
export function unpackKernel(bzImage: Uint8Array): Uint8Array {
  const view = new DataView(bzImage.buffer, bzImage.byteOffset, bzImage.length)
  const start = (bzImage[0x1f1] + 1) * 512 + view.getUint32(0x248, true)
  const end = start + view.getUint32(0x24c, true) - 4
  const magic = view.getUint32(start, true)
  if (magic !== legacyMagic) throw new DebianError(`expected a kernel packed with LZ4, found payload 0x${magic.toString(16)}`)
  const size = view.getUint32(end, true)
  const out = new Uint8Array(size)
  let to = 0
  for (let at = start + 4; at < end;) {
    const length = view.getUint32(at, true)
    to = unpackBlock(bzImage.subarray(at + 4, at + 4 + length), out, to)
    at += 4 + length
  }
  if (to !== size) throw new DebianError(`the kernel's payload: expected ${size} bytes, found ${to}`)
  return out
}

/** "LZ4 Block Format Description": literals, then a match further up, until the block ends with literals. */
function unpackBlock(block: Uint8Array, out: Uint8Array, start: number): number {
  let to = start
  let at = 0
  while (at < block.length) {
    const token = block[at++]
    let literals = token >> 4
    if (literals === 15) {
      while (block[at] === 255) literals += block[at++]
      literals += block[at++]
    }
    out.set(block.subarray(at, at + literals), to)
    at += literals
    to += literals
    if (at >= block.length) break
    const distance = block[at] | (block[at + 1] << 8)
    at += 2
    let length = (token & 15) + 4
    if (length === 19) {
      while (block[at] === 255) length += block[at++]
      length += block[at++]
    }
    for (let left = length; left > 0; left--, to++) out[to] = out[to - distance]
  }
  return to
}
