/** The whole machine behind the public API: CPUs taking turns on one clock, the PC around them, stop reasons. */
import { sha256 } from '@noble/hashes/sha2.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { CpuRegisters, Machine, MachineOptions, MachineState, RunLimits, SavedCpu, StopReason } from './api.ts'
import { activity, initState, resetState, startupState } from './cpu/reset.ts'
import { blockedByNmi, blockedBySmi, inSmm } from './cpu/smm.ts'
import { createModel } from './cpu/models.ts'
import { setFirmwareMtrrs } from './cpu/msr-table.ts'
import { crystalHertz, featureBits } from './cpu/cpuid.ts'
import { at, fieldBytes, fields, stateBase, stateSize, type FieldName } from './cpu/layout.ts'
import { restoreCpuState, saveCpuState } from './cpu/saved-state.ts'
import { flag, readRflags, writeRflags } from './cpu/rflags.ts'
import { createCore, type Core } from './engine/core.ts'
import type { BackgroundBuilder } from './engine/jit/build.ts'
import type { Cpu, CpuStop } from './engine/cpu.ts'
import type { TextScreen } from './devices/vga/vga.ts'
import { InputError } from './errors.ts'
import { pageNumber } from './mmu/mmu.ts'
import type { TlbState } from './mmu/tlb.ts'
import type { Lapic } from './interrupts/lapic.ts'
import type { MmioRegion } from './memory/mmio.ts'
import { VirtualClock } from './platform/clock.ts'
import { createMemoryMap } from './platform/memory-map.ts'
import { createPc, type Pc } from './platform/pc.ts'
import type { BootRegisters } from './platform/boot/image.ts'
import { applyBootRegisters } from './platform/boot/start.ts'
import { describeCpu } from './insight/describe.ts'
import type { GuestEvent, GuestListener } from './cpu/guest-event.ts'
import { explainFailure } from './insight/guest-events.ts'

const MiB = 1 << 20
/** CR4.VMXE and IA32_EFER.SVME. */
const svmEnabled = 1n << 12n
const lapicSize = 4096
/** Virtual nanoseconds of an access: the local APIC is part of the processor. */
const lapicTime = 50
/** Virtual nanoseconds that a CPU runs before the next one gets its turn. */
const quantum = 20_000
/**
 * Longest run without looking at the embedder: there is no on-stack replacement for WebAssembly, so generated code must return now and
 * then.
 */
const longestRun = 200_000
/** Where RAM below 4 GiB can end, by chipset: firmware leaves devices' space above it uncacheable. */
const firstUncached = { pc: 0xc000_0000, q35: 0x8000_0000 } as const
const defaultEpoch = 1_767_225_600 // 2026-01-01 00:00 UTC

/** What can reach a CPU while another one's state is loaded. */
interface CpuSlot {
  cpu: Cpu
  parked: Uint8Array
  /** The same memory. */
  parkedWords: Uint32Array
  nmi: boolean
  smi: boolean
  init: boolean
  startup: number
}

/** What an embedder adds to a machine: it changes nothing of a run but its speed. */
export interface Surroundings {
  /** Another thread that compiles hot code. */
  background?: BackgroundBuilder
}

export function createMachine(options: MachineOptions, surroundings: Surroundings = {}): Machine {
  return new VitrineMachine(options, surroundings)
}

export class VitrineMachine implements Machine {
  readonly core: Core
  readonly pc: Pc
  readonly clock = new VirtualClock()
  onSerialOutput: (bytes: Uint8Array) => void = () => {}
  onLog: (message: string) => void = () => {}
  onDebugOutput: (byte: number) => void = () => {}
  onOutside: Machine['onOutside'] = () => {}
  #onGuestEvent: GuestListener | undefined
  #onRemappingEvent: Machine['onRemappingEvent']

  private readonly options: MachineOptions
  private readonly slots: CpuSlot[] = []
  private current = 0
  private stop: StopReason | undefined
  private resetRequested = false
  /** S3: no CPU runs until the chipset wakes the machine. */
  private asleep = false
  private wakeRegisters: BootRegisters | undefined
  private lapicRegions: MmioRegion[] = []
  private lapicMoved = false
  private serialBytes: number[] = []
  private outsideRequests: Parameters<Machine['onOutside']>[] = []
  private readonly logged = new Set<string>()

