/** The command line as a process, around a fake machine: pipes, terminals (through util-linux's `script`), signals, and the launcher. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-'))
after(() => rmSync(folder, { recursive: true }))
const kernel = join(folder, 'kernel')
writeFileSync(kernel, 'any')
const program = fileURLToPath(new URL('../testing/main.ts', import.meta.url))

const runArgs = (guest: string, ...more: string[]): string[] => [program, 'run', '--kernel', kernel, '--append', guest, ...more]

type Use = (child: ChildProcess) => void | Promise<void>

interface Ended {
  status: number | null
  signal: NodeJS.Signals | null
  output: string
  errors: string
  seconds: number
  child: ChildProcess
}

/** Starts, lets `use` act on it, and waits until it ends; fails instead of hanging. */
async function start(command: string, args: string[], use: Use): Promise<Ended> {
  const began = performance.now()
  const child = spawn(command, args, { stdio: 'pipe', timeout: 60_000, killSignal: 'SIGKILL' })
  const ended: Ended = { status: null, signal: null, output: '', errors: '', seconds: 0, child }
  child.stdout?.on('data', (text: Buffer) => { ended.output += text })
  child.stderr?.on('data', (text: Buffer) => { ended.errors += text })
  child.stdin?.on('error', () => {})
  const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  await use(child)
  ;[ended.status, ended.signal] = await closed
  ended.seconds = (performance.now() - began) / 1000
  return ended
}

const later = (milliseconds: number): Promise<void> => new Promise(resolve => { setTimeout(resolve, milliseconds) })
const types = (text: string) => (child: ChildProcess): void => { child.stdin!.end(text) }
const nothing = types('')

/** Waits until the process has said something on a stream, or has ended. */
const hears = (stream: NodeJS.ReadableStream | null, text: string): Promise<void> => new Promise(resolve => {
  let heard = ''
  stream!.on('data', (data: Buffer) => {
    heard += data
    if (heard.includes(text)) resolve()
  }).on('close', resolve)
})

describe('in a pipe', () => {
  test('bytes pass as they are, all of them, also when the input ends at once', async () => {
    const typed = '\x01x\x03\x00é\r\n'.repeat(3000) + 'poweroff'
    const { status, output, errors } = await start(process.execPath, runArgs('echo'), types(typed))
    assert.equal(status, 0)
    assert.equal(output, typed)
    assert.equal(errors, '')
  })

  test('output is complete for a reader slower than us', async () => {
    const shell = '"$0" "$@" | (sleep 1; wc -c)'
    const { status, output } = await start('sh', ['-c', shell, process.execPath, ...runArgs('flood 3000000')], nothing)
    assert.equal(status, 0)
    assert.equal(output.trim(), '3000000')
  })

  test('a reader that goes away is no error', async () => {
    const shell = `"$0" "$@" | head -c 10; echo " \${PIPESTATUS[0]}"`
    const { output, errors } = await start('bash', ['-c', shell, process.execPath, ...runArgs('flood 30000000')], nothing)
    assert.equal(output, 'xxxxxxxxxx 0\n')
    assert.equal(errors, '')
  })

  test('a full disk behind our output, or behind a file of the serial port, is said', async () => {
    const full = await start('sh', ['-c', '"$0" "$@" > /dev/full', process.execPath, ...runArgs('flood 30000')], nothing)
    assert.deepEqual([full.status, full.errors], [2, 'vitrine: cannot write to standard output: the disk is full\n'])
    const serial = await start(process.execPath,
      [program, 'qemu', '-kernel', kernel, '-append', 'flood 5000', '-serial', 'file:/dev/full', '-display', 'none'], nothing)
    assert.match(serial.errors, /^vitrine qemu: cannot write '\/dev\/full': the disk is full\n$/)
    assert.equal(serial.status, 2)
  })

  test('an open pipe on which nobody types costs no CPU', async () => {
    const { status } = await start(process.execPath, runArgs('echo', '--timeout', '5'), async current => {
      current.stdin!.write('hello')
      await hears(current.stdout, 'hello')
      // It has to be idle for a while of its own time before it counts as waiting.
      await later(1000)
      const before = cpuTicks(current.pid!)
      await later(1000)
      const percent = cpuTicks(current.pid!) - before
      assert.ok(percent <= 6, `${percent} % of a CPU while idle`)
    })
    assert.equal(status, 124)
  })

  test('SIGTERM, SIGINT and SIGHUP end a busy guest in good order', async () => {
    for (const [signal, status] of [['SIGTERM', 143], ['SIGINT', 130], ['SIGHUP', 0]] as const) {
      const ended = await start(process.execPath, runArgs('busy'), async child => {
        await hears(child.stdout, 'started')
        child.kill(signal)
      })
      assert.deepEqual([ended.status, ended.errors], [status, ''], signal)
    }
  })

  test('--timeout stops a busy guest, says so, and has its status', async () => {
    const { status, errors, seconds } = await start(process.execPath, runArgs('busy', '--timeout', '0.5'), nothing)
    assert.equal(status, 124)
    assert.match(errors, /^vitrine: stopped after \d+ instructions \(--timeout\)\n$/)
    assert.ok(seconds < 5)
  })

  test('--json is one document, with the console in it', async () => {
    const { status, output } = await start(process.execPath, runArgs('panic', '--json', '--no-reboot'), nothing)
    const { ending, exitStatus, panic, console } = JSON.parse(output) as Record<string, string>
    assert.deepEqual([status, ending, exitStatus, panic], [116, 'reset', 116, 'Kernel panic - not syncing: Attempted to kill init!'])
    assert.match(console, /Kernel panic/)
  })

  test('the serial port goes to a file on demand', async () => {
    const file = join(folder, 'serial.txt')
    const { status, output } = await start(process.execPath,
      [program, 'qemu', '-kernel', kernel, '-append', 'flood 5000', '-serial', `file:${file}`, '-display', 'none'], nothing)
    assert.deepEqual([status, output], [0, ''])
    const { output: counted } = await start('wc', ['-c', file], nothing)
    assert.match(counted, /^5000 /)
  })
})

