/**
 * Who goes first where there are fewer processors than threads: the one that runs the machine. Linux's threads have priorities of their own
 * (setpriority(2), "C library/kernel differences"); elsewhere the priority is the process's, and stays.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism, constants, getPriority, setPriority } from 'node:os'

/**
 * Steps of `nice`: each is a fourth more or less of a processor. Those who compile for us get a third of the only one, a tenth of one of
 * several: they find another one, and the machine's own thread is not held up when it wants theirs.
 */
const modest = availableParallelism() === 1 ? 5 : 10

/** V8's own threads, which optimise code and help to collect garbage, as Node names them. */
const helperThread = /V8Worker/

/** 0: the thread that calls. */
const giveWay = (thread: number): void => setPriority(thread, Math.min(getPriority(thread) + modest, constants.priority.PRIORITY_LOW))

/** Called by the thread that runs the machine. */
export function preferThisThread(): void {
  if (process.platform !== 'linux') return
  try {
    for (const thread of readdirSync('/proc/self/task'))
      if (helperThread.test(readFileSync(`/proc/self/task/${thread}/comm`, 'utf8'))) giveWay(Number(thread))
  } catch {
    // no /proc, or a thread that has just ended: it goes without
  }
}

/** Called by a thread that works for the one that runs the machine. */
export function stepBack(): void {
  if (process.platform !== 'linux') return
  try {
    giveWay(0)
  } catch {
    // not allowed here: it goes without
  }
}
