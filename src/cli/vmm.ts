/** `vitrine vmm`: the hypervisor in TypeScript, with guests of its own. */
import { Command, Option } from 'commander'
import { demoPolicy, runDemo, type DemoReport } from '../vmm/demo/demo.ts'
import type { System } from './system.ts'
import { parseCount } from './values.ts'
import { picture } from './vmm-picture.ts'

interface Options {
  cpu: 'intel' | 'amd' | 'both'
  cpus: string
  seed: string
  json?: boolean
}

const mostProcessors = 8

export function vmmCommand(system: System): Command {
  return new Command('vmm')
    .description('a hypervisor in TypeScript: the life of four virtual CPUs, with no files')
    .addOption(new Option('--cpu <vendor>', 'the physical processors: VT-x, AMD-V, or one after the other').choices(['intel', 'amd',
      'both'])
      .default('both'))
    .option('--cpus <n>', 'physical processors', '2')
    .option('--seed <n>', 'another run; the same number gives the same run again', '1')
    .option('--json', 'the report as JSON instead of a picture')
    .action(async (options: Options) => {
      const cpus = parseCount(options.cpus, '--cpus', 1, mostProcessors)
      const seed = parseCount(options.seed, '--seed', 0, 0xffffffff)
      const reports: DemoReport[] = []
      for (const cpu of options.cpu === 'both' ? (['intel', 'amd'] as const) : [options.cpu]) {
        const report = runDemo(await system.hypervisor({ cpu, cpus, seed, policy: demoPolicy() }), seed)
        reports.push(report)
        if (!options.json) system.print(picture(report))
      }
      if (options.json) system.print(`${JSON.stringify(reports, undefined, 2)}\n`)
    })
}
