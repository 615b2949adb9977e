/** The virtio network device with one pair of queues (VIRTIO 1.2, "Network Device"): frames of Ethernet to and from a network. */
import type { NetworkPort, Plug } from '../../network/port.ts'
import type { Alarm, Clock, DeviceState, Nanoseconds } from '../../ports.ts'
import type { Chain } from '../chain.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'
import { feature } from '../spec.ts'
import { headerFlag, legacyNetHeaderLength, linkUp, netConfig, netFeature, netHeader, netQueue, netType } from './spec.ts'

export interface VirtioNetOptions {
  mac: Uint8Array
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  plug: Plug
}

interface Arriving {
  at: Nanoseconds
  frame: Uint8Array
}

const largestFrame = 65_535 + 18
const queueSize = 256
/** Frames that wait for buffers; more are lost, as on a cable. */
const mostWaiting = 1024
/** How long a frame is on its way. */
const latency: Nanoseconds = 20_000

export class VirtioNet implements VirtioDevice {
  readonly name = 'virtio-net-pci'
  readonly type = netType
  readonly classCode = 0x020000
  readonly features = netFeature.mac | netFeature.status | netFeature.checksum | netFeature.guestChecksum
  readonly queueSizes = [queueSize, queueSize]
  readonly #mac: Uint8Array
  readonly #clock: Clock
  readonly #alarm: Alarm
  readonly #network: NetworkPort
  #port: VirtioPort | undefined
  #isUp = true
  /** In the order of their arrival. */
  #arriving: Arriving[] = []
  readonly #header = new DataView(new ArrayBuffer(netHeader.length))
  readonly #headerBytes = new Uint8Array(this.#header.buffer)

  constructor({ mac, clock, alarmName, plug }: VirtioNetOptions) {
    this.#mac = mac
    this.#clock = clock
    this.#alarm = clock.alarm(alarmName, () => this.#receive())
    this.#network = plug(frame => this.#arrive(frame))
  }

  /** Pulls the cable out, or puts it in. */
  set link(isUp: boolean) {
    if (isUp === this.#isUp) return
    this.#isUp = isUp
    this.#port?.configChanged()
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  config(): Uint8Array {
    const bytes = new Uint8Array(netConfig.length)
    bytes.set(this.#mac, netConfig.mac)
    bytes[netConfig.status] = this.#isUp ? linkUp : 0
    return bytes
  }

  notified(queue: number): void {
    if (queue === netQueue.receive) this.#receive()
    else this.#transmit()
  }

  reset(): void {
    this.#arriving = []
    this.#alarm.cancel()
    this.#network.reset()
  }

  saveState(): DeviceState {
    return { isUp: this.#isUp, arriving: this.#arriving.map(({ at, frame }) => ({ at, frame: [...frame] })) }
  }

  restoreState(state: DeviceState): void {
    const { isUp, arriving } = state as { isUp: boolean; arriving: { at: Nanoseconds; frame: number[] }[] }
    this.#isUp = isUp
    this.#arriving = arriving.map(({ at, frame }) => ({ at, frame: Uint8Array.from(frame) }))
    this.#setAlarm()
  }

  // ---- to the network

  #transmit(): void {
    this.#port!.queues[netQueue.transmit].drain(chain => this.#send(chain))
    this.#network.flush()
  }

  /** As long as the driver's version has it. */
  #driversHeader(): Uint8Array {
    const isNew = (this.#port!.features() & feature.version1) !== 0n
    return isNew ? this.#headerBytes : this.#headerBytes.subarray(0, legacyNetHeaderLength)
  }

  #send(chain: Chain): void {
    const header = this.#driversHeader()
    if (chain.readable < header.length || chain.readable > header.length + largestFrame) return
    const frame = new Uint8Array(chain.readable - header.length)
    if (chain.read(header) !== 'ok' || chain.read(frame) !== 'ok' || !this.#isUp) return
    if (this.#header.getUint8(netHeader.flags) & headerFlag.needsChecksum && this.#network.wantsChecksums) {
      fillChecksum(frame, this.#header.getUint16(netHeader.checksumStart, true), this.#header.getUint16(netHeader.checksumOffset, true))
    }
    this.#network.transmit(frame)
  }

  // ---- from the network

  #arrive(frame: Uint8Array): void {
    if (!this.#isUp || this.#arriving.length >= mostWaiting || !this.#port!.queues[netQueue.receive].enabled) return
    this.#arriving.push({ at: this.#clock.now() + latency, frame })
    this.#setAlarm()
  }

  /** What has arrived, as far as there are buffers; a notification of new ones goes on. */
  #receive(): void {
    const now = this.#clock.now()
    if (this.#arriving.length > 0 && this.#arriving[0].at <= now) {
      this.#port!.queues[netQueue.receive].drain(chain => {
        const [next] = this.#arriving
        if (next === undefined || next.at > now) return false
        this.#arriving.shift()
        this.#fill(chain, next.frame)
        return true
      })
    }
    this.#setAlarm()
  }

  #fill(chain: Chain, frame: Uint8Array): void {
    const header = this.#driversHeader()
    if (chain.writable < header.length + frame.length) return // lost: the driver gave too little
    this.#headerBytes.fill(0)
    const isValid = !this.#network.wantsChecksums && (this.#port!.features() & netFeature.guestChecksum) !== 0n
    this.#header.setUint8(netHeader.flags, isValid ? headerFlag.dataValid : 0)
    this.#header.setUint16(netHeader.buffers, 1, true)
    chain.write(header)
    chain.write(frame)
  }

  /** Frames that are there already wait for a notification, not for time. */
  #setAlarm(): void {
    const next = this.#arriving.find(({ at }) => at > this.#clock.now())
    if (!next) this.#alarm.cancel()
    else if (this.#alarm.at !== next.at) this.#alarm.set(next.at)
  }
}

/** "Packet Transmission": the field holds the sum of the pseudo header already, the rest is added up from `start` on. */
function fillChecksum(frame: Uint8Array, start: number, offset: number): void {
  const at = start + offset
  if (at + 2 > frame.length) return
  let sum = 0
  for (let i = start; i + 1 < frame.length; i += 2) sum += (frame[i] << 8) | frame[i + 1]
  if ((frame.length - start) & 1) sum += frame[frame.length - 1] << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000)
  const result = ~sum & 0xffff || 0xffff
  frame[at] = result >>> 8
  frame[at + 1] = result & 0xff
}
