/** A processor that never comes to an instruction boundary. Intel SDM vol. 3, "Other Causes of VM Exits" (notify VM exits). */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmcall = [0x0f, 0x01, 0xc1]
const quad = (value: bigint): number[] => [...new Uint8Array(BigUint64Array.of(value).buffer)]
const [gdt, idt] = [0x48000, 0x49000]
const alignmentCheck = 17
/** User code and data, flat, and an interrupt gate that stays at their privilege. */
const [userCode, userData] = [0x00cffb000000ffffn, 0x00cff3000000ffffn]
const gateTo = (selector: bigint, offset: number): bigint =>
  BigInt(offset & 0xffff) | (selector << 16n) | (0xeen << 40n) | (BigInt(offset >>> 16) << 48n)
const user = { code: 0x0bn, data: 0x13n } as const

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('SapphireRapids', jit)
    const { write, read, load } = hypervisor
    /** A user program in protected mode without paging, whose alignment check is raised again by its own delivery. */
    const launch = (notify: boolean, stack: number): string => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, [0xa1, 0x01, 0x80, 0x04, 0x00, ...vmcall]) // mov eax, [0x48001]
      load(gdt, [...quad(0n), ...quad(userCode), ...quad(userData)])
      load(idt + alignmentCheck * 8, quad(gateTo(user.code, place.guest + 5)))
      write('primaryControls', read('primaryControls') | BigInt(primaryBit.secondaryControls >>> 0))
      const { ept, unrestrictedGuest, notifyExiting } = secondaryBit
      write('secondaryControls', BigInt((ept | unrestrictedGuest | (notify ? notifyExiting : 0)) >>> 0))
      write('eptp', BigInt(place.eptPml4) | 0x1en)
      write('notifyWindow', 1000n)
      write('entryControls', read('entryControls') & ~0x200n)
      write('guestCr0', 0x40031n)
      write('guestCr4', 0x2000n)
      write('guestEfer', 0n)
      write('guestRflags', 0x40002n)
      for (const name of ['Es', 'Ss', 'Ds', 'Fs', 'Gs'] as const) {
        write(`guest${name}Selector`, user.data)
        write(`guest${name}AccessRights`, 0xc0f3n)
      }
      write('guestCsSelector', user.code)
      write('guestCsAccessRights', 0xc0fbn)
      write('guestGdtrBase', BigInt(gdt))
      write('guestGdtrLimit', 0x17n)
      write('guestIdtrBase', BigInt(idt))
      write('guestIdtrLimit', 0xffn)
      write('guestRsp', BigInt(stack))
      hypervisor.run(100_000)
      return reasonName(Number(read('exitReason')))
    }

    test('a delivery that raises its own exception again is left by a notify exit', () => {
      assert.equal(launch(false, place.guestStack), 'vmcall')
      assert.equal(launch(true, place.guestStack), 'vmcall')
      assert.equal(launch(true, place.guestStack + 2), 'notify')
      assert.deepEqual([read('exitQualification'), read('idtVectoring'), read('guestRip')], [0n, 0x80000b11n, BigInt(place.guest)])
    })
    test('without the control it goes on, and time passes', () => {
      launch(false, place.guestStack + 2)
      assert.equal(hypervisor.core.state.guestMode, 1)
      assert.equal(hypervisor.core.state.rip, BigInt(place.guest))
    })
  })
