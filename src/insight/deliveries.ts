/** Exceptions and interrupts as lines, in the form that QEMU's `-d int` has made known, so that what reads that can read this. */
import type { DeliveredEvent } from '../api.ts'
import { codeAddress, type NameOf, seconds } from './guest-events.ts'

const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, '0')

/** Intel SDM vol. 3, "Protected-Mode Exceptions and Interrupts". */
const exceptionNames: Readonly<Record<number, string>> = {
  0: '#DE', 1: '#DB', 2: 'NMI', 3: '#BP', 4: '#OF', 5: '#BR', 6: '#UD', 7: '#NM', 8: '#DF', 10: '#TS', 11: '#NP', 12: '#SS', 13: '#GP',
  14: '#PF', 16: '#MF', 17: '#AC', 18: '#MC', 19: '#XM', 20: '#VE', 21: '#CP', 29: '#VC', 30: '#SX',
}

function nameOfEvent({ kind, vector }: DeliveredEvent): string {
  if (kind === 'external') return 'interrupt'
  if (kind === 'softwareInterrupt') return 'INT n'
  return exceptionNames[vector] ?? 'exception'
}

/** One line, without its end: `v` the vector, `e` the error code, `i` whether an instruction asked for it. */
export function deliveryLine(event: DeliveredEvent, nameOf: NameOf = () => undefined): string {
  const { time, cpu, kind, vector, error = 0, address, guest, cpl, cs, rip, ss, rsp, rax } = event
  const asked = kind === 'softwareInterrupt' || kind === 'softwareException' || kind === 'privilegedSoftware' ? 1 : 0
  const last = address === undefined ? `RAX=${hex(rax, 16)}` : `CR2=${hex(address, 16)}`
  return `${seconds(time)} cpu${cpu}${guest ? ' guest' : ''} ${nameOfEvent(event).padEnd(9)} v=${hex(vector, 2)} e=${hex(error, 4)} ` +
    `i=${asked} cpl=${cpl} IP=${hex(cs, 4)}:${hex(rip, 16)} SP=${hex(ss, 4)}:${hex(rsp, 16)} ${last}${named(rip, nameOf)}`
}

function named(rip: bigint, nameOf: NameOf): string {
  return nameOf(rip) === undefined ? '' : `  ${codeAddress(rip, nameOf)}`
}
