/** The report of `vitrine vmm` as text: lanes of processors, moments, a migration, exits and sums. */
import type { AssignedReport } from '../vmm/demo/assigned.ts'
import type { DemoMoment, DemoReport } from '../vmm/demo/demo.ts'

const laneWidth = 72
const interesting = 14
const vendors = { intel: 'Intel VT-x', amd: 'AMD-V' } as const

const microseconds = (nanoseconds: number): string => (nanoseconds / 1000).toFixed(1)
const count = (value: number): string => value.toLocaleString('en')
const percent = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(1)} %`

/** What `vitrine vmm` prints of a demonstration. */
export function picture(report: DemoReport): string {
  const { vendor, processors, vcpus, begin, end } = report
  const title = `${vendors[vendor]}, ${processors} processor${processors === 1 ? '' : 's'}`
  const column = microseconds((end - begin) / laneWidth)
  return [
    '',
    `  A hypervisor in TypeScript on ${title}`,
    '',
    ...vcpus.map(({ name, work }) => `    ${letterOf(report, name)}  ${name.padEnd(8)}  ${work}`),
    '',
    `  Who was in a guest, from ${microseconds(begin)} to ${microseconds(end)} µs; a column is ${column} µs`,
    '',
    ...report.lanes.map((_, processor) => `    processor ${processor}  ${lane(report, processor)}`),
    '',
    ...moments(report),
    ...migration(report.migration),
    ...exits(report),
    ...sums(report),
    '',
  ].map(line => `${line.trimEnd()}\n`).join('')
}

/** A guest that owns a device: chapter by chapter, who said what. */
export function journey({ device, copied, interrupts, chapters }: AssignedReport): string {
  const parts = chapters.flatMap(({ title, lines, exits }) => {
    const counts = Object.entries(exits).map(([kind, number]) => `${kind} ${number}`).join(', ')
    const ended = `    exits of the guest: ${counts} (the hypercall ends the chapter)`
    return [`  ${title}.`, '', ...lines.map(each => `    ${each}`), '', ended, '']
  })
  const result = `  The copy is ${copied ? 'right' : 'WRONG'}; the guest has counted ${interrupts} interrupts.`
  return ['', `  The edu device, ${device}, belongs to a guest`, '', ...parts, result, ''].map(each => `${each.trimEnd()}\n`).join('')
}

const letterOf = ({ vcpus }: DemoReport, name: string): string => 'ABCDEFGH'[vcpus.findIndex(vcpu => vcpu.name === name)]

/** A column shows who had most of it; a dot: nobody. */
function lane(report: DemoReport, processor: number): string {
  const { begin, end, lanes } = report
  const column = (end - begin) / laneWidth
  const letters = Array.from({ length: laneWidth }, (_, i) => {
    const [from, to] = [begin + i * column, begin + (i + 1) * column]
    const times = new Map<string, number>()
    for (const piece of lanes[processor]) {
      const shared = Math.min(piece.to, to) - Math.max(piece.from, from)
      if (shared > 0) times.set(piece.vcpu, (times.get(piece.vcpu) ?? 0) + shared)
    }
    const [most] = [...times].sort((a, b) => b[1] - a[1])
    return most ? letterOf(report, most[0]) : '.'
  })
  return letters.join('')
}

const line = ({ time, processor, vcpu, text }: DemoMoment, start = 0): string =>
  `    ${`${start ? '+' : ''}${microseconds(time - start)}`.padStart(8)} µs  processor ${processor}  ${vcpu.padEnd(8)}  ${text}`

function moments({ moments: all }: DemoReport): string[] {
  const first = all.slice(0, interesting)
  const last = all.slice(interesting).filter(({ text }) => text === 'has finished')
  const rest = all.length - first.length - last.length
  return ['  What happened first, and last', '', ...first.map(moment => line(moment)),
    `    ${'...'.padStart(8)} ${count(rest)} more like these`,
    ...last.map(moment => line(moment)), '']
}

function migration(steps: readonly DemoMoment[]): string[] {
  if (steps.length === 0) return []
  return [`  A migration, step by step: ${steps[0].vcpu} ${steps[0].text}`, '', ...steps.slice(1).map(step => line(step, steps[0].time)),
    '']
}

function exits({ vcpus }: DemoReport): string[] {
  const rows = vcpus.flatMap(({ name, entries, exits: kinds }) => kinds.map(({ kind, count: times, time }, i) =>
    `    ${(i === 0 ? name : '').padEnd(8)}  ${(i === 0 ? count(entries) : '').padStart(7)}  ${kind.padEnd(12)} ${count(times).padStart(6)}`
    + `  ${(time / times).toFixed(0).padStart(8)}`))
  return ['  Entries, and exits by reason', '', '              entries  exit          times  ns each', ...rows, '']
}

function sums({ vcpus, begin, end, guestTime, hostTime, idleTime, instructions, rootInstructions, seed }: DemoReport): string[] {
  const share = (part: number): string => percent(part, guestTime + hostTime + idleTime)
  const rows = vcpus.map(({ name, guestTime: time, slices, interrupts, migrations, fpuLoads, pagesTouched, said }) =>
    `    ${name.padEnd(8)}  ${microseconds(time).padStart(8)}  ${String(slices).padStart(6)}  ${String(interrupts).padStart(10)}`
    + `  ${String(migrations).padStart(5)}  ${String(fpuLoads).padStart(9)}  ${String(pagesTouched).padStart(5)}  ${said}`)
  return [
    '  What they did', '',
    '              µs in it  slices  interrupts  moves  FPU loads  pages  and what it said', ...rows, '',
    `  Processors were in guests for ${share(guestTime)} of their time, halted for ${share(idleTime)}, in the hypervisor for ${
      share(hostTime)}.`,
    `  ${count(instructions)} instructions, ${count(rootInstructions)} of them the hypervisor's, in ${microseconds(end - begin)} µs:`
    + ` with seed ${seed} always the same.`,
  ]
}
