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

/** What a byte does to the sum when 0 to 7 others follow it: so eight bytes are looked up at once, and do not wait for each other. */
const crcTables: Uint32Array[] = [Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  return value
})]
for (let after = 1; after < 8; after++)
  crcTables.push(crcTables[after - 1].map(value => crcTables[0][value & 0xff] ^ (value >>> 8)))
const [t0, t1, t2, t3, t4, t5, t6, t7] = crcTables

/** Unsigned; its low byte is sent first. */
export function frameCheckSequence(frame: Uint8Array): number {
  let crc = -1
  let at = 0
  for (const end = frame.length - 7; at < end; at += 8) {
    crc = t7[(crc ^ frame[at]) & 0xff] ^ t6[((crc >>> 8) ^ frame[at + 1]) & 0xff]
      ^ t5[((crc >>> 16) ^ frame[at + 2]) & 0xff] ^ t4[(crc >>> 24) ^ frame[at + 3]]
      ^ t3[frame[at + 4]] ^ t2[frame[at + 5]] ^ t1[frame[at + 6]] ^ t0[frame[at + 7]]
  }
  for (; at < frame.length; at++) crc = t0[(crc ^ frame[at]) & 0xff] ^ (crc >>> 8)
  return ~crc >>> 0
}
