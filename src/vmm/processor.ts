/**
 * One physical processor in the hypervisor's hands: its instructions by name, its interrupts, its local APIC. Intel SDM vol. 3, "Advanced
 * Programmable Interrupt Controller (APIC)".
 */
import { pageSize, processorPlaces } from './layout.ts'
import { register, type HardwarePort, type ProcessorPort, type Standing } from './port.ts'
import { addressOf, vectorAt, type Operation } from './root-code.ts'

const low32 = 0xffffffffn
const { rax, rcx, rdx, rbx, rsp } = register

/** Registers of the local APIC by their offset. */
export const apic = {
  id: 0x20, taskPriority: 0x80, endOfInterrupt: 0xb0, spurious: 0xf0, commandLow: 0x300, commandHigh: 0x310, timer: 0x320,
  initialCount: 0x380, divide: 0x3e0,
} as const

/** Vectors that the hypervisor gives its own interrupts. */
export const hostVector = {
  timer: 0x40, kick: 0x41, posted: 0x42, wakeUp: 0x43, fault: 0x44, outside: 0x45, firstDevice: 0x50, spurious: 0xff,
} as const

/** An exception that an instruction of the hypervisor's raised. */
export interface RootFault {
  readonly vector: number
  readonly error: number | undefined
  /** CR2 of a page fault. */
  readonly address: bigint | undefined
}

const hasErrorCode = new Set([8, 10, 11, 12, 13, 14, 17, 21, 29, 30])
const exceptionNames = ['#DE', '#DB', 'NMI', '#BP', '#OF', '#BR', '#UD', '#NM', '#DF', '', '#TS', '#NP', '#SS', '#GP', '#PF', '',
  '#MF', '#AC', '#MC', '#XM', '#VE', '#CP'] as const

/**
 * A processor in root mode. `perform` throws when an instruction raises an exception; `attempt` says which one. Addresses are physical,
 * mapped one to one.
 */
export class Processor {
  /** Its number, which is its APIC ID. */
  readonly index: number
  /** What it is made of. */
  readonly port: ProcessorPort
  /** The machine it belongs to. */
  readonly hardware: HardwarePort
  /** Physical addresses of its TSS, stack, VMXON region or host save area, and scratch page. */
  readonly places: ReturnType<typeof processorPlaces>
  /** Interrupts that came while it was in root mode, and instructions that it executed there, for reports. */
  interrupts = 0
  instructions = 0
  /** Is told the vector of each interrupt that it takes. */
  onInterrupt: (vector: number) => void = () => {}

  constructor(hardware: HardwarePort, port: ProcessorPort) {
    this.hardware = hardware
    this.port = port
    this.index = port.index
    this.places = processorPlaces(port.index)
  }

  // ---- one instruction ----

  /** Executes an instruction; an exception that it raises is a value. */
  attempt(operation: Operation, a?: bigint, c?: bigint): RootFault | undefined {
    if (a !== undefined) this.port.set(rax, a)
    if (c !== undefined) this.port.set(rcx, c)
    this.instructions++
    const standing = this.port.execute(addressOf[operation])
    return standing === 'root' ? this.takeFault() : undefined
  }
  /** The same where an exception is a mistake of the hypervisor's. */
  perform(operation: Operation, a?: bigint, c?: bigint): void {
    const fault = this.attempt(operation, a, c)
    if (fault) throw new Error(`${operation} on processor ${this.index} raised ${exceptionNames[fault.vector]}`
      + `${fault.error === undefined ? '' : `(${fault.error})`}: RAX ${hex(this.port.get(rax))}, RCX ${hex(this.port.get(rcx))}`)
  }

  /** If it stands at the handler of an exception: what that was. The handler's frame is taken off the stack. */
  private takeFault(): RootFault | undefined {
    const vector = vectorAt(this.port.rip)
    if (vector === undefined || vector >= 32) return undefined
    const frame = Number(this.port.get(rsp))
    const error = hasErrorCode.has(vector) ? Number(this.hardware.memory.read64(frame)) : undefined
    this.port.set(rsp, BigInt(this.places.stackTop))
    if (vector !== 14) return { vector, error, address: undefined }
    this.perform('readCr2')
    return { vector, error, address: this.port.get(rax) }
  }

  // ---- instructions with results ----

  /** RDMSR; throws for #GP. */
  rdmsr(index: number): bigint {
    const value = this.tryRdmsr(index)
    if (value === undefined) throw new Error(`the processor has no MSR 0x${index.toString(16)}`)
    return value
  }
  /** Undefined: #GP. */
  tryRdmsr(index: number): bigint | undefined {
    if (this.attempt('rdmsr', undefined, BigInt(index))) return undefined
    return (this.port.get(rdx) << 32n) | (this.port.get(rax) & low32)
  }
  /** WRMSR; throws for #GP. */
  wrmsr(index: number, value: bigint): void {
    this.port.set(rdx, value >> 32n)
    this.perform('wrmsr', value & low32, BigInt(index))
  }
  /** CPUID, of the processor itself. */
  cpuid(leaf: number, subleaf = 0): CpuidResult {
    this.perform('cpuid', BigInt(leaf >>> 0), BigInt(subleaf >>> 0))
    const low = (number: number): number => Number(this.port.get(number) & low32)
    return { eax: low(rax), ebx: low(rbx), ecx: low(rcx), edx: low(rdx) }
  }
  /** The time-stamp counter: virtual nanoseconds. */
  rdtsc(): bigint {
    this.perform('rdtsc')
    return (this.port.get(rdx) << 32n) | (this.port.get(rax) & low32)
  }
  /** A memory operand of 8 or 16 bytes, in the processor's scratch page. */
  operand(...quads: bigint[]): bigint {
    quads.forEach((quad, i) => this.hardware.memory.write64(this.places.scratch + i * 8, quad))
    return BigInt(this.places.scratch)
  }

