/**
 * PCI bus 0: configuration mechanism #1, the enhanced configuration window, decoding of BARs, and INTx wires
 * (PCI Local Bus Specification 3.0; PCI Express Base Specification, "Enhanced Configuration Access Mechanism").
 */
import type { AccessSize, DeviceState, DmaPort, InterruptPin, LogUnhandled, MmioHandler, MsiPort, PortHandler, Stateful } from '../ports.ts'
import { command, register, status } from './config-space.ts'
import { type Bar, type Bdf, bdfText, deviceOf, type PciFunction, type PciSlot } from './function.ts'

/** I/O port space, for I/O BARs. */
export interface PortSpace {
  owner(base: number, count: number): { readonly name: string } | undefined
  claim(base: number, count: number, name: string, handler: PortHandler): { release(): void }
}

export interface PciBusOptions {
  ports: PortSpace
  /** Bus mastering, by requester. */
  dmaFor: (id: Bdf) => DmaPort
  msiFor: (id: Bdf) => MsiPort
  /** The eight interrupt wires PIRQA to PIRQH. */
  wires: readonly InterruptPin[]
  log: LogUnhandled
}

export interface ResourceWindows {
  io: { base: number; size: number }
  memory32: { base: number; size: number }
  memory64: { base: number; size: number }
}

interface Mapping {
  base: number
  end: number
  handler: MmioHandler
}

interface Attached {
  id: Bdf
  fn: PciFunction
  /** What the function drives on its INTx pin, and what reaches the wire through Command.InterruptDisable. */
  asserted: boolean
  driving: boolean
  ioClaims: Map<number, { base: number; release(): void }>
}

const allOnes: Record<AccessSize, number> = { 1: 0xff, 2: 0xffff, 4: 0xffffffff }
const configEnable = 0x80000000

/** Which of the eight wires a pin of a device (1 to 4) is soldered to. ACPI's _PRT and the interrupt line registers say the same. */
export const wireOf = (device: number, pin: number): number => (device + pin - 1) & 7

export class PciBus implements Stateful {
  readonly #options: PciBusOptions
  readonly #functions = new Map<number, Attached>()
  readonly #asserting: number[]
  #memory: Mapping[] = []
  #address = 0

  constructor(options: PciBusOptions) {
    this.#options = options
    this.#asserting = options.wires.map(() => 0)
  }

