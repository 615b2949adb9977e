/**
 * Starts QEMU under control: its GDB stub on a Unix socket, its RAM in a shared file (to fill and to read), its execution log on a pipe.
 * Follows QEMU's documentation, "Invocation" and "GDB usage".
 */
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { GdbClient, GdbError } from '../../src/insight/gdb/client.ts'
import type { Transport } from '../../src/insight/gdb/protocol.ts'
import { parseInfoRegisters } from '../../src/insight/lockstep/qemu-trace.ts'
import type { TraceRecord } from '../../src/insight/lockstep/qemu-trace.ts'
import type { StartState } from '../../src/insight/lockstep/start.ts'
import { bootRom } from './rom.ts'

export interface QemuOptions {
  program?: string
  /** RAM in bytes. */
  memory: number
  /** CPU model with features, as after `-cpu`. */
  cpu?: string
  /** A guest that starts in a given state, without firmware... */
  start?: StartState
  /** ...or one that QEMU's firmware loads: `-kernel`, `-initrd`, `-append`. */
  kernel?: string
  initrd?: string
  append?: string
  /** Further arguments, such as devices. */
  extra?: string[]
}

/** RAM above this lies at 4 GiB and up (chipset `pc`). */
const LOW_RAM_LIMIT = 0xc0000000

export class Qemu {
  readonly gdb: GdbClient
  readonly #process: ChildProcess
  readonly #ram: number
  readonly #memory: number
  /** The monitor command after which a block holds one instruction. */
  readonly #oneInstruction: string
  /** Text on stderr before the log was started: QEMU's own messages. */
  #messages = ''

  constructor(gdb: GdbClient, child: ChildProcess, ram: number, memory: number, oneInstruction: string) {
    this.#oneInstruction = oneInstruction
    this.gdb = gdb
    this.#process = child
    this.#ram = ram
    this.#memory = memory
  }

