/** Who may do what to a page, as tables indexed by the flags of a translation. Intel SDM vol. 3, "Access Rights" and "Protection Keys". */
import { access, control, pagingMode, privilege, translationFlag } from './paging.ts'

/** Bytes of one table: 8 by U, NX, W and then 32 by protection key and U. A right is granted when both bytes have the `access` bit. */
export const rightsSize = 40
const keyRights = 8

const all = access.read | access.write | access.fetch

/** Fills `table[offset .. offset + rightsSize - 1]`. `pkru` and `pkrs` count only when the controls turn them on. */
export function computeRights(table: Uint8Array, offset: number, controls: number, who: number, pkru: number, pkrs: number): void {
  for (let flags = 0; flags < 8; flags++)
    table[offset + flags] = pageRights(controls, who, (flags & 4) !== 0, (flags & 1) !== 0, (flags & 2) !== 0)
  for (let key = 0; key < 16; key++) {
    table[offset + keyRights + key * 2] = controls & control.pks ? rightsOfKey(controls, false, pkrs, key) : all
    table[offset + keyRights + key * 2 + 1] = controls & control.pke ? rightsOfKey(controls, who === privilege.user, pkru, key) : all
  }
}

/** The `access` bits that a translation's flags grant. */
export function rightsOf(table: Uint8Array, offset: number, flags: number): number {
  return table[offset + (flags & 7)] & table[offset + keyRights + ((flags >> 2) & 31)]
}

/** The same, less what the second stage denies. */
export function allowedBy(table: Uint8Array, offset: number, flags: number): number {
  return rightsOf(table, offset, flags) & ~(flags >> translationFlag.deniedShift)
}

/** The `access` bits that its protection key alone grants. */
export function rightsByKey(table: Uint8Array, offset: number, flags: number): number {
  return table[offset + keyRights + ((flags >> 2) & 31)]
}

function pageRights(controls: number, who: number, user: boolean, writable: boolean, noExecute: boolean): number {
  if ((controls & control.modeMask) === pagingMode.none) return all
  // Cached under NXE = 1: a walk would now find a reserved bit. No right, so that the walk is made.
  if (noExecute && !(controls & control.nxe)) return 0
  if (who === privilege.user) return user ? access.read | (writable ? access.write : 0) | (noExecute ? 0 : access.fetch) : 0
  let rights = noExecute || (user && controls & control.smep) ? 0 : access.fetch
  if (!(user && controls & control.smap) || who === privilege.supervisorAc)
    rights |= access.read | (writable || !(controls & control.wp) ? access.write : 0)
  return rights
}

function rightsOfKey(controls: number, user: boolean, register: number, key: number): number {
  const accessDisable = (register >>> (key * 2)) & 1
  const writeDisable = (register >>> (key * 2 + 1)) & 1
  if (accessDisable) return access.fetch
  return writeDisable && (user || controls & control.wp) ? access.read | access.fetch : all
}
