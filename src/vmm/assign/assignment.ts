/**
 * A device of the machine in the hands of a guest: its registers are mapped into the guest, its messages are routed; configuration space
 * and the table of MSI-X are the hypervisor's. PCI Local Bus Specification, "Configuration Space", "MSI-X Capability and Table Structures".
 */
import type { Guest } from '../guest.ts'
import type { Handlers } from '../handlers.ts'
import { pageSize } from '../layout.ts'
import type { Assigner } from './assigner.ts'
import { Message } from './messages.ts'
import { capabilityId, commandBit, configAt, configPorts, sourceText, type HostBar, type SourceId } from './pci.ts'

/** What the guest is to see of its device. */
export interface AssignmentOptions {
  /** Guest-physical addresses at which the guest finds the device's memory BARs, by their number. */
  bars: Readonly<Record<number, number>>
  /** Where on its bus 0 the guest finds it. Default: where the machine has it. */
  as?: SourceId
}

interface GuestBar {
  readonly real: HostBar
  base: number
  /** All ones were written: the next read tells the size. */
  asked: boolean
}
/** MSI: what the guest has programmed. */
interface Msi {
  readonly at: number
  readonly message: Message
  address: number
  data: number
  enabled: boolean
}
/** MSI-X: entries of four words, as the guest has written them. */
interface Msix {
  readonly at: number
  readonly bar: number
  readonly offset: number
  readonly words: Uint32Array
  readonly messages: (Message | undefined)[]
}
const control = { msiEnable: 0x10000, msixEnable: 0x80000000 } as const
const entrySize = 16
const maskedEntry = 1
const firstBar = configAt.bar0
const endOfBars = firstBar + 24
const interruptPin = 0x3c

/** One device in the hands of one guest. Configuration space is answered by exits, registers and interrupts by the hardware. */
export class Assignment {
  /** Whose it is. */
  readonly guest: Guest
  /** The device. */
  readonly source: SourceId
  /** Its messages that the guest has programmed, or may. */
  readonly messages: Message[] = []
  private readonly assigner: Assigner
  private readonly as: SourceId
  private readonly bars = new Map<number, GuestBar>()
  private readonly msi: Msi | undefined
  private readonly msix: Msix | undefined
  private selected = 0
  private command = 0

  constructor(assigner: Assigner, guest: Guest, source: SourceId, { bars, as = source }: AssignmentOptions) {
    this.assigner = assigner
    this.guest = guest
    this.source = source
    this.as = as
    const { pci } = assigner
    this.msi = this.findMsi()
    this.msix = this.findMsix()
    for (const [index, base] of Object.entries(bars)) {
      const real = pci.bar(source, Number(index))
      if (!real) throw new Error(`${sourceText(source)} has no memory at BAR ${index}`)
      const bar = { real, base, asked: false }
      this.bars.set(Number(index), bar)
      this.map(Number(index), bar)
    }
    pci.write(source, configAt.command, commandBit.memory | commandBit.master)
  }
  private findMsi(): Msi | undefined {
    const at = this.assigner.pci.capability(this.source, capabilityId.msi)
    return at === undefined ? undefined : { at, message: this.newMessage(), address: 0, data: 0, enabled: false }
  }
  private findMsix(): Msix | undefined {
    const { pci } = this.assigner
    const at = pci.capability(this.source, capabilityId.msix)
    if (at === undefined) return undefined
    const entries = ((pci.read(this.source, at) >>> 16) & 0x7ff) + 1
    const place = pci.read(this.source, at + 4)
    const words = new Uint32Array(entries * 4)
    for (let entry = 0; entry < entries; entry++) words[entry * 4 + 3] = maskedEntry
    return { at, bar: place & 7, offset: place & ~7, words, messages: new Array<Message | undefined>(entries).fill(undefined) }
  }
  private newMessage(): Message {
    const { vmm, driver } = this.assigner
    const message = new Message(vmm, driver, this.guest, this.source)
    this.messages.push(message)
    return message
  }

  // ---- registers: the guest reaches them itself, but for the pages of the MSI-X table

  private isTable(index: number, offset: number): boolean {
    const { msix } = this
    if (!msix || msix.bar !== index) return false
    return offset + pageSize > msix.offset && offset < msix.offset + msix.words.byteLength
  }
  private map(index: number, { real, base }: GuestBar): void {
    const rights = { read: true, write: true, execute: false }
    for (let at = 0; at < real.size; at += pageSize) if (!this.isTable(index, at)) this.guest.stage.map(base + at, real.base + at, rights)
  }
  private unmap({ real, base }: GuestBar): void {
    for (let at = 0; at < real.size; at += pageSize) this.guest.stage.unmap(base + at)
    this.assigner.vmm.flush(this.guest)
  }
  /** The guest moves a BAR. */
  private move(index: number, bar: GuestBar, base: number): void {
    if (base === bar.base || base === 0) return
    this.unmap(bar)
    bar.base = base
    this.map(index, bar)
  }

  // ---- exits

  handlers(): Handlers {
    const isConfig = (port: number): boolean => port >= configPorts.address && port < configPorts.data + 4
    return {
      portWrite: ({ port, size, value }) => {
        if (!isConfig(port)) return undefined
        if (port === configPorts.address && size === 4) this.selected = value >>> 0
        if (!this.isSelected) return undefined
        if (port >= configPorts.data) this.writePart((this.selected & 0xfc) + (port & 3), size, value >>> 0)
        return 'done'
      },
      portRead: ({ port, size }) => {
        if (!isConfig(port) || !this.isSelected) return undefined
        if (port < configPorts.data) return { value: this.selected }
        return { value: part(this.read(this.selected & 0xfc), port & 3, size) }
      },
      mmioRead: ({ address, size }) => {
        const offset = this.tableOffset(address)
        return offset === undefined ? undefined : { value: BigInt(part(this.readTable(offset & ~3), offset & 3, size)) }
      },
      mmioWrite: ({ address, size, value }) => {
        const offset = this.tableOffset(address)
        if (offset === undefined) return undefined
        for (let done = 0; done < size; done += 4) this.writeTable(offset + done, Number((value >> BigInt(done * 8)) & 0xffffffffn))
        return 'done'
      },
    }
  }
  private get isSelected(): boolean {
    return ((this.selected >>> 8) & 0xffff) === this.as
  }

