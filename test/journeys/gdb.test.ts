/** GDB itself on a running command: `--gdb` and QEMU's `-S -gdb`. What GDB prints is the oracle. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { codeAddress, multibootImage } from './multiboot.ts'

const command = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'vitrine-gdb-'))
after(() => rmSync(folder, { recursive: true }))

/** A thousand times round a loop, then status 85 by isa-debug-exit. */
const code = [
  0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
  0xe2, 0xfe, // loop to itself
  0xb0, 0x2a, // mov al, 42
  0xe6, 0xf4, // out 0f4h, al
]
const kernel = join(folder, 'kernel')
writeFileSync(kernel, multibootImage(code))

async function debug(args: string[], socket: string, commands: string[]): Promise<{ printed: string; status: number | null }> {
  const machine = spawn(process.execPath, [command, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(machine, 'close') as Promise<[number | null]>
  for (let i = 0; i < 500 && !existsSync(socket); i++) await wait(20)
  const all = ['set pagination off', 'set confirm off', `target remote ${socket}`, ...commands]
  const gdb = spawn('gdb', ['-nx', '-q', '-batch', ...all.flatMap(each => ['-ex', each])], { stdio: ['ignore', 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [gdb.stdout, gdb.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { printed += text })
  await once(gdb, 'close')
  const [status] = await ended
  return { printed, status }
}

const afterLoop = `*0x${(codeAddress + 7).toString(16)}`
const debugExit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4']

test('run --gdb: nothing runs before GDB says so; a breakpoint, a step, and the end', async () => {
  const socket = join(folder, 'run')
  const args = ['run', '--kernel', kernel, `--gdb=unix:${socket}`, '--device', 'isa-debug-exit,iobase=0xf4', '--timeout', '60']
  const commands = ['p/x $rip', `hbreak ${afterLoop}`, 'continue', 'p $rcx', 'stepi', 'p $rax & 0xff', 'delete', 'continue']
  const { printed, status } = await debug(args, socket, commands)
  assert.match(printed, /\$1 = 0x100020\n[^]*Breakpoint 1, [^]*\$2 = 0\n[^]*\$3 = 42\n[^]*exited with code 0?125/)
  assert.equal(status, 85)
})

test('qemu -S -gdb: detaching lets the machine run on', async () => {
  const socket = join(folder, 'qemu')
  const args = ['qemu', '-kernel', kernel, ...debugExit, '-display', 'none', '-S', '-gdb', `unix:${socket}`]
  const { printed, status } = await debug(args, socket, ['stepi', 'p $ecx', 'detach'])
  assert.match(printed, /\$1 = 1000\n/)
  assert.equal(status, 85)
})
