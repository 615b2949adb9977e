/**
 * The door through which a hypervisor in TypeScript drives the processors of a machine: it puts instructions into memory and has them
 * executed, and hears when control comes back to root mode. Nothing else of the machine can be reached this way. See src/vmm/port.ts.
 */
import { crystalHertz } from './cpu/cpuid.ts'
import { at } from './cpu/layout.ts'
import { activity } from './cpu/reset.ts'
import { readRflags } from './cpu/rflags.ts'
import { explainFailure } from './insight/guest-events.ts'
import { lapicBase } from './platform/memory-map.ts'
import { VitrineMachine, type Internals } from './machine.ts'
import type { HypervisorOptions } from './vmm/machine-options.ts'
import type { Arrival, HardwarePort, MemoryPort, ProcessorPort, Standing } from './vmm/port.ts'

const activityWord = at.activity >> 2
const guestWord = at.guestMode >> 2
const ripAt = at.rip >> 3

/** The machine that a hypervisor is to have, behind its door. */
export function hardwareOf(options: HypervisorOptions, internals: Internals = {}): RootDoor {
  const { cpu = 'intel', cpus = 1, memory = 64 << 20, seed, engine = 'jit', iommu, devices, drives, onRemappingEvent, onLog } = options
  const selection = typeof cpu === 'string' ? { model: cpu } : cpu
  const halt = { image: Uint8Array.of(0xf4), at: 0x100000, mode: 'long64' } as const
  const machine = new VitrineMachine({ cpu: selection, cpus, memory, seed, engine, raw: halt, noReboot: true,
    ...(iommu ? { chipset: 'q35', iommus: [{ model: iommu, properties: {} }] } : {}), devices, drives }, internals)
  if (onRemappingEvent) machine.onRemappingEvent = onRemappingEvent
  if (onLog) machine.onLog = onLog
  return new RootDoor(machine, cpus)
}

class RootDoor implements HardwarePort {
  readonly processors: readonly ProcessorPort[]
  readonly memory: MemoryPort
  readonly vendor: 'intel' | 'amd'
  readonly memorySize: number
  readonly apicBase = lapicBase
  readonly apicHertz = crystalHertz
  readonly tscHertz = crystalHertz
  readonly machine: VitrineMachine

  constructor(machine: VitrineMachine, cpus: number) {
    this.machine = machine
    this.vendor = machine.cpuAt(0).model.vendor === 'AuthenticAMD' ? 'amd' : 'intel'
    this.memorySize = machine.pc.map.lowTop
    this.processors = Array.from({ length: cpus }, (_, index) => new DoorProcessor(machine, index))
    this.memory = new DoorMemory(machine)
  }

  get now(): number {
    return this.machine.now
  }
  get retired(): number {
    return this.machine.retired
  }

  run(untilTime?: number): Arrival {
    const stop = this.machine.run({ untilTime })
    switch (stop.kind) {
      case 'root': return stop
      case 'time': return { kind: 'time' }
      // somebody outside may do something at that time
      case 'idle': return { kind: untilTime === undefined ? 'idle' : 'time' }
      case 'triple-fault': return { kind: 'stopped', reason: `a triple fault in root mode\n${stop.report}` }
      default: return { kind: 'stopped', reason: stop.kind }
    }
  }
  /** Nobody listens but now: every entry and exit costs something then. */
  explain(again: () => void): string | undefined {
    let text: string | undefined
    this.machine.onGuestEvent = event => {
      if (event.kind === 'failed') text = explainFailure(event)
    }
    try {
      again()
    } finally {
      this.machine.onGuestEvent = undefined
    }
    return text
  }
  interruptFromOutside(vector: number): void {
    this.machine.pc.apicBus.msi.signal(lapicBase, vector)
  }
}

class DoorProcessor implements ProcessorPort {
  readonly index: number
  private readonly machine: VitrineMachine
  private readonly gpr: BigUint64Array
  private readonly quads: BigUint64Array
  private readonly words: Uint32Array

  constructor(machine: VitrineMachine, index: number) {
    this.machine = machine
    this.index = index
    this.gpr = machine.core.state.gpr
    this.quads = new BigUint64Array(machine.core.memory.buffer)
    this.words = machine.core.state.words
    machine.cpuAt(index).driven = true
  }

  private isIn(which: number): boolean {
    return this.words[activityWord] === which
  }
  /** Its state lies in the state area. */
  private present(): void {
    if (this.machine.core.running !== this.machine.cpuAt(this.index)) this.machine.switchTo(this.index)
  }
  get(number: number): bigint {
    this.present()
    return this.gpr[number]
  }
  set(number: number, value: bigint): void {
    this.present()
    this.gpr[number] = value
  }
  save(into: BigUint64Array): void {
    this.present()
    into.set(this.gpr)
  }
  load(from: BigUint64Array): void {
    this.present()
    this.gpr.set(from)
  }
  get rip(): bigint {
    this.present()
    return this.quads[ripAt]
  }
  get rflags(): number {
    this.present()
    return readRflags(this.machine.core.state)
  }

  execute(address: bigint, count = 1): Standing {
    const { machine, words } = this
    this.present()
    if (words[guestWord] !== 0) throw new Error(`processor ${this.index} is in a guest: it takes no instruction of the hypervisor`)
    if (!this.isIn(activity.running)) throw new Error(`processor ${this.index} is halted or waits to be started: it takes no instruction`)
    this.quads[ripAt] = address
    const cpu = machine.cpuAt(this.index)
    cpu.granted = count
    for (;;) {
      machine.settle()
      machine.switchTo(this.index)
      const result = machine.execute(count)
      if (words[guestWord] !== 0) {
        cpu.granted = 0
        return 'guest'
      }
      if (result === 'root') return 'root'
      if (result === 'halted') return this.isIn(activity.halt) ? 'halted' : 'waiting'
      if (result === 'shutdown') throw new Error(`processor ${this.index}: a triple fault in root mode\n${machine.describe(this.index)}`)
    }
  }
}

const pageMask = 4095

class DoorMemory implements MemoryPort {
  private readonly machine: VitrineMachine
  private readonly view: DataView
  constructor(machine: VitrineMachine) {
    this.machine = machine
    this.view = new DataView(machine.core.memory.buffer)
  }
  read(address: number, into: Uint8Array): void {
    this.machine.core.physical.peek(address, into)
  }
  write(address: number, from: Uint8Array): void {
    this.machine.core.physical.load(address, from)
  }
  /** Linear address of aligned RAM. */
  private placeOf(address: number, size: number): number {
    const place = address & (size - 1) ? 0 : this.machine.core.physical.pagePlace(address | 0, Math.floor(address / 2 ** 32))
    if (place === 0) throw new Error(`the hypervisor touched 0x${address.toString(16)}, where there is no RAM or which is not aligned`)
    return (place >>> 0) + (address & pageMask)
  }
  read32(address: number): number {
    return this.view.getUint32(this.placeOf(address, 4), true)
  }
  write32(address: number, value: number): void {
    const place = this.placeOf(address, 4)
    this.machine.core.physical.aboutToWrite(place & ~pageMask, 4096)
    this.view.setUint32(place, value, true)
  }
  read64(address: number): bigint {
    return this.view.getBigUint64(this.placeOf(address, 8), true)
  }
  write64(address: number, value: bigint): void {
    const place = this.placeOf(address, 8)
    this.machine.core.physical.aboutToWrite(place & ~pageMask, 4096)
    this.view.setBigUint64(place, value, true)
  }
}
