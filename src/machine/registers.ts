/** A CPU's registers as people see and set them (CpuRegisters in api.ts), from and to its state. */
import type { CpuRegisters } from '../api.ts'
import { readRflags, writeRflags } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'

/** In the order of the state's arrays. */
const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const
const settableControls = ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const

type Segments = CpuRegisters['segments']

function segments(state: CpuState): Segments {
  return Object.fromEntries(segmentNames.map((name, i): [string, Segments['cs']] => [name, {
    selector: state.segSelector[i],
    base: state.segBase[i],
    limit: state.segLimit[i],
    attributes: state.segAttributes[i],
  }])) as unknown as Segments
}

function x87(state: CpuState): CpuRegisters['x87'] {
  const st = Array.from({ length: 8 }, (_, i) => {
    const word = ((state.fpTop + i) & 7) * 2
    return state.fpr[word] | ((state.fpr[word + 1] & 0xffffn) << 64n)
  })
  return { control: state.fpControl, status: state.fpStatus | (state.fpTop << 11), tag: fullTag(state.fpTags), st }
}

/** Two bits a register: 0 valid (what kind is told from its contents), 3 empty. */
function fullTag(abridged: number): number {
  let tag = 0
  for (let i = 0; i < 8; i++) if (!((abridged >> i) & 1)) tag |= 3 << (2 * i)
  return tag
}

/** `tpr`: the local APIC's, which CR8 shows. */
export function readRegisters(state: CpuState, tpr: number): CpuRegisters {
  const { cr0, cr2, cr3, cr4, efer, rip, mxcsr } = state
  return {
    gpr: [...state.gpr],
    rip,
    rflags: BigInt(readRflags(state)),
    segments: segments(state),
    gdtr: { base: state.gdtrBase, limit: state.gdtrLimit },
    idtr: { base: state.idtrBase, limit: state.idtrLimit },
    cr0,
    cr2,
    cr3,
    cr4,
    cr8: BigInt(tpr),
    efer,
    dr: [...state.dr],
    xmm: Array.from({ length: 16 }, (_, i) => ({ low: state.vector[i * 8], high: state.vector[i * 8 + 1] })),
    ymmHigh: Array.from({ length: 16 }, (_, i) => ({ low: state.vector[i * 8 + 2], high: state.vector[i * 8 + 3] })),
    mxcsr,
    x87: x87(state),
  }
}

/** What is derived from the state has to be derived anew. */
export function writeRegisters(state: CpuState, registers: Partial<CpuRegisters>): void {
  registers.gpr?.forEach((value, i) => (state.gpr[i] = value))
  if (registers.rip !== undefined) state.rip = registers.rip
  if (registers.rflags !== undefined) writeRflags(state, Number(registers.rflags))
  for (const [i, name] of segmentNames.entries()) {
    const segment = registers.segments?.[name]
    if (!segment) continue
    state.segSelector[i] = segment.selector
    state.segBase[i] = segment.base
    state.segLimit[i] = segment.limit
    state.segAttributes[i] = segment.attributes
    if (name === 'ss') state.cpl = (segment.attributes >> 5) & 3
  }
  for (const name of settableControls) if (registers[name] !== undefined) state[name] = registers[name]
  if (registers.gdtr) [state.gdtrBase, state.gdtrLimit] = [registers.gdtr.base, registers.gdtr.limit]
  if (registers.idtr) [state.idtrBase, state.idtrLimit] = [registers.idtr.base, registers.idtr.limit]
  registers.dr?.forEach((value, i) => (state.dr[i] = value))
  registers.ymmHigh?.forEach(({ low, high }, i) => {
    state.vector[i * 8 + 2] = low
    state.vector[i * 8 + 3] = high
  })
  registers.xmm?.forEach(({ low, high }, i) => {
    state.vector[i * 8] = low
    state.vector[i * 8 + 1] = high
  })
  if (registers.mxcsr !== undefined) state.mxcsr = registers.mxcsr
}
