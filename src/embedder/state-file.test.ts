/** Tests of the file of a saved machine: what comes out is what went in, and anything else is refused in words. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineState } from '../api.ts'
import { decodeState, encodeState } from './state-file.ts'

const state: MachineState = {
  configuration: '{"cpus":1}',
  cpus: [{ state: Uint8Array.of(1, 2, 3), retired: 5, shadowAt: -1, nmi: false, smi: false, init: true, startup: -1 }],
  tlbs: [{ entries: [[1, 2]] }],
  memory: [{ address: 2 ** 33, bytes: new Uint8Array(1000).fill(7) }, { address: 0, bytes: new Uint8Array(0) }],
  clock: { now: 123, alarms: { 'pit.0': 456 } },
  devices: { uart: { bytes: [7, 8] }, text: 'ä' },
  disks: [{ id: 'd', units: [{ index: 4, bytes: Uint8Array.of(9) }] }],
  turns: { asleep: false, resetRequested: false, last: 0, turnEnd: 0 },
}

test('a state comes back as it was', () => {
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value, (_key, each: unknown) =>
    each instanceof Uint8Array ? [...each] : each))
  assert.deepEqual(plain(decodeState(new Uint8Array(Buffer.concat(encodeState(state))))), plain(state))
})

test('what is no saved machine, or the half of one, is refused', () => {
  const file = Buffer.concat(encodeState(state))
  assert.throws(() => decodeState(new TextEncoder().encode('#!/bin/sh\n')), /expected a saved machine .* found "#!\/bin\/sh"/)
  const later = Buffer.from(file.toString('latin1').replace('state 1', 'state 2'), 'latin1')
  assert.throws(() => decodeState(later), /expected a saved machine .* found "vitrine machine state 2"/)
  const nowhere = Buffer.from(file.toString('latin1').replace('"$bytes":[3,1000]', '"$bytes":[3,-100]'), 'latin1')
  assert.throws(() => decodeState(nowhere), /damaged: expected the place of bytes, found \[3,-100\]$/)
  assert.throws(() => decodeState(file.subarray(0, file.length - 1)), /damaged: it ends early/)
  assert.throws(() => decodeState(file.subarray(0, 25)), /damaged: it ends early/)
  assert.throws(() => decodeState(file.subarray(0, 60)), /damaged: /)
})

test('a state without one of its parts is refused, and says which', () => {
  for (const part of ['configuration', 'cpus', 'tlbs', 'memory', 'clock', 'devices', 'disks', 'turns'] as const) {
    for (const value of [undefined, null, 5, ...(part === 'configuration' ? [] : ['text'])]) {
      const file = Buffer.concat(encodeState({ ...state, [part]: value }))
      assert.throws(() => decodeState(file), { name: 'InputError', message: new RegExp(`damaged: expected its '${part}', found none`) })
    }
  }
})
