/** The command line: finds the command, and turns what goes wrong into one line and a status. */
import { Command, CommanderError } from 'commander'
import { nearest } from '../cpu/features.ts'
import { InputError, isInputError } from '../errors.ts'
import { statuses } from './status.ts'
import type { System } from './system.ts'

/** Runs one command; the result is the exit status of the process. */
export async function commandLine(args: string[], system: System): Promise<number> {
  try {
    // QEMU's options are not ours: they never meet our parser.
    return args[0] === 'qemu' ? await (await import('./qemu.ts')).qemu(args.slice(1), system) : await ours(args, system)
  } catch (error) {
    return reportError(error, system)
  }
}

/** Says what went wrong; the result is the exit status. */
export function reportError(error: unknown, system: Pick<System, 'printError'>): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : statuses.usage.status
  if (isInputError(error)) {
    system.printError(`vitrine: ${oneLine(error.message)}\n`)
    return statuses.usage.status
  }
  system.printError(`vitrine: an error of our own, please report it\n${error instanceof Error ? error.stack : String(error)}\n`)
  return statuses.internal.status
}

type MakeCommand = (system: System, done: (status: number) => void) => Command

/** Each command is loaded when it is asked for, or when all are listed: what it needs is half of the program. */
const makers: Readonly<Record<string, () => Promise<MakeCommand>>> = {
  run: async () => (await import('./run.ts')).runCommand,
  demo: async () => (await import('./demo.ts')).demoCommand,
  vmm: async () => (await import('./vmm.ts')).vmmCommand,
  bench: async () => (await import('./bench.ts')).benchCommand,
  explain: async () => (await import('./explain.ts')).explainCommand,
  qemu: () => Promise.resolve(() =>
    new Command('qemu').description("the same machine behind QEMU's command line: `vitrine qemu --help`")),
}

async function ours(args: string[], system: System): Promise<number> {
  let status = 0
  const program = new Command('vitrine')
    .description('an x86-64 PC under glass')
    .version(system.version)
    .addHelpText('after', '\n`vitrine COMMAND --help` says more; `vitrine demo` shows that it works.')
    .enablePositionalOptions()
  const wanted = args[0] !== undefined && Object.hasOwn(makers, args[0]) ? [args[0]] : Object.keys(makers)
  const commands: Command[] = []
  for (const name of wanted) commands.push((await makers[name]())(system, result => { status = result }))
  for (const command of commands) program.addCommand(command)
  for (const command of [program, ...commands]) {
    command.exitOverride().allowExcessArguments(false).configureOutput({
      writeOut: text => system.print(text),
      writeErr: text => system.printError(text),
      outputError: (text, write) => write(`vitrine: ${withNearest(oneLine(text.replace(/^error: /, '')), command)}\n`),
    })
  }
  if (args[0] === 'help' && args[1] !== undefined && !Object.hasOwn(makers, args[1])) {
    throw new InputError(`unknown command '${args[1]}'; the nearest is ${nearest(args[1], Object.keys(makers))}`)
  }
  if (args.length === 0) {
    system.print(program.helpInformation())
    return 0
  }
  await program.parseAsync(args, { from: 'user' })
  return status
}

/** The parser itself names only options that are nearly the same. */
function withNearest(message: string, command: Command): string {
  const [, unknown] = /^unknown option '(--?[^'=]+)[^']*'$/.exec(message) ?? []
  if (unknown === undefined) return message
  return `${message}; the nearest is ${nearest(unknown, command.options.flatMap(({ long }) => long ?? []))}`
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ')
}
