/** The other ends of the serial port, each joined to a real file, pipe or socket (QEMU documentation, "Character device options"). */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openSerialPort, type SerialPort } from './serial-port.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-serial-'))
after(() => rmSync(folder, { recursive: true }))

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const input = (port: SerialPort): Promise<string> =>
  new Promise(resolve => { port.onInput = data => resolve(Buffer.from(data).toString()) })

test('a file gets what the machine sends', async () => {
  const port = await openSerialPort({ file: join(folder, 'log') })
  await port.write(bytes('hello'))
  port.close()
  assert.equal(readFileSync(join(folder, 'log'), 'utf8'), 'hello')
  assert.equal(port.open, false)
})

test('a pair of named pipes', async () => {
  const path = join(folder, 'pipe')
  await assert.rejects(openSerialPort({ pipe: path }), /expected named pipes .*pipe\.in' and .*pipe\.out'/)
  execFileSync('mkfifo', [`${path}.in`, `${path}.out`])
  const port = await openSerialPort({ pipe: path })
  const received = input(port)
  writeSync(openSync(`${path}.in`, 'w'), 'typed')
  assert.equal(await received, 'typed')
  const reader = openSync(`${path}.out`, 'r')
  await port.write(bytes('said'))
  const said = Buffer.alloc(4)
  readSync(reader, said)
  assert.equal(said.toString(), 'said')
  port.close()
})

test('a new pseudo-terminal: every byte both ways, for one after the other; it is gone with us', async t => {
  const said = t.mock.method(process.stderr, 'write', () => true)
  const port = await openSerialPort({ pty: 'console' })
  said.mock.restore()
  const [, path] = /^char device redirected to (\/dev\/\S+) \(label console\)\n$/.exec(String(said.mock.calls[0].arguments[0]))!
  for (const word of ['first\r\n\x03\x04', 'second\n\r\x1a']) {
    const terminal = openSync(path, 'r+')
    const received = input(port)
    writeSync(terminal, word)
    assert.equal(await received, word)
    await port.write(bytes(word))
    const heard = Buffer.alloc(20)
    assert.equal(heard.subarray(0, readSync(terminal, heard)).toString('latin1'), word)
    closeSync(terminal)
  }
  port.close()
  while (existsSync(path)) await delay(20)
})

test('a listening socket that waits for its client, and outlives it', async () => {
  const path = join(folder, 'socket')
  const port = await openSerialPort({ socket: { path }, listen: true, wait: true })
  let ready = false
  void port.ready.then(() => { ready = true })
  await port.write(bytes('lost'))
  assert.equal(ready, false)
  for (const word of ['first', 'second']) {
    const received = input(port)
    const client = connect({ path })
    client.write(word)
    assert.equal(await received, word)
    await port.ready
    await port.write(bytes(`to ${word}`))
    const [answer] = await once(client, 'data') as [Buffer]
    assert.equal(answer.toString(), `to ${word}`)
    client.end()
    await once(client, 'close')
  }
  port.close()
})

test('Telnet: the greeting of QEMU, all bytes both ways, commands of the client left out', async () => {
  const path = join(folder, 'telnet')
  const port = await openSerialPort({ socket: { path }, listen: true, wait: true, telnet: true })
  const received: number[] = []
  port.onInput = data => received.push(...data)
  for (const word of ['first', 'second']) {
    const client = connect({ path })
    const heard: number[] = []
    client.on('data', (data: Buffer) => heard.push(...data))
    await port.ready
    while (heard.length < 12) await delay(5)
    // IAC WILL ECHO, WILL SUPPRESS-GO-AHEAD, WILL BINARY, DO BINARY
    assert.deepEqual(heard.splice(0), [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0])
    await port.write(Uint8Array.of(1, 255, 2))
    while (heard.length < 4) await delay(5)
    assert.deepEqual(heard, [1, 255, 255, 2])
    // answers, a NOP, a subnegotiation of the terminal's type, a doubled 255, in pieces; then a command that is cut off by the end
    for (const part of [[255, 253, 1, 255], [251, 0, 255, 241], [255, 250, 24, 0, 65, 255, 255, 66, 255], [240, 7, 255], [255, 8, 255]]) {
      client.write(Uint8Array.from(part))
      await delay(10)
    }
    while (received.length < 3) await delay(5)
    assert.deepEqual(received.splice(0), [7, 255, 8], word)
    client.end()
    await once(client, 'close')
    await delay(20)
  }
  port.close()
})

test('a connection that we make, and one that is refused', async () => {
  const server = createServer(socket => { socket.pipe(socket) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port: number } = server.address() as AddressInfo
  const port = await openSerialPort({ socket: { host: '127.0.0.1', port: number }, listen: false, wait: false })
  const received = input(port)
  await port.write(bytes('echo'))
  assert.equal(await received, 'echo')
  port.close()
  server.close()
  await once(server, 'close')
  const refused = openSerialPort({ socket: { host: '127.0.0.1', port: number }, listen: false, wait: false })
  await assert.rejects(refused, /^InputError: cannot connect to 127\.0\.0\.1:\d+: nobody listens there$/)
})
