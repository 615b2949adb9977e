/**
 * A processor in 64-bit mode with CET on: supervisor and user code, stacks, shadow stacks of both, and an IDT whose handlers halt. Intel
 * SDM vol. 1, "Control-flow Enforcement Technology".
 */
import { resetState } from '../../src/cpu/reset.ts'
import type { Core } from '../../src/engine/core.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import type { Cpu } from '../../src/engine/cpu.ts'

/** Linear and physical addresses. Stacks go down from these. */
export const place = {
  pml4: 0x1000, pdpt: 0x2000, directory: 0x3000, table: 0x4000, gdt: 0x5000, tss: 0x5800, idt: 0x6000, sspTable: 0x8000, bitmap: 0x9000,
  code: 0x20000, handlers: 0x28000, userCode: 0x30000, stack: 0x41000, istStack: 0x43000, userStack: 0x51000,
  shadow: 0x60ff8, istShadow: 0x62ff8, userShadow: 0x80000, otherUserShadow: 0x73000, plain: 0x52000,
} as const

export const selector = { code: 8, data: 0x10, user: 0x2b, userData: 0x23, tss: 0x30 } as const
const present = 1n
const writable = 2n
const user = 4n
const dirty = 0x60n

/** Bits of IA32_U_CET and IA32_S_CET. */
export const control = { shadowStack: 1n, write: 2n, endbranch: 4n, legacy: 8n, noTrack: 0x10n, suppressDisable: 0x20n, suppress: 0x400n,
  waits: 0x800n } as const
/** Interrupt vectors with another stack, by their IST entry. */
export const istVector = 0x41

export interface World {
  readonly core: Core
  readonly cpu: Cpu
  load(address: number, bytes: readonly number[]): void
  quad(address: number, value: bigint): void
  read(address: number): bigint
  /** Everything anew, at the start of supervisor code, with these controls. */
  restart(supervisor: bigint, userControls: bigint): void
  /** At the start of the user's code, as if the supervisor had returned there. */
  enterUser(): void
  /** Runs to HLT; the vector whose handler halted, or -1. */
  run(): number
  /** What the handler found on its stack: the error code first, if there is one. */
  frame(index: number): bigint
}

export function createWorld(jit: boolean, specification = 'max'): World {
  const { core, cpu } = bareCpu(specification, { memory: 4 << 20, jit, hotThreshold: 16 })
  const { state } = core
  let time = 0
  const world: World = {
    core, cpu,
    load: (address, bytes) => core.physical.load(address, Uint8Array.from(bytes)),
    quad: (address, value) => core.physical.load(address, new Uint8Array(BigUint64Array.of(BigInt.asUintN(64, value)).buffer)),
    read: address => {
      const bytes = new Uint8Array(8)
      core.physical.peek(address, bytes)
      return new DataView(bytes.buffer).getBigUint64(0, true)
    },
    restart: (supervisor, userControls) => {
      resetState(state, cpu.model, true)
      pageTables(world)
      segments(world)
      core.mmu.flushAll()
      Object.assign(state, { cr0: 0x80010031n, cr3: BigInt(place.pml4), cr4: 0x800620n, efer: 0xd01n, gdtrBase: BigInt(place.gdt),
        gdtrLimit: 0x3f, idtrBase: BigInt(place.idt), idtrLimit: 0xfff, eflags: 2, rip: BigInt(place.code), ssp: BigInt(place.shadow),
        msrSCet: supervisor, msrUCet: userControls, msrSspTable: BigInt(place.sspTable), msrStar: 0x001b0008n << 32n,
        msrLstar: BigInt(place.code) })
      state.msrPlSsp.set([BigInt(place.shadow), 0n, 0n, BigInt(place.userShadow)])
      level(world, selector.code, selector.data, 0)
      state.gpr[4] = BigInt(place.stack)
      cpu.stateChanged()
    },
    enterUser: () => {
      level(world, selector.user, selector.userData, 3)
      Object.assign(state, { rip: BigInt(place.userCode), ssp: BigInt(place.userShadow) })
      state.gpr[4] = BigInt(place.userStack)
      cpu.stateChanged()
    },
    run: () => {
      state.activity = 0
      const end = time + 10_000_000
      while (time < end) {
        const stop = cpu.execute(time, end - time)
        time = cpu.reached
        if (stop === 'halted') {
          const at = Number(state.rip) - 1 - place.handlers
          return at >= 0 && at < 0x1000 ? at >> 4 : -1
        }
        if (stop === 'shutdown') throw new Error('the processor shut down')
      }
      throw new Error(`nothing has halted: RIP ${state.rip.toString(16)}`)
    },
    frame: index => world.read(Number(state.gpr[4]) + index * 8),
  }
  return world
}

/** The first 2 MiB in pages of 4 KiB: from 0x30000 and 0x50000 on a user's, from 0x60000 on shadow stacks, from 0x70000 on a user's. */
function pageTables(w: World): void {
  w.quad(place.pml4, BigInt(place.pdpt) | 7n)
  w.quad(place.pdpt, BigInt(place.directory) | 7n)
  w.quad(place.directory, BigInt(place.table) | 7n)
  for (let page = 0; page < 512; page++) {
    const area = page >> 4
    const isUser = area === 3 || area === 5 || area === 7
    const isShadow = area === 6 || area === 7
    w.quad(place.table + page * 8, BigInt(page * 4096) | present | dirty | (isUser ? user : 0n) | (isShadow ? 0n : writable))
  }
  for (let address = 0x60000; address < 0x80000; address += 8) w.quad(address, 0n)
  w.quad(place.shadow, BigInt(place.shadow))
  w.quad(place.istShadow, BigInt(place.istShadow))
  w.quad(place.sspTable + 8, BigInt(place.istShadow))
}

function segments(w: World): void {
  const descriptors = [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn, 0x00affb000000ffffn]
  descriptors.forEach((value, i) => w.quad(place.gdt + i * 8, value))
  w.quad(place.tss + 4, BigInt(place.stack))
  w.quad(place.tss + 0x24, BigInt(place.istStack))
  for (let vector = 0; vector < 256; vector++) {
    const ist = vector === istVector ? 1n : 0n
    const handler = BigInt(place.handlers + vector * 16)
    w.quad(place.idt + vector * 16, (handler & 0xffffn) | 0x80000n | (ist << 32n) | (0xeen << 40n) | ((handler >> 16n) << 48n))
    w.quad(place.idt + vector * 16 + 8, 0n)
    w.load(place.handlers + vector * 16, [0xf4])
  }
  const { state } = w.core
  state.segSelector[7] = selector.tss
  state.segBase[7] = BigInt(place.tss)
  state.segLimit[7] = 0x67
  state.segAttributes[7] = 0x8b
}

function level(w: World, code: number, data: number, cpl: number): void {
  const { state } = w.core
  for (let i = 0; i < 6; i++) {
    state.segSelector[i] = i === 1 ? code : data
    state.segBase[i] = 0n
    state.segLimit[i] = 0xffffffff
    state.segAttributes[i] = (i === 1 ? 0xa09b : 0xc093) | (cpl << 5)
  }
  state.cpl = cpl
}
