/** Tests of the options for networks, in both command lines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { command } from './testing.ts'

test('--net user makes a network, its card and forwarded ports', async () => {
  const { request } = await command(['run', '--kernel', 'kernel', '--net', 'user,hostfwd=tcp::5555-:22,mac=52:54:00:00:00:01'])
  assert.deepEqual(request?.machine.networks, [{ id: 'nic0', kind: 'user', restrict: false }])
  assert.deepEqual(request?.machine.devices, [{ name: 'virtio-net-pci', properties: { netdev: 'nic0', mac: '52:54:00:00:00:01' } }])
  assert.deepEqual(request?.forwards, { nic0: [{ port: 5555, toPort: 22 }] })
})

test("QEMU's -netdev names a network for a device, -nic brings its card, and none is none", async () => {
  const { request } = await command(['qemu', '-kernel', 'kernel', '-netdev', 'user,id=n,restrict=on', '-nic', 'user', '-nic', 'none'])
  assert.deepEqual(request?.machine.networks?.map(({ id, restrict }) => [id, restrict]), [['n', true], ['nic0', false]])
  assert.deepEqual(request?.machine.devices, [{ name: 'virtio-net-pci', properties: { netdev: 'nic0' } }])
})

test('--net socket links machines; the card can be an e1000', async () => {
  const { request } = await command(['run', '--kernel', 'kernel', '--net', 'socket,listen=:1234,model=e1000'])
  assert.deepEqual(request?.machine.networks, [{ id: 'nic0', kind: 'link' }])
  assert.deepEqual(request?.machine.devices, [{ name: 'e1000', properties: { netdev: 'nic0' } }])
  assert.deepEqual(request?.links, { nic0: { listen: { host: '', port: 1234 } } })
  const other = await command(['qemu', '-kernel', 'kernel', '-netdev', 'socket,id=n,connect=127.0.0.1:1234'])
  assert.deepEqual(other.request?.links, { n: { connect: { host: '127.0.0.1', port: 1234 } } })
})

const wrong: readonly [string, RegExp][] = [
  ['tap', /expected user, socket or none, found 'tap'/], ['user,hostwd=x', /no key 'hostwd'; the nearest is 'hostfwd'/],
  ['user,hostfwd=tcp:22', /expected tcp:\[ADDRESS\]:PORT-\[ADDRESS\]:PORT/], ['user,hostfwd=udp::53-:53', /only TCP/],
  ['user,hostfwd=tcp::0-:22', /ports from 1 to 65535/], ['socket', /expected listen= or connect=/],
  ['socket,listen=x', /expected \[HOST\]:PORT, found 'x'/],
  ['user,model=ne2k', /expected virtio-net-pci or e1000, found 'ne2k'/],
]
for (const [text, message] of wrong) {
  test(`--net ${text} is refused in one line`, async () => {
    const { status, errors } = await command(['run', '--kernel', 'kernel', '--net', text])
    assert.deepEqual([status, errors.trim().split('\n').length], [2, 1])
    assert.match(errors, message)
  })
}
