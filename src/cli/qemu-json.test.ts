/** Values as JSON and images as block nodes, as libvirt 9 writes them (`virsh domxml-to-native`; QEMU documentation, "Invocation"). */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { command } from './testing.ts'

const qemu = (...args: string[]): ReturnType<typeof command> => command(['qemu', ...args])
const withKernel = (...args: string[]): ReturnType<typeof command> => qemu('-kernel', 'kernel', '-display', 'none', ...args)
const json = (value: unknown): string => JSON.stringify(value)

/** Of `virt-install --machine q35 --disk d.qcow2 --disk d.iso,device=cdrom --network user --rng /dev/urandom`, without most root ports. */
const libvirt = [
  '-name', 'guest=plain,debug-threads=on', '-S',
  '-object', json({ 'qom-type': 'secret', id: 'masterKey0', format: 'raw', file: '/var/lib/libvirt/master-key.aes' }),
  '-machine', 'pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram', '-accel', 'tcg', '-cpu', 'max', '-m', '512',
  '-object', json({ 'qom-type': 'memory-backend-ram', id: 'pc.ram', size: 536870912 }), '-overcommit', 'mem-lock=off',
  '-smp', '2,sockets=2,cores=1,threads=1', '-uuid', 'e32ad930-2f2d-4403-92d3-95890706d8ee', '-display', 'none', '-no-user-config',
  '-nodefaults', '-chardev', 'socket,id=charmonitor,path=monitor.sock,server=on,wait=off',
  '-mon', 'chardev=charmonitor,id=monitor,mode=control', '-rtc', 'base=utc,driftfix=slew', '-boot', 'strict=on',
  '-device', json({ driver: 'pcie-root-port', port: 8, chassis: 1, id: 'pci.1', bus: 'pcie.0', multifunction: true, addr: '0x1' }),
  '-device', json({ driver: 'qemu-xhci', p2: 15, p3: 15, id: 'usb', bus: 'pci.1', addr: '0x0' }),
  '-blockdev', json({ driver: 'file', filename: 'disk1', 'node-name': 'libvirt-2-storage', 'auto-read-only': true, discard: 'unmap' }),
  '-blockdev',
  json({ 'node-name': 'libvirt-2-format', 'read-only': false, cache: { direct: true }, driver: 'qcow2', file: 'libvirt-2-storage' }),
  '-device', json({ driver: 'virtio-blk-pci', bus: 'pci.1', addr: '0x0', drive: 'libvirt-2-format', id: 'virtio-disk0', bootindex: 1 }),
  '-blockdev', json({ driver: 'file', filename: 'disk.iso', 'node-name': 'libvirt-1-storage', 'auto-read-only': true }),
  '-blockdev', json({ 'node-name': 'libvirt-1-format', 'read-only': true, driver: 'raw', file: 'libvirt-1-storage' }),
  '-device', json({ driver: 'ide-cd', bus: 'ide.0', unit: 0, drive: 'libvirt-1-format', id: 'sata0-0-0' }),
  '-netdev', json({ type: 'user', id: 'hostnet0', hostfwd: [{ str: 'tcp::2222-:22' }] }),
  '-device', json({ driver: 'virtio-net-pci', netdev: 'hostnet0', id: 'net0', mac: '52:54:00:b5:eb:c6', bus: 'pci.1', addr: '0x0' }),
  '-chardev', 'pty,id=charserial0', '-device', json({ driver: 'isa-serial', chardev: 'charserial0', id: 'serial0', index: 0 }),
  '-audiodev', json({ id: 'audio1', driver: 'none' }),
  '-object', json({ 'qom-type': 'rng-random', id: 'objrng0', filename: '/dev/urandom' }),
  '-device', json({ driver: 'virtio-rng-pci', rng: 'objrng0', id: 'rng0', bus: 'pci.1', addr: '0x0' }),
  '-sandbox', 'on,obsolete=deny', '-msg', 'timestamp=on',
]

