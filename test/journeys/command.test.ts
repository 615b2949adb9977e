/** The command as people start it: through npx and the launcher, on the real machine. */
import assert from 'node:assert/strict'
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'vitrine-'))
after(() => rmSync(folder, { recursive: true }))

const npx = (...args: string[]): SpawnSyncReturns<string> =>
  spawnSync('npx', ['vitrine', ...args], { cwd: root, encoding: 'utf8', timeout: 60_000 })
const vitrine = (...args: string[]): SpawnSyncReturns<string> =>
  spawnSync(join(root, 'bin/vitrine.js'), args, { cwd: folder, encoding: 'utf8', timeout: 60_000, input: '' })

/** Multiboot 1: a header, and `jmp .` behind it (Multiboot Specification, "OS image format"). */
function spinningKernel(): string {
  const address = 0x100000
  const words = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000) >>> 0, address, address, address + 0x1000, address + 0x1000, address + 0x20]
  const image = new DataView(new ArrayBuffer(0x1000))
  words.forEach((word, i) => image.setUint32(4 * i, word, true))
  image.setUint16(0x20, 0xfeeb, true)
  const file = join(folder, 'spin.elf')
  writeFileSync(file, new Uint8Array(image.buffer))
  return file
}

describe('npx vitrine', () => {
  test('demo boots a guest and powers it off', () => {
    const { status, stdout } = npx('demo', '--cpu', 'amd')
    assert.match(stdout, /Hello from under the glass[^]*EPYC/)
    assert.equal(status, 0)
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

  test('a kernel that is none is refused in one line', () => {
    const { status, stderr } = vitrine('run', '--kernel', join(root, 'package.json'))
    assert.equal(status, 2)
    assert.match(stderr, /^vitrine: kernel: expected [^\n]*, found a text file[^\n]*\n$/)
  })

  test('a device and its properties are checked, naming the nearest known', () => {
    const kernel = spinningKernel()
    assert.match(vitrine('run', '--kernel', kernel, '--device', 'pc-testdve').stderr, /'pc-testdve'.*'pc-testdev'/)
    assert.match(vitrine('run', '--kernel', kernel, '--device', 'isa-debug-exit,iobsae=1').stderr, /'iobsae'.*'iobase'/)
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
