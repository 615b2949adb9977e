/** `vitrine bench`: speed beside the emulators that are installed. */
import { Command, Option } from 'commander'
import { workloads } from '../bench/workloads.ts'
import type { System } from './system.ts'
import { parseCount, parseSeconds } from './values.ts'

interface BenchFlags {
  files?: string
  only?: string
  peers?: string
  engine?: string
  rounds?: string
  timeout: string
  cpu: 'intel' | 'amd'
  quick?: boolean
  checks: boolean
  report?: boolean
  json?: string
  svg?: string
}

const workloadHelp = workloads.map(({ name, what, usual }) => `  ${name.padEnd(10)}${what}${usual ? '' : ' (only when named)'}`).join('\n')

export function benchCommand(system: System): Command {
  return new Command('bench')
    .description('measure speed beside the emulators that are installed, on the same kernel and programs, in turn')
    .option('--only <list>', 'workloads, in commas (below)')
    .option('--rounds <n>', 'runs of each, in turn; medians count (default: 3)')
    .option('--peers <list>', 'columns, of vitrine, first (without kept code), interpreter, qemu, bochs (default: those installed)')
    .option('--engine <list>', 'only our own columns: jit, interpreter')
    .addOption(new Option('--cpu <vendor>', 'where an emulator has both').choices(['intel', 'amd']).default('intel'))
    .option('--quick', 'one round of few and short workloads, without Bochs')
    .option('--timeout <seconds>', 'of one run; the interpreter has 4 times that, Bochs 10 times', '600')
    .option('--files <folder>', 'vmlinuz and initramfs.cpio (default: $BENCH; a checkout builds them from Debian packages)')
    .option('--no-checks', 'do not measure start, memory and idling')
    .option('--json <file>', 'write all times, as data')
    .option('--svg <file>', 'write the ratios, as a picture')
    .option('--report', 'write BENCHMARKS.json, BENCHMARKS.svg, and the generated part of BENCHMARKS.md')
    .addHelpText('after', `\nWorkloads:\n${workloadHelp}\n`)
    .action(async ({ engine, rounds, timeout, ...flags }: BenchFlags) => {
      const own = engine?.split(',').map(name => (name === 'jit' ? 'vitrine' : name)).join(',')
      await system.bench({
        ...flags, quick: flags.quick ?? false, report: flags.report ?? false,
        ...(own === undefined ? {} : { peers: own }),
        ...(rounds === undefined ? {} : { rounds: parseCount(rounds, '--rounds', 1, 100) }),
        timeoutSeconds: parseSeconds(timeout, '--timeout'),
      })
    })
}
