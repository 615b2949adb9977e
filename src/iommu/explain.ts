/** A unit's decisions in words: which device asked what, which entry decided, where that lies. */
import type { FaultRecord } from './fault-log.ts'
import { faultReason, isInterruptFault } from './fault-reasons.ts'
import type { Remapped } from './interrupts.ts'
import { type EntryPlace, hex, quadText, type RemappedInterrupt, type RemappingFault, sourceText } from './ports.ts'

/** One line: who asked for what, which entry decided, and the reason in words and by its number. */
export function explainFault({ source, info, write, pasid }: FaultRecord, { reason, entry, detail }: RemappingFault): string {
  const { code, words, number } = faultReason(reason)
  const asked = isInterruptFault(reason)
    ? `interrupt ${info} from ${sourceText(source)}`
    : `${write ? 'write' : 'read'} at ${hex(info)} by ${sourceText(source)}${pasid === undefined ? '' : ` with PASID ${pasid}`}`
  const more = detail === undefined ? '' : ` (${detail})`
  const where = entry ? `; ${placeText(entry)}` : ''
  return `${asked} is blocked: ${words}${more}; reason ${number.toString(16).toUpperCase()}h, ${code}${where}`
}

const placeText = ({ what, address, quads }: EntryPlace): string =>
  `${what} at ${hex(address)}${quads.length === 0 ? '' : ` is ${quads.slice(0, 2).map(quadText).reverse().join(' ')}`}`

const modeNames = ['fixed', 'lowest priority', 'SMI', 'reserved', 'NMI', 'INIT', 'startup', 'ExtINT']

const messageText = ({ destination, logical, mode, vector, level }: RemappedInterrupt): string =>
  `vector ${hex(vector)}, ${modeNames[mode]}, ${level ? 'level' : 'edge'}, to ${logical ? 'logical' : 'APIC'} ${hex(destination)}`

/** The journey of one interrupt; undefined for faults, which have their own words. */
export function explainInterrupt(source: number | undefined, remapped: Remapped): string | undefined {
  const from = source === undefined ? 'an I/O APIC' : sourceText(source)
  switch (remapped.kind) {
    case 'remapped': return `interrupt ${remapped.index} from ${from}: ${messageText(remapped.message)}; ${placeText(remapped.entry)}`
    case 'posted': {
      const { index, vector, descriptor, notification } = remapped
      const none = 'no notification: one is outstanding, or they are suppressed'
      const then = notification ? `notified with ${messageText(notification)}` : none
      return `interrupt ${index} from ${from}: vector ${hex(vector)} posted at ${hex(descriptor)}; ${then}`
    }
    case 'compatibility': return `interrupt from ${from} passes in the compatibility format`
    case 'fault': return undefined
  }
}
