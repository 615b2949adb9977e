/** #VMEXIT: the guest's state and why it left go to the VMCB, the host's registers come back. AMD APM vol. 2, "#VMEXIT". */
import { cr0, cr4, efer } from '../../cpu/bits.ts'
import type { CpuEvent } from '../../cpu/event.ts'
import { at } from '../../cpu/layout.ts'
import { activity } from '../../cpu/reset.ts'
import { flag, readRflags, writeRflags } from '../../cpu/rflags.ts'
import type { VmExit } from '../../cpu/virtualization.ts'
import * as cleanBits from './clean-bits.ts'
import { infoOf } from './event-info.ts'
import { exitEvent } from './report.ts'
import { svmWord } from './state.ts'
import type { Svm } from './svm.ts'
import { eventInfo, fetchedBytes, nestedControl, offsetOf, virtualExtension } from './vmcb.ts'
import * as virtualNmi from './virtual-nmi.ts'
import { giveBack, stateWords, instructionShadow, vmcbWords } from './words.ts'

const index = stateWords
const inVmcb = vmcbWords

/** What an exit has to say besides code and EXITINFO. */
export interface Detail {
  /** nRIP: exits of instructions. */
  readonly nextRip?: bigint
  /** Decode assists: the bytes of the instruction. */
  readonly bytes?: boolean
}

export function leaveGuest(unit: Svm, exit: VmExit): void {
  const { cpu, words } = unit
  const start = unit.vmcbAt(words[svmWord.vmcb], words[svmWord.vmcb + 1], true)
  const detail = (exit.more ?? {}) as Detail
  words[svmWord.writeTrap] = 0
  words[start + inVmcb.exitCode] = exit.reason
  words[start + inVmcb.exitCode + 1] = 0
  unit.setWide(start + inVmcb.exitInfo1, exit.info1)
  unit.setWide(start + inVmcb.exitInfo2, exit.info2)
  const during = exit.during as CpuEvent | undefined
  words[start + inVmcb.exitInterrupt] = during ? infoOf(during) : 0
  words[start + inVmcb.exitInterruptError] = during?.error ?? 0
  if (unit.offers.nrips) unit.setWide(start + inVmcb.nextRip, detail.nextRip ?? 0n)
  if (unit.offers.decode) putBytes(unit, start, detail.bytes === true)

  words[start + inVmcb.rflags] = readRflags(cpu.state)
  words[start + inVmcb.rflags + 1] = 0
  words[start + inVmcb.interruptState] = cpu.blocking & instructionShadow ? 1 : 0
  giveAllBack(unit, start)
  words[start + inVmcb.virtualInterrupt] = words[svmWord.virtualInterrupt]
  words[start + inVmcb.eventInjection] &= ~eventInfo.valid
  unit.copies.saveGuest(start * 4)
  if (unit.strictCleanBits) cleanBits.keep(words, start, words[svmWord.vmcb], words[svmWord.vmcb + 1])
  if (unit.observer) {
    unit.writers?.exited(unit.getVmcb())
    unit.observer(exitEvent(cpu, unit.getVmcb(), { words, start }))
  }
  returnToHost(unit)
  cpu.singleStep(false)
  // VMRUN has completed: the host's trap flag was set when it began
  if (words[svmWord.hostRflags] & flag.TF) words[index.pendingDebug] |= 0x4000
  cpu.interruptChanged()
}

/** What is switched only with some controls: blocking by NMI, PAT, the last-branch record. */
export function giveAllBack({ words }: Svm, start: number): void {
  virtualNmi.leave(words)
  if (words[svmWord.nestedControl] & nestedControl.enable) giveBack(words, index.pat, svmWord.hostPat, start + inVmcb.gPat)
  if (!(words[svmWord.virtualExtensions] & virtualExtension.lbr)) return
  giveBack(words, index.debugctl, svmWord.hostDebugctl, start + inVmcb.debugctl)
  giveBack(words, index.lastBranch, svmWord.hostBrFrom, start + inVmcb.brFrom)
  giveBack(words, index.lastBranch + 2, svmWord.hostBrTo, start + inVmcb.brTo)
  giveBack(words, index.lastBranch + 4, svmWord.hostLastExceptionFrom, start + inVmcb.lastExceptionFrom)
  giveBack(words, index.lastBranch + 6, svmWord.hostLastExceptionTo, start + inVmcb.lastExceptionTo)
}

/** The host's registers and modes, after VMRUN. GIF is 0. */
export function returnToHost(unit: Svm): void {
  const { cpu, words } = unit
  unit.copies.loadHost(0)
  unit.setWide(index.rip, unit.getWide(svmWord.hostRip))
  words[index.cr0] |= cr0.PE
  words[index.cpl] = 0
  words[index.dr7] = 0x400
  words[index.dr7 + 1] = 0
  words[index.guestMode] = 0
  unit.avic.leave()
  words[index.space] = 0
  words[index.secondStage] = 0
  for (let i = 0; i < 4; i++) words[index.mask + i] = 0
  words[svmWord.globallyHeld] = 1
  words[index.gate] = 2
  words[index.activity] = activity.running
  words[index.pendingDebug] = 0
  writeRflags(cpu.state, words[svmWord.hostRflags] & ~flag.VM)
  words[index.shadow] &= ~instructionShadow
  cpu.shadowCast()
  const pae = words[index.cr0] & cr0.PG && words[at.cr4 >> 2] & cr4.PAE && !(words[index.efer] & efer.LMA)
  if (pae) cpu.translation.cr3Written(true)
  cpu.stateChanged()
}

/** Decode assists: the bytes at the guest's RIP, as far as they were fetched. */
function putBytes(unit: Svm, start: number, wanted: boolean): void {
  const bytes = wanted ? unit.cpu.codeBytes(15) : undefined
  const to = start * 4 + offsetOf.fetchedLength
  for (let i = 0; i < 4; i++) unit.words[(to >>> 2) + i] = 0
  if (!bytes) return
  const all = unit.cpu.state.bytes
  all[to] = bytes.length
  all.set(bytes, start * 4 + fetchedBytes)
}
