/**
 * PCI: bus 0 and those behind bridges, configuration mechanism #1, the enhanced configuration window, decoding of BARs, and INTx wires
 * (PCI Local Bus Specification 3.0; PCI Express Base Specification, "Enhanced Configuration Access Mechanism").
 */
import type { AccessSize, DeviceState, DmaPort, InterruptPin, LogUnhandled, MmioHandler, MsiPort, PortHandler, Stateful } from '../ports.ts'
import { command, register, status } from './config-space.ts'
import { addExpressCapability, bridgeRegisters, expressType, PciBridge } from './bridge.ts'
import { bdf, type Bar, type Bdf, bdfText, deviceOf, type PciFunction, type PciSlot } from './function.ts'
import { type BusTree, numberBuses, placeResources, type Windows } from './resources.ts'

/** I/O port space, for I/O BARs. */
export interface PortSpace {
  owner(base: number, count: number): { readonly name: string } | undefined
  claim(base: number, count: number, name: string, handler: PortHandler): { release(): void }
}

export interface PciBusOptions {
  ports: PortSpace
  /** Bus mastering, by requester: its ID is what it is at the moment of the request, for software numbers the buses behind bridges. */
  dmaFor: (requester: () => Bdf) => DmaPort
  msiFor: (requester: () => Bdf) => MsiPort
  /** The eight interrupt wires PIRQA to PIRQH. */
  wires: readonly InterruptPin[]
  log: LogUnhandled
}

export type ResourceWindows = Windows

interface Mapping {
  base: number
  end: number
  handler: MmioHandler
}

/** A bus: 0, or that behind a bridge. */
interface BusNode {
  readonly bridge: Attached | undefined
  /** By device << 3 | function. */
  readonly functions: Map<number, Attached>
}

interface Attached {
  readonly bus: BusNode
  readonly place: number
  /** The bus behind it, if it is a bridge. */
  readonly behind: BusNode | undefined
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
  readonly #root: BusNode = { bridge: undefined, functions: new Map() }
  /** In the order in which they were plugged in: bridges before what lies behind them. */
  readonly #functions: Attached[] = []
  /** Buses get numbers as their bridges are plugged in, until firmware numbers them in their order. */
  #lastBus = 0
  readonly #asserting: number[]
  #memory: Mapping[] = []
  #address = 0

  constructor(options: PciBusOptions) {
    this.#options = options
    this.#asserting = options.wires.map(() => 0)
  }

