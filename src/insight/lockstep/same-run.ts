/**
 * Where two runs of the same inputs part. Runs are made again from their start, with pauses between which nobody looks: a run that parts
 * only when it is left alone is caught all the same. What is different about the two - engine, pauses, when code is compiled - is the
 * caller's matter.
 */

/** What is seen of a run where it stands: registers, counts, times, by name. */
export type Look = Readonly<Record<string, bigint | number | string>>

/** A run, from its start on. */
export interface Run {
  /** Runs to a virtual time. False: it has come to its end. */
  to(time: number): boolean
  look(): Look
}

export interface RunParting {
  /** Virtual times: the same at `from`, or at the start, and no more at `to`. */
  readonly from: number
  readonly to: number
  readonly left: Look
  readonly right: Look
  /** Names in which they differ. */
  readonly differences: readonly string[]
  /** Pauses with which it happens. */
  readonly pauses: readonly number[]
}

/** In how many parts a stretch is looked at: a pause too many may heal what it looks for, then fewer are tried. */
const parts = [16, 4, 2] as const

/** Runs both to the end, or to the last pause, and then again and again to where they part. `finest`: nanoseconds that are near enough. */
export function whereRunsPart(
  left: () => Run, right: () => Run, pauses: readonly number[], finest = 16, onProgress: (found: RunParting) => void = () => {},
): RunParting | undefined {
  let found = firstDifference(left(), right(), pauses)
  while (found && found.to - found.from > finest) {
    onProgress(found)
    const finer = narrower(left, right, found)
    if (!finer) break
    found = finer
  }
  return found
}

function narrower(left: () => Run, right: () => Run, { from, to, pauses }: RunParting): RunParting | undefined {
  const before = pauses.filter(time => time <= from)
  for (const count of parts) {
    const step = Math.ceil((to - from) / count)
    const within = Array.from({ length: count }, (_, i) => Math.min(to, from + (i + 1) * step))
    const found = firstDifference(left(), right(), [...before, ...new Set(within)])
    if (found && found.to - found.from < to - from) return found
  }
  return undefined
}

/** Runs both from pause to pause. */
function firstDifference(left: Run, right: Run, pauses: readonly number[]): RunParting | undefined {
  let from = 0
  for (const [i, to] of pauses.entries()) {
    const goOn = [left.to(to), right.to(to)]
    const [a, b] = [left.look(), right.look()]
    const differences = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(name => a[name] !== b[name])
    if (goOn[0] !== goOn[1]) differences.push('end')
    if (differences.length > 0) return { from, to, left: a, right: b, differences, pauses: pauses.slice(0, i + 1) }
    if (!goOn[0]) return undefined
    from = to
  }
  return undefined
}

/** A line for the time, and one for each name in which they differ. */
export function formatRunParting({ from, to, left, right, differences }: RunParting, names: { left: string; right: string }): string {
  const show = (value: Look[string] | undefined): string => (typeof value === 'bigint' ? value.toString(16) : String(value))
  const rows = differences.map(name => `  ${name}: ${show(left[name])} | ${show(right[name])}`)
  return [`${names.left} | ${names.right} part between ${from} and ${to} ns`, ...rows].join('\n')
}