/** User and system time of a process in hundredths of a second (proc(5), "/proc/pid/stat"). */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** Runs a shell command on a terminal of its own; `after` is run there when it has ended. */
function onTerminal(command: string[], use: Use): Promise<Ended> {
  const quoted = command.map(word => `'${word}'`).join(' ')
  const [before, afterwards] = [join(folder, 'before'), join(folder, 'after')]
  const shell = `stty -a > ${before}; ${quoted}; status=$?; stty -a > ${afterwards}; cmp ${before} ${afterwards}; exit $status`
  return start('script', ['-q', '-e', '-c', shell, '/dev/null'], use)
}

describe('on a terminal', () => {
  test('Ctrl-A X leaves, Ctrl-C goes to the guest, and the terminal is as before', async () => {
    const { status, output } = await onTerminal([process.execPath, ...runArgs('echo')], async child => {
      await hears(child.stdout, 'Ctrl-A X leaves')
      child.stdin!.write('ab\x03c\x01a')
      await hears(child.stdout, 'ab\x03c\x01')
      child.stdin!.write('\x01h')
      await hears(child.stdout, 'Ctrl-A C')
      child.stdin!.write('\x01x')
    })
    assert.equal(status, 0, output)
    assert.doesNotMatch(output, /differ/)
  })

  test('the terminal is given back after a power-off, a crash of ours and a signal', async () => {
    const off = await onTerminal([process.execPath, ...runArgs('flood 10')], () => {})
    assert.deepEqual([off.status, /differ/.test(off.output)], [0, false], off.output)
    const crash = await onTerminal([process.execPath, ...runArgs('crash')], () => {})
    assert.deepEqual([crash.status, /differ/.test(crash.output)], [70, false], crash.output)
    const killed = await onTerminal(['timeout', '-s', 'TERM', '2', process.execPath, ...runArgs('busy')], () => {})
    assert.deepEqual([killed.status, /differ/.test(killed.output)], [124, false], killed.output)
  })

  test('in the background a machine runs, without the keys; brought to the front it takes them', async () => {
    const aside = await onTerminal(['timeout', '-s', 'TERM', '60', process.execPath, ...runArgs('flood 10')], () => {})
    assert.equal(aside.status, 0, aside.output)
    assert.match(aside.output, /xxxxxxxxxx/)
    const command = [process.execPath, ...runArgs('echo')].map(word => `'${word}'`).join(' ')
    const ended = await start('script', ['-q', '-e', '-c', `set -m; ${command} & sleep 1; fg`, '/dev/null'], async child => {
      await hears(child.stdout, 'Ctrl-A X leaves')
      await later(1500)
      child.stdin!.write('ab\x03')
      await hears(child.stdout, 'ab\x03')
      child.stdin!.write('\x01x')
    })
    assert.equal(ended.status, 0, ended.output)
  })

  test('a closed window is a clean exit', async () => {
    const pidFile = join(folder, 'pid')
    const command = [process.execPath, ...runArgs('echo')].map(word => `'${word}'`).join(' ')
    const ended = await start('script', ['-q', '-c', `echo $$ > ${pidFile}; exec ${command}`, '/dev/null'], async child => {
      await hears(child.stdout, 'Ctrl-A X')
      child.kill('SIGKILL')
    })
    assert.equal(ended.signal, 'SIGKILL')
    const pid = Number(readFileSync(pidFile, 'utf8'))
    assert.ok(await gone(pid), 'still running after its terminal has gone')
  })
})

async function gone(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      process.kill(pid, 0)
    } catch {
      return true
    }
    await later(100)
  }
  return false
}
