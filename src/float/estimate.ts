/**
 * RCPSS and RSQRTSS: estimates of 12 bits that raise nothing and heed nothing in MXCSR (SDM vol. 2 "RCPPS", "RSQRTPS").
 *
 * The manual bounds the relative error by 1.5 × 2^-12 and leaves the bits to the processor: here they are the nearest of 12 bits.
 */
const view = new DataView(new ArrayBuffer(4))

const SIGN = 0x8000_0000
const INFINITY = 0x7f80_0000
const QUIET = 0x0040_0000
const SMALLEST_NORMAL = 0x0080_0000
/** 2^126: from here on the reciprocal is tiny and flushed to zero. */
const TINY_RECIPROCAL = 0x7e80_0000
const INDEFINITE = 0xffc0_0000

function decode(bits: number): number {
  view.setUint32(0, bits)
  return view.getFloat32(0)
}

/** Twelve bits of a normal value above 0. */
function encode(value: number): number {
  view.setFloat32(0, value)
  return (view.getUint32(0) + 0x800) & ~0xfff
}

/** `bits` and result: an encoded single. A denormal counts as zero. */
export function reciprocalEstimate(bits: number): number {
  const magnitude = (bits & ~SIGN) >>> 0
  const sign = (bits & SIGN) >>> 0
  if (magnitude > INFINITY) return (bits | QUIET) >>> 0
  if (magnitude >= TINY_RECIPROCAL) return sign
  if (magnitude < SMALLEST_NORMAL) return (sign | INFINITY) >>> 0
  return (sign | encode(1 / decode(magnitude))) >>> 0
}

/** `bits` and result: an encoded single. A denormal counts as zero. */
export function reciprocalSquareRootEstimate(bits: number): number {
  const magnitude = (bits & ~SIGN) >>> 0
  const sign = (bits & SIGN) >>> 0
  if (magnitude > INFINITY) return (bits | QUIET) >>> 0
  if (magnitude < SMALLEST_NORMAL) return (sign | INFINITY) >>> 0
  if (sign !== 0) return INDEFINITE
  return magnitude === INFINITY ? 0 : encode(1 / Math.sqrt(decode(magnitude)))
}
