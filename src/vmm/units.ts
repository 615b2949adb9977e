/**
 * The registers that entries and exits leave in the processor: FPU and SSE, debug registers, MSRs, CR2. Each belongs to one vCPU at a time;
 * who needs them next has them saved and loaded, at once (eager) or when it first uses them (lazy). Intel SDM vol. 3, "Saving and Restoring
 * the x87 FPU State"; AMD APM vol. 2, "Saving Media and x87 Execution Unit State".
 */
import type { PagePool } from './page-pool.ts'
import { register } from './port.ts'
import type { Processor } from './processor.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

const debugReads = ['readDr0', 'readDr1', 'readDr2', 'readDr3', 'readDr6'] as const
const debugWrites = ['writeDr0', 'writeDr1', 'writeDr2', 'writeDr3', 'writeDr6'] as const
const debugAfterReset = [0n, 0n, 0n, 0n, 0xffff0ff0n]
/** FXSAVE's image after FNINIT: FCW = 37FH, MXCSR = 1F80H. */
const fpuAfterReset = { controlWord: 0x37fn, mxcsrAt: 24, mxcsr: 0x1f80n } as const

const low32 = 0xffffffffn
const extendedStateLeaf = 0xd
const hasXsave = 1 << 26
const xcr0AfterReset = 1n
const component = { x87: 1n, sse: 2n, avx: 4n, bounds: 0x18n, avx512: 0xe0n } as const

interface Saved {
  /** Page of the FXSAVE or XSAVE image. */
  readonly fpu: number
  readonly debug: bigint[]
  readonly msrs: Map<number, bigint>
  cr2: bigint
  /** As its XSETBV has left it. */
  xcr0: bigint
}

interface Owners {
  fpu: Vcpu | undefined
  debug: Vcpu | undefined
  msrs: Vcpu | undefined
  /** What this processor has in XCR0. */
  xcr0: bigint | undefined
}

export class Units {
  /** Whether FPU registers are switched at their first use, or with their vCPU. */
  lazyFpu: boolean
  private readonly virtualizer: Virtualizer
  private readonly pool: PagePool
  private readonly saved = new WeakMap<Vcpu, Saved>()
  private readonly owners = new Map<Processor, Owners>()

  constructor(virtualizer: Virtualizer, pool: PagePool, lazyFpu: boolean) {
    this.virtualizer = virtualizer
    this.pool = pool
    this.lazyFpu = lazyFpu
  }

  private of(vcpu: Vcpu): Saved {
    let saved = this.saved.get(vcpu)
    if (saved) return saved
    saved = { fpu: this.pool.take(), debug: [...debugAfterReset], msrs: new Map(), cr2: 0n, xcr0: xcr0AfterReset }
    this.pool.memory.write64(saved.fpu, fpuAfterReset.controlWord)
    this.pool.memory.write64(saved.fpu + fpuAfterReset.mxcsrAt, fpuAfterReset.mxcsr)
    for (const index of this.virtualizer.switchedMsrs) saved.msrs.set(index, 0n)
    this.saved.set(vcpu, saved)
    return saved
  }
  private on(processor: Processor): Owners {
    let owners = this.owners.get(processor)
    if (!owners) this.owners.set(processor, (owners = { fpu: undefined, debug: undefined, msrs: undefined, xcr0: undefined }))
    return owners
  }

  /** The vCPU is about to run on this processor, on which its control structure is loaded. */
  switchTo(vcpu: Vcpu, processor: Processor): void {
    const owners = this.on(processor)
    if (owners.msrs !== vcpu) this.takeMsrs(vcpu, processor, owners)
    if (owners.fpu !== vcpu && !this.lazyFpu) this.takeFpu(vcpu, processor)
    this.setXcr0(processor, owners, this.of(vcpu).xcr0)
    this.setTraps(vcpu, owners)
  }
  private setTraps(vcpu: Vcpu, owners: Owners): void {
    const fpu = owners.fpu !== vcpu
    const debug = owners.debug !== vcpu
    if (fpu !== vcpu.fpuTrapped) {
      this.virtualizer.trapFpu(vcpu, fpu)
      vcpu.fpuTrapped = fpu
    }
    if (debug !== vcpu.debugTrapped) {
      this.virtualizer.trapDebug(vcpu, debug)
      vcpu.debugTrapped = debug
    }
  }

  /** First use of the FPU by a vCPU whose registers are not loaded. */
  fpuUsed(vcpu: Vcpu, processor: Processor): void {
    vcpu.statistics.units.fpuTraps++
    this.takeFpu(vcpu, processor)
    this.setTraps(vcpu, this.on(processor))
  }
  private takeFpu(vcpu: Vcpu, processor: Processor): void {
    const owners = this.on(processor)
    this.saveFpu(processor, owners)
    this.moveFpu(processor, owners, 'restore', this.of(vcpu).fpu)
    this.setXcr0(processor, owners, this.of(vcpu).xcr0)
    vcpu.statistics.units.fpuLoads++
    owners.fpu = vcpu
  }
  private saveFpu(processor: Processor, owners: Owners): void {
    if (!owners.fpu) return
    this.moveFpu(processor, owners, 'save', this.of(owners.fpu).fpu)
    owners.fpu.statistics.units.fpuSaves++
    owners.fpu = undefined
  }

