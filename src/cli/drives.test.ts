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

test('an NVMe disk', async () => {
  const { machine } = (await run('disk,if=nvme,serial=S,bootindex=0')).request!
  assert.deepEqual(machine.devices, [{ name: 'nvme', properties: { drive: 'drive0', serial: 'S', bootindex: '0' } }])
})

test('SCSI disks and discs share a host', async () => {
  const { machine } = (await run('disk1,if=scsi,serial=S', 'disk2,if=scsi,media=cdrom')).request!
  assert.deepEqual(machine.devices, [
    { name: 'virtio-scsi-pci', properties: {} }, { name: 'scsi-hd', properties: { drive: 'drive0', serial: 'S' } },
    { name: 'scsi-cd', properties: { drive: 'drive1' } },
  ])
})

test('sata and ide are the same', async () => {
  const { machine } = (await run('disk1,if=sata', 'disk2,if=ide,serial=S')).request!
  assert.deepEqual(machine.devices, [
    { name: 'ide-hd', properties: { drive: 'drive0' } }, { name: 'ide-hd', properties: { drive: 'drive1', serial: 'S' } },
  ])
})

test("QEMU's spelling", async () => {
  const { machine } = (await command(['qemu', '-kernel', 'kernel', '-nographic', '-drive', 'file=disk,if=virtio,format=qcow2'])).request!
  assert.deepEqual(machine.devices, [{ name: 'virtio-blk-pci', properties: { drive: 'drive0' } }])
  assert.equal(machine.drives![0].format, 'qcow2')
})

test('disks by their names, as QEMU has them, and discs', async () => {
  const { machine } = (await command([
    'qemu', '-hda', 'disk,,1', '-drive', 'file=disk2,bootindex=1', '-cdrom', 'disk.iso', 'disk4', '-boot', 'order=dc,menu=on', '-nographic',
  ])).request!
  assert.deepEqual(machine.devices!.map(({ name }) => name), ['ide-hd', 'ide-hd', 'ide-cd', 'ide-hd'])
  assert.deepEqual(machine.devices![1].properties, { drive: 'drive1', bootindex: '1' })
  assert.deepEqual(machine.drives!.map(({ readOnly }) => readOnly), [false, false, true, false])
  assert.deepEqual(machine.bootSettings, { serialConsole: true, menu: true, order: 'dc' })
  assert.equal(new TextDecoder().decode(machine.bios), '/usr/share/qemu/bios-256k.bin')
  assert.equal(machine.kernel, undefined)
})

test('firmware starts when there is no kernel', async () => {
  const { machine } = (await command(['run', '--cdrom', 'disk.iso', '--drive', 'disk,if=ide', '--boot', 'd'])).request!
  assert.deepEqual(machine.devices!.map(({ name }) => name), ['ide-hd', 'ide-cd'])
  assert.deepEqual(machine.bootSettings, { serialConsole: true, menu: false, order: 'd' })
  assert.equal((await command(['run', '--bios', 'kernel'])).request!.machine.bios!.length, 6)
  for (const [args, message] of [
    [[], /nothing to boot: expected --kernel FILE, or a disk by --drive or --cdrom/],
    [['--bios', 'nowhere'], /expected firmware 'nowhere', found none in .*seabios/],
    [['--cdrom', 'disk', '--boot', 'xc'], /boot order 'xc': expected up to three letters/],
    [['--kernel', 'kernel', '--bios', 'kernel'], /--bios: expected UEFI, or no --kernel beside it/],
    [['--kernel', 'kernel', '--boot', 'd'], /--boot: expected no --kernel beside it/],
  ] as const) {
    const { status, errors } = await command(['run', ...args])
    assert.equal(status, 2)
    assert.match(errors, message)
  }
})

test('flash memories are UEFI, which starts a kernel; its CPU has 40 bits of physical address unless it says more', async () => {
  const code = ['--drive', 'disk,if=pflash,readonly=on']
  const { machine } = (await command(['run', ...code, '--drive', 'disk.iso,if=pflash', '--drive', 'disk', '--kernel', 'kernel'])).request!
  assert.deepEqual(machine.flash!.map(({ id, readOnly }) => [id, readOnly]), [['flash0', true], ['flash1', false]])
  assert.deepEqual([machine.drives!.length, machine.bios, machine.kernel!.length], [1, undefined, 6])
  assert.equal(machine.cpu!.model, 'intel,phys-bits=40')
  const wide = (await command(['qemu', '-pflash', 'disk', '-cpu', 'max,phys-bits=46'])).request!.machine
  assert.deepEqual([wide.cpu!.model, wide.flash!.length, wide.bios], ['max,phys-bits=46', 1, undefined])
  const turned = (await command(['run', '--drive', 'disk,if=pflash,unit=1', '--drive', 'disk.iso,if=pflash,unit=0'])).request!.machine
  assert.deepEqual(turned.flash!.map(({ id }) => id), ['flash0', 'flash1'])
  for (const [drives, message] of [
    [['disk,if=pflash,unit=1'], /expected one with unit=0 too/],
    [['disk,if=pflash', 'disk,if=pflash,unit=0'], /expected another unit, found one that is taken: 0/],
    [['disk,if=pflash,unit=2'], /unit: expected 0 or 1, found '2'/],
  ] as const) {
    const { status, errors } = await command(['run', ...drives.flatMap(drive => ['--drive', drive])])
    assert.equal(status, 2)
    assert.match(errors, message)
  }
})

test('one RAM disk, or modules with arguments', async () => {
  const modules = async (text: string): Promise<unknown> => {
    const { machine } = (await command(['run', '--kernel', 'kernel', '--initrd', text])).request!
    return machine.modules?.map(({ name, arguments: line, bytes }) => [name, line, bytes.length]) ?? machine.initrdName
  }
  assert.equal(await modules('initrd'), 'initrd')
  assert.deepEqual(await modules('kernel console=hvc0 a=1,,2,initrd'), [['kernel', 'console=hvc0 a=1,2', 6], ['initrd', '', 6]])
  assert.match((await command(['run', '--kernel', 'kernel', '--initrd', 'initrd,nowhere x'])).errors, /'nowhere': no such file/)
})

describe('refused, saying what was expected', () => {
  const cases: [string, RegExp][] = [
    ['nowhere', /cannot open 'nowhere'/],
    ['disk,fromat=raw', /no key 'fromat'; the nearest is 'format'/],
    ['disk,format=vmdk', /format: expected raw or qcow2, found 'vmdk'/],
    ['disk,snapshot=maybe', /snapshot: expected on or off/],
    ['disk,if=usb', /if: expected virtio or sata or ide or nvme or scsi or none or pflash, found 'usb'/],
    ['disk,media=cdrom,if=virtio', /media=cdrom: expected if=ide or if=scsi, found if=virtio/],
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