test("libvirt's command line for a plain guest", async () => {
  const { request, errors } = await qemu(...libvirt)
  assert.equal(errors, 'vitrine qemu: warning: -device qemu-xhci has no effect: not emulated\n')
  const { machine, console, monitors, paused, forwards } = request!
  assert.deepEqual(machine.devices, [
    { name: 'pcie-root-port', properties: { id: 'pci.1', bus: 'pcie.0', multifunction: 'on', addr: '0x1' } },
    { name: 'virtio-blk-pci', properties: { bus: 'pci.1', addr: '0x0', drive: 'libvirt-2-format', id: 'virtio-disk0', bootindex: '1' } },
    { name: 'ide-cd', properties: { drive: 'libvirt-1-format', id: 'sata0-0-0' } },
    { name: 'virtio-net-pci', properties: { netdev: 'hostnet0', id: 'net0', mac: '52:54:00:b5:eb:c6', bus: 'pci.1', addr: '0x0' } },
    { name: 'virtio-rng-pci', properties: { id: 'rng0', bus: 'pci.1', addr: '0x0' } },
  ])
  const drives = machine.drives!.map(({ id, format, readOnly, snapshot, store }) => [id, format, readOnly, snapshot, store.readOnly])
  assert.deepEqual(drives, [['libvirt-2-format', 'qcow2', false, false, false], ['libvirt-1-format', 'raw', true, false, true]])
  assert.deepEqual([machine.chipset, machine.cpus, machine.memory, paused], ['q35', 2, 512 << 20, true])
  assert.deepEqual(console.serial, { pty: 'charserial0' })
  assert.deepEqual(monitors, [{ kind: 'qmp', target: { socket: { path: 'monitor.sock' }, listen: true, wait: false } }])
  assert.deepEqual(forwards, { hostnet0: [{ port: 2222, toPort: 22 }] })
})

test('firmware in flash memory, as block nodes', async () => {
  const node = (name: string, file: string, readOnly: boolean): string[] => [
    '-blockdev', json({ driver: 'file', filename: file, 'node-name': `${name}-storage` }),
    '-blockdev', json({ 'node-name': name, 'read-only': readOnly, driver: 'raw', file: `${name}-storage` }),
  ]
  const nodes = [...node('code', 'disk.code', true), ...node('vars', 'disk.vars', false)]
  const { machine } = (await withKernel('-M', 'q35,pflash0=code,pflash1=vars', ...nodes)).request!
  assert.deepEqual(machine.flash!.map(({ id, readOnly }) => [id, readOnly]), [['code', true], ['vars', false]])
  assert.match((await withKernel('-M', 'q35,pflash0=nobody', ...nodes)).errors, /pflash0=nobody: expected the name of a -blockdev/)
  assert.match((await withKernel('-M', 'q35,pflash1=vars', ...nodes)).errors, /pflash0=: expected the name of a -blockdev/)
})

test('block nodes as words, one inside another, and what an image is based on', async () => {
  const { request, opened } = await withKernel(
    '-blockdev', 'driver=qcow2,node-name=a,file.driver=file,file.filename=disk.a,backing.driver=qcow2,backing.file.driver=file,' +
      'backing.file.filename=disk.b,backing.backing.driver=raw,backing.backing.file.driver=file,backing.backing.file.filename=disk.c',
    '-device', 'virtio-blk-pci,drive=a', '-snapshot',
  )
  const [{ format, snapshot, openBacking }] = request!.machine.drives!
  assert.deepEqual([format, snapshot], ['qcow2', true])
  // whatever the images' own headers say
  for (const name of ['x', 'y']) openBacking!(name)
  assert.deepEqual(opened, ['disk.a', 'disk.b', 'disk.c'])
})

test('a folder as a disk: by its three spellings', async () => {
  for (const args of [
    ['-drive', 'file=fat:folder,if=virtio'], ['-drive', 'file.driver=vvfat,file.dir=folder,format=raw,if=virtio'],
    ['-blockdev', 'vvfat,node-name=drive0,dir=folder', '-device', 'virtio-blk-pci,drive=drive0'],
  ]) {
    const { machine } = (await withKernel(...args)).request!
    assert.deepEqual(machine.drives!.map(({ id, readOnly, snapshot, store }) => [id, readOnly, snapshot, store.byteLength]), [
      ['drive0', true, false, 2048],
    ])
  }
  const writable = (await withKernel('-hda', 'fat:rw:folder')).request!.machine.drives!
  assert.deepEqual(writable.map(({ readOnly, snapshot }) => [readOnly, snapshot]), [[false, true]])
  assert.match((await withKernel('-hda', 'fat:nowhere')).errors, /cannot make a disk of the folder 'nowhere'/)
  assert.match((await withKernel('-hda', 'fat:floppy:folder')).errors, /expected FAT16 on a disk, found floppy/)
})

test('a place as a number is that of a function; names of virtio 1.0 alone, and of older drivers, too', async () => {
  const devices = ['-device', json({ driver: 'edu', addr: 42 }), '-device', 'virtio-rng-pci-non-transitional']
  const older = (await withKernel('-device', 'virtio-rng-pci-transitional')).request!
  assert.deepEqual(older.machine.devices, [{ name: 'virtio-rng-pci', properties: { 'disable-legacy': 'off' } }])
  const { machine } = (await withKernel(...devices)).request!
  assert.deepEqual(machine.devices, [{ name: 'edu', properties: { addr: '5.2' } }, { name: 'virtio-rng-pci', properties: {} }])
})

