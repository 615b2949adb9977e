/** Whom guests talk to over the network when that is measured: sends so many bytes, or counts what comes, as the first line asks. */
import { type AddressInfo, createServer } from 'node:net'

const bytes = 32 << 20
const piece = Buffer.alloc(1 << 20)

export interface Partner {
  port: number
  close(): void
}

export async function startPartner(): Promise<Partner> {
  const server = createServer({ allowHalfOpen: true }, socket => {
    let [count, isDown] = [0, false]
    const send = (left: number): void => {
      if (left === 0) socket.end()
      else socket.write(piece, () => send(left - piece.length))
    }
    socket.on('error', () => {})
    socket.on('data', (part: Buffer) => {
      if (count === 0 && part.toString('latin1', 0, 4) === 'down') isDown = true
      if (count === 0 && isDown) send(bytes)
      count += part.length
    })
    socket.on('end', () => { if (!isDown) socket.end(`${count}\n`) })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  return { port: (server.address() as AddressInfo).port, close: () => void server.close() }
}
