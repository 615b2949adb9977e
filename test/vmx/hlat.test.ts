/**
 * Hypervisor-managed linear-address translation, paging-write control and guest-paging verification. Intel SDM vol. 3, "HLAT Paging",
 * "Restart of HLAT Paging", "Page-Fault Exceptions", "EPT Violations", "EPT Misconfigurations".
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit, tertiaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmcall = [0x0f, 0x01, 0xc1]
const loadRdi = [0x48, 0x8b, 0x1f]
const storeRdi = [0x48, 0x89, 0x07]
const quad = (value: number | bigint): number[] => [...new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)]

/** HLAT tables of one page, linear `high`; guest-physical as physical. */
const [level4, level3, level2, level1] = [0x48000, 0x49000, 0x4a000, 0x4b000]
const [lowEpt, dataEpt] = [0x4c000, 0x4d000]
const high = 0xffff800000200000n
/** The guest-physical page, and where it lies. */
const guestPage = 0x200000
const memory = 0x900000
const verify = 1n << 57n
const pagingWrite = 1n << 58n
const restart = 0x800
const eptAccessedDirty = 0x40n

const { hlat, eptPagingWrite, guestPagingVerification } = tertiaryBit

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('SapphireRapids', jit)
    const { write, read, load, core } = hypervisor
    interface Setting {
      readonly controls?: number
      readonly prefix?: bigint
      readonly eptp?: bigint
      /** EPT entries: of the HLAT tables' pages and of the data page. */
      readonly tables?: bigint
      readonly data?: bigint
      /** Changes to what lies in memory. */
      readonly change?: () => void
      readonly address?: bigint
    }
    const launch = (code: readonly number[], setting: Setting = {}): string => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, [...code, ...vmcall])
      for (const table of [level4, level3, level2, level1]) load(table, new Array<number>(4096).fill(0))
      load(memory, quad(0x1122334455667788n))
      load(level4 + 256 * 8, quad(level3 | 3))
      load(level3, quad(level2 | 3))
      load(level2 + 8, quad(level1 | 3))
      load(level1, quad(guestPage | 3))
      load(place.pml4 + 256 * 8, quad(0))
      for (let i = 0; i < 512; i++) {
        const isTable = i * 4096 >= level4 && i * 4096 <= level1
        load(lowEpt + i * 8, quad(BigInt(i * 4096) | (isTable ? (setting.tables ?? 0x37n) : 0x37n)))
      }
      load(dataEpt, quad(BigInt(memory) | (setting.data ?? 0x37n)))
      load(place.eptDirectory, [...quad(lowEpt | 7), ...quad(dataEpt | 7)])
      write('primaryControls', read('primaryControls') | BigInt((primaryBit.secondaryControls | primaryBit.tertiaryControls) >>> 0))
      write('secondaryControls', BigInt(secondaryBit.ept))
      write('tertiaryControls', BigInt(setting.controls ?? hlat))
      write('eptp', BigInt(place.eptPml4) | 0x1en | (setting.eptp ?? 0n))
      write('hlatPointer', BigInt(level4))
      write('hlatPrefixSize', setting.prefix ?? 1n)
      write('guestCr0', read('guestCr0') | 0x10000n)
      write('exceptionBitmap', 1n << 14n)
      setting.change?.()
      hypervisor.unit.translations.invept(undefined)
      Object.assign(core.state.gpr, { 0: 42n, 3: 0n, 7: setting.address ?? high })
      hypervisor.run()
      return reasonName(Number(read('exitReason')))
    }
    const entryAt = (address: number): bigint => hypervisor.unit.readPhysical64(BigInt(address))

    test('addresses with the prefix go through HLATP, others through CR3; accessed and dirty flags are set there', () => {
      assert.equal(launch([...loadRdi, ...storeRdi]), 'vmcall')
      assert.deepEqual([core.state.gpr[3], entryAt(memory)], [0x1122334455667788n, 42n])
      assert.deepEqual([entryAt(level4 + 256 * 8) & 0x60n, entryAt(level1) & 0x60n], [0x20n, 0x60n])
      assert.equal(launch(loadRdi, { address: BigInt(guestPage) }), 'vmcall')
      assert.equal(core.state.gpr[3], 0x1122334455667788n)
      assert.equal(launch(loadRdi, { controls: 0 }), 'exceptionOrNmi')
      assert.equal(read('exitErrorCode'), 0n)
    })
    test('what the tables lack or have reserved is a page fault with bit 7; lack of a right is one without', () => {
      const cases: [number, bigint, readonly number[], bigint][] = [
        [level4 + 256 * 8, 0n, loadRdi, 0x80n], [level1, 0n, storeRdi, 0x82n], [level2 + 8, 1n << 51n | 1n, loadRdi, 0x89n],
        [level1, BigInt(guestPage) | 1n, storeRdi, 3n]]
      for (const [address, entry, code, error] of cases) {
        assert.equal(launch(code, { change: () => load(address, quad(entry)) }), 'exceptionOrNmi')
        assert.deepEqual([read('exitErrorCode'), read('exitQualification')], [error, high])
      }
    })
    test('an entry with bit 11 sends the translation through CR3 from its start', () => {
      for (const table of [level4 + 256 * 8, level3, level2 + 8, level1]) {
        const change = (): void => load(table, quad(entryAt(table) | BigInt(restart)))
        assert.equal(launch(loadRdi, { change }), 'exceptionOrNmi')
        assert.equal(read('exitErrorCode'), 0n)
        // with the same address in CR3's tables, and no right to write left over from the others
        const both = (): void => {
          change()
          load(level4 + 256 * 8, quad(entryAt(level4 + 256 * 8) & ~2n))
          load(place.pml4 + 256 * 8, quad(place.pdpt | 3))
        }
        assert.equal(launch(storeRdi, { change: both }), 'vmcall')
        assert.equal(entryAt(memory), 42n)
      }
    })
    test('without a prefix every address goes through HLATP', () => {
      assert.equal(launch(loadRdi, { prefix: 0n }), 'exceptionOrNmi')
      assert.deepEqual([read('exitErrorCode') & 0x80n, read('exitQualification')], [0x80n, read('guestRip')])
      assert.equal(launch(loadRdi, { prefix: 0n, change: () => load(level4, quad(1 | restart)) }), 'vmcall')
    })
    test('guest paging writes where bit 58 of the EPT entry says so, and software does not', () => {
      const readOnly = { tables: 0x31n, eptp: eptAccessedDirty }
      assert.equal(launch(loadRdi, readOnly), 'eptViolation')
      assert.deepEqual([read('exitQualification') & 0x1ffn, read('guestPhysicalAddress')], [0x8bn, BigInt(level4 + 256 * 8)])
      assert.equal(launch(loadRdi, { ...readOnly, tables: 0x31n | pagingWrite }), 'eptViolation')
      const controls = hlat | eptPagingWrite
      assert.equal(launch(loadRdi, { ...readOnly, controls }), 'eptViolation')
      assert.equal(launch(storeRdi, { ...readOnly, controls, tables: 0x31n | pagingWrite }), 'vmcall')
      assert.equal(entryAt(level1) & 0x60n, 0x60n)
      assert.equal(launch(storeRdi, { ...readOnly, controls, tables: 0x31n | pagingWrite, address: BigInt(level1) }), 'eptViolation')
      assert.equal(read('exitQualification') & 0x183n, 0x182n)
      assert.equal(launch(loadRdi, { controls, data: 0x34n | pagingWrite }), 'eptMisconfiguration')
    })
    test('a page with bit 57 is reached only through paging structures that have bit 58', () => {
      const controls = hlat | eptPagingWrite | guestPagingVerification
      const data = 0x37n | verify
      assert.equal(launch(loadRdi, { controls, data, tables: 0x37n | pagingWrite }), 'vmcall')
      assert.equal(launch(loadRdi, { controls, data }), 'eptViolation')
      assert.deepEqual([read('exitQualification') & 0x81bfn, read('guestPhysicalAddress')], [0x81b9n, BigInt(guestPage)])
      assert.equal(launch(loadRdi, { controls, data, tables: 0x37n | pagingWrite, address: BigInt(guestPage) }), 'eptViolation', 'an alias')
      assert.equal(launch(loadRdi, { controls: hlat | eptPagingWrite, data }), 'vmcall')
    })
  })

test('models have all three since Sapphire Rapids, and prefixes of one bit', () => {
  const { unit } = createHypervisor('SapphireRapids')
  assert.equal(unit.capability(0x492)! & 0xen, 0xen)
  assert.equal((unit.capability(0x48c)! >> 48n) & 63n, 1n)
  assert.equal((createHypervisor('Icelake-Server').unit.capability(0x48c)! >> 48n) & 63n, 0n)
})