test('SCSI hosts, disks and CD-ROM drives as libvirt names them', async () => {
  const { machine } = (await withKernel(
    '-device', json({ driver: 'virtio-scsi-pci', id: 'scsi0', num_queues: 2, bus: 'pci.0', addr: '0x5' }),
    '-blockdev', json({ driver: 'file', filename: 'disk', 'node-name': 's' }),
    '-blockdev', json({ driver: 'raw', file: 's', 'node-name': 'n' }),
    '-device', json({
      driver: 'scsi-hd', bus: 'scsi0.0', channel: 0, 'scsi-id': 0, lun: 1, device_id: 'drive-scsi0-0-0-1', drive: 'n', id: 'scsi0-0-0-1',
      bootindex: 1, 'write-cache': 'on', physical_block_size: 4096,
    }),
  )).request!
  assert.deepEqual(machine.devices, [
    { name: 'virtio-scsi-pci', properties: { id: 'scsi0', num_queues: '2', bus: 'pci.0', addr: '0x5' } },
    { name: 'scsi-hd', properties: {
      bus: 'scsi0.0', channel: '0', 'scsi-id': '0', lun: '1', device_id: 'drive-scsi0-0-0-1', drive: 'n', id: 'scsi0-0-0-1', bootindex: '1',
    } },
  ])
})

test('a virtio console on the terminal; a monitor behind Ctrl-A on the same character device; a pseudo-terminal', async () => {
  const hvc = (await withKernel('-chardev', 'stdio,id=c', '-device', 'virtio-serial-pci', '-device', 'virtconsole,chardev=c')).request!
  assert.deepEqual(hvc.machine.devices, [{ name: 'virtio-console-pci', properties: {} }])
  const shared = (await withKernel('-chardev', 'stdio,mux=on,id=c', '-serial', 'chardev:c', '-mon', 'chardev=c,mode=readline')).request!
  assert.deepEqual([shared.console.serial, shared.console.escape, shared.monitors], ['stdio', true, undefined])
  const { console, monitors, serials } = (await withKernel('-serial', 'pty', '-serial', 'pty', '-monitor', 'pty')).request!
  assert.deepEqual([console.serial, serials, monitors], [
    { pty: 'serial0' }, [{ port: 1, target: { pty: 'serial1' } }], [{ kind: 'human', target: { pty: 'compat_monitor0' } }],
  ])
})

describe('what is missing is said in one line', () => {
  const cases: [string[], RegExp][] = [
    [['-device', '{"driver":"edu"'], /-device \{"driver":"edu": JSON parse error/],
    [['-device', json({ driver: 'zz' })], /-device zz: 'zz' is not a valid device model name/],
    [['-device', json({ driver: 'scsi-generic', drive: 'x' })], /-device scsi-generic: not emulated, expected scsi-hd, virtio-blk-pci/],
    [['-device', 'megasas,id=s'], /-device megasas: not emulated, expected virtio-scsi-pci$/],
    [['-device', 'e1000e'], /-device e1000e: not emulated, expected virtio-net-pci or e1000$/],
    [['-netdev', json({ type: 'tap', fd: '28', id: 'n' })], /expected user, socket or none, found 'tap'$/],
    [['-netdev', json({ type: 'user', id: 'n', net: '192.168.0.0/24' })], /net: expected 10.0.2.0\/24, found '192.168.0.0\/24'$/],
    [['-blockdev', json({ driver: 'nbd', 'node-name': 'n' })], /the driver 'nbd' is not offered, expected raw, qcow2, file, vvfat$/],
    [['-blockdev', json({ driver: 'raw', 'node-name': 'n', offset: 512, file: 'x' })], /'offset' is unexpected for the driver 'raw'/],
    [['-blockdev', 'driver=file,filename=disk'], /'node-name' must be specified for the root node$/],
    [['-blockdev', 'driver=file,node-name=n'], /Parameter 'filename' is missing$/],
    [['-blockdev', 'driver=raw,node-name=n,file=x', '-device', 'virtio-blk-pci,drive=n'], /Cannot find device='' nor node-name='x'$/],
    [['-blockdev', 'driver=file,node-name=n,filename=no', '-device', 'virtio-blk-pci,drive=n'], /cannot open 'no': no such file$/],
    [['-object', json({ id: 'x' })], /Parameter 'qom-type' is missing$/],
    [['-device', 'virtconsole,chardev=x'], /expected a -chardev stdio with that id$/],
  ]
  for (const [args, pattern] of cases) {
    test(args.join(' '), async () => {
      const { status, errors } = await withKernel(...args)
      assert.equal(status, 2)
      assert.match(errors.trimEnd(), pattern)
      assert.equal(errors.trimEnd().split('\n').length, 1)
    })
  }
})
