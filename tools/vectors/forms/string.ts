/** Forms of string instructions, alone and repeated, in both directions (SDM vol. 2 "MOVS", "REP/REPE/REPZ/REPNE/REPNZ"). */
import { anyDirection, anyFlags, gpr, SUFFIX, writeMemory } from '../form.ts'
import type { FormSpec, Group, Input, Width } from '../form.ts'
import { WINDOW } from '../../../test/vectors/state.ts'
import { WIDTHS } from './integer.ts'

/** Source and destination: apart, overlapping, across pages, and running out of the window (a fault in the middle). */
function pointers(width: Width): Input {
  const size = width / 8
  return (state, random) => {
    const source = random.pick([0x400, 0x403, 0x1000 - size, 0x0ffd, 0x1000, size, 0, 0x1f00 + random.below(0x100)])
    const destination = random.pick([0x1800, 0x1801, source + size, source - size, source + 1, 0x1000, 0x1ffc, 0x2000 - 3 * size, 2 * size,
      0x0fff])
    state.gpr[6] = BigInt(WINDOW + source)
    state.gpr[7] = BigInt(WINDOW + destination)
  }
}

const count: Input = gpr(1, 64, (random) => random.pick([0n, 1n, 2n, 3n, 4n, 5n, 7n, 8n, 16n, 17n, 40n]))

/** Equal bytes over a stretch, so that comparisons run for a while; then sometimes a difference. */
const stretch: Input = (state, random) => {
  const value = BigInt(random.below(256))
  const pattern = value * 0x0101_0101_0101_0101n
  for (const register of [6, 7]) {
    for (let i = -32; i < 48; i += 8) writeMemory(state, state.gpr[register] + BigInt(i), pattern, 8)
  }
  state.gpr[0] = pattern
  if (random.chance(0.7)) writeMemory(state, state.gpr[7] + BigInt(random.below(24)), value ^ 0x81n, 1)
  if (random.chance(0.2)) state.gpr[0] ^= 1n
}

function forms(): FormSpec[] {
  return WIDTHS.flatMap((width) => {
    const s = SUFFIX[width]
    const base = [anyFlags, anyDirection, pointers(width)]
    const list: FormSpec[] = []
    for (const op of ['movs', 'stos', 'lods', 'scas', 'cmps']) {
      const compares = op === 'scas' || op === 'cmps'
      const inputs = compares ? [...base, stretch] : base
      list.push({ text: op + s, inputs, count: 14 })
      if (compares) {
        // After a fault in the middle Intel restores the flags, AMD does not.
        const undefinedFlagsOnFault = 'oszapc'
        list.push(
          { text: `repe ${op}${s}`, undefinedFlagsOnFault, inputs: [...inputs, count], count: 36 },
          { text: `repne ${op}${s}`, undefinedFlagsOnFault, inputs: [...inputs, count], count: 36 },
        )
        list.push({ text: `addr32 repe ${op}${s}`, undefinedFlagsOnFault, inputs: [...inputs, count], count: 12 })
      } else {
        list.push({ text: `rep ${op}${s}`, inputs: [...inputs, count], count: op === 'lods' ? 12 : 36 })
        list.push({ text: `addr32 rep ${op}${s}`, inputs: [...inputs, count], count: 12 })
      }
    }
    list.push({ text: `movs${s} %gs:(%rsi), %es:(%rdi)`, inputs: [anyFlags, (state) => (state.gpr[6] = 0x33n)], count: 2 })
    list.push({ text: `addr32 movs${s} # registers' upper halves set`, count: 2, inputs: [(state) => {
      state.gpr[6] |= 0xabcd_0000_0000_0000n
      state.gpr[7] |= 0x1234_0000_0000_0000n
    }] })
    return list
  })
}

export const STRING: Group = { name: 'string', forms: forms() }
