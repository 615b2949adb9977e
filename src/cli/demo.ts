/** `vitrine demo`: something to see that needs no files. */
import { Command } from 'commander'
import { helloGuest } from '../guests/hello.ts'
import { report } from './run.ts'
import { statusOf } from './status.ts'
import type { System } from './system.ts'
import { parseCpu } from './values.ts'

const next = `
  Next, Linux: any bzImage and initial RAM disk. A checkout fetches Debian's, on Debian and its relatives:

    npx node tools/debian.ts kernel --out vmlinuz
    npx node tools/debian.ts initramfs --out initramfs.cpio
    npx vitrine run --kernel vmlinuz --initrd initramfs.cpio --append 'console=ttyS0'
`

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
      if (result.ending.kind === 'power-off') {
        const [instructions, microseconds] = [result.instructions, result.virtualNanoseconds / 1000]
          .map(count => Math.round(count).toLocaleString('en'))
        system.print(`  It took ${instructions} instructions and ${microseconds} microseconds of its own time: the same on every run.\n`)
        system.print(next)
      }
      done(statusOf(result))
    })
}
