/** The Internet checksum (RFC 1071) and the one of Ethernet (IEEE 802.3, "Frame Check Sequence"), as network cards make and check them. */

/** The sum of 16-bit words in ones' complement, folded; an odd byte at the end counts as the high one. */
export function onesSum(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let sum = initial
  const pairs = end - 1
  for (let at = start; at < pairs; at += 2) sum += (bytes[at] << 8) | bytes[at + 1]
  if ((end - start) & 1) sum += bytes[end - 1] << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000)
  return sum
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  return value
})

/** Unsigned; its low byte is sent first. */
export function frameCheckSequence(frame: Uint8Array): number {
  let crc = -1
  for (let at = 0; at < frame.length; at++) crc = crcTable[(crc ^ frame[at]) & 0xff] ^ (crc >>> 8)
  return ~crc >>> 0
}
