/**
 * Runs random code in every mode of the processor and looks for what must never happen: an exception of ours, more instructions than were
 * allowed, or no end. Whatever the code does to the machine is right as far as this goes.
 */
import { resetState } from '../../src/cpu/reset.ts'
import { segment } from '../../src/cpu/layout.ts'
import { isCompiled } from '../../src/cpu/mode.ts'
import { writeRflags } from '../../src/cpu/rflags.ts'
import type { Core } from '../../src/engine/core.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import type { Cpu } from '../../src/engine/cpu.ts'
import { Random } from './random.ts'
import { randomCode } from './random-code.ts'

export const modes = ['real', 'virtual8086', 'protected16', 'protected32', 'paged32', 'long', 'compatibility'] as const
export type FuzzMode = (typeof modes)[number]

/** Physical and linear addresses of what a run starts with; all of it lies in the first MiB, which is mapped to itself. */
const place = {
  tables: 0x1000, directory32: 0x5000, table32: 0x6000, gdt: 0x8000, idtLong: 0x9000, idt: 0xa000, tss: 0xb000, stacks: 0xc000,
  code: 0x10000, data: 0x20000,
}
const codeBytes = 0x3000
const ramBytes = 1 << 20

/** Selectors: at level 0, + 3 and the next block of 0x20 at level 3. */
const selectors = { code16: 0x08, code32: 0x10, code64: 0x18, data: 0x20, user: 0x20, tss: 0x50 }
const descriptors: readonly bigint[] = [
  0n, 0x000f9b000000ffffn, 0x00cf9b000000ffffn, 0x00af9b000000ffffn, 0x00cf93000000ffffn,
  0x000ffb000000ffffn, 0x00cffb000000ffffn, 0x00affb000000ffffn, 0x00cff3000000ffffn,
]

export interface FuzzOptions {
  readonly model: string
  /** Virtual time of a run: at most as many instructions. Events, ports and slow instructions use it up too. */
  readonly nanoseconds: number
}

export class Fuzzer {
  readonly core: Core
  readonly cpu: Cpu
  private readonly options: FuzzOptions
  private readonly image = new Uint8Array(ramBytes)
  private readonly view = new DataView(this.image.buffer)
  private events = 0
  private deadline = Infinity

  constructor(options: FuzzOptions) {
    this.options = options
    const ports = { read: () => 0xff, write: () => {} }
    const { core, cpu } = bareCpu(options.model, { memory: ramBytes, jit: true, ports, nextDeadline: () => this.deadline })
    this.core = core
    this.cpu = cpu
    this.core.jit!.compileEverything()
    this.cpu.onEvent = () => {
      if (++this.events > options.nanoseconds) throw new Error('events are delivered for ever and cost no time')
      return true
    }
  }

  /** One run. What it throws is a bug of ours. */
  run(seed: number, mode: FuzzMode = new Random(seed).pick(modes)): void {
    const random = new Random(seed)
    this.prepare(random, mode)
    const { core, cpu } = this
    if (isCompiled(core.state.mode) && random.chance(2)) {
      for (const offset of [Number(core.state.rip & 0xfffn), random.below(4096)])
        core.jit!.request(this.pageOfCode(), offset, core.state.mode, core.state.rip)
      core.jit!.compile()
    }
    const { nanoseconds } = this.options
    const retired = cpu.retired
    const start = cpu.reached
    this.events = 0
    const stop = cpu.execute(start, nanoseconds)
    if (cpu.retired - retired > nanoseconds) throw new Error(`${cpu.retired - retired} instructions were executed in ${nanoseconds} ns`)
    if (cpu.reached < start) throw new Error(`time ran backwards: ${start} to ${cpu.reached}`)
    if (stop === 'time' && cpu.reached - start < nanoseconds) throw new Error(`stopped after ${cpu.reached - start} of ${nanoseconds} ns`)
  }

  /** Where in linear memory the page at RIP lies. */
  private pageOfCode(): number {
    return (this.core.mmu.fetchPlace(Number(this.core.state.rip), 0) & ~4095) >>> 0
  }

  private prepare(random: Random, mode: FuzzMode): void {
    this.buildMemory(random, mode)
    const { state, mmu, physical } = this.core
    physical.write(0, this.image)
    resetState(state, this.cpu.model, true)
    for (let i = 0; i < 16; i++) state.gpr[i] = randomValue(random)
    random.fill(new Uint8Array(this.core.memory.buffer, state.vector.byteOffset, 16 * 64))
    state.fpTags = random.below(256)
    state.fpTop = random.below(8)
    this.enter(random, mode)
    state.gpr[4] = BigInt(random.chance(8) ? random.word() : place.stacks + 0x800)
    state.rip = BigInt(random.below(codeBytes))
    if (mode === 'long' || mode === 'compatibility') state.rip += BigInt(place.code)
    state.activity = 0
    mmu.flushAll()
    this.cpu.stateChanged()
  }

