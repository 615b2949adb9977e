/** What `bin/vitrine.js` starts: the program, from the file that holds all of its modules when there is one, else from them. */
import { createLinearMemory } from '../../memory/linear.ts'
import type * as program from './main.ts'
import { keepModules, runBundle, type OwnCode } from './own-code.ts'

/** Commands that make one machine at once. */
const machines = ['run', 'qemu', 'demo']

export async function start(args: string[]): Promise<void> {
  // V8 collects all of its heap when it hears of so much memory: now there is little to collect
  const linearMemory = machines.includes(args[0]) ? createLinearMemory() : undefined
  const own = ownCode(args)
  if (own) return (own.exports as typeof program).main(args, { own, linearMemory })
  keepModules()
  return (await import('./main.ts')).main(args, { linearMemory })
}

/** A profile tells our own code by its files; a benchmark loads tools of the checkout. */
function ownCode(args: string[]): OwnCode | undefined {
  if (args[0] === 'bench' || args.some(arg => arg.startsWith('--profile'))) return undefined
  return runBundle('program', /^[a-z]{1,8}$/.test(args[0] ?? '') ? args[0] : 'other')
}
