/** The mode of code: what bytes mean. Records and regions are keyed by physical page and mode. Intel SDM vol. 1, "Modes of Operation". */

/**
 * Bits 0-1: code size (0 = 16, 1 = 32, 2 = 64 bits). Bit 2: stack size (SS.B or 64-bit). Bit 3: real-address or virtual-8086 mode. Bits 4
 * and 5: what CET does at this privilege level (shadow stack, indirect branch tracking), for calls, returns and branches differ then.
 * Bit 6: 32-bit code whose CS, DS, ES and SS are all of linear memory (`isFlat` in derive.ts).
 */
export const mode = {
  code16: 0,
  code32: 1,
  code64: 2,
  codeMask: 3,
  stack32: 4,
  real: 8,
  shadowStack: 16,
  tracked: 32,
  flat: 64,
} as const

export const modeCount = 128

/** Code of this mode may become compiled regions; other code is interpreted. */
export const isCompiled = (of: number): boolean => (of & mode.codeMask) === mode.code64 || (of & mode.flat) !== 0
