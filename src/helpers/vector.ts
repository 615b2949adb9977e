/**
 * Vector instructions that are too irregular for generated code: masked stores, MPSADBW, PHMINPOSUW. Intel SDM vol. 2, the instructions'
 * pages.
 */
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { dataAddress } from './data-address.ts'
import { destinationPlace, immediateArgument, sourcePlace } from './vector-operands.ts'

const rdi = 7
const mmxBytes = 8

/**
 * argument[0]: bytes of the registers; [1]: place of the data; [2]: place of the mask. Faults before a byte changes; an empty mask
 * accesses nothing.
 */
export function maskmov(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const { bytes, words } = state
  const size = words[at.argument >> 2]
  const data = words[(at.argument >> 2) + 2]
  const mask = words[(at.argument >> 2) + 4]
  const offset = BigInt.asUintN(operation.addressSize, state.gpr[rdi])
  const address = dataAddress(cpu, operation.segment, offset, size, true)
  const selected = Array.from({ length: size }, (_, i) => i).filter(i => bytes[mask + i] & 0x80)
  for (const i of selected) memory.probeWrite(address + BigInt(i), 1)
  for (const i of selected) memory.write8(address + BigInt(i), bytes[data + i])
  if (size === mmxBytes) {
    state.fpTop = 0
    state.fpTags = 0xff
  }
  return after.next
}

/** Eight sums of absolute differences of four bytes each. */
export function mpsadbw(cpu: Processor): After {
  const { state } = cpu
  const { bytes } = state
  const selector = immediateArgument(state)
  const place = destinationPlace(state)
  const left = place + (selector & 4)
  const right = sourcePlace + (selector & 3) * 4
  const sums = new Uint16Array(8)
  for (let i = 0; i < 8; i++) for (let k = 0; k < 4; k++) sums[i] += Math.abs(bytes[left + i + k] - bytes[right + k])
  bytes.set(new Uint8Array(sums.buffer), place)
  return after.next
}

/** argument[0]: the destination's place; [1] and [2]: the sources' places; [3]: the immediate, three bits a lane. */
export function vmpsadbw(cpu: Processor): After {
  const { bytes, words } = cpu.state
  const argument = at.argument >> 2
  const [to, left, right, selector] = [words[argument], words[argument + 2], words[argument + 4], words[argument + 6]]
  const sums = new Uint16Array(16)
  for (let i = 0; i < 16; i++) {
    const lane = i & 8
    const bits = lane ? selector >> 3 : selector
    for (let k = 0; k < 4; k++)
      sums[i] += Math.abs(bytes[left + 2 * lane + (bits & 4) + (i & 7) + k] - bytes[right + 2 * lane + (bits & 3) * 4 + k])
  }
  bytes.set(new Uint8Array(sums.buffer), to)
  return after.next
}

/** The least of eight unsigned words and its position. */
export function phminposuw(cpu: Processor): After {
  const { bytes } = cpu.state
  const word = (i: number): number => bytes[sourcePlace + 2 * i] | (bytes[sourcePlace + 2 * i + 1] << 8)
  let best = 0
  for (let i = 1; i < 8; i++) if (word(i) < word(best)) best = i
  const least = word(best)
  const place = destinationPlace(cpu.state)
  bytes.fill(0, place, place + 16)
  bytes[place] = least
  bytes[place + 1] = least >> 8
  bytes[place + 2] = best
  return after.next
}
