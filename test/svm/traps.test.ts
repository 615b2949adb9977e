/** Exits after a write to a control register or EFER, and HLT that is left alone while an event waits. AMD APM vol. 2, "Layout of VMCB". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exitName } from '../../src/virt/svm/exit-codes.ts'
import { virtualInterrupt } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place, type Hypervisor } from './hypervisor.ts'

const [clts, lmswBx, wrmsr, hlt, sti] = [[0x0f, 0x06], [0x0f, 0x01, 0xf3], [0x0f, 0x30], 0xf4, 0xfb]
const toCr0 = [0x0f, 0x22, 0xc3]
const toCr4 = [0x0f, 0x22, 0xe3]
const toCr8 = [0x44, 0x0f, 0x22, 0xc3]

const launch = (h: Hypervisor, code: readonly number[], setUp: () => void): string => {
  h.restart()
  h.load(place.guest, [...code, hlt])
  setUp()
  h.run()
  return exitName(Number(h.read('exitCode')))
}

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const h = createHypervisor('amd,+idle_hlt', jit)
    const { state } = h.core
    /** Exit, EXITINFO1, and how far RIP has come, with the trap of this bit of the fourth vector. */
    const trap = (bit: number, code: readonly number[], value: bigint, setUp: () => void = () => {}): [string, bigint, bigint] => {
      const exit = launch(h, code, () => {
        h.write('intercepts4', h.read('intercepts4') | (1n << BigInt(bit)))
        state.gpr[3] = value
        setUp()
      })
      return [exit, h.read('exitInfo1'), h.read('rip') - BigInt(place.guest)]
    }

    test('the trap of a control register comes when it has been written, with its new value', () => {
      assert.deepEqual(trap(16, toCr0, 0x80000039n), ['CR0_WRITE_TRAP', 0x80000039n, 3n])
      assert.equal(h.read('cr0'), 0x80000039n)
      assert.deepEqual(trap(20, toCr4, 0x628n), ['CR4_WRITE_TRAP', 0x628n, 3n])
      const masking = (): void => h.write('virtualInterrupt', BigInt(virtualInterrupt.masking))
      assert.deepEqual(trap(24, toCr8, 5n, masking), ['CR8_WRITE_TRAP', 5n, 4n])
      assert.deepEqual(trap(16, lmswBx, 9n), ['CR0_WRITE_TRAP', 0x80000039n, 3n])
      assert.deepEqual(trap(16, clts, 0n, () => h.write('cr0', 0x80000039n)), ['CR0_WRITE_TRAP', 0x80000031n, 2n])
      assert.deepEqual(trap(17, toCr0, 0x80000039n), ['HLT', 0n, 3n], 'the bit of another register')
    })

    test('that of EFER likewise; other MSRs are written without it', () => {
      const write = (msr: bigint) => (): void => {
        h.write('rax', 0x1501n)
        Object.assign(state.gpr, { 1: msr, 2: 0n })
      }
      assert.deepEqual(trap(15, wrmsr, 0n, write(0xc0000080n)), ['EFER_WRITE_TRAP', 0x1501n, 2n])
      assert.equal(h.read('efer'), 0x1501n)
      assert.deepEqual(trap(15, wrmsr, 0n, write(0xc0000101n))[0], 'HLT')
    })

    test('the intercept of the write and its faults come first', () => {
      assert.deepEqual(trap(16, toCr0, 0x80000039n, () => h.write('crIntercepts', 0x10000n)), ['CR0_WRITE', (1n << 63n) | 3n, 0n])
      assert.equal(h.read('cr0') & 8n, 0n)
      assert.equal(trap(20, toCr4, 1n << 31n, () => h.write('exceptionIntercepts', 1n << 13n))[0], 'EXCP13')
    })

    test('idle HLT exits, in place of HLT\'s own intercept, unless a virtual interrupt waits', () => {
      const idle = (): void => h.write('intercepts5', 1n << 6n)
      assert.equal(launch(h, [hlt], idle), 'IDLE_HLT')
      assert.deepEqual([h.read('exitCode'), h.read('rip'), h.read('nextRip')], [0xa6n, BigInt(place.guest), BigInt(place.guest + 1)])
      assert.equal(launch(h, [sti, hlt], () => {
        idle()
        h.write('intercepts3', h.read('intercepts3') | (1n << 4n))
        h.write('virtualInterrupt', BigInt(virtualInterrupt.irq | (1 << virtualInterrupt.priorityShift)))
      }), 'VINTR')
      assert.equal(h.read('rip'), BigInt(place.guest + 2))
    })
  })

test('processors without them ignore the bits', () => {
  const h = createHypervisor('amd,-v_vmsave_vmload')
  assert.equal(launch(h, clts, () => {
    h.write('intercepts4', h.read('intercepts4') | (1n << 16n))
    h.write('intercepts5', 1n << 6n)
  }), 'HLT')
})
