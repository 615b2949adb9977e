/**
 * Every instruction that has an intercept bit: with the bit it exits with its code, its next RIP and nothing changed; without it does not.
 * Bits and codes are copied from AMD APM vol. 2, appendices "Layout of VMCB" and "SVM Intercept Exit Codes".
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place } from './hypervisor.ts'

type Row = readonly [name: string, vector: 3 | 4 | 5, bit: number, code: number, bytes: readonly number[]]
const rows: readonly Row[] = [
  ['SIDT', 3, 6, 0x66, [0x0f, 0x01, 0x0f]], ['SGDT', 3, 7, 0x67, [0x0f, 0x01, 0x07]], ['SLDT', 3, 8, 0x68, [0x0f, 0x00, 0xc1]],
  ['STR', 3, 9, 0x69, [0x0f, 0x00, 0xc9]], ['LIDT', 3, 10, 0x6a, [0x0f, 0x01, 0x1f]], ['LGDT', 3, 11, 0x6b, [0x0f, 0x01, 0x17]],
  ['LLDT', 3, 12, 0x6c, [0x0f, 0x00, 0xd1]], ['LTR', 3, 13, 0x6d, [0x0f, 0x00, 0xd9]], ['RDTSC', 3, 14, 0x6e, [0x0f, 0x31]],
  ['RDPMC', 3, 15, 0x6f, [0x0f, 0x33]], ['PUSHF', 3, 16, 0x70, [0x9c]], ['POPF', 3, 17, 0x71, [0x9d]], ['CPUID', 3, 18, 0x72, [0x0f, 0xa2]],
  ['RSM', 3, 19, 0x73, [0x0f, 0xaa]], ['IRET', 3, 20, 0x74, [0x48, 0xcf]], ['INTn', 3, 21, 0x75, [0xcd, 0x21]],
  ['INVD', 3, 22, 0x76, [0x0f, 0x08]], ['PAUSE', 3, 23, 0x77, [0xf3, 0x90]], ['HLT', 3, 24, 0x78, [0xf4]],
  ['INVLPG', 3, 25, 0x79, [0x0f, 0x01, 0x3f]], ['INVLPGA', 3, 26, 0x7a, [0x0f, 0x01, 0xdf]], ['VMMCALL', 4, 1, 0x81, [0x0f, 0x01, 0xd9]],
  ['VMLOAD', 4, 2, 0x82, [0x0f, 0x01, 0xda]], ['VMSAVE', 4, 3, 0x83, [0x0f, 0x01, 0xdb]], ['STGI', 4, 4, 0x84, [0x0f, 0x01, 0xdc]],
  ['CLGI', 4, 5, 0x85, [0x0f, 0x01, 0xdd]], ['RDTSCP', 4, 7, 0x87, [0x0f, 0x01, 0xf9]], ['ICEBP', 4, 8, 0x88, [0xf1]],
  ['WBINVD', 4, 9, 0x89, [0x0f, 0x09]], ['WBNOINVD', 4, 9, 0x89, [0xf3, 0x0f, 0x09]], ['MONITOR', 4, 10, 0x8a, [0x0f, 0x01, 0xc8]],
  ['MWAIT', 4, 11, 0x8b, [0x0f, 0x01, 0xc9]], ['XSETBV', 4, 13, 0x8d, [0x0f, 0x01, 0xd1]],
  ['INVPCID', 5, 2, 0xa2, [0x66, 0x0f, 0x38, 0x82, 0x1f]],
]
const vector = { 3: 'intercepts3', 4: 'intercepts4', 5: 'intercepts5' } as const satisfies Record<number, VmcbFieldName>
const stop = [0xf1] // its exception is intercepted

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const h = createHypervisor('amd,+monitor', jit)
    const { state } = h.core
    const run = (code: readonly number[], setUp: () => void): void => {
      h.restart()
      h.load(place.guest, [...code, ...stop])
      for (const name of ['intercepts3', 'intercepts5'] as const) h.write(name, 0n)
      h.write('intercepts3', 1n << 31n)
      h.write('intercepts4', 1n)
      h.write('exceptionIntercepts', 0xffffffffn)
      h.write('cr4', h.read('cr4') | (1n << 18n))
      h.write('rax', BigInt(place.vmcb + 0x1000))
      Object.assign(state.gpr, { 1: 0n, 2: 0n, 3: 2n, 5: 5n, 6: 6n, 7: 0x50000n })
      h.load(0x50000, new Uint8Array(16).fill(0x5a))
      setUp()
      h.run()
    }
    const memory = (): string => {
      const bytes = new Uint8Array(16)
      h.core.physical.peek(0x50000, bytes)
      return bytes.join()
    }
    for (const [name, number, bit, code, bytes] of rows)
      test(`${name}: exit ${code.toString(16)}h`, () => {
        const field = vector[number]
        run([0x90, ...bytes], () => h.write(field, h.read(field) | (1n << BigInt(bit))))
        assert.equal(h.read('exitCode'), BigInt(code))
        assert.equal(h.read('rip'), BigInt(place.guest + 1))
        assert.equal(h.read('nextRip'), BigInt(place.guest + 1 + bytes.length))
        assert.deepEqual([h.read('rax'), h.read('rsp'), h.read('rflags')], [BigInt(place.vmcb + 0x1000), BigInt(place.guestStack), 2n])
        assert.deepEqual([1, 2, 3, 5, 6, 7].map(i => state.gpr[i]), [0n, 0n, 2n, 5n, 6n, 0x50000n])
        assert.equal(memory(), new Uint8Array(16).fill(0x5a).join())
        assert.deepEqual([h.read('gdtrBase'), h.read('idtrBase'), h.read('interruptState')], [BigInt(place.gdt), BigInt(place.idt), 0n])
        if (name === 'HLT') return // nothing would end it
        run([0x90, ...bytes], () => {})
        assert.notEqual(h.read('exitCode'), BigInt(code))
      })

    for (const write of [0, 1]) {
      for (const cr of [0, 2, 3, 4, 8])
        test(`CR${cr} ${write ? 'write' : 'read'}`, () => {
          const move = cr === 8 ? [0x44, 0x0f, 0x20 + write * 2, 0xc1] : [0x0f, 0x20 + write * 2, 0xc1 | (cr << 3)]
          run(move, () => {
            h.write('crIntercepts', 1n << BigInt(cr + write * 16))
            state.gpr[1] = cr === 0 ? 0x80000031n : cr === 4 ? 0x620n : 0n
          })
          assert.deepEqual([h.read('exitCode'), h.read('exitInfo1')], [BigInt(cr + write * 16), (1n << 63n) | 1n])
          run(move, () => {
            h.write('crIntercepts', 0xffff_ffffn & ~(1n << BigInt(cr + write * 16)))
            state.gpr[1] = cr === 8 ? 0n : h.read(`cr${cr as 0}`)
          })
          assert.equal(h.read('exitCode'), 0x41n)
        })
      for (const dr of [0, 1, 2, 3, 6, 7])
        test(`DR${dr} ${write ? 'write' : 'read'}`, () => {
          const move = [0x0f, 0x21 + write * 2, 0xc1 | (dr << 3)]
          run(move, () => h.write('drIntercepts', 1n << BigInt(dr + write * 16)))
          assert.deepEqual([h.read('exitCode'), h.read('exitInfo1')], [BigInt(0x20 + dr + write * 16), 1n])
          run(move, () => h.write('drIntercepts', 0xffff_ffffn & ~(1n << BigInt(dr + write * 16))))
          assert.equal(h.read('exitCode'), 0x41n)
        })
    }
  })
