/** A machine between two runs, as plain data (MachineState in api.ts), and as one hash of all that software could see. */
import { sha256 } from '@noble/hashes/sha2.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { MachineOptions, MachineState, SavedCpu } from '../api.ts'
import { at, fieldBytes, fields, type FieldName } from '../cpu/layout.ts'
import { readRflags } from '../cpu/rflags.ts'
import { restoreCpuState, saveCpuState } from '../cpu/saved-state.ts'
import type { Core } from '../engine/core.ts'
import { InputError } from '../errors.ts'
import type { TlbState } from '../mmu/tlb.ts'
import type { VirtualClock } from '../platform/clock.ts'
import type { Pc } from '../platform/pc.ts'
import type { Processors } from './processors.ts'
import { expectFinite, expectKept, expectKind } from './state-shape.ts'

/** IA32_EFER.SVME. */
const svmEnabled = 1n << 12n

/** What a machine consists of. */
export interface MachineParts {
  readonly options: MachineOptions
  readonly core: Core
  readonly clock: VirtualClock
  readonly pc: Pc
  readonly processors: Processors
}

/** `pending`: what the machine itself has to do yet. */
export function saveMachine(parts: MachineParts, pending: { asleep: boolean; resetRequested: boolean }): MachineState {
  const { core, clock, pc, processors } = parts
  const { loaded, current, last, turnEnd } = processors
  processors.slots.forEach((_, index) => refuseVirtualization(processors, index))
  const cpus = processors.slots.map(({ cpu, parked, nmi, smi, init, startup }, index): SavedCpu => {
    return { state: saveCpuState(index === current ? loaded : parked), ...cpu.saveState(), nmi, smi, init, startup }
  })
  return {
    configuration: configurationOf(parts),
    cpus,
    tlbs: core.mmu.saveState(),
    ...(core.mmu.secondStage?.saveState ? { secondStage: core.mmu.secondStage.saveState() } : {}),
    memory: [...core.physical.filledChunks()].map(({ address, bytes }) => ({ address, bytes: bytes.slice() })),
    clock: clock.saveState(),
    devices: pc.saveState(),
    disks: pc.disks.map(disk => ({ id: disk.id, units: [...disk.changes()] })),
    turns: { ...pending, last, turnEnd },
  }
}

/** Throws when the state is of another machine. `devicesRestored`: their places are to be mapped anew. */
export function restoreMachine(parts: MachineParts, saved: MachineState, devicesRestored: () => void): void {
  const own = configurationOf(parts)
  if (saved.configuration !== own) throw new InputError(`the saved state is of another machine: ${differenceOf(saved.configuration, own)}`)
  reportDamage(() => restoreParts(parts, saved, devicesRestored))
}

/** Whoever edits a saved machine by hand is told what is wrong with it in one line. */
function reportDamage(restore: () => void): void {
  try {
    restore()
  } catch (error) {
    if (error instanceof InputError) throw error
    throw new InputError(`the saved machine is damaged: ${(error as Error).message}`, { cause: error })
  }
}

function restoreParts(parts: MachineParts, saved: MachineState, devicesRestored: () => void): void {
  const { core, clock, pc, processors } = parts
  expectParts(parts, saved)
  core.running!.flushCode()
  core.physical.restoreChunks(saved.memory)
  for (const disk of pc.disks) disk.restoreChanges(saved.disks.find(({ id }) => id === disk.id)?.units ?? [])
  clock.restoreState(saved.clock)
  pc.restoreState(saved.devices)
  expectKept(saved.devices, pc.saveState(), 'devices')
  devicesRestored()
  processors.last = saved.turns.last
  processors.turnEnd = saved.turns.turnEnd
  for (const [index, cpu] of saved.cpus.entries()) restoreProcessor(processors, index, cpu)
  core.mmu.restoreState(saved.tlbs as TlbState[])
  if (saved.secondStage !== undefined) core.mmu.secondStage?.restoreState?.(saved.secondStage)
  processors.slots.forEach(({ cpu }, index) => {
    if (!cpu.virt?.restored) return
    processors.switchTo(index)
    cpu.virt.restored()
  })
}

const cpuKinds: SavedCpu = { state: new Uint8Array(0), retired: 0, shadowAt: 0, nmi: false, smi: false, init: false, startup: 0 }

