/** The debug console's other end (isa-debugcon): a file or socket, standard output, or lines among our own messages. */
import type { SerialTarget } from '../../cli/system.ts'
import type { Machine } from '../../api.ts'
import { openSerialPort } from './serial-port.ts'

export interface DebugConsole {
  ready: Promise<unknown>
  flush(): Promise<void>
  close(): void
}

/** `say` is given whole lines when there is no target. Throws an InputError that says why one cannot be opened. */
export async function openDebugConsole(
  target: SerialTarget | undefined, machine: Machine, say: (line: string) => void,
): Promise<DebugConsole> {
  const port = typeof target === 'object' ? await openSerialPort(target) : undefined
  let bytes: number[] = []
  const sayLine = (): void => {
    const line = Buffer.from(bytes).toString().trimEnd()
    bytes = []
    if (line !== '') say(line)
  }
  machine.onDebugOutput = byte => {
    bytes.push(byte)
    if (target === undefined && byte === 0x0a) sayLine()
  }
  const take = (): Uint8Array => {
    const taken = Uint8Array.from(bytes)
    bytes = []
    return taken
  }
  return {
    ready: port?.ready ?? Promise.resolve(),
    async flush() {
      if (target === undefined || bytes.length === 0) return
      if (port) await port.write(take())
      else if (target === 'stdio') process.stdout.write(take())
      else take()
    },
    close() {
      if (target === undefined) sayLine()
      port?.close()
    },
  }
}
