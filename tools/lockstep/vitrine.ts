/**
 * Our machine for lockstep: interrupts are held off, and a step ends also where an exception has been delivered, before the handler's first
 * instruction, as the peers' steps do.
 */
import type { CpuRegisters, MachineOptions, StopReason } from '../../src/api.ts'
import type { FollowedMachine } from '../../src/insight/lockstep/follow.ts'
import { VitrineMachine } from '../../src/machine.ts'

export class HeldMachine implements FollowedMachine {
  readonly #machine: VitrineMachine
  /** An event was delivered in this step. */
  #delivered = false

  constructor(options: MachineOptions) {
    this.#machine = new VitrineMachine({ noReboot: true, ...options })
    const cpu = this.#machine.cpuAt(0)
    cpu.holdInterrupts = true
    cpu.onEvent = () => {
      this.#delivered = true
      cpu.stopRequested = true
      return true
    }
  }

  step(): StopReason | undefined {
    const { clock } = this.#machine
    const cpu = this.#machine.cpuAt(0)
    const before = cpu.retired
    this.#delivered = false
    // A step that only reaches an alarm's deadline executes nothing: once more, then.
    for (let tries = 0; cpu.retired === before && !this.#delivered; tries++) {
      if (tries > 1000) throw new Error(`our machine does not get past RIP ${this.#machine.registers().rip.toString(16)}`)
      clock.source = undefined
      clock.advanceTo(clock.now())
      cpu.stopRequested = false
      const start = clock.now()
      clock.source = () => cpu.now()
      const result = cpu.execute(start, 1)
      clock.source = undefined
      clock.advanceTo(Math.max(cpu.reached, start))
      if (result === 'shutdown') return { kind: 'triple-fault', report: this.#machine.describe() }
      if (result === 'halted') return { kind: 'idle' }
    }
    return undefined
  }

  registers(): CpuRegisters {
    return this.#machine.registers()
  }
  setRegisters(registers: Partial<CpuRegisters>): void {
    this.#machine.setRegisters(registers)
  }
  readPhysical(address: number, length: number): Uint8Array {
    return this.#machine.readPhysical(address, length)
  }
  writePhysical(address: number, bytes: Uint8Array): void {
    this.#machine.writePhysical(address, bytes)
  }
  translate(linear: bigint): number | undefined {
    return this.#machine.translate(linear)
  }
}
