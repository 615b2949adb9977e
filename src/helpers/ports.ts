/** IN, OUT and their permission. Intel SDM vol. 1, "I/O Privilege Level", "I/O Permission Bit Map". */
import { isProtected, isV86 } from '../cpu/bits.ts'
import { generalProtection } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { portsAllowed } from '../cpu/tss.ts'
import { iopl, writeGpr } from './registers.ts'

/** Virtual nanoseconds of one port access. */
export const portTime = 1000

const immediateWord = (at.argument >> 2) + 6

export function checkPorts(cpu: Processor, port: number, size: number): void {
  const { state } = cpu
  if (!isProtected(state) || (state.cpl <= iopl(state) && !isV86(state))) return
  if (!portsAllowed(cpu, port, size)) throw generalProtection()
}

/** The arguments are: port, value (OUT), size in bytes, 1 when the instruction names the port by an immediate. */
function access(cpu: Processor): { port: number; size: 1 | 2 | 4; immediate: boolean } {
  const { state } = cpu
  const port = Number(state.argument[0] & 0xffffn)
  const size = Number(state.argument[2]) as 1 | 2 | 4
  checkPorts(cpu, port, size)
  return { port, size, immediate: state.words[immediateWord] !== 0 }
}

function readIn(cpu: Processor): After {
  const { port, size, immediate } = access(cpu)
  const exit = cpu.guest?.portAccess({ port, size, write: false, immediate })
  if (exit) return cpu.exitGuest(exit)
  writeGpr(cpu.state, 0, size * 8, BigInt(cpu.ports.read(port, size)))
  cpu.spend(portTime)
  return after.leave
}

export function out(cpu: Processor): After {
  const { port, size, immediate } = access(cpu)
  const exit = cpu.guest?.portAccess({ port, size, write: true, immediate })
  if (exit) return cpu.exitGuest(exit)
  cpu.ports.write(port, size, Number(cpu.state.argument[1] & 0xffffffffn))
  cpu.spend(portTime)
  return after.leave
}

export { readIn as in }