  // ---- the local APIC ----

  /** A register of its local APIC, by its offset. */
  readApic(offset: number): number {
    this.perform('load32', BigInt(this.hardware.apicBase + offset))
    return Number(this.port.get(rcx) & low32)
  }
  /** Writes one. */
  writeApic(offset: number, value: number): void {
    this.perform('store32', BigInt(this.hardware.apicBase + offset), BigInt(value >>> 0))
  }
  /** Fixed interrupt for another processor, or for itself. */
  sendInterrupt(to: number, vector: number): void {
    this.writeApic(apic.commandHigh, to << 24)
    this.writeApic(apic.commandLow, 0x4000 | vector)
  }
  /** INIT, to an APIC ID. */
  sendInit(to: number): void {
    this.writeApic(apic.commandHigh, to << 24)
    this.writeApic(apic.commandLow, 0x4500)
  }
  /** A start-up message with the page of an address below 1 MiB. */
  sendStartup(to: number, address: number): void {
    this.writeApic(apic.commandHigh, to << 24)
    this.writeApic(apic.commandLow, 0x4600 | (address / pageSize))
  }
  /** Software-enabled, its timer by the hypervisor's vector. */
  enableApic(): void {
    this.writeApic(apic.spurious, 0x100 | hostVector.spurious)
    this.writeApic(apic.divide, 0xb) // by 1
    this.writeApic(apic.timer, hostVector.timer)
    this.writeApic(apic.taskPriority, 0)
  }
  /** One shot of the APIC timer; 0 stops it. */
  setTimer(nanoseconds: number): void {
    const ticks = Math.ceil((nanoseconds * this.hardware.apicHertz) / 1e9)
    this.writeApic(apic.initialCount, nanoseconds === 0 ? 0 : Math.min(Math.max(ticks, 1), 0xffffffff))
  }

  // ---- interrupts ----

  /**
   * What holds interrupts back in root mode: RFLAGS.IF = 0, or (AMD-V, where IF is 1 so that they end a guest) GIF = 0. AMD APM vol. 2,
   * "Global Interrupt Flag, STGI and CLGI Instructions".
   */
  heldBy: 'IF' | 'GIF' = 'IF'

  /** Lets what is pending be delivered, and handles it. */
  openWindow(): void {
    this.perform(this.heldBy === 'GIF' ? 'stgi' : 'sti')
    // STI holds them back for one more instruction
    if (this.heldBy === 'IF' && vectorAt(this.port.rip) === undefined) this.perform('nop')
    this.awake()
  }
  /** An exit has acknowledged an interrupt: it is handled here. */
  acknowledged(vector: number): void {
    this.interrupts++
    if (vector !== hostVector.spurious) this.writeApic(apic.endOfInterrupt, 0)
    this.onInterrupt(vector)
  }
  /** Halts until an interrupt comes: then it stands at the handler, and `awake` is to be called. */
  halt(): Standing {
    if (this.heldBy === 'GIF') {
      this.perform('cli')
      this.perform('stgi')
      // an NMI may have waited
      this.takeInterrupts()
    }
    this.instructions += 2
    return this.port.execute(addressOf.stiHlt, 2)
  }
  /** Handles what has come, and holds interrupts back again: another one may come before the instruction that does. */
  awake(): void {
    do {
      this.takeInterrupts()
      this.perform(this.heldBy === 'GIF' ? 'clgi' : 'cli')
    } while (vectorAt(this.port.rip) !== undefined)
  }
  /** As long as it stands at the handler of an interrupt: acknowledges it and returns from it. */
  private takeInterrupts(): void {
    for (;;) {
      const vector = vectorAt(this.port.rip)
      if (vector === undefined) return
      if (vector < 32 && vector !== 2)
        throw new Error(`processor ${this.index} took ${exceptionNames[vector]} where it waited for interrupts`)
      this.interrupts++
      if (vector !== hostVector.spurious && vector !== 2) this.writeApic(apic.endOfInterrupt, 0)
      this.onInterrupt(vector)
      this.instructions++
      this.port.execute(addressOf.iret)
    }
  }
}

/** Four registers, as unsigned numbers. */
export interface CpuidResult {
  eax: number
  ebx: number
  ecx: number
  edx: number
}

const hex = (value: bigint): string => `0x${value.toString(16)}`