  // ---- configuration space

  private barAt(offset: number): { index: number; bar: GuestBar; high: boolean } | undefined {
    const index = (offset - firstBar) / 4
    const bar = this.bars.get(index)
    if (bar) return { index, bar, high: false }
    const below = this.bars.get(index - 1)
    return below?.real.wide ? { index: index - 1, bar: below, high: true } : undefined
  }
  private read(offset: number): number {
    const found = this.barAt(offset)
    if (found) {
      const { bar, high } = found
      if (high) return bar.asked ? 0xffffffff : 0
      return ((bar.asked ? -bar.real.size : bar.base) | (bar.real.wide ? 4 : 0)) >>> 0
    }
    if (offset >= firstBar && offset < endOfBars) return 0
    const real = this.assigner.pci.read(this.source, offset)
    // the pin is nobody's
    if (offset === interruptPin) return real & 0xffff00ff
    if (offset === configAt.command) return ((real & 0xffff0000) | this.command) >>> 0
    const { msi } = this
    switch (msi && offset - msi.at) {
      case 0: return ((real & ~control.msiEnable) | (msi!.enabled ? control.msiEnable : 0)) >>> 0
      case 4: return msi!.address
      case 8: return 0
      case 12: return msi!.data
      default: return real
    }
  }
  private writePart(offset: number, size: number, value: number): void {
    const shift = (offset & 3) * 8
    const mask = size === 4 ? 0xffffffff : ((2 ** (size * 8) - 1) << shift) >>> 0
    this.write(offset & 0xfc, size === 4 ? value : ((this.read(offset & 0xfc) & ~mask) | ((value << shift) & mask)) >>> 0)
  }
  private write(offset: number, value: number): void {
    const found = this.barAt(offset)
    if (found && !found.high) {
      found.bar.asked = value === 0xffffffff
      if (!found.bar.asked) this.move(found.index, found.bar, (value & ~15) >>> 0)
    }
    if (offset === configAt.command) this.command = value & 0xffff
    const { msi, msix } = this
    if (msi && offset >= msi.at && offset <= msi.at + 12) this.writeMsi(msi, offset - msi.at, value)
    if (msix && offset === msix.at) this.writeMsixControl(msix, value)
  }
  private writeMsi(msi: Msi, offset: number, value: number): void {
    const { pci } = this.assigner
    if (offset === 0) msi.enabled = (value & control.msiEnable) !== 0
    else if (offset === 4) msi.address = value
    else if (offset === 12) msi.data = value & 0xffff
    if (msi.enabled) {
      const { address, data } = msi.message.route(msi.address, msi.data)
      ;[address, 0, data].forEach((word, i) => pci.write(this.source, msi.at + 4 + i * 4, word))
    }
    const real = pci.read(this.source, msi.at)
    pci.write(this.source, msi.at, msi.enabled ? real | control.msiEnable : real & ~control.msiEnable)
  }
  private writeMsixControl(msix: Msix, value: number): void {
    this.assigner.pci.write(this.source, msix.at, value)
    if (value & control.msixEnable) msix.messages.forEach((_, entry) => this.programEntry(msix, entry))
  }

  // ---- the table of MSI-X

  /** Offset in the table's first page and beyond, of a guest-physical address. */
  private tableOffset(address: number): number | undefined {
    const { msix } = this
    const bar = msix && this.bars.get(msix.bar)
    const offset = bar ? address - bar.base : -1
    if (!bar || offset < 0 || offset >= bar.real.size) return undefined
    return this.isTable(msix.bar, offset - (offset % pageSize)) ? offset : undefined
  }
  private readTable(offset: number): number {
    const { bar, offset: start, words } = this.msix!
    const word = (offset - start) / 4
    if (word >= 0 && word < words.length) return words[word]
    return this.assigner.load(this.bars.get(bar)!.real.base + offset)
  }
  private writeTable(offset: number, value: number): void {
    const msix = this.msix!
    const word = (offset - msix.offset) / 4
    if (word < 0 || word >= msix.words.length) return this.assigner.store(this.bars.get(msix.bar)!.real.base + offset, value)
    msix.words[word] = value
    this.programEntry(msix, Math.floor(word / 4))
  }
  /** What the device has in its table: the guest's mask, and a message that names an entry of the unit's. */
  private programEntry(msix: Msix, entry: number): void {
    const [low, , data, mask] = msix.words.subarray(entry * 4, entry * 4 + 4)
    const at = this.bars.get(msix.bar)!.real.base + msix.offset + entry * entrySize
    if (low !== 0 && !(mask & maskedEntry)) {
      const message = (msix.messages[entry] ??= this.newMessage())
      const routed = message.route(low, data)
      ;[routed.address, 0, routed.data].forEach((word, i) => this.assigner.store(at + i * 4, word))
    }
    this.assigner.store(at + 12, mask)
  }
}

const part = (word: number, shift: number, size: number): number =>
  (word >>> (shift * 8)) & (size === 4 ? 0xffffffff : 2 ** (size * 8) - 1)
