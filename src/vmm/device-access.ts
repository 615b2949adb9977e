/**
 * The instructions with which software reaches the registers of devices in memory, decoded far enough to be done in its place: MOV in its
 * forms, MOVZX, MOVSX, arithmetic, TEST, XCHG, STOS, MOVS. Intel SDM vol. 2, "Instruction Format".
 */
import { instructionAt } from './guest-walk.ts'
import { arithmeticNames, type DeviceOperation, type DeviceString } from './device-operation.ts'
import { codeSizeOf, parse } from './memory-operand.ts'
import { register as registerNumber } from './port.ts'
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
  /** What is done with the register of the device beside moving it. */
  readonly operation?: DeviceOperation
  /** An element of a string: `write` is not known before the exit says it. */
  readonly string?: DeviceString
}

/** Undefined: not one of these instructions. `codeSize` is what CS says. */
function decodeAccess(bytes: Uint8Array, codeSize: 16 | 32 | 64): DeviceAccess | undefined {
  const { opcode: opcodeAt, rex, operandSize: full, addressSize, segment = 'ds', repeats } = parse(bytes, codeSize)
  let at = opcodeAt
  const opcode = bytes[at++]
  const modRm = (): { register: number; end: number } => {
    const value = bytes[at]
    return { register: ((value >> 3) & 7) | (rex & 4 ? 8 : 0), end: at + modRmLength(bytes, at, addressSize) }
  }
  const result = (write: boolean, size: number, number: number, length: number, more: Partial<DeviceAccess> = {}): DeviceAccess => {
    const high = size === 1 && !more.extend && !more.string && more.immediate === undefined && rex === 0 && number >= 4 && number < 8
    return { length, write, size: size as DeviceAccess['size'], register: high ? number - 4 : number, high, immediate: undefined,
      extend: undefined,
      ...more }
  }
  const immediate = (from: number, size: number, width: number): { end: number; immediate: bigint } => {
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const value = width === 1 ? view.getInt8(from) : width === 2 ? view.getInt16(from, true) : view.getInt32(from, true)
    return { end: from + width, immediate: BigInt.asUintN(size * 8, BigInt(value)) }
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
      const size = opcode & 1 ? full : 1
      const { end, ...more } = immediate(modRm().end, size, Math.min(size, 4))
      return result(true, size, 0, end, more)
    }
    case 0x80: case 0x81: case 0x83: {
      const size = opcode & 1 ? full : 1
      const { register, end: from } = modRm()
      const { end, ...more } = immediate(from, size, opcode === 0x81 ? Math.min(size, 4) : 1)
      return result(false, size, 0, end, { ...more, operation: { name: arithmeticNames[register & 7], to: 'memory' } })
    }
    case 0xf6: case 0xf7: {
      const size = opcode & 1 ? full : 1
      const { register, end: from } = modRm()
      if ((register & 7) > 1) return undefined
      const { end, ...more } = immediate(from, size, Math.min(size, 4))
      return result(false, size, 0, end, { ...more, operation: { name: 'test', to: 'memory' } })
    }
    case 0x84: case 0x85: case 0x86: case 0x87: {
      const { register, end } = modRm()
      return result(false, opcode & 1 ? full : 1, register, end, { operation: { name: opcode < 0x86 ? 'test' : 'xchg', to: 'memory' } })
    }
    case 0xa4: case 0xa5: case 0xaa: case 0xab: {
      const indices = opcode < 0xaa ? [registerNumber.rsi, registerNumber.rdi] : [registerNumber.rdi]
      const string = { segment, addressSize, repeats: repeats !== undefined, indices }
      return result(opcode >= 0xaa, opcode & 1 ? full : 1, 0, at, { string })
    }
    case 0x0f: {
      const second = bytes[at++]
      if (second !== 0xb6 && second !== 0xb7 && second !== 0xbe && second !== 0xbf) return undefined
      const { register, end } = modRm()
      return result(false, second & 1 ? 2 : 1, register, end, { extend: { size: full, signed: second >= 0xbe } })
    }
    default: {
      if (opcode >= 0x40 || (opcode & 7) > 3) return undefined
      const { register, end } = modRm()
      const operation = { name: arithmeticNames[opcode >> 3], to: opcode & 2 ? 'register' : 'memory' } as const
      return result(false, opcode & 1 ? full : 1, register, end, { operation })
    }
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
