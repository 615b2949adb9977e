/** The examples do what they say, on both vendors. What is expected is what their guests were written to do. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { copyOnWrite } from '../../examples/copy-on-write.ts'
import { cpuidMasking } from '../../examples/cpuid-masking.ts'
import { helloExit } from '../../examples/hello-exit.ts'
import { hypercalls } from '../../examples/hypercalls.ts'
import { interruptInjection } from '../../examples/interrupt-injection.ts'
import { lazyFpu } from '../../examples/lazy-fpu.ts'
import { migration } from '../../examples/migration.ts'
import { mmioEmulation } from '../../examples/mmio-emulation.ts'
import { permissionTrap } from '../../examples/permission-trap.ts'
import { timerSlice } from '../../examples/timer-slice.ts'

for (const cpu of ['intel', 'amd'] as const) {
  const isIntel = cpu === 'intel'

  test(`hello exit, ${cpu}`, () => {
    const names = isIntel ? ['cpuid', 'io', 'hlt'] : ['CPUID', 'IOIO', 'HLT']
    const kinds = ['cpuid', 'portWrite', 'halt']
    assert.deepEqual(helloExit(cpu), [...kinds.map((kind, i) => `${kind}: the processor calls it ${names[i]}`), 'done'])
  })

  test(`CPUID masking, ${cpu}`, () => {
    assert.deepEqual(cpuidMasking(cpu), { before: true, after: false, name: 'Glases CPU!!' })
  })

  test(`MMIO emulation, ${cpu}`, () => {
    assert.deepEqual(mmioEmulation(cpu), { product: 42n, log: ['write 4 at 0: 6', 'write 4 at 4: 7', 'read 4 at 8'] })
  })

  test(`permission trap, ${cpu}`, () => {
    assert.deepEqual(permissionTrap(cpu), { caught: ['write at 0x80018, mapped', 'write at 0x80020, mapped'], value: 12n })
  })

  test(`copy on write, ${cpu}`, () => {
    const { words, copies, pages, pagesForClone } = copyOnWrite(cpu)
    assert.deepEqual(words, [100n, 123n])
    assert.ok(copies > 0 && copies < pages, `${copies} copies of ${pages} pages`)
    assert.equal(pagesForClone, 3, 'one table a level besides the root, which every guest has')
  })

  test(`timer slice, ${cpu}`, () => {
    const { shares, order, ends } = timerSlice(cpu)
    assert.deepEqual(shares, [25, 75])
    assert.match(order, /^(ab){5,}/)
    assert.ok(ends.includes(isIntel ? 'preemptionTimer' : 'INTR'))
  })

  test(`lazy FPU, ${cpu}`, () => {
    const eager = lazyFpu(cpu, false)
    const lazy = lazyFpu(cpu, true)
    assert.deepEqual([eager.xmm0, lazy.xmm0], [2n ** 40n, 2n ** 40n])
    assert.equal(eager.loads, eager.switches)
    assert.deepEqual([lazy.saves, lazy.loads, lazy.traps], [0, 1, 1])
  })

  test(`migration, ${cpu}`, () => {
    const { steps, sum, wrong } = migration(cpu)
    assert.equal(sum, (500_000n * 500_001n) / 2n)
    const [release, load, enter] = isIntel ? ['VMCLEAR', 'VMPTRLD', 'VMLAUNCH'] : ['VMSAVE', 'VMLOAD', 'VMRUN']
    assert.deepEqual(steps, ['asked 0 → 1', `released 0 by ${release}`, `loaded 1 by ${load}`, `entered 1 by ${enter}`])
    assert.match(wrong[0], isIntel ? /active on processor 0: VMCLEAR it there/ : /in processor 0: VMSAVE there first/)
    // SDM vol. 3, "VM Instruction Error Numbers": 4 is VMLAUNCH with non-clear VMCS
    if (isIntel) assert.match(wrong[1], /VMfailValid, error 4 /)
  })

  test(`interrupt injection, ${cpu}`, () => {
    const { ticks, windows, halts } = interruptInjection(cpu)
    assert.equal(ticks, 5n)
    assert.equal(windows, 1)
    assert.ok(halts >= 4)
  })

  test(`hypercalls, ${cpu}`, () => {
    assert.deepEqual(hypercalls(cpu), { text: 'hi!', goesForward: true })
  })
}
