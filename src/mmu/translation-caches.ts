/**
 * What the running CPU has cached of its translations, and which of it serves now: its TLB, the context that fits its state with the
 * first-level tables of that context, and all that drops translations. Intel SDM vol. 3, "Caching Translation Information".
 */
import { flag } from '../cpu/rflags.ts'
import { emptyTlbTable, tlbSets } from '../memory/map.ts'
import type { PhysicalMemory, PlaceKeeper } from '../memory/physical.ts'
import { A20Mask, inVmxOperation } from './a20.ts'
import { contextKey, Contexts, rightsKinds, whoIs } from './contexts.ts'
import { FirstLevel } from './first-level.ts'
import { control, controlsOf, cr0Bit, pagingMode, privilege, word, type PagingModel } from './paging.ts'
import type { SecondStage } from './second-stage.ts'
import { Tlb, type TlbState } from './tlb.ts'
import { PageWalk } from './walk.ts'

export interface MmuOptions {
  readonly physical: PhysicalMemory
  readonly model: PagingModel
  readonly cpus?: number
}

export class TranslationCaches implements PlaceKeeper {
  readonly physical: PhysicalMemory
  readonly firstLevel: FirstLevel
  readonly contexts = new Contexts()
  /** Of the running CPU. */
  tlb: Tlb
  cpu = 0
  /** Interned address space (VPID or ASID with its second stage) of the running CPU; 0 outside of guests. */
  space = 0
  /** What translates again while state.secondStage is set. */
  secondStage: SecondStage | undefined

  /** The chipset holds A20M# low. A processor in VMX operation does not hear of it. */
  isA20Masked = false
  private readonly a20Mask = new A20Mask()

  protected readonly walker: PageWalk
  protected readonly words: Int32Array
  protected set = 0
  protected tag = 0
  protected globalTag = 0
  protected rightsCurrent = 0
  protected controls = 0
  /** Accesses must be aligned. The first level stays empty then, so that all of them come to the MMU. */
  protected aligned = false
  /** Every access comes to the MMU, for somebody listens. */
  protected observed = false
  private readonly tlbs: Tlb[] = []
  private key = -1
  private keyPcid = 0
  private keyPkru = 0
  private keyPkrs = 0

  constructor(options: MmuOptions) {
    this.physical = options.physical
    this.words = this.physical.words
    this.firstLevel = new FirstLevel(this.physical)
    for (let cpu = 0; cpu < (options.cpus ?? 1); cpu++) this.tlbs.push(new Tlb(this.firstLevel))
    this.tlb = this.tlbs[0]
    this.walker = new PageWalk(this.physical, options.model)
    this.physical.keeper = this
    this.updateContext()
  }

  // ---- contexts ----

  /** Another CPU's state has been put into the state area. */
  switchCpu(cpu: number): void {
    this.cpu = cpu
    this.tlb = this.tlbs[cpu]
    this.key = -1
    this.words[word.vmcsPlace] = 0
    this.updateContext()
  }

  /** Chooses the first-level tables that fit the state; cheap when nothing changed, for it runs at every change of CPL, AC or mode. */
  updateContext(): void {
    const words = this.words
    const controls = controlsOf(words[word.cr0], words[word.cr4], words[word.efer])
    const who = whoIs(controls, words[word.cpl], words[word.eflags] & flag.AC, words[word.cr0] & cr0Bit.am)
    const key = contextKey(controls, who, words[word.mode], this.cpu)
    const pcid = controls & control.pcide ? words[word.cr3] & 0xfff : 0
    const pkru = controls & control.pke ? words[word.pkru] : 0
    const pkrs = controls & control.pks ? words[word.pkrs] : 0
    const space = words[word.translationSpace]
    if (key === this.key && pcid === this.keyPcid && pkru === this.keyPkru && pkrs === this.keyPkrs && space === this.space) {
      this.publish() // the fields may have been overwritten by another CPU's or a snapshot's
      return
    }
    this.space = space
    this.walker.second = words[word.secondStage] === 0 ? this.firstStageMask : this.secondStage
    let set = this.contexts.find(key, pcid, this.space, pkru, pkrs)
    if (set < 0) set = this.createSet(key, pcid, pkru, pkrs)
    if (controls !== this.controls || this.key === -1) this.walker.setControls(controls)
    this.controls = controls
    this.key = key
    this.keyPcid = pcid
    this.keyPkru = pkru
    this.keyPkrs = pkrs
    this.set = set
    this.findLevels(set, who, controls)
    this.aligned = who === privilege.userAligned
    this.tag = this.tlb.tagOf(this.contexts.tagIndex[set])
    this.globalTag = this.tlb.tagOf(this.contexts.globalTagIndex[set])
    this.rightsCurrent = this.contexts.rightsAt(set, rightsKinds.current)
    this.publish()
  }