  /** Makes a function with the ports of its place, and plugs it in. */
  plug<T extends PciFunction>(id: Bdf, make: (slot: PciSlot) => T): T {
    if (this.#functions.has(id)) throw new Error(`two PCI functions at ${bdfText(id)}`)
    const fn = make(this.#slot(id))
    const attached: Attached = { id, fn, asserted: false, driving: false, ioClaims: new Map() }
    this.#functions.set(id, attached)
    for (const bar of fn.bars) declareBar(fn, bar)
    fn.config.onWrite((offset, size) => this.#configWritten(attached, offset, size))
    return fn
  }

  get functions(): { id: Bdf; fn: PciFunction }[] {
    return [...this.#functions.values()].sort((a, b) => a.id - b.id)
  }

  /** What firmware does before it starts software: places BARs, enables decoding, and notes each pin's interrupt in the line register. */
  assignResources(windows: ResourceWindows, interruptOfWire: (wire: number) => number): void {
    const next = { io: windows.io.base, memory32: windows.memory32.base, memory64: windows.memory64.base }
    const wanted = this.functions.flatMap(({ fn }) => fn.bars.map(bar => ({ fn, bar })))
    for (const { fn, bar } of wanted.sort((a, b) => b.bar.size - a.bar.size)) {
      const base = Math.ceil(next[bar.kind] / bar.size) * bar.size
      const window = windows[bar.kind]
      if (base + bar.size > window.base + window.size) {
        throw new Error(`no room for BAR ${bar.index} of ${fn.name} (${bar.size} bytes of ${bar.kind})`)
      }
      next[bar.kind] = base + bar.size
      writeBar(fn, bar, base)
    }
    for (const { id, fn } of this.functions) {
      const pin = fn.config.get(register.interruptPin, 1)
      if (pin > 0) fn.config.set(register.interruptLine, 1, interruptOfWire(wireOf(deviceOf(id), pin)))
      const decode = fn.bars.reduce((bits, bar) => bits | (bar.kind === 'io' ? command.io : command.memory), 0)
      fn.config.write(register.command, 2, decode | command.serr)
      fn.config.sealInitialState()
    }
  }

  /** Firmware in the machine will place BARs: nothing is decoded before it does. */
  leaveResources(): void {
    for (const { fn } of this.functions) fn.config.sealInitialState()
  }

  /**
   * Ports CF8h-CFFh. The byte at CF9h is not PCI's: it goes to `resetControl`. The two low bits of the address, reserved by the
   * specification, count as QEMU counts them: kvm-unit-tests reads registers at odd words through port CFCh.
   */
  mechanism1(resetControl: PortHandler): PortHandler {
    return {
      readPort: (port, size) => {
        if (port >= 0xcfc) return this.#selected(id => this.configRead(id, (this.#address & 0xff) | (port & 3), size), allOnes[size])
        if (port === 0xcf8 && size === 4) return this.#address
        return port === 0xcf9 && size === 1 ? resetControl.readPort(port, size) : allOnes[size]
      },
      writePort: (port, size, value) => {
        if (port >= 0xcfc) this.#selected(id => this.configWrite(id, (this.#address & 0xff) | (port & 3), size, value), undefined)
        else if (port === 0xcf8 && size === 4) this.#address = (value & 0x80ffffff) >>> 0
        else if (port === 0xcf9 && size === 1) resetControl.writePort(port, size, value)
      },
    }
  }

  /** The enhanced configuration window: offset = requester ID << 12 | register. */
  readonly ecam: MmioHandler = {
    readMmio: (offset, size) => this.configRead((offset >>> 12) as Bdf, offset & 0xfff, size),
    writeMmio: (offset, size, value) => this.configWrite((offset >>> 12) as Bdf, offset & 0xfff, size, value),
  }

  /** All ones where no function is: that is how software looks for them. */
  configRead(id: Bdf, offset: number, size: AccessSize): number {
    const attached = this.#functions.get(id)
    return attached ? attached.fn.config.get(offset, size) : allOnes[size]
  }

  configWrite(id: Bdf, offset: number, size: AccessSize, value: number): void {
    this.#functions.get(id)?.fn.config.write(offset, size, value)
  }

  /** A window of physical memory in which memory BARs are decoded. */
  memoryWindow(base: number): MmioHandler {
    return {
      readMmio: (offset, size) => {
        const mapping = this.#mappingAt(base + offset, size)
        if (mapping) return mapping.handler.readMmio(base + offset - mapping.base, size)
        this.#options.log('pci', `read at 0x${(base + offset).toString(16)}, where no BAR is`)
        return allOnes[size]
      },
      writeMmio: (offset, size, value) => {
        const mapping = this.#mappingAt(base + offset, size)
        if (mapping) mapping.handler.writeMmio(base + offset - mapping.base, size, value)
        else this.#options.log('pci', `write at 0x${(base + offset).toString(16)}, where no BAR is`)
      },
    }
  }

  reset(): void {
    this.#address = 0
    for (const { fn } of this.functions) {
      fn.config.reset()
      fn.reset()
    }
  }

  saveState(): DeviceState {
    const functions = [...this.#functions.values()].map(({ id, fn, asserted }) => {
      return { id, asserted, config: [...fn.config.bytes], device: fn.saveState() }
    })
    return { address: this.#address, functions }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { address: number; functions: { id: number; asserted: boolean; config: number[]; device: DeviceState }[] }
    this.#address = saved.address
    for (const { id, asserted, config, device } of saved.functions) {
      const attached = this.#functions.get(id)
      if (!attached) throw new Error(`the saved state has a PCI function at ${bdfText(id as Bdf)} that this machine lacks`)
      attached.asserted = asserted
      attached.fn.config.restore(config)
      attached.fn.restoreState(device)
    }
  }

  #slot(id: Bdf): PciSlot {
    const dma = this.#options.dmaFor(id)
    const msi = this.#options.msiFor(id)
    const master = (): boolean => (this.configRead(id, register.command, 2) & command.busMaster) !== 0
    return {
      id,
      dma: {
        read: (address, into) => (master() ? dma.read(address, into) : 'blocked'),
        write: (address, from) => (master() ? dma.write(address, from) : 'blocked'),
      },
      msi: { signal: (address, data) => { if (master()) msi.signal(address, data) } },
      interrupt: { set: asserted => this.#setInterrupt(id, asserted) },
    }
  }

  #selected<T>(access: (id: Bdf) => T, absent: T): T {
    return this.#address & configEnable ? access(((this.#address >>> 8) & 0xffff) as Bdf) : absent
  }

  #setInterrupt(id: number, asserted: boolean): void {
    const attached = this.#functions.get(id)
    if (!attached) return // still being made
    attached.asserted = asserted
    this.#driveInterrupt(attached)
  }

  #driveInterrupt(attached: Attached): void {
    const { config } = attached.fn
    const bits = config.get(register.status, 2) & ~status.interrupt
    config.set(register.status, 2, attached.asserted ? bits | status.interrupt : bits)
    const driving = attached.asserted && !(config.get(register.command, 2) & command.interruptDisable)
    const pin = config.get(register.interruptPin, 1)
    if (driving === attached.driving || pin === 0) return
    attached.driving = driving
    const wire = wireOf(deviceOf(attached.id), pin)
    this.#asserting[wire] += driving ? 1 : -1
    this.#options.wires[wire].set(this.#asserting[wire] > 0)
  }

  #configWritten(attached: Attached, offset: number, size: number): void {
    const touches = (first: number, last: number): boolean => offset <= last && offset + size > first
    if (touches(register.command, register.command + 3)) this.#driveInterrupt(attached)
    if (touches(register.command, register.command + 1) || touches(register.bar0, register.bar0 + 23)) this.#decode(attached)
  }

