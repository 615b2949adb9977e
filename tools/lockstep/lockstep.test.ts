/**
 * The differs, tried on machines that must agree: QEMU against QEMU never parts, and parts where a register was changed behind its back;
 * QEMU and Bochs agree on guests that use only what the manuals define.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { CpuRegisters, StopReason } from '../../src/api.ts'
import { findParting, readCode } from '../../src/insight/lockstep/differ.ts'
import type { DifferResult } from '../../src/insight/lockstep/differ.ts'
import { TraceFollower } from '../../src/insight/lockstep/follow.ts'
import type { FollowedMachine } from '../../src/insight/lockstep/follow.ts'
import type { Peer } from '../../src/insight/lockstep/peer.ts'
import { attributesOf, QemuTraceParser, stateOfRecord } from '../../src/insight/lockstep/qemu-trace.ts'
import type { TraceRecord } from '../../src/insight/lockstep/qemu-trace.ts'
import { formatParting } from '../../src/insight/lockstep/report.ts'
import { rawStart } from '../../src/insight/lockstep/start.ts'
import type { RawMode, StartState } from '../../src/insight/lockstep/start.ts'
import { differences, stateOfRegisters } from '../../src/insight/lockstep/state.ts'
import { Bochs, BochsPeer } from './bochs.ts'
import { QemuPeer } from './qemu-peer.ts'
import { Qemu } from './qemu.ts'
import { assemble } from './rom.ts'

const MEMORY = 16 * 2 ** 20
const open: { close(): void | Promise<void> }[] = []
after(async () => {
  for (const each of open) await each.close()
})

/** Arithmetic, a loop, a REP, stack, flags that MUL leaves undefined, time; then sleep. One text for all modes: only the sizes differ. */
function guest(mode: RawMode): StartState {
  const at = mode === 'real16' ? 0x7c00 : 0x100000
  const code = { real16: '.code16', protected32: '.code32', long64: '.code64' }[mode]
  const [a, c, d, di] = { real16: 'ax cx dx di', protected32: 'eax ecx edx edi', long64: 'rax rcx rdx rdi' }[mode].split(' ')
  const source = `${code}
    .globl _start
_start:
    mov $20, %${c}
1:  add %${c}, %${a}
    rol $3, %${a}
    push %${a}
    mul %${c}
    pop %${d}
    adc %${d}, %${a}
    loop 1b
    mov $0x6000, %${di}
    mov $5, %${c}
    cld
    rep stosb
    rdtsc
    hlt
`
  return rawStart(assemble(source, at), at, mode)
}

async function qemu(start: StartState, name: string): Promise<Peer> {
  const peer = new QemuPeer(await Qemu.launch({ memory: MEMORY, start }), name)
  open.push(peer)
  return peer
}

/** 1 + 20 * 7 + 3 + REP's 5 iterations, the last of which QEMU makes a step of its own to see that none is left + RDTSC. */
const LONGEST = 160

for (const mode of ['real16', 'protected32', 'long64'] as const) {
  test(`the boot ROM leads QEMU into ${mode} with exactly the wanted registers`, async () => {
    const start = guest(mode)
    const machine = await Qemu.launch({ memory: MEMORY, start })
    open.push(machine)
    assert.deepEqual(differences(stateOfRegisters(start.registers), stateOfRecord(await machine.record())), [])
  })

  test(`QEMU against QEMU never parts, ${mode}`, async () => {
    const start = guest(mode)
    const result = await findParting(await qemu(start, 'left'), await qemu(start, 'right'), { maxSteps: LONGEST })
    assert.deepEqual([result.kind, result.parting, result.repairs.size], ['halted', undefined, 0])
    assert.ok(result.steps > 140)
  })
}

test('a register changed behind the back of one side is found at once, and shown', async () => {
  const start = guest('long64')
  const [left, right] = [await qemu(start, 'left'), await qemu(start, 'right')]
  const result = await findParting(left, right, {
    maxSteps: LONGEST,
    history: 3,
    beforeStep: async (count) => {
      if (count === 77) await right.write({ rbx: 5n })
    },
  })
  assert.equal(result.kind, 'parted')
  assert.equal(result.parting?.count, 77)
  assert.deepEqual(result.parting?.differences, [{ name: 'rbx', left: 0n, right: 5n }])
  const text = await formatParting(result.parting!, { left: 'left', right: 'right' }, (at) => readCode(right, at))
  assert.match(text, /^left and right part after 77 instructions: rbx/)
  assert.match(text, /^> +77 .* +(loop|add|rol|push|mul|pop|adc) /m)
  assert.match(text, /^> rbx +0{16} +0{15}5$/m)
  assert.equal(text.match(/^>/gm)?.length, 2)
})

for (const mode of ['real16', 'long64'] as const) {
  test(`Bochs and QEMU agree, but for time and undefined flags, ${mode}`, async () => {
    const start = guest(mode)
    const bochs = new BochsPeer(await Bochs.launch({ memory: MEMORY, start }))
    open.push(bochs)
    const result: DifferResult = await findParting(bochs, await qemu(start, 'QEMU'), { maxSteps: LONGEST })
    assert.equal(result.parting?.why, undefined)
    assert.equal(result.kind, 'halted')
    assert.equal(result.repairs.get('time, identity or port'), 1)
  })
}

