/** WebAssembly opcodes by the name of the operation, for each type that has it. Follows the WebAssembly Core Specification, "Instructions". */
import type { ValueType } from './encode.ts'

/** Two-operand operations whose result has the operands' type. */
export const binary = {
  add: { i32: 0x6a, i64: 0x7c, f32: 0x92, f64: 0xa0 },
  sub: { i32: 0x6b, i64: 0x7d, f32: 0x93, f64: 0xa1 },
  mul: { i32: 0x6c, i64: 0x7e, f32: 0x94, f64: 0xa2 },
  divS: { i32: 0x6d, i64: 0x7f },
  divU: { i32: 0x6e, i64: 0x80 },
  remS: { i32: 0x6f, i64: 0x81 },
  remU: { i32: 0x70, i64: 0x82 },
  and: { i32: 0x71, i64: 0x83 },
  or: { i32: 0x72, i64: 0x84 },
  xor: { i32: 0x73, i64: 0x85 },
  shl: { i32: 0x74, i64: 0x86 },
  shrS: { i32: 0x75, i64: 0x87 },
  shrU: { i32: 0x76, i64: 0x88 },
  rotl: { i32: 0x77, i64: 0x89 },
  rotr: { i32: 0x78, i64: 0x8a },
  divF: { f32: 0x95, f64: 0xa3 },
} as const satisfies Record<string, Partial<Record<ValueType, number>>>

/** Comparisons: the result is an i32, 0 or 1. */
export const comparison = {
  eq: { i32: 0x46, i64: 0x51, f32: 0x5b, f64: 0x61 },
  ne: { i32: 0x47, i64: 0x52, f32: 0x5c, f64: 0x62 },
  ltS: { i32: 0x48, i64: 0x53 },
  ltU: { i32: 0x49, i64: 0x54 },
  gtS: { i32: 0x4a, i64: 0x55 },
  gtU: { i32: 0x4b, i64: 0x56 },
  leS: { i32: 0x4c, i64: 0x57 },
  leU: { i32: 0x4d, i64: 0x58 },
  geS: { i32: 0x4e, i64: 0x59 },
  geU: { i32: 0x4f, i64: 0x5a },
  ltF: { f32: 0x5d, f64: 0x63 },
  gtF: { f32: 0x5e, f64: 0x64 },
  leF: { f32: 0x5f, f64: 0x65 },
  geF: { f32: 0x60, f64: 0x66 },
} as const satisfies Record<string, Partial<Record<ValueType, number>>>

/** One-operand operations whose result has the operand's type. */
export const unary = {
  clz: { i32: 0x67, i64: 0x79 },
  ctz: { i32: 0x68, i64: 0x7a },
  popcnt: { i32: 0x69, i64: 0x7b },
  extend8S: { i32: 0xc0, i64: 0xc2 },
  extend16S: { i32: 0xc1, i64: 0xc3 },
  extend32S: { i64: 0xc4 },
  sqrt: { f32: 0x91, f64: 0x9f },
  nearest: { f32: 0x90, f64: 0x9e },
  trunc: { f32: 0x8f, f64: 0x9d },
  floor: { f32: 0x8e, f64: 0x9c },
  ceil: { f32: 0x8d, f64: 0x9b },
  abs: { f32: 0x8b, f64: 0x99 },
  neg: { f32: 0x8c, f64: 0x9a },
} as const satisfies Record<string, Partial<Record<ValueType, number>>>

/** Conversions: opcode, operand type, result type. Opcodes from 0xFC00 have the prefix byte 0xFC. */
export const conversion = {
  wrap: [0xa7, 'i64', 'i32'],
  extendS: [0xac, 'i32', 'i64'],
  extendU: [0xad, 'i32', 'i64'],
  f64FromI32: [0xb7, 'i32', 'f64'],
  f64FromI64: [0xb9, 'i64', 'f64'],
  f32FromI32: [0xb2, 'i32', 'f32'],
  f32FromI64: [0xb4, 'i64', 'f32'],
  promote: [0xbb, 'f32', 'f64'],
  demote: [0xb6, 'f64', 'f32'],
  bitsOfF32: [0xbc, 'f32', 'i32'],
  bitsOfF64: [0xbd, 'f64', 'i64'],
  f32OfBits: [0xbe, 'i32', 'f32'],
  f64OfBits: [0xbf, 'i64', 'f64'],
  truncSatF64ToI32: [0xfc02, 'f64', 'i32'],
  truncSatF64ToI64: [0xfc06, 'f64', 'i64'],
  truncSatF32ToI32: [0xfc00, 'f32', 'i32'],
  truncSatF32ToI64: [0xfc04, 'f32', 'i64'],
} as const satisfies Record<string, readonly [number, ValueType, ValueType]>

