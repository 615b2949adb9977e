/**
 * A GDB server for a machine: `target remote` sees each CPU as a thread.
 * Follows "Debugging with GDB", appendix "GDB Remote Serial Protocol", sections "Packets", "Stop Reply Packets" and
 * "General Query Packets".
 *
 * It observes: memory is read as the CPU would translate it, without setting accessed bits, and breakpoints change no byte of it.
 */
import type { CpuRegisters, Machine, StopReason, WatchedRange } from '../../api.ts'
import { bytesToPayload, encodePacket, fromHex, fromHexLittleEndian, PacketParser, payloadToBytes, toHex } from './protocol.ts'
import type { PacketEvent, Transport } from './protocol.ts'
import { gdbRegisters, registerChange } from './registers.ts'
import { packRegisters, targetDescription, targetRegisters, unpackRegisters } from './target.ts'

/** What is needed of a machine. */
export type DebuggedMachine = Pick<
  Machine,
  'run' | 'step' | 'retired' | 'now' | 'registers' | 'setRegisters' | 'readPhysical' | 'writePhysical' | 'translate' | 'describe'
> & {
  /**
   * Makes `run` stop with `breakpoint` before an instruction at one of these linear addresses.
   * Without it, the machine is run by single instructions while there are any.
   */
  setBreakpoints?(linear: ReadonlySet<bigint>): void
  /** Makes `run` and `step` stop with `watchpoint` after an access. Without it there are no watchpoints, and GDB is told so. */
  setWatchpoints?(ranges: readonly WatchedRange[]): void
}

export interface GdbServerOptions {
  /** Number of CPUs. */
  cpus: number
  /** Calls back soon, after input was looked at: between slices of a run (setImmediate in Node). */
  schedule: (callback: () => void) => void
  /** Instructions in one slice: the delay of Ctrl-C. */
  slice?: number
  /** Further `monitor` commands: arguments in, text out. */
  monitor?: Record<string, (args: string[]) => string>
  /** The machine stopped while the debugger ran it. */
  onStop?: (stop: StopReason) => void
  /** The debugger is gone; the machine is left where it is. `resume`: it asked for the machine to run on. */
  onDetach?: (resume: boolean) => void
}

const SIGNAL = { interrupt: 2, trap: 5, segmentation: 11 } as const
const OK = 'OK'
const UNSUPPORTED = ''
const BAD_REQUEST = 'E16'
const NOT_MAPPED = 'E0e'
const LARGEST_PACKET = 0x4000
/** By the digit of `Z`: what is watched, and the word of the stop reply. */
const watchKinds: Readonly<Record<string, { access: WatchedRange['access']; reply: string }>> = {
  2: { access: 'write', reply: 'watch' }, 3: { access: 'read', reply: 'rwatch' }, 4: { access: 'access', reply: 'awatch' },
}
/** Slice when breakpoints are looked for at each step. */
const STEPPED_SLICE = 2000

export class GdbServer {
  readonly #machine: DebuggedMachine
  readonly #transport: Transport
  readonly #options: GdbServerOptions
  readonly #parser = new PacketParser()
  readonly #breakpoints = new Set<bigint>()
  #watchpoints: WatchedRange[] = []
  #acknowledge = true
  #lastSent: Uint8Array = new Uint8Array(0)
  #running = false
  #interrupted = false
  /** The CPU of `g`, `m` and the like; the CPU that last stopped. */
  #selected = 0
  #stopped = 0
  #ended = false

  constructor(machine: DebuggedMachine, transport: Transport, options: GdbServerOptions) {
    this.#machine = machine
    this.#transport = transport
    this.#options = options
    transport.onReceive = (bytes) => this.#receive(bytes)
    transport.onClose = () => this.#end(false)
  }

  #receive(bytes: Uint8Array): void {
    for (const event of this.#parser.feed(bytes)) this.#take(event)
  }

  #take(event: PacketEvent): void {
    switch (event.kind) {
      case 'interrupt':
        this.#interrupted = true
        return
      case 'nack':
        this.#transport.send(this.#lastSent)
        return
      case 'corrupt':
        if (this.#acknowledge) this.#transport.send(Uint8Array.of(0x2d))
        return
      case 'packet': {
        if (this.#acknowledge) this.#transport.send(Uint8Array.of(0x2b))
        const answer = this.#answer(event.payload)
        if (answer !== undefined) this.#send(answer)
        return
      }
      case 'ack':
      case 'notification':
    }
  }

  #send(payload: string): void {
    this.#lastSent = encodePacket(payload)
    this.#transport.send(this.#lastSent)
  }

