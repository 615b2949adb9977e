/**
 * Loads, stores and gathers of chosen elements: VMASKMOV, VPMASKMOV, VGATHER, VPGATHER. Intel SDM vol. 2, the instructions' pages.
 *
 * argument[0]: places of registers, 16 bits each; [1]: the offset of the operand in its segment; [2] and [3]: sizes in bytes, as each says.
 */
import { invalidOpcode } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { dataAddress } from './data-address.ts'

const word = at.argument >> 2
const registerBytes = 32
const place = (cpu: Processor, number: number): number => (cpu.state.words[word + (number >> 1)] >>> (16 * (number & 1))) & 0xffff
const size = (cpu: Processor, argument: number): number => cpu.state.words[word + 2 * argument]

/** Numbers of the elements whose mask has its sign set. */
function chosen(cpu: Processor, mask: number, bytes: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => i).filter(i => cpu.state.bytes[mask + (i + 1) * bytes - 1] & 0x80)
}
/** `offset` counts from the operand's. */
function addressOf(cpu: Processor, offset: bigint, bytes: number, write: boolean): bigint {
  const { operation, state } = cpu
  return dataAddress(cpu, operation.segment, BigInt.asUintN(operation.addressSize, state.argument[1] + offset), bytes, write)
}
function load(cpu: Processor, offset: bigint, bytes: number, to: Uint8Array, position: number): void {
  const address = addressOf(cpu, offset, bytes, false)
  const view = new DataView(to.buffer, to.byteOffset)
  if (bytes === 8) view.setBigUint64(position, cpu.memory.read64(address), true)
  else view.setUint32(position, cpu.memory.read32(address), true)
}

/** [2]: bytes of an element; [3]: of the registers. */
export function maskedLoad(cpu: Processor): After {
  const { bytes } = cpu.state
  const step = size(cpu, 2)
  const result = new Uint8Array(registerBytes)
  for (const i of chosen(cpu, place(cpu, 1), step, size(cpu, 3) / step)) load(cpu, BigInt(i * step), step, result, i * step)
  bytes.set(result, place(cpu, 0))
  return after.next
}

export function maskedStore(cpu: Processor): After {
  const { memory, state } = cpu
  const step = size(cpu, 2)
  const from = place(cpu, 0)
  const elements = chosen(cpu, place(cpu, 1), step, size(cpu, 3) / step)
  const addresses = elements.map(i => addressOf(cpu, BigInt(i * step), step, true))
  for (const address of addresses) memory.probeWrite(address, step)
  elements.forEach((i, n) => {
    const at = (from + i * step) >> 2
    if (step === 4) memory.write32(addresses[n], state.words[at])
    else memory.write64(addresses[n], (BigInt(state.words[at + 1]) << 32n) | BigInt(state.words[at]))
  })
  return after.next
}

/** [2]: bytes of an index and of an element; [3]: how many elements. A fault leaves what was loaded, with its mask cleared. */
export function gather(cpu: Processor): After {
  const { state } = cpu
  const [to, mask, indexes] = [place(cpu, 0), place(cpu, 1), place(cpu, 2)]
  if (to === mask || to === indexes || mask === indexes) throw invalidOpcode()
  const indexBytes = size(cpu, 2) & 0xff
  const step = size(cpu, 2) >> 8
  const count = size(cpu, 3)
  const scale = cpu.operation.immediate
  const view = new DataView(state.bytes.buffer)
  for (const i of chosen(cpu, mask, step, count)) {
    const index = indexBytes === 8 ? view.getBigInt64(indexes + i * 8, true) : BigInt(view.getInt32(indexes + i * 4, true))
    load(cpu, index << scale, step, state.bytes, to + i * step)
    state.bytes.fill(0, mask + i * step, mask + (i + 1) * step)
  }
  state.bytes.fill(0, to + count * step, to + registerBytes)
  state.bytes.fill(0, mask, mask + registerBytes)
  return after.next
}
