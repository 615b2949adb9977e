/** Bus-lock detection. Intel SDM vol. 3, "Other Causes of VM Exits" (bus locks), "Basic VM-Exit Information" (bit 26). */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmcall = [0x0f, 0x01, 0xc1]
const quad = (value: number): number[] => [...new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)]
const line = 0x300000
const lockAdd = [0xf0, 0x48, 0x01, 0x07]
const lockAddByte = [0xf0, 0x00, 0x07]
const add = [0x48, 0x01, 0x07]
const exchange = [0x48, 0x87, 0x07]
const lockXadd16 = [0x66, 0xf0, 0x0f, 0xc1, 0x07]

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('SapphireRapids', jit)
    const { write, read, load, core } = hypervisor
    const launch = (code: readonly number[], address: number, controls: number = secondaryBit.busLockDetection, primary = 0): string => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, [...code, ...vmcall])
      load(line, new Array<number>(0x100).fill(0))
      write('primaryControls', read('primaryControls') | BigInt((primaryBit.secondaryControls | primary) >>> 0))
      write('secondaryControls', BigInt(controls))
      write('eptp', BigInt(place.eptPml4) | 0x1en)
      hypervisor.unit.translations.invept(undefined)
      Object.assign(core.state.gpr, { 0: 7n, 7: BigInt(address) })
      hypervisor.run()
      return reasonName(Number(read('exitReason')))
    }

    test('a locked instruction over two cache lines exits once it is done', () => {
      for (const [code, address] of [[lockAdd, line + 0x39], [lockAdd, line + 0x3f], [exchange, line + 0x3c], [lockXadd16, line + 0x7f],
        [lockAdd, line + 0xffc]] as const) {
        assert.equal(launch(code, address), 'busLock')
        assert.deepEqual([read('exitReason'), read('guestRip'), read('exitQualification')], [74n, BigInt(place.guest + code.length), 0n])
        assert.equal(hypervisor.core.physical.bytes[core.physical.pagePlace(address, 0) + (address & 0xfff)], 7)
      }
    })
    test('neither do locked ones within a line, nor others', () => {
      for (const [code, address] of [[lockAdd, line + 0x38], [lockAddByte, line + 0x3f], [add, line + 0x3c],
        [[0x48, 0x87, 0xc3], line]] as const) assert.equal(launch(code, address), 'vmcall')
    })
    test('nor any without the control', () => {
      assert.equal(launch(lockAdd, line + 0x3c, 0), 'vmcall')
      assert.equal(read('exitReason'), 18n)
    })
    test('an exit for another reason after the same instruction says so in bit 26', () => {
      assert.equal(launch(lockAdd, line + 0x3c, secondaryBit.busLockDetection, primaryBit.monitorTrapFlag), 'monitorTrapFlag')
      assert.equal(read('exitReason'), 37n | (1n << 26n))
    })
    test('locked accesses to uncacheable memory, however they lie', () => {
      const both = secondaryBit.ept | secondaryBit.busLockDetection
      assert.equal(launch(lockAdd, line, both), 'vmcall')
      load(place.eptDirectory + 8, quad(0x200000 | 0x87))
      assert.equal(launch(lockAdd, line, both), 'busLock')
      load(place.eptDirectory + 8, quad(0x200000 | 0xb7))
    })
    test('a fault before it is done is none', () => {
      assert.equal(launch([0xf0, 0x48, 0x01, 0x07], 0x1000000 - 4, secondaryBit.busLockDetection), 'tripleFault')
      assert.equal(read('exitReason'), 2n)
    })
  })
test('models have it since Sapphire Rapids', () => {
  assert.equal(createHypervisor('Icelake-Server').unit.offers('secondary', secondaryBit.busLockDetection), false)
})
