/** Runs the guest of guest.ts on Vitrine and on Bochs (Debian's package), and gives the lines that it wrote. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMachine } from '../../src/machine.ts'
import { bootRom } from '../lockstep/rom.ts'
import { origin, place, type Guest } from './guest.ts'

const MiB = 2 ** 20

export function onVitrine({ image, start }: Guest, cpu: string, engine: 'jit' | 'interpreter' = 'jit'): string[] {
  const machine = createMachine({ memory: 64 * MiB, raw: { image, at: origin, mode: 'long64' }, cpu: { model: cpu }, engine, noReboot: true,
    devices: [{ name: 'isa-debugcon', properties: { iobase: '0xe9' } }] })
  for (const { address, bytes } of start.memory) if (address === place.pages) machine.writePhysical(address, bytes)
  const bytes: number[] = []
  machine.onDebugOutput = byte => bytes.push(byte)
  const isDone = (): boolean => bytes.at(-1) === 10 && bytes.at(-2) === 0x44
  for (let slices = 0; slices < 400 && !isDone(); slices++) if (machine.run({ maxInstructions: 1_000_000 }).kind !== 'budget') break
  return linesOf(Buffer.from(bytes).toString('latin1'))
}

const linesOf = (text: string): string[] => text.split('\n').filter(line => /^[MFIXED]\b/.test(line))

/** Bochs user manual, "The configuration file bochsrc". Debian's Bochs starts in its debugger: "c" lets it go. */
export async function onBochs(guest: Guest, cpu: string, seconds = 60): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-bochs-'))
  const file = (name: string): string => join(folder, name)
  try {
    writeFileSync(file('rom'), bootRom(guest.start, true))
    writeFileSync(file('bochsrc'), [
      'megs: 64', `cpu: model=${cpu}, ips=200000000, reset_on_triple_fault=0`, 'clock: sync=none', `romimage: file=${file('rom')}`,
      'vgaromimage: file=/usr/share/vgabios/vgabios.bin', 'display_library: rfb, options="timeout=0"', 'plugin_ctrl: speaker=0',
      'sound: waveoutdrv=dummy', 'port_e9_hack: enabled=1', 'panic: action=report', 'error: action=ignore', `log: ${file('log')}`, '',
    ].join('\n'))
    return linesOf(await spoken(['-c', 'echo c | exec bochs -q -f "$1" 2>/dev/null', 'sh', file('bochsrc')], seconds))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function spoken(args: readonly string[], seconds: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'sh', ...args], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
    const chunks: Buffer[] = []
    const end = (): void => {
      clearTimeout(timer)
      clearTimeout(silence)
      try { process.kill(-child.pid!, 'SIGKILL') } catch { /* it has ended by itself */ }
      resolve(Buffer.concat(chunks).toString('latin1'))
    }
    const timer = setTimeout(end, seconds * 1000)
    // when it has begun to speak, silence is its end
    let silence: NodeJS.Timeout | undefined
    child.stdout.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      clearTimeout(silence)
      silence = setTimeout(end, 5000)
      if (Buffer.concat(chunks.slice(-2)).includes('\nD\n')) end()
    })
    child.once('error', reject)
    child.once('close', end)
  })
}
