/** The targets and logical units behind one host bus adapter (T10 "SCSI Architecture Model - 5", "SCSI Primary Commands - 4"). */
import type { DataPath } from '../storage/data-path.ts'
import { noSense, operation, peripheral, type Sense, senseData, senses } from './spec.ts'
import { answer, bigEndian, type ScsiOutcome, type ScsiUnit, viewOf } from './unit.ts'

interface Place {
  target: number
  lun: number
  unit: ScsiUnit
  /** A unit attention condition waits: the unit was reset. */
  wasReset: boolean
}

/** INQUIRY and REPORT LUNS neither report nor clear a unit attention ("Unit attention condition"). */
const unattended: ReadonlySet<number> = new Set([operation.inquiry, operation.reportLuns])

export class ScsiBus {
  readonly #places: Place[] = []

  attach(target: number, lun: number, unit: ScsiUnit): void {
    this.#places.push({ target, lun, unit, wasReset: true })
    this.#places.sort((a, b) => a.target - b.target || a.lun - b.lun)
  }

  hasTarget(target: number): boolean {
    return this.#places.some(place => place.target === target)
  }

  has(target: number, lun: number): boolean {
    return this.#place(target, lun) !== undefined
  }

  /** Without a LUN all units of the target, without a target all of them: a unit attention tells. */
  reset(target?: number, lun?: number): void {
    for (const place of this.#places) {
      if ((target === undefined || place.target === target) && (lun === undefined || place.lun === lun)) place.wasReset = true
    }
  }

  /** The target is there; the unit may not be. */
  execute(target: number, lun: number, cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const place = this.#place(target, lun)
    if (cdb[0] === operation.reportLuns) return this.#reportLuns(target, cdb, data)
    if (!place) return withoutUnit(cdb, data)
    if (place.wasReset && !unattended.has(cdb[0])) {
      place.wasReset = false
      return cdb[0] === operation.requestSense ? requestSense(senses.wasReset, cdb, data) : senses.wasReset
    }
    // Sense data has gone with the status of the command: none waits.
    return cdb[0] === operation.requestSense ? requestSense(noSense, cdb, data) : place.unit.execute(cdb, data)
  }

  /** Which units have a unit attention waiting, by target and LUN. */
  saveState(): boolean[] {
    return this.#places.map(({ wasReset }) => wasReset)
  }

  restoreState(state: readonly boolean[]): void {
    this.#places.forEach((place, index) => { place.wasReset = state[index] })
  }

  #place(target: number, lun: number): Place | undefined {
    return this.#places.find(place => place.target === target && place.lun === lun)
  }

  /** "REPORT LUNS": LUN 0 is always listed, for it answers. LUNs above 255 are in the flat form. */
  #reportLuns(target: number, cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const allocated = viewOf(cdb).getUint32(6)
    const wellKnownOnly = cdb[2] === 1
    if (cdb[2] > 2 || allocated < 16) return senses.invalidField
    const luns = new Set([0, ...this.#places.filter(place => place.target === target).map(({ lun }) => lun)])
    const list = wellKnownOnly ? [] : [...luns].flatMap(lun => [((lun > 255 ? 0x4000 : 0) | lun) * 0x10000, 0])
    return answer(bigEndian([list.length * 4, 0, ...list]), allocated, data)
  }
}

/** "Incorrect logical unit numbers": nothing is there, and nothing can be. */
function withoutUnit(cdb: Uint8Array, data: DataPath): ScsiOutcome {
  if (cdb[0] === operation.requestSense) return requestSense(senses.noSuchUnit, cdb, data)
  if (cdb[0] !== operation.inquiry) return senses.noSuchUnit
  if (cdb[1] & 1 || cdb[2] !== 0) return senses.invalidField
  const bytes = new Uint8Array(36)
  bytes.set([peripheral.none, 0, 5, 0x12, 31])
  return answer(bytes, viewOf(cdb).getUint16(3), data)
}

const requestSense = (sense: Sense, cdb: Uint8Array, data: DataPath): ScsiOutcome => answer(senseData(sense), cdb[4], data)
