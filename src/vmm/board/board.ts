/**
 * A PC for a guest: the devices are those of the machine itself, which see ports and nothing else; here the ports lead to a guest's memory,
 * vCPUs and time. Everything that a processor does with them comes as exits.
 */
import type { DmaResult, MmioHandler } from '../../devices/ports.ts'
import type { BootRegisters } from '../../platform/boot/image.ts'
import { createMemoryMap } from '../../platform/memory-map.ts'
import { createPc, type Pc } from '../../platform/pc.ts'
import * as pcParts from '../../platform/pc-parts.ts'
import type { PcOptions } from '../../platform/pc-options.ts'
import { assistsFor, GuestApic } from '../apic/guest-apic.ts'
import { apicTraps } from '../apic/guest-apics.ts'
import type { ApicKind } from '../apic/assist.ts'
import { GuestClock } from '../apic/guest-clock.ts'
import type { Guest } from '../guest.ts'
import type { Handlers } from '../handlers.ts'
import type { RegisterName } from '../port.ts'
import type { Vcpu } from '../vcpu.ts'
import type { SystemRegister } from '../virtualizer.ts'
import type { Vmm } from '../vmm.ts'
import { guestCpuid } from './cpuid.ts'
import { GuestMsrs } from './msrs.ts'

/** What a guest with a kernel is made of. */
export interface BoardOptions {
  name: string
  /** Bytes: a multiple of 1 MiB. */
  memory: number
  vcpus?: number
  kernel: Uint8Array
  initrd?: Uint8Array
  commandLine?: string
  /** Processors on which the vCPUs may run. */
  pinned?: readonly number[]
  weight?: number
  devices?: PcOptions['devices']
  drives?: PcOptions['drives']
  networks?: PcOptions['networks']
  largePages?: boolean
  /** Who keeps the local APICs: the processors as far as they can (default), or the hypervisor alone. */
  apic?: ApicKind
}

const osxsave = 1n << 18n
const interruptFlag = 1n << 9n
/** Of a guest whose processors are all halted with interrupts off: nothing can wake it. */
export const standsForGood = 'every processor is halted with interrupts off, for good'
/** Virtual nanoseconds after which a watchdog's NMI would have come. */
const longestNmiPeriod = 10e9
const registerNames: readonly RegisterName[] = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12',
  'r13', 'r14', 'r15']
type Registers = Partial<Record<RegisterName | SystemRegister, bigint | number>>

/** What a boot protocol starts with, as registers of a vCPU. */
function startRegisters(boot: BootRegisters): Registers {
  if (boot.mode === 'real16') throw new Error('a guest starts in protected or 64-bit mode')
  const long = boot.mode === 'long64'
  const registers: Registers = {
    rip: boot.rip, rflags: boot.rflags, cr3: boot.cr3, cr0: long ? 0x80000011n : 0x11n, cr4: long ? 0x20n : 0n, efer: long ? 0x500n : 0n,
    gdtrBase: boot.gdt.base, gdtrLimit: boot.gdt.limit, ldtrAttributes: 0x10082, trAttributes: 0x8b, trLimit: 0xffff,
  }
  for (const [name, selector] of Object.entries(boot.selectors) as ['cs' | 'ds' | 'es' | 'ss' | 'fs' | 'gs', number][]) {
    registers[`${name}Selector`] = selector
    registers[`${name}Limit`] = 0xffffffff
    registers[`${name}Attributes`] = name === 'cs' ? (long ? 0xa09b : 0xc09b) : 0xc093
  }
  registerNames.forEach((name, i) => (registers[name] = boot.gpr[i]))
  return registers
}

/** After a start-up message: real mode, at the page that it names. SDM vol. 3, "MP Initialization". */
const startupRegisters = (vector: number): Registers => ({
  rip: 0, rflags: 2n, cr0: 0x10n, cr3: 0, cr4: 0, efer: 0, csSelector: vector << 8, csBase: vector << 12, csLimit: 0xffff,
    csAttributes: 0x9b,
})

/**
 * A guest that is a PC: memory, vCPUs, devices, and a kernel to start with. Throws an `InputError` for a kernel or devices that make no
 * PC.
 */
export class Board {
  /** Its memory and its vCPUs. */
  readonly guest: Guest
  /** Its devices. */
  readonly pc: Pc
  /** By APIC ID. */
  readonly vcpus: readonly Vcpu[]
  /** A byte that the guest has written to its first serial port. */
  onSerial: (byte: number) => void = () => {}
  /** What the guest touched that is not there, once each. */
  onLog: (message: string) => void = () => {}
  /** A frame of Ethernet that the guest has sent into a network of kind `link`. */
  onFrame: (network: string, bytes: Uint8Array) => void = () => {}
  /** Why the guest is over: power-off, reset, a processor's shutdown, or that nothing can wake it. */
  ending: string | undefined
  /** It is over now. */
  onEnd: (ending: string) => void = () => {}
  private readonly vmm: Vmm
  private readonly time: GuestClock
  private readonly apics = new Map<Vcpu, GuestApic>()
  private readonly msrs = new GuestMsrs()
  private readonly regions: { base: number; end: number; handler: MmioHandler }[] = []
  private readonly started: boolean[]
  private readonly logged = new Set<string>()
  private looksWhetherDeaf = false

