/** A human's picture of a CPU: registers, what led here, code around RIP. */
import type { CpuRegisters } from '../api.ts'
import type { CpuEvent } from '../cpu/event.ts'
import { disassemble, formatLine } from './disassemble.ts'

/** What a description is made from: a part of the machine. */
export interface Describable {
  registers(cpu: number): CpuRegisters
  translate(linear: bigint, cpu: number): number | undefined
  readPhysical(address: number, length: number): Uint8Array
  recentEvents(cpu: number): readonly { rip: bigint; event: CpuEvent; retired: number }[]
}

const names = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8 ', 'r9 ', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15']
const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, '0')

/** Registers, the events delivered last and the code at RIP: lines for people. */
export function describeCpu(machine: Describable, cpu: number): string {
  const r = machine.registers(cpu)
  const lines = [`CPU ${cpu}: rip ${hex(r.rip, 16)}  rflags ${hex(r.rflags, 8)}  cpl ${(r.segments.ss.attributes >> 5) & 3}`]
  for (let i = 0; i < 16; i += 4)
    lines.push(
      '  ' +
        names
          .slice(i, i + 4)
          .map((name, j) => `${name} ${hex(r.gpr[i + j], 16)}`)
          .join('  '),
    )
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const) {
    const s = r.segments[name]
    lines.push(
      `  ${name.padEnd(4)} ${hex(s.selector, 4)}  base ${hex(s.base, 16)}  limit ${hex(s.limit, 8)}  attributes ${hex(s.attributes, 4)}`,
    )
  }
  lines.push(`  gdt ${hex(r.gdtr.base, 16)}/${hex(r.gdtr.limit, 4)}  idt ${hex(r.idtr.base, 16)}/${hex(r.idtr.limit, 4)}`)
  lines.push(`  cr0 ${hex(r.cr0, 8)}  cr2 ${hex(r.cr2, 16)}  cr3 ${hex(r.cr3, 16)}  cr4 ${hex(r.cr4, 8)}  efer ${hex(r.efer, 4)}`)
  const events = machine.recentEvents(cpu)
  if (events.length) lines.push('Events delivered last, newest at the end:')
  for (const { rip, event, retired } of events) lines.push(`  ${retired}: ${eventText(event)} at rip ${hex(rip, 16)}`)
  const obstacle = events.length ? deliveryObstacle(machine, r, events.at(-1)!.event.vector, cpu) : undefined
  if (obstacle !== undefined) lines.push(`  The last one cannot be delivered: ${obstacle}`)
  lines.push('Code at rip:', ...codeLines(machine, r, cpu))
  return lines.join('\n')
}

function eventText(event: CpuEvent): string {
  const error = event.error === undefined ? '' : `, error ${hex(event.error, 4)}`
  const address = event.vector === 14 && event.address !== undefined ? `, address ${hex(event.address, 16)}` : ''
  const during = event.during ? ` (while delivering ${eventText(event.during)})` : ''
  const name = mnemonics[event.vector]
  return `${event.kind} vector ${event.vector}${name && event.kind === 'exception' ? ` #${name}` : ''}${error}${address}${during}`
}

/** Intel SDM vol. 3, "Exception and Interrupt Reference". */
const mnemonics: Readonly<Record<number, string>> = {
  0: 'DE', 1: 'DB', 3: 'BP', 4: 'OF', 5: 'BR', 6: 'UD', 7: 'NM', 8: 'DF',
  10: 'TS', 11: 'NP', 12: 'SS', 13: 'GP', 14: 'PF', 16: 'MF', 17: 'AC', 18: 'MC', 19: 'XM',
}

/** What is wrong with the gate of a vector, if that can be seen. Intel SDM vol. 3, "IDT Descriptors" and "64-Bit Mode IDT". */
function deliveryObstacle(machine: Describable, r: CpuRegisters, vector: number, cpu: number): string | undefined {
  const real = (r.cr0 & 1n) === 0n
  const size = real ? 4 : r.efer & 0x400n ? 16 : 8
  const offset = vector * size
  if (offset + size - 1 > r.idtr.limit) return `the IDT (limit ${hex(r.idtr.limit, 4)}) has no entry ${vector}`
  const physical = machine.translate(r.idtr.base + BigInt(offset), cpu)
  if (physical === undefined) return `the IDT's entry ${vector} at ${hex(r.idtr.base + BigInt(offset), 16)} is not mapped`
  if (real) return undefined
  const access = machine.readPhysical(physical + 5, 1)[0]
  const gates = size === 16 ? [0xe, 0xf] : [0x5, 0x6, 0x7, 0xe, 0xf]
  if (!gates.includes(access & 0x1f)) return `the IDT's entry ${vector} is no gate (type ${hex(access & 0x1f, 2)})`
  return access & 0x80 ? undefined : `the IDT's gate ${vector} is not present`
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
