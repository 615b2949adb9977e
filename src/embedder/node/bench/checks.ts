/** What a person notices besides speed: how soon it starts, what memory it takes, and what it costs while the guest waits. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { median } from '../../../bench/results.ts'
import { type LinuxWork, vitrineCommand } from './peers.ts'

const startRuns = 5
const idleSeconds = 10
/** USER_HZ of Linux: proc(5), /proc/[pid]/stat. */
const ticksPerSecond = 100

export async function runChecks(work: LinuxWork, progress: (text: string) => void): Promise<string[]> {
  progress('time to the first instruction')
  const first = await firstInstruction(work.scratch)
  progress('memory after a boot')
  const { touched, resident } = await memory(work)
  const lines = [
    `First guest instruction: ${first.toFixed(0)} ms after the start of the command (median of ${startRuns}).`,
    `Memory after a boot with nothing kept from earlier runs, in MiB: ${mebibytes(touched)} of the machine's RAM, and `
      + `${mebibytes(resident - touched)} beyond it; kept code makes it less.`,
  ]
  if (process.platform !== 'linux') return lines
  progress('processor time at a prompt')
  const share = await idleShare(work)
  return [...lines, `At a prompt with --real-time: ${(share * 100).toFixed(1)} % of a core.`]
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(0)

/** A multiboot kernel (Multiboot Specification, "OS image format") whose first instructions send one byte to COM1. */
function oneByteKernel(): Uint8Array {
  const address = 0x100000
  const code = [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x21, 0xee, 0x66, 0xba, 0xf4, 0x00, 0xee] // mov dx, 3f8h; mov al, '!'; out dx, al; to 0f4h
  const words = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000) >>> 0, address, address, address + 0x1000, address + 0x1000, address + 0x20]
  const image = new DataView(new ArrayBuffer(0x1000))
  words.forEach((word, i) => image.setUint32(4 * i, word, true))
  code.forEach((byte, i) => image.setUint8(0x20 + i, byte))
  return new Uint8Array(image.buffer)
}

async function firstInstruction(scratch: string): Promise<number> {
  const kernel = join(scratch, 'first')
  writeFileSync(kernel, oneByteKernel())
  const times: number[] = []
  const [node, program] = vitrineCommand
  for (let run = 0; run <= startRuns; run++) {
    const started = performance.now()
    const args = ['run', '--quiet', '--kernel', kernel, '--device', 'isa-debug-exit,iobase=0xf4', '--memory', '64M']
    const child = spawn(node, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.once('data', () => times.push(performance.now() - started))
    await once(child, 'close')
  }
  // The first one fills caches.
  return median(times.slice(1))
}

async function memory({ kernel, initrd, append, scratch }: LinuxWork): Promise<{ touched: number; resident: number }> {
  const [node, program] = vitrineCommand
  const files = ['--kernel', kernel, '--initrd', initrd, '--append', append.replace(/run=\S*/, '')]
  const cache = join(scratch, 'no-code-yet')
  const args = ['run', '--json', '--quiet', '--memory', '1024M', '--code-cache', cache, ...files]
  const child = spawn(node, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => { text += part })
  await once(child, 'close')
  const { resources } = JSON.parse(text) as { resources: { touchedMemory: number; residentMemory: number } }
  return { touched: resources.touchedMemory, resident: resources.residentMemory }
}

/** Of a shell that nobody types into. */
async function idleShare({ kernel, initrd, append }: LinuxWork): Promise<number> {
  const [node, program] = vitrineCommand
  const files = ['--kernel', kernel, '--initrd', initrd, '--append', append.replace(/run=\S*/, 'run=shell')]
  const child = spawn(node, [program, 'run', '--quiet', '--real-time', ...files], { stdio: ['pipe', 'pipe', 'inherit'] })
  const stop = (): void => { child.kill('SIGKILL') }
  process.once('exit', stop)
  try {
    await new Promise<void>((resolve, reject) => {
      let console = ''
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        console += part
        // Busybox's shell asks the terminal where its cursor is.
        if (/[#$] (.\[6n)?$/.test(console)) resolve()
      })
      child.once('close', () => reject(new Error(`the guest ended before its prompt:\n${console.slice(-500)}`)))
    })
    const pause = (seconds: number): Promise<void> => new Promise(resolve => { setTimeout(resolve, seconds * 1000) })
    // Compilation in the background comes to its end.
    await pause(3)
    const before = cpuTicks(child.pid!)
    await pause(idleSeconds)
    return (cpuTicks(child.pid!) - before) / ticksPerSecond / idleSeconds
  } finally {
    stop()
    process.off('exit', stop)
  }
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const words = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(words[11]) + Number(words[12])
}
