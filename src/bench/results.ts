/** Times of many runs on several emulators: medians, ratios, and the table that shows them. */
import type { Phase } from './markers.ts'

/** By emulator, in the order of the columns: one map of phases a round. The first emulator is ours. */
export type Runs = Map<string, Map<string, Phase>[]>

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

export interface Row {
  phase: string
  /** Median seconds by emulator; NaN where it has none. */
  seconds: Map<string, number>
  /** How many times faster than each other emulator ours is. */
  ratios: Map<string, number>
}

export interface Summary {
  names: string[]
  others: string[]
  rows: Row[]
  /** Geometric means of the ratios. */
  means: Map<string, number>
}

export function summarize(runs: Runs): Summary {
  const names = [...runs.keys()]
  const others = names.slice(1)
  const phases = [...new Set([...runs.values()].flat().flatMap(run => [...run.keys()]))]
  const rows = phases.map((phase): Row => {
    const seconds = new Map(names.map(name => [name, median(runs.get(name)!.flatMap(run => run.get(phase)?.seconds ?? []))]))
    return { phase, seconds, ratios: new Map(others.map(name => [name, seconds.get(name)! / seconds.get(names[0])!])) }
  })
  const meanOf = (name: string): number => {
    const all = rows.map(row => row.ratios.get(name)!).filter(Number.isFinite)
    return Math.exp(all.reduce((sum, value) => sum + Math.log(value), 0) / all.length)
  }
  return { names, others, rows, means: new Map(others.map(name => [name, meanOf(name)])) }
}

const figure = (value: number): string => (Number.isFinite(value) ? value.toFixed(2) : '-')

/** As Markdown. */
export function table({ names, others, rows, means }: Summary): string {
  const head = ['phase', ...names.map(name => `${name} (s)`), ...others.map(other => `${other} / ${names[0]}`)]
  const lines = rows.map(({ phase, seconds, ratios }) => [phase, ...[...seconds.values()].map(figure), ...[...ratios.values()].map(figure)])
  const last = ['geometric mean', ...names.map(() => ''), ...[...means.values()].map(figure)]
  return [head, head.map(() => '---'), ...lines, ...(others.length > 0 ? [last] : [])].map(row => `| ${row.join(' | ')} |`).join('\n')
}

/** The same for a terminal: columns in line. */
export function alignedTable(markdown: string): string {
  const rows = markdown.split('\n').map(line => line.slice(2, -2).split(' | '))
  const widths = rows[0].map((_, column) => Math.max(...rows.map(row => row[column].length)))
  const lineOf = (row: string[]): string => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ')
  return rows.map((row, i) => (i === 1 ? widths.map(width => '-'.repeat(width)).join('  ') : lineOf(row).trimEnd())).join('\n')
}

/** Every emulator must have computed the same. */
export function disagreements(runs: Runs): string[] {
  const checks = new Map<string, Map<string, string>>()
  for (const [peer, all] of runs) {
    for (const run of all) {
      for (const [phase, { check }] of run) {
        const seen = checks.get(phase) ?? new Map<string, string>()
        checks.set(phase, seen.set(check, peer))
      }
    }
  }
  return [...checks].filter(([, seen]) => seen.size > 1)
    .map(([phase, seen]) => `${phase}: ${[...seen].map(([check, peer]) => `${peer} says ${check}`).join(', ')}`)
}
