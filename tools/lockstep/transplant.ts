/**
 * Gives our machine the state that QEMU is in: RAM, registers, and the MSRs that neither side's interface shows. Those are read and written
 * by the guest's own instructions, placed for a moment where the CPU stands.
 */
import type { FollowedMachine } from '../../src/insight/lockstep/follow.ts'
import { attributesOf } from '../../src/insight/lockstep/qemu-trace.ts'
import type { TraceRecord } from '../../src/insight/lockstep/qemu-trace.ts'
import type { StartState } from '../../src/insight/lockstep/start.ts'
import type { Qemu } from './qemu.ts'

const PAGE = 0x1000
const CHUNK = 0x100000
const RDMSR = Uint8Array.of(0x0f, 0x32)
const WRMSR = Uint8Array.of(0x0f, 0x30)

/** SYSENTER, SYSCALL, KERNEL_GS_BASE, TSC_AUX, PAT: what software sets once and uses for ever. */
const MSRS = [0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103]

/** Ranges of physical addresses that are RAM in QEMU's `pc` with this much memory; the firmware's shadow RAM counts as such. */
export function ramRanges(memory: number): [from: number, to: number][] {
  const low = Math.min(memory, 0xc0000000)
  const ranges: [number, number][] = [
    [0, 0xa0000],
    [0xc0000, low],
  ]
  if (memory > low) ranges.push([2 ** 32, 2 ** 32 + memory - low])
  return ranges
}

/** All memory of our machine that is not zero, and its registers: where a peer is to start. */
export function startOfMachine(machine: FollowedMachine, memory: number): StartState {
  const found: StartState['memory'] = []
  for (const [from, to] of ramRanges(memory)) {
    for (let address = from; address < to; address += PAGE) {
      const bytes = machine.readPhysical(address, PAGE)
      if (bytes.some((byte) => byte !== 0)) found.push({ address, bytes: bytes.slice() })
    }
  }
  return { registers: machine.registers(), memory: found }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

/** Answers the pages that our machine did not take (ROM where QEMU has shadow RAM). */
function copyMemory(qemu: Qemu, machine: FollowedMachine, memory: number): number[] {
  const refused: number[] = []
  for (const [from, to] of ramRanges(memory)) {
    for (let at = from; at < to; at += CHUNK) {
      const length = Math.min(CHUNK, to - at)
      const theirs = qemu.readPhysical(at, length)
      if (!theirs) throw new Error(`QEMU has no RAM at ${at.toString(16)}`)
      const ours = machine.readPhysical(at, length)
      for (let page = 0; page < length; page += PAGE) {
        const bytes = theirs.subarray(page, page + PAGE)
        if (sameBytes(bytes, ours.subarray(page, page + PAGE))) continue
        machine.writePhysical(at + page, bytes)
        if (!sameBytes(bytes, machine.readPhysical(at + page, PAGE))) refused.push(at + page)
      }
    }
  }
  return refused
}

function setRegisters(machine: FollowedMachine, record: TraceRecord): void {
  const { gpr, rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr, idtr } = record
  const segments = machine.registers().segments
  for (const name of Object.keys(segments) as (keyof typeof segments)[]) {
    const { selector, base, limit, flags } = record.segments[name]
    segments[name] = { selector, base, limit, attributes: attributesOf(flags) }
  }
  machine.setRegisters({ gpr: [...gpr], rip, rflags, cr0, cr2, cr3, cr4, efer, gdtr: { ...gdtr }, idtr: { ...idtr }, segments })
}

async function copyFloating(qemu: Qemu, machine: FollowedMachine): Promise<void> {
  const values = await qemu.gdb.registers()
  const xmm = Array.from({ length: 16 }, (_, i) => ({ low: values[`xmm${i}`] & 0xffffffffffffffffn, high: values[`xmm${i}`] >> 64n }))
  const st = Array.from({ length: 8 }, (_, i) => values[`st${i}`])
  // QEMU's stub shows the tag word in its short form (FXSAVE): one bit a register.
  const x87 = { ...machine.registers().x87, control: Number(values.fctrl), status: Number(values.fstat), st }
  machine.setRegisters({ xmm, mxcsr: Number(values.mxcsr), x87 })
}

/** Reads an MSR in QEMU by a RDMSR of the guest's. Leaves everything as it was. */
async function readMsr(qemu: Qemu, record: TraceRecord, linear: bigint, msr: number): Promise<bigint> {
  const saved = await qemu.gdb.readMemory(linear, RDMSR.length)
  await qemu.gdb.writeMemory(linear, RDMSR)
  await qemu.gdb.writeRegister('rcx', BigInt(msr))
  await qemu.gdb.step()
  const { rip, rax, rdx } = await qemu.gdb.registers()
  await qemu.gdb.writeMemory(linear, saved)
  if (rip !== record.rip + 2n) throw new Error(`reading MSR ${msr.toString(16)} in QEMU faulted: start somewhere else`)
  for (const [name, i] of [['rax', 0], ['rcx', 1], ['rdx', 2]] as const) await qemu.gdb.writeRegister(name, record.gpr[i])
  await qemu.gdb.writeRegister('rip', record.rip)
  return ((rdx & 0xffffffffn) << 32n) | (rax & 0xffffffffn)
}

/** Writes an MSR in our machine by a WRMSR of the guest's. Answers false when it faults. */
function writeMsr(machine: FollowedMachine, record: TraceRecord, linear: bigint, msr: number, value: bigint): boolean {
  const physical = machine.translate(linear)
  if (physical === undefined) throw new Error(`the start at ${linear.toString(16)} is not mapped in our machine`)
  const saved = machine.readPhysical(physical, WRMSR.length).slice()
  const gpr = [...record.gpr]
  gpr[0] = value & 0xffffffffn
  gpr[1] = BigInt(msr)
  gpr[2] = value >> 32n
  machine.writePhysical(physical, WRMSR)
  machine.setRegisters({ gpr })
  machine.step()
  const done = machine.registers().rip === record.rip + 2n
  machine.writePhysical(physical, saved)
  setRegisters(machine, record)
  return done
}

/** QEMU stands still, in ring 0 unless at its start. Answers what could not be carried over, as text. */
export async function transplant(qemu: Qemu, machine: FollowedMachine, memory: number, withMsrs: boolean): Promise<string[]> {
  const record = await qemu.record()
  const remarks: string[] = []
  const refused = copyMemory(qemu, machine, memory)
  if (refused.length > 0) remarks.push(`${refused.length} pages from ${refused[0].toString(16)} on are not writable in our machine`)
  await copyFloating(qemu, machine)
  setRegisters(machine, record)
  if (!withMsrs) return remarks
  if (record.cpl !== 0) return [...remarks, 'MSRs were not copied: QEMU stands at CPL 3']
  const linear = record.codeSize === 64 ? record.rip : record.segments.cs.base + record.rip
  for (const msr of MSRS) {
    const value = await readMsr(qemu, record, linear, msr)
    if (!writeMsr(machine, record, linear, msr, value)) {
      remarks.push(`our machine refuses MSR ${msr.toString(16)} = ${value.toString(16)}`)
    }
  }
  return remarks
}
