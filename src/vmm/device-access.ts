/**
 * The instructions with which software reaches the registers of devices in memory, decoded far enough to be done in its place: MOV in its
 * forms, MOVZX, MOVSX. Intel SDM vol. 2, "Instruction Format".
 */
import { instructionAt } from './guest-walk.ts'
import { codeSizeOf } from './memory-operand.ts'
import type { Vcpu } from './vcpu.ts'

/** What an instruction does to the one place in memory that it names. */
export interface DeviceAccess {
  readonly length: number
  readonly write: boolean
  /** Bytes at the device. */
  readonly size: 1 | 2 | 4 | 8
  /** Register that is read or written; high: AH, CH, DH, BH. */
  readonly register: number
  readonly high: boolean
  /** What is written instead of a register. */
  readonly immediate: bigint | undefined
  /** MOVZX and MOVSX: bytes of the register. */
  readonly extend: { size: 2 | 4 | 8; signed: boolean } | undefined
}

const legacyPrefixes = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0, 0xf2, 0xf3])

/** Undefined: not one of these instructions. `codeSize` is what CS says. */
function decodeAccess(bytes: Uint8Array, codeSize: 16 | 32 | 64): DeviceAccess | undefined {
  let at = 0
  let operandOverride = false
  let addressOverride = false
  let rex = 0
  for (;; at++) {
    if (bytes[at] === 0x66) operandOverride = true
    else if (bytes[at] === 0x67) addressOverride = true
    else if (!legacyPrefixes.has(bytes[at])) break
  }
  if (codeSize === 64 && (bytes[at] & 0xf0) === 0x40) rex = bytes[at++]
  const wide = codeSize === 16 ? operandOverride : !operandOverride
  const full = rex & 8 ? 8 : wide ? 4 : 2
  const addressSize = codeSize === 64 ? (addressOverride ? 32 : 64) : (codeSize === 32) !== addressOverride ? 32 : 16
  const opcode = bytes[at++]
  const modRm = (): { register: number; end: number } => {
    const value = bytes[at]
    return { register: ((value >> 3) & 7) | (rex & 4 ? 8 : 0), end: at + modRmLength(bytes, at, addressSize) }
  }
  const result = (write: boolean, size: number, number: number, length: number, more: Partial<DeviceAccess> = {}): DeviceAccess => {
    const high = size === 1 && !more.extend && more.immediate === undefined && rex === 0 && number >= 4 && number < 8
    return { length, write, size: size as DeviceAccess['size'], register: high ? number - 4 : number, high, immediate: undefined,
      extend: undefined,
      ...more }
  }
  switch (opcode) {
    case 0x88: case 0x89: case 0x8a: case 0x8b: {
      const { register, end } = modRm()
      return result(opcode < 0x8a, opcode & 1 ? full : 1, register, end)
    }
    case 0xa0: case 0xa1: case 0xa2: case 0xa3: {
      const size = opcode & 1 ? full : 1
      return result(opcode >= 0xa2, size, 0, at + addressSize / 8)
    }
    case 0xc6: case 0xc7: {
      const { end } = modRm()
      const size = opcode & 1 ? full : 1
      const width = Math.min(size, 4)
      const view = new DataView(bytes.buffer, bytes.byteOffset)
      const value = width === 1 ? view.getInt8(end) : width === 2 ? view.getInt16(end, true) : view.getInt32(end, true)
      return result(true, size, 0, end + width, { immediate: BigInt.asUintN(size * 8, BigInt(value)) })
    }
    case 0x0f: {
      const second = bytes[at++]
      if (second !== 0xb6 && second !== 0xb7 && second !== 0xbe && second !== 0xbf) return undefined
      const { register, end } = modRm()
      return result(false, second & 1 ? 2 : 1, register, end, { extend: { size: full, signed: second >= 0xbe } })
    }
    default: return undefined
  }
}

/** ModRM, SIB and displacement. */
function modRmLength(bytes: Uint8Array, at: number, addressSize: number): number {
  const mod = bytes[at] >> 6
  const rm = bytes[at] & 7
  if (mod === 3) return 1
  if (addressSize === 16) return 1 + (mod === 1 ? 1 : mod === 2 || rm === 6 ? 2 : 0)
  const sib = rm === 4 ? 1 : 0
  const noBase = mod === 0 && (rm === 5 || (sib === 1 && (bytes[at + 1] & 7) === 5))
  return 1 + sib + (mod === 1 ? 1 : mod === 2 || noBase ? 4 : 0)
}

/** The access that the vCPU's instruction makes. */
export function accessOf(vcpu: Vcpu, bytes: Uint8Array | undefined): DeviceAccess | undefined {
  const code = bytes ?? instructionAt(vcpu)
  const padded = new Uint8Array(24)
  padded.set(code)
  const access = decodeAccess(padded, codeSizeOf(vcpu))
  return access && access.length <= code.length ? access : undefined
}

/** What an access writes. */
export function writtenValue(vcpu: Vcpu, { register, high, immediate, size }: DeviceAccess): bigint {
  return immediate ?? BigInt.asUintN(size * 8, vcpu.general(register) >> (high ? 8n : 0n))
}

/** A read is done: the register gets what the device said. */
export function completeRead(vcpu: Vcpu, { register, high, size, extend }: DeviceAccess, value: bigint): void {
  const read = BigInt.asUintN(size * 8, value)
  const to = extend?.size ?? size
  const extended = extend?.signed ? BigInt.asUintN(to * 8, BigInt.asIntN(size * 8, read)) : read
  if (to >= 4) return vcpu.setGeneral(register, extended)
  const shift = high ? 8n : 0n
  const mask = (to === 1 ? 0xffn : 0xffffn) << shift
  vcpu.setGeneral(register, (vcpu.general(register) & ~mask) | (extended << shift))
}
