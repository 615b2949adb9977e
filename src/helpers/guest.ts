/** What a guest does not execute by itself. AMD APM vol. 2, "Instruction Intercepts"; Intel SDM vol. 3, "VMX Non-Root Operation". */
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'

const number = (at.argument >> 2) + 2

/** argument[0]: linear address of the memory operand, if there is one; argument[1]: number of the intercept; argument[2]: 1 if
 * there is one. Returns when it goes on. */
export function intercept(cpu: Processor): After {
  const { guest, state } = cpu
  if (!guest) throw new Error('an instruction is intercepted, but no guest runs')
  const exit = guest.intercept(state.words[number])
  return exit ? cpu.exitGuest(exit) : after.proceed
}
