/** CET in guests of both vendors. Intel SDM vol. 3, "VM Entries", "VM Exits", "EPT Violations"; AMD APM vol. 2, "VMRUN Instruction". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createHypervisor as createSvm, place as svmPlace } from '../svm/hypervisor.ts'
import { createHypervisor as createVmx, place } from '../vmx/hypervisor.ts'
import { enterGuest } from '../../src/virt/vmx/entry.ts'

const cet = 1n << 23n
const wp = 1n << 16n
const shadowStacks = 1n
const endbranch = 4n
/** A page of 2 MiB that is present, accessed and dirty, and not writable: a supervisor's shadow stack. */
const shadowPage = 0x600000
const shadowEntry = BigInt(shadowPage) | 0xe1n
const top = shadowPage + 0x100
const quad = (value: bigint): number[] => [...new Uint8Array(BigUint64Array.of(value).buffer)]
/** CALL over a HLT. */
const call = [0xe8, 1, 0, 0, 0, 0xf4]
const cpuid = [0x0f, 0xa2]
const vmmcall = [0x0f, 0x01, 0xd9]
/** Spoils the return address: POP RCX, INC RCX, PUSH RCX, RET. */
const wrongReturn = [0x59, 0x48, 0xff, 0xc1, 0x51, 0xc3]
const reason = { exception: 0, cpuid: 10, eptViolation: 48 } as const

for (const jit of [false, true])
  describe(jit ? 'VT-x, jit' : 'VT-x, interpreter', () => {
    const h = createVmx('max,+ept_shadow_stack', jit)
    const { read, write, load } = h
    const launch = (code: readonly number[], setUp: () => void = () => {}): bigint => {
      h.restart()
      load(place.directory + 3 * 8, quad(shadowEntry))
      h.core.mmu.flushAll()
      load(place.guest, code)
      load(place.hostExit, [0xf4])
      write('entryControls', read('entryControls') | (1n << 20n))
      write('exitControls', read('exitControls') | (1n << 28n))
      write('guestCr0', read('guestCr0') | wp)
      write('guestCr4', read('guestCr4') | cet)
      write('guestSCet', shadowStacks)
      write('guestSsp', BigInt(top))
      write('guestSspTable', 0x7000n)
      write('hostSsp', 0x1230n)
      setUp()
      enterGuest(h.unit, true)
      h.run()
      return read('exitReason')
    }
    const withEpt = (entry: bigint, bits = 0x9en) => (): void => {
      write('primaryControls', read('primaryControls') | (1n << 31n))
      write('secondaryControls', 2n)
      write('eptp', BigInt(place.eptPml4) | bits)
      load(place.eptDirectory + 3 * 8, quad(entry))
    }

    test('VM entry loads CET state, VM exit saves it and loads the host\'s', () => {
      assert.equal(launch([...call, ...cpuid]), BigInt(reason.cpuid))
      assert.equal(read('guestSsp'), BigInt(top - 8))
      assert.equal(read('guestSCet'), shadowStacks)
      assert.equal(read('guestSspTable'), 0x7000n)
      const { state } = h.core
      assert.deepEqual([state.ssp, state.msrSCet, state.msrSspTable], [0x1230n, 0n, 0n])
      assert.equal(launch(cpuid, () => write('guestSCet', endbranch | 0x800n)), BigInt(reason.exception) | 0x2n, 'triple fault: no IDT')
    })

    test('without the controls a guest has the processor\'s, which is saved all the same', () => {
      launch(cpuid, () => {
        write('entryControls', read('entryControls') & ~(1n << 20n))
        h.core.state.ssp = 0x4560n
      })
      assert.equal(read('guestSsp'), 0x4560n)
    })

    test('#CP is in the exception bitmap and has an error code', () => {
      assert.equal(launch([...call, ...wrongReturn], () => write('exceptionBitmap', 1n << 21n)), BigInt(reason.exception))
      assert.equal(read('exitInterruption'), 0x80000b15n)
      assert.equal(read('exitErrorCode'), 1n)
      assert.equal(read('guestSsp'), BigInt(top - 8))
    })

    test('EPT: supervisor shadow stacks need bit 60 of the page\'s entry, and no right to write there', () => {
      assert.equal(launch([...call, ...cpuid], withEpt(BigInt(shadowPage) | 0xb7n)), BigInt(reason.eptViolation))
      assert.equal(read('exitQualification') & 0x2000n, 0x2000n)
      assert.equal(read('exitQualification') & 0x4000n, 0n)
      assert.equal(read('guestLinearAddress'), BigInt(top - 8))
      assert.equal(launch([...call, ...cpuid], withEpt(BigInt(shadowPage) | 0xb5n | (1n << 60n))), BigInt(reason.cpuid))
      assert.equal(launch([...call, ...cpuid], withEpt(BigInt(shadowPage) | 0xb5n, 0x1en)), BigInt(reason.eptViolation),
        'the control is off, and the right to write decides')
      assert.equal(launch([...call, ...cpuid], withEpt(BigInt(shadowPage) | 0xb7n, 0x1en)), BigInt(reason.cpuid))
    })
  })

for (const jit of [false, true])
  describe(jit ? 'AMD-V, jit' : 'AMD-V, interpreter', () => {
    const h = createSvm('amd', jit)
    const launch = (code: readonly number[], setUp: () => void = () => {}): bigint => {
      h.restart()
      h.load(svmPlace.guest, code)
      h.quad(svmPlace.directory + 3 * 8, shadowEntry)
      h.write('cr0', h.read('cr0') | wp)
      h.write('cr4', h.read('cr4') | cet)
      h.write('sCet', shadowStacks)
      h.write('ssp', BigInt(top))
      h.write('isstAddress', 0x7000n)
      h.core.state.ssp = 0x1230n
      setUp()
      h.run()
      return h.read('exitCode')
    }

    test('VMRUN loads S_CET, SSP and ISST_ADDR, #VMEXIT saves them and takes back the host\'s', () => {
      assert.equal(launch([...call, ...vmmcall]), 0x81n)
      assert.equal(h.read('ssp'), BigInt(top - 8))
      assert.equal(h.read('sCet'), shadowStacks)
      const { state } = h.core
      assert.deepEqual([state.ssp, state.msrSCet, state.msrSspTable], [0x1230n, 0n, 0n])
    })

    test('#CP can be intercepted, with its error code', () => {
      assert.equal(launch([...call, ...wrongReturn], () => h.write('exceptionIntercepts', 1n << 21n)), 0x55n)
      assert.equal(h.read('exitInfo1'), 1n)
    })

    test('a nested page fault of a shadow-stack access says so', () => {
      launch([...call, ...vmmcall], () => h.quad(svmPlace.nestedDirectory + 3 * 8, BigInt(shadowPage) | 0x85n))
      assert.equal(h.read('exitCode'), 0x400n)
      assert.equal(h.read('exitInfo1') & 0xffn, 0x47n)
    })
  })
