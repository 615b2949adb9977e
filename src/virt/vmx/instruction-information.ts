/**
 * The VM-exit instruction-information field and the displacement in the exit qualification, from the instruction's bytes. Intel SDM
 * vol. 3, "Information for VM Exits Due to Instruction Execution".
 */
import { is64 } from '../../cpu/bits.ts'
import { segment } from '../../cpu/layout.ts'
import type { Processor } from '../../cpu/processor.ts'

export interface OperandInformation {
  /** Address size, segment, index, base, scale, register or memory, and the register in ModR/M reg: the format of VMREAD and VMWRITE. */
  readonly information: number
  /** Sign-extended displacement; the sum with RIP for RIP-relative operands. 0 for registers. */
  readonly displacement: bigint
  readonly isRegister: boolean
  /** Numbers of ModR/M reg and r/m with their REX bits. */
  readonly reg: number
  readonly rm: number
}

const segmentPrefixes: Readonly<Record<number, number>> = { 0x26: 0, 0x2e: 1, 0x36: 2, 0x3e: 3, 0x64: 4, 0x65: 5 }
const invalidIndex = 1 << 22
const invalidBase = 1 << 27
const registerForm = 1 << 10

/** 16-bit addressing: base and index by r/m; -1 none. */
const pairs: readonly (readonly [number, number])[] = [[3, 6], [3, 7], [5, 6], [5, 7], [6, -1], [7, -1], [5, -1], [3, -1]]

interface Prefixes { rex: number; length: number }

function skipPrefixes(code: Uint8Array, long: boolean): Prefixes {
  let i = 0
  while (code[i] in segmentPrefixes || [0x66, 0x67, 0xf0, 0xf2, 0xf3].includes(code[i])) i++
  const rex = long && (code[i] & 0xf0) === 0x40 ? code[i] : 0
  return { rex, length: i + (rex ? 1 : 0) }
}

function signed(code: Uint8Array, offset: number, bytes: number): bigint {
  let value = 0n
  for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(code[offset + i])
  return BigInt.asUintN(64, BigInt.asIntN(bytes * 8, value))
}

/** For instructions with a ModR/M byte after a two- or three-byte opcode. */
export function operandInformation(cpu: Processor, code: Uint8Array): OperandInformation {
  const long = is64(cpu.state)
  const { rex, length } = skipPrefixes(code, long)
  // 0F xx, or 0F 38 xx
  let i = length + (code[length + 1] === 0x38 ? 3 : 2)
  const modrm = code[i++]
  const mod = modrm >> 6
  const reg = ((modrm >> 3) & 7) | ((rex & 4) << 1)
  const rm = (modrm & 7) | ((rex & 1) << 3)
  const { addressSize } = cpu.operation
  const size = addressSize === 16 ? 0 : addressSize === 32 ? 1 : 2
  if (mod === 3) return { information: registerForm | (rm << 3) | (reg << 28) | (size << 7), displacement: 0n, isRegister: true, reg, rm }
  let base = -1
  let index = -1
  let scale = 0
  let bytes = mod === 1 ? 1 : mod === 2 ? (size === 0 ? 2 : 4) : 0
  let relative = false
  if (size === 0) {
    if (mod === 0 && (modrm & 7) === 6) bytes = 2
    else [base, index] = pairs[modrm & 7]
  } else if ((modrm & 7) === 4) {
    const sib = code[i++]
    scale = sib >> 6
    index = ((sib >> 3) & 7) | ((rex & 2) << 2)
    if (index === 4) index = -1
    base = (sib & 7) | ((rex & 1) << 3)
    if (mod === 0 && (sib & 7) === 5) {
      base = -1
      bytes = 4
    }
  } else if (mod === 0 && (modrm & 7) === 5) {
    bytes = 4
    relative = long
  } else base = rm
  let displacement = bytes === 0 ? 0n : signed(code, i, bytes)
  if (relative) displacement = BigInt.asUintN(64, displacement + cpu.operation.nextRip)
  const information = scale | (size << 7) | (memorySegment(cpu) << 15) | (index < 0 ? invalidIndex : index << 18)
    | (base < 0 ? invalidBase : base << 23) | (reg << 28)
  return { information, displacement, isRegister: false, reg, rm }
}

/** In 64-bit mode only FS and GS override. */
function memorySegment(cpu: Processor): number {
  const number = cpu.operation.segment
  return number > segment.gs ? segment.ds : number
}
