/**
 * Address spaces of guests: VPID and EPT paging structures as tags of translations, and what INVVPID, INVEPT and world switches drop.
 * Intel SDM vol. 3, "Caching Translation Information" in the chapter on VMX support for address translation.
 */
import type { CpuModel } from '../../cpu/model.ts'
import type { VmExit } from '../../cpu/virtualization.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import { absentFields, secondaryBit, tertiaryBit } from './controls.ts'
import { writeEncodingTable } from './encoding-table.ts'
import { Ept } from './ept.ts'
import { at } from '../../cpu/layout.ts'
import { at as field } from './fields.ts'
import type { ExitDetails } from './guest-flags.ts'
import type { VmxUnit } from './unit.ts'
import { vector } from '../../cpu/fault.ts'

/** EPTP[51:12], as a number of pages; -1: no EPT. */
interface Space {
  readonly vpid: number
  readonly root: number
}

const keyOf = (vpid: number, root: number): number => (root + 1) * 0x10000 + vpid

/** What all CPUs of a machine share: numbers of address spaces. The EPT walker works for the CPU that runs. */
export class TranslationsOfMachine {
  readonly mmu: Mmu
  readonly ept: Ept
  /** By number; 0 is the host's. */
  private readonly spaces: Space[] = [{ vpid: 0, root: -1 }]
  private readonly numbers = new Map<number, number>()
  /** What entries and exits drop while VPIDs are off. */
  readonly spacesOfVpid0: number[] = [0]

  constructor(model: CpuModel, mmu: Mmu, running: () => VmxUnit) {
    this.mmu = mmu
    this.ept = new Ept(mmu.physical, running)
    writeEncodingTable(mmu.physical.bytes.buffer, absentFields(model))
    this.ept.spaces = { save: () => this.spaces, restore: saved => this.renumber(saved as Space[]) }
    mmu.secondStage = this.ept
    mmu.apicPage = {
      allows: (offset, size, write) => {
        const { apic } = running()
        if (apic.allows(offset, size, write)) return true
        this.ept.instead = apic.accessExit(offset, write)
        return false
      },
      fetched: offset => {
        this.ept.instead = running().apic.fetchExit(offset)
      },
      read: (offset, size) => running().apic.readBytes(offset, size),
      write: (offset, size, value) => running().apic.writePage(offset, size, value),
    }
  }

  private renumber(spaces: readonly Space[]): void {
    this.numbers.clear()
    this.spaces.splice(0, Infinity, ...spaces)
    this.spacesOfVpid0.splice(0, Infinity, ...spaces.keys().filter(number => spaces[number].vpid === 0))
    spaces.forEach(({ vpid, root }, number) => {
      if (number > 0) this.numbers.set(keyOf(vpid, root), number)
    })
  }

  number(vpid: number, root: number): number {
    const key = keyOf(vpid, root)
    let number = this.numbers.get(key)
    if (number === undefined) {
      number = this.spaces.push({ vpid, root }) - 1
      this.numbers.set(key, number)
      if (vpid === 0) this.spacesOfVpid0.push(number)
    }
    return number
  }
  *matching(wanted: (space: Space) => boolean): Generator<number> {
    for (const number of this.mmu.spaces()) {
      const space = this.spaces[number]
      if (space && wanted(space)) yield number
    }
  }
}

const pageNumber = (eptp: bigint): number => Number((eptp >> 12n) & 0xffffffffffn)

export class Translations {
  private readonly unit: VmxUnit
  private readonly shared: TranslationsOfMachine
  /** EPTP[51:12] of the guest that runs. */
  root = -1
  private vpid = 0

  constructor(unit: VmxUnit, shared: TranslationsOfMachine) {
    this.unit = unit
    this.shared = shared
  }

