/**
 * One run of QEMU, followed by our machine along QEMU's execution log.
 */
import type { FollowedMachine } from '../../src/insight/lockstep/follow.ts'
import { TraceFollower } from '../../src/insight/lockstep/follow.ts'
import { QemuTraceParser } from '../../src/insight/lockstep/qemu-trace.ts'
import type { Parting } from '../../src/insight/lockstep/report.ts'
import type { Qemu } from './qemu.ts'
import { ramRanges, transplant } from './transplant.ts'

export interface FollowQemuOptions {
  memory: number
  /** Where to begin: a linear address that QEMU runs to first, at full speed. */
  from?: bigint
  maxInstructions: number
  history: number
  ignore: ReadonlySet<string>
  allowLoads: number
  /** Compare XMM registers, too. */
  floating: boolean
  onRepair?: (cause: string, instruction: string, count: number) => void
  onProgress?: (count: number) => void
  onRemark: (text: string) => void
}

export interface FollowResult {
  /** `limit`: maxInstructions were compared. `ended`: QEMU's log ended (power-off, reset). */
  kind: 'parted' | 'limit' | 'ended'
  count: number
  parting: Parting | undefined
  repairs: Map<string, number>
  follower: TraceFollower
}

export async function followQemu(qemu: Qemu, machine: FollowedMachine, options: FollowQemuOptions): Promise<FollowResult> {
  if (options.from !== undefined) await qemu.gdb.resumeTo(options.from)
  for (const remark of await transplant(qemu, machine, options.memory, options.from !== undefined)) options.onRemark(remark)
  const ranges = ramRanges(options.memory)
  const follower = new TraceFollower(machine, {
    isMemory: (physical) => ranges.some(([from, to]) => physical >= from && physical < to),
    history: options.history,
    ignore: options.ignore,
    allowLoads: options.allowLoads,
    onRepair: options.onRepair,
  })
  let parting: Parting | undefined
  let seen = 0
  const parser = new QemuTraceParser((record) => {
    parting = follower.feed(record)
    if (++seen % 100_000 === 0) options.onProgress?.(follower.count)
    return parting ? 'parted' : follower.count >= options.maxInstructions ? 'limit' : undefined
  })
  for await (const chunk of await qemu.trace(options.floating)) {
    parser.feed(chunk as Uint8Array)
    if (parser.stopped !== undefined) break
  }
  if (parser.stopped === undefined) parser.end()
  const kind = parting ? 'parted' : parser.stopped === 'limit' ? 'limit' : 'ended'
  return { kind, count: follower.count, parting, repairs: follower.repairs, follower }
}
