/**
 * Paging of a vCPU whose guest-physical addresses no processor translates: what the guest has in its control registers, what the processor
 * has there instead, and what page faults, MOV to CR3, INVLPG and INVPCID do to the tables between them. Intel SDM vol. 3, "Memory
 * Virtualization"; AMD APM vol. 2, "Paging and Segmentation"; SDM vol. 3, "Access Rights" and "Invalidation of TLBs and Paging-Structure
 * Caches".
 */
import { cr0Bit, cr4Bit, eferBit, entryBit, pagingMode, walk, type Mapping, type PagingMode } from '../guest-walk.ts'
import { faultBit as fault, forbidden, markUsed, type AccessOfGuest } from '../guest-access.ts'
import type { GuestMemory } from '../guest-memory.ts'
import { pageSize } from '../layout.ts'
import type { ShadowStage } from './shadow-stage.ts'
import { ShadowTables } from './shadow-tables.ts'

const keepTranslations = 1n << 63n
const pcidMask = 0xfffn
/** Changes of these forget every translation. */
const flushing = cr4Bit.pse | cr4Bit.pae | cr4Bit.pge | cr4Bit.pcide | cr4Bit.smep
const largeBits = 21
const pdpteReserved = 0x1e6n

export interface ShadowStatistics {
  /** Page faults that the guest never hears of, and those that are its own. */
  filled: number
  guestFaults: number
  /** Address spaces switched to, flushes of one, addresses forgotten, and times that everything was. */
  switches: number
  flushes: number
  addresses: number
  drops: number
}

/** What a page fault was: the guest's own business (with the error code that it gets), mended, or an access to what is not memory. */
export type FaultOutcome =
  | { kind: 'guest'; error: number }
  | { kind: 'filled' }
  | { kind: 'memory'; address: number; access: 'read' | 'write' | 'execute'; present: boolean }

/** `error`: as the processor reports it, of the shadow tables. */
export interface FaultedAccess extends AccessOfGuest {
  readonly linear: bigint
}

export type ShadowedRegister = 'cr0' | 'cr3' | 'cr4' | 'efer'
export const isShadowed = (name: string): name is ShadowedRegister => name === 'cr0' || name === 'cr3' || name === 'cr4' || name === 'efer'

/** Whether the hardware can have CR0.PE = 0 while it pages: AMD's "paged real mode". */
export interface ShadowOptions {
  readonly pagedRealMode: boolean
  /** MAXPHYADDR. */
  readonly physicalBits: number
}

export class Shadow {
  readonly statistics: ShadowStatistics = { filled: 0, guestFaults: 0, switches: 0, flushes: 0, addresses: 0, drops: 0 }
  /** Cached translations of the processor that are to be forgotten before the guest goes on. */
  onFlush: (what: 'all' | 'local') => void = () => {}
  private readonly memory: GuestMemory
  private readonly stage: ShadowStage
  private readonly tables: ShadowTables
  private readonly options: ShadowOptions
  private readonly view = { cr0: 0x60000010n, cr3: 0n, cr4: 0n, efer: 0n }
  private mode: PagingMode = pagingMode(this.view)
  /** Entries let the supervisor write what CR0.WP = 0 allows, or were made while it did. */
  private hasUnprotected = false
  private moved = false
  /** In real mode, where the processor has another one: the IDT's limit; and PE = 1 while CS is still one of real mode. */
  realIdtLimit: number | undefined
  betweenModes = false

  constructor(memory: GuestMemory, stage: ShadowStage, options: ShadowOptions) {
    this.memory = memory
    this.stage = stage
    this.options = options
    this.tables = new ShadowTables(stage)
    this.tables.onDropped = () => {
      this.moved = true
      this.onFlush('all')
    }
  }

  /** Whether the root may lie elsewhere since this was last asked. */
  takeMoved(): boolean {
    const { moved } = this
    this.moved = false
    return moved
  }

  // ---- registers

  get(name: ShadowedRegister): bigint {
    return this.view[name]
  }
  private get isLong(): boolean {
    return (this.view.efer & eferBit.lma) !== 0n
  }
  private get pages(): boolean {
    return (this.view.cr0 & cr0Bit.paging) !== 0n
  }
  private get pcid(): number {
    return this.view.cr4 & cr4Bit.pcide ? Number(this.view.cr3 & pcidMask) : 0
  }
  /** Whether the guest is where its processor has neither paging nor protection. */
  get isReal(): boolean {
    return (this.view.cr0 & cr0Bit.protection) === 0n
  }