  /** The guest's translations from now on. With VPID off those of VPID 0 go first. */
  enter(): void {
    const { unit } = this
    const { state } = unit
    const vmcs = unit.current
    const ept = unit.isOn('secondary', secondaryBit.ept)
    this.vpid = unit.isOn('secondary', secondaryBit.vpid) ? vmcs.get32(field.vpid) : 0
    const low = ept ? vmcs.get32(field.eptp) : 0
    const high = ept ? vmcs.get32(field.eptp + 1) : 0
    this.root = ept ? high * 0x100000 + (low >>> 12) : -1
    state.words[at.eptPointer >> 2] = low
    state.words[(at.eptPointer >> 2) + 1] = high
    if (ept) this.shared.ept.use(low, high)
    const hlat = unit.isOn('tertiary', tertiaryBit.hlat)
    state.words[at.hlatPointer >> 2] = hlat ? (vmcs.get32(field.hlatPointer) & ~0xfff) | (vmcs.get32(field.hlatPrefixSize) ? 3 : 1) : 0
    state.words[(at.hlatPointer >> 2) + 1] = hlat ? vmcs.get32(field.hlatPointer + 1) : 0
    if (this.vpid === 0) this.dropVpid0()
    state.secondStage = ept ? 1 : 0
    const accesses = unit.isOn('secondary', secondaryBit.virtualizeApicAccesses)
    state.words[at.apicAccessPage >> 2] = accesses ? vmcs.get32(field.apicAccessAddress) | 1 : 0
    state.words[(at.apicAccessPage >> 2) + 1] = accesses ? vmcs.get32(field.apicAccessAddress + 1) : 0
    state.translationSpace = this.shared.number(this.vpid, this.root)
  }
  /** As they are in the state, after it was restored. */
  resume(): void {
    const { words } = this.unit.state
    this.vpid = this.unit.isOn('secondary', secondaryBit.vpid) ? this.unit.current.get32(field.vpid) : 0
    const low = words[at.eptPointer >> 2]
    const high = words[(at.eptPointer >> 2) + 1]
    this.root = this.unit.isOn('secondary', secondaryBit.ept) ? high * 0x100000 + (low >>> 12) : -1
  }
  /** The host's. */
  leave(): void {
    const { state } = this.unit
    if (this.vpid === 0) this.dropVpid0()
    state.secondStage = 0
    state.words[at.hlatPointer >> 2] = 0
    state.words[(at.hlatPointer >> 2) + 1] = 0
    state.words[at.apicAccessPage >> 2] = 0
    state.words[(at.apicAccessPage >> 2) + 1] = 0
    state.translationSpace = 0
  }

  /** With VPID off: linear and combined translations of VPID 0, the host's own too. */
  private dropVpid0(): void {
    for (const space of this.shared.spacesOfVpid0) this.shared.mmu.flushOther(space, true)
  }

  /** Guest-physical and combined translations of one root, for every VPID; of all of them without. */
  invept(eptp: bigint | undefined): void {
    const root = eptp === undefined ? undefined : pageNumber(eptp)
    for (const space of this.shared.matching(each => each.root >= 0 && (root === undefined || each.root === root)))
      this.shared.mmu.flushOther(space, true)
    this.shared.ept.invalidate(root)
  }

  /** Linear and combined translations. Types: 0 an address, 1 a VPID, 2 all VPIDs but 0, 3 a VPID but its global translations. */
  invvpid(type: number, vpid: number, address: bigint): void {
    const lo = Number(address & 0xffffffffn) | 0
    const hi = Number((address >> 32n) & 0xffffffffn) | 0
    for (const space of this.shared.matching(each => (type === 2 ? each.vpid !== 0 : each.vpid === vpid))) {
      if (type === 0) this.shared.mmu.flushPageOf(space, lo, hi)
      else this.shared.mmu.flushOther(space, type !== 3)
    }
  }

  /**
   * An EPT violation that is to be a virtualization exception: written to the information area, and delivered. False: the exit is taken.
   * Intel SDM vol. 3, "Virtualization Exceptions".
   */
  convert(exit: VmExit): boolean {
    const { unit } = this
    const details = exit.more as ExitDetails
    if (!unit.isOn('secondary', secondaryBit.eptViolationVe) || exit.during || !(unit.state.cr0 & 1n)) return false
    const area = unit.current.get('virtualizationExceptionAddress')
    if (unit.readPhysical32(area + 4n) !== 0) return false
    unit.writePhysical32(area, exit.reason)
    unit.writePhysical32(area + 4n, -1)
    unit.writePhysical64(area + 8n, exit.info1)
    unit.writePhysical64(area + 16n, details.linear ?? 0n)
    unit.writePhysical64(area + 24n, exit.info2)
    unit.writePhysical64(area + 32n, unit.current.get('eptpIndex') & 0xffffn)
    unit.cpu.deliver({ kind: 'exception', vector: vector.VE, error: undefined, address: undefined, nextRip: 0n, during: undefined })
    return true
  }
}
