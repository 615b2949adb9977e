/** The command as people start it: through npx and the launcher, on the real machine. */
import assert from 'node:assert/strict'
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { debianKernel } from '../../tools/debian/packages.ts'
import { multibootImage } from './multiboot.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'vitrine-'))
after(() => rmSync(folder, { recursive: true }))

const npx = (...args: string[]): SpawnSyncReturns<string> =>
  spawnSync('npx', ['vitrine', ...args], { cwd: root, encoding: 'utf8', timeout: 60_000 })
const vitrine = (...args: string[]): SpawnSyncReturns<string> =>
  spawnSync(join(root, 'bin/vitrine.js'), args, { cwd: folder, encoding: 'utf8', timeout: 60_000, input: '' })

function multibootKernel(name: string, code: readonly number[]): string {
  const file = join(folder, `${name}.elf`)
  writeFileSync(file, multibootImage(code))
  return file
}
/** `jmp .` */
const spinningKernel = (): string => multibootKernel('spin', [0xeb, 0xfe])

describe('npx vitrine', () => {
  test('demo boots a guest and powers it off', () => {
    const { status, stdout } = npx('demo', '--cpu', 'amd')
    assert.match(stdout, /Hello from under the glass[^]*EPYC/)
    assert.equal(status, 0)
  })

  test("the README's first command prints what the README shows, for both vendors", () => {
    const [shown] = /(?<=```text\n)[^]*?(?=```)/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? ['']
    assert.match(shown, /178 steps, from 871/)
    const { stdout, status } = npx('vmm')
    assert.equal(status, 0)
    assert.ok(stdout.includes(shown))
    assert.match(stdout, /on AMD-V, 2 processors/)
  })

  test('vmm --json is a report for programs, the same for the same seed', () => {
    const run = (seed: string): string => npx('vmm', '--cpu', 'amd', '--json', '--seed', seed).stdout
    const [report] = JSON.parse(run('3')) as { vendor: string; vcpus: { name: string; said: string }[] }[]
    assert.equal(report.vendor, 'amd')
    assert.deepEqual(report.vcpus.map(({ name }) => name), ['collatz', 'vectors', 'ping', 'pong'])
    assert.equal(run('3'), run('3'))
    assert.notEqual(run('3'), run('4'))
  })

  test('arguments, output and status pass through', () => {
    const { status, stderr } = npx('run', '--kernel', 'no such file')
    assert.match(stderr, /vitrine: cannot read 'no such file': no such file\n$/)
    assert.equal(status, 2)
  })

  test('a run does not outlive an npx that is killed outright', async () => {
    const child = spawn('npx', ['vitrine', 'run', '--kernel', spinningKernel()], { cwd: root, stdio: 'ignore' })
    let ours: number[] = []
    for (let tries = 0; tries < 100 && ours.length === 0; tries++) {
      await new Promise(resolve => { setTimeout(resolve, 100) })
      ours = processesWith(join(folder, 'spin.elf')).filter(pid => /bin\/vitrine/.test(commandOf(pid)) && !/npm exec/.test(commandOf(pid)))
    }
    assert.equal(ours.length > 0, true, 'the run has started')
    // Long enough for it to look around.
    await new Promise(resolve => { setTimeout(resolve, 1000) })
    child.kill('SIGKILL')
    await once(child, 'exit')
    for (let tries = 0; tries < 50 && processesWith(join(folder, 'spin.elf')).length > 0; tries++) {
      await new Promise(resolve => { setTimeout(resolve, 100) })
    }
    assert.deepEqual(processesWith(join(folder, 'spin.elf')).map(commandOf), [])
  })
})

