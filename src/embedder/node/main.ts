/** The command line's process on Node: exits with the command's status, after everything written has been read. */
import type { Machine, MachineOptions } from '../../api.ts'
import { InputError } from '../../errors.ts'
import { createLinearMemory } from '../../memory/linear.ts'
import { codeFolder, expectCodeFolder } from './code-folder.ts'
import { reasonOf } from './files.ts'
import { interpreterStore } from './interpreter-store.ts'
import type { OwnCode } from './own-code.ts'
import { programName } from './program.ts'
import { nameOfStarted } from './started.ts'
import { type MachineFactory, nodeSystem } from './system.ts'

/**
 * The machine is loaded when one is made - help and errors need none - and of what only some have nothing but what it has. The thread that
 * compiles looks for kept code meanwhile.
 */
async function createMachine(
  options: MachineOptions, codeCache: string | undefined, read: Promise<unknown> | undefined, { own, ...made }: Started,
): Promise<Machine> {
  if (codeCache !== undefined) expectCodeFolder(codeCache)
  const linearMemory = made.linearMemory ?? createLinearMemory()
  const folder = codeFolder(codeCache)
  const program = folder === undefined ? '' : (own?.name ?? programName())
  const { CompileThread } = await import('./compile-thread.ts')
  const background =
    options.engine === 'jit' ? new CompileThread({ keep: folder, program, own: own?.name }) : undefined
  const { BareMachine, needsParts } = await import('../../machine/bare-machine.ts')
  const parts = needsParts(options) ? await import('../../machine/parts.ts') : undefined
  const interpreterKeeper = folder === undefined ? undefined : interpreterStore(folder, program)
  await read
  if (background) background.started = nameOfStarted(options)
  return new BareMachine(options, parts, { background, linearMemory, interpreterKeeper })
}

/** What the start of the process has made already. */
export interface Started {
  /** The file that it runs from. */
  readonly own?: OwnCode | undefined
  /** For the first machine. */
  readonly linearMemory?: WebAssembly.Memory | undefined
}

export async function main(args: string[], started: Started = {}, factory?: MachineFactory): Promise<void> {
  let lost: NodeJS.ErrnoException | undefined
  // A reader that went away is no error of the writer's; runs notice it for themselves. A full disk is one.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => { if (error.code !== 'EPIPE') lost ??= error })
  process.stderr.on('error', () => {})
  const { commandLine, reportError } = await import('../../cli/main.ts')
  let { linearMemory } = started
  const createOurs: MachineFactory = (options, codeCache, read) => {
    const first = linearMemory
    linearMemory = undefined
    return createMachine(options, codeCache, read, { ...started, linearMemory: first })
  }
  const system = nodeSystem(factory ?? createOurs)
  // What fails in an event of Node's fails in no command.
  process.once('uncaughtException', error => process.exit(reportError(error, system)))
  let status = await commandLine(args, system)
  await Promise.all([process.stdout, process.stderr].map(stream => new Promise<void>(resolve => { stream.write('', () => resolve()) })))
  if (lost) status = reportError(new InputError(`cannot write to standard output: ${reasonOf(lost)}`), system)
  started.own?.keep()
  process.exit(status)
}
