/** Other ends of serial ports and monitors than standard input and output: a file, named pipes, a socket, a pseudo-terminal. */
import { constants, openSync, rmSync, statSync } from 'node:fs'
import { connect, createServer, Socket, type Server } from 'node:net'
import type { Writable } from 'node:stream'
import type { SerialTarget, SocketAddress } from '../../cli/system.ts'
import { InputError } from '../../errors.ts'
import { OutputFile, reasonOf } from './files.ts'
import { pseudoTerminal } from './pseudo-terminal.ts'
import { TelnetDecoder, telnetEncode, telnetGreeting } from './telnet.ts'

export interface SerialPort {
  /** Resolves when somebody is there, if the machine has to wait for that. */
  ready: Promise<void>
  write(bytes: Uint8Array): Promise<void>
  /** What the other side sends. */
  onInput: (bytes: Uint8Array) => void
  /** Somebody has connected to where we listen. */
  onArrival: () => void
  /** Input may still come. */
  readonly open: boolean
  close(): void
}

/** The far ends of serial ports that are not the console. */
export interface OtherPorts {
  /** Resolves when somebody is at each that the machine has to wait for. */
  ready: Promise<unknown>
  /** Input may still come. */
  readonly open: boolean
  take(port: number, bytes: Uint8Array): void
  flush(): Promise<void>
  close(): void
}

/** `input`: what the other sides send. Throws an InputError that says why one cannot be opened. */
export async function openOtherPorts(
  targets: readonly { port: number; target: SerialTarget }[], input: (bytes: Uint8Array, port: number) => void,
): Promise<OtherPorts> {
  const ports = new Map<number, { end: SerialPort; chunks: Uint8Array[] }>()
  for (const { port, target } of targets) {
    if (typeof target !== 'object') continue
    const end = await openSerialPort(target)
    end.onInput = bytes => input(bytes, port)
    ports.set(port, { end, chunks: [] })
  }
  const all = [...ports.values()]
  return {
    ready: Promise.all(all.map(({ end }) => end.ready)),
    get open() { return all.some(({ end }) => end.open) },
    take(port, bytes) { ports.get(port)?.chunks.push(bytes) },
    async flush() {
      for (const { end, chunks } of all) for (const bytes of chunks.splice(0)) await end.write(bytes)
    },
    close() { for (const { end } of all) end.close() },
  }
}

/** Throws an InputError that says why it cannot be opened. */
export async function openSerialPort(target: Exclude<SerialTarget, 'stdio' | 'none'>): Promise<SerialPort> {
  if ('file' in target) return filePort(target.file)
  if ('pipe' in target) return pipePort(target.pipe)
  if ('pty' in target) return terminalPort(target.pty)
  const { socket, listen: listens, wait, telnet = false } = target
  const port = listens ? await listeningPort(socket, wait, telnet) : await connectedPort(socket)
  return telnet ? telnetPort(port) : port
}

function filePort(file: string): SerialPort {
  const output = new OutputFile(file)
  return {
    ready: Promise.resolve(), open: false, onInput() {}, onArrival() {},
    write: async bytes => output.write(bytes),
    close: () => output.close(),
  }
}

function openOrSay(file: string, flags: string | number): number {
  try {
    return openSync(file, flags)
  } catch (error) {
    throw new InputError(`cannot open '${file}': ${reasonOf(error)}`)
  }
}

