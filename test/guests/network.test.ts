/** Debian's drivers on our network cards: behind a user network, with connections both ways, and between two machines on a switch. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Machine } from '../../src/api.ts'
import { Lan } from '../../src/lan.ts'
import { createMachine } from '../../src/machine.ts'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-network-'))
after(() => rmSync(folder, { recursive: true }))

/** The cloud kernel has no driver of the e1000. */
const cards = {
  'virtio-net-pci': { kernel: debianKernel('cloud'), modules: ['virtio_pci', 'virtio_net'], append: '', more: [] },
  // Behind a user network it is also behind a remapping unit.
  e1000: {
    kernel: debianKernel('generic'), modules: ['e1000'], append: 'intel_iommu=on iommu.strict=1', more: ['--iommu', 'vtd'],
  },
} as const
type Card = keyof typeof cards
const lease = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; ip route add default via $router; echo "leased $ip via $router, names from $dns"
`
const disk = (script: string, card: Card): Uint8Array => initramfs({
  init: `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
ip link set lo up; ip link set eth0 up
${script}
poweroff -f
`,
  modules: moduleFiles(cards[card].kernel, [...cards[card].modules]), files: { 'etc/lease': lease },
})

/** What is sent to it comes back turned round, after its end. */
function reverser(): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, socket => {
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => socket.end(Buffer.concat(chunks).reverse()))
  })
  return new Promise(resolve => { server.listen(0, '127.0.0.1', () => resolve(server)) })
}

const freePort = async (): Promise<number> => {
  const server = await reverser()
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => { server.close(resolve) })
  return port
}

function ask(port: number, question: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => socket.end(question))
    socket.on('data', (chunk: Buffer) => { answer += chunk.toString() }).on('end', () => resolve(answer)).on('error', reject)
  })
}

for (const card of Object.keys(cards) as Card[]) {
  test(`${card}: a lease, echoes, a megabyte there and back, a closed port, and a connection from outside`, async () => {
    const server = await reverser()
    const { port } = server.address() as AddressInfo
    const [closed, forwarded] = [await freePort(), await freePort()]
    const initrd = join(folder, 'initrd')
    const data = Buffer.from(Array.from({ length: 200_000 }, (_, i) => `${i}\n`).join(''))
    writeFileSync(initrd, disk(`
udhcpc -n -q -i eth0 -s /etc/lease
ping -c 2 10.0.2.2
seq 0 199999 | nc 10.0.2.2 ${port} | md5sum
nc 10.0.2.2 ${closed} </dev/null; echo closed: $?
(sleep 1; echo ready) &
nc -l -p 77 -e /bin/rev
`, card))
    let text = ''
    let answer: Promise<string> | undefined
    const child = spawn(process.execPath, [
      fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url)), 'run', '--quiet', '--timeout', '200', '--memory', '256M',
      '--kernel', cards[card].kernel.image, '--initrd', initrd, '--append', `console=ttyS0 quiet ${cards[card].append}`,
      ...cards[card].more, '--net', `user,model=${card},hostfwd=tcp:127.0.0.1:${forwarded}-:77`,
    ], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      text += piece.replaceAll('\r', '')
      if (/^ready$/m.test(text)) answer ??= ask(forwarded, 'turn me\n')
    })
    const status = await new Promise(resolve => { child.on('close', resolve) })
    server.close()
    assert.equal(status, 0, text)
    assert.match(text, /^leased 10\.0\.2\.15 via 10\.0\.2\.2, names from 10\.0\.2\.3$/m)
    assert.match(text, /2 packets transmitted, 2 packets received/)
    assert.ok(text.includes(createHash('md5').update(data.reverse()).digest('hex')), text)
    assert.match(text, /^closed: 1$/m)
    assert.equal(await answer, 'em nrut\n')
  })
}

test('two machines on a switch reach each other, with whole checksums, in the same way each time', () => {
  const lan = new Lan()
  const talk = (own: number, other: number, card: Card, script: string): { machine: Machine; text: () => string } => {
    const machine = createMachine({
      kernel: readFileSync(cards[card].kernel.image),
      initrd: disk(`ip addr add 10.1.0.${own}/24 dev eth0\n${script}`.replaceAll('OTHER', `10.1.0.${other}`), card),
      commandLine: 'console=ttyS0 quiet', memory: 128 << 20, engine: 'jit', networks: [{ id: 'n', kind: 'link' }],
      devices: [{ name: card, properties: { netdev: 'n', mac: `52:54:00:00:00:0${own}` } }],
    })
    lan.add(machine, 'n')
    let text = ''
    machine.onSerialOutput = bytes => { text += Buffer.from(bytes).toString() }
    return { machine, text: () => text.replaceAll('\r', '') }
  }
  const server = talk(1, 2, 'virtio-net-pci', 'nc -l -p 80 | md5sum')
  const client = talk(2, 1, 'e1000', 'while ! ping -c 1 -W 1 OTHER; do sleep 1; done\nseq 100000 | nc OTHER 80')
  assert.deepEqual(lan.run({ untilTime: 60e9 }).map(({ kind }) => kind), ['power-off', 'power-off'])
  assert.match(client.text(), /1 packets transmitted, 1 packets received/)
  const sent = Array.from({ length: 100_000 }, (_, i) => `${i + 1}\n`).join('')
  assert.ok(server.text().includes(createHash('md5').update(sent).digest('hex')), server.text())
})