  /**
   * Makes a function with the ports of its place, and plugs it in: on bus 0, or behind a bridge, where the bus number of `id` does not
   * count.
   */
  plug<T extends PciFunction>(id: Bdf, make: (slot: PciSlot) => T, bridge?: PciBridge): T {
    const bus = bridge ? this.#attachedOf(bridge).behind! : this.#root
    const place = id & 0xff
    if (bus.functions.has(place)) throw new Error(`two PCI functions at ${bdfText(id)}`)
    const made: { attached?: Attached } = {}
    const fn = make(this.#slot(() => made.attached, () => bdf(numberOf(bus), deviceOf(id), id & 7)))
    const attached: Attached = { bus, place, behind: undefined, fn, asserted: false, driving: false, ioClaims: new Map() }
    if (fn instanceof PciBridge) {
      Object.assign(attached, { behind: { bridge: attached, functions: new Map() } satisfies BusNode })
      this.#lastBus++
      fn.setBuses(numberOf(bus), this.#lastBus, this.#lastBus)
    } else if (bridge?.express) addExpressCapability(fn.config, { type: expressType.endpoint })
    made.attached = attached
    bus.functions.set(place, attached)
    this.#functions.push(attached)
    showFunctions(bus, place)
    for (const bar of fn.bars) declareBar(fn, bar)
    fn.config.onWrite((offset, size) => this.#configWritten(attached, offset, size))
    return fn
  }

  get functions(): { id: Bdf; fn: PciFunction }[] {
    return this.#functions.map(attached => ({ id: idOf(attached), fn: attached.fn })).sort((a, b) => a.id - b.id)
  }
  /** Places taken on bus 0 or behind a bridge: device << 3 | function. */
  takenPlaces(bridge?: PciBridge): ReadonlySet<number> {
    return new Set((bridge ? this.#attachedOf(bridge).behind! : this.#root).functions.keys())
  }

  /**
   * What firmware does before it starts software: numbers buses, places BARs, enables decoding, and notes each pin's interrupt in the line
   * register.
   */
  assignResources(windows: ResourceWindows, interruptOfWire: (wire: number) => number): void {
    const tree = treeOf(this.#root)
    numberBuses(tree)
    placeResources(tree, windows, writeBar)
    for (const attached of this.#functions) {
      const { fn } = attached
      const pin = fn.config.get(register.interruptPin, 1)
      if (pin > 0) fn.config.set(register.interruptLine, 1, interruptOfWire(wireFor(attached, pin)))
      const decode = fn.bars.reduce((bits, bar) => bits | (bar.kind === 'io' ? command.io : command.memory), 0)
      const forwards = fn instanceof PciBridge ? command.io | command.memory | command.busMaster : 0
      fn.config.write(register.command, 2, decode | forwards | command.serr)
      fn.config.sealInitialState()
    }
  }

  /**
   * Firmware in the machine will number buses and place BARs: nothing is decoded before it does. Bridges forward requests from the start,
   * as QEMU's do whatever their Command.BME says: SeaBIOS, which knows no others, never sets it, and could read no disk behind one.
   */
  leaveResources(): void {
    for (const { fn } of this.#functions) {
      if (fn instanceof PciBridge) {
        fn.setBuses(0, 0, 0)
        fn.config.write(register.command, 2, command.busMaster)
      }
      fn.config.sealInitialState()
    }
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
    const attached = this.#find(id)
    return attached ? attached.fn.config.get(offset, size) : allOnes[size]
  }

  configWrite(id: Bdf, offset: number, size: AccessSize, value: number): void {
    this.#find(id)?.fn.config.write(offset, size, value)
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
    for (const { fn } of this.#functions) {
      fn.config.reset()
      fn.reset()
    }
  }

  saveState(): DeviceState {
    const functions = this.#functions.map(({ fn, asserted }) => {
      return { name: fn.name, asserted, config: [...fn.config.bytes], device: fn.saveState() }
    })
    return { address: this.#address, functions }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { address: number; functions: { name: string; asserted: boolean; config: number[]; device: DeviceState }[] }
    this.#address = saved.address
    saved.functions.forEach(({ name, asserted, config, device }, index) => {
      const attached = this.#functions[index]
      if (attached?.fn.name !== name) {
        throw new Error(`the saved state has '${name}' as PCI function ${index}; this machine has '${attached?.fn.name ?? 'none'}'`)
      }
      attached.asserted = asserted
      attached.fn.config.restore(config)
      attached.fn.restoreState(device)
    })
  }

  #slot(attached: () => Attached | undefined, requester: () => Bdf): PciSlot {
    const dma = this.#options.dmaFor(requester)
    const msi = this.#options.msiFor(requester)
    const master = (): boolean => {
      for (let each = attached(); each; each = each.bus.bridge)
        if (!(each.fn.config.get(register.command, 2) & command.busMaster)) return false
      return attached() !== undefined
    }
    return {
      get id() {
        return requester()
      },
      dma: {
        read: (address, into) => (master() ? dma.read(address, into) : 'blocked'),
        write: (address, from) => (master() ? dma.write(address, from) : 'blocked'),
      },
      msi: { signal: (address, data) => { if (master()) msi.signal(address, data) } },
      interrupt: { set: asserted => this.#setInterrupt(attached(), asserted) },
    }
  }

  /** The function on bus 0 that leads to a bus. */
  rootFunction(bus: number): Bdf | undefined {
    for (const attached of this.#root.functions.values()) {
      const { fn } = attached
      if (fn instanceof PciBridge && fn.secondary !== 0 && fn.secondary <= bus && bus <= fn.subordinate) return idOf(attached)
    }
    return undefined
  }

  /** Configuration requests go down through the bridges whose buses they name. */
  #find(id: Bdf): Attached | undefined {
    const number = id >> 8
    let node = this.#root
    while (numberOf(node) !== number) {
      const bridge = [...node.functions.values()].find(
        ({ fn }) => fn instanceof PciBridge && fn.secondary !== 0 && fn.secondary <= number && number <= fn.subordinate)
      if (!bridge?.behind) return undefined
      node = bridge.behind
    }
    return node.functions.get(id & 0xff)
  }
  #attachedOf(fn: PciFunction): Attached {
    const attached = this.#functions.find(each => each.fn === fn)
    if (!attached) throw new Error(`${fn.name} is not plugged in`)
    return attached
  }

  #selected<T>(access: (id: Bdf) => T, absent: T): T {
    return this.#address & configEnable ? access(((this.#address >>> 8) & 0xffff) as Bdf) : absent
  }

  #setInterrupt(attached: Attached | undefined, asserted: boolean): void {
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
    const wire = wireFor(attached, pin)
    this.#asserting[wire] += driving ? 1 : -1
    this.#options.wires[wire].set(this.#asserting[wire] > 0)
  }

  #configWritten(attached: Attached, offset: number, size: number): void {
    const touches = (first: number, last: number): boolean => offset <= last && offset + size > first
    if (touches(register.command, register.command + 3)) this.#driveInterrupt(attached)
    if (touches(register.command, register.command + 1) || touches(register.bar0, register.bar0 + 23)) this.#decode(attached)
    const forwards = touches(register.command, register.command + 1) || touches(bridgeRegisters.first, bridgeRegisters.last)
    if (attached.behind && forwards) this.#decodeBehind(attached.behind)
  }

