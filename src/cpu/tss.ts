/**
 * What the current TSS says: stacks of inner levels, the I/O permission bitmap, the interrupt redirection bitmap. Intel SDM vol. 3, "Task
 * Management"; vol. 1, "I/O Permission Bit Map".
 */
import { isCanonical } from './bits.ts'
import { isNull } from './descriptor.ts'
import { Fault, selectorFault, vector } from './fault.ts'
import type { Processor } from './processor.ts'
import type { CpuState } from './state.ts'

const tr = 7
/** Type bit 3: a 32-bit (or 64-bit) TSS. */
const isWideTss = (state: CpuState): boolean => (state.segAttributes[tr] & 8) !== 0

function check(cpu: Processor, offset: number, bytes: number, external: number): bigint {
  const { state } = cpu
  if (offset + bytes - 1 > state.segLimit[tr]) throw selectorFault(vector.TS, state.segSelector[tr], external)
  return state.segBase[tr] + BigInt(offset)
}

/** SS:ESP for a level, from a 16- or 32-bit TSS. */
export function readStackOfLevel(cpu: Processor, cpl: number, external = 0): { selector: number; pointer: bigint } {
  const { memory, state } = cpu
  let selector: number
  let pointer: number
  if (isWideTss(state)) {
    const address = check(cpu, 4 + cpl * 8, 6, external)
    pointer = memory.read32(address, 'supervisor')
    selector = memory.read16(address + 4n, 'supervisor')
  } else {
    const address = check(cpu, 2 + cpl * 4, 4, external)
    pointer = memory.read16(address, 'supervisor')
    selector = memory.read16(address + 2n, 'supervisor')
  }
  if (isNull(selector)) throw new Fault(vector.TS, external)
  return { selector, pointer: BigInt(pointer) }
}

/** RSP for a level, from a 64-bit TSS. */
export function readLongStackOfLevel(cpu: Processor, cpl: number, external = 0): bigint {
  const pointer = cpu.memory.read64(check(cpu, 4 + cpl * 8, 8, external), 'supervisor')
  if (!isCanonical(cpu.state, pointer)) throw new Fault(vector.SS, external)
  return pointer
}

const mapBaseOffset = 0x66

/** Whether the I/O permission bitmap lets all of `size` ports through. */
export function portsAllowed(cpu: Processor, port: number, size: number): boolean {
  const { state, memory } = cpu
  const limit = state.segLimit[tr]
  if (!isWideTss(state) || limit < mapBaseOffset + 1) return false
  const base = state.segBase[tr]
  const byte = memory.read16(base + BigInt(mapBaseOffset), 'supervisor') + (port >> 3)
  if (byte + 1 > limit) return false
  const bits = memory.read16(base + BigInt(byte), 'supervisor') >> (port & 7)
  return (bits & ((1 << size) - 1)) === 0
}

/** CR4.VME: true when INT n from virtual-8086 mode goes to the program's own handler. The 32 bytes lie below the I/O bitmap. */
export function redirectsInterrupt(cpu: Processor, interrupt: number): boolean {
  const { state, memory } = cpu
  const limit = state.segLimit[tr]
  if (!isWideTss(state) || limit < mapBaseOffset + 1) throw new Fault(vector.GP, 0)
  const byte = memory.read16(state.segBase[tr] + BigInt(mapBaseOffset), 'supervisor') - 32 + (interrupt >> 3)
  if (byte < 0 || byte > limit) throw new Fault(vector.GP, 0)
  return !(memory.read8(state.segBase[tr] + BigInt(byte), 'supervisor') & (1 << (interrupt & 7)))
}
