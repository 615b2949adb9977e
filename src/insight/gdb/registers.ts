/** GDB's registers (target.ts) as parts of the public picture of a CPU, both ways. */
import type { CpuRegisters } from '../../api.ts'
import type { RegisterValues } from './target.ts'

/** GDB's order is not the instruction encoding's. */
const GENERAL = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')
const LOW_64 = (1n << 64n) - 1n

type SegmentName = 'cs' | 'ss' | 'ds' | 'es' | 'fs' | 'gs'
const isSegment = (name: string): name is SegmentName => /^[cdefgs]s$/.test(name)
const isControl = (name: string): name is 'cr0' | 'cr2' | 'cr3' | 'cr4' | 'cr8' | 'efer' => /^(cr[02348]|efer)$/.test(name)

/** All registers that the public picture has. FPU pointers and opcode, and KERNEL_GS_BASE, are not in it and read as zero. */
export function gdbRegisters(registers: CpuRegisters): RegisterValues {
  const values: RegisterValues = { rip: registers.rip, eflags: registers.rflags, mxcsr: BigInt(registers.mxcsr) }
  GENERAL.forEach((name, i) => (values[name] = registers.gpr[i]))
  for (const name of ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const) values[name] = BigInt(registers.segments[name].selector)
  for (const name of ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'] as const) values[name] = registers[name]
  values.fs_base = registers.segments.fs.base
  values.gs_base = registers.segments.gs.base
  registers.xmm.forEach(({ low, high }, i) => (values[`xmm${i}`] = (high << 64n) | low))
  registers.ymmHigh.forEach(({ low, high }, i) => (values[`ymm${i}h`] = (high << 64n) | low))
  registers.x87.st.forEach((value, i) => (values[`st${i}`] = value))
  values.fctrl = BigInt(registers.x87.control)
  values.fstat = BigInt(registers.x87.status)
  values.ftag = BigInt(registers.x87.tag)
  return values
}

/** The change that writing one register means; undefined for a register that cannot be written. */
export function registerChange(now: CpuRegisters, name: string, value: bigint): Partial<CpuRegisters> | undefined {
  const general = GENERAL.indexOf(name)
  if (general >= 0) return { gpr: now.gpr.with(general, value) }
  if (name === 'rip') return { rip: value }
  if (name === 'eflags') return { rflags: value }
  if (name === 'mxcsr') return { mxcsr: Number(value) }
  if (isControl(name)) return { [name]: value }
  if (isSegment(name)) return { segments: { ...now.segments, [name]: { ...now.segments[name], selector: Number(value) } } }
  if (name === 'fs_base' || name === 'gs_base') {
    const segment = name === 'fs_base' ? 'fs' : 'gs'
    return { segments: { ...now.segments, [segment]: { ...now.segments[segment], base: value } } }
  }
  const vector = /^xmm(\d+)$/.exec(name)
  if (vector) return { xmm: now.xmm.with(Number(vector[1]), { low: value & LOW_64, high: value >> 64n }) }
  const upper = /^ymm(\d+)h$/.exec(name)
  if (upper) return { ymmHigh: now.ymmHigh.with(Number(upper[1]), { low: value & LOW_64, high: value >> 64n }) }
  const floating = /^st(\d)$/.exec(name)
  if (floating) return { x87: { ...now.x87, st: now.x87.st.with(Number(floating[1]), value) } }
  if (name === 'fctrl') return { x87: { ...now.x87, control: Number(value) } }
  if (name === 'fstat') return { x87: { ...now.x87, status: Number(value) } }
  if (name === 'ftag') return { x87: { ...now.x87, tag: Number(value) } }
  return undefined
}
