/** Monitors of a run: their far ends, and what they do to the session. */
import type { RunRequest } from '../../cli/system.ts'
import type { Machine } from '../../api.ts'
import { humanMonitor, machineMonitor, type Monitor, type MonitoredRun } from '../monitor.ts'
import type { Session } from '../session.ts'
import { openSerialPort } from './serial-port.ts'

export interface OpenMonitors {
  /** Resolves when somebody is at each that the machine has to wait for. */
  ready: Promise<unknown>
  /** There are any: something may still be asked. */
  readonly open: boolean
  close(): Promise<void>
}

/** Throws an InputError that says why one cannot be opened. */
export async function openMonitors(
  { monitors = [], machine: { cpus = 1 }, paused = false }: RunRequest, machine: Machine, session: Session,
): Promise<OpenMonitors> {
  const all: Monitor[] = []
  const ready: Promise<void>[] = []
  const closes: (() => Promise<void>)[] = []
  const run: MonitoredRun & { isPaused: boolean; isQuit: boolean } = {
    machine, cpus, isPaused: paused, isQuit: false, date: () => Date.now(),
    hold(held) {
      if (held === this.isPaused) return
      this.isPaused = held
      session.hold(held)
      for (const monitor of all) monitor.told(held ? 'STOP' : 'RESUME')
    },
    quit() {
      this.isQuit = true
      session.end({ kind: 'left' })
    },
  }
  const changed = (): void => session.wake()
  for (const { target, kind } of monitors) {
    const make = kind === 'qmp' ? machineMonitor : humanMonitor
    if (target === 'stdio') {
      const monitor = make(run, text => { process.stdout.write(text) })
      const onData = (bytes: Uint8Array): void => {
        monitor.take(bytes)
        changed()
      }
      process.stdin.on('data', onData)
      closes.push(async () => { process.stdin.off('data', onData).pause() })
      all.push(monitor)
      monitor.greet()
    } else if (typeof target === 'object') {
      const port = await openSerialPort(target)
      const sent: Promise<void>[] = []
      const monitor = make(run, text => { sent.push(port.write(new TextEncoder().encode(text))) })
      port.onInput = bytes => {
        monitor.take(bytes)
        changed()
      }
      // each client is greeted
      if ('socket' in target && target.listen) port.onArrival = () => monitor.greet()
      else monitor.greet()
      ready.push(port.ready)
      closes.push(async () => {
        await Promise.all(sent)
        port.close()
      })
      all.push(monitor)
    }
  }
  if (paused) session.hold(true)
  return {
    ready: Promise.all(ready), open: all.length > 0,
    async close() {
      for (const monitor of all) monitor.told('SHUTDOWN')
      for (const close of closes) await close()
    },
  }
}
