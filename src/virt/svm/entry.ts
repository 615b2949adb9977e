/** VMRUN: its checks, the guest's state in place of the host's, and the event that it injects. AMD APM vol. 2, "VMRUN Instruction". */
import { attribute, cr0, cr4, efer } from '../../cpu/bits.ts'
import { Fault } from '../../cpu/fault.ts'
import { at } from '../../cpu/layout.ts'
import { activity } from '../../cpu/reset.ts'
import { flag, readRflags, writeRflags } from '../../cpu/rflags.ts'
import * as cleanBits from './clean-bits.ts'
import { eventOf } from './event-info.ts'
import { giveAllBack, returnToHost } from './exit.ts'
import { fillMask } from './exit-codes.ts'
import { entryEvent, failureEvent, missingRule, pointersRule, reportMissing, reportPointers } from './report.ts'
import { firstBroken, ruleWords } from './rules.ts'
import { svmWord } from './state.ts'
import type { Svm } from './svm.ts'
import { eventInfo, nestedControl, offsetOf, tlbControl, virtualExtension, virtualInterrupt } from './vmcb.ts'
import * as virtualNmi from './virtual-nmi.ts'
import { exchange, stateWords, instructionShadow } from './words.ts'

const index = stateWords

export function vmrun(unit: Svm): void {
  const { words } = unit
  const { lo, hi } = unit.operand()
  const start = unit.vmcbAt(lo, hi, true)
  unit.noteWriters(hi * 2 ** 32 + lo)
  words[svmWord.vmcb] = lo
  words[svmWord.vmcb + 1] = hi
  const cached = unit.strictCleanBits ? cleanBits.putIn(words, start, lo, hi) : undefined
  const entered = enter(unit, start, hi * 2 ** 32 + lo)
  if (cached) cleanBits.takeOut(words, start, cached)
  if (entered) inject(unit, start)
}

/** The checks, and the guest's state in place of the host's; false: refused. */
function enter(unit: Svm, start: number, vmcb: number): boolean {
  const { cpu, words } = unit
  const nextRip = cpu.operation.nextRip
  const vmrunRip = unit.observer ? cpu.state.rip : 0n
  unit.context.hostCr0 = words[index.cr0]
  if (!isAsAccepted(unit, start)) {
    const broken = firstBroken({ words, start }, unit.context)
    if (broken) {
      if (unit.observer) unit.observer(unit.failure(start, vmcb))
      return refuse(unit, start, nextRip, broken.title)
    }
    accept(unit, start)
  }
  const missing = unit.avic.missing(start)
  if (missing) {
    if (unit.observer) unit.observer(failureEvent(cpu, vmcb, vmrunRip, [reportMissing(missing, { words, start })]))
    return refuse(unit, start, nextRip, missingRule)
  }

  unit.copies.saveHost(0)
  words[svmWord.hostRflags] = readRflags(cpu.state)
  unit.setWide(svmWord.hostRip, nextRip)
  unit.copies.loadControls(start * 4)
  takeControls(unit, start)
  unit.copies.loadGuest(start * 4)
  loadFlags(unit, start)
  words[index.guestMode] = 1
  words[svmWord.globallyHeld] = 0
  words[index.space] = words[svmWord.asid]
  words[index.secondStage] = words[svmWord.nestedControl] & nestedControl.enable
  flush(unit, start)
  if (!enterPaging(unit)) {
    giveAllBack(unit, start)
    returnToHost(unit)
    if (unit.observer) unit.observer(failureEvent(cpu, vmcb, vmrunRip, [reportPointers({ words, start })]))
    return refuse(unit, start, nextRip, pointersRule)
  }
  cpu.interruptChanged()
  if (unit.observer) unit.observer(entryEvent(cpu, vmcb, { words, start }))
  return true
}

/** What the rules look at is as VMRUN last accepted it: then they are not asked again. */
function isAsAccepted(unit: Svm, start: number): boolean {
  const { words, accepted } = unit
  if (accepted[ruleWords.length] !== words[index.cr0]) return false
  for (let i = 0; i < ruleWords.length; i++) if (accepted[i] !== words[start + ruleWords[i]]) return false
  return true
}
function accept(unit: Svm, start: number): void {
  const { words, accepted } = unit
  for (let i = 0; i < ruleWords.length; i++) accepted[i] = words[start + ruleWords[i]]
  accepted[ruleWords.length] = words[index.cr0]
}

/** #VMEXIT(INVALID): nothing was loaded. */
function refuse(unit: Svm, start: number, nextRip: bigint, why: string): false {
  const { cpu, words } = unit
  cpu.log(`VMRUN: VMEXIT_INVALID, ${why}`)
  unit.putWide(start, 'exitCode', -1n)
  for (const name of ['exitInfo1', 'exitInfo2', 'exitInterrupt'] as const) unit.putWide(start, name, 0n)
  words[svmWord.globallyHeld] = 1
  words[index.gate] = 2
  words[index.rip] = Number(nextRip & 0xffffffffn)
  words[index.rip + 1] = Number(nextRip >> 32n)
  return false
}

