/** The helpers of all folders, by number. */
import { Fault, vector as exception } from '../cpu/fault.ts'
import type { Helper } from '../cpu/processor.ts'
import { helpers } from '../helpers/index.ts'
import { helperTime } from '../helpers/time.ts'
import { svmHelpers, svmTimes } from '../virt/svm/instructions.ts'
import { vmxHelpers, vmxTimes } from '../virt/vmx/instructions.ts'

const allHelpers: Readonly<Record<string, Helper | undefined>> = { ...helpers, ...vmxHelpers, ...svmHelpers }
const allTimes: Readonly<Record<string, number | undefined>> = { ...helperTime, ...vmxTimes, ...svmTimes }

/** For what rows name and nobody wrote: the instruction raises #UD, and says so once. */
function missingHelper(name: string): Helper {
  return cpu => {
    cpu.log(`#UD: the helper '${name}' is not implemented (RIP 0x${cpu.state.rip.toString(16)})`)
    throw new Fault(exception.UD)
  }
}

/** Of every helper that there is. */
export const helperNames: readonly string[] = Object.keys(allHelpers)

export class HelperTable {
  readonly functions: Helper[] = []
  /** By the same number: virtual nanoseconds besides the one of every instruction. */
  readonly times: number[] = []
  private readonly numbers = new Map<string, number>()

  /** The same numbers in each run: they are part of generated code, which may be kept from one to the next. */
  constructor() {
    for (const name of helperNames) this.number(name)
  }

  readonly number = (name: string): number => {
    let number = this.numbers.get(name)
    if (number === undefined) {
      number = this.functions.push(allHelpers[name] ?? missingHelper(name)) - 1
      this.times.push(allTimes[name] ?? 0)
      this.numbers.set(name, number)
    }
    return number
  }
}
