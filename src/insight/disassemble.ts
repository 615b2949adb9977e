/**
 * Disassembly, and the few facts about an instruction that the tools ask for, by the iced-x86 package.
 * It tells nothing to the engines: they decode by their own tables, so that this stays an independent opinion.
 */
import type { Formatter, Instruction, InstructionInfoFactory, Register } from 'iced-x86'
import { load } from '#iced-x86'

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

type Iced = NonNullable<ReturnType<typeof load>>

interface Tools {
  readonly iced: Iced
  readonly formatter: Formatter
  readonly info: InstructionInfoFactory
  /** Bits of iced's set of flags, and where they are in RFLAGS. */
  readonly flagBits: readonly (readonly [number, bigint])[]
  readonly reads: ReadonlySet<number>
  readonly writes: ReadonlySet<number>
}

let shared: Tools | undefined

/** Made when something is first disassembled; undefined where there is no disassembler (browsers). */
function tools(): Tools | undefined {
  if (shared) return shared
  const iced = load()
  if (!iced) return undefined
  const { OpAccess, RflagsBits } = iced
  const formatter = new iced.Formatter(iced.FormatterSyntax.Intel)
  formatter.hexPrefix = '0x'
  formatter.hexSuffix = ''
  formatter.spaceAfterOperandSeparator = true
  formatter.branchLeadingZeros = false
  formatter.smallHexNumbersInDecimal = true
  const flags = [
    RflagsBits.CF, RflagsBits.PF, RflagsBits.AF, RflagsBits.ZF, RflagsBits.SF, RflagsBits.IF, RflagsBits.DF, RflagsBits.OF, RflagsBits.AC,
  ]
  const positions = [0n, 2n, 4n, 6n, 7n, 9n, 10n, 11n, 18n]
  shared = {
    iced,
    formatter,
    info: new iced.InstructionInfoFactory(),
    flagBits: flags.map((bit, i) => [bit, 1n << positions[i]] as const),
    reads: new Set([OpAccess.Read, OpAccess.CondRead, OpAccess.ReadWrite, OpAccess.ReadCondWrite]),
    writes: new Set([OpAccess.Write, OpAccess.CondWrite, OpAccess.ReadWrite, OpAccess.ReadCondWrite]),
  }
  return shared
}

function memoryOperands({ iced, info: factory, reads, writes }: Tools, instruction: Instruction): MemoryOperand[] {
  const { Register } = iced
  const registerName = (register: Register): string | undefined =>
    (register === Register.None ? undefined : Register[register].toLowerCase())
  const info = factory.info(instruction)
  const operands = info.usedMemory().map((used) => {
    const base = registerName(used.base)
    const relative = base === 'rip' || base === 'eip'
    const operand: MemoryOperand = {
      segment: registerName(used.segment) ?? 'ds',
      base: relative ? undefined : base,
      index: registerName(used.index),
      scale: used.scale,
      displacement: used.displacement,
      size: iced.MemorySizeExt.size(used.memorySize),
      reads: reads.has(used.access),
      writes: writes.has(used.access),
    }
    used.free()
    return operand
  })
  info.free()
  return operands
}

/** Decodes the first instruction of `bytes`, which lies at offset `ip` in its code segment. Give up to 15 bytes. */
export function decodeInstruction(bytes: Uint8Array, size: CodeSize, ip: bigint): DecodedInstruction {
  const all = tools()
  if (!all) return undecoded(bytes)
  const { iced, formatter, flagBits } = all
  const decoder = new iced.Decoder(size, bytes, 0)
  decoder.ip = ip
  const instruction = decoder.decode()
  const flags = instruction.rflagsUndefined
  const decoded: DecodedInstruction = {
    text: instruction.isInvalid ? `(bad: ${hexBytes(bytes.subarray(0, 15))})` : formatter.format(instruction),
    mnemonic: instruction.isInvalid ? 'invalid' : iced.Mnemonic[instruction.mnemonic].toLowerCase(),
    length: instruction.isInvalid ? 1 : instruction.length,
    repeats: instruction.isStringInstruction && (instruction.hasRepPrefix || instruction.hasRepnePrefix),
    undefinedFlags: flagBits.reduce((set, [theirs, ours]) => (flags & theirs ? set | ours : set), 0n),
    memory: instruction.isInvalid ? [] : memoryOperands(all, instruction),
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
