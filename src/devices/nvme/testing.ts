/** A small NVMe driver for tests: it starts a controller and moves commands as NVM Express 1.4 ("Controller Initialization") says. */
import type { BlockStore } from '../storage/block-store.ts'
import { FakeBoard } from '../testing/fakes.ts'
import { Nvme } from './nvme.ts'

/** Where things lie in the driver's memory. */
export const place = {
  adminSubmissions: 0x1000, adminCompletions: 0x2000, submissions: 0x3000, completions: 0x4000, data: 0x10000,
} as const
const adminEntries = 8
export const ioEntries = 8

export interface Fields {
  opcode: number
  namespace?: number
  /** Command dwords by number, besides those that have a name. */
  [dword: number]: number
}

export interface Answer {
  id: number
  status: number
  result: number
  submissionHead: number
  queue: number
}

export class Driver extends FakeBoard {
  readonly nvme: Nvme
  readonly #tails = [0, 0]
  readonly #heads = [0, 0]
  readonly #phases = [1, 1]
  #nextId = 1

  constructor(stores: BlockStore[], options: { blockSize?: number; queuePairs?: number } = {}) {
    super()
    this.nvme = new Nvme({
      slot: this.slot, clock: this.clock, alarmName: 'nvme', stores, serial: 'GLASS', blockSize: options.blockSize ?? 512,
      queuePairs: options.queuePairs ?? 4, log: this.log,
    })
  }

  read(offset: number): number {
    return this.nvme.bars[0].handler.readMmio(offset, 4)
  }

  write(offset: number, value: number): void {
    this.nvme.bars[0].handler.writeMmio(offset, 4, value)
  }

  /** Enables the controller with its admin queues. */
  start(): void {
    this.#tails.fill(0)
    this.#heads.fill(0)
    this.#phases.fill(1)
    this.dma.memory.fill(0, place.adminSubmissions, place.data)
    this.write(0x24, ((adminEntries - 1) << 16) | (adminEntries - 1))
    this.write(0x28, place.adminSubmissions)
    this.write(0x30, place.adminCompletions)
    this.write(0x14, 0x00460001)
  }

  /** Makes I/O queues 1. */
  makeQueues(): void {
    this.admin({ opcode: 0x05, 6: place.completions, 10: ((ioEntries - 1) << 16) | 1, 11: 0x10003 })
    this.admin({ opcode: 0x01, 6: place.submissions, 10: ((ioEntries - 1) << 16) | 1, 11: 0x10001 })
  }

  /** Puts a command into a queue without ringing; returns its identifier. */
  put(queue: 0 | 1, fields: Fields): number {
    const base = (queue === 0 ? place.adminSubmissions : place.submissions) + this.#tails[queue] * 64
    const id = this.#nextId++
    this.dma.memory.fill(0, base, base + 64)
    for (const [key, value] of Object.entries(fields)) if (/^\d+$/.test(key)) this.view.setUint32(base + Number(key) * 4, value, true)
    this.view.setUint32(base, fields.opcode | (id << 16), true)
    this.view.setUint32(base + 4, fields.namespace ?? 0, true)
    this.#tails[queue] = (this.#tails[queue] + 1) % (queue === 0 ? adminEntries : ioEntries)
    return id
  }

  ring(queue: 0 | 1): void {
    this.write(0x1000 + queue * 8, this.#tails[queue])
  }

  /** The completions that are there; the driver takes them. */
  completions(queue: 0 | 1): Answer[] {
    const answers: Answer[] = []
    for (;;) {
      const base = (queue === 0 ? place.adminCompletions : place.completions) + this.#heads[queue] * 16
      const last = this.view.getUint16(base + 14, true)
      if ((last & 1) !== this.#phases[queue]) break
      answers.push({
        id: this.view.getUint16(base + 12, true), status: last >>> 1, result: this.view.getUint32(base, true),
        submissionHead: this.view.getUint16(base + 8, true), queue: this.view.getUint16(base + 10, true),
      })
      this.#heads[queue] = (this.#heads[queue] + 1) % (queue === 0 ? adminEntries : ioEntries)
      if (this.#heads[queue] === 0) this.#phases[queue] ^= 1
    }
    if (answers.length > 0) this.write(0x1004 + queue * 8, this.#heads[queue])
    return answers
  }

  run(queue: 0 | 1, fields: Fields): Answer {
    const id = this.put(queue, fields)
    this.ring(queue)
    this.clock.advance(1e7)
    const answer = this.completions(queue).find(each => each.id === id)
    if (!answer) throw new Error(`command ${JSON.stringify(fields)} was not completed; ${this.logs.join('; ')}`)
    return answer
  }

  admin(fields: Fields): Answer {
    return this.run(0, fields)
  }

  io(fields: Fields): Answer {
    return this.run(1, { namespace: 1, ...fields })
  }

  bytes(at: number, length: number): Uint8Array {
    return this.dma.memory.subarray(at, at + length)
  }
}
