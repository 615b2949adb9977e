/** The process around a run: its signals, and the death of the npx that started it. */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Ending } from '../session.ts'

const handled = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Ends the session on a signal instead of the process at once, so that output is flushed and the terminal given back. */
export function onSignals(end: (ending: Ending) => void): () => void {
  const listeners = handled.map(signal => {
    const listener = (): void =>
      end(signal === 'SIGHUP' ? { kind: 'left' } : { kind: 'signal', signal, status: 128 + constants.signals[signal] })
    process.on(signal, listener)
    return () => process.off(signal, listener)
  })
  return () => { for (const remove of listeners) remove() }
}

/**
 * Tells whether the program that stands between us and the caller is gone: our launcher, or npx. Killed outright (a CI's time limit),
 * it cannot pass the signal on, and we would run for ever. Started in any other way, we outlive our parent as every program does.
 */
export function watchStarter(): () => boolean {
  const parent = process.ppid
  if (process.env['VITRINE_LAUNCHER'] === String(parent)) return () => process.ppid !== parent
  if (process.env['npm_command'] !== 'exec') return () => false
  // npx starts a shell, which starts us.
  const grandparent = parentOf(parent)
  return () => process.ppid !== parent || (grandparent !== undefined && parentOf(parent) !== grandparent)
}

/** The parent of a process, where /proc tells. */
function parentOf(pid: number): number | undefined {
  return statOf(pid)?.[1]
}

/**
 * Whether this process may use its terminal: one in the background is stopped as soon as it reads from it or changes its settings
 * (POSIX, "General Terminal Interface"). `timeout`, and `&` in a shell, start programs in the background.
 */
export function inForeground(): boolean {
  const stat = statOf(process.pid)
  return stat === undefined || stat[5] === -1 || stat[2] === stat[5]
}

/** Fields of /proc/PID/stat from the state on (proc(5)): [1] the parent, [2] the group, [5] the foreground group of its terminal or -1. */
function statOf(pid: number): number[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name in parentheses may hold anything, so what follows it is counted from its end.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number)
  } catch {
    return undefined
  }
}
