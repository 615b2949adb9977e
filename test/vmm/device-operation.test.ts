/** Instructions other than MOV at the registers of a device. Expected is what the same instructions do to memory. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { mem, type Assembler } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'

const device = 0x10000000
const memory = 0x200000
const source = 0x300ffe
const size = 64

/** Bytes of instructions on [R12 + 8 i], whose flags and results are noted behind R13. */
const operations: readonly (readonly number[])[] = [
  [0x41, 0x01, 0x44, 0x24, 0x00], // add [r12], eax
  [0xf9, 0x49, 0x11, 0x44, 0x24, 0x08], // stc; adc [r12 + 8], rax
  [0x41, 0x80, 0x64, 0x24, 0x10, 0x3c], // and byte [r12 + 16], 3ch
  [0x41, 0x81, 0x4c, 0x24, 0x14, 0x04, 0x03, 0x02, 0x01], // or dword [r12 + 20], 01020304h
  [0x66, 0x41, 0x83, 0x6c, 0x24, 0x18, 0xff], // sub word [r12 + 24], -1
  [0xf0, 0x41, 0x31, 0x44, 0x24, 0x1c], // lock xor [r12 + 28], eax
  [0x41, 0x38, 0x64, 0x24, 0x00], // cmp [r12], spl
  [0x41, 0x3b, 0x44, 0x24, 0x08], // cmp eax, [r12 + 8]
  [0x49, 0x03, 0x44, 0x24, 0x08], // add rax, [r12 + 8]
  [0x41, 0x1a, 0x44, 0x24, 0x10], // sbb al, [r12 + 16]
  [0x41, 0xf6, 0x44, 0x24, 0x14, 0x81], // test byte [r12 + 20], 81h
  [0x41, 0x85, 0x44, 0x24, 0x18], // test [r12 + 24], eax
  [0x49, 0x87, 0x44, 0x24, 0x20], // xchg [r12 + 32], rax
]

/** Does them all at `base`, then REP STOS and REP MOVS there and back; RBX, RCX of the hypercall are never equal by chance. */
const work = (base: number) => (a: Assembler): Assembler => {
  a.mov('r12', base).mov('r13', 0x280000).mov('rax', 0x8123456789abcdefn)
  for (const bytes of operations) {
    a.data(bytes).data([0x9c]).pop('rbx').and('rbx', 0x8c5).store(mem('r13'), 'rbx').store(mem('r13', 8), 'rax').add('r13', 16) // pushfq
  }
  a.mov('rdi', base + 40).mov('rcx', 2).data([0xf3, 0xab]) // rep stosd
  a.mov('rdi', base + 48).mov('rsi', source).mov('rcx', 4).data([0xf3, 0x66, 0xa5]) // rep movsw
  a.mov('rsi', base + 32).mov('rdi', source + 0x1000).mov('rcx', 3).data([0xf3, 0x48, 0xa5]) // rep movsq
  return a.store(mem('r13'), 'rsi').store(mem('r13', 8), 'rdi').op('hlt')
}

function run(cpu: 'intel' | 'amd', paging: 'nested' | 'shadow', base: number): { registers: string; notes: string; copied: string } {
  const registers = Uint8Array.from({ length: size }, (_, i) => (i * 37 + 11) & 0xff)
  const valueAt = (at: number, length: number): bigint =>
    registers.subarray(at, at + length).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
  const vmm = createVmm({
    cpu, paging,
    handlers: {
      mmioRead: exit => ({ value: valueAt(exit.address - device, exit.size) }),
      mmioWrite: exit => {
        for (let i = 0; i < exit.size; i++) registers[exit.address - device + i] = Number((exit.value >> BigInt(i * 8)) & 0xffn)
        return 'done'
      },
      halt: () => 'stop',
    },
  })
  const { guest } = createGuest64(vmm, { memory: 4 << 20, code: work(base) })
  guest.memory.write(memory, registers)
  guest.memory.write(source, Uint8Array.from({ length: 16 }, (_, i) => 200 - i))
  const end = vmm.run()
  assert.equal(end.kind, 'done', end.kind === 'exit' ? end.explanation : '')
  const read = (at: number, length: number): string => {
    const bytes = new Uint8Array(length)
    guest.memory.read(at, bytes)
    return Buffer.from(bytes).toString('hex')
  }
  return {
    registers: base === device ? Buffer.from(registers).toString('hex') : read(memory, size),
    notes: read(0x280000, operations.length * 16), copied: read(source + 0x1000, 24),
  }
}

for (const cpu of ['intel', 'amd'] as const) {
  for (const paging of ['nested', 'shadow'] as const) {
    test(`arithmetic, TEST, XCHG, STOS and MOVS do to a device what they do to memory, ${cpu}, ${paging}`, () => {
      assert.deepEqual(run(cpu, paging, device), run(cpu, paging, memory))
    })
  }
}
