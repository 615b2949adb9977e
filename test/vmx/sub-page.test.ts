/** Sub-page write permissions. Intel SDM vol. 3, "Sub-Page Write Permissions", "Exit Qualification for SPP-Related Events". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmcall = [0x0f, 0x01, 0xc1]
const storeRdiRax = [0x48, 0x89, 0x07]
const loadRdi = [0x48, 0x8b, 0x1f]
const quad = (value: number | bigint): number[] => [...new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)]
/** Guest-physical (and linear) page at 2 MiB, and where it lies. */
const page = 0x200000
const memory = 0x900000
const [eptTable, level4, level3, level2, level1] = [0x40000, 0x41000, 0x42000, 0x43000, 0x44000]
const [guestPml4, guestPdpt] = [0x45000, 0x46000]
const readOnlySubPaged = 0x31n | (1n << 61n)

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('Icelake-Server', jit)
    const { write, read, load, core } = hypervisor
    interface Setting { readonly entry?: bigint; readonly permissions?: bigint; readonly break?: () => void; readonly controls?: number }
    const launch = (code: readonly number[], address: number, setting: Setting = {}): string => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, [...code, ...vmcall])
      load(memory, new Array<number>(0x2000).fill(0))
      for (let i = 0; i < 2; i++) load(eptTable + i * 8, quad(BigInt(memory + i * 0x1000) | (setting.entry ?? readOnlySubPaged)))
      load(place.eptDirectory + 8, quad(eptTable | 7))
      load(level4, quad(level3 | 1))
      load(level3, quad(level2 | 1))
      load(level2, [...quad(0), ...quad(level1 | 1)])
      for (let i = 0; i < 2; i++) load(level1 + i * 8, quad(setting.permissions ?? 4n))
      write('primaryControls', read('primaryControls') | BigInt(primaryBit.secondaryControls >>> 0))
      write('secondaryControls', BigInt(setting.controls ?? secondaryBit.ept | secondaryBit.subPageWritePermissions))
      write('eptp', BigInt(place.eptPml4) | 0x1en)
      write('sppTablePointer', BigInt(level4))
      setting.break?.()
      hypervisor.unit.translations.invept(undefined)
      Object.assign(core.state.gpr, { 0: 0x1122334455667788n, 7: BigInt(page + address) })
      hypervisor.run()
      return reasonName(Number(read('exitReason')))
    }
    const stored = (address: number): bigint => hypervisor.unit.readPhysical64(BigInt(memory + address))

    test('the 128 bytes that the table allows are written, and no others', () => {
      assert.equal(launch([...loadRdi, ...storeRdiRax, ...loadRdi], 0x80), 'vmcall')
      assert.deepEqual([stored(0x80), core.state.gpr[3]], [0x1122334455667788n, 0x1122334455667788n])
      assert.equal(launch(storeRdiRax, 0xf8), 'vmcall')
      for (const address of [0, 0x78, 0x100, 0xff8, 0x79, 0xf9]) {
        assert.equal(launch([...loadRdi, ...storeRdiRax], address), 'eptViolation', address.toString(16))
        assert.deepEqual([read('exitQualification') & 0x1ffn, read('guestPhysicalAddress'), stored(address)],
          [0x18an, BigInt(page + address), 0n])
      }
    })
    test('a store after one that was allowed is looked at again', () => {
      const next = [0x48, 0x89, 0x87, 0x80, 0, 0, 0]
      assert.equal(launch([...storeRdiRax, ...storeRdiRax, ...next], 0x80), 'eptViolation')
      assert.equal(read('guestPhysicalAddress'), BigInt(page + 0x100))
    })
    test('a write over two pages needs both', () => {
      assert.equal(launch(storeRdiRax, 0xffc, { permissions: 1n | (1n << 62n) }), 'vmcall')
      assert.equal(stored(0xffc), 0x1122334455667788n)
      assert.equal(launch(storeRdiRax, 0xffc, { permissions: 1n << 62n }), 'eptViolation')
      assert.deepEqual([read('guestPhysicalAddress') & ~0xfffn, stored(0xffc)], [BigInt(page + 0x1000), 0n])
    })
    test('string and locked instructions obey', () => {
      const repStosb = [0xb9, 0x80, 0, 0, 0, 0xf3, 0xaa]
      assert.equal(launch(repStosb, 0x80), 'vmcall')
      assert.equal(launch([0xb9, 0x81, 0, 0, 0, 0xf3, 0xaa], 0x80), 'eptViolation')
      assert.deepEqual([stored(0xf8), core.state.gpr[1]], [0x8888888888888888n, 1n])
      assert.equal(launch([0xf0, 0x48, 0x01, 0x07], 0x80), 'vmcall')
      assert.equal(launch([0xf0, 0x48, 0x01, 0x07], 0x100), 'eptViolation')
    })
    test('without the control, or without bit 61, the page is read-only; with write permission the table is not asked', () => {
      assert.equal(launch(storeRdiRax, 0x80, { controls: secondaryBit.ept }), 'eptViolation')
      assert.equal(launch(storeRdiRax, 0x80, { entry: 0x31n }), 'eptViolation')
      assert.equal(launch(storeRdiRax, 0, { entry: readOnlySubPaged | 2n }), 'vmcall')
    })
    test('a table that is not there is a miss, reserved bits are a misconfiguration: exit 66', () => {
      const cases: [number, bigint, bigint][] = [[level4, 0n, 0x800n], [level3, 0n, 0x800n], [level2 + 8, 0n, 0x800n],
        [level4, BigInt(level3) | 3n, 0n], [level2 + 8, (1n << 63n) | BigInt(level1) | 1n, 0n], [level1, 6n, 0n]]
      for (const [address, entry, qualification] of cases) {
        assert.equal(launch(storeRdiRax, 0x80, { break: () => load(address, quad(entry)) }), 'sppEvent')
        assert.deepEqual([read('exitQualification'), read('guestPhysicalAddress'), read('guestLinearAddress')],
          [qualification, BigInt(page + 0x80), BigInt(page + 0x80)])
      }
    })
    test('dirty flags of the guest\'s own paging structures are no such writes', () => {
      const table = (): void => {
        // the guest has paging structures of its own, whose page directory lies in the page, with its accessed flags clear
        load(guestPml4, quad(guestPdpt | 7))
        load(guestPdpt, quad(page | 7))
        write('guestCr3', BigInt(guestPml4))
        for (let i = 0; i < 8; i++) load(memory + i * 8, quad((i * 0x200000) | 0x87))
      }
      assert.equal(launch(storeRdiRax, 0x80, { permissions: 0x5555555555555555n, break: table }), 'eptViolation')
      assert.equal(read('exitQualification') & 0x102n, 2n)
    })
  })
