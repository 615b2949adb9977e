/**
 * Translation contexts: everything but the address that decides what an access does, interned as a number, which is the number of the
 * set of first-level tables that generated code uses while the context lasts. Intel SDM vol. 3, "Process-Context Identifiers (PCIDs)".
 */
import { tlbSets } from '../memory/map.ts'
import { computeRights, rightsSize } from './rights.ts'
import { control, pagingMode, privilege } from './paging.ts'

/** Fields of the first word of a key above the `control` bits. */
const whoShift = control.bits
const modeShift = whoShift + 2
const cpuShift = modeShift + 7

/** Tables of rights of a set: of the present privilege, of an implicit supervisor access, and of a user. */
export const rightsKinds = { current: 0, implicit: 1, user: 2 } as const
const rightsPerSet = 3 * rightsSize

const keyWords = 5
const hashSize = 256
const none: readonly number[] = []

export class Contexts {
  readonly rights = new Uint8Array(tlbSets * rightsPerSet)
  /** Indexes of the tags of a set (tlb.ts). */
  readonly tagIndex = new Int32Array(tlbSets)
  readonly globalTagIndex = new Int32Array(tlbSets)
  private readonly keys = new Int32Array(tlbSets * keyWords)
  /** When a set was last chosen; 0: never, or given up. */
  private readonly lastUse = new Float64Array(tlbSets)
  private uses = 0
  /** Counts sets given to contexts: what was found, or not found, before may be otherwise now. */
  changes = 0
  /** Set last found for a hash: a hint. */
  private readonly hint = new Uint8Array(hashSize)

  /** The number of a context, or -1. */
  find(first: number, pcid: number, space: number, pkru: number, pkrs: number): number {
    const hash = (first ^ (first >>> 8) ^ (pcid * 29) ^ (space * 101) ^ pkru) & (hashSize - 1)
    let set = this.hint[hash]
    if (!this.matches(set, first, pcid, space, pkru, pkrs)) {
      for (set = 0; set < tlbSets; set++) if (this.matches(set, first, pcid, space, pkru, pkrs)) break
      if (set === tlbSets) return -1
      this.hint[hash] = set
    }
    this.lastUse[set] = ++this.uses
    return set
  }

  private matches(set: number, first: number, pcid: number, space: number, pkru: number, pkrs: number): boolean {
    const keys = this.keys
    const at = set * keyWords
    const same = keys[at] === first && keys[at + 1] === pcid && keys[at + 2] === space && keys[at + 3] === pkru && keys[at + 4] === pkrs
    return same && this.lastUse[set] !== 0
  }

  /** Gives the least recently used set to a context and returns it; its tables must be cleared by the caller. */
  create(first: number, pcid: number, space: number, pkru: number, pkrs: number): number {
    let set = 0
    for (let other = 1; other < tlbSets; other++) if (this.lastUse[other] < this.lastUse[set]) set = other
    this.changes++
    this.moveTo(space, set)
    this.keys.set([first, pcid, space, pkru, pkrs], set * keyWords)
    this.lastUse[set] = ++this.uses
    const controls = first & ((1 << control.bits) - 1)
    const who = (first >>> whoShift) & 3
    const current = who === privilege.userAligned ? privilege.user : who
    computeRights(this.rights, this.rightsAt(set, rightsKinds.current), controls, current, pkru, pkrs)
    computeRights(this.rights, this.rightsAt(set, rightsKinds.implicit), controls, privilege.supervisor, pkru, pkrs)
    computeRights(this.rights, this.rightsAt(set, rightsKinds.user), controls, privilege.user, pkru, pkrs)
    return set
  }

  /** By address space: its sets, of all CPUs. */
  private readonly bySpace = new Map<number, number[]>()
  setsOf(space: number): readonly number[] {
    return this.bySpace.get(space) ?? none
  }
  private moveTo(space: number, set: number): void {
    const before = this.bySpace.get(this.keys[set * keyWords + 2])
    const at = before ? before.indexOf(set) : -1
    if (at >= 0) before!.splice(at, 1)
    const list = this.bySpace.get(space)
    if (list) list.push(set)
    else this.bySpace.set(space, [set])
  }

  /** Offset in `rights`. */
  rightsAt(set: number, kind: number): number {
    return set * rightsPerSet + kind * rightsSize
  }

  /** Forgets all contexts. */
  reset(): void {
    this.changes++
    this.bySpace.clear()
    this.lastUse.fill(0)
  }

  belongsTo(set: number, cpu: number): boolean {
    return this.lastUse[set] !== 0 && this.keys[set * keyWords] >>> cpuShift === cpu
  }
}

/** First word of a key: controls, privilege, mode of code and the CPU that runs (below 2^11). */
export function contextKey(controls: number, who: number, codeMode: number, cpu: number): number {
  return controls | (who << whoShift) | (codeMode << modeShift) | (cpu << cpuShift)
}

/** `ac` is EFLAGS.AC, `am` CR0.AM: zero or not. Alignment is checked without paging too. */
export function whoIs(controls: number, cpl: number, ac: number, am: number): number {
  if (cpl === 3 && ac !== 0 && am !== 0) return privilege.userAligned
  if ((controls & control.modeMask) === pagingMode.none) return privilege.supervisor
  if (cpl === 3) return privilege.user
  return controls & control.smap && ac !== 0 ? privilege.supervisorAc : privilege.supervisor
}