  /** What comes after the first stage where no second one is. */
  get firstStageMask(): SecondStage | undefined {
    return this.isA20Masked && !(this.words[word.vmxFlags] & inVmxOperation) ? this.a20Mask : undefined
  }
  /** What A20M# does now; for the chipset, and where the running CPU begins or ceases to look at it. Drops all translations. */
  maskA20(masked: boolean): void {
    this.isA20Masked = masked
    this.forgetContexts()
    this.updateContext()
  }

  /** Sets of this address space, by who accesses; -1: not known, or generated code may not change over to it. */
  protected kernelSet = -1
  private userSet = -1
  private accessSet = -1
  private findLevels(set: number, who: number, controls: number): void {
    if (this.levelsKnownAt[set] !== this.contexts.changes) {
      const crosses = who !== privilege.userAligned && (controls & control.modeMask) !== pagingMode.none
      this.kernelOf[set] = crosses ? this.setOf(privilege.supervisor, controls) : -1
      this.userOf[set] = crosses ? this.setOf(privilege.user, controls) : -1
      // without SMAP nothing is different
      this.accessOf[set] = crosses ? this.setOf(controls & control.smap ? privilege.supervisorAc : privilege.supervisor, controls) : -1
      this.levelsKnownAt[set] = this.contexts.changes
    }
    this.kernelSet = this.kernelOf[set]
    this.userSet = this.userOf[set]
    this.accessSet = this.accessOf[set]
  }
  /** By set: what `setOf` gave for each, and after how many changes of the contexts. */
  private readonly kernelOf = new Int8Array(tlbSets)
  private readonly userOf = new Int8Array(tlbSets)
  private readonly accessOf = new Int8Array(tlbSets)
  private readonly levelsKnownAt = new Int32Array(tlbSets).fill(-1)
  private setOf(who: number, controls: number): number {
    const key = contextKey(controls, who, this.words[word.mode], this.cpu)
    return this.contexts.find(key, this.keyPcid, this.space, this.keyPkru, this.keyPkrs)
  }
  /** Generated code has changed the privilege level and taken the tables of that level (SYSCALL): what is kept here follows. */
  follow(): void {
    if (this.words[word.tlbFetch] !== this.published) this.updateContext()
  }
  private published = 0

  protected publish(): void {
    this.words[word.tlbRead] = this.observed ? emptyTlbTable : this.firstLevel.readTable(this.set)
    this.words[word.tlbWrite] = this.observed ? emptyTlbTable : this.firstLevel.writeTable(this.set)
    this.published = this.firstLevel.fetchTable(this.set)
    this.words[word.tlbFetch] = this.published
    this.publishLevels()
  }

  /** Generated code changes no privilege level while they are hidden. */
  hideLevels(hidden: boolean): void {
    if (hidden === this.levelsHidden) return
    this.levelsHidden = hidden
    this.publishLevels()
  }
  private levelsHidden = false

  private publishLevels(): void {
    const levels = !this.observed && !this.levelsHidden && this.kernelSet >= 0
    this.publishLevel(word.kernelTables, levels && this.userSet >= 0 ? this.kernelSet : -1)
    this.publishLevel(word.userTables, levels ? this.userSet : -1)
    this.publishLevel(word.accessTables, levels ? this.accessSet : -1)
  }
  private publishLevel(at: number, set: number): void {
    this.words[at] = set < 0 ? 0 : this.firstLevel.readTable(set)
    this.words[at + 1] = set < 0 ? 0 : this.firstLevel.writeTable(set)
    this.words[at + 2] = set < 0 ? 0 : this.firstLevel.fetchTable(set)
  }

  private createSet(key: number, pcid: number, pkru: number, pkrs: number): number {
    const tagIndex = this.tlb.tagIndex(this.space, pcid)
    const globalTagIndex = this.tlb.globalTagIndex(this.space)
    if (tagIndex === undefined || globalTagIndex === undefined) {
      this.forgetContexts()
      return this.createSet(key, pcid, pkru, pkrs)
    }
    const set = this.contexts.create(key, pcid, this.space, pkru, pkrs)
    this.firstLevel.prepare(set)
    this.contexts.tagIndex[set] = tagIndex
    this.contexts.globalTagIndex[set] = globalTagIndex
    return set
  }

