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

test('machines, memory and CPUs in their other spellings', async () => {
  const { machine } = (await qemu(
    '-M', 'q35,accel=kvm', '-m', 'size=1G', '-smp', 'sockets=1,cores=2,threads=2', '-cpu', 'IvyBridge,vendor=GenuineIntel,pku=off',
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

describe('errors in the words of QEMU', () => {
  const cases: [string[], RegExp][] = [
    [['-foo'], /^vitrine qemu: -foo: invalid option$/],
    [['--foo'], /^vitrine qemu: --foo: invalid option$/],
    [['-m'], /^vitrine qemu: -m: requires an argument$/],
    [['-M', 'zzz'], /-M zzz: unsupported machine type 'zzz'/],
    [['-smp', 'x'], /Parameter 'smp.cpus' expects integer/],
    [['-serial', 'zz'], /-serial zz: 'zz' is not a valid char driver/],
    [['-accel', 'zz'], /-accel zz: invalid accelerator zz/],
    [['-kernel', 'kernel', '-device', 'zz'], /-device zz: 'zz' is not a valid device model name/],
    [['-kernel', 'nowhere', '-display', 'none'], /'nowhere': no such file/],
    [['-kernel', 'kernel', '-cpu', 'zz', '-display', 'none'], /'zz'/],
    [['disk.img'], /disk.img/],
    [['-vga', 'std'], /-vga std: .*no display is emulated/],
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
