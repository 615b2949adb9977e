/** A processor for tests of the system half: flat memory without paging, no engine. Not part of the machine. */
import { join } from './bits.ts'
import { deriveState } from './derive.ts'
import { Fault, vector } from './fault.ts'
import { createModel } from './models.ts'
import { after, type CurrentOperation, type Privilege, type Processor } from './processor.ts'
import { resetState } from './reset.ts'
import { createCpuState, type CpuState } from './state.ts'

const memoryStart = 0x10000
export const memoryBytes = 0x100000

export interface TestOperation extends CurrentOperation {
  operandSize: number
  addressSize: number
  repeat: number
  segment: number
  nextRip: bigint
  immediate: bigint
  registers: [number, number, number]
  length: number
  noTrack: boolean
}

export interface TestProcessor extends Processor {
  readonly operation: TestOperation
  /** What was called on translation, ports and the APIC, in order. */
  readonly calls: string[]
  time: number
  /** Pages (address >> 12) whose accesses fault. */
  readonly absent: Set<number>
  /** What ports give. */
  portValue: number
  /** Memory goes by single accesses only, as if it were not RAM. */
  slow: boolean
  /** All memory that does not fault is in the kernel's first-level tables. */
  known: boolean
}

/** Linear addresses are taken modulo 1 MiB, so that canonical high addresses work too. */
export function createTestProcessor(modelName = 'intel'): TestProcessor {
  const memory = new WebAssembly.Memory({ initial: (memoryStart + memoryBytes) / 65536, maximum: (memoryStart + memoryBytes) / 65536 })
  const state = createCpuState(memory)
  const model = createModel(modelName)
  const view = new DataView(memory.buffer)
  const calls: string[] = []
  const absent = new Set<number>()
  const place = (address: bigint, write: boolean, as: Privilege = 'current'): number => {
    const offset = Number(address & BigInt(memoryBytes - 1))
    const user = as === 'user' || (as === 'current' && state.cpl === 3)
    if (absent.has(offset >> 12)) throw new Fault(vector.PF, (write ? 2 : 0) | (user ? 4 : 0), address)
    return memoryStart + offset
  }
  const probe = (address: bigint, length: number, write: boolean, as?: Privilege): void => {
    place(address, write, as)
    place(address + BigInt(length - 1), write, as)
  }
  const cpu: TestProcessor = {
    index: 0, state, model, calls, absent, time: 0, portValue: 0, slow: false, known: false, onDelivery: undefined,
    shadowCast: () => void calls.push('shadowCast'),
    memory: {
      read8: (address, as) => view.getUint8(place(address, false, as)),
      read16: (address, as) => view.getUint16(place(address, false, as), true),
      read32: (address, as) => view.getUint32(place(address, false, as), true),
      read64: (address, as) => view.getBigUint64(place(address, false, as), true),
      write8: (address, value, as) => view.setUint8(place(address, true, as), value),
      write16: (address, value, as) => view.setUint16(place(address, true, as), value, true),
      write32: (address, value, as) => view.setUint32(place(address, true, as), value, true),
      write64: (address, value, as) => view.setBigUint64(place(address, true, as), value, true),
      probeRead: (address, length, as) => probe(address, length, false, as),
      probeWrite: (address, length, as) => probe(address, length, true, as),
      placeForRead: (address, as) => (place(address, false, as), cpu.slow ? 0 : place(address, false, as)),
      knownPlace: (low, high, write) => {
        const address = join(low >>> 0, high >>> 0)
        return cpu.known && !absent.has((low & (memoryBytes - 1)) >> 12) ? place(address, write, 'supervisor') : 0
      },
      placeForBulkWrite: address => (place(address, true), cpu.slow ? 0 : place(address, true)),
      readShadow: (address, size, user) => {
        const from = place(address, false, user ? 'user' : 'supervisor')
        return size === 8 ? view.getBigUint64(from, true) : BigInt(view.getUint32(from, true))
      },
      writeShadow: (address, size, value, user) => {
        const to = place(address, true, user ? 'user' : 'supervisor')
        if (size === 8) view.setBigUint64(to, value, true)
        else view.setUint32(to, Number(value & 0xffffffffn), true)
      },
      probeShadow: (address, length, user) => probe(address, length, true, user ? 'user' : 'supervisor'),
      placeForWrite: (address, as) => (place(address, true, as), cpu.slow ? 0 : place(address, true, as)),
    },
    translation: {
      updateContext: () => {},
      cr3Written: keep => void calls.push(`cr3Written ${keep}`),
      controlWritten: () => void calls.push('controlWritten'),
      invlpg: (low, high) => void calls.push(`invlpg ${join(low, high).toString(16)}`),
      invpcid: (type, pcid, address) => void calls.push(`invpcid ${type} ${pcid} ${address.toString(16)}`),
      flushAll: () => {},
      probe: () => undefined,
    },
    apic: {
      getTpr: () => 0,
      setTpr: value => void calls.push(`tpr ${value}`),
      readMsr: index => (index === 0x1b ? 0xfee00900n : undefined),
      writeMsr: (index, value) => (calls.push(`apic ${index.toString(16)} ${value.toString(16)}`), true),
    },
    ports: {
      read: (port, size) => (calls.push(`in ${port.toString(16)} ${size}`), cpu.portValue),
      write: (port, size, value) => void calls.push(`out ${port.toString(16)} ${size} ${value.toString(16)}`),
    },
    virt: undefined,
    guest: undefined,
    smm: {
      saveMap: model.vendor === 'AuthenticAMD' ? 'amd64' : 'intel64',
      read: (address, into) => into.set(new Uint8Array(memory.buffer, place(BigInt(address), false), into.length)),
      write: (address, from) => new Uint8Array(memory.buffer).set(from, place(BigInt(address), true)),
      modeChanged: () => void calls.push('smm'),
    },
    operation: { operandSize: 32, addressSize: 32, repeat: 0, segment: 3, nextRip: 0n, immediate: 0n, registers: [0, 0, 0],
      get firstRegister() { return this.registers[0] }, length: 2, noTrack: false },
    now: () => cpu.time,
    retiredNow: () => cpu.time,
    unhaltedTime: () => cpu.time,
    countersChanged: () => void calls.push('countersChanged'),
    spend: nanoseconds => void (cpu.time += nanoseconds),
    singleStep: trap => void calls.push(`singleStep ${trap}`),
    stateChanged: () => deriveState(state),
    branchTracked: () => after.jumpAndLeave,
    exitGuest: exit => {
      throw exit
    },
    log: () => {},
  }
  resetState(state, model, true)
  return cpu
}

