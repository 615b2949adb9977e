/** World switches and remapping for people: a line each for a trace, and the explanation of an entry that fails. */
import type { RemappingEvent } from '../api.ts'
import type { BrokenRuleReport, EntryFailure, FieldValue, GuestEvent } from '../cpu/guest-event.ts'
import type { Symbols } from './symbols.ts'

/** The name of an address of code, when it has one. */
export type NameOf = (address: bigint) => string | undefined

/** A symbol further below than this is of something else. */
const farthest = 1n << 20n

export const nameFinder = (symbols: Symbols | undefined): NameOf => address => {
  const found = symbols?.at(address)
  if (!found || found.offset >= farthest) return undefined
  return found.offset === 0n ? found.name : `${found.name}+0x${found.offset.toString(16)}`
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`
export const seconds = (nanoseconds: number): string => (nanoseconds / 1e9).toFixed(9).padStart(14)

/** In hexadecimal, with its name behind it if it has one. */
export function codeAddress(address: bigint, nameOf: NameOf): string {
  const name = nameOf(address)
  return name === undefined ? hex(address) : `${hex(address)} (${name})`
}

/** One line, without its end. */
export function traceLine(event: GuestEvent, nameOf: NameOf = () => undefined): string {
  const start = `${seconds(event.time)} cpu${event.cpu} ${event.vendor} ${hex(event.structure)} ${event.kind.padEnd(6)}`
  const rip = `rip ${codeAddress(event.rip, nameOf)}`
  if (event.kind === 'failed') {
    const rules = event.broken.map(({ rule, fields: [first] }) => `${first.name} (${first.place}) = ${hex(first.value)}: ${rule}`)
    return [start, rip, event.verdict, ...rules].join('  ')
  }
  if (event.kind === 'exit') {
    const values = event.fields.map(({ name, value }) => `${name} ${hex(value)}`)
    return [start, `${event.name} (${hex(event.reason)})`, rip, ...values].join('  ')
  }
  const { injects } = event
  const error = injects?.error === undefined ? '' : ` error ${hex(injects.error)}`
  return [start, rip, ...(injects ? [`injects ${injects.kind} ${hex(injects.vector)}${error}`] : [])].join('  ')
}

/** One line, without its end. */
export const remappingLine = ({ time, unit, kind, words }: RemappingEvent): string => `${seconds(time)} ${unit} ${kind.padEnd(12)} ${words}`

const valueOf = ({ name, place, value }: FieldValue): string => `${name} (${place}) = ${hex(value)}`

/** Few bits are named: what is wrong is seldom the rest of the value. */
function changedBits(value: bigint, wants: string): string {
  const bits = /^0x[0-9a-f]+$/.test(wants) ? value ^ BigInt(wants) : 0n
  const numbers = [...bits.toString(2)].reverse().flatMap((bit, number) => (bit === '1' ? [number] : []))
  if (numbers.length === 0 || numbers.length > 4) return ''
  return `: ${numbers.map(number => `bit ${number} ${(value >> BigInt(number)) & 1n ? 'clear' : 'set'}`).join(', ')}`
}

/** A rule that is broken, in lines. */
export function explainRule({ rule, source, fields, wants }: BrokenRuleReport, nameOf: NameOf = () => undefined): string[] {
  const [first, ...others] = fields
  const lines = [`  ${valueOf(first)}`, `    rule: ${rule}`, `    ${source}`]
  if (others.length > 0) lines.push(`    beside ${others.map(valueOf).join(', ')}`)
  if (first.writer !== undefined) lines.push(`    last written by the instruction at RIP ${codeAddress(first.writer, nameOf)}`)
  if (wants !== undefined) lines.push(`    ${wants} would do${changedBits(first.value, wants)}`)
  return lines
}

/** The processor stops at the first broken rule; this names all. */
export function explainFailure(event: EntryFailure, nameOf: NameOf = () => undefined): string {
  const structure = event.vendor === 'vmx' ? 'VMCS' : 'VMCB'
  const where = `on CPU ${event.cpu}, at RIP ${codeAddress(event.rip, nameOf)}, with the ${structure} at ${hex(event.structure)}`
  return [`VM entry failed ${where}: ${event.verdict}.`, ...event.broken.flatMap(each => explainRule(each, nameOf))].join('\n')
}
