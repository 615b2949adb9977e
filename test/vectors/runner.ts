/**
 * Runs instruction vectors through an engine and compares under the masks of what the manuals define.
 * An engine sees one vector at a time: load `before`, execute one instruction, return the state or the fault.
 */
import { readdirSync } from 'node:fs'
import { isFault } from './format.ts'
import type { Fault, Vector } from './format.ts'
import type { State } from './state.ts'

export interface VectorEngine {
  name: string
  /** Why this vector cannot run here (a feature the model lacks, 'no AVX'); undefined when it can. */
  refuses?(vector: Vector): string | undefined
  run(vector: Vector): State | Fault
}

export interface Mismatch {
  vector: Vector
  /** One line a difference: what was expected and what was found. */
  differences: string[]
}

export interface Report {
  engine: string
  passed: number
  failed: Mismatch[]
  /** Reasons of VectorEngine.refuses, and how many vectors each. Never silently dropped. */
  notRun: Map<string, number>
}

const GPR_NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15']
const FLAG_NAMES: [number, string][] = [
  [0, 'CF'], [2, 'PF'], [4, 'AF'], [6, 'ZF'], [7, 'SF'], [8, 'TF'], [9, 'IF'], [10, 'DF'], [11, 'OF'], [14, 'NT'], [18, 'AC'], [21, 'ID'],
]
/** RF is told by the handler's frame only; bits that are no flags are constant. */
const COMPARED_FLAGS = FLAG_NAMES.reduce((sum, [bit]) => sum | (1 << bit), 0)

const hex = (value: bigint | number): string => '0x' + value.toString(16)
const lane = ({ low, high }: { low: bigint; high: bigint }): bigint => low | (high << 64n)

/** Files of a folder of vectors, by group name; by default the recorded ones. */
export function vectorFiles(folder: string = import.meta.dirname + '/data'): { group: string; path: string }[] {
  const files = readdirSync(folder).filter((name) => name.endsWith('.vec'))
  return files.sort().map((name) => ({ group: name.slice(0, -4), path: `${folder}/${name}` }))
}

/** Collects differences of one vector. */
class Differences {
  readonly lines: string[] = []

  check(name: string, expected: bigint | number, actual: bigint | number): void {
    if (expected !== actual) this.lines.push(`${name}: expected ${hex(expected)}, found ${hex(actual)}`)
  }
}

function compareFlags(d: Differences, expected: State, actual: State, mask: number): void {
  const difference = Number(BigInt.asUintN(32, expected.rflags ^ actual.rflags)) & mask & COMPARED_FLAGS
  if (difference === 0) return
  const names = FLAG_NAMES.filter(([bit]) => (difference >> bit) & 1).map(([bit, name]) =>
    `${name} ${(expected.rflags >> BigInt(bit)) & 1n}`)
  d.lines.push(`rflags: expected ${hex(expected.rflags)}, found ${hex(actual.rflags)}: ${names.join(', ')}`)
}

/** Sign and magnitude of floating-point bits as one ordered number: neighbours differ by one. */
function ordered(bits: bigint, width: bigint): bigint {
  const sign = bits >> (width - 1n)
  const magnitude = bits & ((1n << (width - 1n)) - 1n)
  return sign ? -magnitude : magnitude
}

function withinUlps(a: bigint, b: bigint, width: bigint, ulps: bigint): boolean {
  const distance = ordered(a, width) - ordered(b, width)
  return distance <= ulps && distance >= -ulps
}

const EXTENDED = 80n
/** Extended precision has an explicit integer bit: drop it, so that the exponent follows the fraction. */
const withoutIntegerBit = (value: bigint): bigint => ((value >> 64n) << 63n) | (value & 0x7fff_ffff_ffff_ffffn)

function sameExtended(a: bigint, b: bigint): boolean {
  return a === b || withinUlps(withoutIntegerBit(a), withoutIntegerBit(b), EXTENDED - 1n, 1n)
}

/** Both within 1.5 * 2^-12 of the truth: within 3 * 2^-12 of each other; a unit of f32 is 2^-23. */
const APPROXIMATE_ULPS = 3n << 12n

function sameApproximately(a: bigint, b: bigint): boolean {
  for (let at = 0n; at < 128n; at += 32n) {
    if (!withinUlps(BigInt.asUintN(32, a >> at), BigInt.asUintN(32, b >> at), 32n, APPROXIMATE_ULPS)) return false
  }
  return true
}

function compareVectorRegisters(d: Differences, vector: Vector, expected: State, actual: State): void {
  for (let i = 0; i < 16; i++) {
    const [a, b] = [expected.xmm[i], actual.xmm[i]]
    if (a.low === b.low && a.high === b.high) continue
    if (vector.compare === 'approximate' && sameApproximately(lane(a), lane(b))) continue
    d.check(`xmm${i}`, lane(a), lane(b))
  }
  d.check('mxcsr', expected.mxcsr, actual.mxcsr)
  if (!actual.ymmHigh || !expected.ymmHigh) return
  for (let i = 0; i < 16; i++) {
    const [a, b] = [lane(expected.ymmHigh[i]), lane(actual.ymmHigh[i])]
    if (a === b || (vector.compare === 'approximate' && sameApproximately(a, b))) continue
    d.check(`ymm${i} bits 255:128`, a, b)
  }
}