/** What follows from the controls: the mask of intercepts, when interrupts are looked at, MSRs that are switched. */
function takeControls(unit: Svm, start: number): void {
  const { words, mask, maskFor } = unit
  const first = svmWord.crIntercepts
  let same = true
  for (let i = 0; i < 6; i++) {
    const value = words[first + i * 2]
    if (maskFor[i] !== value) {
      maskFor[i] = value
      same = false
    }
  }
  if (!same) fillMask(mask, maskFor)
  for (let i = 0; i < 4; i++) words[index.mask + i] = mask[i]
  const masking = words[svmWord.virtualInterrupt] & virtualInterrupt.masking
  words[index.gate] = masking === 0 ? 0 : words[svmWord.hostRflags] & flag.IF ? 1 : 2
  const nested = (words[svmWord.nestedControl] & nestedControl.enable) !== 0
  if (nested) exchange(words, index.pat, svmWord.hostPat, start + (offsetOf.gPat >> 2))
  if (words[svmWord.virtualExtensions] & virtualExtension.lbr) {
    exchange(words, index.debugctl, svmWord.hostDebugctl, start + (offsetOf.debugctl >> 2))
    exchange(words, index.lastBranch, svmWord.hostBrFrom, start + (offsetOf.brFrom >> 2))
    exchange(words, index.lastBranch + 2, svmWord.hostBrTo, start + (offsetOf.brTo >> 2))
    exchange(words, index.lastBranch + 4, svmWord.hostLastExceptionFrom, start + (offsetOf.lastExceptionFrom >> 2))
    exchange(words, index.lastBranch + 6, svmWord.hostLastExceptionTo, start + (offsetOf.lastExceptionTo >> 2))
  }
  const pause = words[start + (offsetOf.pauseThreshold >> 2)]
  words[svmWord.pauseThreshold] = pause & 0xffff
  words[svmWord.pauseFilter] = pause >>> 16
  words[svmWord.pauseCount] = pause >>> 16
  virtualNmi.enter(words)
  unit.avic.enter(start)
  words[svmWord.tscRatio] = unit.ratioWord < 0 ? 0 : words[unit.ratioWord]
  words[svmWord.tscRatio + 1] = unit.ratioWord < 0 ? 1 : words[unit.ratioWord + 1]
}

function loadFlags(unit: Svm, start: number): void {
  const { words } = unit
  writeRflags(unit.cpu.state, words[start + (offsetOf.rflags >> 2)])
  const long = words[index.efer] & efer.LME && words[index.cr0] & cr0.PG
  words[index.efer] = (words[index.efer] & ~efer.LMA) | (long ? efer.LMA : 0)
  words[index.cr0] |= cr0.ET
  if (!long || !(words[index.csAttributes] & attribute.long)) words[index.rip + 1] = 0
  if (!(words[index.cr0] & cr0.PE)) words[index.cpl] = 0
  else if (words[index.eflags] & flag.VM) words[index.cpl] = 3
  const shadow = words[start + (offsetOf.interruptState >> 2)] & 1
  words[index.shadow] = (words[index.shadow] & ~instructionShadow) | shadow
  unit.cpu.shadowCast()
  words[index.activity] = activity.running
  words[index.pendingDebug] = 0
}

/** TLB_CONTROL. */
function flush(unit: Svm, start: number): void {
  const { mmu } = unit
  const asid = unit.words[svmWord.asid]
  if (unit.avic.hasMoved(asid)) mmu.flushOther(asid, true)
  switch (unit.words[start + (offsetOf.tlbControl >> 2)] & 0xff) {
    case tlbControl.flushAll:
      mmu.flushAll()
      break
    case tlbControl.flushAsid:
    case tlbControl.flushAsidNonGlobal:
      mmu.flushOther(asid, (unit.words[start + (offsetOf.tlbControl >> 2)] & 4) === 0)
      mmu.secondStage?.flush(asid)
  }
}

/** The guest's paging takes effect; false when its PDPTEs have reserved bits. */
function enterPaging(unit: Svm): boolean {
  const { cpu, words } = unit
  const pae = words[index.cr0] & cr0.PG && words[at.cr4 >> 2] & cr4.PAE && !(words[index.efer] & efer.LMA)
  if (pae) {
    try {
      cpu.translation.cr3Written(true)
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      return false
    }
  }
  cpu.stateChanged()
  return true
}

/** EVENTINJ, after the guest's state is there and before its first instruction. */
function inject(unit: Svm, start: number): void {
  const { cpu, words } = unit
  const info = words[start + (offsetOf.eventInjection >> 2)]
  if (!(info & eventInfo.valid)) return
  const next = unit.offers.nrips ? unit.getWide(start + (offsetOf.nextRip >> 2)) : cpu.state.rip
  unit.injecting = eventOf(info, words[start + (offsetOf.eventInjectionError >> 2)], cpu.state.rip, next)
  cpu.deliver(unit.injecting)
  unit.injecting = undefined
}
