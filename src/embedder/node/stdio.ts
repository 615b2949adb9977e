/** The machine's console on standard input and output: raw bytes in a pipe, keys on a terminal, which is given back on every way out. */
import type { ConsoleOptions } from '../../cli/system.ts'
import { type Command, Keys } from '../escape.ts'
import type { Session } from '../session.ts'
import { inForeground } from './process.ts'
import type { SerialPort } from './serial-port.ts'

const foregroundCheckMilliseconds = 250

/** What the console does to the session. */
export interface ConsoleEvents {
  input(bytes: Uint8Array): void
  command(command: Command): void
  /** No more input can come. `hangUp` when it was a terminal, whose window is gone then. */
  inputEnded(hangUp: boolean): void
  /** Nobody reads the output any more. */
  outputClosed(): void
}

/** Bytes on their way to standard output. Gathers small writes; waits for a slow reader. */
export class Output {
  #chunks: Uint8Array[] = []
  readonly #remarks: (() => void)[] = []
  #closed = false
  /** The cursor is at the start of a line, as far as our own bytes tell. */
  atLineStart = true
  /** The guest has used escape sequences, and may have left colours or a hidden cursor behind. */
  escapes = false
  readonly #write: (bytes: Uint8Array) => Promise<void>

  constructor(write: (bytes: Uint8Array) => Promise<void>) {
    this.#write = write
  }

  take(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#chunks.push(bytes.slice())
    this.atLineStart = bytes[bytes.length - 1] === 0x0a || (this.atLineStart && bytes.every(byte => byte === 0x0d))
    this.escapes ||= bytes.includes(0x1b)
  }

  /** Something of ours to say: it waits for the end of the guest's line, so that neither tears the other's apart. */
  remark(say: () => void): void {
    this.#remarks.push(say)
  }

  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#chunks)
    this.#chunks = []
    const lineEnd = this.atLineStart ? bytes.length : bytes.lastIndexOf(0x0a) + 1
    if (this.#remarks.length > 0 && (this.atLineStart || lineEnd > 0)) {
      await this.#pass(bytes.subarray(0, lineEnd))
      this.sayAll()
      await this.#pass(bytes.subarray(lineEnd))
    } else await this.#pass(bytes)
  }

  sayAll(): void {
    for (const say of this.#remarks.splice(0)) say()
  }

  async #pass(bytes: Uint8Array): Promise<void> {
    if (bytes.length > 0 && !this.#closed) await this.#write(bytes)
  }

  close(): void {
    this.#closed = true
  }
}

/** Writes to standard output; resolves when the reader has taken it, or is gone. */
export function writeStdout(bytes: Uint8Array | string): Promise<void> {
  return new Promise(resolve => { process.stdout.write(bytes, () => resolve()) })
}

export function outputTo(options: ConsoleOptions, collected: Uint8Array[], port: SerialPort | undefined): Output {
  if (options.collect) return new Output(async bytes => { collected.push(bytes) })
  if (port) return new Output(port.write)
  return new Output(options.serial === 'stdio' ? writeStdout : async () => {})
}

/** What a session does when its input or its output comes to an end; `input` says whether somebody may still type. */
export function endsOf(session: Session, output: Output, input: { open: boolean }): Pick<ConsoleEvents, 'inputEnded' | 'outputClosed'> {
  return {
    inputEnded(hangUp) {
      input.open = false
      if (hangUp) session.end({ kind: 'left' })
      else session.wake()
    },
    outputClosed() {
      output.close()
      session.end({ kind: 'left' })
    },
  }
}

/**
 * Takes the keyboard or the pipe; the result gives it back. A terminal is left alone as long as we are in the background: taking it there
 * would stop the whole machine. A shell's `fg` need not tell a program that runs, so it is looked for.
 */
export function attachInput(options: ConsoleOptions, events: ConsoleEvents): () => void {
  const { stdin, stdout } = process
  const onGone = (): void => events.outputClosed()
  stdout.on('error', onGone)
  process.stderr.on('error', onGone)
  if (options.serial !== 'stdio') return () => {}
  // With the output elsewhere, a person still needs line editing, an echo and Ctrl-C.
  const raw = stdin.isTTY && stdout.isTTY && !options.collect
  const keys = raw ? new Keys(options) : undefined
  const onData = (bytes: Uint8Array): void => {
    if (!keys) return events.input(bytes)
    const { guest, commands } = keys.take(bytes)
    if (guest.length > 0) events.input(guest)
    for (const command of commands) events.command(command)
  }
  const onEnd = (): void => events.inputEnded(raw)
  let attached = false
  let look: NodeJS.Timeout | undefined
  const attach = (): void => {
    if (attached || (stdin.isTTY && !inForeground())) return
    attached = true
    clearInterval(look)
    if (raw) stdin.setRawMode(true)
    stdin.on('data', onData).on('end', onEnd).on('error', onEnd)
  }
  const onContinue = (): void => { if (attached && raw && inForeground()) stdin.setRawMode(true) }
  attach()
  if (!attached) look = setInterval(attach, foregroundCheckMilliseconds)
  process.on('SIGCONT', onContinue)
  return () => {
    clearInterval(look)
    process.off('SIGCONT', onContinue)
    if (!attached) return
    stdin.off('data', onData).off('end', onEnd).off('error', onEnd).pause()
    if (raw && inForeground()) stdin.setRawMode(false)
  }
}

export function onTerminal(options: ConsoleOptions): boolean {
  return options.serial === 'stdio' && !options.collect && process.stdin.isTTY === true && process.stdout.isTTY === true
}
