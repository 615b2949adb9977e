/** Registers, priorities and virtual interrupts of a guest with AVIC. AMD APM vol. 2, "Advanced Virtual Interrupt Controller". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { cleanBit, virtualInterrupt } from '../../src/virt/svm/vmcb.ts'
import { AvicGuest, avicPlace, fromCr8, get, hlt, load, nop, put, rdmsr, sti, store, toCr8, wrmsr } from './avic-guest.ts'
import { place } from './hypervisor.ts'

const all = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i * 16)
/** "Guest vAPIC Register Access Behavior": offsets whose reads and writes exit before (fault) or after (trap). */
const vectorRegisters = all(0x100, 24)
const faultBoth = [0x90, 0x390, 0x400, 0x410, 0x420, ...all(0x480, 8), ...all(0x500, 8), 0x580, 0xff0]
const faultWrite = [0x30, 0xa0, ...vectorRegisters]
const trapWrite = [0x20, 0xc0, 0xd0, 0xe0, 0xf0, 0x280, ...all(0x320, 7), 0x3e0]
const freeWrite = [0x10, 0x3a0, 0x2f0]

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const guest = new AvicGuest('amd', jit)
    const { h } = guest

    test('reads come from the backing page, or exit before the access', () => {
      for (const register of [...faultWrite, ...trapWrite, ...freeWrite, 0x80, 0xb0, 0x300].filter(each => each !== 0xa0)) {
        assert.equal(guest.launch(get(register), { [register]: register + 0x1000 }), 'HLT', register.toString(16))
        assert.equal(h.read('rax'), BigInt(register + 0x1000))
      }
      for (const register of faultBoth) {
        assert.equal(guest.launch(get(register)), 'AVIC_NOACCEL', register.toString(16))
        assert.deepEqual(guest.info, [BigInt(register), 0n, 0])
      }
    })

    test('writes that fault change nothing, writes that trap are done and RIP is behind them', () => {
      for (const register of [...faultBoth, ...faultWrite]) {
        assert.equal(guest.launch(put(register, 5)), 'AVIC_NOACCEL', register.toString(16))
        assert.deepEqual([guest.info, guest.get(register)], [[(1n << 32n) | BigInt(register), 0n, 5], 0])
      }
      for (const register of trapWrite) {
        assert.equal(guest.launch(put(register, 0x105)), 'AVIC_NOACCEL', register.toString(16))
        assert.deepEqual([guest.info, guest.get(register)], [[(1n << 32n) | BigInt(register), 0n, 12], 0x105])
      }
      for (const register of freeWrite) {
        assert.equal(guest.launch(put(register, 0x105)), 'HLT', register.toString(16))
        assert.equal(guest.get(register), 0x105)
      }
      assert.equal(guest.launch(put(0x310, 0x12345678)), 'HLT')
      assert.equal(guest.get(0x310), 0x12000000, 'reserved bits')
      assert.equal(guest.get(0x310, avicPlace.bar), 0, 'the page that the nested tables give is not touched')
    })

    test('the nested tables decide whether the page can be accessed', () => {
      guest.prepare(put(0x80, 0x20))
      h.quad(place.nestedDirectory + 8, 0x200000n | 0x85n)
      assert.equal(guest.run(), 'NPF')
      assert.deepEqual([h.read('exitInfo1'), h.read('exitInfo2')], [0x100000007n, BigInt(avicPlace.bar + 0x80)])
    })

    test('what lies beside it in the same large page is memory, before and after', () => {
      guest.prepare([...load(avicPlace.bar - 4), ...get(0x30), 0x89, 0xc3, ...load(avicPlace.bar + 0x1000)], { 0x30: 0x14 })
      h.load(avicPlace.bar - 4, [1, 2, 3, 4])
      h.load(avicPlace.bar + 0x1000, [5, 6, 7, 8])
      assert.equal(guest.run(), 'HLT')
      assert.deepEqual([h.read('rax'), h.core.state.gpr[3]], [0x08070605n, 0x14n])
    })

    test('TPR, V_TPR and CR8 agree, whatever V_INTR_MASKING says; PPR follows', () => {
      assert.equal(guest.launch([...put(0x80, 0x35), ...fromCr8], { 0x100: 0 }), 'HLT')
      assert.deepEqual([guest.get(0x80), guest.get(0xa0), h.read('rax'), h.read('virtualInterrupt') & 0xffn], [0x35, 0x35, 3n, 3n])
      assert.equal(guest.launch([...toCr8(5), ...get(0x80)], { 0x80: 0x35, 0x120: 2 }), 'HLT') // vector 41H is in service
      assert.deepEqual([guest.get(0x80), guest.get(0xa0), h.read('rax'), h.read('virtualInterrupt') & 0xffn], [0x50, 0x50, 0x50n, 5n])
      assert.equal(guest.launch(toCr8(4), { 0x120: 2 }), 'HLT')
      assert.equal(guest.get(0xa0), 0x40)
      assert.equal(guest.launch(toCr8(3), { 0x120: 2 }), 'HLT')
      assert.equal(guest.get(0xa0), 0x40)
    })

    test('VMRUN delivers the highest request that priority and IF let through', () => {
      guest.prepare([sti, nop, nop, nop], { 0x240: 4, 0x210: 8 }) // 82H and 23H
      guest.handle(0x82)
      assert.equal(guest.run(), 'VMMCALL')
      assert.equal(h.read('rip'), BigInt(avicPlace.handler + 0x8200))
      assert.deepEqual([guest.vectors(0x200), guest.vectors(0x100), guest.get(0xa0)], [[0x23], [0x82], 0x80])
      guest.prepare([nop, nop], { 0x240: 4 })
      assert.equal(guest.run(), 'HLT', 'IF is 0')
      guest.prepare([sti, nop, nop], { 0x240: 4 })
      h.write('virtualInterrupt', h.read('virtualInterrupt') | 8n)
      assert.equal(guest.run(), 'HLT', 'V_TPR, not the TPR of the page, holds it back')
      guest.prepare([sti, nop, nop], { 0x240: 4, 0x80: 0xf0 })
      guest.handle(0x82)
      assert.equal(guest.run(), 'VMMCALL')
      guest.prepare([sti, nop, nop], { 0x240: 4, 0x140: 8 })
      assert.equal(guest.run(), 'HLT', 'nor does the class in service')
    })

    test('the fields of the VMCB\'s own virtual interrupt are ignored; V_GIF is not', () => {
      const irq = BigInt(virtualInterrupt.irq | virtualInterrupt.ignoreTpr | virtualInterrupt.priorityMask)
      guest.prepare([sti, nop, nop])
      h.write('virtualInterrupt', h.read('virtualInterrupt') | irq)
      assert.equal(guest.run(), 'HLT')
      guest.prepare([sti, nop, nop], { 0x240: 4 })
      h.write('virtualInterrupt', h.read('virtualInterrupt') | BigInt(virtualInterrupt.gifEnable))
      assert.equal(guest.run(), 'HLT')
      guest.prepare([sti, nop, nop], { 0x240: 4 })
      h.write('intercepts3', h.read('intercepts3') | 16n)
      assert.equal(guest.run(), 'VINTR')
      assert.deepEqual(guest.vectors(0x200), [0x82])
    })

    test('EOI ends what is in service and lets the next through; a level-triggered one is left to the hypervisor', () => {
      // The first handler ends itself with interrupts on.
      guest.prepare([sti, nop, nop], { 0x240: 4, 0x210: 8 })
      guest.handle(0x82, [...put(0xb0, 0), sti, nop, nop, hlt])
      guest.handle(0x23)
      assert.equal(guest.run(), 'VMMCALL')
      assert.deepEqual([guest.vectors(0x200), guest.vectors(0x100), guest.get(0xa0)], [[], [0x23], 0x20])
      assert.equal(guest.launch(put(0xb0, 0), { 0x140: 4, 0x1c0: 4 }), 'AVIC_NOACCEL')
      assert.deepEqual([guest.info, guest.vectors(0x100)], [[0x1000000b0n, 0x82n, 12], [0x82]])
      assert.equal(guest.launch(put(0xb0, 0)), 'HLT', 'nothing is in service')
    })

    test('a request that another writes is seen when a doorbell rings', () => {
      const request = store(avicPlace.backing + 0x240, 4)
      guest.prepare([sti, nop, ...request, nop, nop])
      assert.equal(guest.run(), 'HLT')
      guest.prepare([sti, nop, ...request, nop, nop, ...wrmsr(0xc001011b, 0), nop])
      guest.handle(0x82)
      assert.equal(guest.run(), 'VMMCALL')
      assert.deepEqual([guest.vectors(0x100), h.doorbells], [[0x82], [0]])
    })

    test('HLT that is not intercepted ends with a request; idle HLT exits unless there is one', () => {
      guest.prepare([...put(0x80, 0x90), sti, hlt], { 0x240: 4 })
      h.write('intercepts3', 0n)
      guest.handle(0x82)
      let looks = 0
      for (; looks < 3; looks++) h.cpu.execute(looks * 1000, 1000)
      assert.deepEqual([h.core.state.guestMode, h.core.state.activity, h.cpu.virt!.wakes()], [1, 1, false])
      guest.set(0x250, 1)
      assert.equal(h.cpu.virt!.wakes(), false)
      h.core.state.doorbell = 1
      assert.equal(h.cpu.virt!.wakes(), true)
      guest.handle(0xa0)
      assert.equal(guest.run(), 'VMMCALL')
      assert.equal(h.read('rip'), BigInt(avicPlace.handler + 0xa000))
    })

    test('x2AVIC: the registers are MSRs, the page is memory', () => {
      for (const register of [...vectorRegisters, 0x20, 0x30, 0x80, 0xd0, 0xf0, 0x280, ...all(0x320, 7), 0x3e0]) {
        assert.equal(guest.launch(rdmsr(0x800 + (register >> 4)), { [register]: register }, true), 'HLT', register.toString(16))
        assert.deepEqual([h.read('rax'), h.core.state.gpr[2]], [BigInt(register), 0n])
      }
      assert.equal(guest.launch(rdmsr(0x830), { 0x300: 0x31, 0x310: 7 }, true), 'HLT')
      assert.deepEqual([h.read('rax'), h.core.state.gpr[2]], [0x31n, 7n])
      for (const msr of [0x80f, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838]) {
        assert.equal(guest.launch(wrmsr(msr, 0x31), {}, true), 'AVIC_NOACCEL', msr.toString(16))
        assert.deepEqual([guest.info, guest.get((msr - 0x800) << 4)], [[(1n << 32n) | BigInt((msr - 0x800) << 4), 0n, 17], 0x31])
      }
      for (const msr of [0x809, 0x839, 0x840]) {
        assert.equal(guest.launch(rdmsr(msr), {}, true), 'AVIC_NOACCEL', msr.toString(16))
        assert.deepEqual(guest.info, [BigInt((msr - 0x800) << 4), 0n, 5])
      }
      assert.equal(guest.launch([...wrmsr(0x808, 0x43), ...fromCr8], {}, true), 'HLT')
      assert.deepEqual([guest.get(0x80), h.read('rax')], [0x43, 4n])
      assert.equal(guest.launch([...put(0x80, 0x55), ...get(0x80)], {}, true), 'HLT')
      assert.deepEqual([guest.get(0x80), guest.get(0x80, avicPlace.bar)], [0, 0x55])
    })

    test('x2AVIC: what no register of the x2APIC allows is #GP; the permission map comes first', () => {
      const gp = (code: readonly number[]): string => {
        guest.prepare(code, {}, true)
        h.write('exceptionIntercepts', 1n << 13n)
        return guest.run()
      }
      const reads = [0x800, 0x804, 0x80b, 0x80c, 0x80e, 0x831, 0x83a, 0x83f, 0x8ff]
      for (const msr of reads) assert.equal(gp(rdmsr(msr)), 'EXCP13', msr.toString(16))
      const writes = [[0x802, 0], [0x803, 0], [0x809, 0], [0x80a, 0], [0x80b, 1], [0x80d, 0], [0x810, 0], [0x818, 0], [0x820, 0],
        [0x828, 1], [0x808, 0x100], [0x80f, 0x1000], [0x830, 0x100031], [0x831, 0], [0x832, 0x400ff], [0x839, 0], [0x83e, 4],
        [0x83f, 0x100]] as const
      for (const [msr, low] of writes) assert.equal(gp(wrmsr(msr, low)), 'EXCP13', msr.toString(16))
      assert.equal(gp(wrmsr(0x808, 0, 1)), 'EXCP13')
      guest.prepare(wrmsr(0x802, 0), {}, true)
      h.write('intercepts3', h.read('intercepts3') | (1n << 28n))
      h.load(place.msrpm + (0x802 >> 2), [0xff])
      assert.equal(guest.run(), 'MSR')
    })

    test('after the exit nothing of it is left: the host and guests without AVIC reach memory', () => {
      const code = [...put(0x10, 0x77), ...get(0x10), hlt]
      guest.launch([...code, ...code])
      assert.deepEqual([guest.get(0x10), guest.get(0x10, avicPlace.bar), h.core.state.apicAccessPage], [0x77, 0, 0n])
      // on with the second half, and once more with AVIC: no TLB_CONTROL
      for (const [control, page] of [[0n, avicPlace.bar], [1n << 31n, avicPlace.backing]] as const) {
        guest.set(0x10, 0, avicPlace.backing)
        guest.set(0x10, 0, avicPlace.bar)
        h.write('virtualInterrupt', control)
        h.write('rip', BigInt(place.guest + code.length))
        Object.assign(h.core.state, { rip: BigInt(place.host), activity: 0 })
        h.core.state.gpr[0] = BigInt(place.vmcb)
        assert.equal(guest.run(), 'HLT')
        assert.deepEqual([avicPlace.backing, avicPlace.bar].filter(each => guest.get(0x10, each) === 0x77), [page])
      }
    })
  })