export const gdtAddress = 0x1000n
export const idtAddress = 0x2000n
export const tssAddress = 0x4000n

/** Selectors of the descriptors that `enterProtected` and `enterLong` set up. */
export const selectors = { code0: 0x08, data0: 0x10, code3: 0x1b, data3: 0x23, code64: 0x28, user64: 0x33, tss: 0x40, otherTss: 0x58,
  conforming: 0x50, free: 0x60 } as const

export const descriptor = {
  code32: (dpl: number): bigint => 0x00cf9a000000ffffn | (BigInt(dpl) << 45n),
  data32: (dpl: number): bigint => 0x00cf92000000ffffn | (BigInt(dpl) << 45n),
  code64: (dpl: number): bigint => 0x00af9a000000ffffn | (BigInt(dpl) << 45n),
  tss: (base: number, limit: number): bigint => BigInt(limit) | (BigInt(base & 0xffffff) << 16n) | (0x89n << 40n),
} as const

/** Gate of 8 bytes (and the low half of 16). type: 14 interrupt, 15 trap. */
export function gate(selector: number, offset: number, type: number, dpl = 0, ist = 0): bigint {
  return BigInt(offset & 0xffff) | (BigInt(selector) << 16n) | (BigInt(ist) << 32n) | (BigInt(0x80 | (dpl << 5) | type) << 40n)
    | (BigInt(offset >>> 16) << 48n)
}

function writeGdt(cpu: Processor): void {
  const entries: Record<number, bigint> = {
    [selectors.code0]: descriptor.code32(0), [selectors.data0]: descriptor.data32(0), [selectors.code3 & ~3]: descriptor.code32(3),
    [selectors.data3 & ~3]: descriptor.data32(3),
    [selectors.code64]: descriptor.code64(0), [selectors.user64 & ~3]: descriptor.code64(3),
    [selectors.tss]: descriptor.tss(Number(tssAddress), 0x67), 0x48: 0n,
    [selectors.conforming]: descriptor.code32(0) | (1n << 42n),
  }
  for (const [selector, value] of Object.entries(entries)) cpu.memory.write64(gdtAddress + BigInt(selector), value)
  cpu.state.gdtrBase = gdtAddress
  cpu.state.gdtrLimit = 0xff
  cpu.state.idtrBase = idtAddress
  cpu.state.idtrLimit = 0xfff
}

function setFlat(state: CpuState, cpl: number, code: number, data: number, codeAttributes: number): void {
  const dpl = cpl << 5
  state.segSelector[1] = code
  state.segBase[1] = 0n
  state.segLimit[1] = 0xffffffff
  state.segAttributes[1] = codeAttributes | dpl
  for (const index of [0, 2, 3, 4, 5]) {
    state.segSelector[index] = data
    state.segBase[index] = 0n
    state.segLimit[index] = 0xffffffff
    state.segAttributes[index] = 0xc093 | dpl
  }
  state.segSelector[7] = selectors.tss
  state.segBase[7] = tssAddress
  state.segLimit[7] = 0x67
  state.segAttributes[7] = 0x8b
  state.cpl = cpl
}

/** 32-bit protected mode without paging at a privilege level, with GDT, empty IDT and TSS. */
export function enterProtected(cpu: Processor, cpl = 0): void {
  writeGdt(cpu)
  cpu.state.cr0 = 0x11n
  setFlat(cpu.state, cpl, cpl === 0 ? selectors.code0 : selectors.code3, cpl === 0 ? selectors.data0 : selectors.data3, 0xc09b)
  cpu.stateChanged()
}

/** 64-bit mode. */
export function enterLong(cpu: Processor, cpl = 0): void {
  writeGdt(cpu)
  cpu.state.cr0 = 0x80000011n
  cpu.state.cr4 = 0x20n
  cpu.state.efer = 0xd01n
  setFlat(cpu.state, cpl, cpl === 0 ? selectors.code64 : selectors.user64, cpl === 0 ? selectors.data0 : selectors.data3, 0xa09b)
  ;(cpu as TestProcessor).operation.operandSize = 64
  ;(cpu as TestProcessor).operation.addressSize = 64
  cpu.stateChanged()
}

/** The Fault that `action` throws; undefined when it throws none. */
export function faultOf(action: () => unknown): { vector: number; error: number | undefined } | undefined {
  try {
    action()
    return undefined
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault
    return { vector: fault.vector, error: fault.error }
  }
}
