/**
 * The far end of one TCP connection of the machine (RFC 9293): what a server in the world would say, said by us, with the bytes of a
 * connection that the embedder has. The way between is short and loses only what the machine has no buffers for.
 */
import type { Nanoseconds } from '../devices/ports.ts'
import { ByteQueue } from './byte-queue.ts'
import type { OutsideRequest } from './outside.ts'
import { type Ip, tcpFlag, type TcpSegment } from './packet.ts'

/** Ends of a connection as the machine's packets name them. */
export interface Ends {
  machineIp: Ip
  machinePort: number
  farIp: Ip
  farPort: number
}

export type TcpPhase =
  | 'connecting' // the machine's SYN has come, the world is asked
  | 'syn-received' // SYN and ACK are sent
  | 'syn-sent' // the world connected, the machine is asked
  | 'open'
  | 'dead'

export interface TcpPorts {
  send(segment: TcpSegment): void
  outside(request: OutsideRequest): void
  now(): Nanoseconds
}

const largestSegment = 1460
/** Window scale of ours: windows are multiples of 2^7 bytes. */
const ownScale = 7
/** Bytes that may wait on their way out of the machine. */
const backlogLimit = 1 << 20
const firstTimeout: Nanoseconds = 200e6
const mostTries = 8
/** What has come is acknowledged so much later, unless something else says it: well below the half second that RFC 1122 allows. */
const acknowledgementDelay: Nanoseconds = 1e6

const difference = (a: number, b: number): number => (a - b) | 0

export class TcpFlow {
  readonly flow: number
  readonly ends: Ends
  phase: TcpPhase
  /** When something is to be sent again: undefined while nothing waits for an acknowledgement. */
  #retryAt: Nanoseconds | undefined
  /** When what has come is acknowledged, though nothing calls for it. */
  #acknowledgeAt: Nanoseconds | undefined
  readonly #ports: TcpPorts
  readonly #queue = new ByteQueue()
  /** Sequence numbers, as RFC 9293 names them; the queue begins at `una` (but for SYN). */
  #una: number
  #next: number
  #highest: number
  #expected = 0
  /** What was last acknowledged. */
  #expectedTold = 0
  #window = 0
  #scale = 0
  #maxSegment = 536
  #tries = 0
  /** Sent by the machine and not yet gone. */
  #backlog = 0
  #windowTold = 0
  /** No more comes from the world; no more comes from the machine. */
  #endQueued = false
  #endSent = false
  #machineEnded = false
  #mustAcknowledge = false

  constructor(flow: number, ends: Ends, initialSequence: number, ports: TcpPorts) {
    this.flow = flow
    this.ends = ends
    this.#ports = ports
    this.phase = 'dead'
    this.#una = this.#next = this.#highest = initialSequence >>> 0
  }

  /** The machine's SYN. */
  accept({ sequence, maxSegment, windowScale, window }: TcpSegment): void {
    this.phase = 'connecting'
    this.#expected = (sequence + 1) >>> 0
    this.#takeSynOptions(maxSegment, windowScale, window)
  }

  /** The world has connected, or wants to: for the machine to answer. */
  connected(): void {
    if (this.phase === 'connecting') this.phase = 'syn-received'
    else if (this.phase === 'dead') this.phase = 'syn-sent'
    else return
    this.#next = this.#highest = (this.#una + 1) >>> 0
    this.#sendSyn()
    this.#startTimer()
  }

  /** From the world. */
  data(bytes: Uint8Array): void {
    this.#queue.push(bytes)
    this.output()
  }

  finished(): void {
    this.#endQueued = true
    this.output()
  }

