/**
 * One run of QEMU, followed by our machine along QEMU's execution log.
 */
import type { FollowedMachine } from '../../src/insight/lockstep/follow.ts'
import type { Readable } from 'node:stream'
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
  /** Milliseconds without any log after which the guest is taken to sleep for ever (default 3000). */
  quietAfter?: number
}

export interface FollowResult {
  /**
   * `limit`: maxInstructions were compared. `ended`: QEMU's log ended (power-off, reset).
   * `quiet`: the guest sleeps, and nothing wakes it.
   */
  kind: 'parted' | 'limit' | 'ended' | 'quiet'
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
  const ending = await readUntilQuiet(await qemu.trace(options.floating), options.quietAfter ?? 3000, (chunk) => {
    parser.feed(chunk)
    return parser.stopped === undefined
  })
  if (parser.stopped === undefined) parser.end()
  const kind = parting ? 'parted' : parser.stopped === 'limit' ? 'limit' : ending
  return { kind, count: follower.count, parting, repairs: follower.repairs, follower }
}

/** Hands out chunks until the stream ends, stands still, or `take` answers false. */
async function readUntilQuiet(stream: Readable, quietAfter: number, take: (chunk: Uint8Array) => boolean): Promise<'ended' | 'quiet'> {
  const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>
  for (;;) {
    let timer: ReturnType<typeof setTimeout> | undefined
    const quiet = new Promise<'quiet'>((resolve) => {
      timer = setTimeout(resolve, quietAfter, 'quiet')
    })
    const next = await Promise.race([chunks.next(), quiet])
    clearTimeout(timer)
    if (next === 'quiet') return next
    if (next.done || !take(next.value)) return 'ended'
  }
}
