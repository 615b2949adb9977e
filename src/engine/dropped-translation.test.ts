/**
 * After INVLPG the next instruction is fetched through the tables as they are now. Intel SDM vol. 3, "Invalidation of TLBs and Paging-
 * Structure Caches": the page that the instruction itself lies in may be the one that goes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bareCpu } from './testing.ts'

const table = { top: 0x10000, pointers: 0x11000, directory: 0x12000, pages: 0x13000 } as const
const code = 0x20000
const otherCode = 0x21000
const present = 3

/** Maps the page of code to the other page, INVLPG, then INC RBX; HLT - or, in the other page, INC RCX; HLT. */
function program(counter: 'rbx' | 'rcx', dropped: number): number[] {
  const low = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
  const entry = table.pages + (code >>> 12) * 8
  const increment = [0x48, 0xff, counter === 'rbx' ? 0xc3 : 0xc1]
  return [0x48, 0xc7, 0x04, 0x25, ...low(entry), ...low(otherCode | present), 0x0f, 0x01, 0x3c, 0x25, ...low(dropped), ...increment, 0xf4]
}

function run(dropped: number): { rbx: bigint; rcx: bigint } {
  const { core, cpu } = bareCpu('intel')
  const { state } = cpu
  const write64 = (address: number, value: number): void => {
    core.physical.write(address, new Uint8Array(new Uint32Array([value, 0]).buffer))
  }
  write64(table.top, table.pointers | present)
  write64(table.pointers, table.directory | present)
  write64(table.directory, table.pages | present)
  for (let page = 0; page < 256; page++) write64(table.pages + page * 8, (page << 12) | present)
  core.physical.write(code, Uint8Array.from(program('rbx', dropped)))
  core.physical.write(otherCode, Uint8Array.from(program('rcx', dropped)))
  state.cr0 = 0x80000011n
  state.cr3 = BigInt(table.top)
  state.cr4 = 0x20n
  state.efer = 0x500n
  state.segAttributes[1] = 0xa09b
  state.rip = BigInt(code)
  cpu.stateChanged()
  assert.equal(cpu.execute(0, 10_000), 'halted')
  return { rbx: state.gpr[3], rcx: state.gpr[1] }
}

test('INVLPG of the page that it lies in: what follows comes from where the page is now', () => {
  assert.deepEqual(run(code + 8), { rbx: 0n, rcx: 1n })
})

test('INVLPG of another page: the translation of the page that it lies in is used on', () => {
  assert.deepEqual(run(0x30000), { rbx: 1n, rcx: 0n })
})
