/** The virtio console with one port (VIRTIO 1.2, "Console Device"): queue 0 receives what is typed, queue 1 transmits. */
import type { DeviceState } from '../../ports.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'

const queue = { receive: 0, transmit: 1 } as const
/** VIRTIO_CONSOLE_F_EMERG_WRITE: a byte written to emerg_wr is output, without any queue. */
const emergencyWrite = 1n << 2n
const config = { emergency: 8, length: 12 } as const
const pieceBytes = 4096

export class VirtioConsole implements VirtioDevice {
  readonly name = 'virtio-console-pci'
  readonly type = 3
  readonly classCode = 0x078000
  readonly features = emergencyWrite
  readonly queueSizes = [128, 128]
  readonly #output: (bytes: Uint8Array) => void
  /** What was typed and no buffer has taken yet. */
  #typed: number[] = []
  #port: VirtioPort | undefined

  constructor(output: (bytes: Uint8Array) => void) {
    this.#output = output
  }

  /** A driver has given buffers to receive into, once at least. */
  get listening(): boolean {
    return this.#port?.queues[queue.receive].enabled ?? false
  }

  input(bytes: Uint8Array): void {
    for (const byte of bytes) this.#typed.push(byte)
    this.#deliver()
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  config(): Uint8Array {
    return new Uint8Array(config.length)
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset === config.emergency) this.#output(bytes.slice(0, 1))
  }

  notified(index: number): void {
    if (index === queue.receive) this.#deliver()
    else this.#transmit()
  }

  reset(): void {
    this.#typed = []
  }

  saveState(): DeviceState {
    return { typed: this.#typed }
  }

  restoreState(state: DeviceState): void {
    this.#typed = [...(state as { typed: number[] }).typed]
  }

  #deliver(): void {
    if (this.#typed.length === 0) return
    this.#port?.queues[queue.receive].drain(chain => {
      if (this.#typed.length === 0) return false
      chain.write(Uint8Array.from(this.#typed.splice(0, chain.writable)))
      return true
    })
  }

  #transmit(): void {
    this.#port?.queues[queue.transmit].drain(chain => {
      while (chain.readable > 0) {
        const piece = new Uint8Array(Math.min(chain.readable, pieceBytes))
        if (chain.read(piece) !== 'ok') return
        this.#output(piece)
      }
    })
  }
}