  constructor(vmm: Vmm, options: BoardOptions) {
    this.vmm = vmm
    this.time = new GuestClock(vmm)
    const { name, memory, vcpus: count = 1, kernel, initrd, commandLine } = options
    const map = createMemoryMap('pc', memory)
    const guest = vmm.createGuest({ name, memory: map.lowTop, handlers: this.handlers(), largePages: options.largePages })
    this.guest = guest
    this.started = Array.from({ length: count }, (_, i) => i === 0)
    const lists: Vcpu[] = []
    this.vcpus = lists
    const assists = assistsFor(vmm, options.apic ?? 'virtual', count)
    const dma = (done: boolean): DmaResult => (done ? 'ok' : 'unmapped')
    this.pc = createPc(
      {
        kernel, initrd, commandLine, map, cpus: count, rtcEpoch: 1_767_225_600, devices: options.devices ?? [],
        drives: options.drives ?? [], networks: options.networks ?? [],
        lapic: { timerFrequency: vmm.hardware.apicHertz, x2apic: true, tscDeadline: false },
        apicPriority: cpu => assists[cpu]?.priority,
      },
      {
        clock: this.time.clock,
        addMmio: (base, size, _what, handler) => void this.regions.push({ base, end: base + size, handler }),
        dma: { read: (address, into) => dma(guest.memory.read(address, into)), write: (address, from) =>
          dma(guest.memory.write(address, from)) },
        load: (address, bytes) => void guest.memory.write(address, bytes),
        addRom: (address, bytes) => void guest.memory.write(address, bytes),
        addFlash: () => () => {},
        setReadOnly: () => {},
        cpuSignals: cpu => ({
          intrChanged: () => this.interruptChanged(cpu),
          nmi: () => this.nmi(cpu),
          smi: () => this.log('board', 'a guest sent an SMI: it has no SMM'),
          init: () => {},
          startup: vector => this.startup(cpu, vector),
          baseChanged: () => {},
        }),
        powerOff: () => this.finish('power-off'),
        reset: () => this.finish('reset'),
        debugExit: status => this.finish(`debug exit ${status}`),
        serialOutput: (_port, byte) => this.onSerial(byte),
        outside: (network, request) => {
          if (request.kind === 'frame') this.onFrame(network, request.bytes)
        },
        log: (device, what) => this.log(device, what),
      },
      pcParts,
    )
    for (let i = 0; i < count; i++) {
      const vcpu = vmm.createVcpu(guest, {
        name: count === 1 ? name : `${name}.${i}`, pinned: options.pinned, weight: options.weight, waiting: i > 0,
        registers: i === 0 && this.pc.boot ? startRegisters(this.pc.boot.registers) : {},
      })
      const lapic = this.pc.lapics[i]
      this.apics.set(vcpu, new GuestApic(vmm, vcpu, lapic, assists[i], () => this.started[i]))
      if (count > 1) vmm.setIntercepts(vcpu, { ...vcpu.intercepts, pause: 'loops' })
      lists.push(vcpu)
    }
    this.time.setAlarm()
  }

  private log(device: string, what: string): void {
    const message = `${this.guest.name}: ${device}: ${what}`
    if (this.logged.has(message)) return
    this.logged.add(message)
    this.onLog(message)
  }
  private finish(ending: string): void {
    if (this.ending !== undefined) return
    this.ending = ending
    this.time.stopped = true
    for (const vcpu of this.vcpus) this.vmm.stop(vcpu)
    this.onEnd(ending)
  }
  /** Bytes typed at the guest's console. */
  serialInput(bytes: Uint8Array): void {
    this.vmm.fromOutside(() => this.use(() => this.pc.serialInput(bytes)))
  }

  /** A frame for the guest. */
  receive(network: string, bytes: Uint8Array): void {
    if (!this.ending) this.use(() => this.pc.outsideEvent(network, { kind: 'frame', bytes }))
  }

  /** Around everything that the guest does with its devices. */
  private use<T>(act: () => T): T {
    return this.time.use(act)
  }

  // ---- interrupts

  private interruptChanged(cpu: number): void {
    const vcpu = this.vcpus?.[cpu]
    if (vcpu && this.started[cpu] && this.pc.lapics[cpu].hasInterrupt()) this.vmm.notify(vcpu)
  }
  private nmi(cpu: number): void {
    this.vcpus[cpu].nmi = true
    if (this.started[cpu]) this.vmm.notify(this.vcpus[cpu])
  }
  private startup(cpu: number, vector: number): void {
    if (this.started[cpu]) return
    this.started[cpu] = true
    this.vmm.setRegisters(this.vcpus[cpu], startupRegisters(vector))
    this.vmm.notify(this.vcpus[cpu])
  }

