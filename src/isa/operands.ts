/**
 * Operand kinds in the letters of the opcode map: where an operand comes from (E, G, I, M, ...) and how wide it is (b, w, v, ...).
 * Intel SDM vol. 2, appendix "Opcode Map", "Key to Abbreviations".
 */

/**
 * E: ModR/M r/m, register or memory. G: ModR/M reg. R: r/m, register only. M: r/m, memory only. Z: register in the opcode's low three bits.
 * I: immediate. J: relative branch. O: moffs. S: segment register (reg). C: control register (reg). D: debug register (reg).
 * V, W, U: vector register (reg; r/m register or memory; r/m register only). P, Q, N: the same for MMX. H: VEX.vvvv vector register.
 * B: VEX.vvvv general register. X: the vector of indexes that a VSIB byte names. A: far pointer immediate. F: a fixed register or constant.
 */
export type OperandLetter =
  'E' | 'G' | 'R' | 'M' | 'Z' | 'I' | 'J' | 'O' | 'S' | 'C' | 'D' | 'V' | 'W' | 'U' | 'P' | 'Q' | 'N' | 'H' | 'A' | 'F' | 'B' | 'X'

/**
 * b 8, w 16, d 32, q 64, v operand size, y 32 or 64, z 16 or 32 (immediates of v operands), x 128 bits, p far pointer of the operand size,
 * or a number of bits.
 */
export type OperandSize = 'b' | 'w' | 'd' | 'q' | 'v' | 'y' | 'z' | 'x' | 'p' | number

export interface OperandSpec {
  readonly letter: OperandLetter
  readonly size: OperandSize
  /** F: the register number. */
  readonly register?: number
  /** I: the byte is sign-extended to the operand size (it always is in the record); the immediate in the code has this many bits. */
  readonly encoded?: 8 | 16 | 32 | 64
}

const spec = (letter: OperandLetter, size: OperandSize, more: Partial<OperandSpec> = {}): OperandSpec => ({ letter, size, ...more })

export const Eb = spec('E', 'b'),
  Ew = spec('E', 'w'),
  Ed = spec('E', 'd'),
  Eq = spec('E', 'q'),
  Ev = spec('E', 'v'),
  Ey = spec('E', 'y')
export const Gb = spec('G', 'b'),
  Gw = spec('G', 'w'),
  Gd = spec('G', 'd'),
  Gq = spec('G', 'q'),
  Gv = spec('G', 'v'),
  Gy = spec('G', 'y')
export const Rd = spec('R', 'd'),
  Rq = spec('R', 'q'),
  Rv = spec('R', 'v'),
  Ry = spec('R', 'y')
export const By = spec('B', 'y')
export const Mb = spec('M', 'b'),
  Mw = spec('M', 'w'),
  Md = spec('M', 'd'),
  Mq = spec('M', 'q'),
  Mv = spec('M', 'v'),
  My = spec('M', 'y'),
  Mx = spec('M', 'x')
/** Memory whose size does not matter (LEA, INVLPG, FXSAVE, LGDT). */
export const M = spec('M', 0),
  Mp = spec('M', 'p'),
  M80 = spec('M', 80)
export const Zb = spec('Z', 'b'),
  Zv = spec('Z', 'v'),
  Zd = spec('Z', 'd'),
  Zq = spec('Z', 'q')
/** Immediates: a byte; a byte sign-extended to the operand size; 16 bits; 16 or 32 bits (sign-extended to 64); 16, 32 or 64 bits. */
export const Ib = spec('I', 'b', { encoded: 8 }),
  Ibs = spec('I', 'v', { encoded: 8 }),
  Iw = spec('I', 'w', { encoded: 16 }),
  Iz = spec('I', 'z'),
  Iv = spec('I', 'v')
/** Relative branch targets: 8 bits; 16 or 32 bits. */
export const Jb = spec('J', 'b', { encoded: 8 }),
  Jz = spec('J', 'z')
export const Ob = spec('O', 'b'),
  Ov = spec('O', 'v')
export const Sw = spec('S', 'w'),
  Cy = spec('C', 'q'),
  Dy = spec('D', 'q'),
  Ap = spec('A', 'p')
/** Vector: whole register or 128-bit memory; W with a smaller memory operand has its size in bits. */
export const Vx = spec('V', 'x'),
  Wx = spec('W', 'x'),
  Ux = spec('U', 'x'),
  Hx = spec('H', 'x'),
  Xx = spec('X', 'x'),
  Xqq = spec('X', 256)
export const Wd = spec('W', 32),
  Wq = spec('W', 64),
  Ww = spec('W', 16)
/** Of 256 bits; memory of other sizes. */
export const Vqq = spec('V', 256),
  Wqq = spec('W', 256),
  Uqq = spec('U', 256),
  Hqq = spec('H', 256),
  Mqq = spec('M', 256),
  Wb = spec('W', 8)
export const Pq = spec('P', 'q'),
  Qq = spec('Q', 'q'),
  Nq = spec('N', 'q'),
  Qd = spec('Q', 32)
export const AL = spec('F', 'b', { register: 0 }),
  CL = spec('F', 'b', { register: 1 }),
  AX = spec('F', 'w', { register: 0 }),
  DX = spec('F', 'w', { register: 2 })
/** Fixed registers of the operand size. */
export const rAX = spec('F', 'v', { register: 0 }),
  rCX = spec('F', 'v', { register: 1 }),
  rDX = spec('F', 'v', { register: 2 }),
  rBX = spec('F', 'v', { register: 3 })

/**
 * What a row's body is given for an operand: its class and width are known when code is generated; which register or address it is may not
 * be.
 */
export interface Operand {
  readonly class: 'gpr' | 'memory' | 'immediate' | 'relative' | 'vector' | 'mmx' | 'segment' | 'control' | 'debug' | 'far'
  /** Width in bits; 0 where it does not matter. */
  readonly bits: number
  /** Register operands: record slot A, B or C. */
  readonly slot: 0 | 1 | 2
}
