/**
 * Instructions that do more with a device's register than move it: arithmetic, TEST, XCHG, STOS and MOVS, done in their place. Intel SDM
 * vol. 2, the instructions' pages; vol. 1, "Status Flags".
 */
import type { DeviceAccess } from './device-access.ts'
import { readOperand, writeOperand } from './guest-access.ts'
import { linearAddress } from './memory-operand.ts'
import { register } from './port.ts'
import { finishElement } from './string-io.ts'
import type { Vcpu } from './vcpu.ts'
import type { SegmentName, Virtualizer } from './virtualizer.ts'

export const arithmeticNames = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'] as const
type OperationName = (typeof arithmeticNames)[number] | 'test' | 'xchg'

export interface DeviceOperation {
  readonly name: OperationName
  /** Where its result goes; CMP and TEST have none. */
  readonly to: 'register' | 'memory'
}
/** An element of STOS or MOVS. */
export interface DeviceString {
  readonly segment: SegmentName
  readonly addressSize: 16 | 32 | 64
  readonly repeats: boolean
  readonly indices: readonly number[]
}

const flag = { carry: 1n, parity: 4n, adjust: 0x10n, zero: 0x40n, sign: 0x80n, overflow: 0x800n } as const
const statusFlags = 0x8d5n

function parityOf(value: bigint): boolean {
  let bits = Number(value & 0xffn)
  bits ^= bits >> 4
  bits ^= bits >> 2
  bits ^= bits >> 1
  return (bits & 1) === 0
}

/** Result and status flags of `left` and `right`. AF after AND, OR, XOR and TEST is undefined: 0. */
function compute(name: OperationName, left: bigint, right: bigint, size: number, carryIn: bigint): { result: bigint; flags: bigint } {
  const bits = BigInt(size * 8)
  const top = 1n << (bits - 1n)
  const carry = name === 'adc' || name === 'sbb' ? carryIn : 0n
  const isAddition = name === 'add' || name === 'adc'
  const isLogic = name === 'and' || name === 'or' || name === 'xor' || name === 'test'
  const logic = name === 'or' ? left | right : name === 'xor' ? left ^ right : left & right
  const exact = isLogic ? logic : isAddition ? left + right + carry : left - right - carry
  const result = BigInt.asUintN(Number(bits), exact)
  let flags = (result === 0n ? flag.zero : 0n) | (result & top ? flag.sign : 0n) | (parityOf(result) ? flag.parity : 0n)
  if (isLogic) return { result, flags }
  if (exact !== result) flags |= flag.carry
  if ((left ^ right ^ result) & 0x10n) flags |= flag.adjust
  const overflow = isAddition ? (left ^ result) & (right ^ result) : (left ^ right) & (left ^ result)
  return { result, flags: overflow & top ? flags | flag.overflow : flags }
}

/** The device has said what is in its register: what is written back, if anything. `own`: the other operand. */
export function operate(vcpu: Vcpu, { operation, size }: DeviceAccess, device: bigint, own: bigint, setRegister: (value: bigint) => void):
  bigint | undefined {
  const { name, to } = operation!
  if (name === 'xchg') {
    setRegister(device)
    return own
  }
  const before = vcpu.get('rflags')
  const [left, right] = to === 'register' ? [own, device] : [device, own]
  const { result, flags } = compute(name, left, right, size, before & flag.carry)
  vcpu.set('rflags', (before & ~statusFlags) | flags)
  if (name === 'cmp' || name === 'test') return undefined
  if (to === 'memory') return result
  setRegister(result)
  return undefined
}

/** What MOVS reads from memory for a device; undefined: the guest gets a page fault. */
export function stringSource(vcpu: Vcpu, { size, string }: DeviceAccess, virtualizer: Virtualizer): bigint | undefined {
  if (string!.indices.length === 1) return BigInt.asUintN(size * 8, vcpu.registers[register.rax])
  const at = linearAddress(vcpu, string!.segment, BigInt.asUintN(string!.addressSize, vcpu.registers[register.rsi]))
  const bytes = readOperand(vcpu, at, size, address => virtualizer.setFaultAddress(vcpu, address))
  return bytes?.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
}
/** MOVS from a device has its value. */
export function completeStringRead(vcpu: Vcpu, access: DeviceAccess, value: bigint, virtualizer: Virtualizer): void {
  const string = access.string!
  const at = linearAddress(vcpu, 'es', BigInt.asUintN(string.addressSize, vcpu.registers[register.rdi]))
  const bytes = Uint8Array.from({ length: access.size }, (_, i) => Number((value >> BigInt(i * 8)) & 0xffn))
  if (writeOperand(vcpu, at, bytes, address => virtualizer.setFaultAddress(vcpu, address))) completeStringElement(vcpu, access)
}
/** One element of a string instruction was answered: its registers go on, and RIP when it was the last. */
export function completeStringElement(vcpu: Vcpu, { string, size, length }: DeviceAccess): void {
  if (finishElement(vcpu, string!, size)) vcpu.set('rip', vcpu.get('rip') + BigInt(length))
}
