/** What the exit status of a run means. Ours are even, because isa-debug-exit's are always odd: nothing can be taken for something else. */
import type { RunResult } from './system.ts'

export interface Status {
  status: number
  meaning: string
}

export const statuses = {
  powerOff: { status: 0, meaning: 'the machine was powered off, or reset with --no-reboot; or its console was left (Ctrl-A X) or closed' },
  usage: { status: 2, meaning: 'the command line is wrong, or a file cannot be read or written' },
  internal: { status: 70, meaning: 'an error of our own: please report it' },
  panic: { status: 116, meaning: "the guest's kernel panicked, and stays there or reset the machine (--no-reboot); a report is printed" },
  halted: { status: 118, meaning: 'every CPU is halted and nothing can wake it' },
  tripleFault: { status: 120, meaning: 'triple fault; a report is printed' },
  budget: { status: 122, meaning: '--max-instructions are used up' },
  timeout: { status: 124, meaning: '--timeout is over' },
} as const satisfies Record<string, Status>

export const statusTable = [
  ...Object.values(statuses).map(({ status, meaning }) => `${String(status).padStart(5)}  ${meaning}`),
  '  odd  the guest wrote VALUE to isa-debug-exit: (VALUE << 1) | 1, cut to 8 bits',
  '128+N  ended by signal N',
].join('\n')

/** The exit status of a run, as `vitrine run --help` lists them. */
export function statusOf({ ending, panic }: Pick<RunResult, 'ending' | 'panic'>): number {
  switch (ending.kind) {
    case 'power-off': case 'left': return statuses.powerOff.status
    case 'panic': return statuses.panic.status
    case 'reset': return panic === undefined ? statuses.powerOff.status : statuses.panic.status
    case 'debug-exit': return ending.status & 0xff
    case 'triple-fault': return statuses.tripleFault.status
    case 'idle': return statuses.halted.status
    case 'budget': return statuses.budget.status
    case 'timeout': return statuses.timeout.status
    case 'signal': return ending.status
    case 'breakpoint': case 'watchpoint': case 'root':
      throw new Error(`a run of the command line stopped: ${ending.kind}, on CPU ${ending.cpu}; nobody asks for that`)
  }
}

/** One line on how it ended, when that is worth one; `undefined` for the ordinary ways. */
export function sayEnding({ ending, panic, instructions: count }: RunResult): string | undefined {
  const instructions = `${count} instruction${count === 1 ? '' : 's'}`
  const said = panic === undefined ? '' : `; the console showed: ${panic}`
  switch (ending.kind) {
    case 'power-off': case 'left': case 'debug-exit': case 'signal': case 'breakpoint': case 'watchpoint': case 'root': return undefined
    case 'panic': return `the guest's kernel panicked: ${panic ?? 'no message'}`
    case 'reset': return panic === undefined ? undefined : `the guest's kernel panicked: ${panic}`
    case 'triple-fault': return `triple fault after ${instructions}\n${ending.report.trimEnd()}`
    case 'idle': return `every CPU is halted and nothing can wake it, after ${instructions}${said}`
    case 'budget': return `stopped after ${instructions} (--max-instructions)${said}`
    case 'timeout': return `stopped after ${instructions} (--timeout)${said}`
  }
}
