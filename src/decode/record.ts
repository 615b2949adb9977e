/**
 * A decoded operation as the interpreter reads it: 32 bytes in linear memory. A run of records is straight-line code; what ends it is a
 * record that always branches, or a pseudo record that continues elsewhere.
 */

export const recordSize = 32

/** Byte offsets of a record's fields. */
export const recordField = {
  /** u16: number of the handler. */
  handler: 0,
  /** u16: offset of the instruction in its page. */
  offset: 2,
  /** u8: length in bytes (bits 0-3), segment register of data operands (bits 4-6). */
  length: 4,
  /** u8: instructions from here to the end of the run, this one included: what a jump to here takes from the budget. */
  left: 5,
  /** u16 each: address of a general register's (or vector register's) state, or the number of a segment, control or debug register. */
  slotA: 6,
  slotB: 8,
  slotC: 10,
  /** u16 each: addresses of base and index register and of the segment base; the address of `zero` where there is none. */
  base: 12,
  index: 14,
  segBase: 16,
  /** u8: the index is shifted left by this. */
  scale: 18,
  /**
   * u8: bits 0-1 operand size (0 = 16, 1 = 32, 2 = 64), bits 2-3 address size (same), bits 4-5 repeat prefix, bit 6 LOCK, bit 7 NOTRACK.
   */
  prefixes: 19,
  /** u32: how often a conditional relative branch went on, and how often it was taken; they have neither operands nor an address. */
  notTaken: 6,
  taken: 14,
  /** u32: of JMP and CALL with a relative target in another page: the record it led to the last time. They have no operands. */
  far: 8,
  /** u32: of CALL with a relative target: the record that the last return from it led to. It has no address. */
  returned: 12,
  /** i32: displacement; in a relative branch within its page: address of the target's record, 0 until it is known. */
  displacement: 20,
  /** i64: immediate, sign-extended; in a relative branch: target relative to the start of the page. */
  immediate: 24,
} as const

/** Byte offset of the field of record slot A, B or C. */
export const slotField = [recordField.slotA, recordField.slotB, recordField.slotC] as const

/** Longest run, in instructions: `left` is one byte. */
export const longestRun = 200