  /** All TLBs and contexts from the start. */
  private forgetContexts(): void {
    for (const tlb of this.tlbs) tlb.reset()
    this.contexts.reset()
    this.firstLevel.clearAll()
    this.key = -1
  }

  // ---- snapshots: between instructions, when no store is pending ----

  saveState(): TlbState[] {
    return this.tlbs.map(tlb => tlb.saveState())
  }

  /** The running CPU's state must have been restored before. */
  restoreState(states: readonly TlbState[]): void {
    if (states.length !== this.tlbs.length) throw new Error(`state of ${states.length} TLBs for ${this.tlbs.length} CPUs`)
    this.forgetContexts()
    this.secondStage?.flush(undefined)
    this.tlbs.forEach((tlb, cpu) => tlb.restoreState(states[cpu]))
    this.updateContext()
  }

  // ---- flushes: what they order is said in control.ts ----

  /** Drops what is cached under one tag index of the running CPU. */
  flushTag(index: number): void {
    this.tlb.retire(index)
    const contexts = this.contexts
    for (let set = 0; set < contexts.tagIndex.length; set++) {
      if (!contexts.belongsTo(set, this.cpu)) continue
      if (contexts.globalTagIndex[set] === index) this.firstLevel.clearSet(set)
      else if (contexts.tagIndex[set] === index) this.firstLevel.clearLocal(set)
    }
    this.renewTags()
  }

  /** What is cached for another address space than the current one, with or without global translations. */
  flushOther(space: number, withGlobal: boolean): void {
    for (const { index, global } of this.tlb.tagIndexesOf(space)) if (withGlobal || !global) this.tlb.retire(index)
    const sets = this.contexts.setsOf(space)
    for (let i = 0; i < sets.length; i++) {
      if (!this.contexts.belongsTo(sets[i], this.cpu)) continue
      if (withGlobal) this.firstLevel.clearSet(sets[i])
      else this.firstLevel.clearLocal(sets[i])
    }
    this.renewTags()
  }
  /** A linear address in all PCIDs of an address space. */
  flushPageOf(space: number, lo: number, hi: number): void {
    for (const { index } of this.tlb.tagIndexesOf(space)) {
      const tag = this.tlb.tagOf(index)
      this.tlb.dropAddress(lo, hi, tag, tag)
    }
  }
  /** All address spaces that anything may be cached for. */
  spaces(): Set<number> {
    return this.tlb.spaces()
  }

  flushPcid(pcid: number): void {
    const index = this.tlb.knownTagIndex(this.space, pcid)
    if (index !== undefined) this.flushTag(index)
  }

  /** All PCIDs of the current address space, with or without global translations. */
  flushSpace(withGlobal: boolean): void {
    this.flushOther(this.space, withGlobal)
  }

  /** Everything that the running CPU has cached. */
  flushAll(): void {
    this.secondStage?.flush(undefined)
    this.tlb.clear()
    for (let set = 0; set < this.contexts.tagIndex.length; set++) if (this.contexts.belongsTo(set, this.cpu)) this.firstLevel.clearSet(set)
    this.renewTags()
  }
  private renewTags(): void {
    this.tag = this.tlb.tagOf(this.contexts.tagIndex[this.set])
    this.globalTag = this.tlb.tagOf(this.contexts.globalTagIndex[this.set])
  }

  /** INVLPG: under the current PCID and global. */
  flushPage(lo: number, hi: number): void {
    this.tlb.dropAddress(lo, hi, this.tag, this.globalTag)
  }

  /** INVPCID type 0: under one PCID, not global. */
  flushPageOfPcid(lo: number, hi: number, pcid: number): void {
    const index = this.tlb.knownTagIndex(this.space, pcid)
    if (index === undefined) return
    const tag = this.tlb.tagOf(index)
    this.tlb.dropAddress(lo, hi, tag, tag)
  }

  dropWritePlaces(place: number): void {
    this.firstLevel.dropWritePlaces(place)
    if (((this.words[word.vmcsPlace] ^ place) & ~0xfff) === 0) this.words[word.vmcsPlace] = 0
  }

  dropAllPlaces(): void {
    this.firstLevel.clearAll()
  }

  /** The engine gave up a code table (or all of them): fetches must ask again. */
  dropCodeTable(codeTable?: number): void {
    this.firstLevel.dropFetch(codeTable)
  }
}
