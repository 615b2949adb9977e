/** The ratios as a picture: one group of bars a workload, on a logarithmic scale around 1. Scalable Vector Graphics (W3C). */
import type { Summary } from './results.ts'

const barHeight = 14
const groupGap = 12
const left = 130
const right = 70
const plotWidth = 560
const top = 64
const palette = ['#2563eb', '#94a3b8', '#c2410c', '#0f766e', '#7c3aed']

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** A bar to the right of 1 means that ours is faster than that emulator. */
export function plot(summary: Summary, caption: string): string {
  const { others, rows, means, names } = summary
  const groups = [...rows.map(({ phase, ratios }) => ({ name: phase, ratios })), { name: 'geometric mean', ratios: means }]
  const values = groups.flatMap(({ ratios }) => [...ratios.values()]).filter(value => Number.isFinite(value) && value > 0)
  const [least, most] = [Math.min(0.5, ...values), Math.max(2, ...values)].map(Math.log2)
  const [low, high] = [Math.floor(least), Math.ceil(most)]
  const x = (ratio: number): number => left + ((Math.log2(ratio) - low) / (high - low)) * plotWidth
  const groupHeight = others.length * barHeight + groupGap
  const bottom = top + groups.length * groupHeight
  const parts: string[] = []
  for (let power = low; power <= high; power++) {
    const [at, label] = [x(2 ** power).toFixed(1), power < 0 ? `1/${2 ** -power}` : String(2 ** power)]
    parts.push(`<line x1="${at}" y1="${top}" x2="${at}" y2="${bottom}" stroke="${power === 0 ? '#111827' : '#e5e7eb'}"/>`)
    parts.push(`<text x="${at}" y="${bottom + 16}" text-anchor="middle" fill="#6b7280">${label}</text>`)
  }
  groups.forEach(({ name, ratios }, group) => {
    const y = top + group * groupHeight + groupGap / 2
    const weight = name === 'geometric mean' ? ' font-weight="bold"' : ''
    const middle = y + (others.length * barHeight) / 2 + 4
    parts.push(`<text x="${left - 8}" y="${middle}" text-anchor="end"${weight}>${escape(name)}</text>`)
    others.forEach((other, i) => parts.push(...bar(ratios.get(other), x, y + i * barHeight, palette[i % palette.length])))
  })
  const legend = others.map((other, i) => {
    const at = left + i * 130
    const text = `<text x="${at + 15}" y="49">${escape(other)} = 1</text>`
    return `<rect x="${at}" y="40" width="10" height="10" fill="${palette[i % palette.length]}"/>${text}`
  })
  const size = `width="${left + plotWidth + right}" height="${bottom + 44}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12">\n` +
    `<rect width="100%" height="100%" fill="#ffffff"/>\n` +
    `<text x="${left}" y="20" font-size="15" font-weight="bold">Speed of ${escape(names[0])} beside others (right of 1: faster)</text>\n` +
    `${[...legend, ...parts].join('\n')}\n<text x="${left}" y="${bottom + 36}" fill="#6b7280">${escape(caption)}</text>\n</svg>\n`
}

function bar(ratio: number | undefined, x: (ratio: number) => number, y: number, colour: string): string[] {
  if (ratio === undefined || !Number.isFinite(ratio) || ratio <= 0) return []
  const [from, to] = [x(Math.min(1, ratio)), x(Math.max(1, ratio))]
  return [
    `<rect x="${from.toFixed(1)}" y="${y}" width="${(to - from).toFixed(1)}" height="${barHeight - 3}" fill="${colour}"/>`,
    `<text x="${(ratio < 1 ? x(1) : to) + 4}" y="${y + barHeight - 4}" font-size="10" fill="#374151">${ratio.toFixed(2)}</text>`,
  ]
}
