/**
 * A monitor as QEMU has it, beside a machine that runs: lines for people (QEMU documentation, "QEMU Monitor") and JSON for programs
 * ("QEMU Machine Protocol Specification"), with the commands that scripts use. What it does to the machine it does between two runs.
 */
import type { Machine } from '../api.ts'
import { InputError, isInputError } from '../errors.ts'

/** What a monitor sees and does. */
export interface MonitoredRun {
  readonly machine: Pick<Machine, 'describe' | 'readPhysical' | 'translate' | 'pressPowerButton' | 'pressReset' | 'retired' | 'now'>
  readonly cpus: number
  readonly isPaused: boolean
  /** A monitor has ended the run. */
  readonly isQuit: boolean
  hold(held: boolean): void
  quit(): void
  /** Wall time in milliseconds since 1970, which events carry. */
  date(): number
}

export interface Monitor {
  /** What it says first. */
  greet(): void
  take(bytes: Uint8Array): void
  /** Somebody has stopped the machine, or let it go on; it has come to its end. */
  told(event: 'STOP' | 'RESUME' | 'SHUTDOWN' | 'RESET' | 'POWERDOWN'): void
}

type Action = (run: MonitoredRun) => void

/** The commands that change something, by the names that both kinds of monitor have. */
const actions: Readonly<Record<string, { help: string; act: Action }>> = {
  stop: { help: 'stop the machine', act: run => run.hold(true) },
  cont: { help: 'let it go on', act: run => run.hold(false) },
  system_reset: { help: 'press the reset button', act: run => run.machine.pressReset() },
  system_powerdown: { help: 'press the power button (ACPI)', act: run => run.machine.pressPowerButton() },
  quit: { help: 'end the run', act: run => run.quit() },
}
const eventOf: Readonly<Record<string, 'RESET' | 'POWERDOWN'>> = { system_reset: 'RESET', system_powerdown: 'POWERDOWN' }

/** The commands that only tell something, for people. */
const questions: Readonly<Record<string, { help: string; tell: (run: MonitoredRun, args: string[]) => string }>> = {
  'info status': { help: 'whether it runs', tell: run => `VM status: ${run.isPaused ? 'paused' : 'running'}` },
  'info registers': { help: '[CPU]: the machine as CPU (0) sees it', tell: ({ machine, cpus }, [cpu = '0']) => {
    if (!(Number(cpu) < cpus)) throw new InputError(`expected a CPU below ${cpus}, found '${cpu}'`)
    return machine.describe(Number(cpu)).trimEnd()
  } },
  'info cpus': { help: 'how many processors', tell: ({ cpus }) => Array.from({ length: cpus }, (_, i) => `  CPU #${i}`).join('\n') },
  'info time': { help: 'instructions and virtual time', tell: ({ machine: { retired, now } }) => `${retired} instructions, ${now} ns` },
  xp: { help: '[/COUNT] ADDRESS: bytes of physical memory', tell: (run, args) => memory(run, args, address => Number(address)) },
  x: { help: '[/COUNT] ADDRESS: bytes at a linear address of CPU 0', tell: (run, args) => memory(run, args, address =>
    run.machine.translate(address)) },
}

const rowLength = 16

/** `/16xb 0x1000`: count and letters as GDB has them; bytes whatever the letters say. */
function memory({ machine }: MonitoredRun, args: string[], place: (address: bigint) => number | undefined): string {
  const format = args[0]?.startsWith('/') ? args[0] : '/16'
  const text = args.at(-1) ?? ''
  const count = Number(/^\/(\d+)/.exec(format)?.[1] ?? rowLength)
  if (!/^(0x)?[0-9a-f]{1,16}$/i.test(text) || count > 4096) throw new InputError('expected an address (hexadecimal), and at most /4096')
  const first = BigInt(`0x${text.replace(/^0x/i, '')}`)
  const rows: string[] = []
  for (let done = 0; done < count; done += rowLength) {
    const address = first + BigInt(done)
    const at = place(address)
    const bytes = at === undefined ? [] : [...machine.readPhysical(at, Math.min(rowLength, count - done))]
    const shown = bytes.map(byte => ` 0x${byte.toString(16).padStart(2, '0')}`).join('')
    rows.push(`${address.toString(16).padStart(16, '0')}:${shown || ' Cannot access memory'}`)
  }
  return rows.join('\n')
}

