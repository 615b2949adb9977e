/** The command line's process on Node: exits with the command's status, after everything written has been read. */
import type { Machine, MachineOptions } from '../../api.ts'
import { codeFolder } from './code-folder.ts'
import { type MachineFactory, nodeSystem } from './system.ts'

/** The machine is loaded when one is made: help and errors need none. The thread that compiles looks for kept code meanwhile. */
async function createMachine(options: MachineOptions, codeCache?: string): Promise<Machine> {
  const { CompileThread } = await import('./compile-thread.ts')
  const background = options.engine === 'jit' ? new CompileThread({ keep: codeFolder(codeCache) }) : undefined
  const { createMachine: create } = await import('../../machine.ts')
  return create(options, { background })
}

export async function main(args: string[], factory: MachineFactory = createMachine): Promise<void> {
  // A reader that went away is no error of the writer's; runs notice it for themselves.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const { commandLine } = await import('../../cli/main.ts')
  const status = await commandLine(args, nodeSystem(factory))
  await Promise.all([process.stdout, process.stderr].map(stream => new Promise<void>(resolve => { stream.write('', () => resolve()) })))
  process.exit(status)
}
