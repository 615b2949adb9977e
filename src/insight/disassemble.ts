/**
 * Disassembly, and the few facts about an instruction that the tools ask for, by the iced-x86 package.
 * It tells nothing to the engines: they decode by their own tables, so that this stays an independent opinion.
 */
import { Decoder, Formatter, FormatterSyntax, InstructionInfoFactory, MemorySizeExt } from '#iced-x86'
import { Mnemonic, OpAccess, Register, RflagsBits } from '#iced-x86'
import type { Instruction } from '#iced-x86'

/** The default operand size of the code segment: 16, 32 or (CS.L = 1) 64. */
export type CodeSize = 16 | 32 | 64

export interface MemoryOperand {
  /** `ds`, `fs`...; the register's name in lower case. */
  segment: string
  /** Register names in lower case (`rax`, `ebx`, `si`), or undefined. `rip` never occurs: it is already in the displacement. */
  base: string | undefined
  index: string | undefined
  scale: number
  displacement: bigint
  /** Bytes accessed; 0 where it depends on state (XSAVE). */
  size: number
  reads: boolean
  writes: boolean
}

export interface DecodedInstruction {
  /** Intel syntax. */
  text: string
  /** In lower case: `rdtsc`, `movsb`. `invalid` when the bytes are no instruction. */
  mnemonic: string
  length: number
  /** Has a REP, REPE or REPNE prefix that repeats (a string instruction). */
  repeats: boolean
  /** RFLAGS bits that the manual leaves undefined after this instruction. */
  undefinedFlags: bigint
  memory: MemoryOperand[]
}

/** Bits of iced's set of flags, and where they are in RFLAGS. */
const FLAG_BITS: [number, bigint][] = [
  [RflagsBits.CF, 1n << 0n],
  [RflagsBits.PF, 1n << 2n],
  [RflagsBits.AF, 1n << 4n],
  [RflagsBits.ZF, 1n << 6n],
  [RflagsBits.SF, 1n << 7n],
  [RflagsBits.IF, 1n << 9n],
  [RflagsBits.DF, 1n << 10n],
  [RflagsBits.OF, 1n << 11n],
  [RflagsBits.AC, 1n << 18n],
]

const READS: ReadonlySet<OpAccess> = new Set([OpAccess.Read, OpAccess.CondRead, OpAccess.ReadWrite, OpAccess.ReadCondWrite])
const WRITES: ReadonlySet<OpAccess> = new Set([OpAccess.Write, OpAccess.CondWrite, OpAccess.ReadWrite, OpAccess.ReadCondWrite])

let shared: { formatter: Formatter; info: InstructionInfoFactory } | undefined

function tools(): { formatter: Formatter; info: InstructionInfoFactory } {
  if (!shared) {
    const formatter = new Formatter(FormatterSyntax.Intel)
    formatter.hexPrefix = '0x'
    formatter.hexSuffix = ''
    formatter.spaceAfterOperandSeparator = true
    formatter.branchLeadingZeros = false
    formatter.smallHexNumbersInDecimal = true
    shared = { formatter, info: new InstructionInfoFactory() }
  }
  return shared
}

const registerName = (register: Register): string | undefined => (register === Register.None ? undefined : Register[register].toLowerCase())

function memoryOperands(instruction: Instruction): MemoryOperand[] {
  const info = tools().info.info(instruction)
  const operands = info.usedMemory().map((used) => {
    const base = registerName(used.base)
    const relative = base === 'rip' || base === 'eip'
    const operand: MemoryOperand = {
      segment: registerName(used.segment) ?? 'ds',
      base: relative ? undefined : base,
      index: registerName(used.index),
      scale: used.scale,
      displacement: used.displacement,
      size: MemorySizeExt.size(used.memorySize),
      reads: READS.has(used.access),
      writes: WRITES.has(used.access),
    }
    used.free()
    return operand
  })
  info.free()
  return operands
}

/** Decodes the first instruction of `bytes`, which lies at offset `ip` in its code segment. Give up to 15 bytes. */
export function decodeInstruction(bytes: Uint8Array, size: CodeSize, ip: bigint): DecodedInstruction {
  if ((Decoder as unknown) === undefined) return undecoded(bytes)
  const decoder = new Decoder(size, bytes, 0)
  decoder.ip = ip
  const instruction = decoder.decode()
  const flags = instruction.rflagsUndefined
  const decoded: DecodedInstruction = {
    text: instruction.isInvalid ? `(bad: ${hexBytes(bytes.subarray(0, 15))})` : tools().formatter.format(instruction),
    mnemonic: instruction.isInvalid ? 'invalid' : Mnemonic[instruction.mnemonic].toLowerCase(),
    length: instruction.isInvalid ? 1 : instruction.length,
    repeats: instruction.isStringInstruction && (instruction.hasRepPrefix || instruction.hasRepnePrefix),
    undefinedFlags: FLAG_BITS.reduce((set, [theirs, ours]) => (flags & theirs ? set | ours : set), 0n),
    memory: instruction.isInvalid ? [] : memoryOperands(instruction),
  }
  instruction.free()
  decoder.free()
  return decoded
}

/** Where there is no disassembler (browsers). */
function undecoded(bytes: Uint8Array): DecodedInstruction {
  const text = '(no disassembler here)'
  return { text, mnemonic: 'invalid', length: bytes.length, repeats: false, undefinedFlags: 0n, memory: [] }
}

export interface Line {
  ip: bigint
  bytes: Uint8Array
  text: string
}

/** Disassembles up to `count` instructions; stops early where the bytes end. */
export function disassemble(bytes: Uint8Array, size: CodeSize, ip: bigint, count = Infinity): Line[] {
  const lines: Line[] = []
  let at = 0
  while (at < bytes.length && lines.length < count) {
    const where = ip + BigInt(at)
    const { text, length } = decodeInstruction(bytes.subarray(at, at + 15), size, where)
    lines.push({ ip: where, bytes: bytes.slice(at, at + length), text })
    at += length
  }
  return lines
}

function hexBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')
}

/** `000000007c00  eb fe                 jmp 0x7c00` */
export function formatLine(line: Line): string {
  return `${line.ip.toString(16).padStart(16, '0')}  ${hexBytes(line.bytes).padEnd(30)}  ${line.text}`
}
