/** `vitrine demo`: something to see that needs no files. */
import { Command } from 'commander'
import { helloGuest } from '../guests/hello.ts'
import { report } from './run.ts'
import { statusOf } from './status.ts'
import type { System } from './system.ts'
import { parseCpu } from './values.ts'

export function demoCommand(system: System, done: (status: number) => void): Command {
  return new Command('demo')
    .description('boot a small guest that needs no files')
    .option('--cpu <model>', 'as of `run`', 'intel')
    .action(async ({ cpu }: { cpu: string }) => {
      const { cpu: selection } = parseCpu(cpu, await system.catalogue())
      const result = await system.run({
        machine: { cpu: selection, memory: 16 << 20, raw: helloGuest },
        console: { serial: 'stdio', escape: true, interrupt: false, quiet: true, collect: false },
        session: {},
      })
      report(result, system)
      done(statusOf(result))
    })
}
