/** A page and its worker, joined by cloned messages as in a browser (HTML Standard, "Web workers"), around the fake machine. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InputError } from '../../errors.ts'
import { FakeMachine } from '../testing/fake-machine.ts'
import { WorkerMachine, type WorkerLike } from './index.ts'
import { serveMachine, type WorkerScope } from './worker.ts'

/** Messages arrive later, and as copies. */
function worker(createMachine: Parameters<typeof serveMachine>[1]): WorkerLike {
  const scope: WorkerScope = { onmessage: null, postMessage: message => deliver(page, message) }
  const page: WorkerLike = { onmessage: null, onerror: null, postMessage: message => deliver(scope, message) }
  serveMachine(scope, createMachine)
  return page
}

function deliver<T>(to: { onmessage: ((event: { data: T }) => void) | null }, message: T): void {
  const data = structuredClone(message)
  queueMicrotask(() => to.onmessage?.({ data }))
}

test('a guest hears what the page types, and its end is told', async () => {
  const machine = new WorkerMachine(worker(options => new FakeMachine(options)), { commandLine: 'echo' })
  let output = ''
  machine.onSerialOutput = bytes => { output += Buffer.from(bytes).toString() }
  machine.serialInput(new TextEncoder().encode('hello, poweroff'))
  const { ending, instructions, panic } = await machine.ended
  assert.deepEqual([ending, panic, output], [{ kind: 'power-off' }, undefined, 'hello, poweroff'])
  assert.ok(instructions >= 0)
})

test('leaving ends a busy guest', async () => {
  const machine = new WorkerMachine(worker(options => new FakeMachine(options)), { commandLine: 'busy' })
  machine.onSerialOutput = () => machine.leave()
  assert.deepEqual((await machine.ended).ending, { kind: 'left' })
})

test('bad options are a message, an error of ours has its stack', async () => {
  const bad = new WorkerMachine(worker(() => { throw new InputError('memory: expected at least 2M') }), {})
  await assert.rejects(bad.ended, /^Error: memory: expected at least 2M$/)
  const crash = new WorkerMachine(worker(options => new FakeMachine(options)), { commandLine: 'crash' })
  await assert.rejects(crash.ended, (error: Error) => /a bug[^]*fake-machine/.test(error.stack ?? ''))
})
