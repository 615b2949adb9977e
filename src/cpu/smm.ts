/**
 * System management mode: what an SMI saves and sets up, and what RSM takes back. Intel SDM vol. 3, "System Management Mode"; AMD APM
 * vol. 2, "System-Management Mode". The save-state maps of both are in smm-map.ts.
 */
import { at } from './layout.ts'
import { cr0, cr4, efer } from './bits.ts'
import { cr4Writable } from './control.ts'
import { Fault } from './fault.ts'
import { slotOf } from './msr-table.ts'
import type { Processor } from './processor.ts'
import { activity } from './reset.ts'
import { readRflags, writeRflags } from './rflags.ts'
import { saveMaps, saveAreaOffset, saveAreaSize, type SaveMap } from './smm-map.ts'
import type { CpuState } from './state.ts'

/** Bits of `interruptShadow`. */
export const blockedBySmi = 4
export const blockedByNmi = 8

/** MSR_SMI_COUNT of Intel's processors. */
const smiCount = 0x34
const entryPoint = 0x8000n
/** Present, writable, accessed, and G: the limit is 4 GiB. The default size of code is 16 bits. */
const segmentAttributes = 0x8093
const bigLimit = 0xffff_ffff
const clearedCr0 = BigInt((cr0.PE | cr0.EM | cr0.TS | cr0.PG) >>> 0)

export const inSmm = (state: CpuState): boolean => (state.words[at.interruptShadow >> 2] & blockedBySmi) !== 0

/** A port access during which the SMI came: its instruction can be restarted. */
export interface SmiCause {
  readonly port: number
  readonly size: number
  readonly write: boolean
  /** RIP of the instruction. */
  readonly rip: bigint
}

/**
 * Takes the SMI between two instructions. The processor's only way into SMM: what intercepts SMIs stands in front of the caller. `halted`:
 * it was in HLT, which RSM goes back to if the handler leaves the flag of auto HALT restart set.
 */
export function enterSmm(cpu: Processor, halted: boolean, cause: SmiCause | undefined): void {
  const { state } = cpu
  const map = saveMaps[cpu.smm.saveMap]
  const rflags = readRflags(state)
  const old = { cr0: state.cr0, cr4: state.cr4, efer: state.efer }
  const base = Number(state.smbase)
  const nmiBlocked = (state.interruptShadow & blockedByNmi) !== 0
  state.interruptShadow = blockedBySmi | blockedByNmi
  cpu.smm.modeChanged()
  const area = new DataView(new ArrayBuffer(saveAreaSize))
  cpu.smm.read(base + saveAreaOffset, new Uint8Array(area.buffer))
  map.save(state, area, { rflags, halted, nmiBlocked, cause })
  cpu.smm.write(base + saveAreaOffset, new Uint8Array(area.buffer))

  if (cpu.model.vendor === 'GenuineIntel') state.msrMisc[slotOf(smiCount)] += 1n
  state.activity = activity.running
  state.pendingDebug = 0
  state.cr0 &= ~clearedCr0
  state.cr4 = 0n
  state.efer = 0n
  state.dr[7] = 0x400n
  writeRflags(state, 2)
  state.cpl = 0
  for (let segment = 0; segment < 6; segment++) {
    state.segSelector[segment] = 0
    state.segBase[segment] = 0n
    state.segLimit[segment] = bigLimit
    state.segAttributes[segment] = segmentAttributes
  }
  state.segSelector[1] = (base >>> 4) & 0xffff
  state.segBase[1] = state.smbase
  state.rip = entryPoint
  cpu.translation.controlWritten(old.cr0, old.cr4, old.efer)
  cpu.translation.flushAll()
  cpu.stateChanged()
}

/** RSM, in SMM. False: the state in memory is not one that a processor can be in, and it shuts down. */
export function leaveSmm(cpu: Processor): boolean {
  const { state } = cpu
  const map = saveMaps[cpu.smm.saveMap]
  const area = new DataView(new ArrayBuffer(saveAreaSize))
  cpu.smm.read(Number(state.smbase) + saveAreaOffset, new Uint8Array(area.buffer))
  const old = { cr0: state.cr0, cr4: state.cr4, efer: state.efer }
  const saved = map.restore(state, area)
  state.smbase = BigInt(saved.smbase)
  cpu.virt?.leaveSmm?.()
  // RSM leaves SMM whatever NMIs were: they are blocked again if the SMI interrupted their handler.
  state.interruptShadow = saved.nmiBlocked ? blockedByNmi : 0
  cpu.smm.modeChanged()
  if (!isPossible(cpu) || !loadPdptes(cpu)) {
    state.activity = activity.shutdown
    return false
  }
  writeRflags(state, saved.rflags)
  state.cpl = saved.rflags & 0x20000 ? 3 : (state.segAttributes[2] >> 5) & 3
  state.activity = saved.halted ? activity.halt : activity.running
  if (saved.restartIo) restartInstruction(state, map, area)
  cpu.translation.controlWritten(old.cr0, old.cr4, old.efer)
  cpu.translation.flushAll()
  cpu.stateChanged()
  return true
}

function restartInstruction(state: CpuState, map: SaveMap, area: DataView): void {
  const rip = map.ioRip(area)
  if (rip !== undefined) state.rip = rip
}

/** Intel SDM vol. 3, "Exiting From SMM": reserved bits of CR4 and combinations of CR0 that no MOV could set. */
function isPossible({ state, model }: Processor): boolean {
  const low = Number(state.cr0 & 0xffff_ffffn)
  if (state.cr0 >> 32n || (low & cr0.PG && !(low & cr0.PE)) || (low & cr0.NW && !(low & cr0.CD))) return false
  if (state.cr4 & ~cr4Writable(model)) return false
  const paging = (low & cr0.PG) !== 0
  const long = (state.efer & BigInt(efer.LME)) !== 0n
  if (paging && long && !(state.cr4 & BigInt(cr4.PAE))) return false
  return ((state.efer & BigInt(efer.LMA)) !== 0n) === (paging && long)
}

/** In PAE paging RSM loads the PDPTEs from memory; false when they are invalid. */
function loadPdptes(cpu: Processor): boolean {
  try {
    cpu.translation.cr3Written(false)
    return true
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault
    return false
  }
}
