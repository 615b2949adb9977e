/** The trace of world switches, remapping and events, and why VM entries fail: to standard error, or to a file. */
import type { Machine } from '../../api.ts'
import type { RunRequest } from '../../cli/system.ts'
import { deliveryLine } from '../../insight/deliveries.ts'
import { explainFailure, nameFinder, remappingLine, traceLine } from '../../insight/guest-events.ts'
import { OutputFile } from './files.ts'

/** Lines that gather before they are written. */
const batch = 1000

/** Listens if anything was asked for; the result ends it. `say`: one or more whole lines for people. */
export function observeGuests({ trace, explain, symbols }: RunRequest, machine: Machine, say: (lines: string) => void): () => void {
  if (!trace && !explain) return () => {}
  const nameOf = nameFinder(symbols)
  const file = trace?.file === undefined ? undefined : new OutputFile(trace.file)
  let lines: string[] = []
  const write = (): void => {
    if (lines.length === 0) return
    const text = `${lines.join('\n')}\n`
    lines = []
    if (file === undefined) say(text)
    else file.write(text)
  }
  const add = (line: string): void => {
    if (lines.push(line) >= batch) write()
  }
  if (trace?.log) machine.onLog = message => add(`vitrine: ${message}`)
  if (trace?.kinds.includes('events')) machine.onDelivery = event => add(deliveryLine(event, nameOf))
  const exits = trace?.kinds.includes('exits') ?? false
  if (trace?.kinds.includes('iommu')) machine.onRemappingEvent = event => add(remappingLine(event))
  if (exits || explain) machine.onGuestEvent = event => {
    if (exits) add(traceLine(event, nameOf))
    if (!explain || event.kind !== 'failed') return
    if (file === undefined) write()
    say(`vitrine: ${explainFailure(event, nameOf)}\n`)
  }
  return () => {
    machine.onGuestEvent = undefined
    machine.onRemappingEvent = undefined
    machine.onDelivery = undefined
    write()
    file?.close()
  }
}
