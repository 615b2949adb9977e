/** A human's picture of a CPU: registers, what led here, code around RIP. */
import type { CpuRegisters } from '../api.ts'
import type { CpuEvent } from '../cpu/event.ts'
import { disassemble, formatLine } from './disassemble.ts'

/** What a description is made from: a part of the machine. */
export interface Describable {
  registers(cpu: number): CpuRegisters
  translate(linear: bigint, cpu: number): number | undefined
  readPhysical(address: number, length: number): Uint8Array
  recentEvents(cpu: number): { rip: bigint; event: CpuEvent; retired: number }[]
}

const names = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8 ', 'r9 ', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15']
const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, '0')

export function describeCpu(machine: Describable, cpu: number): string {
  const r = machine.registers(cpu)
  const lines = [`CPU ${cpu}: rip ${hex(r.rip, 16)}  rflags ${hex(r.rflags, 8)}  cpl ${(r.segments.ss.attributes >> 5) & 3}`]
  for (let i = 0; i < 16; i += 4) lines.push('  ' + names.slice(i, i + 4).map((name, j) => `${name} ${hex(r.gpr[i + j], 16)}`).join('  '))
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const) {
    const s = r.segments[name]
    lines.push(`  ${name.padEnd(4)} ${hex(s.selector, 4)}  base ${hex(s.base, 16)}  limit ${hex(s.limit, 8)}  attributes ${hex(s.attributes, 4)}`)
  }
  lines.push(`  gdt ${hex(r.gdtr.base, 16)}/${hex(r.gdtr.limit, 4)}  idt ${hex(r.idtr.base, 16)}/${hex(r.idtr.limit, 4)}`)
  lines.push(`  cr0 ${hex(r.cr0, 8)}  cr2 ${hex(r.cr2, 16)}  cr3 ${hex(r.cr3, 16)}  cr4 ${hex(r.cr4, 8)}  efer ${hex(r.efer, 4)}`)
  const events = machine.recentEvents(cpu)
  if (events.length) lines.push('Events delivered last, newest at the end:')
  for (const { rip, event, retired } of events) lines.push(`  ${retired}: ${eventText(event)} at rip ${hex(rip, 16)}`)
  lines.push('Code at rip:', ...codeLines(machine, r, cpu))
  return lines.join('\n')
}

function eventText(event: CpuEvent): string {
  const error = event.error === undefined ? '' : `, error ${hex(event.error, 4)}`
  const address = event.vector === 14 && event.address !== undefined ? `, address ${hex(event.address, 16)}` : ''
  const during = event.during ? ` (while delivering ${eventText(event.during)})` : ''
  return `${event.kind} vector ${event.vector}${error}${address}${during}`
}

function codeLines(machine: Describable, r: CpuRegisters, cpu: number): string[] {
  const { attributes, base } = r.segments.cs
  const size = r.efer & 0x400n && attributes & 0x2000 ? 64 : attributes & 0x4000 ? 32 : 16
  const linear = size === 64 ? r.rip : BigInt.asUintN(32, r.rip + base)
  const bytes: number[] = []
  for (let i = 0n; i < 48n; i++) {
    const physical = machine.translate(linear + i, cpu)
    if (physical === undefined) break
    bytes.push(machine.readPhysical(physical, 1)[0])
  }
  if (bytes.length === 0) return ['  (not mapped)']
  return disassemble(Uint8Array.from(bytes), size, r.rip, 6).map(line => `  ${formatLine(line)}`)
}