/** Resets the devices: what they are then tells of what kind their fields are. */
function expectParts({ pc, processors: { slots } }: MachineParts, { cpus, tlbs, turns, clock, devices }: MachineState): void {
  for (const [name, part] of Object.entries({ cpus, tlbs, turns, clock, devices })) expectFinite(part, name)
  expectKind(cpus, slots.map(() => cpuKinds), 'cpus')
  expectKind(tlbs, slots.map(() => ({ entries: [], nextWays: [] })), 'tlbs')
  expectKind(turns, { asleep: false, resetRequested: false, last: 0, turnEnd: 0 }, 'turns')
  expectKind(clock, { now: 0, alarms: {} }, 'clock')
  expectKind(devices, pc.resetState(), 'devices')
}

function restoreProcessor(processors: Processors, index: number, saved: SavedCpu): void {
  const { state, retired, shadowAt, nmi, smi, init, startup } = saved
  const slot = processors.slots[index]
  // What waited before must not reach it, and what waits must not before its state is there.
  Object.assign(slot, { nmi: false, smi: false, init: false, startup: -1 })
  processors.switchTo(index)
  restoreCpuState(processors.loaded, state)
  slot.cpu.restoreState({ retired, shadowAt })
  slot.cpu.stateChanged()
  slot.cpu.interruptChanged()
  Object.assign(slot, { nmi, smi, init, startup })
}

/** What is cached of nested page tables, and the VMCBs of a processor, are no plain data. */
function refuseVirtualization(processors: Processors, index: number): void {
  if (processors.fieldOf(index, 'efer') & svmEnabled) {
    throw new InputError(`the machine cannot be saved now: processor ${index} has SVM switched on`)
  }
}

/** What two machines must share for a state to go from one to the other. The engine may differ. */
function configurationOf({ options: all, pc }: MachineParts): string {
  const { engine: _engine, noReboot: _noReboot, drives: _drives, shares: _shares, ...options } = all
  const disks = pc.disks.map(({ id, byteLength, readOnly }) => ({ id, byteLength, readOnly }))
  return JSON.stringify(withDigests({ ...options, disks }))
}

/** The first option that differs, with what it was. */
function differenceOf(saved: string, own: string): string {
  let was: Record<string, unknown>
  try {
    was = Object(JSON.parse(saved)) as Record<string, unknown>
  } catch {
    return 'expected the options that it was saved with, found none that can be read'
  }
  const is = JSON.parse(own) as Record<string, unknown>
  const shown = (value: unknown): string => (JSON.stringify(value) ?? 'none').slice(0, 80)
  const key = Object.keys({ ...is, ...was }).find(each => JSON.stringify(is[each]) !== JSON.stringify(was[each]))
  return key === undefined ? 'its options have another order' : `${key}: expected ${shown(was[key])}, found ${shown(is[key])}`
}

/** The same with a digest in the place of each array of bytes. */
function withDigests(value: unknown): unknown {
  if (value instanceof Uint8Array) return bytesToHex(sha256(value))
  if (Array.isArray(value)) return value.map(withDigests)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withDigests(each)]))
}

/** Of the architectural fields of all CPUs, RAM that is not zero, devices, what is written to disks, and clock. */
export function hashOf({ core, clock, pc, processors }: MachineParts): string {
  const hash = sha256.create()
  const text = new TextEncoder()
  processors.slots.forEach(({ cpu }, index) => {
    processors.switchTo(index)
    // a shadow that is over may not have been cleared yet
    cpu.shadowed()
    hash.update(text.encode(`rflags ${readRflags(core.state)}\n`))
    for (const name of Object.keys(fields) as FieldName[])
      if (fields[name].kind === 'architectural' && !name.startsWith('flag'))
        hash.update(new Uint8Array(core.memory.buffer, at[name], fieldBytes(name)))
  })
  for (const { address, bytes } of core.physical.filledChunks()) {
    hash.update(text.encode(`chunk ${address}\n`))
    hash.update(bytes)
  }
  for (const disk of pc.disks) {
    for (const { index, bytes } of disk.changes()) {
      hash.update(text.encode(`disk ${disk.id} ${index}\n`))
      hash.update(bytes)
    }
  }
  hash.update(text.encode(JSON.stringify([clock.now(), pc.saveState(), processors.retired])))
  return bytesToHex(hash.digest())
}