describe('the launcher', () => {
  test('runs anywhere, and quickly', () => {
    const { status, stdout } = vitrine('--version')
    assert.equal(status, 0)
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  })

  test('the instruction budget is exact and ends with its own status', () => {
    const { status, stdout } = vitrine('run', '--kernel', spinningKernel(), '--max-instructions', '123456', '--json')
    const { instructions, ending } = JSON.parse(stdout) as Record<string, unknown>
    assert.deepEqual([status, instructions, ending], [122, 123456, 'budget'])
  })

  test('a machine that halts for ever ends at once, when nobody can type', () => {
    const stopTimer = [0xb0, 0x30, 0xe6, 0x43] // mov al, 30h; out 43h, al: counter 0 waits for a count
    for (const [code, count] of [[[0xf4], 1], [[...stopTimer, 0xf4], 3]] as const) {
      const { status, stdout } = vitrine('run', '--kernel', multibootKernel('halt', code), '--timeout', '50', '--json')
      const { instructions, ending } = JSON.parse(stdout) as Record<string, unknown>
      assert.deepEqual([status, instructions, ending], [118, count, 'idle'])
    }
  })

  test('so does a guest of the hypervisor', () => {
    const { status, stderr } = vitrine('vmm', '--kernel', multibootKernel('halt', [0xfa, 0xf4]))
    assert.equal(status, 118, stderr)
    assert.match(stderr, /guest1: every processor is halted with interrupts off, for good/)
  })

  describe('bad input is one line and status 2', () => {
    const file = (name: string, bytes: Uint8Array): string => {
      writeFileSync(join(folder, name), bytes)
      return join(folder, name)
    }
    const linux = readFileSync(debianKernel('cloud').image)
    const kernel = ['--kernel', file('vmlinuz', linux)]
    const cases: [string, string[], RegExp][] = [
      ['a text file as kernel', ['--kernel', join(root, 'package.json')], /kernel: expected .*, found a text file/],
      ['an empty kernel', ['--kernel', file('empty', new Uint8Array(0))], /kernel/],
      ['a kernel cut off in its header', ['--kernel', file('cut', linux.subarray(0, 700))], /kernel/],
      ['a kernel cut off in the middle', ['--kernel', file('half', linux.subarray(0, linux.length / 2))], /kernel/],
      ['a RAM disk larger than memory', [...kernel, '--initrd', file('big', new Uint8Array(80 << 20)), '--memory', '64M'], /initrd/],
      ['too little memory for the kernel', [...kernel, '--memory', '16M'], /memory|RAM/],
      ['one MiB of memory', [...kernel, '--memory', '1M'], /--memory '1M'.*at least 2M/],
      ['more memory than a PC has', [...kernel, '--memory', '999999999G'], /memory: expected at most \d+M, found \d+M/],
      ['a state to be saved where no folder is', [...kernel, '--save', join(folder, 'no', 'state')], /cannot write '.*state': no such f/],
      ['code to be kept in a file', [...kernel, '--code-cache', join(folder, 'empty')], /--code-cache '.*empty': .* it is a file/],
      ['no CPU', [...kernel, '--smp', '0'], /--smp '0'/],
      ['an unknown device', [...kernel, '--device', 'pc-testdve'], /'pc-testdve'.*'pc-testdev'/],
      ["a device's unknown property", [...kernel, '--device', 'isa-debug-exit,iobsae=1'], /'iobsae'.*'iobase'/],
      ['an unknown option', [...kernel, '--memroy', '64M'], /'--memroy'.*--memory/],
      ['a missing file', ['--kernel', join(folder, 'nowhere')], /nowhere': no such file/],
      ['a folder as file', ['--kernel', folder], /it is a folder/],
    ]
    for (const [what, args, pattern] of cases) {
      test(what, () => {
        const { status, stdout, stderr } = vitrine('run', ...args)
        assert.match(stderr, pattern)
        assert.match(stderr, /^vitrine: [^\n]+\n$/)
        assert.deepEqual([status, stdout], [2, ''])
      })
    }
  })

  test('a triple fault is told: which instruction, which state, what led there', () => {
    // lidt with a limit of 0, then #UD: neither it, nor the #GP and #DF that follow, have a gate.
    const { status, stderr } = vitrine('run', '--kernel', multibootKernel('triple', [0x0f, 0x01, 0x1d, 0x40, 0, 0x10, 0, 0x0f, 0x0b]))
    assert.equal(status, 120)
    assert.match(stderr, /triple fault after 1 instruction\n/)
    assert.match(stderr, /rip 0000000000100027[^]*exception vector 6 #UD at rip 0000000000100027/)
    assert.match(stderr, /the IDT \(limit 0000\) has no entry 6[^]*0f 0b +ud2/)
  })
})

function processesWith(argument: string): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => commandOf(pid).includes(argument))
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}
