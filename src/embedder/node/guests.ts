/** Guests of our hypervisor at a terminal: the console shows one of them and changes over on demand; in a pipe all speak and hear. */
import { createHash } from 'node:crypto'
import type { GuestsRequest, GuestsResult } from '../../cli/system.ts'
import { createVmm } from '../../hypervisor.ts'
import { assignToBoard } from '../../vmm/assign/assigner.ts'
import { Board } from '../../vmm/board/board.ts'
import { connectBoards } from '../../vmm/board/cable.ts'
import type { GuestMemory } from '../../vmm/guest-memory.ts'
import type { Vmm } from '../../vmm/vmm.ts'
import { wander } from '../../vmm/wander.ts'
import type { Command } from '../escape.ts'
import { type Ending, Session, type SessionMachine, type Surroundings } from '../session.ts'
import { attachInput, endsOf, onTerminal, Output, writeStdout } from './stdio.ts'

const backlog = 65536
const newline = 0x0a
const carriageReturn = 0x0d

const guestsHelp = `
Ctrl-A N   the next guest's console
Ctrl-A X   leave: power all guests off
Ctrl-A A   send Ctrl-A to the guest
Ctrl-A H   this help
`

/** What a guest says, for whoever reads it. */
interface Voice {
  say(byte: number): void
  /** What was said while nobody looked. */
  show(): void
  hide(): void
  end(): void
}

/** Everything, for the report. */
class CollectedVoice implements Voice {
  private readonly bytes: number[] = []
  say(byte: number): void {
    this.bytes.push(byte)
  }
  show(): void {}
  hide(): void {}
  end(): void {}
  get text(): string {
    return Buffer.from(this.bytes).toString()
  }
}

/** Kept while another one is shown, or with the guest's name before each line. */
class PrintedVoice implements Voice {
  private shown = false
  private readonly name: string
  private readonly output: Output
  private readonly named: boolean
  private kept: number[] = []

  constructor(name: string, output: Output, named: boolean) {
    this.name = name
    this.output = output
    this.named = named
  }
  say(byte: number): void {
    if (this.shown && !this.named) return this.output.take(Uint8Array.of(byte))
    this.kept.push(byte)
    if (!this.named) {
      if (this.kept.length > backlog) this.kept.splice(0, backlog / 2)
    } else if (byte === newline) this.sayLine()
  }
  private sayLine(): void {
    const text = this.kept.filter(byte => byte !== carriageReturn)
    this.kept = []
    this.output.take(Buffer.from(`${this.name} | ${Buffer.from(text).toString()}`))
  }
  show(): void {
    this.shown = true
    this.output.take(Uint8Array.from(this.kept.splice(0)))
  }
  hide(): void {
    this.shown = false
  }
  end(): void {
    if (this.named && this.kept.length > 0) {
      this.kept.push(newline)
      this.sayLine()
    }
  }
}

const zeros = Buffer.alloc(4096)

/** Where pages lie and which were touched makes no difference. */
function hashOf(memory: GuestMemory): string {
  const hash = createHash('sha256')
  for (let page = 0; page < memory.pages; page++) {
    const bytes = memory.peek(page)
    if (bytes && !zeros.equals(bytes)) hash.update(BigUint64Array.of(BigInt(page))).update(bytes)
  }
  return hash.digest('hex')
}

function resultOf({ guest, vcpus, ending }: Board): Omit<GuestsResult['guests'][number], 'restarts'> {
  return {
    name: guest.name, ending, memoryPresent: guest.memory.present * 4096,
    vcpus: vcpus.map(({ name, apic, statistics: { entries, guestTime, migrations, exits } }) => ({
      name, entries, guestTime, migrations, exits: [...exits].map(([kind, { count }]) => ({ kind, count })),
      apic: apic?.statistics,
    })),
  }
}