test('the clean bit of AVIC keeps its pointers', () => {
  for (const [bits, expected] of [[1 << cleanBit.avic, 0x10n], [0, 0x20n]] as const) {
    const guest = new AvicGuest('amd,+strict_clean_bits')
    const { h } = guest
    guest.launch(get(0x80), { 0x80: 0x10 })
    guest.set(0x80, 0x20, avicPlace.others)
    h.write('apicBackingPage', BigInt(avicPlace.others))
    h.write('clean', BigInt(bits))
    h.write('rip', BigInt(place.guest))
    Object.assign(h.core.state, { rip: BigInt(place.host), activity: 0 })
    h.core.state.gpr[0] = BigInt(place.vmcb)
    guest.run()
    assert.equal(h.read('rax'), expected)
  }
})

test('VMRUN refuses pages that are not there, by name', () => {
  const guest = new AvicGuest()
  const rules: string[] = []
  guest.h.cpu.virt!.observer = event => {
    if (event.kind === 'failed') rules.push(`${event.broken[0].rule}: ${event.broken[0].fields[0].name}`)
  }
  for (const field of ['apicBackingPage', 'apicPhysicalTable', 'apicLogicalTable'] as const) {
    guest.prepare([])
    guest.h.write(field, 0xff0000000n)
    assert.equal(guest.run(), 'INVALID')
  }
  assert.deepEqual(rules.map(rule => rule.split(' Pointer')[0]),
    ['APIC_BACKING_PAGE', 'PHYSICAL_TABLE', 'LOGICAL_TABLE'].map(name => `the pages of AVIC must be RAM: AVIC ${name}`))
  guest.prepare([], {}, true)
  guest.h.write('apicLogicalTable', 0xff0000000n)
  assert.equal(guest.run(), 'HLT', 'x2AVIC has no logical table')
})

test('processors without it ignore its bits, and have no doorbell', () => {
  const guest = new AvicGuest('amd,-avic')
  assert.equal(guest.launch([...put(0x90, 7), ...get(0x90)], {}), 'HLT')
  assert.equal(guest.get(0x90, avicPlace.bar), 7)
  guest.prepare(wrmsr(0xc001011b, 0))
  guest.h.write('exceptionIntercepts', 1n << 13n)
  assert.equal(guest.run(), 'EXCP13')
})

test('the doorbell is written only, 32 bits', () => {
  const guest = new AvicGuest()
  for (const code of [rdmsr(0xc001011b), wrmsr(0xc001011b, 1, 1)]) {
    guest.prepare(code)
    guest.h.write('exceptionIntercepts', 1n << 13n)
    assert.equal(guest.run(), 'EXCP13')
  }
  assert.equal(guest.launch(wrmsr(0xc001011b, 9)), 'HLT')
  assert.deepEqual(guest.h.doorbells, [9])
})