  constructor(options: MachineOptions, internals: Surroundings & { profile?: boolean } = {}) {
    this.options = options
    const cpus = options.cpus ?? 1
    const size = options.memory ?? 512 * MiB
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > 64) throw new InputError(`number of CPUs: expected 1 to 64, found ${cpus}`)
    if (!Number.isInteger(size) || size < 2 * MiB || size % MiB !== 0)
      throw new InputError(`memory: expected at least 2M, in whole MiB; found ${size} bytes`)
    const map = createMemoryMap(options.chipset ?? 'pc', size)
    const model = this.createModel(cpus)
    this.core = createCore({
      ram: map.ram,
      model,
      cpus,
      profile: internals.profile,
      background: internals.background,
      jit: options.engine === 'jit',
      log: (device, what) => this.log(device, what),
    })
    const { physical } = this.core
    this.pc = createPc(
      {
        kernel: options.kernel,
        kernelName: options.kernelName,
        initrd: options.initrd,
        initrdName: options.initrdName,
        modules: options.modules,
        protocol: options.protocol,
        bios: options.bios,
        bootSettings: options.bootSettings,
        vgaBios: options.vgaBios,
        commandLine: options.commandLine,
        raw: options.raw,
        map,
        cpus,
        rtcEpoch: options.rtcEpoch ?? defaultEpoch,
        devices: options.devices ?? [], drives: options.drives ?? [], networks: options.networks ?? [], iommus: options.iommus ?? [],
        shares: options.shares ?? [], seed: options.seed ?? 0,
        processor: {
          vendor: model.vendor, brand: model.identity.brand, signature: model.identity.signature, megahertz: 1000,
          features: featureBits(model, 1, 0, 3),
        },
        lapic: {
          timerFrequency: crystalHertz,
          x2apic: model.has('x2apic'),
          tscDeadline: model.has('tsc_deadline_timer'),
          physicalAddressBits: model.physicalBits,
        },
      },
      {
        clock: this.clock,
        addMmio: (base, length, name, handler) => void physical.addMmio(base, length, name, handler),
        dma: physical,
        load: (address, bytes) => physical.load(address, bytes),
        addRom: (address, bytes) => physical.addRom(address, bytes),
        setReadOnly: (address, length, readOnly) => physical.setReadOnlyRange(address, length, readOnly),
        cpuSignals: index => this.signals(index),
        tsc: index => BigInt(this.clock.now()) + this.fieldOf(index, 'tscOffset'),
        powerOff: () => this.stopWith({ kind: 'power-off' }),
        reset: () => this.requestReset(),
        sleep: () => {
          this.asleep = true
          this.cpu.stopRequested = true
        },
        wake: registers => {
          this.wakeRegisters = registers
        },
        smi: () => this.core.running!.smi(),
        smramChanged: () => this.showSmram(),
        debugExit: status => this.stopWith({ kind: 'debug-exit', status }),
        serialOutput: (port, byte) => {
          if (port === 0) this.serialBytes.push(byte)
        },
        debugOutput: byte => this.onDebugOutput(byte),
        outside: (network, request) => void this.outsideRequests.push([network, request]),
        log: (device, what) => this.log(device, what),
      },
    )
    // Firmware made for virtual machines knows AMD's map only, whatever the processor: a machine that starts firmware has it.
    const saveMap = model.vendor === 'GenuineIntel' && this.pc.boot ? 'intel64' : 'amd64'
    for (let index = 0; index < cpus; index++) {
      const cpu = this.core.createCpu(index, this.pc.lapics[index], this.portPort(), () => this.clock.nextDeadline() ?? Infinity,
        { saveMap, modeChanged: () => this.showSmram() })
      const parkedWords = new Uint32Array(stateSize / 4)
      this.slots.push({ cpu, parked: new Uint8Array(parkedWords.buffer), parkedWords, nmi: false, smi: false, init: false, startup: -1 })
    }
    this.core.running = this.slots[0].cpu
    this.observeGuests()
    this.clock.source = () => this.core.running!.now()
    this.mapLapics()
    this.resetCpus()
  }

  private createModel(cpus: number): ReturnType<typeof createModel> {
    const { model = 'intel', add = [], remove = [], vendor } = this.options.cpu ?? {}
    const specification = [model, ...add.map(f => `+${f}`), ...remove.map(f => `-${f}`), ...(vendor ? [`vendor=${vendor}`] : [])].join(',')
    try {
      return createModel(specification, { processors: cpus, seed: BigInt(this.options.seed ?? 1) })
    } catch (error) {
      throw new InputError((error as Error).message)
    }
  }

  private portPort(): { read(port: number, size: 1 | 2 | 4): number; write(port: number, size: 1 | 2 | 4, value: number): void } {
    const ports = () => this.pc.ports
    return { read: (port, size) => ports().read(port, size), write: (port, size, value) => ports().write(port, size, value) }
  }

  private log(device: string, what: string): void {
    const line = `${device}: ${what}`
    if (this.logged.has(line)) return
    this.logged.add(line)
    this.onLog(line)
  }

  get onGuestEvent(): GuestListener | undefined {
    return this.#onGuestEvent
  }
  set onGuestEvent(listener: GuestListener | undefined) {
    this.#onGuestEvent = listener
    this.observeGuests()
  }
  set onRemappingEvent(listener: Machine['onRemappingEvent']) {
    this.#onRemappingEvent = listener
    for (const unit of this.pc.remappingUnits)
      unit.onEvent = listener && (event => listener({ time: this.clock.now(), unit: unit.name, ...event }))
  }
  get onRemappingEvent(): Machine['onRemappingEvent'] {
    return this.#onRemappingEvent
  }
  private observeGuests(): void {
    const listens = this.options.explain === true || this.#onGuestEvent !== undefined
    const tell = (event: GuestEvent): void => {
      if (this.options.explain && event.kind === 'failed') this.onLog(explainFailure(event))
      this.#onGuestEvent?.(event)
    }
    for (const { cpu } of this.slots) if (cpu.virt) cpu.virt.observer = listens ? tell : undefined
  }

  // ---- CPUs taking turns ----

  private get cpu(): Cpu {
    return this.slots[this.current].cpu
  }

  /** Loads the state of CPU `index`; with one CPU it never leaves the state area. */
  switchTo(index: number): void {
    if (index !== this.current) {
      const area = new Uint8Array(this.core.memory.buffer, stateBase, stateSize)
      this.slots[this.current].parked.set(area)
      area.set(this.slots[index].parked)
      this.current = index
      this.core.running = this.slots[index].cpu
      this.core.mmu.switchCpu(index)
    }
    this.takeSignals(this.slots[index])
    this.showSmram()
    this.cpu.interruptChanged()
  }

  private takeSignals(slot: CpuSlot): void {
    const { state } = this.core
    const init = slot.init && !inSmm(state) ? (slot.cpu.virt?.takesInit() ?? 'accepted') : 'held'
    if (init === 'exit') slot.init = false
    if (init === 'accepted') {
      slot.init = false
      initState(state, slot.cpu.model, slot.cpu.index === 0)
      this.pc.lapics[slot.cpu.index].initReset()
      this.core.mmu.flushAll()
      slot.cpu.stateChanged()
    }
    if (slot.startup >= 0) {
      if (state.activity === activity.waitForSipi) {
        if (slot.cpu.guest) slot.cpu.guest.startup?.(slot.startup)
        else {
          startupState(state, slot.startup)
          slot.cpu.stateChanged()
        }
      }
      slot.startup = -1
    }
    if (slot.nmi) {
      slot.nmi = false
      slot.cpu.nmi()
    }
    if (slot.smi) {
      slot.smi = false
      slot.cpu.smi()
    }
  }

  /** A field of a CPU, wherever its state lies. */
  private fieldOf(index: number, name: FieldName): bigint {
    if (this.slots.length === 0) return 0n
    if (index === this.current) return new DataView(this.core.memory.buffer).getBigUint64(at[name], true)
    const { parked } = this.slots[index]
    return new DataView(parked.buffer).getBigUint64(at[name] - stateBase, true)
  }
  /** The same of a field of 32 bits, or the low half of a wider one. */
  private wordOf(index: number, name: FieldName): number {
    if (index === this.current) return this.core.state.words[at[name] >> 2]
    return this.slots[index].parkedWords[(at[name] - stateBase) >> 2]
  }
  private activityOf(index: number): number {
    return this.wordOf(index, 'activity')
  }

  /** Whether a CPU has anything to do: running, or about to be woken. */
  private isBusy(index: number): boolean {
    const slot = this.slots[index]
    const state = this.activityOf(index)
    if (state === activity.running || slot.nmi || slot.smi) return true
    const blocked = this.wordOf(index, 'interruptShadow')
    const smm = (blocked & blockedBySmi) !== 0
    const guest = (this.wordOf(index, 'guestMode') & 1) !== 0
    const holdsInit = smm || (!guest && (this.wordOf(index, 'vmxFlags') & 1) !== 0)
    if (slot.init && !holdsInit) return true
    if (guest && state !== activity.waitForSipi) return this.guestWakes(index)
    if (state === activity.waitForSipi) return slot.startup >= 0
    if (state !== activity.halt) return false
    if (this.wordOf(index, 'pendingSmi') !== 0 && !smm) return true
    if (this.wordOf(index, 'pendingDebug') !== 0) return true
    if (this.wordOf(index, 'pendingNmi') !== 0 && !(blocked & blockedByNmi)) return true
    // GIF is 0
    if (this.wordOf(index, 'interruptGate') === 2) return false
    return this.pc.lapics[index].hasInterrupt() && (this.wordOf(index, 'eflags') & flag.IF) !== 0
  }

  /** Only the guest's controls tell what wakes it. */
  private guestWakes(index: number): boolean {
    this.switchTo(index)
    const virt = this.slots[index].cpu.virt!
    return virt.wakes() || virt.nextDeadline() <= this.clock.now()
  }
  /** When a halted guest is to be looked at, whatever devices do. */
  private guestDeadline(): number {
    let first = Infinity
    this.slots.forEach((slot, index) => {
      if (!slot.cpu.virt || !(this.fieldOf(index, 'guestMode') & 1n)) return
      this.switchTo(index)
      first = Math.min(first, slot.cpu.virt.nextDeadline())
    })
    return first
  }

  private signals(index: number): ConstructorParameters<typeof Lapic>[0]['signals'] {
    return {
      intrChanged: () => {
        if (index === this.current) this.slots[index]?.cpu.interruptChanged()
      },
      nmi: () => {
        const slot = this.slots[index]
        if (index === this.current) slot.cpu.nmi()
        else slot.nmi = true
      },
      smi: () => {
        const slot = this.slots[index]
        if (index === this.current) slot.cpu.smi()
        else slot.smi = true
      },
      init: () => {
        const slot = this.slots[index]
        slot.init = true
        slot.startup = -1
        if (index === this.current) slot.cpu.stopRequested = true
      },
      startup: vector => {
        this.slots[index].startup = vector
      },
      baseChanged: () => {
        this.lapicMoved = true
        if (this.slots.length) this.cpu.stopRequested = true
      },
    }
  }

  /** The APIC page of the CPU that accesses it: all CPUs usually have theirs at the same address. */
  private mapLapics(): void {
    const { physical } = this.core
    for (const region of this.lapicRegions) physical.removeMmio(region)
    const bases = new Set(this.pc.lapics.map(lapic => lapic.mmioBase).filter((base): base is number => base !== undefined))
    const lapicAt = (base: number): Lapic | undefined => {
      const own = this.pc.lapics[this.current]
      return own.mmioBase === base ? own : undefined
    }
    this.lapicRegions = [...bases].map(base =>
      physical.addMmio(
        base,
        lapicSize,
        'lapic',
        {
          readMmio: (offset, size) => lapicAt(base)?.readMmio(offset, size) ?? 0xffffffff,
          writeMmio: (offset, size, value) => lapicAt(base)?.writeMmio(offset, size, value),
        },
        lapicTime,
      ),
    )
    this.lapicMoved = false
  }

  /** SMRAM lies open, or is seen only by the CPU that is in SMM. */
  private showSmram(): void {
    const { ranges, open, enabled } = this.pc.smram
    this.core.physical.setSmram(ranges, open || (enabled && inSmm(this.core.state)))
  }

  // ---- reset and stop ----

  private resetCpus(registers = this.pc.boot?.registers): void {
    const { state, mmu } = this.core
    for (let index = this.slots.length - 1; index >= 0; index--) {
      this.switchTo(index)
      resetState(state, this.cpu.model, index === 0)
      if (this.pc.boot) setFirmwareMtrrs(state, this.cpu.model, firstUncached[this.options.chipset ?? 'pc'])
      mmu.flushAll()
      this.cpu.stateChanged()
      if (index !== 0) this.slots[index].parked.set(new Uint8Array(this.core.memory.buffer, stateBase, stateSize))
    }
    if (registers) {
      applyBootRegisters(state, registers)
      this.cpu.stateChanged()
    }
  }
  private stopWith(reason: StopReason): void {
    this.stop ??= reason
    this.cpu.stopRequested = true
  }
  private requestReset(): void {
    if (this.options.noReboot) return this.stopWith({ kind: 'reset' })
    this.resetRequested = true
    this.cpu.stopRequested = true
  }
  /** The processors come out of reset at what firmware would jump to. */
  private wake(registers: BootRegisters): void {
    this.asleep = false
    this.wakeRegisters = undefined
    this.resetCpus(registers)
    this.mapLapics()
  }
  private reset(): void {
    this.resetRequested = false
    this.asleep = false
    this.wakeRegisters = undefined
    this.pc.reset()
    this.resetCpus()
    this.mapLapics()
  }

  // ---- the run loop ----

  run(limits: RunLimits = {}): StopReason {
    const until = limits.untilTime ?? Infinity
    const lastRetired = this.retired + (limits.maxInstructions ?? Infinity)
    const reason = this.loop(until, lastRetired)
    this.flushSerial()
    this.flushOutside()
    return reason
  }

  private loop(until: number, lastRetired: number): StopReason {
    for (;;) {
      if (this.stop) return this.takeStop()
      if (this.resetRequested) this.reset()
      if (this.wakeRegisters) this.wake(this.wakeRegisters)
      if (this.lapicMoved) this.mapLapics()
      const now = this.clock.now()
      this.advance(now)
      if (this.stop || this.resetRequested || this.wakeRegisters) continue
      if (this.retired >= lastRetired) return { kind: 'budget' }
      if (now >= until) return { kind: 'time' }
      const index = this.asleep ? -1 : this.whoseTurn(now)
      if (index < 0) {
        const next = Math.min(this.clock.nextDeadline() ?? Infinity, this.guestDeadline())
        if (next === Infinity && until === Infinity) return { kind: 'idle' }
        this.advance(Math.min(next, until))
        continue
      }
      const stopped = this.turn(index, Math.min(until - now, lastRetired - this.retired))
      if (stopped) return stopped
      if (this.serialBytes.length >= 4096) this.flushSerial()
    }
  }

  /** Runs CPU `index` for its quantum, or less. */
  private turn(index: number, most: number): StopReason | undefined {
    this.switchTo(index)
    const result = this.execute(Math.min(most, this.slots.length > 1 ? this.turnEnd - this.clock.now() : longestRun))
    this.core.jit?.tick()
    this.cpu.stopRequested = false
    if (result !== 'time') this.turnEnd = 0
    if (result === 'shutdown') return { kind: 'triple-fault', report: this.describe(index) }
    return result === 'root' ? { kind: 'root', cpu: index } : undefined
  }
  /** The CPU that is loaded executes for up to so many virtual nanoseconds. */
  execute(nanoseconds: number): CpuStop {
    const { cpu } = this
    const start = this.clock.now()
    cpu.stopRequested = false
    this.idle = false
    const result = cpu.execute(start, nanoseconds)
    this.idle = true
    this.advance(cpu.reached)
    return result
  }
  /** Whose turn it is or was last, and when that is over: a limit of run() that falls into a turn does not end it. */
  private last = 0
  private turnEnd = 0
  /** Between turns the clock itself tells the time. */
  private set idle(value: boolean) {
    this.clock.source = value ? undefined : () => this.core.running!.now()
  }
  private advance(to: number): void {
    this.clock.advanceTo(to)
  }

  /** The CPU whose turn it is: round robin among those that have something to do; -1 when all are halted. */
  private whoseTurn(now: number): number {
    if (now < this.turnEnd && this.isBusy(this.last)) return this.last
    const count = this.slots.length
    for (let i = 1; i <= count; i++) {
      const index = (this.last + i) % count
      if (!this.isBusy(index)) continue
      this.last = index
      this.turnEnd = now + quantum
      return index
    }
    this.turnEnd = 0
    return -1
  }

  private takeStop(): StopReason {
    const reason = this.stop!
    this.stop = undefined
    return reason
  }

  /** Code of the pages that they lie in is stepped, about a million instructions a second; the rest runs at full speed. */
  setBreakpoints(linear: ReadonlySet<bigint>): void {
    const hit = (cpu: Cpu): boolean => {
      if (this.steppingOver || !linear.has(this.instructionAddress(cpu))) return false
      this.stopWith({ kind: 'breakpoint', cpu: cpu.index })
      return true
    }
    const pages = new Set([...linear].map(address => pageNumber(Number(address & 0xffffffffn), Number(BigInt.asUintN(64, address) >> 32n))))
    for (const { cpu } of this.slots) cpu.watchCode(linear.size === 0 ? undefined : { pages, before: hit })
  }
  /** A step executes also what a breakpoint is set on. */
  private steppingOver = false

  private instructionAddress({ state }: Cpu): bigint {
    const long = (state.efer & 0x400n) !== 0n && (state.segAttributes[1] & 0x2000) !== 0
    return long ? state.rip : (state.segBase[1] + state.rip) & 0xffffffffn
  }

  step(index = 0): StopReason | undefined {
    this.steppingOver = true
    try {
      return this.stepOver(index)
    } finally {
      this.steppingOver = false
    }
  }

  private stepOver(index: number): StopReason | undefined {
    const now = this.clock.now()
    this.advance(now)
    this.switchTo(index)
    const { cpu } = this
    const before = cpu.retired
    while (cpu.retired === before && !this.stop) {
      const result = this.execute(1)
      if (result === 'shutdown') return { kind: 'triple-fault', report: this.describe(index) }
      if (result === 'halted') {
        const next = this.clock.nextDeadline()
        if (next === undefined) return { kind: 'idle' }
        this.advance(next)
      }
    }
    this.flushSerial()
    this.settle()
    return this.stop ? this.takeStop() : undefined
  }
  /** Between two instructions: what the last one has asked of the machine. */
  settle(): void {
    if (this.resetRequested) this.reset()
    if (this.lapicMoved) this.mapLapics()
    this.advance(this.clock.now())
  }

  get retired(): number {
    let sum = 0
    for (const slot of this.slots) sum += slot.cpu.retired
    return sum
  }
  get now(): number {
    return this.clock.now()
  }

  get touchedMemory(): number {
    let sum = 0
    for (const { bytes } of this.core.physical.backedChunks()) sum += bytes.length
    return sum
  }

  screen(): TextScreen | undefined {
    return this.pc.screen()
  }
  serialInput(bytes: Uint8Array): void {
    this.pc.serialInput(bytes)
  }
  outsideInput(...[network, event]: Parameters<Machine['outsideInput']>): void {
    this.pc.outsideEvent(network, event)
    this.flushOutside()
  }
  private flushOutside(): void {
    for (const request of this.outsideRequests.splice(0)) this.onOutside(...request)
  }
  private flushSerial(): void {
    if (this.serialBytes.length === 0) return
    const bytes = Uint8Array.from(this.serialBytes)
    this.serialBytes = []
    this.onSerialOutput(bytes)
  }

  // ---- looking and changing ----

  registers(index = 0): CpuRegisters {
    this.switchTo(index)
    const { state } = this.core
    const segmentOf = (i: number): CpuRegisters['segments']['cs'] => ({
      selector: state.segSelector[i],
      base: state.segBase[i],
      limit: state.segLimit[i],
      attributes: state.segAttributes[i],
    })
    const st = Array.from({ length: 8 }, (_, i) => {
      const word = ((state.fpTop + i) & 7) * 2
      return state.fpr[word] | ((state.fpr[word + 1] & 0xffffn) << 64n)
    })
    return {
      gpr: [...state.gpr],
      rip: state.rip,
      rflags: BigInt(readRflags(state)),
      segments: {
        es: segmentOf(0),
        cs: segmentOf(1),
        ss: segmentOf(2),
        ds: segmentOf(3),
        fs: segmentOf(4),
        gs: segmentOf(5),
        ldtr: segmentOf(6),
        tr: segmentOf(7),
      },
      gdtr: { base: state.gdtrBase, limit: state.gdtrLimit },
      idtr: { base: state.idtrBase, limit: state.idtrLimit },
      cr0: state.cr0,
      cr2: state.cr2,
      cr3: state.cr3,
      cr4: state.cr4,
      cr8: BigInt(this.pc.lapics[index].getTpr()),
      efer: state.efer,
      dr: [...state.dr],
      xmm: Array.from({ length: 16 }, (_, i) => ({ low: state.vector[i * 8], high: state.vector[i * 8 + 1] })),
      mxcsr: state.mxcsr,
      x87: { control: state.fpControl, status: state.fpStatus | (state.fpTop << 11), tag: fullTag(state.fpTags), st },
    }
  }

  setRegisters(registers: Partial<CpuRegisters>, index = 0): void {
    this.switchTo(index)
    const { state } = this.core
    registers.gpr?.forEach((value, i) => (state.gpr[i] = value))
    if (registers.rip !== undefined) state.rip = registers.rip
    if (registers.rflags !== undefined) writeRflags(state, Number(registers.rflags))
    for (const [name, i] of [
      ['es', 0],
      ['cs', 1],
      ['ss', 2],
      ['ds', 3],
      ['fs', 4],
      ['gs', 5],
      ['ldtr', 6],
      ['tr', 7],
    ] as const) {
      const segment = registers.segments?.[name]
      if (!segment) continue
      state.segSelector[i] = segment.selector
      state.segBase[i] = segment.base
      state.segLimit[i] = segment.limit
      state.segAttributes[i] = segment.attributes
      if (name === 'ss') state.cpl = (segment.attributes >> 5) & 3
    }
    for (const name of ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const) if (registers[name] !== undefined) state[name] = registers[name]
    if (registers.gdtr) [state.gdtrBase, state.gdtrLimit] = [registers.gdtr.base, registers.gdtr.limit]
    if (registers.idtr) [state.idtrBase, state.idtrLimit] = [registers.idtr.base, registers.idtr.limit]
    registers.dr?.forEach((value, i) => (state.dr[i] = value))
    registers.xmm?.forEach(({ low, high }, i) => {
      state.vector[i * 8] = low
      state.vector[i * 8 + 1] = high
    })
    if (registers.mxcsr !== undefined) state.mxcsr = registers.mxcsr
    this.core.mmu.flushAll()
    this.cpu.stateChanged()
  }

  readPhysical(address: number, length: number): Uint8Array {
    const out = new Uint8Array(length)
    this.core.physical.peek(address, out)
    return out
  }
  writePhysical(address: number, bytes: Uint8Array): void {
    this.core.physical.write(address, bytes)
  }
  translate(linear: bigint, index = 0): number | undefined {
    this.switchTo(index)
    return this.cpu.translation.probe(linear)
  }

  statistics(): Record<string, number> {
    const { regions, modules, instructions, bytes } = this.core.jit?.statistics ?? { regions: 0, modules: 0, instructions: 0, bytes: 0 }
    return {
      instructions: this.retired, 'regions compiled': regions, 'instructions in them': instructions, 'modules': modules,
      'bytes of generated code': bytes,
    }
  }

  /** Architectural fields of all CPUs, RAM that is not zero, devices, what is written to disks, and clock. */
  stateHash(): string {
    const hash = sha256.create()
    const text = new TextEncoder()
    this.slots.forEach((_, index) => {
      this.switchTo(index)
      // a shadow that is over may not have been cleared yet
      this.slots[index].cpu.shadowed()
      const { state } = this.core
      hash.update(text.encode(`rflags ${readRflags(state)}\n`))
      for (const name of Object.keys(fields) as FieldName[])
        if (fields[name].kind === 'architectural' && !name.startsWith('flag'))
          hash.update(new Uint8Array(this.core.memory.buffer, at[name], fieldBytes(name)))
    })
    for (const { address, bytes } of this.core.physical.filledChunks()) {
      hash.update(text.encode(`chunk ${address}\n`))
      hash.update(bytes)
    }
    for (const disk of this.pc.disks) {
      for (const { index, bytes } of disk.changes()) {
        hash.update(text.encode(`disk ${disk.id} ${index}\n`))
        hash.update(bytes)
      }
    }
    hash.update(text.encode(JSON.stringify([this.clock.now(), this.pc.saveState(), this.retired])))
    return bytesToHex(hash.digest())
  }

  // ---- snapshots ----

  saveState(): MachineState {
    const running = new Uint8Array(this.core.memory.buffer, stateBase, stateSize)
    this.slots.forEach((_, index) => this.refuseVirtualization(index))
    const cpus = this.slots.map(({ cpu, parked, nmi, smi, init, startup }, index): SavedCpu => {
      return { state: saveCpuState(index === this.current ? running : parked), ...cpu.saveState(), nmi, smi, init, startup }
    })
    const { asleep, resetRequested, last, turnEnd } = this
    return {
      configuration: this.configuration(),
      cpus,
      tlbs: this.core.mmu.saveState(),
      ...(this.core.mmu.secondStage?.saveState ? { secondStage: this.core.mmu.secondStage.saveState() } : {}),
      memory: [...this.core.physical.filledChunks()].map(({ address, bytes }) => ({ address, bytes: bytes.slice() })),
      clock: this.clock.saveState(),
      devices: this.pc.saveState(),
      disks: this.pc.disks.map(disk => ({ id: disk.id, units: [...disk.changes()] })),
      turns: { asleep, resetRequested, last, turnEnd },
    }
  }

  restoreState(saved: MachineState): void {
    if (saved.configuration !== this.configuration()) {
      throw new InputError('the saved state is of another machine: expected the same processors, memory, devices, drives and kernel')
    }
    const { core, clock, pc } = this
    this.idle = true
    core.running!.flushCode()
    core.physical.restoreChunks(saved.memory)
    for (const disk of pc.disks) disk.restoreChanges(saved.disks.find(({ id }) => id === disk.id)?.units ?? [])
    clock.restoreState(saved.clock)
    pc.restoreState(saved.devices)
    this.mapLapics()
    Object.assign(this, saved.turns)
    for (const [index, { state, retired, shadowAt, nmi, smi, init, startup }] of saved.cpus.entries()) {
      const slot = this.slots[index]
      Object.assign(slot, { nmi: false, smi: false, init: false, startup: -1 })
      this.switchTo(index)
      restoreCpuState(new Uint8Array(core.memory.buffer, stateBase, stateSize), state)
      slot.cpu.restoreState({ retired, shadowAt })
      slot.cpu.stateChanged()
      slot.cpu.interruptChanged()
      Object.assign(slot, { nmi, smi, init, startup })
    }
    core.mmu.restoreState(saved.tlbs as TlbState[])
    if (saved.secondStage !== undefined) core.mmu.secondStage?.restoreState?.(saved.secondStage)
    this.slots.forEach(({ cpu }, index) => {
      if (!cpu.virt?.restored) return
      this.switchTo(index)
      cpu.virt.restored()
    })
  }

  /** Caches of nested page tables are no plain data yet. */
  private refuseVirtualization(index: number): void {
    if (this.fieldOf(index, 'efer') & svmEnabled) {
      throw new InputError(`the machine cannot be saved now: processor ${index} has SVM switched on`)
    }
  }

  /** What two machines must share for a state to go from one to the other. The engine may differ. */
  private configuration(): string {
    const { engine: _engine, noReboot: _noReboot, drives: _drives, shares: _shares, ...options } = this.options
    const disks = this.pc.disks.map(({ id, byteLength, readOnly }) => ({ id, byteLength, readOnly }))
    return JSON.stringify(withDigests({ ...options, disks }))
  }

  describe(index = 0): string {
    this.switchTo(index)
    return describeCpu(this, index)
  }

  /** For reports: the events that were delivered last. */
  recentEvents(index = 0): Cpu['recentEvents'] {
    return this.slots[index].cpu.recentEvents
  }
  cpuAt(index = 0): Cpu {
    return this.slots[index].cpu
  }
}

/** The same with a digest in the place of each array of bytes. */
function withDigests(value: unknown): unknown {
  if (value instanceof Uint8Array) return bytesToHex(sha256(value))
  if (Array.isArray(value)) return value.map(withDigests)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withDigests(each)]))
}

/** Two bits a register: 0 valid (what kind is told from its contents), 3 empty. */
function fullTag(abridged: number): number {
  let tag = 0
  for (let i = 0; i < 8; i++) if (!((abridged >> i) & 1)) tag |= 3 << (2 * i)
  return tag
}