/** The hypervisor's machine, for a session to drive. `explain` is told why it stood still when nobody knew how to go on. */
function drivenBy(vmm: Vmm, explain: (why: string | undefined) => void): SessionMachine {
  return {
    get retired() { return vmm.hardware.retired },
    get now() { return vmm.hardware.now },
    run: ({ untilTime } = {}) => {
      const end = vmm.run(undefined, untilTime)
      if (end.kind === 'paused') return { kind: 'time' }
      if (end.kind === 'idle') return { kind: 'idle' }
      explain(end.kind === 'exit' ? end.explanation : end.kind === 'machine' ? end.reason : undefined)
      return { kind: 'power-off' }
    },
  }
}

export async function runGuests(request: GuestsRequest, surroundings: (flush: () => Promise<void>, open: () => boolean) => Surroundings,
  onSignals: (end: (ending: Ending) => void) => () => void, printError: (text: string) => void): Promise<GuestsResult> {
  const consoleOptions = { serial: 'stdio', escape: true, interrupt: false, quiet: false, collect: request.collect } as const
  const output = new Output(writeStdout)
  const terminal = onTerminal(consoleOptions)
  const vmm = createVmm({ ...request.machine, onLog: message => output.remark(() => printError(`vitrine: ${message}\n`)) })
  const named = !terminal && request.guests.length > 1
  const collected = request.guests.map(() => new CollectedVoice())
  const voices: readonly Voice[] = request.collect ? collected : request.guests.map(({ name }) => new PrintedVoice(name, output, named))
  const restarts = request.guests.map(() => 0)
  const start = (i: number): Board => {
    const board = new Board(vmm, request.guests[i])
    board.onSerial = byte => voices[i].say(byte)
    board.onLog = message => { if (!request.quiet) output.remark(() => printError(`vitrine: ${message}\n`)) }
    board.onEnd = ending => { if (request.reboot && ending === 'reset') vmm.destroyGuest(board.guest, () => restart(i)) }
    return board
  }
  const boards = request.guests.map((_, i) => start(i))
  const connect = (): void => { if (request.network !== undefined) connectBoards(boards, request.network) }
  const restart = (i: number): void => {
    restarts[i]++
    boards[i] = start(i)
    connect()
  }
  connect()
  if (request.assign) assignToBoard(vmm, boards[0].guest, request.assign, message => printError(`vitrine: ${message}\n`))
  let shown = 0
  voices[0].show()
  if (request.migrateEvery !== undefined) wander(vmm, request.migrateEvery)

  const consoleInput = { open: true }
  let explanation: string | undefined
  const machine = drivenBy(vmm, why => { explanation = why })
  const around = surroundings(() => output.flush(), () => consoleInput.open)
  const session = new Session(machine, around, { timeoutSeconds: request.timeoutSeconds })
  const obey = (command: Command): void => {
    if (command === 'leave') session.end({ kind: 'left' })
    else if (command === 'help') printError(guestsHelp)
    else if (command === 'next') {
      voices[shown].hide()
      shown = (shown + 1) % boards.length
      printError(`\nvitrine: ${boards[shown].guest.name}\n`)
      voices[shown].show()
      session.wake()
    }
  }
  const stopSignals = onSignals(ending => session.end(ending))
  const detach = attachInput(consoleOptions, {
    input(bytes) {
      for (const [i, board] of boards.entries()) if (!board.ending && (!terminal || i === shown)) board.serialInput(bytes)
      session.wake()
    },
    command: obey,
    ...endsOf(session, output, consoleInput),
  })
  if (terminal) printError('vitrine: keys go to the guest; Ctrl-A N shows the next one, Ctrl-A X leaves, Ctrl-A H helps\n')
  try {
    const ending = await session.run()
    return {
      ending, explanation, virtualNanoseconds: vmm.hardware.now, instructions: vmm.hardware.retired,
      guests: boards.map((board, i) => ({
        ...resultOf(board), restarts: restarts[i],
        ...(request.collect ? { memoryHash: hashOf(board.guest.memory), console: collected[i].text } : {}),
      })),
    }
  } finally {
    for (const voice of voices) voice.end()
    await output.flush()
    output.sayAll()
    detach()
    stopSignals()
  }
}
