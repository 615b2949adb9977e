/** Kernels of a few instructions for tests: a multiboot 1 header, and code 20h behind it (Multiboot Specification, "OS image format"). */

export const codeAddress = 0x100020

export function multibootImage(code: readonly number[]): Uint8Array {
  const address = 0x100000
  const words = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000) >>> 0, address, address, address + 0x1000, address + 0x1000, codeAddress]
  const image = new DataView(new ArrayBuffer(0x1000))
  words.forEach((word, i) => image.setUint32(4 * i, word, true))
  code.forEach((byte, i) => image.setUint8(0x20 + i, byte))
  return new Uint8Array(image.buffer)
}
