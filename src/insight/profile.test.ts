/** Samples sorted into kinds of work, with shares counted by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CpuProfile, namedProfile, placeOf, profileTable, summarizeProfile } from './profile.ts'
import { Symbols } from './symbols.ts'

const symbols = new Symbols([[0xffffffff81000000n, '_text'], [0xffffffff81001000n, 'memcpy']])
const node = (id: number, functionName: string, url: string, hitCount: number): CpuProfile['nodes'][0] =>
  ({ id, callFrame: { functionName, url }, hitCount })
const profile: CpuProfile = {
  startTime: 1_000_000, endTime: 3_000_000,
  nodes: [
    node(1, '(root)', '', 0), node(2, '(idle)', '', 100),
    node(3, 'region ffffffff81001010', 'wasm://wasm/1', 40), node(4, 'region ffffffff81001020', 'wasm://wasm/2', 10),
    node(5, 'region 401234', 'wasm://wasm/2', 10), node(6, 'interpreter', 'wasm://wasm/3', 20),
    node(7, 'cmpxchg16b', 'file:///x/src/helpers/atomic.ts', 10), node(8, 'translate', 'file:///x/dist/mmu/mmu.js', 10),
  ],
}

test('shares are of the time in which something ran', () => {
  const { samples, milliseconds, kinds } = summarizeProfile(profile, symbols)
  assert.deepEqual([samples, milliseconds], [100, 2000])
  assert.deepEqual(kinds.map(({ kind, share }) => [kind, share]), [
    ['generated code', 0.6], ['interpreter', 0.2], ['helpers', 0.1], ['translation', 0.1],
  ])
  assert.deepEqual(kinds[0].places, [{ name: 'memcpy', share: 0.5 }, { name: 'page 0000000000401000', share: 0.1 }])
  const text = profileTable({ samples, milliseconds, kinds })
  assert.match(text, /\(100 samples in 2\.0 s\):\n 60\.0 % {2}generated code\n {10}50\.0 % {2}memcpy\n/)
})

test('every part of the engine has its kind', () => {
  const kindOf = (path: string): string => placeOf({ functionName: 'f', url: `file:///x/src/${path}` }, undefined).kind
  const paths = ['engine/jit/jit.ts', 'engine/cpu.ts', 'devices/serial/uart.ts', 'wasm/function.ts', 'machine.ts', 'cli/run.ts']
  assert.deepEqual(paths.map(kindOf), ['compilation', 'run loop', 'devices', 'compilation', 'run loop', 'outside'])
  assert.deepEqual(placeOf({ functionName: 'POPF o64', url: 'wasm://wasm/1' }, undefined), { kind: 'interpreter', name: 'POPF o64' })
})

test("the exported profile has the guest's names", () => {
  assert.equal(namedProfile(profile, symbols).nodes[2].callFrame.functionName, 'memcpy (generated)')
})
