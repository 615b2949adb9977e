/**
 * The virtio 9P transport (VIRTIO, device type 9; Linux' net/9p/trans_virtio.c): a folder that a driver mounts by its tag. Requests are
 * answered when the driver notifies.
 */
import type { DeviceState, LogUnhandled } from '../../ports.ts'
import type { Chain } from '../chain.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'
import type { SharedFolder } from './folder.ts'
import { mostMessageBytes, P9Server } from './server.ts'
import { p9Feature, p9Type } from './spec.ts'

export interface VirtioP9Options {
  folder: SharedFolder
  /** What software mounts it by: ASCII. */
  tag: string
  log: LogUnhandled
}

/** Linux lays one message out in up to so many pieces. */
const queueSize = 128

export class VirtioP9 implements VirtioDevice {
  readonly name = 'virtio-9p-pci'
  readonly type = p9Type
  readonly classCode = 0x018000
  readonly features = p9Feature.mountTag
  readonly queueSizes = [queueSize]
  readonly #config: Uint8Array
  readonly #server: P9Server
  readonly #log: LogUnhandled
  #port: VirtioPort | undefined

  constructor({ folder, tag, log }: VirtioP9Options) {
    const name = new TextEncoder().encode(tag)
    this.#config = Uint8Array.of(name.length & 0xff, name.length >> 8, ...name)
    this.#server = new P9Server(folder)
    this.#log = log
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  config(): Uint8Array {
    return this.#config
  }

  notified(queue: number): void {
    this.#port!.queues[queue].drain(chain => this.#request(chain))
  }

  reset(): void {
    this.#server.reset()
  }

  saveState(): DeviceState {
    return this.#server.saveState()
  }

  restoreState(state: DeviceState): void {
    this.#server.restoreState(state)
  }

  #request(chain: Chain): void {
    const request = new Uint8Array(Math.min(chain.readable, mostMessageBytes))
    const answer = chain.read(request) === 'ok' ? this.#server.answer(request, chain.writable) : undefined
    if (answer) chain.write(answer)
    else this.#log(this.name, 'a request without a header, or without room for an answer')
  }
}
