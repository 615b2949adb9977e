/** Listens for GDB, and gives it the machine while it is connected. */
import { createServer, type Socket } from 'node:net'
import type { Machine } from '../../api.ts'
import type { SocketAddress } from '../../cli/system.ts'
import { InputError } from '../../errors.ts'
import type { Transport } from '../../insight/gdb/protocol.ts'
import { GdbServer } from '../../insight/gdb/server.ts'
import type { Session } from '../session.ts'
import { reasonOf } from './files.ts'
import { nameOf } from './serial-port.ts'

/** One debugger at a time. The result ends it. */
export async function serveGdb(
  { address, wait }: { address: SocketAddress; wait: boolean }, machine: Machine, cpus: number, session: Session,
): Promise<() => void> {
  let client: Socket | undefined
  const server = createServer(socket => {
    if (client) return void socket.destroy()
    client = socket.setNoDelay(true)
    session.hold(true)
    const over = (): void => {
      if (client !== socket) return
      client = undefined
      session.hold(false)
    }
    new GdbServer(machine, transportOf(socket), {
      cpus, schedule: setImmediate, onDetach: over,
      onStop: stop => { if (stop.kind === 'power-off' || stop.kind === 'reset' || stop.kind === 'debug-exit') session.end(stop) },
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(new InputError(`GDB: cannot listen at ${nameOf(address)}: ${reasonOf(error)}`)))
    server.listen(address, resolve)
  })
  session.hold(wait)
  return () => {
    client?.end()
    server.close()
  }
}

function transportOf(socket: Socket): Transport {
  const transport: Transport = { send: bytes => { socket.write(bytes) }, onReceive() {}, onClose() {}, close: () => { socket.end() } }
  socket.on('data', (bytes: Buffer) => transport.onReceive(bytes)).on('close', () => transport.onClose('closed')).on('error', () => {})
  return transport
}
