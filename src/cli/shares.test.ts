/** `--share`, `-virtfs` and `-fsdev`: the devices that they make, and what they refuse. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { command, type Outcome } from './testing.ts'

const run = (...shares: string[]): Promise<Outcome> =>
  command(['run', '--kernel', 'kernel', ...shares.flatMap(share => ['--share', share])])
const qemu = (...args: string[]): Promise<Outcome> => command(['qemu', '-kernel', 'kernel', '-nographic', ...args])
const device = (fsdev: string, tag: string): unknown => ({ name: 'virtio-9p-pci', properties: { fsdev, mount_tag: tag } })
const sharesOf = ({ request }: Outcome): unknown => request!.machine.shares!.map(({ id, folder }) => [id, folder.readOnly])

test('a folder has its own name as tag, or the one that is given', async () => {
  const outcome = await run('folder/of/mine/', 'folder2,tag=look,readonly', 'folder3,id=x,readonly=off')
  assert.deepEqual(outcome.request!.machine.devices, [device('share0', 'mine'), device('share1', 'look'), device('x', 'folder3')])
  assert.deepEqual(sharesOf(outcome), [['share0', false], ['share1', true], ['x', false]])
})

test("QEMU's spellings", async () => {
  const virtfs = await qemu('-virtfs', 'local,path=folder,mount_tag=host0,security_model=none,readonly=on')
  assert.deepEqual(virtfs.request!.machine.devices, [device('virtfs0', 'host0')])
  assert.deepEqual(sharesOf(virtfs), [['virtfs0', true]])
  const fsdev = await qemu('-fsdev', 'local,id=f,path=folder,security_model=passthrough', '-device', 'virtio-9p-pci,fsdev=f,mount_tag=t')
  assert.deepEqual(fsdev.request!.machine.devices, [device('f', 't')])
  assert.deepEqual(sharesOf(fsdev), [['f', false]])
  assert.equal(fsdev.errors, '')
  const mapped = await qemu('-virtfs', 'local,path=folder,mount_tag=t,security_model=mapped-xattr')
  assert.match(mapped.errors, /security_model=mapped-xattr has no effect/)
})

describe('errors of one line', () => {
  for (const [outcome, expected] of [
    [() => run('none'), /cannot share 'none': no such folder/],
    [() => run('folder,tagg=x'), /there is no key 'tagg'; the nearest is 'tag'/],
    [() => run('folder,tag=t', 'folder2,tag=t'), /expected a tag of its own for each folder, found 't' twice/],
    [() => run('folder,readonly=maybe'), /readonly: expected on or off, found 'maybe'/],
    [() => qemu('-virtfs', 'proxy,socket=x'), /expected local, found 'proxy'/],
    [() => qemu('-virtfs', 'local,path=folder'), /expected mount_tag=NAME/],
    [() => qemu('-fsdev', 'local,path=folder'), /expected id=ID/],
    [() => qemu('-virtfs', 'local,path=folder,mount_tag=t,security_model=nine'), /the nearest is 'none'/],
  ] as const) {
    test(String(expected), async () => {
      const { status, errors } = await outcome()
      assert.equal(status, 2)
      assert.match(errors, expected)
      assert.equal(errors.trimEnd().split('\n').length, 1)
    })
  }
})
