/** `vitrine run`: what options come to, what errors say, what statuses mean. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { InputError } from '../errors.ts'
import { OutOfBackingMemory } from '../memory/linear.ts'
import { command, ended } from './testing.ts'

const run = ['run', '--kernel', 'kernel']

describe('options', () => {
  test('all of them reach the machine', async () => {
    const { request, status } = await command([
      'run', '--cpu', 'amd,+pku,-la57', '--smp', '4', '--memory', '2G', '--chipset', 'pc', '--kernel', 'kernel', '--initrd', 'initrd',
      '--append', 'console=ttyS0', '--device', 'isa-debug-exit,iobase=0xf4', '--device', 'pc-testdev', '--engine', 'interpreter',
      '--max-instructions', '1e6', '--timeout', '2.5', '--real-time', '--no-reboot', '--seed', '7', '--quiet',
    ])
    assert.equal(status, 0)
    assert.deepEqual(request!.machine, {
      cpu: { model: 'amd', add: ['pku'], remove: ['la57'] }, cpus: 4, memory: 2 ** 31, chipset: 'pc',
      devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4' } }, { name: 'pc-testdev', properties: {} }],
      engine: 'interpreter', seed: 7, noReboot: true, kernel: new TextEncoder().encode('kernel'), kernelName: 'kernel',
      initrd: new TextEncoder().encode('initrd'), initrdName: 'initrd', commandLine: 'console=ttyS0',
    })
    assert.deepEqual(request!.session, { realTime: true, maxInstructions: 1e6, timeoutSeconds: 2.5 })
    assert.deepEqual(request!.console, { serial: 'stdio', escape: true, interrupt: false, quiet: true, collect: false })
  })

  test('memory is in MiB when it has no unit', async () => {
    assert.equal((await command([...run, '--memory', '64'])).request!.machine.memory, 64 << 20)
  })

  test('--cpu help and --device help list names', async () => {
    assert.match((await command(['run', '--cpu', 'help'])).output, /Skylake-Server[^]*Features:\n +pku\n[^]*not implemented[^]*avx512f/)
    assert.match((await command(['run', '--net', 'help'])).output, /hostfwd=tcp/)
    assert.match((await command(['run', '--share', 'help'])).output, /mount -t 9p/)
    assert.match((await command(['run', '--cpu', 'Skylake-Server,-pcid,help'])).output, /has .* invpcid[^]*lacks .*avx512f/)
    assert.match((await command(['run', '--device', 'help'])).output, /isa-debug-exit .*iobase=0x501/)
    assert.match((await command(['run', '--device', 'isa-debug-exit,help'])).output, /^ {2}iobase=0x501$/m)
    assert.match((await command(['run', '--drive', 'help'])).output, /snapshot=on\|off/)
  })

  test('what a CPU goes without is said, unless it is to be quiet', async () => {
    assert.match((await command([...run, '--cpu', 'Skylake-Server'])).errors, /^vitrine: in silicon, Skylake-Server has more .*avx512f/)
    assert.match((await command([...run, '--cpu', 'max,+avx512f'])).errors, /^vitrine: not implemented, so the CPU goes without: avx512f$/m)
    assert.match((await command([...run, '--cpu', 'host'])).errors, /'host' means 'max' here/)
    assert.equal((await command([...run, '--cpu', 'Haswell', '--quiet'])).errors, '')
    assert.equal((await command([...run, '--cpu', 'intel'])).errors, '')
  })

  test('--profile samples, with names from where it is told', async () => {
    const table = ended({ kind: 'power-off' }, { profile: 'Where the time went' })
    const { request, errors } = await command([...run, '--quiet', '--profile'], table)
    assert.deepEqual([request!.profile, errors], [{ symbols: undefined }, 'Where the time went'])
    assert.deepEqual((await command(['run', '--profile=out', '--kernel', 'kernel'])).request!.profile, { file: 'out', symbols: undefined })
    assert.match((await command([...run, '--profile', '--symbols', 'initrd'])).errors, /symbols 'initrd': expected lines of address/)
    assert.match((await command([...run, '--symbols', 'initrd'])).errors, /expected --profile, --trace or --explain too/)
  })

  test('--trace and --explain, with names as a profile has them', async () => {
    const { request } = await command([...run, '--trace', 'exits:out', '--explain'])
    assert.deepEqual([request!.trace, request!.explain, request!.symbols], [{ kinds: ['exits'], file: 'out' }, true, undefined])
    assert.deepEqual((await command([...run, '--trace', 'exits+iommu'])).request!.trace, { kinds: ['exits', 'iommu'] })
  })

  test('--rtc takes a date, or today', async () => {
    const epoch = async (date: string): Promise<unknown> => (await command([...run, '--rtc', date])).request?.machine.rtcEpoch
    assert.deepEqual([await epoch('2026-01-31'), await epoch('@5'), await epoch('now')], [Date.UTC(2026, 0, 31) / 1000, 5, 1_800_000_000])
    assert.match((await command([...run, '--rtc', 'today'])).errors, /--rtc 'today': expected a date such as/)
  })
})

describe('bad input is one line that says what is wrong, with status 2', () => {
  const cases: [string[], RegExp][] = [
    [['run'], /--kernel/],
    [['run', '--kernel'], /--kernel/],
    [['run', '--memroy', '3'], /'--memroy'.*--memory/],
    [['run', '--tarce', 'exits'], /'--tarce'.*--trace/],
    [[...run, '--trace', 'exit'], /--trace 'exit': expected exits, iommu or events/],
    [['rnu'], /'rnu'.*run/],
    [['help', 'rnu'], /'rnu'.*run/],
    [['run', '--kernel', 'nowhere'], /'nowhere': no such file/],
    [[...run, '--memory', '3.3M'], /--memory '3.3M'.*multiple of 1M/],
    [[...run, '--memory', 'much'], /--memory 'much'.*512M/],
    [[...run, '--memory', '1M'], /at least 2M/],
    [[...run, '--smp', '0'], /--smp '0'.*from 1 to 64/],
    [[...run, '--timeout', '-1'], /--timeout '-1'/],
    [[...run, '--max-instructions', '0x10'], /--max-instructions '0x10'/],
    [[...run, '--cpu', 'intle'], /'intle'.*'intel'/],
    [[...run, '--cpu', 'intel,+pkuu'], /'pkuu'.*'pku'/],
    [[...run, '--engine', 'fast'], /'fast'.*jit/],
    [[...run, 'extra'], /too many arguments/],
  ]
  for (const [args, pattern] of cases) {
    test(args.join(' '), async () => {
      const { status, errors, output, request } = await command(args)
      assert.equal(status, 2)
      assert.match(errors, pattern)
      assert.equal(errors.trimEnd().split('\n').length, 1, errors)
      assert.equal(output, '')
      assert.equal(request, undefined)
    })
  }

  test("a boot protocol's error is the user's as well", async () => {
    const error = Object.assign(new Error('kernel: expected a bzImage, found text'), { name: 'BootError' })
    const { status, errors } = await command(run, error)
    assert.deepEqual([status, errors], [2, 'vitrine: kernel: expected a bzImage, found text\n'])
    assert.equal((await command(run, new InputError('x'))).status, 2)
    const tooMuch = await command(run, new OutOfBackingMemory(2 ** 30))
    assert.equal(tooMuch.status, 2)
    assert.match(tooMuch.errors, /^vitrine: the machine has touched .* less memory\n$/)
  })

  test('our own errors show where', async () => {
    const { status, errors } = await command(run, new Error('a bug'))
    assert.equal(status, 70)
    assert.match(errors, /report it[^]*at /)
  })
})

describe('exit status', () => {
  const cases: [Parameters<typeof ended>, number, RegExp][] = [
    [[{ kind: 'power-off' }], 0, /^$/],
    [[{ kind: 'left' }], 0, /^$/],
    [[{ kind: 'reset' }], 0, /^$/],
    [[{ kind: 'reset' }, { panic: 'Kernel panic - not syncing: x' }], 116, /Kernel panic - not syncing: x/],
    [[{ kind: 'panic' }, { panic: 'Kernel panic - not syncing: x', picture: 'rip 1' }], 116, /Kernel panic - not syncing: x\n[^]*rip 1/],
    [[{ kind: 'debug-exit', status: 1 }], 1, /^$/],
    [[{ kind: 'debug-exit', status: 0x1ff }], 0xff, /^$/],
    [[{ kind: 'triple-fault', report: 'at 1234' }], 120, /triple fault[^]*at 1234/],
    [[{ kind: 'idle' }, { picture: 'rip 1234' }], 118, /halted[^]*rip 1234/],
    [[{ kind: 'budget' }], 122, /1000 instructions/],
    [[{ kind: 'timeout' }], 124, /--timeout/],
    [[{ kind: 'signal', signal: 'SIGTERM', status: 143 }], 143, /^$/],
  ]
  for (const [result, status, pattern] of cases) {
    test(`${JSON.stringify(result)} is ${status}`, async () => {
      const outcome = await command(run, ended(...result))
      assert.equal(outcome.status, status)
      assert.match(outcome.errors, pattern)
    })
  }

  test('every status of ours is in the help, and even: debug exits are odd', async () => {
    const { output } = await command(['run', '--help'])
    for (const status of [0, 2, 70, 116, 118, 120, 122, 124]) assert.match(output, new RegExp(`^ *${status}  `, 'm'))
  })

  test('--json says all of it in one document', async () => {
    const { output, errors, status } = await command([...run, '--json'], ended({ kind: 'debug-exit', status: 5 }, { console: 'hello\n' }))
    const { ending, exitStatus, instructions, console } = JSON.parse(output) as Record<string, unknown>
    assert.deepEqual([ending, exitStatus, instructions, console, errors, status], ['debug-exit', 5, 1000, 'hello\n', '', 5])
  })
})