/** PATH.in and PATH.out, or one PATH for both, as QEMU has it. Opened for both directions, so that neither blocks nor ends. */
function pipePort(path: string): SerialPort {
  const isPipe = (file: string): boolean => statSync(file, { throwIfNoEntry: false })?.isFIFO() ?? false
  const both = isPipe(`${path}.in`) && isPipe(`${path}.out`)
  if (!both && !isPipe(path)) {
    throw new InputError(`pipe '${path}': expected named pipes '${path}.in' and '${path}.out', or '${path}' (mkfifo makes them)`)
  }
  const open = (file: string, readable: boolean): Socket =>
    new Socket({ fd: openOrSay(file, constants.O_RDWR | constants.O_NONBLOCK), readable, writable: true }).on('error', () => {})
  const input = open(both ? `${path}.in` : path, true)
  const output = both ? open(`${path}.out`, false) : input
  const port = streamPort(() => output, () => {
    input.destroy()
    output.destroy()
  })
  input.on('data', (bytes: Buffer) => port.onInput(bytes))
  return port
}

async function terminalPort(label: string): Promise<SerialPort> {
  const { path, input, output, close } = await pseudoTerminal()
  // Those who start us look for these words.
  process.stderr.write(`char device redirected to ${path} (label ${label})\n`)
  const port = streamPort(() => input, close)
  output.on('data', (bytes: Buffer) => port.onInput(bytes)).resume()
  return port
}

/** What is written with nobody there is lost, as on a wire. */
function streamPort(output: () => Writable | undefined, close: () => void, ready = Promise.resolve()): SerialPort {
  return {
    ready, close, open: true, onInput() {}, onArrival() {},
    write: bytes => new Promise(resolve => {
      const to = output()
      if (to?.writable) to.write(bytes, () => resolve())
      else resolve()
    }),
  }
}

/** An address as people write it. */
export const nameOf = (address: SocketAddress): string => ('path' in address ? address.path : `${address.host}:${address.port}`)

async function connectedPort(address: SocketAddress): Promise<SerialPort> {
  const socket = connect(address)
  await new Promise<void>((resolve, reject) => {
    const refuse = (error: Error): void => reject(new InputError(`cannot connect to ${nameOf(address)}: ${reasonOf(error)}`))
    socket.once('connect', resolve).once('error', refuse)
  })
  const port = streamPort(() => socket, () => { socket.destroy() })
  socket.removeAllListeners('error').on('error', () => {}).on('data', (bytes: Buffer) => port.onInput(bytes))
  return port
}

/** Commands of the protocol are taken out of what comes; each client begins anew. */
function telnetPort(port: SerialPort): SerialPort {
  let decoder = new TelnetDecoder()
  const whole: SerialPort = {
    ready: port.ready, open: port.open, onInput() {}, onArrival() {},
    write: bytes => port.write(telnetEncode(bytes)),
    close: () => port.close(),
  }
  port.onInput = bytes => {
    const text = decoder.take(bytes)
    if (text.length > 0) whole.onInput(text)
  }
  port.onArrival = () => {
    decoder = new TelnetDecoder()
    whole.onArrival()
  }
  return whole
}

/** One client at a time. */
async function listeningPort(address: SocketAddress, wait: boolean, telnet: boolean): Promise<SerialPort> {
  const server = createServer()
  let client: Socket | undefined
  const arrived = new Promise<void>(resolve => { server.once('connection', () => resolve()) })
  const port = streamPort(() => client, () => {
    client?.destroy()
    server.close()
  }, wait ? arrived : undefined)
  server.on('connection', socket => {
    if (client) return void socket.destroy()
    client = socket
    if (telnet) socket.write(telnetGreeting)
    const gone = (): void => { if (client === socket) client = undefined }
    socket.on('data', (bytes: Buffer) => port.onInput(bytes)).on('error', gone).on('close', gone)
    port.onArrival()
  })
  await listen(server, address)
  return port
}

function listen(server: Server, address: SocketAddress): Promise<void> {
  // A socket file that an earlier run left behind is nobody's; anything else of that name is kept.
  if ('path' in address && statSync(address.path, { throwIfNoEntry: false })?.isSocket()) rmSync(address.path)
  return new Promise((resolve, reject) => {
    server.once('error', error => reject(new InputError(`cannot listen at ${nameOf(address)}: ${reasonOf(error)}`)))
    server.listen(address, resolve)
  })
}
