/** The wiring of a PC: which devices there are, at which addresses, on which interrupt lines. Nothing else knows all of them. */
import type { Ahci } from '../devices/ahci/ahci.ts'
import { AcpiPm, smiCommand } from '../devices/acpi-pm/acpi-pm.ts'
import { PostCode } from '../devices/debugcon/debugcon.ts'
import { FwCfg } from '../devices/fw-cfg/fw-cfg.ts'
import { Hpet, hpetBase, hpetSize } from '../devices/hpet/hpet.ts'
import { I8042 } from '../devices/i8042/i8042.ts'
import type { PciBridge } from '../devices/pci/bridge.ts'
import { PciBus, wireOf } from '../devices/pci/bus.ts'
import { bdf, type Bdf } from '../devices/pci/function.ts'
import { type ChipsetFunctions, pcFunctions, q35Functions } from '../devices/pci/chipset.ts'
import { Shadow } from '../devices/pci/shadow.ts'
import { noSmram, type Smram, type SmramControl } from '../devices/pci/smram.ts'
import { Pit, pitPorts } from '../devices/pit/pit.ts'
import type { DeviceState, DmaPort, MsiPort, Stateful } from '../devices/ports.ts'
import { A20Gate, ResetControl } from '../devices/reset-control/reset-control.ts'
import { memoryCmos, Rtc } from '../devices/rtc/rtc.ts'
import { Uart } from '../devices/serial/uart.ts'
import type { BlockStore } from '../devices/storage/block-store.ts'
import type { Disk } from '../devices/storage/disk.ts'
import type { TextScreen, Vga } from '../devices/vga/vga.ts'
import type { VirtioConsole } from '../devices/virtio/console/console.ts'
import { InputError } from '../errors.ts'
import type { OutsideEvent } from '../net/outside.ts'
import { ApicBus } from '../interrupts/bus.ts'
import { IoApic, ioApicBase, ioApicInputs, ioApicSize } from '../interrupts/ioapic.ts'
import { Lapic } from '../interrupts/lapic.ts'
import { Pic, picPorts } from '../interrupts/pic.ts'
import { type AcpiOptions, type AcpiTable, acpiTables, facsWakingVector } from './acpi/tables.ts'
import { loadBootImage } from './boot/boot.ts'
import { type BootImage, makeRegisters, type MemoryWrite, viewOf } from './boot/image.ts'
import { type Board, bridgePlaces, plugDevice } from './device-catalogue.ts'
import { bootOrderCmos, firmwareFiles, ramEntries, romBase, romBehindShadow } from './firmware.ts'
import type { Iommu } from './iommu.ts'
import { chooseFirmware, type FlashUnit, openFlash, placeFlash } from './flash.ts'
import { e820File, fwCfgItems, withFiles } from './fw-cfg-items.ts'
import { firstPciGsi, InterruptLines } from './interrupt-lines.ts'
import { type MemoryMap, openWindow, reserveRanges } from './memory-map.ts'
import { mpTable } from './mp-table.ts'
import { isaPlugs } from './isa-plugs.ts'
import type { Networks } from './networks.ts'
import type { PcEmbedding, PcOptions } from './pc-options.ts'
import type * as allParts from './pc-parts.ts'
import { platformRequester } from './platform-requester.ts'
import { biosWrites, startBios } from './legacy-bios.ts'
import { PortBus } from './port-bus.ts'
import { shelf } from './shelf.ts'
import { smbios, type Smbios } from './smbios.ts'

/** Of a processor that does not say how many it has. */
const usualPhysicalBits = 39
const pmBase = 0x600
const serialPorts = [{ base: 0x3f8, irq: 4 }, { base: 0x2f8, irq: 3 }, { base: 0x3e8, irq: 4 }, { base: 0x2e8, irq: 3 }]
const elcrPorts = [0x4d0, 0x4d1]
/** What firmware makes level-triggered: the SCI and PCI's IRQs 9, 10 and 11. */
const firmwareElcr = [0, 0x0e]
const rsdpSignature = 'RSD PTR '

export type PcParts = typeof allParts

