/**
 * What comes first, and what a fault says of itself: exceptions before intercepts, faults while events are delivered and while tasks are
 * switched. AMD APM vol. 2, "Intercept Operation", "Event Injection", "Exceptions and Interrupts", "Task Switch".
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exitName } from '../../src/virt/svm/exit-codes.ts'
import type { VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmmcall = [0x0f, 0x01, 0xd9]
const ud2 = [0x0f, 0x0b]
/** No page is there. */
const nowhere = 0x40000018n
const handler = BigInt(place.guest + 0x100)
/** Attributes in a VMCB. */
const attributes = { code32: 0xc9bn, userCode64: 0xafbn, userData: 0xcf3n, busyTss32: 0x8bn }
const [oldTss, newTss] = [0x60000, 0x61000]

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const h = createHypervisor('amd', jit)
    const { state } = h.core
    const exceptions = (...vectors: number[]): void => {
      h.write('exceptionIntercepts', vectors.reduce((bits, vector) => bits | (1n << BigInt(vector)), 0n))
    }
    const write = (fields: Partial<Record<VmcbFieldName, bigint>>): void => {
      for (const [name, value] of Object.entries(fields)) h.write(name as VmcbFieldName, value)
    }
    const launch = (code: readonly number[], setUp: () => void): string => {
      h.restart()
      h.load(place.guest, code)
      setUp()
      h.run()
      return exitName(Number(h.read('exitCode')))
    }
    /** A 64-bit gate to `handler`, at level 0. */
    const gate = (vector: number): void => {
      h.load(place.gdt + 8, [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0])
      h.quad(place.idt + vector * 16, (handler & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((handler >> 16n) << 48n))
    }

    test('paging cannot end in 64-bit code, nor PAE in long mode: #GP, not the intercept of the write', () => {
      const toCr = (register: number, value: bigint): string => launch([0x0f, 0x22, 0xc3 | (register << 3)], () => {
        h.write('crIntercepts', 0xffff0000n)
        exceptions(13)
        state.gpr[3] = value
      })
      assert.deepEqual([toCr(0, 0x31n), toCr(4, 0x600n)], ['EXCP13', 'EXCP13'])
      assert.deepEqual([toCr(0, 0x80000033n), toCr(4, 0x620n)], ['CR0_WRITE', 'CR4_WRITE'])
    })

    test('debug registers: DE, GD and bits above 32 come before the intercept', () => {
      const toDr = (register: number, value: bigint, fields: Partial<Record<VmcbFieldName, bigint>> = {}): string =>
        launch([0x0f, 0x23, 0xc3 | (register << 3)], () => {
          h.write('drIntercepts', 0xffffffffn)
          exceptions(1, 6, 13)
          write(fields)
          state.gpr[3] = value
        })
      assert.equal(toDr(4, 0n, { cr4: 0x628n }), 'EXCP6')
      assert.equal(toDr(0, 0n, { dr7: 0x2400n }), 'EXCP1')
      assert.deepEqual([toDr(6, 1n << 32n), toDr(7, 1n << 32n)], ['EXCP13', 'EXCP13'])
      assert.deepEqual([toDr(0, 1n << 32n), toDr(7, 0x400n)], ['DR0_WRITE', 'DR7_WRITE'])
    })

    test('VMRUN makes bases canonical, bit 10 of DR7 1, and RIP 32 bits long outside of 64-bit code', () => {
      assert.equal(launch(vmmcall, () => write({ gdtrBase: 0x9000_0000_0000n, idtrBase: 0x1234_7000_0000_0000n, dr7: 0n })), 'VMMCALL')
      assert.deepEqual([h.read('gdtrBase'), h.read('idtrBase'), h.read('dr7')], [0xffff_9000_0000_0000n, 0x7000_0000_0000n, 0x400n])
      const rip = BigInt(place.guest)
      assert.equal(launch(vmmcall, () => write({ csAttributes: attributes.code32, rip: rip | (1n << 32n) })), 'VMMCALL')
      assert.equal(h.read('rip'), rip)
    })

    test('a frame that cannot be pushed faults at its first quadword, SS', () => {
      assert.equal(launch(ud2, () => {
        gate(6)
        exceptions(14)
        h.write('rsp', nowhere)
      }), 'EXCP14')
      assert.deepEqual([h.read('exitInfo1'), h.read('exitInfo2'), h.read('exitInterrupt')], [2n, 0x40000008n, 0x80000306n])
    })

    test('two page faults are a double fault, with the address of the second in CR2', () => {
      assert.equal(launch([0x48, 0x8b, 0x07], () => {
        gate(14)
        exceptions(8)
        h.write('rsp', nowhere)
        state.gpr[7] = 0x50000000n
      }), 'EXCP8')
      assert.equal(h.read('cr2'), 0x40000008n)
    })

    test('the exception of BOUND leaves RIP at it, and nRIP behind it', () => {
      assert.equal(launch([0x62, 0x07], () => {
        h.write('csAttributes', attributes.code32)
        exceptions(5)
        h.write('rax', 5n)
        state.gpr[7] = 0x50000n
      }), 'EXCP5')
      assert.deepEqual([h.read('rip'), h.read('nextRip')], [BigInt(place.guest), BigInt(place.guest + 2)])
    })

    test('#BP that is injected asks for the privilege of its gate, as INT3 does', () => {
      const inject = (vector: bigint): string => launch(vmmcall, () => {
        gate(Number(vector))
        exceptions(13)
        write({ csSelector: 0x1bn, csAttributes: attributes.userCode64, ssSelector: 0x23n, ssAttributes: attributes.userData, cpl: 3n,
          eventInjection: 0x80000300n | vector })
      })
      assert.equal(inject(3n), 'EXCP13')
      assert.deepEqual([h.read('exitInfo1'), h.read('exitInterrupt')], [3n * 8n + 2n, 0x80000303n])
    })

    describe('tasks', () => {
      const dword = (address: number, value: number): void => h.load(address, new Uint8Array(Int32Array.of(value).buffer))
      /** 32-bit code without paging, in a task of its own, and another task that starts at `handler`. */
      const tasks = (): void => {
        write({ cr0: 0x11n, cr4: 0n, efer: 0x1000n, csAttributes: attributes.code32, trSelector: 0x18n, trAttributes: attributes.busyTss32,
          trBase: BigInt(oldTss), trLimit: 0x67n })
        const flat = (access: number): number[] => [0xff, 0xff, 0, 0, 0, access, 0xcf, 0]
        const task = (base: number, access: number): number[] => [0x67, 0, base & 0xff, (base >> 8) & 0xff, base >> 16, access, 0, 0]
        h.load(place.gdt + 8, [...flat(0x9b), ...flat(0x93), ...task(oldTss, 0x8b), ...task(newTss, 0x89)])
        h.load(newTss, new Uint8Array(0x68))
        const fields = { 0x20: Number(handler), 0x24: 2, 0x38: place.guestStack, 0x48: 0x10, 0x4c: 8, 0x50: 0x10, 0x54: 0x10 }
        for (const [offset, value] of Object.entries(fields)) dword(newTss + Number(offset), value)
      }

      test('what is wrong with the new task\'s LDT faults at the new task\'s first instruction', () => {
        assert.equal(launch([0xea, 0, 0, 0, 0, 0x20, 0], () => {
          tasks()
          dword(newTss + 0x60, 0x28)
          exceptions(10)
        }), 'EXCP10')
        assert.deepEqual([h.read('rip'), h.read('exitInfo1')], [handler, 0x28n])
      })

      test('a fault through a task gate would save RF = 1: EXITINFO2 says so', () => {
        assert.equal(launch(ud2, () => {
          tasks()
          h.write('intercepts3', h.read('intercepts3') | (1n << 29n))
          h.quad(place.idt + 6 * 8, (0x20n << 16n) | (0x85n << 40n))
        }), 'TASK_SWITCH')
        assert.deepEqual([h.read('exitInfo1'), h.read('exitInfo2')], [0x20n, 1n << 48n])
      })
    })
  })