  // ---- extended state: what XCR0 names. SDM vol. 1, "Managing State Using the XSAVE Feature Set"

  /** Of the processors: 0 where they have no XSAVE. */
  private features: bigint | undefined
  private featuresOf(processor: Processor): bigint {
    if (this.features !== undefined) return this.features
    const { eax, edx } = processor.cpuid(extendedStateLeaf)
    this.features = processor.cpuid(1).ecx & hasXsave ? BigInt(eax) | (BigInt(edx) << 32n) : 0n
    return this.features
  }
  /** With every component, whatever the guest has enabled. */
  private moveFpu(processor: Processor, owners: Owners, way: 'save' | 'restore', page: number): void {
    const features = this.featuresOf(processor)
    if (features === 0n) return processor.perform(way === 'save' ? 'fxsave' : 'fxrstor', BigInt(page))
    const before = owners.xcr0
    this.setXcr0(processor, owners, features)
    processor.port.set(register.rdx, features >> 32n)
    processor.perform(way === 'save' ? 'xsave' : 'xrstor', features & low32, BigInt(page))
    if (before !== undefined) this.setXcr0(processor, owners, before)
  }
  private setXcr0(processor: Processor, owners: Owners, value: bigint): void {
    if (owners.xcr0 === value || this.featuresOf(processor) === 0n) return
    processor.port.set(register.rdx, value >> 32n)
    processor.perform('xsetbv', value & low32, 0n)
    owners.xcr0 = value
  }
  xcr0(vcpu: Vcpu): bigint {
    return this.of(vcpu).xcr0
  }
  /** The guest's XSETBV; false: #GP. SDM vol. 2, "XSETBV". */
  writeXcr0(vcpu: Vcpu, processor: Processor, index: number, value: bigint): boolean {
    const has = (bits: bigint): boolean => (value & bits) !== 0n
    if (index !== 0 || value & ~this.featuresOf(processor) || !has(component.x87)) return false
    if ((has(component.avx) && !has(component.sse)) || (has(component.avx512) && !has(component.avx))) return false
    if (has(component.avx512) && (value & component.avx512) !== component.avx512) return false
    if (has(component.bounds) && (value & component.bounds) !== component.bounds) return false
    this.of(vcpu).xcr0 = value
    this.setXcr0(processor, this.on(processor), value)
    return true
  }

  debugUsed(vcpu: Vcpu, processor: Processor): void {
    const owners = this.on(processor)
    this.saveDebug(processor, owners)
    this.of(vcpu).debug.forEach((value, i) => processor.perform(debugWrites[i], value))
    vcpu.statistics.units.debugSwitches++
    owners.debug = vcpu
    this.setTraps(vcpu, owners)
  }
  private saveDebug(processor: Processor, owners: Owners): void {
    if (!owners.debug) return
    const { debug } = this.of(owners.debug)
    debugReads.forEach((name, i) => {
      processor.perform(name)
      debug[i] = processor.port.get(register.rax)
    })
    owners.debug = undefined
  }

  private takeMsrs(vcpu: Vcpu, processor: Processor, owners: Owners): void {
    this.saveMsrs(processor, owners)
    const { msrs, cr2 } = this.of(vcpu)
    for (const [index, value] of msrs) processor.wrmsr(index, value)
    if (this.virtualizer.vendor === 'intel') processor.perform('writeCr2', cr2)
    vcpu.statistics.units.msrSwitches++
    owners.msrs = vcpu
  }
  private saveMsrs(processor: Processor, owners: Owners): void {
    if (!owners.msrs) return
    const saved = this.of(owners.msrs)
    for (const index of saved.msrs.keys()) saved.msrs.set(index, processor.rdmsr(index))
    if (this.virtualizer.vendor === 'intel') {
      processor.perform('readCr2')
      saved.cr2 = processor.port.get(register.rax)
    }
    owners.msrs = undefined
  }

  /** Takes everything of a vCPU out of a processor that it is about to leave for another one. */
  leave(vcpu: Vcpu, processor: Processor): void {
    const owners = this.on(processor)
    if (owners.fpu === vcpu) this.saveFpu(processor, owners)
    if (owners.debug === vcpu) this.saveDebug(processor, owners)
    if (owners.msrs === vcpu) this.saveMsrs(processor, owners)
  }
  /** It is no more: nothing is saved. */
  forget(vcpu: Vcpu): void {
    for (const owners of this.owners.values()) {
      if (owners.fpu === vcpu) owners.fpu = undefined
      if (owners.debug === vcpu) owners.debug = undefined
      if (owners.msrs === vcpu) owners.msrs = undefined
    }
    const saved = this.saved.get(vcpu)
    if (saved) this.pool.give(saved.fpu)
    this.saved.delete(vcpu)
  }
}
