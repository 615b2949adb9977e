/**
 * Starts Bochs under its internal debugger and drives it by its prompt. Debian's package has the debugger compiled in.
 * Follows the Bochs user manual, "Setup" (bochsrc) and "Using Bochs internal debugger".
 *
 * It cannot hold interrupts back while it steps: guests that run here keep IF clear or set nothing up.
 */
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseBochsMemory, parseBochsRegisters } from '../../src/insight/lockstep/bochs-text.ts'
import type { Peer, StepResult } from '../../src/insight/lockstep/peer.ts'
import type { StartState } from '../../src/insight/lockstep/start.ts'
import type { PeerState } from '../../src/insight/lockstep/state.ts'
import { bootRom } from './rom.ts'

export interface BochsOptions {
  program?: string
  memory: number
  /** `bochs --help cpu` lists them. */
  cpu?: string
  start: StartState
}

const PROMPT = /<bochs:\d+> /g
/** Bochs takes ROM images up to this size. */
const LARGEST_ROM = 0x400000

function configuration(options: BochsOptions, rom: string, log: string): string {
  return [
    `megs: ${options.memory / 2 ** 20}`,
    `cpu: model=${options.cpu ?? 'corei7_skylake_x'}, reset_on_triple_fault=0`,
    `romimage: file=${rom}`,
    'vgaromimage: file=/usr/share/vgabios/vgabios.bin',
    'display_library: rfb, options="timeout=0"', // a display that nobody looks at: the only one in the package that needs no terminal
    'plugin_ctrl: speaker=0',
    'sound: waveoutdrv=dummy',
    'panic: action=report',
    'error: action=ignore',
    `log: ${log}`,
  ].join('\n')
}

export class Bochs {
  readonly #process: ChildProcess
  readonly #directory: string
  /** The pipe that Bochs reads its commands from. */
  readonly #input: number
  #output = ''
  #prompts = 0
  #wanted = 0
  #wake: (() => void) | undefined
  #ended: string | undefined

  constructor(child: ChildProcess, directory: string, input: number) {
    this.#process = child
    this.#input = input
    this.#directory = directory
    const end = (why: string): void => {
      this.#ended ??= why
      this.#wake?.()
    }
    child.once('error', (error) => end(error.message))
    child.once('exit', (status, signal) => end(`status ${status ?? signal}`))
    child.stdout!.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1')
      this.#output += text
      this.#prompts = [...this.#output.matchAll(PROMPT)].length
      if (this.#prompts >= this.#wanted) this.#wake?.()
    })
      }

  /** Bochs, stopped before the guest's first instruction. */
  static async launch(options: BochsOptions): Promise<Bochs> {
    const program = options.program ?? 'bochs'
    const rom = bootRom(options.start, true)
    if (rom.length > LARGEST_ROM) throw new Error(`the guest is too large for Bochs: a ROM of ${rom.length} bytes, at most ${LARGEST_ROM}`)
    const directory = mkdtempSync(join(tmpdir(), 'vitrine-bochs-'))
    writeFileSync(join(directory, 'rom'), rom)
    writeFileSync(join(directory, 'bochsrc'), configuration(options, join(directory, 'rom'), join(directory, 'log')))
    // A named pipe: with a socket as standard input, which is what Node makes of 'pipe', Bochs hangs in its command `c`.
    execFileSync('mkfifo', [join(directory, 'input')])
    const input = openSync(join(directory, 'input'), 'r+')
    const command = ['--pdeathsig', 'KILL', program, '-q', '-f', join(directory, 'bochsrc')] // setpriv: it goes when we go
    const child = spawn('setpriv', command, { cwd: directory, stdio: [input, 'pipe', 'ignore'] })
    const bochs = new Bochs(child, directory, input)
    try {
      await bochs.#answers(1, 20_000)
      const { segments, rip, efer } = options.start.registers
      await bochs.continueTo((efer & 0x400n) !== 0n ? rip : segments.cs.base + rip)
      return bochs
    } catch (error) {
      bochs.close()
      throw new Error(`${program} (package bochs) could not be started: ${(error as Error).message}`, { cause: error })
    }
  }

  /** Sends commands at once and answers all they print. Undefined when the time is over first. */
  async tryCommands(commands: string[], milliseconds: number): Promise<string | undefined> {
    if (this.#ended !== undefined) throw new Error(`Bochs has ended (${this.#ended}): ${this.#output.slice(-300)}`)
    writeSync(this.#input, commands.join('\n') + '\n')
    return this.#answers(commands.length, milliseconds)
  }

  async commands(...commands: string[]): Promise<string> {
    const answer = await this.tryCommands(commands, 60_000)
    if (answer === undefined) throw new Error(`Bochs does not answer to "${commands.join('; ')}"`)
    return answer
  }

  async #answers(count: number, milliseconds: number): Promise<string | undefined> {
    this.#wanted = count
    if (this.#prompts < count) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
    if (this.#prompts < count && this.#ended !== undefined) throw new Error(`Bochs ended (${this.#ended}): ${this.#output.slice(-300)}`)
    if (this.#prompts < count) return undefined
    const text = this.#output.replace(PROMPT, '')
    this.#output = ''
    this.#prompts = 0
    return text
  }

  /** One step; false when the CPU sleeps. Ctrl-C brings the prompt back. */
  async step(): Promise<boolean> {
    if ((await this.tryCommands(['s'], 1000)) !== undefined) return true
    this.#process.kill('SIGINT')
    if ((await this.#answers(1, 5000)) === undefined) throw new Error('Bochs does not come back from a step')
    return false
  }

  async continueTo(linear: bigint): Promise<void> {
    const answer = await this.commands(`lb 0x${linear.toString(16)}`, 'c', 'blist')
    const number = /^\s*(\d+) lbreakpoint/m.exec(answer)?.[1]
    if (!/Breakpoint/.test(answer) || number === undefined) {
      throw new Error(`Bochs did not come to ${linear.toString(16)}: ${answer.slice(-300)}`)
    }
    await this.commands(`d ${number}`)
  }

  close(): void {
    if (this.#ended === undefined) this.#process.kill('SIGKILL')
    closeSync(this.#input)
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

export class BochsPeer implements Peer {
  readonly readOnly = true
  readonly name: string
  readonly #bochs: Bochs

  constructor(bochs: Bochs, name = 'Bochs') {
    this.#bochs = bochs
    this.name = name
  }

  async step(): Promise<StepResult> {
    return (await this.#bochs.step()) ? 'stepped' : 'halted'
  }

  async registers(): Promise<PeerState> {
    return parseBochsRegisters(await this.#bochs.commands('r', 'sreg', 'creg', 'sse'))
  }

  async readMemory(linear: bigint, length: number): Promise<Uint8Array> {
    const bytes = parseBochsMemory(await this.#bochs.commands(`x /${length}bx 0x${linear.toString(16)}`))
    if (bytes.length < length) throw new Error(`Bochs cannot read ${length} bytes at linear ${linear.toString(16)}`)
    return bytes
  }

  continueTo(linear: bigint): Promise<void> {
    return this.#bochs.continueTo(linear)
  }

  async write(): Promise<void> {
    throw new Error("Bochs's debugger changes no 64-bit register: values are taken over by the other machine")
  }

  async close(): Promise<void> {
    this.#bochs.close()
  }
}
