/** Constant folding and identities for what the compiler of regions meets all the time. */
const neutralRight: ReadonlySet<string> = new Set(['add', 'sub', 'or', 'xor', 'shl', 'shrU'])
const neutralLeft: ReadonlySet<string> = new Set(['add', 'or', 'xor'])
const count = (value: bigint, bits: number): bigint => value & BigInt(bits - 1)
const folding: Record<string, ((p: bigint, q: bigint, bits: number) => bigint) | undefined> = {
  add: (p, q) => p + q,
  sub: (p, q) => p - q,
  mul: (p, q) => p * q,
  and: (p, q) => p & q,
  or: (p, q) => p | q,
  xor: (p, q) => p ^ q,
  shl: (p, q, bits) => p << count(q, bits),
  shrS: (p, q, bits) => p >> count(q, bits),
  shrU: (p, q, bits) => BigInt.asUintN(bits, p) >> count(q, bits),
  eq: (p, q) => (p === q ? 1n : 0n),
  ne: (p, q) => (p !== q ? 1n : 0n),
  ltS: (p, q) => (p < q ? 1n : 0n),
  ltU: (p, q, bits) => (BigInt.asUintN(bits, p) < BigInt.asUintN(bits, q) ? 1n : 0n),
}

/** Whether an operation by a constant changes nothing. */
export const isNeutralRight = (name: string, value: number | bigint): boolean => (value === 0 || value === 0n) && neutralRight.has(name)
export const isNeutralLeft = (name: string, value: number | bigint): boolean => (value === 0 || value === 0n) && neutralLeft.has(name)

/** The value of an operation on two constants of a type; undefined: it is computed at run time. */
export function foldConstants(name: string, type: 'i32' | 'i64', x: number | bigint, y: number | bigint): bigint | undefined {
  return folding[name]?.(BigInt(x), BigInt(y), type === 'i32' ? 32 : 64)
}
