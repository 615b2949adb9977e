/** `--drive` and `-drive`: what they make, and what they refuse. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { command } from './testing.ts'

const run = (...drives: string[]): ReturnType<typeof command> =>
  command(['run', '--kernel', 'kernel', ...drives.flatMap(drive => ['--drive', drive])])

test('each drive becomes a virtio disk; with if=none a device takes it by its id', async () => {
  const { machine } = (await run('disk.img', 'file=disk.qcow2,serial=S,snapshot=on', 'disk,if=none,id=x,format=raw,readonly=on')).request!
  assert.deepEqual(machine.devices, [
    { name: 'virtio-blk-pci', properties: { drive: 'drive0' } },
    { name: 'virtio-blk-pci', properties: { drive: 'drive1', serial: 'S' } },
  ])
  const drives = machine.drives!.map(({ id, format, snapshot, readOnly, store }) => [id, format, snapshot, readOnly, store.readOnly])
  assert.deepEqual(drives, [
    ['drive0', undefined, false, false, false], ['drive1', 'qcow2', true, false, true], ['x', 'raw', false, true, true],
  ])
})

test("QEMU's spelling", async () => {
  const { machine } = (await command(['qemu', '-kernel', 'kernel', '-nographic', '-drive', 'file=disk,if=virtio,format=qcow2'])).request!
  assert.deepEqual(machine.devices, [{ name: 'virtio-blk-pci', properties: { drive: 'drive0' } }])
  assert.equal(machine.drives![0].format, 'qcow2')
  assert.match((await command(['qemu', '-drive', 'file=disk'])).errors, /-drive file=disk: if=ide is not emulated/)
})

describe('refused, saying what was expected', () => {
  const cases: [string, RegExp][] = [
    ['nowhere', /cannot open 'nowhere'/],
    ['disk,fromat=raw', /no key 'fromat'; the nearest is 'format'/],
    ['disk,format=vmdk', /format: expected raw or qcow2, found 'vmdk'/],
    ['disk,snapshot=maybe', /snapshot: expected on or off/],
    ['disk,if=ide', /if: expected virtio or none/],
    ['if=none', /expected a file/],
  ]
  for (const [text, message] of cases) {
    test(text, async () => {
      const { status, errors } = await run(text)
      assert.equal(status, 2)
      assert.match(errors, message)
    })
  }
})
