/** The recorded data and the runner themselves: what they say is checked against arithmetic and the manuals, not against our engine. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFault, readHeader, readVectors, writeVectors } from './format.ts'
import type { Fault, Recording, Vector } from './format.ts'
import { compareOutcome, formatReport, runVectors, vectorFiles } from './runner.ts'
import { CODE, copyState, tagOf } from './state.ts'
import type { State } from './state.ts'

const folder = mkdtempSync(join(tmpdir(), 'vectors-test-'))
after(() => rmSync(folder, { recursive: true }))

const fileOf = (group: string): string => {
  const found = vectorFiles().find((file) => file.group === group)
  assert.ok(found, `no file for group '${group}'`)
  return found.path
}

const stateOf = (outcome: State | Fault): State => (isFault(outcome) ? outcome.state : outcome)

test('every file names its processor, and all its bytes are read by its vectors', () => {
  for (const { group, path } of vectorFiles()) {
    const header = readHeader(path)
    assert.equal(header.group, group)
    assert.ok(header.processor.vendor && header.processor.family > 0, group)
    const expected = header.forms.reduce((sum, form) => sum + form.count, 0)
    let count = 0
    for (const vector of readVectors(path)) {
      assert.equal(vector.index, count++)
      assert.ok(vector.code.length > 0 && vector.code.length <= 15, vector.text)
    }
    assert.equal(count, expected, group)
  }
})

test('a file written again reads the same', () => {
  const vectors = [...readVectors(fileOf('legacy32'))]
  const forms: Recording['forms'] = []
  let last = ''
  for (const { before, after: outcome, masks, text, mode, code, features, compare, ignoreMemory } of vectors) {
    if (text !== last) forms.push({ form: { text, mode, code, features, compare, ignoreMemory }, vectors: [] })
    last = text
    forms.at(-1)!.vectors.push({ before, after: outcome, masks })
  }
  const path = join(folder, 'again.vec')
  writeFileSync(path, writeVectors({ group: 'legacy32', processor: readHeader(fileOf('legacy32')).processor, forms }))
  assert.deepEqual([...readVectors(path)].map(({ before, after: outcome }) => [before, outcome]),
    vectors.map(({ before, after: outcome }) => [before, outcome]))
})

/** SDM vol. 1, "Basic Program Execution Registers", EFLAGS: the sum of two operands and a carry, worked out with wide integers. */
function expectAddition(a: bigint, b: bigint, carry: bigint, width: bigint): { result: bigint; flags: bigint } {
  const sign = (value: bigint): bigint => (value >> (width - 1n)) & 1n
  const wide = a + b + carry
  const result = BigInt.asUintN(Number(width), wide)
  let parity = 1n
  for (let bit = 0n; bit < 8n; bit++) parity ^= (result >> bit) & 1n
  const overflow = sign(a) === sign(b) && sign(a) !== sign(result) ? 1n : 0n
  const flags = (wide >> width) | (parity << 2n) | (((a ^ b ^ result) >> 4n) & 1n) << 4n | (result === 0n ? 0x40n : 0n)
    | (sign(result) << 7n) | (overflow << 11n)
  return { result, flags }
}

test('what was recorded for ADD, ADC, SUB and SBB is arithmetic', () => {
  const widths: Record<string, bigint> = { b: 8n, w: 16n, l: 32n, q: 64n }
  const names: Record<string, number> = { al: 0, ax: 0, eax: 0, rax: 0, bl: 3, bx: 3, ebx: 3, rbx: 3, cl: 1, cx: 1, ecx: 1, rcx: 1, dl: 2,
    dx: 2, edx: 2, rdx: 2 }
  let checked = 0
  for (const vector of readVectors(fileOf('arithmetic'))) {
    const [, op, suffix, source, destination] = /^(?:\{load\} )?(add|adc|sub|sbb)([bwlq]) %(\w+), %(\w+)$/.exec(vector.text) ?? []
    if (!op || names[source] === undefined || names[destination] === undefined || isFault(vector.after)) continue
    const width = widths[suffix]
    const low = (state: State, name: string): bigint => BigInt.asUintN(Number(width), state.gpr[names[name]])
    const subtracts = op[0] === 's'
    const b = low(vector.before, source)
    const carryIn = op.endsWith('c') || op === 'sbb' ? vector.before.rflags & 1n : 0n
    const { result, flags } = subtracts
      ? expectAddition(low(vector.before, destination), BigInt.asUintN(Number(width), ~b), 1n - carryIn, width)
      : expectAddition(low(vector.before, destination), b, carryIn, width)
    assert.equal(low(vector.after, destination), result, vector.text)
    // A subtraction's borrows are the complements of this addition's carries.
    const borrow = subtracts ? 0x11n : 0n
    assert.equal(vector.after.rflags & 0x8d5n, flags ^ borrow, `${vector.text} flags`)
    checked++
  }
  assert.ok(checked > 400, `${checked} checked`)
})