  drained(count: number): void {
    this.#backlog = Math.max(0, this.#backlog - count)
    // The machine waits when the window was small: it is told when there is room again.
    if (this.phase === 'open' && this.#windowTold < backlogLimit / 4 && this.#freeWindow() >= backlogLimit / 2) this.#acknowledge()
  }

  /** The world's connection is gone: the machine's is reset. */
  reset(): void {
    if (this.phase === 'dead') return
    const refused = this.phase === 'connecting'
    this.#send(tcpFlag.rst | tcpFlag.ack, refused ? 0 : this.#next)
    this.#die()
  }

  /** From the machine, for this connection. */
  segment(segment: TcpSegment): void {
    const { flags } = segment
    if (flags & tcpFlag.rst) {
      this.#ports.outside({ kind: 'abort', flow: this.flow })
      return this.#die()
    }
    if (this.phase === 'connecting') return
    if (this.phase === 'syn-sent') return this.#answered(segment)
    if (flags & tcpFlag.syn) return this.phase === 'syn-received' ? this.#sendSyn() : this.#acknowledge()
    if (flags & tcpFlag.ack) this.#acknowledged(segment)
    if (this.phase !== 'open') return
    this.#receive(segment)
    this.output()
  }

  /** Sends what may be sent, and what has come must be acknowledged. */
  output(): void {
    if (this.phase !== 'open') return
    for (;;) {
      const sent = difference(this.#next, this.#una)
      const count = Math.min(this.#queue.length - sent, this.#window - sent, this.#maxSegment)
      if (count <= 0) break
      const last = sent + count === this.#queue.length
      this.#send(tcpFlag.ack | (last ? tcpFlag.psh : 0), this.#next, this.#queue.peek(sent, count))
      this.#advance(count)
    }
    const allSent = difference(this.#next, this.#una) === this.#queue.length
    if (this.#endQueued && !this.#endSent && allSent) {
      this.#endSent = true
      this.#send(tcpFlag.fin | tcpFlag.ack, this.#next)
      this.#advance(1)
    }
    this.#startTimer()
  }

  /** At the end of a batch of the machine's segments: one acknowledgement for all of them. */
  flush(): void {
    if (this.#mustAcknowledge) this.#acknowledge()
    if (this.#machineEnded && this.#endSent && this.#una === this.#highest) this.#die()
  }

  /** When it is to be looked at again. */
  get nextTime(): Nanoseconds {
    return Math.min(this.#retryAt ?? Infinity, this.#acknowledgeAt ?? Infinity)
  }

  timePasses(now: Nanoseconds): void {
    if (this.#acknowledgeAt !== undefined && this.#acknowledgeAt <= now) this.#acknowledge()
    if (this.#retryAt !== undefined && this.#retryAt <= now) this.#retry()
  }

  /** Time is up without an acknowledgement: everything after the last one is sent again. */
  #retry(): void {
    this.#retryAt = undefined
    if (++this.#tries > mostTries) {
      this.#ports.outside({ kind: 'abort', flow: this.flow })
      return this.reset()
    }
    if (this.phase !== 'open') {
      this.#sendSyn()
      return this.#startTimer()
    }
    const unsent = difference(this.#highest, this.#una)
    this.#next = this.#una
    if (this.#endSent && unsent > 0) this.#endSent = false
    // A closed window is asked for with one byte beyond it.
    if (this.#window === 0 && this.#queue.length > 0) {
      this.#send(tcpFlag.ack, this.#next, this.#queue.peek(0, 1))
      this.#advance(1)
      this.#startTimer()
    } else this.output()
  }

  saveState(): unknown {
    return {
      flow: this.flow, ends: this.ends, phase: this.phase, retryAt: this.#retryAt, acknowledgeAt: this.#acknowledgeAt,
      queue: [...this.#queue.peek(0, this.#queue.length)],
      numbers: [this.#una, this.#next, this.#highest, this.#expected, this.#window, this.#scale, this.#maxSegment, this.#tries,
        this.#backlog, this.#windowTold, this.#expectedTold],
      endQueued: this.#endQueued, endSent: this.#endSent, machineEnded: this.#machineEnded, mustAcknowledge: this.#mustAcknowledge,
    }
  }

  restoreState(state: unknown): void {
    const saved = state as { phase: TcpPhase; retryAt?: number; acknowledgeAt?: number; queue: number[]; numbers: number[] } &
      Record<'endQueued' | 'endSent' | 'machineEnded' | 'mustAcknowledge', boolean>
    this.phase = saved.phase
    this.#retryAt = saved.retryAt
    this.#acknowledgeAt = saved.acknowledgeAt
    this.#queue.push(Uint8Array.from(saved.queue))
    ;[this.#una, this.#next, this.#highest, this.#expected, this.#window, this.#scale, this.#maxSegment, this.#tries, this.#backlog,
      this.#windowTold, this.#expectedTold] = saved.numbers
    this.#endQueued = saved.endQueued
    this.#endSent = saved.endSent
    this.#machineEnded = saved.machineEnded
    this.#mustAcknowledge = saved.mustAcknowledge
  }

  /** The machine's answer to our SYN. */
  #answered(segment: TcpSegment): void {
    const wanted = tcpFlag.syn | tcpFlag.ack
    if ((segment.flags & wanted) !== wanted || segment.acknowledgement !== this.#next) return
    this.#expected = (segment.sequence + 1) >>> 0
    this.#takeSynOptions(segment.maxSegment, segment.windowScale, segment.window)
    this.#una = this.#next
    this.#open()
    this.#acknowledge()
    this.output()
  }

  #open(): void {
    this.phase = 'open'
    this.#tries = 0
    this.#retryAt = undefined
  }

  #takeSynOptions(maxSegment = 536, windowScale: number | undefined, window: number): void {
    this.#maxSegment = Math.min(maxSegment, largestSegment)
    // Without the machine's scale neither side has one.
    this.#scale = windowScale ?? -1
    this.#window = window
  }

  #acknowledged({ acknowledgement, window }: TcpSegment): void {
    const count = difference(acknowledgement, this.#una)
    if (count < 0 || difference(acknowledgement, this.#highest) > 0) return
    if (this.phase === 'syn-received') {
      if (count !== 1) return
      this.#una = acknowledgement
      this.#open()
    } else if (count > 0) {
      this.#queue.drop(Math.min(count, this.#queue.length))
      this.#una = acknowledgement
      if (difference(this.#next, this.#una) < 0) this.#next = this.#una
      this.#tries = 0
      this.#retryAt = undefined
    }
    this.#window = window << Math.max(0, this.#scale)
  }

  /**
   * Bytes and the end that follow what came before; anything else is answered with what is expected. RFC 5681, "Generating
   * Acknowledgments": two full segments, what is out of order and the end at once, the rest a little later.
   */
  #receive({ sequence, payload, flags }: TcpSegment): void {
    const isEnd = (flags & tcpFlag.fin) !== 0
    const known = difference(this.#expected, sequence)
    if (known !== 0 || isEnd) this.#mustAcknowledge = true
    if ((payload.length === 0 && !isEnd) || known < 0 || this.#machineEnded) return
    const fresh = payload.subarray(Math.min(known, payload.length), Math.min(payload.length, known + this.#freeWindow()))
    if (fresh.length > 0) {
      this.#expected = (this.#expected + fresh.length) >>> 0
      this.#backlog += fresh.length
      this.#ports.outside({ kind: 'send', flow: this.flow, bytes: fresh.slice() })
    }
    if (fresh.length < payload.length || difference(this.#expected, this.#expectedTold) >= 2 * largestSegment) this.#mustAcknowledge = true
    else this.#acknowledgeAt ??= this.#ports.now() + acknowledgementDelay
    if (isEnd && difference((sequence + payload.length) >>> 0, this.#expected) === 0) {
      this.#expected = (this.#expected + 1) >>> 0
      this.#machineEnded = true
      this.#ports.outside({ kind: 'finish', flow: this.flow })
    }
  }

  #freeWindow(): number {
    return Math.max(0, backlogLimit - this.#backlog)
  }

  #acknowledge(): void {
    this.#send(tcpFlag.ack, this.#next)
  }

  #sendSyn(): void {
    const scale = this.#scale >= 0 ? { windowScale: ownScale } : {}
    const flags = this.phase === 'syn-sent' ? tcpFlag.syn : tcpFlag.syn | tcpFlag.ack
    const window = Math.min(0xffff, this.#freeWindow())
    this.#emit({ flags, sequence: this.#una, window, maxSegment: largestSegment, ...scale })
  }

  #send(flags: number, sequence: number, payload?: Uint8Array): void {
    const scale = this.#scale >= 0 ? ownScale : 0
    this.#windowTold = this.#freeWindow()
    this.#emit({ flags, sequence, window: Math.min(0xffff, this.#windowTold >>> scale), ...(payload ? { payload } : {}) })
  }

  #emit(part: Pick<TcpSegment, 'flags' | 'sequence' | 'window'> & Partial<TcpSegment>): void {
    const { farPort, machinePort } = this.ends
    const acknowledgement = part.flags & tcpFlag.ack ? this.#expected : 0
    this.#mustAcknowledge = false
    this.#acknowledgeAt = undefined
    this.#expectedTold = this.#expected
    this.#ports.send({ fromPort: farPort, toPort: machinePort, acknowledgement, payload: new Uint8Array(0), ...part })
  }

  #advance(count: number): void {
    this.#next = (this.#next + count) >>> 0
    if (difference(this.#next, this.#highest) > 0) this.#highest = this.#next
  }

  #startTimer(): void {
    const waits = this.#una !== this.#highest || (this.#queue.length > 0 && this.#window === 0)
    if (!waits) this.#retryAt = undefined
    else this.#retryAt ??= this.#ports.now() + firstTimeout * 2 ** this.#tries
  }

  #die(): void {
    this.phase = 'dead'
    this.#retryAt = this.#acknowledgeAt = undefined
  }
}
