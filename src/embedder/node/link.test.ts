/** Links between processes: framing as QEMU has it, and a switch for whoever connects. */
import assert from 'node:assert/strict'
import { createServer, type AddressInfo } from 'node:net'
import { test } from 'node:test'
import { FrameReader, framed, NodeLink } from './link.ts'

const frame = (to: number, from: number, text: string): Uint8Array =>
  Uint8Array.from([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5, ...new TextEncoder().encode(text)])

test('a frame is behind its length, however the bytes come', () => {
  const bytes = Buffer.concat([framed(Uint8Array.of(1, 2, 3)), framed(Uint8Array.of(4))])
  assert.deepEqual([...bytes], [0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 1, 4])
  for (const step of [1, 2, 5, 12]) {
    const frames: number[][] = []
    const reader = new FrameReader()
    for (let at = 0; at < bytes.length; at += step) {
      assert.equal(reader.take(bytes.subarray(at, at + step), each => frames.push([...each])), true)
    }
    assert.deepEqual(frames, [[1, 2, 3], [4]])
  }
  assert.equal(new FrameReader().take(Buffer.from('GET / HTTP/1.1'), () => {}), false)
})

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => { server.close(resolve) })
  return port
}

test('three machines: who listens is the switch of all', async () => {
  const port = await freePort()
  const heard: string[][] = [[], [], []]
  let [wanted, reached] = [0, (): void => {}]
  const places = [{ listen: { host: '', port } }, { connect: { host: '', port } }, { connect: { host: '127.0.0.1', port } }]
  const links = places.map((place, own) => new NodeLink(place, event => {
    if (event.kind === 'frame') heard[own].push(Buffer.from(event.bytes.subarray(14)).toString())
    if (heard.flat().length >= wanted) reached()
  }))
  const until = (count: number): Promise<void> => new Promise(resolve => {
    wanted = count
    reached = resolve
  })
  for (const link of links) await link.open()
  const send = async (from: number, to: number, text: string, count: number): Promise<void> => {
    const all = until(count)
    links[from].request({ kind: 'frame', bytes: frame(to, from, text) })
    await all
  }
  await send(1, 0xff, 'who is there', 2) // an address that nobody has used: to all others
  await send(2, 1, 'two', 3)
  await send(0, 2, 'zero', 4)
  await send(1, 0, 'one', 5)
  assert.deepEqual(heard, [['who is there', 'one'], ['two'], ['who is there', 'zero']])
  assert.deepEqual(links.map(link => link.isAwaited), [true, true, true])
  for (const link of links) link.close()
})
