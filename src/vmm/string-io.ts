/**
 * INS and OUTS of guests: one element is one access to the port, and memory is read and written in the guest's name. What is repeated exits
 * again for the next element. Intel SDM vol. 2, "INS/INSB/INSW/INSD", "OUTS/OUTSB/OUTSW/OUTSD".
 */
import type { AnyExit, ExitOf } from './exits.ts'
import { readOperand, writeOperand } from './guest-access.ts'
import { instructionAt } from './guest-walk.ts'
import { codeSizeOf, linearAddress, parse } from './memory-operand.ts'
import { register } from './port.ts'
import type { Vcpu } from './vcpu.ts'
import type { SegmentName, Virtualizer } from './virtualizer.ts'

const directionFlag = 0x400n
const low32 = 0xffffffffn

/** The element that an exit is about. */
export interface StringElement {
  readonly segment: SegmentName
  /** RSI or RDI, and what is used of it and of RCX. */
  readonly index: number
  readonly addressSize: 16 | 32 | 64
  readonly repeats: boolean
}

/** Writes to a part of a register: of 32 bits they clear the upper half. */
function setPart(vcpu: Vcpu, number: number, value: bigint, bits: 16 | 32 | 64): void {
  const old = vcpu.registers[number]
  vcpu.registers[number] = bits === 16 ? (old & ~0xffffn) | (value & 0xffffn) : bits === 32 ? value & low32 : BigInt.asUintN(64, value)
}
const placeOf = (vcpu: Vcpu, { segment, index, addressSize }: StringElement): bigint =>
  linearAddress(vcpu, segment, BigInt.asUintN(addressSize, vcpu.registers[index]))

/** As an access to the port; 'ready': the guest gets a page fault instead. */
export function stringAccess(vcpu: Vcpu, exit: Extract<AnyExit, { kind: 'stringIo' }>, virtualizer: Virtualizer): AnyExit | 'ready' {
  const { port, size, read, raw } = exit
  const { segment = 'ds', addressSize, repeats } = parse(instructionAt(vcpu), codeSizeOf(vcpu))
  const string: StringElement = {
    segment: read ? 'es' : segment, index: read ? register.rdi : register.rsi, addressSize, repeats: repeats !== undefined,
  }
  if (read) return { kind: 'portRead', port, size, string, raw }
  const bytes = readOperand(vcpu, placeOf(vcpu, string), size, address => virtualizer.setFaultAddress(vcpu, address))
  if (!bytes) return 'ready'
  const value = bytes.reduceRight((sum, byte) => sum * 256 + byte, 0)
  return { kind: 'portWrite', port, size, value, string, raw }
}

/** The port has answered. */
export function completeString(vcpu: Vcpu, exit: ExitOf<'portRead'> | ExitOf<'portWrite'>, value: number, virtualizer: Virtualizer): void {
  const string = exit.string!
  const { index, addressSize, repeats } = string
  if (exit.kind === 'portRead') {
    const bytes = Uint8Array.from({ length: exit.size }, (_, i) => value >>> (i * 8))
    if (!writeOperand(vcpu, placeOf(vcpu, string), bytes, address => virtualizer.setFaultAddress(vcpu, address))) return
  }
  if (finishElement(vcpu, { indices: [index], addressSize, repeats }, exit.size)) virtualizer.advance(vcpu)
}

interface Progress {
  readonly indices: readonly number[]
  readonly addressSize: 16 | 32 | 64
  readonly repeats: boolean
}

/** Indices and counter go on; whether this was the last element. */
export function finishElement(vcpu: Vcpu, { indices, addressSize, repeats }: Progress, size: number): boolean {
  const step = BigInt(vcpu.get('rflags') & directionFlag ? -size : size)
  for (const index of indices) setPart(vcpu, index, vcpu.registers[index] + step, addressSize)
  if (!repeats) return true
  setPart(vcpu, register.rcx, vcpu.registers[register.rcx] - 1n, addressSize)
  return BigInt.asUintN(addressSize, vcpu.registers[register.rcx]) === 0n
}