  /** Brings the decoders of a function in line with its BARs and Command register. */
  #decode(attached: Attached): void {
    const { fn } = attached
    const enabled = fn.config.get(register.command, 2)
    const own = new Set(fn.bars.map(bar => bar.handler))
    this.#memory = this.#memory.filter(mapping => !own.has(mapping.handler))
    for (const bar of fn.bars) {
      const base = barBase(fn, bar)
      if (bar.kind === 'io') this.#decodeIo(attached, bar, enabled & command.io ? base : undefined)
      else if (enabled & command.memory && base > 0) this.#memory.push({ base, end: base + bar.size, handler: bar.handler })
    }
  }

  #decodeIo(attached: Attached, bar: Bar, base: number | undefined): void {
    const present = attached.ioClaims.get(bar.index)
    if (present?.base === base) return
    present?.release()
    attached.ioClaims.delete(bar.index)
    if (!base || base + bar.size > 0x10000) return
    const other = this.#options.ports.owner(base, bar.size)
    if (other) {
      const place = `0x${base.toString(16)}`
      return this.#options.log('pci', `I/O BAR ${bar.index} of ${attached.fn.name} at ${place} lies over ${other.name}: not decoded`)
    }
    const claim = this.#options.ports.claim(base, bar.size, attached.fn.name, {
      readPort: (port, size) => bar.handler.readMmio(port - base, size),
      writePort: (port, size, value) => bar.handler.writeMmio(port - base, size, value),
    })
    attached.ioClaims.set(bar.index, { base, release: () => claim.release() })
  }

  #mappingAt(address: number, size: number): Mapping | undefined {
    return this.#memory.find(mapping => address >= mapping.base && address + size <= mapping.end)
  }
}

const barOffset = (bar: Bar): number => register.bar0 + 4 * bar.index

/** Address bits of a BAR that software can set: reading back all ones shows the size. */
function declareBar(fn: PciFunction, bar: Bar): void {
  const flags = bar.kind === 'io' ? 1 : (bar.kind === 'memory64' ? 4 : 0) | (bar.prefetchable ? 8 : 0)
  fn.config.set(barOffset(bar), 4, flags)
  fn.config.allow(barOffset(bar), 4, bar.size >= 2 ** 32 ? 0 : -bar.size >>> 0)
  if (bar.kind === 'memory64') fn.config.allow(barOffset(bar) + 4, 4, bar.size > 2 ** 32 ? -(bar.size / 2 ** 32) >>> 0 : 0xffffffff)
}

function writeBar(fn: PciFunction, bar: Bar, base: number): void {
  fn.config.write(barOffset(bar), 4, base % 2 ** 32)
  if (bar.kind === 'memory64') fn.config.write(barOffset(bar) + 4, 4, Math.floor(base / 2 ** 32))
}

function barBase(fn: PciFunction, bar: Bar): number {
  const low = fn.config.get(barOffset(bar), 4)
  if (bar.kind === 'io') return (low & ~3) >>> 0
  const high = bar.kind === 'memory64' ? fn.config.get(barOffset(bar) + 4, 4) : 0
  return high * 2 ** 32 + ((low & ~15) >>> 0)
}
