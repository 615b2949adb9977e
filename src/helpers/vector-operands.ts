/**
 * Where helpers of vector instructions find their operands: argument[0] is the destination's place in linear memory, [1] and [2] are the
 * 16 bytes of the source, [3] is the immediate.
 */
import { at } from '../cpu/layout.ts'
import type { CpuState } from '../cpu/state.ts'

export const destinationPlace = (state: CpuState): number => state.words[at.argument >> 2]
export const sourcePlace = at.argument + 8
export const immediateArgument = (state: CpuState): number => state.words[(at.argument >> 2) + 6] & 0xff