test('a page fault leaves RIP at the instruction and tells address and error code', () => {
  let faults = 0
  for (const vector of readVectors(fileOf('move'))) {
    if (!isFault(vector.after) || vector.after.vector !== 14) continue
    assert.equal(vector.after.state.rip, BigInt(CODE))
    assert.equal(vector.after.errorCode! & ~2, 4, 'user mode, not present')
    assert.ok(vector.after.address! >= 0x0ff00000n && vector.after.address! < 0x10010000n, vector.text)
    faults++
  }
  assert.ok(faults > 50)
})

test('the runner passes an engine that answers as recorded and counts what was not run', () => {
  const report = runVectors(
    { name: 'echo', refuses: (vector) => (vector.features.includes('movbe') ? 'no MOVBE' : undefined), run: (vector) => vector.after },
    readVectors(fileOf('bit')),
  )
  assert.equal(report.failed.length, 0)
  assert.ok(report.passed > 1000)
  assert.ok(report.notRun.get('no MOVBE')! > 50)
  assert.match(formatReport(report), /not run: no MOVBE/)
})

/** The recorded outcome with one thing changed. */
function changed(vector: Vector, change: (state: State) => void): State | Fault {
  const state = copyState(stateOf(vector.after))
  change(state)
  return isFault(vector.after) ? { ...vector.after, state } : state
}

test('the runner sees one wrong bit anywhere, and not in what is undefined', () => {
  const shift = [...readVectors(fileOf('shift'))].find(({ after: outcome, flagsMask }) => !isFault(outcome) && (flagsMask & 0x810) === 0)!
  assert.equal(compareOutcome(shift, changed(shift, (state) => (state.rflags ^= 0x810n))).length, 0, 'OF and AF are undefined here')
  const changes: ((state: State) => void)[] = [
    (state) => (state.rflags ^= 0x40n),
    (state) => (state.rflags ^= 0x400n),
    (state) => (state.gpr[11] ^= 1n << 63n),
    (state) => (state.rip += 1n),
    (state) => (state.selectors.ds = 0),
    (state) => (state.xmm[15] = { ...state.xmm[15], high: state.xmm[15].high ^ 1n }),
    (state) => (state.mxcsr ^= 0x20),
    (state) => (state.x87.status ^= 0x4000),
    (state) => (state.x87.st[7] ^= 1n),
    (state) => (state.x87.tag ^= 3),
    (state) => (state.memory[0x1fff] ^= 1),
  ]
  for (const change of changes) assert.equal(compareOutcome(shift, changed(shift, change)).length, 1, String(change))
  assert.match(compareOutcome(shift, { vector: 6, state: shift.before })[0], /expected: completed; found: exception 6/)
})

test('tags follow contents', () => {
  assert.equal(tagOf(0n), 1)
  assert.equal(tagOf(1n << 79n), 1, 'negative zero')
  assert.equal(tagOf((0x3fffn << 64n) | (1n << 63n)), 0)
  assert.equal(tagOf(0x3fffn << 64n), 2, 'unnormal')
  assert.equal(tagOf((0x7fffn << 64n) | (1n << 63n)), 2, 'infinity')
  assert.equal(tagOf(1n), 2, 'denormal')
})
