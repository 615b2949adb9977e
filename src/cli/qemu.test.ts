/** `vitrine qemu` against QEMU's documentation ("Invocation") and what kvm-unit-tests' runner passes. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { command, ended } from './testing.ts'

const qemu = (...args: string[]): ReturnType<typeof command> => command(['qemu', ...args])

test("the command line of kvm-unit-tests' runner", async () => {
  const { request, status, errors } = await command(
    ('qemu --no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard -device pc-testdev ' +
      '-device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -device pci-testdev -machine accel=tcg ' +
      '-kernel kernel -smp 2 -cpu max,+svm,-pku -m 4g -overcommit cpu-pm=on -initrd initrd').split(' ').concat('-append', 'a b'),
    ended({ kind: 'debug-exit', status: 1 }),
  )
  assert.equal(status, 1)
  assert.match(errors, /^vitrine qemu: warning: global kvm-pit.lost_tick_policy has no effect$/m)
  const { machine, console } = request!
  assert.deepEqual(machine.devices, [
    { name: 'pc-testdev', properties: {} },
    { name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x4' } },
    { name: 'pci-testdev', properties: {} },
  ])
  assert.deepEqual(machine.cpu, { model: 'max', add: ['svm'], remove: ['pku'] })
  assert.deepEqual([machine.cpus, machine.memory, machine.chipset, machine.noReboot, machine.commandLine], [2, 2 ** 32, 'pc', true, 'a b'])
  assert.deepEqual([machine.kernelName, machine.initrdName], ['kernel', 'initrd'])
  assert.deepEqual(console, { serial: 'stdio', escape: false, interrupt: true, quiet: true, collect: false })
})

test('-device intel-iommu is a unit, with what QEMU does not check', async () => {
  const { request, errors } = await qemu(
    '-M', 'q35', '-kernel', 'kernel', '-device', 'intel-iommu,intremap=on,x-scalable-mode=on,device-iotlb=on')
  assert.deepEqual(request!.machine.iommus, [
    { model: 'vtd', properties: { 'ioapic-source-check': 'off', 'scalable-mode': 'on', intremap: 'on' } },
  ])
  assert.deepEqual(request!.machine.devices, [])
  assert.match(errors, /intel-iommu.device-iotlb=on has no effect/)
})

test('machines, memory and CPUs in their other spellings', async () => {
  const { machine } = (await qemu(
    '-M', 'q35,accel=kvm:tcg', '-m', 'size=1G', '-smp', 'sockets=1,cores=2,threads=2', '-cpu', 'IvyBridge,vendor=GenuineIntel,pku=off',
    '-kernel', 'kernel', '-enable-kvm', '-serial', 'none',
  )).request!
  assert.deepEqual([machine.chipset, machine.memory, machine.cpus], ['q35', 2 ** 30, 4])
  assert.deepEqual(machine.cpu, { model: 'IvyBridge', vendor: 'GenuineIntel', add: [], remove: ['pku'] })
  assert.equal((await qemu('-machine', 'pit=off', '-kernel', 'kernel', '-nographic')).request!.machine.chipset, 'pc')
  assert.equal((await qemu('-machine', 'kernel-irqchip=split', '-kernel', 'kernel', '-nographic')).request!.machine.memory, 128 << 20)
})

test('-nographic shares the terminal with an escape key', async () => {
  const { console } = (await qemu('-nographic', '-kernel', 'kernel')).request!
  assert.deepEqual(console, { serial: 'stdio', escape: true, interrupt: false, quiet: true, collect: false })
})

test('what scripts ask for: QEMU in the help, devices in quotes, a version', async () => {
  assert.match((await qemu('--help')).output, /QEMU/)
  assert.match((await qemu('-version')).output, /^QEMU emulator version \d+\.\d+\.\d+ /)
  for (const question of ['?', 'help']) {
    const { output, status } = await qemu('-device', question)
    assert.equal(status, 0)
    for (const name of ['pc-testdev', 'pci-testdev', 'isa-debug-exit']) assert.ok(output.includes(`name "${name}", bus `), output)
  }
  assert.match((await qemu('-cpu', 'help')).output, /^x86 max/m)
  assert.match((await qemu('-M', 'help')).output, /^q35 /m)
})

test('what a test runner takes from messages', async () => {
  // kvm-unit-tests, scripts/vmm.bash: a missing kernel alone means that the options are fine.
  const { errors } = await qemu('-kernel', '_NO_FILE_4Uhere_', '-display', 'none')
  assert.match(errors, /[Cc]ould not (load|open) kernel/)
  const killed = await command(['qemu', '-kernel', 'kernel', '-serial', 'stdio'], ended({ kind: 'signal', signal: 'SIGTERM', status: 143 }))
  assert.match(killed.errors, /terminating on signal 15/)
})

test('files for firmware and software, whichever has them', async () => {
  const given = ['-fw_cfg', 'name=opt/a/b,string=one,,two', '-fw_cfg', 'x,file=initrd']
  const { request, errors } = await qemu('-kernel', 'kernel', '-nographic', ...given)
  const files = [...request!.machine.fwCfgFiles!].map(([name, bytes]) => [name, new TextDecoder().decode(bytes)])
  assert.deepEqual(files, [['opt/a/b', 'one,two'], ['x', 'initrd']])
  assert.equal(errors, "vitrine qemu: warning: -fw_cfg x: names that are not the machine's own should begin with opt/\n")
})

test('accelerators over several options: ours is one of them', async () => {
  assert.ok((await qemu('-kernel', 'kernel', '-nographic', '-accel', 'kvm', '-accel', 'tcg,thread=multi')).request)
  assert.match((await qemu('-kernel', 'kernel', '-accel', 'hvf', '-accel', 'kvm')).errors, /-accel hvf: there is no hvf here/)
})

test('where the serial port can be', async () => {
  const serialOf = async (...args: string[]): Promise<unknown> =>
    (await qemu('-kernel', 'kernel', '-display', 'none', ...args)).request!.console.serial
  assert.deepEqual(await serialOf('-serial', 'file:log'), { file: 'log' })
  assert.deepEqual(await serialOf('-serial', 'pipe:/tmp/x'), { pipe: '/tmp/x' })
  const anywhere = { host: '0.0.0.0', port: 4444 }
  assert.deepEqual(await serialOf('-serial', 'tcp::4444,server,nowait'), { socket: anywhere, listen: true, wait: false })
  assert.deepEqual(await serialOf('-serial', 'tcp:localhost:1'), { socket: { host: 'localhost', port: 1 }, listen: false, wait: false })
  assert.deepEqual(await serialOf('-serial', 'unix:s,server=on,wait=off'), { socket: { path: 's' }, listen: true, wait: false })
  assert.deepEqual(await serialOf('-serial', 'telnet::4444,server,nowait'), { socket: anywhere, listen: true, wait: false, telnet: true })
  const telnet = await serialOf('-serial', 'chardev:t', '-chardev', 'socket,id=t,host=h,port=1,telnet=on')
  assert.deepEqual(telnet, { socket: { host: 'h', port: 1 }, listen: false, wait: false, telnet: true })
  assert.deepEqual(await serialOf('-serial', 'null'), 'none')
  const chardev = await serialOf('-serial', 'chardev:c', '-chardev', 'socket,id=c,path=s,server=on')
  assert.deepEqual(chardev, { socket: { path: 's' }, listen: true, wait: true })
  assert.deepEqual(await serialOf(), 'none')
})

test('four serial ports: the one on the terminal is the console, whichever it is', async () => {
  const { request } = await qemu('-kernel', 'kernel', '-serial', 'file:log', '-serial', 'mon:stdio', '-serial', 'chardev:c',
    '-chardev', 'file,id=c,path=x')
  assert.deepEqual(request!.console, { serial: 'stdio', port: 1, escape: true, interrupt: false, quiet: true, collect: false })
  assert.deepEqual(request!.serials, [{ port: 0, target: { file: 'log' } }, { port: 2, target: { file: 'x' } }])
  assert.equal(request!.machine.serialPorts, 3)
  const plain = (await qemu('-kernel', 'kernel', '-serial', 'stdio', '-serial', 'none')).request!
  assert.deepEqual([plain.console.serial, plain.console.port, plain.machine.serialPorts], ['stdio', undefined, 2])
})

test('a clock, a snapshot, a file for the process ID; warnings name what has no effect', async () => {
  const { request, errors, written } = await qemu(
    '-kernel', 'kernel', '-nographic', '-rtc', 'base=2026-01-31T12:00:00,clock=vm', '-snapshot', '-drive', 'file=disk.img,if=virtio',
    '-pidfile', 'pid', '-vga', 'cirrus', '-enable-kvm', '-no-shutdown', '-usb', '-uuid', 'x', '-name', 'guest',
  )
  assert.equal(request!.machine.rtcEpoch, Date.UTC(2026, 0, 31, 12) / 1000)
  assert.equal(request!.machine.drives![0].snapshot, true)
  assert.deepEqual(written, { pid: '4242\n' })
  const warned = errors.trimEnd().split('\n').map(line => /^vitrine qemu: warning: (-[\w-]+).* has no effect/.exec(line)?.[1])
  assert.deepEqual(warned, ['-vga', '-enable-kvm', '-no-shutdown', '-usb'])
  const { devices } = (await qemu('-kernel', 'kernel', '-nographic', '-vga', 'std')).request!.machine
  assert.deepEqual(devices, [{ name: 'VGA', properties: {} }])
  assert.equal((await qemu('-kernel', 'kernel', '-nographic', '-rtc', 'base=utc')).request!.machine.rtcEpoch, 1_800_000_000)
})

test('monitors: for people, for programs, on a character device; -S waits for one', async () => {
  const { request } = await qemu('-kernel', 'kernel', '-serial', 'file:log', '-monitor', 'stdio', '-qmp', 'unix:q,server,nowait', '-S')
  assert.deepEqual(request!.monitors, [
    { kind: 'human', target: 'stdio' }, { kind: 'qmp', target: { socket: { path: 'q' }, listen: true, wait: false } },
  ])
  assert.equal(request!.paused, true)
  const on = ['-chardev', 'socket,id=c,path=s,server=on,wait=off', '-mon', 'chardev=c,mode=control']
  const { monitors, paused } = (await qemu('-kernel', 'kernel', '-nographic', ...on)).request!
  assert.deepEqual(monitors, [{ kind: 'qmp', target: { socket: { path: 's' }, listen: true, wait: false } }])
  assert.equal(paused, undefined)
  assert.equal((await qemu('-kernel', 'kernel', '-nographic', '-monitor', 'none', '-monitor', '/dev/null')).request!.monitors, undefined)
  assert.match((await qemu('-kernel', 'kernel', '-nographic', '-monitor', 'stdio')).errors, /cannot use stdio by multiple/)
})

test('-debugcon, -global and the older -net', async () => {
  const debug = (await qemu('-kernel', 'kernel', '-nographic', '-debugcon', 'file:log', '-global', 'isa-debugcon.iobase=0x402')).request!
  assert.deepEqual(debug.machine.devices, [{ name: 'isa-debugcon', properties: { iobase: '0x402' } }])
  assert.deepEqual(debug.debugConsole, { file: 'log' })
  const device = ['-chardev', 'file,id=c,path=x', '-device', 'isa-debugcon,iobase=0x402,chardev=c']
  assert.deepEqual((await qemu('-kernel', 'kernel', '-nographic', ...device)).request!.debugConsole, { file: 'x' })
  const secure = await qemu('-kernel', 'kernel', '-nographic', '-global', 'driver=cfi.pflash01,property=secure,value=on',
    '-global', 'driver=edu,property=dma_mask,value=0xff', '-device', 'edu')
  assert.deepEqual([secure.request!.machine.secureFlash, secure.errors], [true, ''])
  assert.deepEqual(secure.request!.machine.devices, [{ name: 'edu', properties: { dma_mask: '0xff' } }])
  const open = await qemu('-kernel', 'kernel', '-nographic', '-global', 'cfi.pflash01.secure=off')
  assert.equal(open.request!.machine.secureFlash, undefined)
  assert.match((await qemu('-kernel', 'kernel', '-global', 'driver=edu,property=x')).errors, /expected 'driver\.property=value'/)
  const net = (await qemu('-kernel', 'kernel', '-nographic', '-net', 'nic,model=e1000', '-net', 'user,hostfwd=tcp::2222-:22')).request!
  assert.deepEqual(net.machine.devices, [{ name: 'e1000', properties: { netdev: 'nic0' } }])
  assert.deepEqual(net.forwards, { nic0: [{ port: 2222, toPort: 22 }] })
  assert.match((await qemu('-kernel', 'kernel', '-nographic', '-net', 'nic')).errors, /expected as many nic as user, found 1 and 0/)
})

test('other names of devices; isa-serial is one more serial port', async () => {
  const { request } = await qemu(
    '-kernel', 'kernel', '-serial', 'stdio', '-device', 'virtio-9p,fsdev=f,mount_tag=t', '-fsdev', 'local,path=folder,id=f',
    '-chardev', 'file,id=c,path=x', '-device', 'isa-serial,chardev=c',
  )
  assert.deepEqual(request!.machine.devices!.map(({ name }) => name), ['virtio-9p-pci'])
  assert.deepEqual(request!.serials, [{ port: 1, target: { file: 'x' } }])
})

test('-d and -D: events as a trace, the machine\'s words beside them in a file', async () => {
  const { request } = await qemu('-kernel', 'kernel', '-nographic', '-d', 'int,guest_errors,unimp', '-D', 'log')
  assert.deepEqual(request!.trace, { kinds: ['events'], file: 'log', log: true })
  assert.deepEqual((await qemu('-kernel', 'kernel', '-nographic', '-d', 'int')).request!.trace, { kinds: ['events'] })
  assert.equal((await qemu('-kernel', 'kernel', '-nographic', '-d', 'unimp')).request!.trace, undefined)
  assert.match((await qemu('-kernel', 'kernel', '-nographic', '-d', 'cpu_reset')).errors, /-d cpu_reset has no effect/)
})

test('help on one device, on drives and on character devices', async () => {
  assert.match((await qemu('-device', 'isa-debug-exit,help')).output, /^isa-debug-exit options:\n {2}iobase=<value> \(default: 0x501\)/)
  assert.match((await qemu('-drive', 'help')).output, /format=raw\|qcow2/)
  assert.match((await qemu('-chardev', 'help')).output, /stdio/)
})

describe('errors in the words of QEMU', () => {
  const cases: [string[], RegExp][] = [
    [['-foo'], /^vitrine qemu: -foo: invalid option; the nearest is -\w+$/],
    [['--foo'], /^vitrine qemu: --foo: invalid option/],
    [['-krenel', 'x'], /the nearest is -kernel$/],
    [['-no-rebot'], /the nearest is -no-reboot$/],
    [['-m'], /^vitrine qemu: -m: requires an argument$/],
    [['-M', 'zzz'], /-M zzz: unsupported machine type 'zzz'/],
    [['-smp', 'x'], /Parameter 'smp.cpus' expects integer/],
    [['-serial', 'zz'], /-serial zz: 'zz' is not a valid char driver/],
    [['-accel', 'zz'], /-accel zz: invalid accelerator zz/],
    [['-kernel', 'kernel', '-device', 'zz'], /-device zz: 'zz' is not a valid device model name/],
    [['-kernel', 'nowhere', '-display', 'none'], /'nowhere': no such file/],
    [['-kernel', 'kernel', '-cpu', 'zz', '-display', 'none'], /'zz'/],
    [['image.img'], /'image.img': no such file/],
    [['-vga', 'sdt'], /-vga sdt: unknown vga type/],
    [['-fw_cfg', 'opt/x'], /-fw_cfg opt\/x: expected name=NAME, and file=FILE or string=TEXT$/],
    [['-fw_cfg', 'opt/x,string=', '-fw_cfg', 'opt/x,string='], /duplicate fw_cfg file name: opt\/x$/],
    [['-accel', 'kvm'], /-accel kvm: there is no kvm here: expected tcg/],
    [['-smp', '65'], /Invalid SMP CPUs 65. The max CPUs supported by machine 'pc' is 64$/],
    [['-serial', 'tcp:1'], /expected tcp:HOST:PORT, found '1'/],
    [['-kernel', 'kernel', '-serial', 'chardev:x'], /expected a -chardev with id=x, found none/],
    [['-kernel', 'kernel', '-serial', 'stdio', '-serial', 'mon:stdio'], /mon:stdio: cannot use stdio by multiple character devices/],
    [['-kernel', 'kernel', ...Array<string[]>(5).fill(['-serial', 'null']).flat()], /expected at most 4 serial ports/],
    [['-daemonize'], /-daemonize: not offered here: start it in the background/],
    [['-hda', 'x'], /'x': no such file/],
    [['-boot', 'order=x', 'disk'], /boot order 'x'/],
    [['-boot', 'oder=c'], /Invalid parameter 'oder'/],
    [['-rtc', 'base=soon'], /expected a date such as/],
    [['-device', 'isa-debug-exitt,help'], /the nearest is 'isa-debug-exit'/],
    [[], /-kernel/],
  ]
  for (const [args, pattern] of cases) {
    test(args.join(' ') || 'nothing', async () => {
      const { status, errors } = await qemu(...args)
      assert.equal(status, 2)
      assert.match(errors.trimEnd(), pattern)
    })
  }
})
