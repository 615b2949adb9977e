/** A guest with AVIC: its backing page, tables for four APICs, and code that reads and writes registers. AMD APM vol. 2, "AVIC". */
import assert from 'node:assert/strict'
import { exitName } from '../../src/virt/svm/exit-codes.ts'
import { virtualInterrupt } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place, type Hypervisor } from './hypervisor.ts'

/** `bar` is guest-physical, in the middle of a large page of RAM. Guests 1 and 2 run on processors 4 and 5, 3 does not run. */
export const avicPlace = {
  bar: 0x345000, backing: 0x50000, physical: 0x51000, logical: 0x52000, others: 0x53000, handler: 0x40000,
} as const
export const hlt = 0xf4
export const sti = 0xfb
export const nop = 0x90

const dword = (value: number): number[] => [...new Uint8Array(Uint32Array.of(value).buffer)]
/** mov eax, value; mov [address], eax */
export const store = (address: number, value: number): number[] => [0xb8, ...dword(value), 0x89, 0x04, 0x25, ...dword(address)]
/** mov eax, [address] */
export const load = (address: number): number[] => [0x8b, 0x04, 0x25, ...dword(address)]
/** The same of a register. */
export const put = (register: number, value: number): number[] => store(avicPlace.bar + register, value)
export const get = (register: number): number[] => load(avicPlace.bar + register)
export const wrmsr = (msr: number, low: number, high = 0): number[] =>
  [0xb9, ...dword(msr), 0xb8, ...dword(low), 0xba, ...dword(high), 0x0f, 0x30]
export const rdmsr = (msr: number): number[] => [0xb9, ...dword(msr), 0x0f, 0x32]
/** mov eax, value; mov cr8, rax, and back */
export const toCr8 = (value: number): number[] => [0xb8, ...dword(value), 0x44, 0x0f, 0x22, 0xc0]
export const fromCr8 = [0x44, 0x0f, 0x20, 0xc0]

export class AvicGuest {
  readonly h: Hypervisor
  constructor(model = 'amd', jit = false) {
    this.h = createHypervisor(model, jit)
  }

  /** Nothing runs yet: the code, registers of the backing page. x2AVIC with `msrs`. */
  prepare(code: readonly number[], registers: Readonly<Record<number, number>> = {}, msrs = false): void {
    const { h } = this
    h.restart()
    const { bar, backing, physical, logical, others } = avicPlace
    for (const page of [bar, backing, physical, logical, others, others + 0x1000, others + 0x2000]) h.load(page, new Uint8Array(4096))
    h.load(place.guest, [...code, hlt])
    h.write('virtualInterrupt', BigInt((virtualInterrupt.avicEnable | (msrs ? virtualInterrupt.x2avicEnable : 0)) >>> 0))
    h.write('apicBar', BigInt(bar))
    h.write('apicBackingPage', BigInt(backing))
    h.write('apicLogicalTable', BigInt(logical))
    h.write('apicPhysicalTable', BigInt(physical + 7))
    const valid = 1n << 63n
    const running = 1n << 62n
    ;[BigInt(backing) | valid | running, BigInt(others) | valid | running | 4n, BigInt(others + 0x1000) | valid | running | 5n,
      BigInt(others + 0x2000) | valid | 6n].forEach((entry, i) => h.quad(physical + i * 8, entry))
    h.quad(place.gdt + 8, 0x00af9b000000ffffn)
    this.set(0xe0, -1)
    for (const [register, value] of Object.entries(registers)) this.set(Number(register), value)
  }
  /** To the exit, whose name it returns. */
  run(): string {
    this.h.run()
    return exitName(Number(BigInt.asIntN(32, this.h.read('exitCode'))))
  }
  launch(code: readonly number[], registers?: Readonly<Record<number, number>>, msrs?: boolean): string {
    this.prepare(code, registers, msrs)
    return this.run()
  }
  /** The handler of a vector, which leaves the guest unless it says something else. */
  handle(vector: number, code: readonly number[] = [0x0f, 0x01, 0xd9]): void {
    const at = avicPlace.handler + vector * 256
    this.h.load(at, code)
    this.h.quad(place.idt + vector * 16, BigInt(at & 0xffff) | (8n << 16n) | (0x8en << 40n) | (BigInt(at >>> 16) << 48n))
    this.h.quad(place.idt + vector * 16 + 8, 0n)
  }

  set(register: number, value: number, page: number = avicPlace.backing): void {
    this.h.load(page + register, dword(value))
  }
  get(register: number, page: number = avicPlace.backing): number {
    const bytes = new Uint8Array(4)
    this.h.core.physical.peek(page + register, bytes)
    return new DataView(bytes.buffer).getUint32(0, true)
  }
  /** Vectors whose bit is set. */
  vectors(register: number, page: number = avicPlace.backing): number[] {
    return Array.from({ length: 256 }, (_, vector) => vector)
      .filter(vector => (this.get(register + (vector >> 5) * 16, page) >>> (vector & 31)) & 1)
  }
  /** EXITINFO1, EXITINFO2 and how far RIP has come. */
  get info(): [bigint, bigint, number] {
    assert.equal(this.h.read('nextRip') === 0n, exitName(Number(this.h.read('exitCode'))).startsWith('AVIC'))
    return [this.h.read('exitInfo1'), this.h.read('exitInfo2'), Number(this.h.read('rip')) - place.guest]
  }
}