/** Whole lines of a stream. */
class Lines {
  #text = ''
  readonly #decoder = new TextDecoder()
  take(bytes: Uint8Array): string[] {
    const lines = (this.#text + this.#decoder.decode(bytes, { stream: true })).split(/\r\n|\r|\n/)
    this.#text = lines.pop()!
    return lines
  }
}

/** One line typed by a person: what is said to it. */
function answer(run: MonitoredRun, line: string, acted: (name: string) => void): string {
  const [first = '', ...rest] = line.trim().replace(/^(x|xp)\//, '$1 /').split(/\s+/)
  const name = { q: 'quit', c: 'cont', s: 'stop' }[first] ?? first
  if (name === '') return ''
  if (name === 'help' || name === '?') return help()
  if (Object.hasOwn(actions, name)) {
    actions[name].act(run)
    acted(name)
    return ''
  }
  const whole = name === 'info' ? `info ${rest.shift() ?? ''}` : name
  if (Object.hasOwn(questions, whole)) return questions[whole].tell(run, rest)
  return `unknown command: '${whole.trim()}'`
}

function help(): string {
  const all = [...Object.entries(actions), ...Object.entries(questions)]
  return all.map(([name, { help: text }]) => `${name.padEnd(18)} ${text}`).join('\n')
}

const prompt = '(qemu) '

export function humanMonitor(run: MonitoredRun, say: (text: string) => void): Monitor {
  const lines = new Lines()
  return {
    greet: () => say(`QEMU 7.2.0 monitor (Vitrine's) - type 'help' for more information\n${prompt}`),
    told() {},
    take(bytes) {
      for (const line of lines.take(bytes)) {
        const text = said(() => answer(run, line, () => {}))
        say(`${text}${text === '' ? '' : '\n'}${prompt}`)
      }
    },
  }
}

/** What is wrong with a command is its answer. */
function said(tell: () => string): string {
  try {
    return tell()
  } catch (error) {
    if (isInputError(error)) return `Error: ${error.message}`
    throw error
  }
}

interface QmpCommand {
  execute?: unknown
  arguments?: Record<string, unknown>
  id?: unknown
}

export function machineMonitor(run: MonitoredRun, say: (text: string) => void): Monitor {
  const lines = new Lines()
  let negotiated = false
  const send = (value: unknown): void => say(`${JSON.stringify(value)}\r\n`)
  const version = { qemu: { major: 7, minor: 2, micro: 0 }, package: 'Vitrine' }
  const returns: Readonly<Record<string, (args: Record<string, unknown>) => unknown>> = {
    qmp_capabilities: () => {
      negotiated = true
      return {}
    },
    'query-version': () => version,
    'query-status': () => ({ running: !run.isPaused, singlestep: false, status: run.isPaused ? 'paused' : 'running' }),
    'query-cpus-fast': () => Array.from({ length: run.cpus }, (_, i) => ({ 'cpu-index': i, target: 'x86_64' })),
    'query-commands': () => [...Object.keys(returns), ...Object.keys(actions)].map(name => ({ name })),
    'human-monitor-command': args => {
      const text = said(() => answer(run, String(args['command-line'] ?? ''), name => tell(name)))
      return text === '' ? '' : `${text}\r\n`
    },
  }
  const event = (name: string, data?: unknown): void => {
    const date = run.date()
    const timestamp = { seconds: Math.floor(date / 1000), microseconds: Math.round((date % 1000) * 1000) }
    if (negotiated) send({ timestamp, event: name, ...(data === undefined ? {} : { data }) })
  }
  const tell = (name: string): void => {
    if (eventOf[name]) event(eventOf[name])
  }
  const obey = ({ execute, arguments: args = {}, id }: QmpCommand): void => {
    const name = String(execute)
    const more = id === undefined ? {} : { id }
    const refuse = (kind: string, desc: string): void => send({ ...more, error: { class: kind, desc } })
    if (!negotiated && name !== 'qmp_capabilities') {
      return refuse('CommandNotFound', "Expecting capabilities negotiation with 'qmp_capabilities'")
    }
    if (Object.hasOwn(returns, name)) return send({ ...more, return: returns[name](args) })
    if (!Object.hasOwn(actions, name)) return refuse('CommandNotFound', `The command ${name} has not been found`)
    send({ ...more, return: {} })
    actions[name].act(run)
    tell(name)
  }
  return {
    greet: () => send({ QMP: { version, capabilities: [] } }),
    told: name => event(name, name === 'SHUTDOWN' ? shutdown(run) : undefined),
    take(bytes) {
      for (const line of lines.take(bytes)) {
        const command = parsed(line)
        if (command === undefined) send({ error: { class: 'GenericError', desc: 'JSON parse error' } })
        else if (command !== 'nothing') obey(command)
      }
    },
  }
}

const shutdown = ({ isQuit }: MonitoredRun): unknown => ({ guest: !isQuit, reason: isQuit ? 'host-qmp-quit' : 'guest-shutdown' })

function parsed(line: string): QmpCommand | 'nothing' | undefined {
  if (line.trim() === '') return 'nothing'
  try {
    const value = JSON.parse(line) as unknown
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
