/** Sessions on a fake machine and a wall clock moved by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Session, type SessionOptions } from './session.ts'
import { FakeMachine } from './testing/fake-machine.ts'

interface World {
  machine: FakeMachine
  session: Session
  /** Milliseconds slept. */
  slept: number
  wall: number
  open: boolean
}

/** Running costs no wall time here, so that sleeping is all there is. `onPause` sees each pause before it ends. */
function world(guest: string, options: SessionOptions = {}, onPause: (world: World) => void = () => {}): World {
  const machine = new FakeMachine({ commandLine: guest })
  const self: World = { machine, session: undefined as unknown as Session, slept: 0, wall: 0, open: true }
  self.session = new Session(machine, {
    wall: () => self.wall,
    inputOpen: () => self.open,
    flush: async () => {},
    async pause(milliseconds) {
      onPause(self)
      const took = Number.isFinite(milliseconds) ? milliseconds : 1000
      self.slept += took
      self.wall += took + 0.01
    },
  }, options)
  return self
}

test('the instruction budget is exact, whatever the slices', async () => {
  const { session, machine } = world('busy', { maxInstructions: 12_345_678 })
  assert.deepEqual(await session.run(), { kind: 'budget' })
  assert.equal(machine.retired, 12_345_678)
  assert.ok(machine.slices > 1)
})

test('a time limit counts wall time', async () => {
  const self = world('busy', { timeoutSeconds: 2 })
  assert.deepEqual(await self.session.run(), { kind: 'timeout' })
  assert.ok(self.wall >= 2000 && self.wall < 2100, `${self.wall} ms`)
})

test('an idle guest that nobody can type to jumps from alarm to alarm without sleeping', async () => {
  const self = world('echo', {}, ({ machine, session }) => { if (machine.now > 3600e9) session.end({ kind: 'left' }) })
  self.open = false
  assert.deepEqual(await self.session.run(), { kind: 'left' })
  assert.equal(self.slept, 0)
})

test('an idle guest at a prompt keeps to wall time and leaves the CPU alone', async () => {
  const self = world('echo', {}, ({ wall, session }) => { if (wall > 60_000) session.end({ kind: 'left' }) })
  await self.session.run()
  assert.ok(self.slept > 55_000, `slept ${self.slept} of ${self.wall} ms`)
  assert.ok(self.machine.now < 63e9, `virtual time ran ahead: ${self.machine.now / 1e9} s in 60 s`)
  assert.ok(self.machine.slices < 60 * 250, `${self.machine.slices} slices in a minute`)
})

test('a guest whose alarms are far apart is looked at ten times a second, and its alarms are on time', async () => {
  const self = world('doze', { realTime: true }, ({ wall, session }) => { if (wall > 60_000) session.end({ kind: 'left' }) })
  await self.session.run()
  assert.ok(self.machine.slices < 60 * 12, `${self.machine.slices} slices in a minute`)
  assert.ok(Math.abs(self.machine.now / 1e6 - self.wall) < 150, `virtual time ${self.machine.now / 1e6} ms at ${self.wall} ms`)
})

test('a busy guest is never put to sleep', async () => {
  const self = world('busy', { maxInstructions: 3e9 })
  await self.session.run()
  assert.equal(self.slept, 0)
})

test('real time holds back a busy guest that is faster than it', async () => {
  const self = world('busy', { realTime: true, maxInstructions: 1e9 })
  await self.session.run()
  assert.ok(self.wall > 900 && self.wall < 1200, `1 s of virtual time took ${self.wall} ms`)
})

test('a suspended computer does not make a real-time guest catch up', async () => {
  let suspended = false
  const self = world('echo', { realTime: true }, current => {
    if (current.wall > 1000 && !suspended) {
      suspended = true
      current.wall += 3_600_000
    }
    if (current.wall > 3_603_000) current.session.end({ kind: 'left' })
  })
  await self.session.run()
  assert.ok(self.machine.now < 5e9, `${self.machine.now / 1e9} s of virtual time`)
})

test('with all CPUs halted for good, a session waits for keys when they may come, else it ends', async () => {
  const waiting = world('halt', {}, ({ wall, session }) => { if (wall > 5000) session.end({ kind: 'left' }) })
  assert.deepEqual(await waiting.session.run(), { kind: 'left' })
  assert.ok(waiting.slept > 4000)
  const alone = world('halt')
  alone.open = false
  assert.deepEqual(await alone.session.run(), { kind: 'idle' })
})

test('the first reason to end wins', async () => {
  const { session } = world('busy')
  session.end({ kind: 'left' })
  session.end({ kind: 'timeout' })
  assert.deepEqual(await session.run(), { kind: 'left' })
})
