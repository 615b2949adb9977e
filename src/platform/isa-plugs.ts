/** How devices that are a port or two are put into a PC. Test kernels end their runs by one: every PC has these at hand. */
import { DebugConsole } from '../devices/debugcon/debugcon.ts'
import { DebugExit } from '../devices/debug-exit/debug-exit.ts'
import type { PortHandler } from '../devices/ports.ts'
import { InputError } from '../errors.ts'
import type { Board, Plug } from './device-catalogue.ts'

export const isaPlugs: Readonly<Record<string, Plug>> = {
  'isa-debug-exit': (board, property) => {
    const [base, size] = [number('iobase', property('iobase'), 0xffff), number('iosize', property('iosize'), 4)]
    claimFree(board, base, size, 'isa-debug-exit', new DebugExit(board.debugExit))
    return []
  },
  'isa-debugcon': (board, property) => {
    claimFree(board, number('iobase', property('iobase'), 0xffff), 1, 'isa-debugcon', new DebugConsole(board.debugOutput))
    return []
  },
}

/** A place that the user chose may be taken: that is his to mend. */
export function claimFree(board: Board, base: number, size: number, name: string, handler: PortHandler): void {
  if (base + size > 0x10000) {
    throw new InputError(`device '${name}': expected ports up to 0xffff, found 0x${base.toString(16)} and ${size} bytes`)
  }
  const owner = board.ports.owner(base, size)
  if (owner) throw new InputError(`device '${name}': expected free ports at 0x${base.toString(16)}, found ${owner.name} there`)
  board.ports.claim(base, size, name, handler)
}

/** The value of a property. */
export function number(property: string, text: string, max: number): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isInteger(value) || value < 0 || value > max) {
    throw new InputError(`property '${property}': expected a number from 0 to 0x${max.toString(16)}, found '${text}'`)
  }
  return value
}