  /** What the processor has in them while the guest runs: always paging, PAE or 4-level, write protection and NX. */
  hardware(name: ShadowedRegister): bigint {
    const { cr0, cr4, efer } = this.view
    switch (name) {
      case 'cr0': {
        const always = cr0Bit.paging | cr0Bit.writeProtect | (this.options.pagedRealMode ? 0n : cr0Bit.protection)
        return (cr0 | always) & ~(cr0Bit.cacheDisable | cr0Bit.notWriteThrough)
      }
      case 'cr3': return BigInt(this.tables.rootPage(this.pcid)) | BigInt(this.pcid)
      case 'cr4': {
        const none = (this.pages ? 0n : cr4Bit.smep | cr4Bit.smap) | (this.isLong ? 0n : cr4Bit.pcide)
        return (cr4 | cr4Bit.pae) & ~none
      }
      case 'efer': return (efer & ~(eferBit.lme | eferBit.lma)) | eferBit.nxe | (this.isLong ? eferBit.lme | eferBit.lma : 0n)
    }
  }

  /** What the guest's MOV or WRMSR does; false: it gets #GP. SDM vol. 2, "MOV—Move to/from Control Registers". */
  write(name: ShadowedRegister, value: bigint): boolean {
    if (!this.isAllowed(name, value)) return false
    if (name === 'cr3' && this.view.cr4 & cr4Bit.pcide) this.switchTo(value & ~keepTranslations, (value & keepTranslations) !== 0n)
    else if (name === 'cr3') this.switchTo(value, false)
    else this.set(name, value)
    return true
  }
  private isAllowed(name: ShadowedRegister, value: bigint): boolean {
    const { cr0, cr4, efer } = this.view
    const has = (word: bigint, bit: bigint): boolean => (word & bit) !== 0n
    switch (name) {
      case 'cr0':
        if (has(value, cr0Bit.paging) && !has(value, cr0Bit.protection)) return false
        if (has(value, cr0Bit.notWriteThrough) && !has(value, cr0Bit.cacheDisable)) return false
        if (!has(value, cr0Bit.paging) && has(cr4, cr4Bit.pcide)) return false
        return !has(value, cr0Bit.paging) || has(cr0, cr0Bit.paging) || !has(efer, eferBit.lme) || has(cr4, cr4Bit.pae)
      case 'cr3': {
        const high = has(cr4, cr4Bit.pcide) ? value & ~keepTranslations : value
        if (high >> BigInt(this.options.physicalBits)) return false
        return this.mode.levels !== 3 || this.pdptesAreGood(value)
      }
      case 'cr4':
        if (has(value, cr4Bit.la57) || (this.isLong && !has(value, cr4Bit.pae))) return false
        return !has(value, cr4Bit.pcide) || has(cr4, cr4Bit.pcide) || (this.isLong && (this.view.cr3 & pcidMask) === 0n)
      case 'efer': return !this.pages || has(value, eferBit.lme) === has(efer, eferBit.lme)
    }
  }
  private pdptesAreGood(cr3: bigint): boolean {
    const at = Number(cr3 & 0xffffffe0n)
    const reserved = pdpteReserved | ((1n << 64n) - (1n << BigInt(this.options.physicalBits)))
    return [0, 8, 16, 24].every(offset => {
      const entry = this.memory.contains(at + offset) ? this.memory.read64(at + offset) : 0n
      return !(entry & entryBit.present) || !(entry & reserved)
    })
  }
  /** Without asking what is allowed: for whoever creates the vCPU. */
  set(name: ShadowedRegister, value: bigint): void {
    const before = this.view[name]
    const wasMode = this.mode
    this.view[name] = value
    const { efer, cr0 } = this.view
    const long = (efer & eferBit.lme) !== 0n && (cr0 & cr0Bit.paging) !== 0n
    this.view.efer = long ? efer | eferBit.lma : efer & ~eferBit.lma
    this.mode = pagingMode(this.view)
    this.tables.setLevels(this.isLong ? 4 : 3)
    const changed = before ^ value
    const { mode } = this
    if (mode.levels !== wasMode.levels || mode.noExecute !== wasMode.noExecute || (name === 'cr4' && changed & flushing)) this.dropAll()
    if (name === 'cr0' && changed & cr0Bit.writeProtect && this.hasUnprotected) this.dropAll()
    if (name === 'cr3') this.flushLocal(this.pcid)
  }
  private dropAll(): void {
    this.statistics.drops++
    this.hasUnprotected = false
    this.tables.dropAll()
  }
  private switchTo(cr3: bigint, keep: boolean): void {
    this.statistics.switches++
    this.view.cr3 = cr3
    this.mode = pagingMode(this.view)
    if (!keep) this.flushLocal(this.pcid)
  }
  private flushLocal(pcid: number): void {
    this.statistics.flushes++
    this.tables.flushLocal(pcid)
    this.onFlush('local')
  }

