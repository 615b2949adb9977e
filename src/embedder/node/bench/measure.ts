/** One boot of one emulator, timed from outside by the marker lines on its console. */
import { spawn } from 'node:child_process'
import { type Phase, Markers } from '../../../bench/markers.ts'
import { InputError } from '../../../errors.ts'
import type { Peer, Work } from './peers.ts'

/** Fails when the guest does not come to its end. */
export async function measure(peer: Peer, work: Work, seconds: number): Promise<Map<string, Phase>> {
  const [program, ...args] = peer.command(work)
  const markers = new Markers(performance.now())
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  // The whole group: some peers are a shell with children.
  const stop = (): void => {
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch {
      // Ended by itself.
    }
  }
  const timer = setTimeout(stop, seconds * 1000)
  // In a group of its own it does not hear Ctrl-C: we pass on that we end.
  process.once('exit', stop)
  await new Promise<void>((resolve, reject) => {
    child.on('error', reject).on('close', () => resolve())
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      markers.see(text, performance.now())
      if (markers.done) stop()
    })
  })
  clearTimeout(timer)
  process.off('exit', stop)
  if (!markers.done) throw new InputError(`${peer.name} did not come to its end (${seconds} s); last on its console:\n${markers.tail}`)
  return markers.phases
}