  /** A vCPU has halted with interrupts off: if nothing has happened when an NMI's time has passed, the guest is over. */
  private lookWhetherDeaf(): void {
    if (this.looksWhetherDeaf) return
    this.looksWhetherDeaf = true
    const entries = (): number => this.vcpus.reduce((sum, { statistics }) => sum + statistics.entries, 0)
    const before = entries()
    this.vmm.at(this.vmm.now() + longestNmiPeriod, () => {
      this.looksWhetherDeaf = false
      const areDeaf = this.vcpus.every((vcpu, i) => !this.started[i] || (vcpu.state === 'waiting' && vcpu.deaf))
      if (!areDeaf || this.ending !== undefined) return
      if (entries() === before) this.finish(standsForGood)
      else this.lookWhetherDeaf()
    })
  }

  // ---- exits

  private handlers(): Handlers {
    return {
      cpuid: ({ leaf, subleaf }, vcpu) =>
        guestCpuid((...of) => this.vmm.cpuid(...of), leaf, subleaf, this.vcpus.indexOf(vcpu), this.vcpus.length, {
          xcr0: this.vmm.units.xcr0(vcpu), xsaveEnabled: (vcpu.seenControl(4) & osxsave) !== 0n,
        }),
      halt: (_exit, vcpu) => {
        if ((vcpu.get('rflags') & interruptFlag) === 0n) this.lookWhetherDeaf()
        return 'wait'
      },
      portRead: ({ port, size }) => ({ value: this.use(() => this.pc.ports.read(port, size as 1 | 2 | 4)) }),
      portWrite: ({ port, size, value }) => {
        this.use(() => this.pc.ports.write(port, size as 1 | 2 | 4, value))
        return this.ending ? 'stop' : 'done'
      },
      mmioRead: ({ address, size }, vcpu) => ({ value: this.use(() => this.readDevice(vcpu, address, size)) }),
      mmioWrite: ({ address, size, value }, vcpu) => {
        this.use(() => this.writeDevice(vcpu, address, size, value))
        return this.ending ? 'stop' : 'done'
      },
      msrRead: ({ index }, vcpu) => {
        const value = GuestApic.hasMsr(index) ? this.use(() => this.apicOf(vcpu).readMsr(index)) : this.msrs.read(vcpu, index)
        if (value === undefined) this.log('msr', `RDMSR of ${index.toString(16)}h: #GP`)
        return value === undefined ? 'fault' : { value }
      },
      msrWrite: ({ index, value }, vcpu) => {
        const done = GuestApic.hasMsr(index) ? this.use(() => this.apicOf(vcpu).writeMsr(index, value))
          : this.msrs.write(vcpu, index, value)
        if (!done) this.log('msr', `WRMSR of ${index.toString(16)}h: #GP`)
        return done ? 'done' : 'fault'
      },
      control: ({ register, write, value }, vcpu) => {
        if (register !== 8) return { value }
        const apic = this.apicOf(vcpu)
        if (!write) return { value: BigInt(apic.priority) }
        this.use(() => (apic.priority = Number(value)))
        return { value }
      },
      ...apicTraps(vcpu => this.apicOf(vcpu), act => this.use(act)),
      hypercall: () => ({ result: 0xffff_ffff_ffff_fc18n }), // -1000: no such call
      pause: () => 'yield',
      shutdown: (_exit, vcpu) => {
        this.finish(`a triple fault of ${vcpu.name}`)
        return 'stop'
      },
      other: ({ name }) => {
        this.log('processor', `${name} is not offered to guests`)
        return name === 'invd' || name === 'INVD' || name === 'wbinvd' || name === 'WBINVD' ? 'skip' : 'fault'
      },
    }
  }
  private apicOf(vcpu: Vcpu): GuestApic {
    return this.apics.get(vcpu)!
  }
  private deviceAt(vcpu: Vcpu, address: number): { handler: MmioHandler; offset: number } | undefined {
    const apic = this.apicOf(vcpu)
    if (apic.contains(address))
      return { handler: { readMmio: (at, size) => apic.read(at, size), writeMmio: (at, size, value) => apic.write(at, size, value) },
        offset: address }
    const region = this.regions.find(({ base, end }) => address >= base && address < end)
    return region && { handler: region.handler, offset: address - region.base }
  }
  private readDevice(vcpu: Vcpu, address: number, size: number): bigint {
    const device = this.deviceAt(vcpu, address)
    if (!device) {
      this.log('memory', `read of ${size} bytes at 0x${address.toString(16)}, where there is nothing`)
      return 0xffff_ffff_ffff_ffffn
    }
    const { handler, offset } = device
    if (size < 8) return BigInt(handler.readMmio(offset, size as 1 | 2 | 4) >>> 0)
    return BigInt(handler.readMmio(offset, 4) >>> 0) | (BigInt(handler.readMmio(offset + 4, 4) >>> 0) << 32n)
  }
  private writeDevice(vcpu: Vcpu, address: number, size: number, value: bigint): void {
    const device = this.deviceAt(vcpu, address)
    if (!device) return this.log('memory', `write of ${size} bytes at 0x${address.toString(16)}, where there is nothing`)
    const { handler, offset } = device
    handler.writeMmio(offset, Math.min(size, 4) as 1 | 2 | 4, Number(value & 0xffffffffn))
    if (size === 8) handler.writeMmio(offset + 4, 4, Number(value >> 32n))
  }
}
