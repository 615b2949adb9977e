/** The thread that compiles: what it makes is used, and changes nothing of a run. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createMachine, type VitrineMachine } from '../../machine.ts'
import { CompileThread } from './compile-thread.ts'

const instructions = 20_000_000
const steps = 200

/** For ever: MOV RCX,1000, then a loop of ADD, XOR, ROL, LEA, DEC and JNZ. */
const loop = Uint8Array.from([
  0x48, 0xc7, 0xc1, 0xe8, 3, 0, 0,
  0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0xc1, 0xc2, 7, 0x48, 0x8d, 0x1c, 0x10, 0x48, 0xff, 0xc9, 0x75, 0xed,
  0xeb, 0xe4,
])

const options = { memory: 4 << 20, raw: { image: loop, at: 0x100000, mode: 'long64' as const }, engine: 'jit' as const }

/**
 * Runs the loop to its end, with a turn for other threads after each step; gives what was logged besides.
 * `awaited`: so many of its answers come first.
 */
async function runBeside(background: CompileThread, awaited = 0): Promise<{ machine: VitrineMachine; logged: string[] }> {
  const machine = createMachine(options, { background }) as VitrineMachine
  for (let turn = 0; background.waiting < awaited; turn++) {
    assert.ok(turn < 4000, `${background.waiting} answers came from the thread that compiles, ${awaited} were expected`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  const logged: string[] = []
  machine.onLog = line => logged.push(line)
  for (let step = 0; step < steps; step++) {
    machine.run({ maxInstructions: instructions / steps })
    // the other thread gets its turn where there is one processor, too
    await new Promise(resolve => setTimeout(resolve, machine.core.jit!.statistics.regions === 0 ? 20 : 0))
  }
  return { machine, logged }
}
function runAlone(): string {
  const machine = createMachine(options)
  machine.run({ maxInstructions: instructions })
  return machine.stateHash()
}

test('code that another thread compiles is run, and the run is the same', async () => {
  const { machine, logged } = await runBeside(new CompileThread())
  assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing came back from the thread')
  assert.deepEqual(logged, [])
  assert.equal(machine.stateHash(), runAlone())
})

test('code of an earlier run is run, and a folder that cannot be is no matter', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-code-'))
  try {
    const keep = join(folder, 'code')
    const first = await runBeside(new CompileThread({ keep }))
    assert.ok(first.machine.core.jit!.statistics.modules > 0)
    // the handlers, and which modules there are
    const second = await runBeside(new CompileThread({ keep }), 2)
    const { regions, modules } = second.machine.core.jit!.statistics
    assert.ok(regions > 0, 'nothing was kept')
    assert.equal(modules, 0, 'what was kept was compiled again')
    assert.equal(second.machine.stateHash(), first.machine.stateHash())
    assert.equal(second.machine.stateHash(), runAlone())
    writeFileSync(join(folder, 'file'), '')
    const third = await runBeside(new CompileThread({ keep: join(folder, 'file') }))
    assert.deepEqual([...second.logged, ...third.logged], [])
    assert.ok(third.machine.core.jit!.statistics.modules > 0)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const scriptOf = (text: string): URL => new URL(`data:text/javascript,${encodeURIComponent(text)}`)
const broken: readonly (readonly [string, URL, RegExp])[] = [
  ['cannot be started', new URL('./no-such-worker.ts', import.meta.url), /no-such-worker/],
  ['dies at once', scriptOf("throw new Error('out of threads')"), /out of threads/],
  ['ends in the middle', scriptOf(`
    import { workerData } from 'node:worker_threads'
    workerData.port.on('message', () => process.exit(3))`), /status 3/],
  ['cannot build what it is asked for', scriptOf(`
    import { workerData } from 'node:worker_threads'
    workerData.port.on('message', ({ id }) => {
      workerData.port.postMessage({ id, built: undefined, error: 'CompileError: too large' })
      Atomics.add(workerData.answers, 0, 1)
    })`), /too large/],
]
for (const [what, worker, reason] of broken)
  test(`a machine goes on by itself when the thread that compiles ${what}`, async () => {
    const { machine, logged } = await runBeside(new CompileThread({ worker }))
    assert.equal(logged.length, 1)
    assert.match(logged[0], /the thread that compiles has failed, the machine's own does it now: /)
    assert.match(logged[0], reason)
    assert.ok(machine.core.jit!.statistics.regions > 0, 'the own thread compiled nothing')
    assert.equal(machine.stateHash(), runAlone())
  })
