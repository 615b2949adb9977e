/** Small guests in both engines: what their instructions, events and memory make of the VMCS, by the manual's words. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reason, reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { groups, primaryBit, secondaryBit } from '../../src/virt/vmx/controls.ts'
import { fieldList, fieldOf, fields, type FieldName } from '../../src/virt/vmx/fields.ts'
import { createHypervisor, place, type Hypervisor } from './hypervisor.ts'

const bytes = {
  cpuid: [0x0f, 0xa2], hlt: [0xf4], vmcall: [0x0f, 0x01, 0xc1], rdmsr: [0x0f, 0x32], ud2: [0x0f, 0x0b], int3: [0xcc], nop: [0x90],
    sti: [0xfb],
  outDx: [0xee], outImmediate: [0xe6, 0x42], insb: [0xf3, 0x6c], movToCr3: [0x0f, 0x22, 0xd8], movFromCr0: [0x0f, 0x20, 0xc0],
  invlpg: [0x0f, 0x01, 0x3b], sgdt: [0x0f, 0x01, 0x45, 0x10], vmlaunch: [0x0f, 0x01, 0xc2], vmresume: [0x0f, 0x01, 0xc3],
  vmreadRbx: [0x0f, 0x78, 0xd8], store: [0x48, 0x89, 0x07], load: [0x48, 0x8b, 0x07], jump: [0xeb, 0xfe], iretq: [0x48, 0xcf],
} as const

const machines = [['interpreter', createHypervisor('max', false)], ['jit', createHypervisor('max', true)]] as const

for (const [engine, hypervisor] of machines)
  describe(engine, () => {
    const { write, read, load, core } = hypervisor
    /** Launches a guest with this code; ends in the host's exit handler, which is HLT. */
    const launch = (code: readonly number[], setUp: (h: Hypervisor) => void = () => {}): string => {
      hypervisor.restart()
      load(place.host, [...bytes.vmlaunch, ...bytes.hlt])
      load(place.hostExit, bytes.hlt)
      load(place.guest, code)
      setUp(hypervisor)
      hypervisor.run()
      return reasonName(Number(read('exitReason')))
    }
    const turnOn = (word: 'primaryControls' | 'secondaryControls' | 'pinControls', bit: number): void => {
      if (word === 'secondaryControls') write('primaryControls', read('primaryControls') | 0x80000000n)
      write(word, read(word) | BigInt(bit >>> 0))
    }
    const withEpt = (): void => {
      turnOn('secondaryControls', secondaryBit.ept)
      write('eptp', BigInt(place.eptPml4) | 0x1en)
    }

    test('CPUID always exits, with its length; RIP stays at it', () => {
      assert.equal(launch([...bytes.nop, ...bytes.cpuid]), 'cpuid')
      assert.equal(read('guestRip'), BigInt(place.guest + 1))
      assert.equal(read('exitInstructionLength'), 2n)
      assert.equal(core.state.guestMode, 0)
      assert.equal(core.state.rip, BigInt(place.hostExit + 1))
    })

    test('HLT halts the guest, or exits with "HLT exiting"', () => {
      assert.equal(launch(bytes.hlt, () => turnOn('primaryControls', primaryBit.hltExiting)), 'hlt')
    })

    test('I/O: port, size, direction and form are in the qualification', () => {
      const exits = (): void => turnOn('primaryControls', primaryBit.unconditionalIoExiting)
      assert.equal(launch(bytes.outDx, h => { exits(); h.core.state.gpr[2] = 0x3f8n }), 'io')
      assert.equal(read('exitQualification'), 0x3f80000n)
      launch(bytes.outImmediate, exits)
      assert.equal(read('exitQualification'), 0x420040n)
    })

    test('the I/O bitmaps decide port by port', () => {
      const setUp = (port: number): void => {
        turnOn('primaryControls', primaryBit.ioBitmaps)
        write('ioBitmapA', BigInt(place.bitmap))
        write('ioBitmapB', BigInt(place.bitmap + 0x1000))
        load(place.bitmap + 0x42 / 8, [1 << (0x42 % 8)])
        core.state.gpr[2] = BigInt(port)
      }
      assert.equal(launch([...bytes.outDx, ...bytes.cpuid], () => setUp(0x42)), 'io')
      assert.equal(launch([...bytes.outDx, ...bytes.cpuid], () => setUp(0x43)), 'cpuid')
    })

    test('the exception bitmap takes exceptions, and #PF by its error code too', () => {
      assert.equal(launch(bytes.ud2, () => write('exceptionBitmap', 1n << 6n)), 'exceptionOrNmi')
      assert.equal(read('exitInterruption'), 0x80000306n)
      assert.equal(launch(bytes.int3, () => write('exceptionBitmap', 1n << 3n)), 'exceptionOrNmi')
      assert.equal(read('exitInterruption'), 0x80000603n)
      assert.equal(read('exitInstructionLength'), 1n)
      const unmapped = (): void => { write('exceptionBitmap', 1n << 14n); core.state.gpr[7] = 0x8000_0000n }
      assert.equal(launch(bytes.load, unmapped), 'exceptionOrNmi')
      assert.equal(read('exitInterruption'), 0x80000b0en)
      assert.equal(read('exitQualification'), 0x8000_0000n)
    })

    test('an exception that cannot be delivered is a triple fault, and #DF has its cause in the vectoring field', () => {
      assert.equal(launch(bytes.ud2), 'tripleFault')
      launch(bytes.ud2, () => write('exceptionBitmap', 1n << 8n))
      assert.equal(read('exitInterruption'), 0x80000b08n)
    })

    test('CR0 is read from the shadow where the mask says so; CR3 loads exit but for targets', () => {
      launch([...bytes.movFromCr0, ...bytes.cpuid], () => { write('cr0Mask', 1n << 5n); write('cr0Shadow', 0n) })
      assert.equal(core.state.gpr[0], 0x80000011n)
      const load3 = (): void => { turnOn('primaryControls', primaryBit.cr3LoadExiting); core.state.gpr[0] = BigInt(place.pml4) }
      assert.equal(launch(bytes.movToCr3, load3), 'controlRegister')
      assert.equal(read('exitQualification'), 3n)
      assert.equal(launch([...bytes.movToCr3, ...bytes.vmcall], () =>
        { load3(); write('cr3TargetCount', 1n); write('cr3Target0', BigInt(place.pml4)) }),
        'vmcall')
    })

    test('SGDT: displacement, base register and identity are recorded', () => {
      assert.equal(launch(bytes.sgdt, () => turnOn('secondaryControls', secondaryBit.descriptorTableExiting)), 'gdtrIdtr')
      assert.equal(read('exitQualification'), 0x10n)
      // scale 0, 64-bit address, SS (base RBP), no index, base 5, SGDT
      assert.equal(read('exitInstructionInformation') & 0xf87f8183n, 0x02c10100n & 0xf87f8183n)
    })

    test('VMX instructions exit in the guest', () => {
      assert.equal(launch(bytes.vmresume), 'vmresume')
      assert.equal(launch(bytes.vmreadRbx), 'vmread')
    })

    test('EPT: a page that is not there is a violation with both addresses, a wrong entry a misconfiguration', () => {
      const at = 0x80_0123
      const setUp = (entry: bigint) => (): void => {
        withEpt()
        load(place.eptDirectory + 4 * 8, [...new Uint8Array(BigUint64Array.of(entry).buffer)])
        core.state.gpr[7] = BigInt(at)
      }
      assert.equal(launch(bytes.store, setUp(0n)), 'eptViolation')
      assert.equal(read('guestPhysicalAddress'), BigInt(at))
      assert.equal(read('guestLinearAddress'), BigInt(at))
      assert.equal(read('exitQualification') & 0x1ffn, 0x182n)
      assert.equal(launch(bytes.store, setUp(0x8000b1n)), 'eptViolation')
      assert.equal(read('exitQualification') & 0x1ffn, 0x18an)
      assert.equal(launch(bytes.store, setUp(0x8000b2n)), 'eptMisconfiguration')
      assert.equal(launch([...bytes.store, ...bytes.vmcall], setUp(0x8000b7n)), 'vmcall')
    })

    test('EPT: a translation that was made stays until INVEPT', () => {
      const setUp = (): void => {
        withEpt()
        turnOn('secondaryControls', secondaryBit.vpid)
        write('vpid', 5n)
        load(place.eptDirectory + 4 * 8, [...new Uint8Array(BigUint64Array.of(0x8000b7n).buffer)])
        core.state.gpr[7] = 0x80_0000n
      }
      assert.equal(launch([...bytes.load, ...bytes.vmcall, ...bytes.load, ...bytes.vmcall], setUp), 'vmcall')
      load(place.eptDirectory + 4 * 8, [0, 0, 0, 0, 0, 0, 0, 0])
      const resume = (): string => {
        write('guestRip', read('guestRip') + read('exitInstructionLength'))
        load(place.host, [...bytes.vmresume, ...bytes.hlt])
        core.state.rip = BigInt(place.host)
        core.state.activity = 0
        hypervisor.run()
        return reasonName(Number(read('exitReason')))
      }
      assert.equal(resume(), 'vmcall')
      hypervisor.unit.translations.invept(undefined)
      write('guestRip', BigInt(place.guest) - 3n)
      assert.equal(resume(), 'eptViolation')
    })

    test('IRET that ends in an EPT violation has unblocked NMIs, and bit 12 of the qualification says so', () => {
      const blocked = (state: bigint) => (): void => {
        withEpt()
        turnOn('pinControls', 0x28)
        write('guestInterruptibility', state)
        write('guestRsp', 0x80_0100n)
        load(place.eptDirectory + 4 * 8, [0, 0, 0, 0, 0, 0, 0, 0])
      }
      assert.equal(launch(bytes.iretq, blocked(8n)), 'eptViolation')
      assert.deepEqual([read('exitQualification') & 0x1001n, read('guestInterruptibility')], [0x1001n, 0n])
      assert.equal(launch(bytes.iretq, blocked(0n)), 'eptViolation')
      assert.equal(read('exitQualification') & 0x1001n, 1n)
      // a #GP for a code selector that is null
      const faults = (): void => { blocked(8n)(); write('guestRsp', 0x70_0000n); write('exceptionBitmap', 1n << 13n) }
      assert.equal(launch(bytes.iretq, faults), 'exceptionOrNmi')
      assert.equal(read('exitInterruption'), 0x80001b0dn)
    })

    test('the APIC-access page: fetches and event delivery have access types of their own', () => {
      const page = 0x70_0000
      const apic = (): void => {
        turnOn('primaryControls', primaryBit.tprShadow)
        turnOn('secondaryControls', secondaryBit.virtualizeApicAccesses)
        write('virtualApicAddress', BigInt(place.virtualApic))
        write('apicAccessAddress', BigInt(page))
      }
      assert.equal(launch(bytes.nop, () => { apic(); write('guestRip', BigInt(page + 0x123)) }), 'apicAccess')
      assert.equal(read('exitQualification'), 0x2123n)
      // a push onto the page while #UD is delivered
      launch(bytes.ud2, () => {
        apic()
        write('guestRsp', BigInt(page + 0x200))
        load(place.idt + 6 * 16, [0, 0, 8, 0, 0, 0x8e, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
      })
      load(place.idt + 6 * 16, Array.from({ length: 16 }, () => 0))
      assert.deepEqual([read('exitReason'), read('exitQualification') >> 12n, read('idtVectoring')], [44n, 3n, 0x80000306n])
    })

    test('an SMI is taken in the guest, outside of VMX operation, and RSM returns into the guest', () => {
      const at = 0x40000
      // what SMM sees of CR4.VMXE; then RSM
      load(at + 0x8000, [0x66, 0x0f, 0x20, 0xe0, 0x66, 0x2e, 0x66, 0xa3, 0x00, 0x70, 0x0f, 0xaa])
      hypervisor.unit.observer = ({ kind }) => { if (kind === 'entry') core.state.pendingSmi = 1 }
      assert.equal(launch([...bytes.jump], () => {
        turnOn('pinControls', 0x40)
        write('preemptionTimer', 100_000n)
        load(at + 0x7000, [0xff, 0xff, 0xff, 0xff])
        core.state.smbase = BigInt(at)
      }), 'preemptionTimer')
      hypervisor.unit.observer = undefined
      assert.equal(hypervisor.unit.readPhysical32(BigInt(at + 0x7000)), 0)
      assert.deepEqual([core.state.pendingSmi, core.state.vmxFlags & 1, read('guestRip')], [0, 1, BigInt(place.guest)])
    })

    test('the preemption timer ends an endless guest, at an exact time', () => {
      assert.equal(launch(bytes.jump, () => { turnOn('pinControls', 0x40); write('preemptionTimer', 1000n) }), 'preemptionTimer')
    })

    test('the monitor trap flag exits after one instruction', () => {
      assert.equal(launch([...bytes.nop, ...bytes.nop], () => turnOn('primaryControls', primaryBit.monitorTrapFlag)), 'monitorTrapFlag')
      assert.equal(read('guestRip'), BigInt(place.guest + 1))
    })

    test('the interrupt window opens one instruction after STI', () => {
      assert.equal(launch([...bytes.sti, ...bytes.nop, ...bytes.nop], () => turnOn('primaryControls', primaryBit.interruptWindowExiting)),
        'interruptWindow')
      assert.equal(read('guestRip'), BigInt(place.guest + 2))
    })

    test('an injected exception is delivered through the guest\'s IDT, error code and all', () => {
      const handler = place.guest + 0x100
      const gate = [handler & 0xff, (handler >> 8) & 0xff, 8, 0, 0, 0x8e, handler >> 16, 0, 0, 0, 0, 0, 0, 0, 0, 0]
      launch([...bytes.nop, ...bytes.nop], () => {
        load(place.idt + 13 * 16, gate)
        load(handler, bytes.vmcall)
        write('entryInterruption', 0x80000b0dn)
        write('entryErrorCode', 0x1234n)
      })
      assert.equal(read('guestRip'), BigInt(handler))
      assert.equal(read('guestRsp'), BigInt(place.guestStack - 48))
      assert.equal(read('entryInterruption') >> 31n, 0n)
      load(place.idt + 13 * 16, Array.from({ length: 16 }, () => 0))
    })

    test('an injected INT1 leaves no debug exception pending; an injected INT3 does, behind a MOV SS', () => {
      const handler = place.guest + 0x100
      const gate = [handler & 0xff, (handler >> 8) & 0xff, 8, 0, 0, 0x8e, handler >> 16, 0, 0, 0, 0, 0, 0, 0, 0, 0]
      const cases = [
        [0x80000501n, 2n, 0x4000n, 'vmcall'], [0x80000603n, 2n, 0x4000n, 'exceptionOrNmi'], [0x80000603n, 0n, 0x1001n, 'vmcall'],
      ] as const
      for (const [interruption, movSs, pending, exit] of cases) {
        const vector = Number(interruption & 0xffn)
        assert.equal(launch(bytes.nop, () => {
          load(place.idt + vector * 16, gate)
          load(handler, bytes.vmcall)
          write('entryInterruption', interruption)
          write('entryInstructionLength', 1n)
          write('exceptionBitmap', 2n)
          write('guestRflags', 0x102n)
          write('guestInterruptibility', movSs)
          write('guestPendingDebug', pending)
        }), exit)
        assert.equal(read('guestRip'), BigInt(handler))
        load(place.idt + vector * 16, Array.from({ length: 16 }, () => 0))
      }
    })

    test('an MSR that the entry list cannot load fails the entry with reason 34 and its number', () => {
      const reserved = [...new Uint8Array(BigUint64Array.of(0xc0000100n, 0n).buffer)]
      launch(bytes.nop, () => { write('entryMsrLoadCount', 1n); write('entryMsrLoadAddress', BigInt(place.msrs)); load(place.msrs,
        reserved) })
      assert.equal(read('exitReason'), BigInt(reason.msrLoading) | 0x80000000n)
      assert.equal(read('exitQualification'), 1n)
    })
  })

test('both engines end in the same state', () => {
  const [first, second] = machines.map(([, h]) => [h.core.state.rip, h.core.state.gpr[4], h.read('exitReason'), h.read('guestRip')])
  assert.deepEqual(first, second)
})

test('fields: encodings are unique, widths fit them, and no region is too small', () => {
  assert.equal(new Set(fieldList.map(field => field.encoding)).size, fieldList.length)
  for (const field of fieldList) {
    assert.equal(fieldOf(field.encoding), field)
    assert.equal(fieldOf(field.encoding + 1), field.width === 64 ? field : undefined)
    assert.ok(field.word * 4 + 8 <= 4096)
  }
  assert.equal(fields['guestRip' satisfies FieldName].encoding, 0x681e)
})

test('controls: what the model offers includes what must be 1, and no bit has two names', () => {
  for (const group of Object.values(groups)) {
    const bits = Object.values(group.table as Record<string, { bit: number }>).map(row => row.bit)
    assert.equal(new Set(bits).size, bits.length)
  }
})
