/**
 * What every guest finds: code, stack and data, descriptor tables, page tables of every mode, nested page tables, permission maps, a VMCB
 * that passes every check. All of it is compared after each exit, but the maps. AMD APM vol. 2, "VMRUN Instruction", "Nested Paging".
 */
import { vmcbFields, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'

const arena = 0x10000
const page = (i: number): number => arena + i * 0x1000
/** Physical addresses, which are the guest's linear ones too. */
export const place = { arena, code: page(0), stack: page(1), data: page(2), gdt: page(3), idt: page(4), pml4: page(5), pdpt: page(6),
  directory: page(7), table: page(8), paePdpt: page(9), legacyDirectory: page(10), legacyTable: page(11), nestedPml4: page(12),
  nestedPdpt: page(13), nestedDirectory: page(14), nestedTable: page(15), registers: page(16), vmcb: page(17), iopm: page(18),
  msrpm: page(21), handlers: page(0) + 0x800, idt32: page(2) + 0x800, ivt: page(2) + 0xc00, tss64: page(3) + 0x800,
  tss32: page(3) + 0x900, otherTss: page(3) + 0xa00, task: page(0) + 0x700, stackTop: page(1) + 0xf00 } as const
/** Bytes. */
export const inArena = { compared: 18 * 0x1000, size: 23 * 0x1000 } as const

export const selector = { code64: 0x08, data: 0x10, code32: 0x18, code16: 0x20, userCode64: 0x2b, userData: 0x33, userCode32: 0x3b,
  tss64: 0x40, tss32: 0x50, otherTss: 0x58, taskGate: 0x60, callGate: 0x68, absentData: 0x70, absentCode: 0x78 } as const

/** HLT everywhere, so that who gets lost leaves; vector n is handled by VMMCALL at `handlers` + 16n. */
const halt = 0xf4
const vmmcall = [0x0f, 0x01, 0xd9]
const handledVectors = 64

const tssDescriptor = (base: number, type: number): bigint =>
  0x67n | (BigInt(base & 0xffffff) << 16n) | (BigInt(type) << 40n) | (BigInt(base >>> 24) << 56n)
const gate = (target: number, code: number, type: number): bigint =>
  BigInt(target & 0xffff) | (BigInt(code) << 16n) | (BigInt(type) << 40n) | (BigInt(target >>> 16) << 48n)

const descriptors: readonly bigint[] = [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cf9b000000ffffn, 0x000f9b000000ffffn,
  0x00affb000000ffffn, 0x00cff3000000ffffn, 0x00cffb000000ffffn, tssDescriptor(place.tss64, 0x8b), 0n, tssDescriptor(place.tss32, 0x8b),
  tssDescriptor(place.otherTss, 0x89), gate(0, selector.otherTss, 0x85), gate(place.handlers, selector.code32, 0x8c), 0x00cf13000000ffffn,
  0x00cf1b000000ffffn]

function fillTables(quad: (address: number, value: bigint) => void, word: (address: number, value: number) => void): void {
  const link = (from: number, to: number): void => quad(from, BigInt(to) | 7n)
  link(place.pml4, place.pdpt)
  link(place.pdpt, place.directory)
  link(place.directory, place.table)
  link(place.nestedPml4, place.nestedPdpt)
  link(place.nestedPdpt, place.nestedDirectory)
  link(place.nestedDirectory, place.nestedTable)
  for (let i = 1; i < 4; i++) {
    quad(place.directory + i * 8, BigInt(i * 0x200000) | 0xe7n)
    quad(place.nestedDirectory + i * 8, BigInt(i * 0x200000) | 0xe7n)
  }
  // 512 small pages; the 32-bit table has as many of its 1,024
  for (let i = 0; i < 512; i++) {
    quad(place.table + i * 8, BigInt(i * 0x1000) | 0x67n)
    quad(place.nestedTable + i * 8, BigInt(i * 0x1000) | 0x67n)
    word(place.legacyTable + i * 4, (i * 0x1000) | 0x67)
  }
  quad(place.paePdpt, BigInt(place.directory) | 1n)
  word(place.legacyDirectory, place.legacyTable | 7)
  word(place.legacyDirectory + 4, 0x4000e7)
}

function fillTss(word: (address: number, value: number) => void): void {
  word(place.tss64 + 4, place.stack + 0x800)
  word(place.tss64 + 0x66, 0x680000)
  for (const [i, tss] of [place.tss32, place.otherTss].entries()) {
    const fields: Record<number, number> = { 4: place.stack + 0x800, 8: selector.data, 0x1c: place.pml4, 0x20: place.task, 0x24: 2,
      0x38: place.stack + 0x600 + i * 0x80, 0x48: selector.data, 0x4c: selector.code32, 0x50: selector.data, 0x54: selector.data,
      0x58: selector.data, 0x5c: selector.data, 0x64: 0x680000 }
    for (const [offset, value] of Object.entries(fields)) word(tss + Number(offset), value)
  }
}

export function initialArena(): Uint8Array {
  const bytes = new Uint8Array(inArena.size)
  const view = new DataView(bytes.buffer)
  const quad = (address: number, value: bigint): void => view.setBigUint64(address - arena, value, true)
  const word = (address: number, value: number): void => view.setUint32(address - arena, value, true)
  bytes.fill(halt, 0, 0x1000)
  for (let i = 0; i < handledVectors; i++) {
    const handler = place.handlers + i * 16
    bytes.set(vmmcall, handler - arena)
    quad(place.idt + i * 16, gate(handler, selector.code64, 0x8e))
    if (i < 48) quad(place.idt32 + i * 8, gate(handler, selector.code32, 0x8e))
    if (i < 48) word(place.ivt + i * 4, ((place.code >>> 4) << 16) | (handler & 0xffff))
  }
  descriptors.forEach((value, i) => quad(place.gdt + i * 8, value))
  fillTss(word)
  fillTables(quad, word)
  for (let i = 0; i < 14; i++) quad(place.registers + 8 + i * 8, BigInt(0x1110 + i * 0x101))
  for (const [name, value] of Object.entries(initialFields) as [VmcbFieldName, bigint][])
    for (let i = 0; i < vmcbFields[name].size; i++)
      bytes[place.vmcb - arena + vmcbFields[name].offset + i] = Number((value >> BigInt(8 * i)) & 0xffn)
  return bytes
}

const segments = (): Partial<Record<VmcbFieldName, bigint>> => {
  const fields: Partial<Record<VmcbFieldName, bigint>> = {}
  for (const name of ['es', 'ss', 'ds', 'fs', 'gs', 'cs'] as const) {
    fields[`${name}Selector`] = BigInt(name === 'cs' ? selector.code64 : selector.data)
    fields[`${name}Attributes`] = name === 'cs' ? 0xa9bn : 0xc93n
    fields[`${name}Limit`] = 0xffffffffn
  }
  return fields
}

/** Fields that are not 0 to begin with: 64-bit code; INTR, HLT, SHUTDOWN, VMRUN and VMMCALL are intercepted; V_INTR_MASKING. */
export const initialFields: Readonly<Partial<Record<VmcbFieldName, bigint>>> = {
  intercepts3: (1n << 0n) | (1n << 24n) | (1n << 31n), intercepts4: 3n, iopmBase: BigInt(place.iopm), msrpmBase: BigInt(place.msrpm),
  asid: 1n, tlbControl: 1n, virtualInterrupt: 1n << 24n, gPat: 0x0007040600070406n, nestedCr3: BigInt(place.nestedPml4),
  cr0: 0x80000031n, cr3: BigInt(place.pml4), cr4: 0x620n, efer: 0x1500n, dr6: 0xffff0ff0n, dr7: 0x400n, rflags: 2n,
  rip: BigInt(place.code), rsp: BigInt(place.stackTop), gdtrBase: BigInt(place.gdt), gdtrLimit: BigInt(descriptors.length * 8 - 1),
  idtrBase: BigInt(place.idt), idtrLimit: 0xfffn, ...segments(), trSelector: BigInt(selector.tss64), trAttributes: 0x8bn, trLimit: 0x67n,
  trBase: BigInt(place.tss64), ldtrAttributes: 0n, star: 0x0018000800000000n, lstar: BigInt(place.handlers), rax: 0xa0a0n,
}
