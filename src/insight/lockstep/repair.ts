/**
 * Which differences after an instruction are nobody's fault: flags that the manual leaves undefined, and values that come from outside the
 * CPU's architecture (time, random numbers, identification, devices). A differ takes them over from one side to the other and goes on.
 */
import type { DecodedInstruction, MemoryOperand } from '../disassemble.ts'
import type { Difference, PeerState } from './state.ts'

export type Cause = 'undefined flags' | 'time, identity or port' | 'device memory'

/** Their results come from the clock, the random generator, the CPU model or a device. */
const OUTSIDE: ReadonlySet<string> = new Set(
  'rdtsc rdtscp rdpmc rdrand rdseed cpuid rdmsr xgetbv rdpid in insb insw insd'.split(' '),
)

/** Never compared, see state.ts. */
const RF = 1n << 16n

/** Names of 32- and 16-bit registers lead to the 64-bit register that holds them. */
function widen(register: string): { name: string; mask: bigint } {
  if (/^r(\d+)d$/.test(register)) return { name: register.slice(0, -1), mask: 0xffffffffn }
  if (/^r/.test(register)) return { name: register, mask: (1n << 64n) - 1n }
  if (/^e/.test(register)) return { name: `r${register.slice(1)}`, mask: 0xffffffffn }
  return { name: `r${register}`, mask: 0xffffn }
}

/** The linear address of a memory operand, from the registers before the instruction. Undefined for vector indexes (gathers). */
export function linearAddress(operand: MemoryOperand, before: PeerState): bigint | undefined {
  let mask = before.codeSize === 64 ? (1n << 64n) - 1n : before.codeSize === 16 ? 0xffffn : 0xffffffffn
  let offset = operand.displacement
  for (const [register, scale] of [[operand.base, 1], [operand.index, operand.scale]] as const) {
    if (register === undefined) continue
    const wide = widen(register)
    const value = before.values[wide.name]
    if (value === undefined) return undefined
    mask = wide.mask
    offset += (value & mask) * BigInt(scale)
  }
  const flat = before.codeSize === 64 && operand.segment !== 'fs' && operand.segment !== 'gs'
  const base = flat ? 0n : before.values[`${operand.segment}_base`]
  if (base === undefined) return undefined
  const linear = base + (offset & mask)
  return before.codeSize === 64 ? linear & ((1n << 64n) - 1n) : linear & 0xffffffffn
}

/**
 * Why a difference may be taken over, or undefined when it may not.
 * `isDevice` tells whether a linear address leads to something else than RAM.
 */
export function excuse(
  instruction: DecodedInstruction,
  before: PeerState,
  differences: readonly Difference[],
  isDevice: (linear: bigint) => boolean,
): Cause | undefined {
  if (differences.some(({ name }) => name === 'rip')) return undefined
  const onlyFlags = differences.every(({ name }) => name === 'rflags')
  const mayDiffer = instruction.undefinedFlags | RF
  if (onlyFlags && differences.every(({ left, right }) => ((left ^ right) & ~mayDiffer) === 0n)) return 'undefined flags'
  if (OUTSIDE.has(instruction.mnemonic)) return 'time, identity or port'
  for (const operand of instruction.memory) {
    const linear = operand.reads ? linearAddress(operand, before) : undefined
    if (linear !== undefined && isDevice(linear)) return 'device memory'
  }
  return undefined
}
