/** What the tools have in common as commands: `--help` shows the comment at the head of their file, and a wrong option is one line. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, type ParseArgsConfig } from 'node:util'

/** The command line of the tool whose `import.meta.url` this is. Ends the process for `--help`, and for options that it has not. */
export function commandLine<T extends ParseArgsConfig>(url: string, config: T): ReturnType<typeof parseArgs<T>> {
  const file = fileURLToPath(url)
  const args = config.args ?? process.argv.slice(2)
  if (args.includes('--help') || args.includes('-h')) {
    console.log(headOf(readFileSync(file, 'utf8')))
    process.exit(0)
  }
  try {
    return parseArgs<T>(config)
  } catch (error) {
    refuse(file, (error as Error).message)
  }
}

/** Says in one line what was expected and found, and ends the process with status 2. */
export function refuse(file: string, message: string): never {
  process.stderr.write(`${basename(file, '.ts')}: ${message.split('\n')[0]}; --help lists the options\n`)
  process.exit(2)
}

/** The comment that a file begins with, without its stars. */
function headOf(text: string): string {
  const [, comment = ''] = /^\/\*\*([^]*?)\*\//.exec(text) ?? []
  return comment.split('\n').map(line => line.replace(/^ \* ?/, '')).join('\n').trim()
}