  private buildMemory(random: Random, mode: FuzzMode): void {
    const { image, view } = this
    image.fill(0)
    for (let number = 0; number < 256; number++)
      view.setUint32(number * 4, random.chance(2) ? (place.code << 12) | random.below(codeBytes) : random.word(), true)
    this.buildTables(random)
    descriptors.forEach((descriptor, i) => view.setBigUint64(place.gdt + i * 8, descriptor, true))
    view.setBigUint64(place.gdt + selectors.tss, 0x00008b0000000067n | (BigInt(place.tss) << 16n), true)
    for (let i = 0x60; i < 0x100; i += 8)
      view.setBigUint64(place.gdt + i, random.chance(2) ? random.wide() : random.pick(descriptors), true)
    const isLong = mode === 'long' || mode === 'compatibility'
    for (let number = 0; number < 256; number++) this.putGate(random, number, isLong)
    for (const at of isLong ? [4, 12, 20, 0x24, 0x2c] : [4]) view.setUint32(place.tss + at, place.stacks + 0xff0, true)
    if (!isLong) view.setUint16(place.tss + 8, selectors.data, true)
    view.setUint16(place.tss + 0x66, random.chance(2) ? 0 : 0xffff, true)
    image.set(randomCode(random, codeBytes), place.code)
    for (let i = 0; i < 0x1000; i += 4) view.setUint32(place.data + i, random.word(), true)
  }
  /** Identity, with some pages out of reach. */
  private buildTables(random: Random): void {
    const { view } = this
    view.setBigUint64(place.tables, BigInt(place.tables + 0x1000) | 7n, true)
    view.setBigUint64(place.tables + 0x1000, BigInt(place.tables + 0x2000) | 7n, true)
    view.setBigUint64(place.tables + 0x2000, BigInt(place.tables + 0x3000) | 7n, true)
    view.setUint32(place.directory32, place.table32 | 7, true)
    for (let page = 0; page < 256; page++) {
      const rights = page > 0x21 && random.chance(3) ? random.below(8) : 7
      view.setBigUint64(place.tables + 0x3000 + page * 8, BigInt((page << 12) | rights), true)
      view.setUint32(place.table32 + page * 4, (page << 12) | rights, true)
    }
  }
  private putGate(random: Random, number: number, isLong: boolean): void {
    const offset = place.code + random.below(codeBytes)
    const selector = isLong ? selectors.code64 : selectors.code32
    const type = random.chance(16) ? random.below(256) : 0x8e | (random.below(2) * 0x60) | random.below(2)
    const low = BigInt(offset & 0xffff) | (BigInt(selector) << 16n) | (BigInt(type) << 40n) | (BigInt(offset >>> 16) << 48n)
    if (isLong) this.view.setBigUint64(place.idtLong + number * 16, low, true)
    else this.view.setBigUint64(place.idt + number * 8, low, true)
  }

  private enter(random: Random, mode: FuzzMode): void {
    const { state } = this.core
    const isLong = mode === 'long' || mode === 'compatibility'
    const level = mode === 'virtual8086' ? 3 : mode === 'real' ? 0 : random.pick([0, 3])
    const flags = 2 | (random.word() & 0x44ed5) | (random.chance(16) ? 0x100 : 0) | (random.below(4) << 12)
    writeRflags(state, flags | (mode === 'virtual8086' ? 0x20000 : 0))
    state.gdtrBase = BigInt(place.gdt)
    state.gdtrLimit = 0xff
    state.idtrBase = mode === 'real' ? 0n : BigInt(isLong ? place.idtLong : place.idt)
    state.idtrLimit = isLong ? 0xfff : mode === 'real' ? 0x3ff : 0x7ff
    state.cpl = level
    state.cr0 = mode === 'real'
      ? 0x10n
      : 0x33n | (isLong || mode === 'paged32' || mode === 'virtual8086' ? 1n << 31n : 0n) | (random.chance(2) ? 1n << 18n : 0n)
    state.cr3 = BigInt(isLong ? place.tables : place.directory32)
    state.cr4 = (isLong ? 0x20n : 0n) | 0x600n | (random.chance(2) ? 0x70000n : 0n) | (random.chance(4) ? 1n : 0n)
    state.efer = isLong ? 0xd01n : 0n
    const code = {
      real: 0, virtual8086: 0, protected16: selectors.code16, protected32: selectors.code32, paged32: selectors.code32,
      long: selectors.code64, compatibility: selectors.code32,
    }[mode]
    for (let i = 0; i < 6; i++) this.loadSegment(random, mode, i, i === segment.cs ? code : selectors.data, level)
    state.segSelector[segment.tr] = selectors.tss
    state.segBase[segment.tr] = BigInt(place.tss)
    state.segLimit[segment.tr] = 0x67
    state.segAttributes[segment.tr] = 0x8b
  }
  private loadSegment(random: Random, mode: FuzzMode, index: number, selector: number, level: number): void {
    const { state } = this.core
    if (mode === 'real' || mode === 'virtual8086') {
      const paragraph = index === segment.cs ? place.code >> 4 : index === segment.ss ? 0 : random.pick([0, place.data >> 4, 0xf000])
      state.segSelector[index] = paragraph
      state.segBase[index] = BigInt(paragraph << 4)
      state.segLimit[index] = 0xffff
      state.segAttributes[index] = mode === 'real' ? 0x93 : 0xf3
      return
    }
    const number = level === 3 ? selector + selectors.user : selector
    const descriptor = descriptors[number >> 3]
    const flat = mode === 'long' || mode === 'compatibility'
    state.segSelector[index] = number | level
    state.segBase[index] = index === segment.cs && !flat ? BigInt(place.code) : 0n
    state.segLimit[index] = number === selectors.code16 || number === selectors.code16 + selectors.user ? 0xfffff : 0xffffffff
    state.segAttributes[index] = Number((descriptor >> 40n) & 0xf0ffn)
  }
}

const interesting = [
  0n, 1n, 0xffn, 0xffffn, 0xffffffffn, 0x80000000n, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_ffffn,
  0xffff_8000_0000_0000n, 0x7fff_ffff_fffcn,
]
function randomValue(random: Random): bigint {
  switch (random.below(4)) {
    case 0: return random.pick(interesting)
    case 1: return random.wide()
    default: return BigInt(place.data + random.below(0x10000))
  }
}