const emptyRegisters = (tag: number): number => tag & (tag >> 1) & 0x5555
const PRECISION_AND_C1 = 0x220

function compareX87(d: Differences, vector: Vector, expected: State, actual: State): void {
  const [a, b] = [expected.x87, actual.x87]
  const inexact = vector.compare === 'ulp' ? PRECISION_AND_C1 : 0
  const mask = vector.masks.x87Status & ~inexact
  d.check('x87 control', a.control, b.control)
  d.check('x87 status', a.status & mask, b.status & mask)
  // A register is valid, zero, special or empty; only "empty" is state, the rest follows from the contents.
  d.check('x87 empty registers', emptyRegisters(a.tag), emptyRegisters(b.tag))
  for (let i = 0; i < 8; i++) {
    if (vector.compare === 'ulp' && sameExtended(a.st[i], b.st[i])) continue
    d.check(`st(${i})`, a.st[i], b.st[i])
  }
}

function compareMemory(d: Differences, vector: Vector, expected: State, actual: State): void {
  if (Buffer.compare(expected.memory, actual.memory) === 0) return
  const ignored = (i: number): boolean => vector.ignoreMemory.some(({ offset, length }) => i >= offset && i < offset + length)
  for (let i = 0; i < expected.memory.length; i++) {
    if (expected.memory[i] !== actual.memory[i] && !ignored(i)) d.check(`window byte ${hex(i)}`, expected.memory[i], actual.memory[i])
    if (d.lines.length > 40) return
  }
}

function compareStates(d: Differences, vector: Vector, expected: State, actual: State): void {
  for (let i = 0; i < 16; i++) {
    if ((vector.masks.gpr >> i) & 1) d.check(GPR_NAMES[i], expected.gpr[i], actual.gpr[i])
  }
  d.check('rip', expected.rip, actual.rip)
  compareFlags(d, expected, actual, vector.flagsMask)
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const) d.check(name, expected.selectors[name], actual.selectors[name])
  compareVectorRegisters(d, vector, expected, actual)
  compareX87(d, vector, expected, actual)
  compareMemory(d, vector, expected, actual)
}

const describeOutcome = (outcome: State | Fault): string =>
  isFault(outcome)
    ? `exception ${outcome.vector}` + (outcome.errorCode === undefined ? '' : `, error code ${hex(outcome.errorCode)}`) +
      (outcome.address === undefined ? '' : `, address ${hex(outcome.address)}`)
    : 'completed'

/** What is wrong with an outcome: one line a difference, none when it is right. */
export function compareOutcome(vector: Vector, actual: State | Fault): string[] {
  const d = new Differences()
  const expected = vector.after
  if (describeOutcome(expected) !== describeOutcome(actual)) {
    return [`expected: ${describeOutcome(expected)}; found: ${describeOutcome(actual)}`]
  }
  compareStates(d, vector, isFault(expected) ? expected.state : expected, isFault(actual) ? actual.state : actual)
  return d.lines
}

/** Runs all vectors. What the engine throws is a bug of ours and stops the run, with the vector named. */
export function runVectors(engine: VectorEngine, vectors: Iterable<Vector>): Report {
  const report: Report = { engine: engine.name, passed: 0, failed: [], notRun: new Map() }
  for (const vector of vectors) {
    const reason = engine.refuses?.(vector)
    if (reason !== undefined) {
      report.notRun.set(reason, (report.notRun.get(reason) ?? 0) + 1)
      continue
    }
    let actual: State | Fault
    try {
      actual = engine.run(vector)
    } catch (error) {
      throw new Error(`${engine.name} threw on ${describeVector(vector)}`, { cause: error })
    }
    const differences = compareOutcome(vector, actual)
    if (differences.length === 0) report.passed++
    else report.failed.push({ vector, differences })
  }
  return report
}

export function describeVector(vector: Vector): string {
  return `${vector.group} #${vector.index} '${vector.text}' (${Buffer.from(vector.code).toString('hex')}, ${vector.mode}-bit)`
}

/** For people: failures by form, one example each. */
export function formatReport(report: Report, examples = 40): string {
  const byForm = new Map<string, Mismatch[]>()
  for (const mismatch of report.failed) {
    const key = `${mismatch.vector.mode} ${mismatch.vector.text}`
    byForm.set(key, [...(byForm.get(key) ?? []), mismatch])
  }
  const lines = [`${report.engine}: ${report.passed} passed, ${report.failed.length} failed in ${byForm.size} forms`]
  for (const [reason, count] of report.notRun) lines.push(`  ${count} not run: ${reason}`)
  for (const mismatches of [...byForm.values()].slice(0, examples)) {
    const { vector, differences } = mismatches[0]
    const b = vector.before
    lines.push(`  ${describeVector(vector)}: ${mismatches.length} failed, for example`)
    lines.push(...differences.slice(0, 4).map((line) => `    ${line}`))
    lines.push(`    before: rflags ${hex(b.rflags)} ` + GPR_NAMES.map((name, i) => `${name} ${hex(b.gpr[i])}`).slice(0, 8).join(' '))
  }
  if (byForm.size > examples) lines.push(`  ... and ${byForm.size - examples} forms more`)
  return lines.join('\n')
}
