/** Interprocessor interrupts of a guest with AVIC. AMD APM vol. 2, "Interprocessor Interrupts", "AVIC IPI Delivery Not Completed". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { AvicGuest, avicPlace, put, sti, nop, wrmsr } from './avic-guest.ts'

const { backing, others, physical, logical } = avicPlace
const pages = [backing, others, others + 0x1000, others + 0x2000]
const [lowest, nmi, init, startup] = [1, 4, 5, 6].map(mode => mode << 8)
const [byLogical, level, self, everybody, exceptSelf] = [0x800, 0x8000, 0x40000, 0x80000, 0xc0000]
const valid = 1 << 31

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const guest = new AvicGuest('amd', jit)
    const { h } = guest
    /** Who was asked for vector 31H, by guest APIC ID. */
    const asked = (): number[] => pages.flatMap((page, id) => (guest.vectors(0x200, page).includes(0x31) ? [id] : []))
    const sent = (destination: number, low: number, setUp: () => void = () => {}): string => {
      guest.prepare([...put(0x310, destination << 24), ...put(0x300, low)])
      setUp()
      return guest.run()
    }
    const sentByMsr = (destination: number, low: number): string => guest.launch(wrmsr(0x830, low, destination), {}, true)
    /** Reason and index of an exit that came after the write. */
    const incomplete = (destination: number, low: number): [bigint, bigint] => {
      const [info1, info2, rip] = guest.info
      assert.equal(info1, (BigInt(destination >>> 0) << 32n) | BigInt(low))
      assert.equal(rip, guest.h.read('virtualInterrupt') & (1n << 30n) ? 17 : 24)
      return [info2 >> 32n, info2 & 0xffffffffn]
    }

    test('to an APIC ID: its request, and the doorbell of the processor that runs it, with no exit', () => {
      assert.equal(sent(1, 0x31), 'HLT')
      assert.deepEqual([asked(), h.doorbells, guest.get(0x300)], [[1], [4], 0x31])
      assert.equal(sent(2, 0x31), 'HLT')
      assert.deepEqual([asked(), h.doorbells], [[2], [5]])
    })

    test('to oneself, by shorthand or ID: taken at once', () => {
      for (const [destination, low] of [[0, 0x31], [9, self | 0x31]]) {
        guest.prepare([sti, ...put(0x310, destination << 24), ...put(0x300, low), nop])
        guest.handle(0x31)
        assert.equal(guest.run(), 'VMMCALL')
        assert.deepEqual([guest.vectors(0x100), h.doorbells], [[0x31], low & self ? [] : [0]])
      }
    })

    test('who does not run is left to the hypervisor, with the request in place', () => {
      assert.equal(sent(3, 0x31), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual([incomplete(3 << 24, 0x31), asked(), h.doorbells], [[1n, 3n], [3], []])
      for (const [low, who] of [[everybody | 0x31, [0, 1, 2, 3]], [exceptSelf | 0x31, [1, 2, 3]]] as const) {
        assert.equal(sent(0, low), 'AVIC_INCOMPLETE_IPI')
        assert.deepEqual([incomplete(0, low), asked(), h.doorbells], [[1n, 3n], who, who.slice(0, -1).map(id => [0, 4, 5][id])])
      }
      assert.equal(sent(0xff, 0x31, () => h.quad(physical + 24, 0n)), 'HLT', 'nobody is who has no entry')
      assert.deepEqual([asked(), h.doorbells], [[0, 1, 2], [0, 4, 5]])
    })

    test('other kinds of interrupts exit: by mode, by trigger, by vector', () => {
      for (const mode of [lowest, nmi, init, startup, level]) {
        assert.equal(sent(1, mode | 0x31), 'AVIC_INCOMPLETE_IPI')
        assert.deepEqual([incomplete(1 << 24, mode | 0x31), asked()], [[0n, 0n], []])
      }
      assert.equal(sent(1, init), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(1 << 24, init), [0n, 0n])
      assert.equal(sent(1, 0xf), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(1 << 24, 0xf), [4n, 0n])
    })

    test('an entry that is beyond the table, not valid, or leads nowhere', () => {
      for (const id of [4, 8, 0xfe]) {
        assert.equal(sent(id, 0x31), 'AVIC_INCOMPLETE_IPI')
        assert.deepEqual(incomplete(id << 24, 0x31), [2n, BigInt(id)])
      }
      assert.equal(sent(1, 0x31, () => h.quad(physical + 8, (3n << 62n) | 0xff0000000000n)), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(1 << 24, 0x31), [3n, 1n])
    })

    test('flat logical IDs: one entry of the table for each bit', () => {
      const table = (): void => [0, 1, 2, 3].forEach(id => guest.set(id * 4, id | valid, logical))
      assert.equal(sent(0b0110, byLogical | 0x31, table), 'HLT')
      assert.deepEqual([asked(), h.doorbells], [[1, 2], [4, 5]])
      assert.equal(sent(0b1010, byLogical | 0x31, table), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual([incomplete(0b1010 << 24, byLogical | 0x31), asked()], [[1n, 3n], [1, 3]])
      assert.equal(sent(0b10010, byLogical | 0x31, table), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual([incomplete(0b10010 << 24, byLogical | 0x31), asked()], [[2n, 4n], []], 'nobody gets it')
      assert.equal(sent(0, byLogical | 0x31, table), 'HLT')
    })

    test('clusters: 15 of four', () => {
      const table = (): void => {
        guest.set(0xe0, 0x0fffffff)
        guest.set(4 * (4 * 5 + 1), 1 | valid, logical)
        guest.set(4 * (4 * 5 + 2), 2 | valid, logical)
      }
      assert.equal(sent(0x56, byLogical | 0x31, table), 'HLT')
      assert.deepEqual(asked(), [1, 2])
      assert.equal(sent(0x51, byLogical | 0x31, table), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(0x51 << 24, byLogical | 0x31), [2n, 20n])
      assert.equal(sent(0xf1, byLogical | 0x31, table), 'AVIC_INCOMPLETE_IPI')
      assert.equal(incomplete(0xf1 << 24, byLogical | 0x31)[0], 2n)
      assert.equal(sent(1, byLogical | 0x31, () => guest.set(0xe0, 0x3fffffff)), 'AVIC_INCOMPLETE_IPI')
      assert.equal(incomplete(1 << 24, byLogical | 0x31)[0], 0n, 'no such model')
    })

    test('x2AVIC: wide destinations, logical IDs without a table, self IPIs', () => {
      assert.equal(sentByMsr(1, 0x31), 'HLT')
      assert.deepEqual([asked(), h.doorbells, guest.get(0x300), guest.get(0x310)], [[1], [4], 0x31, 1])
      assert.equal(sentByMsr(0b0110, byLogical | 0x31), 'HLT')
      assert.deepEqual(asked(), [1, 2])
      assert.equal(sentByMsr(0x2_0002, byLogical | 0x31), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(0x2_0002, byLogical | 0x31), [2n, 0x21n])
      assert.equal(sentByMsr(-1, 0x31), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual([incomplete(-1, 0x31), asked()], [[1n, 3n], [0, 1, 2, 3]])
      assert.equal(sentByMsr(0xff, 0x31), 'AVIC_INCOMPLETE_IPI')
      assert.deepEqual(incomplete(0xff, 0x31), [2n, 0xffn], 'FFH is an ID like others')
      guest.prepare([sti, ...wrmsr(0x83f, 0x31), nop], {}, true)
      guest.handle(0x31)
      assert.equal(guest.run(), 'VMMCALL')
      assert.deepEqual(guest.vectors(0x100), [0x31])
    })
  })