  /** Text on the debugger's console. */
  #print(text: string): void {
    this.#send(`O${toHex(new TextEncoder().encode(text))}`)
  }

  /** The answer to a packet; undefined when there is none, or when it comes later (a stop). */
  #answer(packet: string): string | undefined {
    const rest = packet.slice(1)
    switch (packet[0]) {
      case '?':
        return this.#stopReply(SIGNAL.trap)
      case 'g':
        return packRegisters(targetRegisters, gdbRegisters(this.#registers()))
      case 'G':
        return this.#writeAll(rest)
      case 'p':
        return this.#readOne(parseInt(rest, 16))
      case 'P':
        return this.#writeOne(rest)
      case 'm':
        return this.#readMemory(rest)
      case 'M':
      case 'X':
        return this.#writeMemory(rest, packet[0] === 'X')
      case 's':
        return this.#step(rest)
      case 'c':
        return this.#continue(rest)
      case 'H':
        return this.#selectThread(rest.slice(1))
      case 'T':
        return this.#thread(rest) === undefined ? BAD_REQUEST : OK
      case 'Z':
      case 'z':
        return this.#breakpoint(packet)
      case 'D':
        this.#send(OK)
        this.#end(true)
        return undefined
      case 'k':
        this.#end(false)
        return undefined
      case 'v':
        return this.#verbose(packet)
      case 'q':
      case 'Q':
        return this.#query(packet)
      default:
        return UNSUPPORTED
    }
  }

  #query(packet: string): string | undefined {
    const [name] = packet.split(/[:,;]/, 1)
    const rest = packet.slice(name.length + 1)
    switch (name) {
      case 'qSupported':
        return `PacketSize=${LARGEST_PACKET.toString(16)};qXfer:features:read+;QStartNoAckMode+;vContSupported+`
      case 'QStartNoAckMode':
        this.#send(OK)
        this.#acknowledge = false
        return undefined
      case 'qAttached':
        return '1' // closing GDB detaches, and does not kill
      case 'qC':
        return `QC${hex(this.#selected + 1)}`
      case 'qfThreadInfo':
        return `m${Array.from({ length: this.#options.cpus }, (_, i) => hex(i + 1)).join(',')}`
      case 'qsThreadInfo':
        return 'l'
      case 'qThreadExtraInfo':
        return toHex(payloadToBytes(`CPU ${parseInt(rest, 16) - 1}`))
      case 'qXfer':
        return this.#transfer(rest)
      case 'qRcmd':
        return this.#monitor(bytesToPayload(fromHex(rest)))
      default:
        return UNSUPPORTED
    }
  }

  #verbose(packet: string): string | undefined {
    if (packet === 'vCont?') return 'vCont;c;C;s;S'
    if (!packet.startsWith('vCont;')) return UNSUPPORTED
    // The first action decides: with one thread stepped and others let run, only that one steps.
    const [action, thread] = packet.slice(6).split(';')[0].split(':')
    if (/^[sS]/.test(action)) {
      const cpu = thread === undefined ? this.#selected : this.#thread(thread)
      if (cpu === undefined) return BAD_REQUEST
      this.#selected = cpu
      return this.#step('')
    }
    return /^[cC]/.test(action) ? this.#continue('') : BAD_REQUEST
  }

  #transfer(rest: string): string {
    const match = /^features:read:target\.xml:(\w+),(\w+)$/.exec(rest)
    if (!match) return UNSUPPORTED
    const [from, length] = [parseInt(match[1], 16), Math.min(parseInt(match[2], 16), LARGEST_PACKET - 4)]
    const text = targetDescription()
    return (from + length >= text.length ? 'l' : 'm') + text.slice(from, from + length)
  }

  // Threads: CPU n is thread n + 1.

  /** 0 and -1 mean any. */
  #thread(text: string): number | undefined {
    const number = text === '-1' ? 0 : parseInt(text, 16)
    if (Number.isNaN(number) || number > this.#options.cpus) return undefined
    return number === 0 ? this.#selected : number - 1
  }

  #selectThread(text: string): string {
    const cpu = this.#thread(text)
    if (cpu === undefined) return BAD_REQUEST
    this.#selected = cpu
    return OK
  }

  // Registers

  #registers(): CpuRegisters {
    return this.#machine.registers(this.#selected)
  }

  #readOne(number: number): string {
    const register = targetRegisters[number]
    return register ? packRegisters([register], gdbRegisters(this.#registers())) : BAD_REQUEST
  }

  #writeOne(rest: string): string {
    const [number, value] = rest.split('=')
    const register = targetRegisters[parseInt(number, 16)]
    return register && value !== undefined && this.#write(register.name, fromHexLittleEndian(value)) ? OK : BAD_REQUEST
  }

  /** GDB sends all registers to change one: those that are as they were are left alone. */
  #writeAll(rest: string): string {
    const before = gdbRegisters(this.#registers())
    const wanted = unpackRegisters(targetRegisters, rest)
    let done = true
    for (const [name, value] of Object.entries(wanted)) if (value !== (before[name] ?? 0n)) done = this.#write(name, value) && done
    return done ? OK : BAD_REQUEST
  }

  #write(name: string, value: bigint): boolean {
    const change = registerChange(this.#registers(), name, value)
    if (!change) return false
    this.#machine.setRegisters(change, this.#selected)
    return true
  }

  // Memory

  /** Up to the first page that is not mapped. */
  #read(linear: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    let done = 0
    while (done < length) {
      const at = BigInt.asUintN(64, linear + BigInt(done))
      const physical = this.#machine.translate(at, this.#selected)
      if (physical === undefined) break
      const part = Math.min(length - done, 0x1000 - Number(at & 0xfffn))
      bytes.set(this.#machine.readPhysical(physical, part), done)
      done += part
    }
    return bytes.subarray(0, done)
  }

  #readMemory(rest: string): string {
    const match = /^(\w+),(\w+)$/.exec(rest)
    if (!match) return BAD_REQUEST
    const length = Math.min(parseInt(match[2], 16), LARGEST_PACKET / 2 - 8)
    const bytes = this.#read(BigInt(`0x${match[1]}`), length)
    return bytes.length === 0 && length > 0 ? NOT_MAPPED : toHex(bytes)
  }

  #writeMemory(rest: string, binary: boolean): string {
    const colon = rest.indexOf(':')
    const match = /^(\w+),(\w+)$/.exec(rest.slice(0, colon))
    if (!match) return BAD_REQUEST
    const data = rest.slice(colon + 1)
    const bytes = binary ? payloadToBytes(data) : fromHex(data)
    if (bytes.length !== parseInt(match[2], 16)) return BAD_REQUEST
    const linear = BigInt(`0x${match[1]}`)
    for (let done = 0; done < bytes.length; ) {
      const at = BigInt.asUintN(64, linear + BigInt(done))
      const physical = this.#machine.translate(at, this.#selected)
      if (physical === undefined) return NOT_MAPPED
      const part = Math.min(bytes.length - done, 0x1000 - Number(at & 0xfffn))
      this.#machine.writePhysical(physical, bytes.subarray(done, done + part))
      done += part
    }
    return OK
  }

  // Running

  /** `Z0,ADDRESS,KIND`: software and hardware breakpoints are the same here. `Z2`, `Z3`, `Z4`: watchpoints; KIND is their length. */
  #breakpoint(packet: string): string {
    if (/^[zZ][234]/.test(packet)) return this.#watchpoint(packet)
    const match = /^[zZ]([01]),([0-9a-fA-F]+),/.exec(packet)
    if (!match) return UNSUPPORTED
    const linear = BigInt(`0x${match[2]}`)
    if (packet[0] === 'Z') this.#breakpoints.add(linear)
    else this.#breakpoints.delete(linear)
    this.#machine.setBreakpoints?.(this.#breakpoints)
    return OK
  }

  #watchpoint(packet: string): string {
    const match = /^[zZ]([234]),([0-9a-fA-F]+),([0-9a-fA-F]+)/.exec(packet)
    if (!match || !this.#machine.setWatchpoints) return UNSUPPORTED
    const access = watchKinds[match[1]].access
    const wanted: WatchedRange = { address: BigInt(`0x${match[2]}`), length: parseInt(match[3], 16), access }
    const isOther = (each: WatchedRange): boolean =>
      each.address !== wanted.address || each.length !== wanted.length || each.access !== wanted.access
    this.#watchpoints = this.#watchpoints.filter(isOther)
    if (packet[0] === 'Z') this.#watchpoints.push(wanted)
    this.#machine.setWatchpoints(this.#watchpoints)
    return OK
  }

  #step(address: string): string | undefined {
    if (address !== '') this.#write('rip', BigInt(`0x${address}`))
    const stop = this.#machine.step(this.#selected)
    this.#stopped = this.#selected
    return stop ? this.#stopText(stop) : this.#stopReply(SIGNAL.trap)
  }

  #continue(address: string): undefined {
    if (address !== '') this.#write('rip', BigInt(`0x${address}`))
    this.#running = true
    this.#interrupted = false
    // The instruction at a breakpoint where the machine stands is executed, as on hardware with RF.
    const stop = this.#atBreakpoint(this.#selected) ? this.#machine.step(this.#selected) : undefined
    if (stop) this.#finish(this.#stopText(stop))
    else this.#options.schedule(() => this.#slice())
    return undefined
  }

  #slice(): void {
    if (!this.#running || this.#ended) return
    if (this.#interrupted) return this.#finish(this.#stopReply(SIGNAL.interrupt))
    const stop = this.#runSlice()
    if (stop) this.#finish(this.#stopText(stop))
    else this.#options.schedule(() => this.#slice())
  }

  /** Undefined: nothing has happened, run on. */
  #runSlice(): StopReason | undefined {
    if (this.#breakpoints.size === 0 || this.#machine.setBreakpoints) {
      const stop = this.#machine.run({ maxInstructions: this.#options.slice ?? 1_000_000 })
      if (stop.kind === 'breakpoint' || stop.kind === 'watchpoint') this.#stopped = stop.cpu
      return stop.kind === 'budget' ? undefined : stop
    }
    for (let i = 0; i < STEPPED_SLICE; i++) {
      for (let cpu = 0; cpu < this.#options.cpus; cpu++) {
        if (this.#atBreakpoint(cpu)) {
          this.#stopped = cpu
          return { kind: 'breakpoint', cpu }
        }
      }
      const stop = this.#machine.run({ maxInstructions: 1 })
      if (stop.kind !== 'budget') return stop
    }
    return undefined
  }

  #atBreakpoint(cpu: number): boolean {
    if (this.#breakpoints.size === 0) return false
    const { rip, segments, efer } = this.#machine.registers(cpu)
    const flat = (efer & 0x400n) !== 0n && (segments.cs.attributes & 0x2000) !== 0
    return this.#breakpoints.has(flat ? rip : (segments.cs.base + rip) & 0xffffffffn)
  }

  #finish(reply: string): void {
    this.#running = false
    this.#selected = this.#stopped
    this.#send(reply)
  }

  #stopReply(signal: number): string {
    return `T${hex(signal)}thread:${hex(this.#stopped + 1)};`
  }

  #stopText(stop: StopReason): string {
    this.#options.onStop?.(stop)
    switch (stop.kind) {
      case 'power-off':
      case 'reset':
        this.#print(`The machine: ${stop.kind}.\n`)
        return 'W00'
      case 'debug-exit':
        return `W${hex(stop.status & 0xff)}`
      case 'triple-fault':
        this.#print(`Triple fault.\n${stop.report}\n`)
        return this.#stopReply(SIGNAL.segmentation)
      case 'idle':
        this.#print('All CPUs are halted, and nothing is due that could wake them.\n')
        return this.#stopReply(SIGNAL.trap)
      case 'watchpoint': {
        const watch = Object.values(watchKinds).find(({ access }) => access === stop.range.access)!
        return `T${hex(SIGNAL.trap)}${watch.reply}:${stop.range.address.toString(16)};thread:${hex(this.#stopped + 1)};`
      }
      case 'breakpoint':
      case 'root':
      case 'budget':
      case 'time':
        return this.#stopReply(SIGNAL.trap)
    }
  }

  // Monitor commands

  #monitor(line: string): string {
    const [name = '', ...args] = line.trim().split(/\s+/)
    const text = this.#command(name, args)
    return text === '' ? OK : toHex(new TextEncoder().encode(text.endsWith('\n') ? text : `${text}\n`))
  }

  #command(name: string, args: string[]): string {
    const own = this.#options.monitor ?? {}
    if (Object.hasOwn(own, name)) return own[name](args)
    switch (name) {
      case 'describe':
        return this.#machine.describe(this.#selected)
      case 'info':
        return `${this.#machine.retired} instructions retired, ${this.#machine.now} ns of virtual time`
      case 'translate': {
        const linear = address(args[0])
        if (linear === undefined) return 'translate ADDRESS (hexadecimal)'
        const physical = this.#machine.translate(linear, this.#selected)
        return physical === undefined ? 'not mapped' : `physical ${physical.toString(16)}`
      }
      case 'xp': {
        const at = address(args[0])
        const length = Number(args[1] ?? 16)
        if (at === undefined || !(length > 0 && length <= 4096)) return 'xp PHYSICAL-ADDRESS (hexadecimal) [LENGTH, at most 4096]'
        return toHex(this.#machine.readPhysical(Number(at), length))
      }
      default: {
        const known = ['describe', 'info', 'translate ADDRESS', 'xp PHYSICAL-ADDRESS [LENGTH]', ...Object.keys(own)]
        return `${name === 'help' ? '' : `no monitor command "${name}"; `}there are: ${known.join(', ')}`
      }
    }
  }

  #end(resume: boolean): void {
    if (this.#ended) return
    this.#ended = true
    this.#running = false
    this.#breakpoints.clear()
    this.#machine.setBreakpoints?.(this.#breakpoints)
    this.#machine.setWatchpoints?.([])
    this.#transport.close()
    this.#options.onDetach?.(resume)
  }
}

const hex = (value: number): string => value.toString(16).padStart(2, '0')

function address(text: string | undefined): bigint | undefined {
  return text !== undefined && /^(0x)?[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text.replace(/^0x/, '')}`) : undefined
}
