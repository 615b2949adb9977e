/** The interpreter's code is made once for a program and its numbers, and found again; what is damaged or of another program is not. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import type { InterpreterCode } from '../../engine/interpreter.ts'
import { helloGuest } from '../../guests/hello.ts'
import { createMachine } from '../../machine.ts'
import { interpreterStore } from './interpreter-store.ts'
import { programName } from './program.ts'

let folder = ''
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'vitrine-interpreter-')) })
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const code: InterpreterCode = { bytes: Uint8Array.from({ length: 300 }, (_, i) => i * 7), writers: ['MOV base32,gpr32B'] }
/** What a run gets, and whether it had to make it. */
function get(program = 'p', name = 'n', keep = join(folder, 'cache')): { found: InterpreterCode; made: boolean } {
  let made = false
  const found = interpreterStore(keep, program)(name, () => {
    made = true
    return code
  })
  assert.deepEqual({ ...found, bytes: Uint8Array.from(found.bytes) }, code)
  return { found, made }
}

test('it is made once for each program and what else it depends on', () => {
  const made = [['p', 'n'], ['p', 'n'], ['q', 'n'], ['p', 'm'], ['q', 'n'], ['p', 'm'], ['p', 'n']].map(([p, n]) => get(p, n).made)
  assert.deepEqual(made, [true, false, true, true, false, false, false])
  assert.equal(readdirSync(join(folder, 'cache')).length, 3)
})

test('a changed byte anywhere, or a missing end, and it is made anew', () => {
  get()
  const [name] = readdirSync(join(folder, 'cache'))
  const file = join(folder, 'cache', name)
  const whole = readFileSync(file)
  for (let at = 0; at < whole.length; at++) {
    const damaged = Uint8Array.from(whole)
    damaged[at] ^= 1
    writeFileSync(file, damaged)
    assert.equal(get().made, true, `byte ${at}`)
    writeFileSync(file, whole.subarray(0, at))
    assert.equal(get().made, true, `${at} bytes`)
  }
  assert.equal(get().made, false)
})

test('a folder that cannot be is no matter', () => {
  writeFileSync(join(folder, 'file'), '')
  assert.equal(get('p', 'n', join(folder, 'file')).made, true)
  assert.equal(get('p', 'n', join(folder, 'file')).made, true)
})

test('a program has the name of its files: another size, time or path is another program', () => {
  const root = pathToFileURL(`${folder}/`)
  const file = join(folder, 'x.ts')
  const names: string[] = []
  const look = (text: string, time: number, path = file): void => {
    writeFileSync(path, text)
    utimesSync(path, time, time)
    names.push(programName(root))
  }
  look('one', 1)
  look('one', 1)
  look('more', 1)
  look('more', 2)
  look('more', 2, join(folder, 'y.js'))
  look('more', 2, join(folder, 'notes.txt'))
  assert.equal(names[1], names[0])
  assert.equal(names[5], names[4])
  assert.equal(new Set(names).size, 4)
})

test('a machine with kept code runs as one that made it', () => {
  const hashes = [true, false].map(expected => {
    let made = false
    const store = interpreterStore(folder, 'p')
    const machine = createMachine({ raw: helloGuest, memory: 2 << 20, engine: 'interpreter' }, {
      interpreterKeeper: (name, make) => store(name, () => {
        made = true
        return make()
      }),
    })
    assert.equal(made, expected)
    let said = ''
    machine.onSerialOutput = bytes => { said += Buffer.from(bytes).toString() }
    machine.run({ maxInstructions: 1_000_000 })
    assert.notEqual(said, '')
    return `${machine.stateHash()} ${said}`
  })
  assert.equal(hashes[1], hashes[0])
})