  #decodeBehind(bus: BusNode): void {
    for (const attached of bus.functions.values()) {
      this.#decode(attached)
      if (attached.behind) this.#decodeBehind(attached.behind)
    }
  }

  /** Whether all bridges above pass accesses to a range on. */
  #reaches(attached: Attached, space: 'io' | 'memory', base: number, size: number): boolean {
    for (let { bridge } = attached.bus; bridge; bridge = bridge.bus.bridge)
      if (!(bridge.fn as PciBridge).passes(space, base, base + size)) return false
    return true
  }

  /** Brings the decoders of a function in line with its BARs and Command register. */
  #decode(attached: Attached): void {
    const { fn } = attached
    const enabled = fn.config.get(register.command, 2)
    const own = new Set(fn.bars.map(bar => bar.handler))
    this.#memory = this.#memory.filter(mapping => !own.has(mapping.handler))
    for (const bar of fn.bars) {
      const base = barBase(fn, bar)
      const reached = this.#reaches(attached, bar.kind === 'io' ? 'io' : 'memory', base, bar.size)
      if (bar.kind === 'io') this.#decodeIo(attached, bar, enabled & command.io && reached ? base : undefined)
      else if (enabled & command.memory && base > 0 && reached) this.#memory.push({ base, end: base + bar.size, handler: bar.handler })
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

const numberOf = (bus: BusNode): number => (bus.bridge ? (bus.bridge.fn as PciBridge).secondary : 0)
const idOf = ({ bus, place }: Attached): Bdf => bdf(numberOf(bus), place >> 3, place & 7)

/** Each bridge turns the pins of the devices behind it round by their device numbers; the last one's device number chooses the wire. */
function wireFor(attached: Attached, pin: number): number {
  let device = attached.place >> 3
  for (let { bridge } = attached.bus; bridge; bridge = bridge.bus.bridge) {
    pin = ((pin - 1 + device) & 3) + 1
    device = bridge.place >> 3
  }
  return wireOf(device, pin)
}

function treeOf(bus: BusNode): BusTree {
  const inOrder = [...bus.functions.values()].sort((a, b) => a.place - b.place)
  return { functions: inOrder.map(({ fn, behind }) => ({ fn, behind: behind && treeOf(behind) })) }
}

const barOffset = (bar: Bar): number => register.bar0 + 4 * bar.index

function showFunctions(bus: BusNode, place: number): void {
  const others = [...bus.functions.keys()].some(other => other >> 3 === place >> 3 && (other & 7) !== 0)
  if (others) bus.functions.get(place & ~7)?.fn.config.setMultifunction()
}

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
