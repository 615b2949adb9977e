/**
 * A new pseudo-terminal, for somebody else to open. Node cannot make one; util-linux' `script` can (script(1)): what it relays between the
 * program that it runs and its own standard input and output, it relays for whoever opens the terminal of that program.
 */
import { spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { InputError } from '../../errors.ts'

export interface PseudoTerminal {
  /** Such as /dev/pts/3. */
  path: string
  /** What is to be read there. */
  input: Writable
  /** What was written there. */
  output: Readable
  close(): void
}

/** The program says its terminal's name and stays until our end of a pipe is gone, however we end. */
const program = 'stty raw -echo && tty && read -r gone <&3'

/** Throws an InputError when there is no `script` that can. */
export async function pseudoTerminal(): Promise<PseudoTerminal> {
  const env = { ...process.env, SHELL: '/bin/sh' }
  const child = spawn('script', ['-qfc', program, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore', 'pipe'], env })
  const [input, output, leash] = [child.stdin!, child.stdout!, child.stdio[3]!]
  for (const stream of [input, output, leash]) stream.on('error', () => {})
  const path = await new Promise<string>((resolve, reject) => {
    const refuse = (why: string): void => reject(new InputError(`a pseudo-terminal needs the program script of util-linux: ${why}`))
    let said = ''
    const take = (bytes: Buffer): void => {
      said += bytes.toString()
      const end = said.indexOf('\n')
      if (end < 0) return
      output.off('data', take).pause()
      resolve(said.slice(0, end).trim())
    }
    output.on('data', take)
    child.once('error', error => refuse(error.message)).once('exit', status => refuse(`it ended with status ${status}`))
  })
  if (!path.startsWith('/')) throw new InputError(`a pseudo-terminal needs the program script of util-linux: it said '${path}'`)
  child.unref()
  return { path, input, output, close: () => { for (const stream of [leash, input, output]) stream.destroy() } }
}