export class Pc {
  readonly ports: PortBus
  readonly lapics: readonly Lapic[]
  readonly apicBus: ApicBus
  readonly ioapic: IoApic
  readonly pic: Pic
  readonly pci: PciBus
  readonly serial: readonly Uart[]
  readonly map: MemoryMap
  /** What was loaded, and the registers that the first CPU starts with; undefined when there is nothing to boot. */
  readonly boot: BootImage | undefined
  readonly #options: PcOptions
  readonly #flash: readonly FlashUnit[]
  /** What starts at the reset vector instead of a kernel that the machine loads. */
  readonly #firmware: Uint8Array | undefined
  readonly #embedding: PcEmbedding
  readonly #lines: InterruptLines
  readonly #acpiPm: AcpiPm
  readonly #iommu: Iommu | undefined
  readonly #acpi: readonly AcpiTable[]
  readonly #firmwareImages: readonly MemoryWrite[]
  readonly #bootDevices: { index: number; path: string }[] = []
  #ahci: Ahci | undefined
  #vga: Vga | undefined
  /** Everything with state, by name; the order is that of reset and restore: devices before the controllers that they drive. */
  readonly #stateful = new Map<string, Stateful>()
  #commandSmi: (smiControl: number) => boolean = () => false
  #smiLocked: () => boolean = () => false
  /** The 8259 input that a PIRQ wire is routed to. */
  #irqOfWire: (wire: number) => number | undefined = () => undefined
  #smram: SmramControl | undefined
  readonly #smbios: Smbios | undefined
  readonly #consoles: VirtioConsole[] = []
  readonly #disks: Disk[] = []
  readonly #networks: Networks | undefined
  readonly #given: PcParts | undefined
  #asleep = false

