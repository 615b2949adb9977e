/** Small guests in both engines: what their instructions, events and memory make of the VMCB, by the manual's words. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exitName } from '../../src/virt/svm/exit-codes.ts'
import { svmWord } from '../../src/virt/svm/state.ts'
import { virtualInterrupt, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place } from './hypervisor.ts'

const bytes = {
  cpuid: [0x0f, 0xa2], hlt: [0xf4], vmmcall: [0x0f, 0x01, 0xd9], rdmsr: [0x0f, 0x32], wrmsr: [0x0f, 0x30], ud2: [0x0f, 0x0b],
  outDx: [0xee], inEax: [0xed], movToCr3FromRbx: [0x0f, 0x22, 0xdb], movFromCr0ToRcx: [0x0f, 0x20, 0xc1], clts: [0x0f, 0x06],
  load: [0x48, 0x8b, 0x07], store: [0x48, 0x89, 0x07], nop: [0x90], int21: [0xcd, 0x21], pushf: [0x9c], sti: [0xfb],
  invlpgRdi: [0x0f, 0x01, 0x3f], invlpga: [0x0f, 0x01, 0xdf], stgi: [0x0f, 0x01, 0xdc], jump: [0xeb, 0xfe],
} as const

const invalid = 0xffff_ffff_ffff_ffffn
const machines = [['interpreter', createHypervisor('amd', false)], ['jit', createHypervisor('amd', true)]] as const

for (const [engine, h] of machines)
  describe(engine, () => {
    const { state } = h.core
    /** Runs a guest with this code to its exit, whose name it returns. */
    const launch = (code: readonly number[], setUp: () => void = () => {}): string => {
      h.restart()
      h.load(place.guest, code)
      setUp()
      h.run()
      const code64 = h.read('exitCode')
      return exitName(code64 === invalid ? -1 : Number(code64))
    }
    const again = (): string => {
      state.rip = BigInt(place.host)
      state.gpr[0] = BigInt(place.vmcb)
      state.activity = 0
      h.run()
      return exitName(Number(h.read('exitCode')))
    }
    const set = (name: VmcbFieldName, bits: bigint): void => h.write(name, h.read(name) | bits)
    const intercept3 = (bit: number) => (): void => set('intercepts3', 1n << BigInt(bit))

    test('VMMCALL exits; RIP stays at it, nRIP is behind it; the host goes on behind VMRUN with GIF = 0', () => {
      assert.equal(launch([...bytes.nop, ...bytes.vmmcall]), 'VMMCALL')
      assert.equal(h.read('rip'), BigInt(place.guest + 1))
      assert.equal(h.read('nextRip'), BigInt(place.guest + 4))
      assert.equal(state.rip, BigInt(place.host + 4))
      assert.equal(state.interruptGate, 2)
      assert.equal(state.gpr[0], BigInt(place.vmcb))
    })

    test('an instruction is the guest\'s own until it is intercepted', () => {
      assert.equal(launch([...bytes.cpuid, ...bytes.hlt]), 'HLT')
      assert.equal(launch([...bytes.cpuid, ...bytes.hlt], intercept3(18)), 'CPUID')
      assert.equal(launch([...bytes.pushf, ...bytes.hlt], intercept3(16)), 'PUSHF')
      assert.equal(h.read('rsp'), BigInt(place.guestStack))
    })

    test('SKINIT, which no model has, is undefined rather than intercepted', () => {
      assert.equal(launch([0x0f, 0x01, 0xde], () => {
        set('intercepts4', 1n << 6n)
        h.write('exceptionIntercepts', 1n << 6n)
      }), 'EXCP6')
    })

    test('I/O: direction, sizes and port are in EXITINFO1, the next RIP in EXITINFO2; a clear bit of the map lets it through', () => {
      const watch = (): void => {
        intercept3(27)()
        h.load(place.iopm + (0x3f8 >> 3), [1])
        state.gpr[2] = 0x3f8n
      }
      assert.equal(launch([...bytes.outDx, ...bytes.hlt], watch), 'IOIO')
      assert.equal(h.read('exitInfo1'), 0x03f80210n)
      assert.equal(h.read('exitInfo2'), BigInt(place.guest + 1))
      launch([...bytes.inEax, ...bytes.hlt], () => { watch(); state.gpr[2] = 0x3f6n })
      assert.equal(h.read('exitInfo1'), 0x03f60241n)
      assert.equal(launch([...bytes.outDx, ...bytes.hlt], () => { watch(); state.gpr[2] = 0x3f9n }), 'HLT')
    })

    test('MSRs: two bits each; those outside of the map\'s ranges always exit', () => {
      const watch = (msr: bigint) => (): void => {
        intercept3(28)()
        h.load(place.msrpm + 0x800 + (0x82 >> 2), [0x20])
        state.gpr[1] = msr
      }
      assert.equal(launch([...bytes.wrmsr, ...bytes.hlt], watch(0xc0000082n)), 'MSR')
      assert.equal(h.read('exitInfo1'), 1n)
      assert.equal(launch([...bytes.rdmsr, ...bytes.hlt], watch(0xc0000082n)), 'HLT')
      assert.equal(launch([...bytes.rdmsr, ...bytes.hlt], watch(0x2000n)), 'MSR')
      assert.equal(h.read('exitInfo1'), 0n)
    })

    test('control registers: decode assists name the register of MOV', () => {
      assert.equal(launch([...bytes.movToCr3FromRbx], () => h.write('crIntercepts', 8n << 16n)), 'CR3_WRITE')
      assert.equal(h.read('exitInfo1'), (1n << 63n) | 3n)
      assert.equal(launch([...bytes.movFromCr0ToRcx], () => h.write('crIntercepts', 1n)), 'CR0_READ')
      assert.equal(h.read('exitInfo1'), (1n << 63n) | 1n)
      assert.equal(launch([...bytes.clts, ...bytes.hlt], intercept3(5)), 'HLT')
      assert.equal(launch([...bytes.clts, ...bytes.hlt], () => h.write('crIntercepts', 1n << 16n)), 'CR0_WRITE')
    })

    test('INVPCID says where its descriptor is and what its type; INVLPGA which address', () => {
      const invpcid = [0x66, 0x0f, 0x38, 0x82, 0x5f, 0x08]
      assert.equal(launch(invpcid, () => {
        h.write('intercepts5', 4n)
        Object.assign(state.gpr, { 7: 0x1230n, 3: 2n })
      }), 'INVPCID')
      assert.deepEqual([h.read('exitInfo1'), h.read('exitInfo2')], [0x1238n, 2n])
      assert.equal(launch(bytes.invlpga, () => { intercept3(26)(); h.write('rax', 0x5000n) }), 'INVLPGA')
      assert.equal(h.read('exitInfo1'), 0x5000n)
    })

    test('bits of a control register that cannot be fault before the write is intercepted', () => {
      const write = (register: number, value: bigint): string => launch([0x0f, 0x22, 0xc3 | (register << 3)], () => {
        h.write('crIntercepts', 0xffff0000n)
        h.write('exceptionIntercepts', 1n << 13n)
        state.gpr[3] = value
      })
      assert.equal(write(0, 1n << 32n), 'EXCP13')
      assert.equal(write(0, 0x80000030n), 'EXCP13', 'PG without PE')
      assert.equal(write(3, 1n << 60n), 'EXCP13')
      assert.equal(write(4, 1n << 31n), 'EXCP13')
      assert.deepEqual([write(0, 0x80000031n), write(3, 0x1000n), write(4, 0x20n)], ['CR0_WRITE', 'CR3_WRITE', 'CR4_WRITE'])
    })

    test('VM_CR.R_INIT makes INIT a security exception with error code 1', () => {
      h.restart()
      h.load(place.gdt + 8, [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0])
      h.quad(place.idt + 30 * 16, (BigInt(place.guest) & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((BigInt(place.guest) >> 16n) << 48n))
      assert.equal(h.cpu.virt!.takesInit(), 'accepted')
      Object.assign(state.gpr, { 0: 2n, 1: 0xc0010114n, 2: 0n })
      h.runHost(bytes.wrmsr)
      assert.equal(h.cpu.virt!.takesInit(), 'exit')
      assert.equal(state.rip, BigInt(place.guest))
      const pushed = new Uint8Array(8)
      h.core.physical.peek(Number(state.gpr[4]), pushed)
      assert.deepEqual([...pushed], [1, 0, 0, 0, 0, 0, 0, 0])
    })

    test('an INIT that is intercepted leaves the guest, and does not reset the host afterwards', () => {
      h.restart()
      h.load(place.guest, [0xeb, 0xfe])
      intercept3(3)()
      h.cpu.execute(0, 2000)
      assert.equal(state.guestMode, 1)
      assert.equal(h.cpu.virt!.takesInit(), 'exit')
      assert.deepEqual([h.read('exitCode'), state.guestMode], [0x63n, 0])
    })

    test('the shadow of STI is over after one instruction, and not in the VMCB then', () => {
      assert.equal(launch([0xfb, 0x90, 0x90, 0xf4]), 'HLT')
      assert.equal(h.read('interruptState'), 0n)
      assert.equal(launch([0xfb, 0xf4]), 'HLT')
      assert.equal(h.read('interruptState'), 1n)
    })

    test('where reserved bits of PDPTEs refuse the guest, the host has its own RFLAGS', () => {
      assert.equal(launch([0xf4], () => {
        const fields = { nestedControl: 0n, efer: 0x1000n, cr4: 0x20n, cr3: BigInt(place.pml4) }
        for (const [name, value] of Object.entries(fields)) h.write(name as VmcbFieldName, value)
        state.eflags |= 0x200
      }), 'INVALID')
      assert.equal(state.eflags & 0x200, 0x200)
    })

    test('exceptions exit before they change anything, with error code and address', () => {
      assert.equal(launch(bytes.ud2, () => h.write('exceptionIntercepts', 1n << 6n)), 'EXCP6')
      launch(bytes.load, () => {
        h.write('exceptionIntercepts', 1n << 14n)
        h.write('cr2', 0x1234n)
        state.gpr[7] = 0x40000000n
      })
      assert.deepEqual([h.read('exitCode'), h.read('exitInfo1'), h.read('exitInfo2'), h.read('cr2')], [0x4en, 0n, 0x40000000n, 0x1234n])
    })

    test('a triple fault is a shutdown, which exits', () => {
      assert.equal(launch(bytes.ud2, () => {
        h.write('idtrLimit', 0n)
        intercept3(31)()
      }), 'SHUTDOWN')
    })

    test('a shutdown that is not intercepted is the processor\'s', () => {
      assert.throws(() => launch(bytes.ud2, () => h.write('idtrLimit', 0n)), /shut down/)
    })

    test('an event whose delivery exits is in EXITINTINFO', () => {
      assert.equal(launch(bytes.int21, () => {
        h.write('idtrLimit', 0n)
        h.write('exceptionIntercepts', 1n << 13n)
      }), 'EXCP13')
      assert.equal(h.read('exitInterrupt'), 0x80000421n)
      assert.equal(h.read('exitInfo1'), 0x21n * 8n + 2n)
    })

    test('EVENTINJ is delivered before the first instruction', () => {
      assert.equal(launch(bytes.hlt, () => {
        h.write('eventInjection', 0x80000b0dn)
        h.write('eventInjectionError', 0x18n)
        h.write('idtrLimit', 0n)
        h.write('exceptionIntercepts', 1n << 8n)
      }), 'EXCP8')
      assert.equal(h.read('exitInterrupt'), 0x80000b0dn)
      assert.equal(h.read('eventInjection'), 0xb0dn)
    })

    test('EVENTINJ is not intercepted: the handler runs, where the same exception of the guest exits', () => {
      const injected = (info: bigint) => (): void => {
        h.write('eventInjection', info)
        h.write('exceptionIntercepts', 0xffffffffn)
        h.load(place.gdt + 8, [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0])
        const handler = BigInt(place.guest + 0x100)
        h.quad(place.idt + 6 * 16, (handler & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((handler >> 16n) << 48n))
        h.load(Number(handler), bytes.vmmcall)
      }
      assert.equal(launch(bytes.ud2, injected(0x80000306n)), 'VMMCALL')
      assert.equal(h.read('rsp'), BigInt(place.guestStack - 40))
      assert.equal(launch(bytes.ud2, injected(0n)), 'EXCP6')
    })

    test('an MSR that the map leaves alone is written while a virtual interrupt waits for the guest\'s IF', () => {
      launch([...bytes.wrmsr, ...bytes.vmmcall], () => {
        intercept3(28)()
        h.write('virtualInterrupt', BigInt(virtualInterrupt.masking | virtualInterrupt.irq | (1 << 16)))
        state.eflags |= 0x200
        Object.assign(state.gpr, { 1: 0xc0000101n, 2: 0x1234n })
      })
      assert.deepEqual([exitName(Number(h.read('exitCode'))), state.segBase[5]], ['VMMCALL', 0x1234_00000000n])
    })

    test('a page that nested paging does not map: address and cause, final or in a table walk', () => {
      launch(bytes.store, () => {
        h.quad(place.nestedDirectory + 8, 0n)
        state.gpr[7] = 0x234567n
      })
      assert.deepEqual([h.read('exitCode'), h.read('exitInfo1'), h.read('exitInfo2')], [0x400n, 0x100000006n, 0x234567n])
      assert.deepEqual([h.read('fetchedLength')], [15n])
      launch(bytes.nop, () => {
        h.write('cr3', 0x400000n)
        h.quad(place.nestedDirectory + 16, 0n)
      })
      assert.deepEqual([h.read('exitCode'), h.read('exitInfo1'), h.read('exitInfo2')], [0x400n, 0x200000006n, 0x400000n])
    })

    test('accessed and dirty bits are set in both stages; tables are written to in the nested one', () => {
      launch([...bytes.store, ...bytes.hlt], () => { state.gpr[7] = 0x600000n })
      const entry = (address: number): number => {
        const out = new Uint8Array(8)
        h.core.physical.peek(address, out)
        return out[0] & 0x60
      }
      assert.equal(entry(place.directory + 3 * 8), 0x60)
      assert.equal(entry(place.nestedDirectory + 3 * 8), 0x60)
      assert.equal(entry(place.nestedDirectory), 0x60)
      assert.equal(entry(place.nestedDirectory + 2 * 8), 0)
    })

    test('translations outlive a world switch; INVLPGA, TLB_CONTROL and another ASID make a change visible', () => {
      const load = [...bytes.load, ...bytes.vmmcall]
      const moved = (): void => h.quad(place.directory + 2 * 8, 0x600087n)
      const reload = (): bigint => {
        h.write('rip', BigInt(place.guest))
        again()
        return h.read('rax')
      }
      const prepare = (): void => {
        launch(load, () => {
          state.gpr[7] = 0x400000n
          h.quad(0x400000, 4n)
          h.quad(0x600000, 6n)
        })
        assert.equal(h.read('rax'), 4n)
        moved()
        assert.equal(reload(), 4n, 'nobody has invalidated')
      }
      prepare()
      state.gpr[0] = 0x400000n
      state.gpr[1] = 1n
      h.runHost(bytes.invlpga)
      assert.equal(reload(), 6n, 'INVLPGA')
      prepare()
      h.write('tlbControl', 3n)
      assert.equal(reload(), 6n, 'this ASID')
      prepare()
      h.write('asid', 2n)
      assert.equal(reload(), 6n, 'another ASID')
    })

    test('a physical interrupt exits, whatever the guest\'s IF says, when the host\'s IF is 1 and V_INTR_MASKING is set', () => {
      const pending = (masking: boolean) => (): void => {
        intercept3(0)()
        if (masking) h.write('virtualInterrupt', BigInt(virtualInterrupt.masking))
        state.eflags |= 0x200
        state.interruptGate = 2
        state.words[svmWord.globallyHeld] = 1
        h.interrupt = true
      }
      assert.equal(launch(bytes.hlt, pending(true)), 'INTR')
      assert.equal(h.read('rip'), BigInt(place.guest))
      assert.equal(launch([...bytes.nop, ...bytes.vmmcall], pending(false)), 'VMMCALL')
    })

    test('a virtual interrupt waits for IF and priority, and exits if intercepted', () => {
      const pending = (priority: bigint, tpr: bigint) => (): void => {
        intercept3(4)()
        h.write('virtualInterrupt', BigInt(virtualInterrupt.masking | virtualInterrupt.irq) | (priority << 16n) | tpr)
        h.write('virtualVector', 0x55n)
      }
      assert.equal(launch([...bytes.nop, ...bytes.vmmcall], pending(5n, 0n)), 'VMMCALL')
      assert.equal(launch([...bytes.sti, ...bytes.nop, ...bytes.vmmcall], pending(5n, 0n)), 'VINTR')
      assert.equal(h.read('rip'), BigInt(place.guest + 2))
      assert.equal(launch([...bytes.sti, ...bytes.nop, ...bytes.vmmcall], pending(5n, 5n)), 'VMMCALL')
    })

    test('a virtual NMI is delivered once, and the next when IRET has unmasked them', () => {
      const handler = place.guest + 0x100
      const start = (pending: number, code: readonly number[]): string => launch(code, () => {
        intercept3(1)()
        h.write('virtualInterrupt', BigInt(virtualInterrupt.nmiEnable | pending))
        h.load(place.gdt + 8, [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0])
        h.quad(place.idt + 2 * 16, (BigInt(handler) & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((BigInt(handler) >> 16n) << 48n))
        h.load(handler, bytes.vmmcall)
      })
      const masked = BigInt(virtualInterrupt.nmiEnable | virtualInterrupt.nmiBlocked)
      assert.equal(start(virtualInterrupt.nmiPending, bytes.ud2), 'VMMCALL')
      assert.deepEqual([h.read('rip'), h.read('virtualInterrupt')], [BigInt(handler), masked])
      assert.equal(state.interruptShadow & 8, 0, 'the host is not in an NMI handler')
      h.load(handler, [0x48, 0xcf])
      h.load(place.guest, bytes.vmmcall)
      assert.equal(again(), 'VMMCALL')
      assert.deepEqual([h.read('rip'), h.read('virtualInterrupt')], [BigInt(place.guest), BigInt(virtualInterrupt.nmiEnable)])
      assert.equal(start(virtualInterrupt.nmiPending | virtualInterrupt.nmiBlocked, bytes.vmmcall), 'VMMCALL')
      assert.equal(h.read('rip'), BigInt(place.guest), 'masked from the start')
    })

    test('an SMI that is not intercepted runs its handler, and the guest goes on; an intercepted one exits and stays pending', () => {
      const pend = (): void => {
        state.interruptGate = 2
        state.words[svmWord.globallyHeld] = 1
        state.pendingSmi = 1
        h.load(0x38000, [0x2e, 0xc6, 0x06, 0x00, 0x90, 0x55, 0x0f, 0xaa]) // mov byte cs:[9000h], 55h; rsm
        h.load(0x39000, [0])
      }
      const seen = new Uint8Array(1)
      assert.equal(launch([...bytes.nop, ...bytes.vmmcall], pend), 'VMMCALL')
      h.core.physical.peek(0x39000, seen)
      assert.deepEqual([seen[0], state.pendingSmi, h.read('rip'), h.read('cr3')], [0x55, 0, BigInt(place.guest + 1), BigInt(place.pml4)])
      assert.equal(launch(bytes.vmmcall, () => { pend(); intercept3(2)() }), 'SMI')
      assert.equal(state.pendingSmi, 1)
    })

    test('a guest that an SMI handler goes back to can be entered again, also when EFER was cleared in SMRAM', () => {
      const pend = (): void => {
        state.interruptGate = 2
        state.words[svmWord.globallyHeld] = 1
        state.pendingSmi = 1
        // and dword [3fed0h], ~1000h; rsm
        h.load(0x38000, [0x67, 0x66, 0x81, 0x25, 0xd0, 0xfe, 0x03, 0x00, 0xff, 0xef, 0xff, 0xff, 0x0f, 0xaa])
      }
      assert.equal(launch([...bytes.vmmcall], pend), 'VMMCALL')
      assert.equal(h.read('efer') & 0x1000n, 0x1000n)
      assert.equal(again(), 'VMMCALL')
    })
  })

test('both engines come to the same state', () => {
  const [, [, compiled]] = machines
  const [[, interpreted]] = machines
  // LOOP of additions, long enough to be compiled, with an exit at its end
  const code = [0x48, 0x01, 0xd8, 0x48, 0x31, 0xc2, 0xff, 0xc9, 0x75, 0xf6, ...bytes.vmmcall]
  const results = [interpreted, compiled].map(h => {
    h.restart()
    h.load(place.guest, code)
    Object.assign(h.core.state.gpr, { 1: 20_000n, 2: 0n, 3: 7n })
    h.run()
    return [h.read('rax'), h.core.state.gpr[2], h.read('rip'), h.read('exitCode')]
  })
  assert.deepEqual(results[0], results[1])
  assert.equal(results[0][0], 140_000n)
})