/** A machine that has no CPU: it plays back what another run of QEMU recorded. */
class Playback implements FollowedMachine {
  readonly #states: CpuRegisters[]
  #at = 0
  changes: Partial<CpuRegisters>[] = []

  constructor(states: CpuRegisters[]) {
    this.#states = states
  }
  /** A REP's iterations are one step here. */
  step(): StopReason | undefined {
    const { rip } = this.#states[this.#at]
    do this.#at++
    while (this.#states[this.#at]?.rip === rip)
    return this.#at < this.#states.length ? undefined : { kind: 'idle' }
  }
  registers(): CpuRegisters {
    return structuredClone(this.#states[Math.min(this.#at, this.#states.length - 1)])
  }
  setRegisters(change: Partial<CpuRegisters>): void {
    this.changes.push(change)
    Object.assign(this.#states[this.#at], change)
  }
  readPhysical(address: number, length: number): Uint8Array {
    return this.memory(address, length)
  }
  writePhysical(): void {}
  translate(linear: bigint): number {
    return Number(linear)
  }
  memory: (address: number, length: number) => Uint8Array = (_, length) => new Uint8Array(length)
}

function registersOf(record: TraceRecord): CpuRegisters {
  const { gpr, rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr, idtr } = record
  const blank = rawStart(new Uint8Array(0), 0, 'long64').registers
  const segments = structuredClone(blank.segments)
  for (const name of Object.keys(segments) as (keyof typeof segments)[]) {
    const { selector, base, limit, flags } = record.segments[name]
    segments[name] = { selector, base, limit, attributes: attributesOf(flags) }
  }
  return { ...blank, gpr: [...gpr], rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr: { ...gdtr }, idtr: { ...idtr }, segments }
}

/** One run of QEMU: its log as bytes, and as states. */
async function recordRun(start: StartState): Promise<{ log: Uint8Array[]; states: CpuRegisters[] }> {
  const machine = await Qemu.launch({ memory: MEMORY, start })
  const log: Uint8Array[] = []
  const states: CpuRegisters[] = []
  const parser = new QemuTraceParser((record) => {
    states.push(registersOf(record))
  })
  const stream = await machine.trace(false)
  stream.on('data', (chunk: Uint8Array) => {
    log.push(chunk)
    parser.feed(chunk)
  })
  stream.resume()
  // The guest sleeps at its end: the log stands still.
  for (let before = -1; states.length === 0 || before !== states.length; ) {
    before = states.length
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  parser.end()
  machine.close()
  return { log, states }
}

test('a machine that does as QEMU did follows its log to the end; one that does not is caught where it errs', async () => {
  const start = guest('long64')
  const { log, states } = await recordRun(start)
  const code = start.memory[0]
  const follow = (machine: Playback): { follower: TraceFollower; parted: ReturnType<TraceFollower['feed']> } => {
    const memory = new Uint8Array(code.address + 0x1000)
    memory.set(code.bytes, code.address)
    machine.memory = (address, length) => memory.slice(address, address + length)
    const follower = new TraceFollower(machine, { isMemory: () => true, history: 4 })
    let parted: ReturnType<TraceFollower['feed']>
    const parser = new QemuTraceParser((record) => {
      parted = follower.feed(record)
      return parted ? 'parted' : undefined
    })
    for (const chunk of log) parser.feed(chunk)
    return { follower, parted }
  }

  const faithful = follow(new Playback(structuredClone(states)))
  assert.equal(faithful.parted, undefined)
  assert.ok(faithful.follower.count > 140, `${faithful.follower.count} instructions`)
  assert.equal(faithful.follower.repairs.size, 0)

  const wrong = structuredClone(states)
  for (const state of wrong.slice(50)) state.gpr[3] = 0xbadn
  const caught = follow(new Playback(wrong))
  assert.equal(caught.parted?.count, 49)
  assert.deepEqual(caught.parted?.differences, [{ name: 'rbx', left: 0xbadn, right: 0n }])

  // MUL leaves SF, ZF, AF and PF undefined: taken over, not reported. After instruction 3 (mov add rol push mul) of the loop.
  const flags = structuredClone(states)
  assert.equal(flags[5].rip, BigInt(code.address) + 7n + 3n + 4n + 1n + 3n)
  flags[5].rflags ^= 1n << 4n
  const excused = follow(new Playback(flags))
  assert.equal(excused.parted, undefined)
  assert.deepEqual([...excused.follower.repairs], [['undefined flags', 1]])
})

test('QEMU\'s own words reach the user when it cannot start', async () => {
  await assert.rejects(Qemu.launch({ memory: MEMORY, start: guest('long64'), cpu: 'no-such-cpu' }), /no-such-cpu/)
  await assert.rejects(Qemu.launch({ memory: MEMORY, start: guest('long64'), program: 'no-such-program' }), /no-such-program cannot be run/)
})
