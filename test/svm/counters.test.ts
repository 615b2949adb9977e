/** Counters of guests only and of hosts only. AMD APM vol. 2, "Performance Monitoring Counters": HG_ONLY of PERF_CTLx. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readMsr, writeMsr } from '../../src/cpu/msr.ts'
import { createHypervisor, place } from './hypervisor.ts'

const retired = (1n << 22n) | (3n << 16n) | 0xc0n
const guestOnly = 1n << 40n
const hostOnly = 1n << 41n

for (const [engine, h] of [['interpreter', createHypervisor('amd', false)], ['jit', createHypervisor('amd', true)]] as const)
  test(`of VMRUN, two NOPs, VMMCALL that exits, and HLT each counts its own (${engine})`, () => {
    h.restart()
    h.load(place.guest, [0x90, 0x90, 0x0f, 0x01, 0xd9])
    const selects = [retired, retired | guestOnly, retired | hostOnly, retired | guestOnly | hostOnly]
    selects.forEach((value, i) => assert.ok(writeMsr(h.cpu, 0xc0010200 + 2 * i, value)))
    h.run()
    assert.deepEqual(selects.map((_, i) => readMsr(h.cpu, 0xc0010201 + 2 * i)), [4n, 2n, 2n, 4n])
  })
