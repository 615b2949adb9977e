/** 64-bit addresses as the memory system takes them. Follows no manual. */

/** Low and high half, int32. */
export function halvesOf(value: bigint): readonly [lo: number, hi: number] {
  return [Number(value & 0xffffffffn) | 0, Number((value >> 32n) & 0xffffffffn) | 0]
}
