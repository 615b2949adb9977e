/**
 * Steps two machines side by side and finds the first instruction after which they differ.
 * What comes from outside the CPU is taken from the right one, given to the left one (the other way when that cannot be), and counted.
 */
import { decodeInstruction } from '../disassemble.ts'
import type { DecodedInstruction } from '../disassemble.ts'
import type { Peer } from './peer.ts'
import { excuse } from './repair.ts'
import { History } from './report.ts'
import type { Parting } from './report.ts'
import { differences, linearRip } from './state.ts'
import type { PeerState } from './state.ts'

export interface DifferOptions {
  maxSteps: number
  /** Steps before the first comparison: quicker, but what parts there is found late. */
  skip?: number
  history?: number
  ignore?: ReadonlySet<string>
  onRepair?: (cause: string, instruction: string, count: number) => void
  onProgress?: (count: number) => void
  /** Called before each step with its number: a test pokes here. */
  beforeStep?: (count: number) => Promise<void>
}

export interface DifferResult {
  /** `same`: maxSteps were compared. `halted`: both sleep. */
  kind: 'same' | 'halted' | 'parted'
  steps: number
  parting: Parting | undefined
  repairs: Map<string, number>
}

/** A REP of this many iterations is taken for an endless loop. */
const LONGEST_REPEAT = 2 ** 24

export async function findParting(left: Peer, right: Peer, options: DifferOptions): Promise<DifferResult> {
  const repairs = new Map<string, number>()
  const history = new History(options.history ?? 20)
  const result = (kind: DifferResult['kind'], steps: number, parting?: Parting): DifferResult => ({ kind, steps, parting, repairs })
  let count = 0
  for (; count < (options.skip ?? 0); count++) await Promise.all([left.step(), right.step()])
  let [before, other] = await Promise.all([left.registers(), right.registers()])
  const first = differences(before, other, options.ignore)
  if (first.length > 0) {
    const why = `${first.map(({ name }) => name).join(', ')}, before the first comparison`
    return result('parted', count, { count, why, before: undefined, left: before, right: other, differences: first, history: [] })
  }
  for (; count < options.maxSteps; count++) {
    await options.beforeStep?.(count)
    history.push({ count, rip: before.values.rip, linear: linearRip(before), codeSize: codeSize(before, other) })
    const [mine, yours] = await Promise.all([left.step(), right.step()])
    let [a, b] = await Promise.all([left.registers(), right.registers()])
    if (mine !== yours) {
      // Some debuggers come back from HLT with the CPU asleep, others do not.
      if ((await decodeAt(right, before, other)).mnemonic === 'hlt') return result('halted', count)
      const why = `${left.name} ${mine}, ${right.name} ${yours}`
      return result('parted', count, { count, why, before, left: a, right: b, differences: differences(a, b), history: history.list() })
    }
    if (mine === 'halted') return result('halted', count)
    if (a.values.rip !== b.values.rip) [a, b] = await finishRepeat(left, right, before, a, b)
    const found = differences(a, b, options.ignore)
    if (found.length > 0) {
      const instruction = await decodeAt(right, before, other)
      const cause = excuse(instruction, shown(before, other), found, (linear) => left.isDevice?.(linear) ?? false)
      if (cause === undefined) {
        const why = `${found.map(({ name }) => name).join(', ')} after "${instruction.text}"`
        return result('parted', count, { count, why, before, left: a, right: b, differences: found, history: history.list() })
      }
      if (left.readOnly) {
        await right.write(Object.fromEntries(found.map((each) => [each.name, each.left])))
        b = await right.registers()
      } else {
        await left.write(Object.fromEntries(found.map((each) => [each.name, each.right])))
        a = await left.registers()
      }
      repairs.set(cause, (repairs.get(cause) ?? 0) + 1)
      options.onRepair?.(cause, instruction.text, count)
    }
    before = a
    other = b
    if (count % 1000 === 999) options.onProgress?.(count + 1)
  }
  return result('same', count)
}

/** One side does REP by iterations, the other as a whole: the slower one is stepped until it has moved on, too. */
async function finishRepeat(left: Peer, right: Peer, before: PeerState, a: PeerState, b: PeerState): Promise<[PeerState, PeerState]> {
  const behind = a.values.rip === before.values.rip ? left : b.values.rip === before.values.rip ? right : undefined
  if (!behind) return [a, b]
  const { repeats } = await decodeAt(behind, before, before)
  let state = behind === left ? a : b
  for (let i = 0; repeats && state.values.rip === before.values.rip && i < LONGEST_REPEAT; i++) {
    await behind.step()
    state = await behind.registers()
  }
  return behind === left ? [state, b] : [a, state]
}

const codeSize = (one: PeerState, other: PeerState): 16 | 32 | 64 => one.codeSize ?? other.codeSize ?? guessCodeSize(one)

/** For two peers that show no descriptor: 64-bit in long mode is right except in compatibility mode. */
function guessCodeSize({ values }: PeerState): 16 | 32 | 64 {
  if (((values.efer ?? 0n) & 0x400n) !== 0n) return 64
  return ((values.cr0 ?? 1n) & 1n) !== 0n ? 32 : 16
}

/** What both sides show of one state: segment bases and the code size may come from either. */
function shown(one: PeerState, other: PeerState): PeerState {
  return { codeSize: codeSize(one, other), values: { ...other.values, ...one.values } }
}

async function decodeAt(peer: Peer, one: PeerState, other: PeerState): Promise<DecodedInstruction> {
  const state = shown(one, other)
  const linear = linearRip(state)
  const bytes = await readCode(peer, linear)
  return decodeInstruction(bytes, state.codeSize ?? 64, state.values.rip)
}

/** Up to 15 bytes: the next page may not be mapped. */
export async function readCode(peer: Peer, linear: bigint): Promise<Uint8Array> {
  const toPageEnd = 0x1000 - Number(linear & 0xfffn)
  try {
    return await peer.readMemory(linear, 15)
  } catch {
    if (toPageEnd >= 15) return new Uint8Array(0)
    return peer.readMemory(linear, toPageEnd).catch(() => new Uint8Array(0))
  }
}
