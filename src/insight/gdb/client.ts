/**
 * The client side of the GDB remote serial protocol, as far as driving an x86 emulator's stub needs it (QEMU's `-gdb`).
 * Follows "Debugging with GDB", appendix "GDB Remote Serial Protocol", section "Packets", and QEMU's documentation, "GDB usage".
 */
import { bytesToPayload, encodePacket, fromHex, PacketParser, payloadToBytes, toHex, toHexLittleEndian } from './protocol.ts'
import type { Transport } from './protocol.ts'
import { includedFiles, parseTargetDescription, unpackRegisters } from './target.ts'
import type { RegisterValues, TargetRegister } from './target.ts'

const ACK = Uint8Array.of(0x2b)

/** A stub answered `E..`, answered nothing, or closed the connection. */
export class GdbError extends Error {
  override name = 'GdbError'
}

/** How `connect` leaves the stub's single steps: QEMU holds interrupts and timers back during steps unless told otherwise. */
export interface StepOptions {
  interrupts: boolean
}

export class GdbClient {
  readonly #transport: Transport
  readonly #parser = new PacketParser()
  #waiting: { resolve: (payload: string) => void; reject: (error: Error) => void } | undefined
  #received: string[] = []
  #owedAck = false
  #closed: string | undefined
  #lastSent: Uint8Array = new Uint8Array()
  registerTable: TargetRegister[] = []

  constructor(transport: Transport) {
    this.#transport = transport
    transport.onReceive = (bytes) => this.#receive(bytes)
    transport.onClose = (reason) => {
      this.#closed = reason
      this.#waiting?.reject(new GdbError(`the stub closed the connection: ${reason}`))
      this.#waiting = undefined
    }
  }

  /** Says hello and reads the target description. */
  async connect(): Promise<void> {
    await this.request('qSupported:xmlRegisters=i386')
    await this.request('?') // QEMU offers its features only to a client that has asked why the target stands still
    this.registerTable = parseTargetDescription(await this.#readDescription('target.xml'))
    if (!this.registerTable.some((register) => register?.name === 'rip')) {
      throw new GdbError('the stub describes no register named rip: not an x86-64 target')
    }
  }

  /** What single steps do about interrupts and timers. A stub that is not QEMU's is left as it is. */
  async setStepOptions(options: StepOptions): Promise<void> {
    const bits = await this.request('qqemu.sstepbits')
    const value = (name: string): number => Number(new RegExp(`${name}=(\\w+)`).exec(bits)?.[1] ?? 0)
    if (value('ENABLE') === 0) return
    const mask = options.interrupts ? value('ENABLE') : value('ENABLE') | value('NOIRQ') | value('NOTIMER')
    await this.#expectOk(`Qqemu.sstep=0x${mask.toString(16)}`)
  }

  /** One packet out, one packet back. Requests do not overlap: QEMU takes any byte that arrives while the target runs as Ctrl-C. */
  async request(payload: string): Promise<string> {
    this.#send(payload)
    return this.#nextPacket()
  }

  async registers(): Promise<RegisterValues> {
    const hex = await this.request('g')
    if (hex === '' || /^E..$/.test(hex)) throw new GdbError(`reading registers: the stub answered "${hex}"`)
    return unpackRegisters(this.registerTable, hex)
  }

  async writeRegister(name: string, value: bigint): Promise<void> {
    const number = this.registerTable.findIndex((register) => register?.name === name)
    if (number < 0) throw new GdbError(`the stub has no register named ${name}`)
    const bytes = this.registerTable[number].bits / 8
    await this.#expectOk(`P${number.toString(16)}=${toHexLittleEndian(value, bytes)}`)
  }

  async readMemory(linear: bigint, length: number): Promise<Uint8Array> {
    const answer = await this.request(`m${linear.toString(16)},${length.toString(16)}`)
    if (/^E..$/.test(answer)) throw new GdbError(`reading ${length} bytes at ${linear.toString(16)}: ${answer}`)
    return fromHex(answer)
  }

  async writeMemory(linear: bigint, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += 1024) {
      const part = bytes.subarray(at, at + 1024)
      await this.#expectOk(`M${(linear + BigInt(at)).toString(16)},${part.length.toString(16)}:${toHex(part)}`)
    }
  }

  /** Executes one instruction; answers the stop reply. */
  async step(): Promise<string> {
    return this.#stopReply(await this.request('s'))
  }