  // ---- what software forgets

  /** INVLPG. */
  invalidate(linear: bigint): void {
    this.statistics.addresses++
    this.tables.invalidate(Number(BigInt.asUintN(48, linear)))
  }
  /** INVPCID; false: #GP. SDM vol. 2, "INVPCID—Invalidate Process-Context Identifier". */
  invalidatePcid(type: bigint, descriptor: bigint, linear: bigint): boolean {
    const pcid = descriptor & pcidMask
    const hasPcids = (this.view.cr4 & cr4Bit.pcide) !== 0n
    if (type > 3n || (type < 2n && (descriptor > pcidMask || (!hasPcids && pcid !== 0n)))) return false
    if (type === 0n) {
      if (BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== linear) return false
      this.invalidate(linear)
      this.onFlush('all')
    } else if (type === 1n) this.flushLocal(Number(pcid))
    else if (type === 2n) this.dropAll()
    else {
      this.tables.flushAllLocal()
      this.onFlush('local')
    }
    return true
  }

  // ---- page faults

  fault(access: FaultedAccess): FaultOutcome {
    const { linear, error } = access
    const found = walk(this.memory, this.mode, linear, this.options.physicalBits)
    const unmapped = found.kind === 'absent' ? 0 : fault.present | fault.reserved
    const code = found.kind === 'mapped' ? forbidden(found, access, this.view) : unmapped
    if (code !== undefined) return this.toGuest(code, error)
    const mapping = found as Mapping
    const kind = error & fault.fetch ? 'execute' : error & fault.write ? 'write' : 'read'
    const { physical } = mapping
    const dirty = markUsed(this.memory, this.mode, mapping, kind === 'write')
    const page = Math.floor(physical / pageSize)
    if (!this.memory.contains(physical) && !this.stage.allows(page, kind))
      return { kind: 'memory', address: physical, access: kind, present: false }
    this.tables.makeRoom()
    if (!this.stage.allows(page, kind)) {
      const present = this.stage.allows(page, 'read')
      if (!this.memory.touched(physical, kind === 'write') || !this.stage.allows(page, kind))
        return { kind: 'memory', address: physical, access: kind, present }
    }
    this.install(linear, mapping, page, dirty, access)
    this.statistics.filled++
    return { kind: 'filled' }
  }
  private toGuest(code: number, error: number): FaultOutcome {
    this.statistics.guestFaults++
    const says = this.mode.noExecute || this.view.cr4 & cr4Bit.smep ? fault.fetch : 0
    return { kind: 'guest', error: code | (error & (fault.write | fault.user | says)) }
  }
  private install(linear: bigint, mapping: Mapping, page: number, dirty: boolean, { error }: FaultedAccess): void {
    const { bits, user, execute } = mapping
    // CR0.WP = 0: a supervisor may write what is read-only; the entry is the supervisor's alone then
    const unprotected = (error & (fault.write | fault.user)) === fault.write && !mapping.write && this.pages
    if (unprotected) this.hasUnprotected = true
    const wantsWrite = (mapping.write || unprotected) && dirty
    const isSupervisor = unprotected || !user
    const noExecute = !execute || (unprotected && user && (this.view.cr4 & cr4Bit.smep) !== 0n)
    const isGlobal = mapping.global && (this.view.cr4 & cr4Bit.pge) !== 0n
    const at = Number(BigInt.asUintN(48, linear))
    const run = bits >= largeBits && !unprotected ? this.stage.runFor(page) : undefined
    const frame = run ?? this.stage.frameFor(page, 'read') ?? this.stage.frameFor(page, 'execute') ?? this.stage.frameFor(page, 'write')!
    const mayWrite = run !== undefined || this.stage.allows(page, 'write')
    const mayExecute = run !== undefined || this.stage.allows(page, 'execute')
    const value = BigInt(frame) | entryBit.present | (wantsWrite && mayWrite ? entryBit.write : 0n) | (isSupervisor ? 0n : entryBit.user)
      | (noExecute || !mayExecute ? entryBit.noExecute : 0n) | (isGlobal ? entryBit.global : 0n)
    const isLarge = run !== undefined
    this.stage.note(page, this.tables.install(this.pcid, at, value, isLarge, bits), isLarge)
  }
  destroy(): void {
    this.tables.dropAll()
  }
}
