/** Debian's kernels, unmodified, from power-on to power-off: a shell typed at through a pipe, and programs whose results are known. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import { busybox, kernelFile, type Outcome, runCommand, shellDisk } from './linux.ts'

const digest = (kind: string, data: Uint8Array | string): string => createHash(kind).update(data).digest('hex')
const numbers = Array.from({ length: 20_000 }, (_, i) => i + 1)

/** A command for the shell, and what it says on a processor that is right: worked out here, by other means. */
const work: readonly [string, string][] = [
  ['dd if=/dev/zero bs=1M count=64 2>/dev/null | sha256sum', digest('sha256', new Uint8Array(64 << 20))],
  ['gzip -c /bin/busybox | gunzip | md5sum', digest('md5', busybox())],
  ['seq 1 20000 | sort -rn | md5sum', digest('md5', numbers.toReversed().map(n => `${n}\n`).join(''))],
  ["seq 1 20000 | awk '{ s += $1 * $1 } END { printf \"%.0f\\n\", s }'", String(numbers.reduce((sum, n) => sum + n * n, 0))],
  ['i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done; echo $i forks', '1000 forks'],
]

/** The same on every processor: seen on silicon, QEMU and Bochs. */
const checks: Readonly<Record<string, string>> = {
  sort: 'c018c01ce7146bac', sha256: '541be5643509fda4', coremix: 'ffe88a5465ab6e9c', chase: '5f859', memcpy: '11',
  nbody: '3ffe58f8e2edf8fd', getppid: 'f4240', pgfault: '70000', forkexec: '190', pingpong: '7530',
}

/** What Linux says when it finds fault with the machine. */
const complaint = new RegExp([
  'WARNING', 'BUG:', 'Firmware Bug', 'Oops', 'Call Trace', 'unstable', 'APIC error', 'nobody cared', '[Ss]purious', 'calibration failed',
  'too much work', 'MTRRs disabled', 'not functional', 'rcu.*stall', 'hung', 'lockup',
].join('|'))

const programs = Object.keys(checks)
/** For the interpreter: those that compute are several times slower there, from the same rows. */
const quick = ['nbody', 'chase', 'memcpy', 'getppid', 'pgfault', 'forkexec', 'pingpong']

function bootAndWork(args: readonly string[], chosen: readonly string[]): Outcome {
  const typed = [...work.map(([command]) => command), ...chosen.map(name => `bench ${name}`), 'poweroff -f', ''].join('\n')
  const outcome = runCommand(['--append', 'console=ttyS0', ...args], typed, shellDisk())
  assert.deepEqual([outcome.status, outcome.ending], [0, 'power-off'], outcome.errors + outcome.console.slice(-2000))
  return outcome
}

function verify({ console }: Outcome, chosen: readonly string[]): void {
  for (const [command, said] of work) assert.ok(console.includes(said), `${command}: expected ${said}`)
  for (const name of chosen) {
    const check = new RegExp(`@@END ${name} .*check=(\\w+)`).exec(console)?.[1]
    assert.equal(check, checks[name].padStart(16, '0'), name)
  }
  assert.deepEqual(console.split('\n').filter(line => complaint.test(line)), [])
}

describe('the cloud kernel', () => {
  for (const [cpu, engine, chosen] of [['intel', 'jit', programs], ['amd', 'jit', programs], ['intel', 'interpreter', quick]] as const) {
    test(`${cpu}, ${engine}: boots, works and powers off`, () => {
      const outcome = bootAndWork(['--kernel', kernelFile('cloud'), '--cpu', cpu, '--engine', engine, '--memory', '512M'], chosen)
      verify(outcome, chosen)
      assert.match(outcome.console, cpu === 'amd' ? /CPU0: AMD Vitrine/ : /CPU0: Intel Vitrine/)
    })
  }

  test('a panic ends the run with its status and a report', () => {
    const { status, ending, console } = runCommand(
      ['--kernel', kernelFile('cloud'), '--append', 'console=ttyS0 quiet rdinit=/nothing'], '', shellDisk())
    assert.deepEqual([status, ending], [116, 'panic'], console)
    assert.match(console, /Kernel panic - not syncing/)
  })
})

test('the generic kernel, on two processors: boots, works and powers off', () => {
  const outcome = bootAndWork(['--kernel', kernelFile('generic'), '--cpu', 'amd', '--smp', '2', '--memory', '1G'], [])
  verify(outcome, [])
  assert.match(outcome.console, /smp: Brought up 1 node, 2 CPUs/)
})

test('what is typed in one piece, more than any buffer holds, arrives in order and whole', () => {
  const lines = Array.from({ length: 1000 }, (_, i) => `line-${i * 7}`)
  const typed = [...lines.map(line => `echo ${line} >> /tmp/lines`), 'md5sum /tmp/lines; poweroff -f', ''].join('\n')
  const { status, console } = runCommand(['--kernel', kernelFile('cloud'), '--append', 'console=ttyS0 quiet'], typed, shellDisk())
  assert.equal(status, 0)
  assert.ok(console.includes(digest('md5', lines.map(line => `${line}\n`).join(''))), console.slice(-500))
})