  /** Executes one instruction; answers false when the CPU sleeps: nothing came back in a second of the embedder's time. */
  async stepOrHalt(): Promise<boolean> {
    this.#send('s')
    const reply = this.#nextPacket()
    let slept = false
    const timer = setTimeout(() => {
      slept = true
      this.#transport.send(Uint8Array.of(0x03))
    }, 1000)
    try {
      this.#stopReply(await reply)
    } finally {
      clearTimeout(timer)
    }
    return !slept
  }

  /** Runs until something stops the target; answers the stop reply. */
  async resume(): Promise<string> {
    return this.#stopReply(await this.request('c'))
  }

  /** Runs to an address. Hardware breakpoints are used: memory stays as it is. */
  async resumeTo(linear: bigint): Promise<void> {
    const where = `1,${linear.toString(16)},1`
    await this.#expectOk(`Z${where}`)
    try {
      await this.resume()
    } finally {
      await this.#expectOk(`z${where}`)
    }
  }

  /** The target goes on and nobody waits for it. */
  async detach(): Promise<void> {
    this.#send('D')
    const answer = await this.#nextPacket()
    if (answer !== 'OK') throw new GdbError(`detaching: the stub answered "${answer}"`)
  }

  /** A command of the stub's own monitor; answers its output. */
  async monitor(command: string): Promise<string> {
    let output = ''
    let answer = await this.request(`qRcmd,${toHex(payloadToBytes(command))}`)
    while (answer.startsWith('O') && answer !== 'OK') {
      output += bytesToPayload(fromHex(answer.slice(1)))
      answer = await this.#nextPacket()
    }
    if (answer !== 'OK') throw new GdbError(`monitor command "${command}": the stub answered "${answer}"`)
    return output
  }

  close(): void {
    this.#transport.close()
  }

  async #readDescription(name: string): Promise<string> {
    let text = ''
    for (;;) {
      const answer = await this.request(`qXfer:features:read:${name}:${text.length.toString(16)},7fb`)
      if (answer[0] !== 'm' && answer[0] !== 'l') throw new GdbError(`the stub has no target description ${name}: it answered "${answer}"`)
      text += answer.slice(1)
      if (answer[0] === 'l') break
    }
    for (const file of includedFiles(text)) text += await this.#readDescription(file)
    return text
  }

  #stopReply(reply: string): string {
    if (/^[ST]/.test(reply)) return reply
    if (/^[WX]/.test(reply)) throw new GdbError(`the target ended (${reply})`)
    throw new GdbError(`expected a stop reply, got "${reply}"`)
  }

  async #expectOk(payload: string): Promise<void> {
    const answer = await this.request(payload)
    if (answer !== 'OK') throw new GdbError(`"${payload.slice(0, 40)}": expected OK, the stub answered "${answer}"`)
  }

  /** The acknowledgement of the last answer rides in front of the next packet: one system call and one wake-up less for each step. */
  #send(payload: string): void {
    if (this.#closed !== undefined) throw new GdbError(`the stub closed the connection: ${this.#closed}`)
    const packet = encodePacket(payload)
    this.#lastSent = packet
    if (!this.#owedAck) return this.#transport.send(packet)
    this.#owedAck = false
    const both = new Uint8Array(1 + packet.length)
    both.set(ACK)
    both.set(packet, 1)
    this.#transport.send(both)
  }

  async #nextPacket(): Promise<string> {
    const ready = this.#received.shift()
    if (ready !== undefined) return ready
    if (this.#closed !== undefined) throw new GdbError(`the stub closed the connection: ${this.#closed}`)
    if (this.#waiting) throw new Error('two requests to a GDB stub overlap')
    if (this.#owedAck) {
      // More is expected for the same request (monitor output): the stub holds it back until the last part is acknowledged.
      this.#owedAck = false
      this.#transport.send(ACK)
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  #receive(bytes: Uint8Array): void {
    for (const event of this.#parser.feed(bytes)) {
      if (event.kind === 'nack') this.#transport.send(this.#lastSent)
      if (event.kind === 'corrupt') this.#transport.send(Uint8Array.of(0x2d))
      if (event.kind !== 'packet') continue
      this.#owedAck = true
      if (this.#waiting) {
        const { resolve } = this.#waiting
        this.#waiting = undefined
        resolve(event.payload)
      } else {
        this.#received.push(event.payload)
      }
    }
  }
}