/** Loads: [opcode, result type]. `8u` reads one byte, zero-extended. v128 opcodes have the prefix byte 0xFD. */
export const load = {
  i32: [0x28, 'i32'],
  i64: [0x29, 'i64'],
  f32: [0x2a, 'f32'],
  f64: [0x2b, 'f64'],
  i32_8s: [0x2c, 'i32'],
  i32_8u: [0x2d, 'i32'],
  i32_16s: [0x2e, 'i32'],
  i32_16u: [0x2f, 'i32'],
  i64_8s: [0x30, 'i64'],
  i64_8u: [0x31, 'i64'],
  i64_16s: [0x32, 'i64'],
  i64_16u: [0x33, 'i64'],
  i64_32s: [0x34, 'i64'],
  i64_32u: [0x35, 'i64'],
  v128: [0xfd00, 'v128'],
  v128_32zero: [0xfd5c, 'v128'],
  v128_64zero: [0xfd5d, 'v128'],
} as const satisfies Record<string, readonly [number, ValueType]>

export type LoadKind = keyof typeof load

/** Stores: opcode. */
export const store = {
  i32: 0x36,
  i64: 0x37,
  f32: 0x38,
  f64: 0x39,
  i32_8: 0x3a,
  i32_16: 0x3b,
  i64_8: 0x3c,
  i64_16: 0x3d,
  i64_32: 0x3e,
  v128: 0xfd0b,
} as const

export type StoreKind = keyof typeof store

/** SIMD operations on v128, by opcode after the prefix 0xFD. Follows the WebAssembly Core Specification, "Vector Instructions". */
export const simd = {
  shuffle: 0x0d, swizzle: 0x0e,
  splatI8: 0x0f, splatI16: 0x10, splatI32: 0x11, splatI64: 0x12,
  extractI8U: 0x16, extractI16U: 0x19, extractI32: 0x1b, extractI64: 0x1d, extractF32: 0x1f, extractF64: 0x21,
  replaceI8: 0x17, replaceI16: 0x1a, replaceI32: 0x1c, replaceI64: 0x1e, replaceF32: 0x20, replaceF64: 0x22,
  eqI8: 0x23, gtI8: 0x27, eqI16: 0x2d, gtI16: 0x31, eqI32: 0x37, gtI32: 0x3b, eqI64: 0xd6, gtI64: 0xd9,
  eqF32: 0x41, neF32: 0x42, ltF32: 0x43, leF32: 0x45, eqF64: 0x47, neF64: 0x48, ltF64: 0x49, leF64: 0x4b,
  not: 0x4d, and: 0x4e, andnot: 0x4f, or: 0x50, xor: 0x51, select: 0x52, anyTrue: 0x53,
  absI8: 0x60, absI16: 0x80, absI32: 0xa0,
  bitmaskI8: 0x64, bitmaskI32: 0xa4, bitmaskI64: 0xc4, allTrueI8: 0x63, allTrueI32: 0xa3, allTrueI64: 0xc3,
  narrowI16S: 0x65, narrowI16U: 0x66, narrowI32S: 0x85, narrowI32U: 0x86,
  shlI16: 0x8b, shrI16S: 0x8c, shrI16U: 0x8d, shlI32: 0xab, shrI32S: 0xac, shrI32U: 0xad, shlI64: 0xcb, shrI64U: 0xcd,
  addI8: 0x6e, addSatI8S: 0x6f, addSatI8U: 0x70, subI8: 0x71, subSatI8S: 0x72, subSatI8U: 0x73, minI8S: 0x76, minI8U: 0x77, maxI8S: 0x78, maxI8U: 0x79, averageI8: 0x7b,
  pairwiseAddI8S: 0x7c, pairwiseAddI8U: 0x7d, pairwiseAddI16U: 0x7f,
  addI16: 0x8e, addSatI16S: 0x8f, addSatI16U: 0x90, subI16: 0x91, subSatI16S: 0x92, subSatI16U: 0x93, mulI16: 0x95, minI16S: 0x96, minI16U: 0x97, maxI16S: 0x98, maxI16U: 0x99, averageI16: 0x9b,
  addI32: 0xae, subI32: 0xb1, mulI32: 0xb5, minI32S: 0xb6, minI32U: 0xb7, maxI32S: 0xb8, maxI32U: 0xb9, dotI16: 0xba,
  addI64: 0xce, subI64: 0xd1,
  extendLowI8S: 0x87, extendLowI8U: 0x89, extendHighI8U: 0x8a, extendLowI16S: 0xa7, extendLowI16U: 0xa9, extendLowI32S: 0xc7, extendLowI32U: 0xc9,
  mulLowI16S: 0xbc, mulHighI16S: 0xbd, mulLowI16U: 0xbe, mulHighI16U: 0xbf, mulLowI32S: 0xdc, mulLowI32U: 0xde, mulLowI8S: 0x9c,
  mulRoundI16: 0x82,
  ceilF32: 0x67, floorF32: 0x68, truncF32: 0x69, nearestF32: 0x6a, ceilF64: 0x74, floorF64: 0x75, truncF64: 0x7a, nearestF64: 0x94,
  demoteF64: 0x5e, promoteF32: 0x5f, f32FromI32: 0xfa, f64FromI32: 0xfe, i32FromF32: 0xf8, i32FromF64: 0xfc,
  sqrtF32: 0xe3, addF32: 0xe4, subF32: 0xe5, mulF32: 0xe6, divF32: 0xe7, sqrtF64: 0xef, addF64: 0xf0, subF64: 0xf1, mulF64: 0xf2, divF64: 0xf3,
} as const
