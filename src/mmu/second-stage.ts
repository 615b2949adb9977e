/**
 * The second stage of translation: what page tables take for physical is translated again, for every access to a table and for the page
 * itself. AMD APM vol. 2, "Nested Paging"; Intel SDM vol. 3, "The Extended Page Table Mechanism (EPT)".
 */
import type { VmExit } from '../cpu/virtualization.ts'

export const shadowAccess = { none: 0, user: 1, supervisor: 2 } as const
export type ShadowAccess = (typeof shadowAccess)[keyof typeof shadowAccess]

/** Works on the CPU whose state lies in the state area. Addresses are lo/hi pairs of int32. */
export interface SecondStage {
  /** Results: physical address of the 4 KiB page. */
  lo: number
  hi: number
  /**
   * `translationFlag` bits: `denied` rights, `dirty` when writes need set no bit any more, the page's size, `global` never.
   */
  flags: number
  /** The entry of a paging structure at a guest-physical address is read, and written if `write`. False: a fault is kept for `exit`. */
  table(lo: number, hi: number, write: boolean): boolean
  /**
   * The page that the first stage gave. `what` is an `access` bit, or 0 to look without rights and without setting bits. `user`: the first
   * stage's page is a user's. The low 12 bits of `lo` are those of the access.
   */
  page(lo: number, hi: number, what: number, user: boolean): boolean
  /** The four entries of PAE paging are read at each walk, not when CR3 is loaded: AMD. */
  readonly readsPdptes: boolean
  /** Cached translations of guest-physical addresses of the current space go (all of them: undefined). */
  flush(space: number | undefined): void
  /** What it keeps, as plain data, for snapshots; undefined: it cannot be saved while a guest may run. */
  saveState?(): unknown
  restoreState?(saved: unknown): void
  /** Set before `page`: the first stage's `translationFlag` bits of it. */
  guestFlags: number
  /** Of the last `page`: its memory type, if the second stage has any, is UC. */
  readonly isUncacheable?: boolean
  /** Set before `page`: bytes of the access, which may end beyond the page; 0 when it is not known. */
  accessLength: number
  /** Set before `page`: the access is made to a shadow stack, a user's or the supervisor's. */
  shadow: ShadowAccess
  /** Set to true where a walk begins: whether each `table` since lies where paging structures may be written. */
  tablesWritable: boolean
  /** The fault of the last `table` or `page`. The linear address of the access is given when there is one. */
  exit(): VmExit
  /** Told by the walk that the fault was met at this linear address. */
  linearLo: number
  linearHi: number
}

/** What every second stage has of it: what it is asked with, and what it answers. */
export abstract class SecondStageFields {
  lo = 0
  hi = 0
  flags = 0
  guestFlags = 0
  accessLength = 0
  shadow: ShadowAccess = shadowAccess.none
  tablesWritable = true
  linearLo = 0
  linearHi = 0
}