  /** `parts`: undefined only where `needsParts` says so. */
  constructor(options: PcOptions, embedding: PcEmbedding, parts: PcParts | undefined) {
    const { log } = embedding
    this.#given = parts
    this.#flash = openFlash(options.flash ?? [], drive => this.#parts.openDrive(drive, log))
    const bios = chooseFirmware(options, this.#flash)
    this.#firmware = bios
    const { iommus = [], networks = [] } = options
    const reserved = iommus.length === 0 ? options.map : reserveRanges(options.map, this.#parts.reservedMemory(iommus))
    const map = bios ? openWindow(reserved, options.lapic.physicalAddressBits ?? usualPhysicalBits) : reserved
    this.#options = options
    this.#embedding = embedding
    this.map = map
    this.apicBus = new ApicBus(log)
    const keep = (name: string, network: Stateful): void => void this.#stateful.set(name, network)
    this.#networks = parts && new parts.Networks(networks, embedding, keep)
    this.#iommu = this.#makeIommu()
    this.#acpi = acpiTables(this.#acpiOptions())
    const rsdp = this.#acpi.find(({ signature }) => signature === rsdpSignature)!.bytes
    this.boot = bios ? undefined : loadBootImage({ ...options, textScreen: this.#hasVga }, { map, rsdp })
    this.boot?.remarks?.forEach(remark => log('boot', remark))
    this.ports = new PortBus(log)

    this.pic = new Pic({ output: { set: asserted => this.lapics.forEach(lapic => lapic.lint0.set(asserted)) }, log })
    this.ioapic = new IoApic({ messages: this.#msiFor(() => platformRequester.ioapic), log })
    this.apicBus.onEoi(vector => this.ioapic.endOfInterrupt(vector))
    this.lapics = Array.from({ length: options.cpus }, (_, cpu) => this.#makeLapic(cpu))
    this.#lines = new InterruptLines(this.pic, this.ioapic)
    for (const [base, count] of picPorts) this.ports.claim(base, count, 'pic', this.pic)
    embedding.addMmio(ioApicBase, ioApicSize, 'ioapic', this.ioapic)

    this.#acpiPm = this.#makeAcpiPm()
    this.#makeTimers()
    this.serial = serialPorts.slice(0, options.serialPorts ?? 1).map((_, index) => this.#makeSerial(index))
    const resetControl = this.#makeResets()
    this.pci = this.#makePci(resetControl)
    const { processor, cpus, seed = 0 } = options
    this.#smbios = processor && smbios({ map, cpus, processor, seed })
    const fwCfg = this.#makeFwCfg()
    this.#plugDevices()
    fwCfg.setFiles(this.#fwCfgFiles())

    if (bios) this.pci.leaveResources()
    else {
      const windows = { io: map.pciIo, memory32: map.pciMemory32, memory64: map.pciMemory64 }
      this.pci.assignResources(windows, wire => this.#irqOfWire(wire) ?? 0xff)
    }
    this.#stateful.set('pci', this.pci)
    this.#stateful.set('pic', this.pic)
    this.#stateful.set('ioapic', this.ioapic)
    this.#stateful.set('apic-bus', this.apicBus)
    this.lapics.forEach((lapic, cpu) => this.#stateful.set(`lapic.${cpu}`, lapic))
    const acpiImages = this.#acpi.map(({ signature, address, bytes }) => ({ address, bytes, what: `ACPI table ${signature}` }))
    const legacy = this.boot?.bios ? biosWrites(map.e820) : []
    const mp = processor ? mpTable({ ...this.#acpiOptions(), processor }) : []
    this.#firmwareImages = bios ? [] : [...acpiImages, ...mp, ...(this.#smbios?.writes ?? []), ...legacy]
    if (options.bios) embedding.addRom(romBase(options.bios), options.bios)
    placeFlash(this.#flash, embedding, options.secureFlash === true).forEach((flash, unit) => {
      this.#stateful.set(`flash.${unit}`, flash)
      this.#disks.push(this.#flash[unit].disk)
    })
    this.#startFirmware()
    this.#loadImages()
  }

  /** The disks that devices show, in the order in which they were plugged in: what is written to them is state besides `saveState`. */
  get disks(): readonly Disk[] {
    return this.#disks
  }

  get remappingUnits(): Iommu['units'] {
    return this.#iommu?.units ?? []
  }

  /** What of SMRAM there is, and who sees it. */
  get smram(): Smram {
    return this.#smram?.view ?? noSmram
  }

  /** Bytes typed at the far end of a serial port. Those of the first go to a virtio console whose driver runs. */
  serialInput(bytes: Uint8Array, port = 0): void {
    const console = port === 0 ? this.#consoles.find(({ listening }) => listening) : undefined
    if (console) console.input(bytes)
    else this.serial[port].input(bytes)
  }

  /** What a VGA's text mode shows. */
  screen(): TextScreen | undefined {
    return this.#vga?.screen()
  }

  /** What the world says to a network. One that no device is plugged into hears nothing. */
  outsideEvent(network: string, event: OutsideEvent): void {
    this.#networks?.event(network, event)
  }

  pressPowerButton(): void {
    this.#acpiPm.pressPowerButton()
    this.#wakeIfRequested()
  }

  /** Hardware reset: all devices, then firmware's part, and the boot images anew. RAM besides them keeps its contents. */
  reset(): void {
    this.#asleep = false
    for (const device of this.#stateful.values()) device.reset()
    this.#startFirmware()
    for (const { address, length } of this.boot?.zeros ?? []) this.#embedding.load(address, new Uint8Array(length))
    this.#loadImages()
  }

  /** Plain data: all but RAM, the clock's time and the CPUs. */
  saveState(): DeviceState {
    const devices = Object.fromEntries([...this.#stateful].map(([name, device]) => [name, device.saveState()]))
    return { asleep: this.#asleep, wires: this.#lines.saveState(), devices }
  }

  /** What a state of this PC looks like: that of its devices after a reset. */
  resetState(): DeviceState {
    for (const device of this.#stateful.values()) device.reset()
    return this.saveState()
  }
  /** The clock must show the saved time already. */
  restoreState(state: DeviceState): void {
    const saved = state as { asleep: boolean; wires: DeviceState; devices: Record<string, DeviceState> }
    this.#asleep = saved.asleep
    const restore = (name: string, device: Stateful): void => device.restoreState(saved.devices[name])
    for (const [name, device] of this.#stateful) restore(name, device)
    this.#lines.restoreState(saved.wires)
    // Restoring a device drives its lines, and what they drive in turn: the controllers get the last word.
    for (const [name, device] of this.#stateful) if (/^(pic|ioapic|apic-bus|lapic\..*)$/.test(name)) restore(name, device)
  }

  get #parts(): PcParts {
    if (this.#given) return this.#given
    throw new Error('a PC was not handed the parts that its options name')
  }

  // ---- interrupts

  /** The ways of requesters to memory and to the local APICs: an IOMMU decorates these two, and asks who it is at each request. */
  #dmaFor(requester: () => Bdf): DmaPort {
    return this.#iommu?.dmaFor(requester) ?? this.#embedding.dma
  }
  #msiFor(requester: () => Bdf): MsiPort {
    return this.#iommu?.msiFor(requester) ?? this.apicBus.msi
  }

  #makeIommu(): Iommu | undefined {
    const { map } = this
    const { iommus = [], devices = [], lapic } = this.#options
    if (iommus.length === 0) return undefined
    if (map.chipset !== 'q35') throw new InputError(`--iommu: expected the chipset q35, found ${map.chipset}`)
    const { dma: memory, addMmio, log } = this.#embedding
    const { apicBus } = this
    const iommu = new this.#parts.Iommu(iommus, lapic.physicalAddressBits ?? usualPhysicalBits, {
      memory, addMmio, log, rootFunction: bus => this.pci.rootFunction(bus), bridges: bridgePlaces(devices),
      deliver: message => apicBus.deliver(message), message: (address, data) => apicBus.msi.signal(address, data),
    })
    for (const unit of iommu.units) this.#stateful.set(unit.name, unit)
    return iommu
  }

  #makeLapic(cpu: number): Lapic {
    const { cpuSignals, clock, tsc, log } = this.#embedding
    return new Lapic({
      id: cpu, bootstrap: cpu === 0, clock, bus: this.apicBus, signals: cpuSignals(cpu), pic: this.pic, log,
      tsc: tsc && (() => tsc(cpu)), priority: this.#options.apicPriority?.(cpu), ...this.#options.lapic,
    })
  }

  // ---- devices

  #makeAcpiPm(): AcpiPm {
    const { clock, powerOff, sleep, log } = this.#embedding
    const device = new AcpiPm({
      clock, sci: this.#lines.source(9), powerOff, log,
      smi: {
        request: () => this.#embedding.smi?.(), commandEnabled: smiControl => this.#commandSmi(smiControl), locked: () => this.#smiLocked(),
      },
      sleep: sleep && (() => {
        this.#asleep = true
        sleep()
        this.#wakeIfRequested()
      }),
    })
    const registers = device.registers(pmBase)
    // The gaps of the block are no registers: an access there is worth a word in the log.
    for (const [offset, count] of [[0, 0x0c], [0x20, 0x14]]) this.ports.claim(pmBase + offset, count, 'acpi-pm', registers)
    this.ports.claim(smiCommand.port, 2, 'acpi-pm', device.smiPorts)
    this.#stateful.set('acpi-pm', device)
    return device
  }

  #makeTimers(): void {
    const { clock, addMmio, log } = this.#embedding
    const hpet = new Hpet({
      clock, msi: this.#msiFor(() => platformRequester.hpet), log,
      pins: Array.from({ length: ioApicInputs }, (_, gsi) => this.#lines.source(gsi)),
      legacyOutputs: [this.#lines.source(0), this.#lines.source(8)],
    })
    addMmio(hpetBase, hpetSize, 'hpet', hpet)
    const pit = new Pit({ clock, output: hpet.legacyInputs[0] })
    for (const [base, count] of pitPorts) this.ports.claim(base, count, 'pit', pit)
    const rtc = new Rtc({
      clock, interrupt: hpet.legacyInputs[1], epoch: this.#options.rtcEpoch,
      cmos: [
        ...memoryCmos(this.map.lowTop, Math.max(0, this.map.highTop - 2 ** 32), this.#options.cpus),
        ...bootOrderCmos(this.#options.bootSettings ?? {}),
      ],
      onAlarm: () => {
        this.#acpiPm.rtcAlarm()
        this.#wakeIfRequested()
      },
    })
    this.ports.claim(0x70, 2, 'rtc', rtc)
    this.#stateful.set('pit', pit)
    this.#stateful.set('rtc', rtc)
    this.#stateful.set('hpet', hpet)
  }

  #makeSerial(index: number): Uart {
    const { base, irq } = serialPorts[index]
    const { clock, serialOutput } = this.#embedding
    const interrupt = this.#lines.source(irq)
    const isGated = this.#options.serialGate ?? true
    const uart = new Uart({ name: `serial.${index}`, clock, interrupt, isGated, output: byte => serialOutput(index, byte) })
    this.ports.claim(base, 8, `COM${index + 1}`, uart)
    this.#stateful.set(`serial.${index}`, uart)
    return uart
  }

  #makeResets(): ResetControl {
    const { reset, log } = this.#embedding
    const a20 = new A20Gate(this.#embedding.a20Moved)
    const control = new ResetControl(reset, a20)
    const [keyboardInterrupt, auxInterrupt] = [1, 12].map(irq => this.#lines.source(irq))
    const keyboard = new I8042({ a20, keyboardInterrupt, auxInterrupt, reset, log })
    const post = new PostCode()
    this.ports.claim(0x92, 1, 'port 92h', control.port92)
    this.ports.claim(0x60, 1, 'i8042', keyboard)
    this.ports.claim(0x64, 1, 'i8042', keyboard)
    this.ports.claim(0x80, 1, 'post', post)
    this.#stateful.set('reset-control', control)
    this.#stateful.set('i8042', keyboard)
    this.#stateful.set('post', post)
    return control
  }

  #makePci(resetControl: ResetControl): PciBus {
    const { map } = this
    const { addMmio, log } = this.#embedding
    const chipset = map.ecam ? q35Functions(pmBase, map.ecam.base, map.lowTop) : pcFunctions(pmBase)
    this.#commandSmi = chipset.commandSmi
    this.#smiLocked = chipset.smiLocked
    this.#smram = chipset.smram
    this.#smram.onChange = () => this.#embedding.smramChanged?.()
    this.#irqOfWire = chipset.irqOfWire
    const wires = Array.from({ length: 8 }, (_, wire) => this.#lines.pirq(wire, chipset.irqOfWire))
    const bus = new PciBus({
      ports: this.ports, wires, log, dmaFor: requester => this.#dmaFor(requester), msiFor: requester => this.#msiFor(requester),
    })
    for (const { id, fn } of chipset.functions) bus.plug(id, () => fn)
    this.#stateful.set('shadow', this.#makeShadow(chipset.pam))
    this.ports.claim(0xcf8, 8, 'pci', bus.mechanism1(resetControl.portCf9))
    for (const window of [map.pciMemory32, map.pciMemory64]) addMmio(window.base, window.size, 'pci', bus.memoryWindow(window.base))
    if (map.ecam) addMmio(map.ecam.base, map.ecam.size, 'pci-ecam', bus.ecam)
    return bus
  }

  #makeShadow(pam: ChipsetFunctions['pam']): Shadow {
    const { load, setReadOnly, dma, log } = this.#embedding
    return new Shadow({
      ...pam, rom: romBehindShadow(this.#firmware), allRam: this.#firmware === undefined,
      memory: { read: (address, into) => void dma.read(address, into), load, setReadOnly }, log: what => log('pam', what),
    })
  }

  #plugDevices(): void {
    const board: Board = {
      clock: this.#embedding.clock,
      ports: this.ports, pci: this.pci, bridges: new Map<string, PciBridge>(), scsiHosts: new Map(), express: this.map.ecam !== undefined,
      addMmio: this.#embedding.addMmio, line: (gsi: number) => this.#lines.source(gsi),
      debugExit: this.#embedding.debugExit, debugOutput: this.#embedding.debugOutput ?? (() => {}),
      takeDrive: this.#driveShelf(), takeNetwork: (id, deliver) => this.#networks!.plug(id, deliver), sata: () => this.#sata(),
      takeShare: shelf('shared folder', this.#options.shares ?? []),
      bootDevice: (index: number, path: string) => void this.#bootDevices.push({ index, path }),
      firmware: this.#firmware !== undefined,
      showScreen: (vga: Vga) => { this.#vga = vga },
      joinTerminal: (make: Parameters<Board['joinTerminal']>[0]) => this.#joinTerminal(make),
      seed: this.#options.seed ?? 0, log: this.#embedding.log,
    }
    const plugs = needsParts(this.#options) ? { ...isaPlugs, ...this.#parts.devicePlugs } : isaPlugs
    this.#options.devices?.forEach((device, index) => {
      plugDevice(board, device, plugs).forEach((part, number) => this.#stateful.set(`${device.name}.${index}.${number}`, part))
    })
  }

  #driveShelf(): (id: string) => BlockStore {
    const take = shelf('drive', this.#options.drives ?? [])
    return id => {
      const disk = this.#parts.openDrive(take(id), this.#embedding.log)
      this.#disks.push(disk)
      return disk
    }
  }

  #joinTerminal(make: Parameters<Board['joinTerminal']>[0]): VirtioConsole {
    const console = make(bytes => bytes.forEach(byte => this.#embedding.serialOutput(0, byte)))
    this.#consoles.push(console)
    return console
  }

  #makeFwCfg(): FwCfg {
    const items = fwCfgItems(this.#options, this.map.total, this.boot)
    const device = new FwCfg({ items, files: new Map() }, this.#embedding.dma)
    this.ports.claim(0x510, 2, 'fw_cfg', device)
    this.ports.claim(0x514, 8, 'fw_cfg', device)
    this.#stateful.set('fw_cfg', device)
    return device
  }

  #optionRoms(): Map<string, Uint8Array> {
    const { vgaBios } = this.#options
    return new Map(vgaBios && this.#vga ? [['1234,1111', vgaBios]] : [])
  }

  #bootPaths(): string[] {
    return this.#bootDevices.sort((a, b) => a.index - b.index).map(({ path }) => path)
  }

  /** The SATA controller, where the chipset has it; made when a device needs it. */
  #sata(): { controller: Ahci; path: string } {
    const [device, fn] = this.map.chipset === 'q35' ? [0x1f, 2] : [0x1e, 0]
    this.#ahci ??= this.pci.plug(bdf(0, device, fn), slot => new this.#parts.Ahci(slot))
    return { controller: this.#ahci, path: `/pci@i0cf8/pci8086,2922@${device.toString(16)}${fn === 0 ? '' : `,${fn}`}` }
  }

  #fwCfgFiles(): Map<string, Uint8Array> {
    const { bootSettings = {}, fwCfgFiles = new Map<string, Uint8Array>() } = this.#options
    const identity = this.#smbios?.files ?? []
    if (!this.#firmware) return withFiles(new Map([['etc/e820', e820File(this.map.e820)], ...identity]), fwCfgFiles)
    const files = firmwareFiles({
      boot: bootSettings, acpi: this.#acpiOptions(), bootPaths: this.#bootPaths(), optionRoms: this.#optionRoms(),
      vmx: this.#options.vmx === true,
    })
    return withFiles(new Map([['etc/e820', e820File(ramEntries(this.map))], ...identity, ...files]), fwCfgFiles)
  }

  // ---- firmware's part

  #acpiOptions(): AcpiOptions {
    const { cpus } = this.#options
    const legacyIrq = [10, 10, 11, 11]
    return {
      map: this.map, cpus, dmar: this.#iommu?.dmar, apicIds: Array.from({ length: cpus }, (_, cpu) => cpu), hpetBase, pmBase,
      hasVga: this.#hasVga, hasFwCfg: (this.#options.fwCfgFiles?.size ?? 0) > 0,
      canSleep: this.#embedding.sleep !== undefined && this.#firmware === undefined,
      serialPorts: serialPorts.slice(0, this.#options.serialPorts ?? 1),
      gsiOf: (device, pin) => firstPciGsi + wireOf(device, pin),
      irqOf: (device, pin) => legacyIrq[wireOf(device, pin) & 3],
    }
  }

  get #hasVga(): boolean {
    return this.#options.devices?.some(({ name }) => name === 'VGA') ?? false
  }

  /** What firmware has set up before it starts a kernel: trigger modes, virtual wire mode on the first CPU. */
  #startFirmware(): void {
    if (this.#firmware) return
    elcrPorts.forEach((port, index) => this.ports.write(port, 1, firmwareElcr[index]))
    this.lapics[0].configureVirtualWire()
    if (this.boot?.bios) startBios(this.ports)
  }

  #loadImages(): void {
    for (const { address, bytes } of [...this.#firmwareImages, ...(this.boot?.writes ?? [])]) this.#embedding.load(address, bytes)
  }

  // ---- sleep

  #wakeIfRequested(): void {
    if (!this.#asleep || !this.#acpiPm.wakeRequested) return
    this.#asleep = false
    for (const lapic of this.lapics) lapic.reset()
    this.#acpiPm.wake()
    const vector = new Uint8Array(4)
    this.#embedding.dma.read(this.map.acpiNvs.base + facsWakingVector, vector)
    const address = viewOf(vector).getUint32(0, true)
    const registers = makeRegisters('real16', address & 0xf, {})
    registers.selectors.cs = (address >>> 4) & 0xffff
    this.#embedding.wake?.(registers)
  }
}

/** Whether a PC with these options has any of `PcParts`. */
export function needsParts({ devices = [], flash = [], iommus = [], networks = [] }: Pick<PcOptions, PartOption>): boolean {
  return [flash, iommus, networks].some(({ length }) => length > 0) || devices.some(({ name }) => !Object.hasOwn(isaPlugs, name))
}
type PartOption = 'devices' | 'flash' | 'iommus' | 'networks'

export function createPc(options: PcOptions, embedding: PcEmbedding, parts: PcParts | undefined): Pc {
  return new Pc(options, embedding, parts)
}