  /** QEMU, stopped before the guest's first instruction (that of `start`, or of the firmware). */
  static async launch(options: QemuOptions): Promise<Qemu> {
    const program = options.program ?? 'qemu-system-x86_64'
    const oneInstruction = oneInstructionCommand(program)
    const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'vitrine-qemu-'))
    const file = (name: string): string => join(directory, name)
    const ram = openSync(file('ram'), 'w+')
    ftruncateSync(ram, options.memory)
    const boot: string[] = []
    try {
      if (options.start) {
        for (const { address, bytes } of options.start.memory) writeSync(ram, bytes, 0, bytes.length, offsetOf(address))
        writeFileSync(file('rom'), bootRom(options.start, false))
        boot.push('-bios', file('rom'))
      }
      if (options.kernel) boot.push('-kernel', options.kernel)
      if (options.initrd) boot.push('-initrd', options.initrd)
      if (options.append) boot.push('-append', options.append)
    } catch (error) {
      closeSync(ram)
      rmSync(directory, { recursive: true, force: true })
      throw error
    }
    const megabytes = options.memory / 2 ** 20
    const args = [
      ...['-M', 'pc,smm=off,memory-backend=ram', '-m', `${megabytes}M`, '-cpu', options.cpu ?? 'qemu64', '-display', 'none', '-nodefaults'],
      ...['-object', `memory-backend-file,id=ram,size=${megabytes}M,mem-path=${file('ram')},share=on`],
      ...['-chardev', `socket,id=gdb,path=${file('gdb')},server=on,wait=off`, '-gdb', 'chardev:gdb', '-S'],
      // Virtual time by instructions, one a nanosecond: the log slows QEMU a thousandfold, and its timers must not notice.
      ...['-icount', 'shift=0,sleep=off', '-no-reboot'],
      ...['-accel', 'tcg,thread=single'],
      ...boot,
      ...(options.extra ?? []),
    ]
    // setpriv: QEMU goes when we go, however that happens. stdbuf: on an unbuffered stderr, its log is a system call for each number.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'stdbuf', '-e1M', program, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    const failed = new Promise<never>((_, reject) => {
      child.once('error', (error) => reject(new Error(`${program}: ${error.message}`)))
      child.once('close', (status) => reject(new Error(`${program} ended with status ${status}: ${messages()}`)))
    })
    let text = ''
    const messages = (): string => text.trim() || '(no message)'
    const collect = (chunk: Buffer): void => {
      text = (text + chunk.toString('latin1')).slice(-4000)
    }
    child.stderr!.on('data', collect)
    const open = async (): Promise<Qemu> => {
      const gdb = new GdbClient(await connectWhenReady(file('gdb'), () => child.exitCode !== null))
      const qemu = new Qemu(gdb, child, ram, options.memory, oneInstruction)
      await gdb.connect()
      // Only now has it started: it listens before it looks at the rest of its command line, and says then what it does not like.
      child.stderr!.removeListener('data', collect)
      child.stderr!.on('data', qemu.#collect)
      rmSync(directory, { recursive: true, force: true }) // all is open: when we are killed, nothing stays behind
      if (options.start) await gdb.resumeTo(linearStart(options.start))
      return qemu
    }
    const opening = open()
    try {
      return await Promise.race([opening, failed])
    } catch (error) {
      opening.catch(() => {}) // the socket goes with the process: `failed` says why
      child.kill('SIGKILL')
      closeSync(ram)
      rmSync(directory, { recursive: true, force: true })
      // A socket that closes is seen before the exit status that explains it.
      throw error instanceof GdbError ? await failed.catch((cause: unknown) => cause) : error
    } finally {
      failed.catch(() => {})
    }
  }

  readonly #collect = (chunk: Buffer): void => {
    this.#messages = (this.#messages + chunk.toString('latin1')).slice(-4000)
  }

  /** What QEMU said last on stderr, apart from its log. */
  get messages(): string {
    return this.#messages.trim()
  }

  /** All registers, hidden parts included. */
  async record(): Promise<TraceRecord> {
    return parseInfoRegisters(await this.gdb.monitor('info registers'))
  }

  /** Reads physical memory, from the RAM file; undefined for what is not RAM. Racy while the guest runs. */
  readPhysical(address: number, length: number): Uint8Array | undefined {
    const offset = offsetOf(address)
    if (offset + length > this.#memory || (address >= LOW_RAM_LIMIT && address < 2 ** 32)) return undefined
    const bytes = new Uint8Array(length)
    readSync(this.#ram, bytes, 0, length, offset)
    return bytes
  }

  /** Lets the guest run and hands out its execution log. With `floating`, XMM registers are in it (twice the text). */
  async trace(floating: boolean): Promise<Readable> {
    await this.gdb.monitor(this.#oneInstruction)
    await this.gdb.monitor(`log cpu,int,nochain${floating ? ',fpu' : ''}`)
    const log = this.#process.stderr!
    log.removeListener('data', this.#collect)
    log.pause()
    await this.gdb.detach()
    return log
  }

  close(): void {
    if (this.#process.exitCode === null) this.#process.kill('SIGKILL')
    this.gdb.close()
    closeSync(this.#ram)
  }
}

function offsetOf(address: number): number {
  return address < 2 ** 32 ? address : address - 2 ** 32 + LOW_RAM_LIMIT
}

function linearStart(start: StartState): bigint {
  const { rip, segments, efer } = start.registers
  return (efer & 0x400n) !== 0n ? rip : segments.cs.base + rip
}

/** The command has changed its name with QEMU 8.1. */
function oneInstructionCommand(program: string): string {
  let banner: string
  try {
    banner = execFileSync(program, ['--version'], { encoding: 'latin1' })
  } catch (error) {
    throw new Error(`${program} cannot be run (package qemu-system-x86): ${(error as Error).message}`, { cause: error })
  }
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(banner) ?? []
  if (!major) throw new Error(`${program} --version says "${banner.slice(0, 60)}": not QEMU`)
  const modern = Number(major) > 8 || (Number(major) === 8 && Number(minor) >= 1)
  return modern ? 'one-insn-per-tb on' : 'singlestep on'
}

async function connectWhenReady(path: string, gone: () => boolean): Promise<Transport> {
  for (let tries = 0; ; tries++) {
    try {
      return await connectOnce(path)
    } catch (error) {
      if (tries === 200 || gone()) {
        throw new Error(`QEMU's GDB stub did not appear at ${path}: ${(error as Error).message}`, { cause: error })
      }
      await sleep(25)
    }
  }
}

function connectOnce(path: string): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('error', reject)
    socket.once('connect', () => {
      const transport: Transport = {
        send: (bytes) => socket.write(bytes),
        onReceive: () => {},
        onClose: () => {},
        close: () => socket.destroy(),
      }
      socket.on('data', (bytes: Buffer) => transport.onReceive(bytes))
      socket.on('close', () => transport.onClose('the socket was closed'))
      socket.off('error', reject)
      socket.on('error', () => {})
      resolve(transport)
    })
  })
}
