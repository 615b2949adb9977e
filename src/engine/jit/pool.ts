/**
 * The pool of a region: what its code has to know of the place where it is installed. The code itself is the same wherever the same
 * instructions lie, so that it can be kept, also from one run to the next; the pool is filled when the region is installed.
 *
 * First a word for each page of code, the address of the page's code table; then the exit table, an entry for each instruction before
 * which the region may be left.
 */

/** Offsets in an entry of the exit table. */
export const exitField = {
  /** u32: address of the instruction's record, where the interpreter goes on. */
  record: 0,
  /** i32: instructions of its block not executed. */
  remaining: 4,
  /** i32: offset from the start of the entry's page. */
  offset: 8,
  /** u32: what the record has in its field `left`. */
  left: 12,
  /** u32: address of the record that counts the ways of a conditional branch. */
  counters: 16,
} as const
export const exitEntrySize = 20

/** Bytes of a page's word. */
export const pageWordSize = 4

export const poolSize = (pages: number, exits: number): number => pages * pageWordSize + exits * exitEntrySize
