/** An assembler for guests of ours: 64-bit code of a few instructions, written as it reads. Intel SDM vol. 2, "Instruction Format". */
import { register, type RegisterName } from './port.ts'

type Label = string
/** An operand in memory: a register and a displacement, in bytes. */
export interface Memory {
  readonly base: RegisterName
  readonly displacement: number
}
/** `mem('rbx', 8)`: what lies at RBX + 8. */
export const mem = (base: RegisterName, displacement = 0): Memory => ({ base, displacement })

const arithmetic = { add: 0, or: 1, and: 4, sub: 5, xor: 6, cmp: 7 } as const
const conditions = { o: 0, no: 1, b: 2, ae: 3, e: 4, ne: 5, be: 6, a: 7, s: 8, ns: 9, l: 12, ge: 13, le: 14, g: 15 } as const
const shifts = { shl: 4, shr: 5 } as const

/** Instructions without operands. */
const plain = {
  hlt: [0xf4], nop: [0x90], pause: [0xf3, 0x90], cli: [0xfa], sti: [0xfb], cpuid: [0x0f, 0xa2], rdtsc: [0x0f, 0x31], rdmsr: [0x0f, 0x32],
  wrmsr: [0x0f, 0x30], ud2: [0x0f, 0x0b], ret: [0xc3], iretq: [0x48, 0xcf], vmcall: [0x0f, 0x01, 0xc1], vmmcall: [0x0f, 0x01, 0xd9],
  repMovsq: [0xf3, 0x48, 0xa5], repStosq: [0xf3, 0x48, 0xab], fninit: [0xdb, 0xe3], fld1: [0xd9, 0xe8], faddSt1: [0xd8, 0xc1],
} as const
type Plain = keyof typeof plain

const bytesOf = (value: number | bigint, count: number): number[] =>
  Array.from({ length: count }, (_, i) => Number((BigInt.asUintN(count * 8, BigInt(value)) >> BigInt(i * 8)) & 0xffn))
const fitsByte = (value: number): boolean => value >= -128 && value <= 127

/**
 * Writes 64-bit code, one instruction a call; each returns the assembler. Throws for labels that are missing or there twice, when it
 * assembles. Intel SDM vol. 2, "Instruction Set Reference".
 */
export class Assembler {
  readonly origin: number
  private readonly bytes: number[] = []
  private readonly labels = new Map<Label, number>()
  private readonly fixes: { at: number; label: Label; absolute: boolean }[] = []

  /** The code's linear address, and whose processor it runs on. */
  constructor(origin: number, vendor: 'intel' | 'amd' = 'intel') {
    this.origin = origin
    this.vendor = vendor
  }
  private readonly vendor: 'intel' | 'amd'

  private emit(...bytes: number[]): this {
    this.bytes.push(...bytes)
    return this
  }
  label(name: Label): this {
    if (this.labels.has(name)) throw new Error(`the label '${name}' is there twice`)
    this.labels.set(name, this.bytes.length)
    return this
  }
  /** Linear address of a label that was defined. */
  addressOf(name: Label): number {
    const at = this.labels.get(name)
    if (at === undefined) throw new Error(`there is no label '${name}'`)
    return this.origin + at
  }

  /** REX, opcode, ModRM of a register and a register or memory operand. */
  private modRm(opcode: number[], reg: number, rm: RegisterName | Memory, wide = true, prefix: number[] = []): this {
    const isRegister = typeof rm === 'string'
    const base = register[isRegister ? rm : rm.base]
    const rex = 0x40 | (wide ? 8 : 0) | (reg & 8 ? 4 : 0) | (base & 8 ? 1 : 0)
    this.emit(...prefix, ...(rex === 0x40 ? [] : [rex]), ...opcode)
    if (isRegister) return this.emit(0xc0 | ((reg & 7) << 3) | (base & 7))
    const small = fitsByte(rm.displacement)
    this.emit((small ? 0x40 : 0x80) | ((reg & 7) << 3) | (base & 7))
    if ((base & 7) === 4) this.emit(0x24)
    return this.emit(...bytesOf(rm.displacement, small ? 1 : 4))
  }

  /** The address of a label, or a number. */
  mov(to: RegisterName, value: number | bigint | RegisterName | { label: Label }): this {
    const number = register[to]
    if (typeof value === 'string') return this.modRm([0x89], register[value], to)
    if (typeof value === 'object') {
      this.modRm([0xc7], 0, to)
      this.fixes.push({ at: this.bytes.length, label: value.label, absolute: true })
      return this.emit(0, 0, 0, 0)
    }
    if (value >= 0 && value < 0x80000000) return this.modRm([0xc7], 0, to).emit(...bytesOf(value, 4))
    return this.emit(0x48 | (number & 8 ? 1 : 0), 0xb8 | (number & 7), ...bytesOf(value, 8))
  }
  load(to: RegisterName, from: Memory): this {
    return this.modRm([0x8b], register[to], from)
  }
  store(to: Memory, from: RegisterName): this {
    return this.modRm([0x89], register[from], to)
  }
  load32(to: RegisterName, from: Memory): this {
    return this.modRm([0x8b], register[to], from, false)
  }
  store32(to: Memory, from: RegisterName): this {
    return this.modRm([0x89], register[from], to, false)
  }
  private arithmetic(name: keyof typeof arithmetic, to: RegisterName, value: number | RegisterName): this {
    if (typeof value === 'string') return this.modRm([(arithmetic[name] << 3) | 1], register[value], to)
    return this.modRm([0x81], arithmetic[name], to).emit(...bytesOf(value, 4))
  }
  add(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('add', to, value) }
  sub(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('sub', to, value) }
  and(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('and', to, value) }
  or(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('or', to, value) }
  xor(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('xor', to, value) }
  cmp(to: RegisterName, value: number | RegisterName): this { return this.arithmetic('cmp', to, value) }
  imul(to: RegisterName, by: RegisterName): this {
    return this.modRm([0x0f, 0xaf], register[to], by)
  }
  shift(name: keyof typeof shifts, to: RegisterName, count: number): this {
    return this.modRm([0xc1], shifts[name], to).emit(count)
  }
  push(name: RegisterName): this {
    return this.emit(...(register[name] & 8 ? [0x41] : []), 0x50 | (register[name] & 7))
  }
  pop(name: RegisterName): this {
    return this.emit(...(register[name] & 8 ? [0x41] : []), 0x58 | (register[name] & 7))
  }

  private relative(opcode: number[], label: Label): this {
    this.emit(...opcode)
    this.fixes.push({ at: this.bytes.length, label, absolute: false })
    return this.emit(0, 0, 0, 0)
  }
  jmp(label: Label): this {
    return this.relative([0xe9], label)
  }
  call(label: Label): this {
    return this.relative([0xe8], label)
  }
  /** `if('ne', 'loop')`: JNE loop. */
  if(condition: keyof typeof conditions, label: Label): this {
    return this.relative([0x0f, 0x80 | conditions[condition]], label)
  }

  /** OUT and IN of AL, at an immediate port. */
  out(port: number): this {
    return this.emit(0xe6, port)
  }
  in(port: number): this {
    return this.emit(0xe4, port)
  }
  /** The same of AL, at port DX. */
  outDx(): this {
    return this.emit(0xee)
  }
  inDx(): this {
    return this.emit(0xec)
  }
  /** EAX to port DX, and from it. */
  out32Dx(): this {
    return this.emit(0xef)
  }
  in32Dx(): this {
    return this.emit(0xed)
  }
  mov64ToXmm0(from: RegisterName): this {
    return this.modRm([0x0f, 0x6e], 0, from, true, [0x66])
  }
  movXmm0To64(to: RegisterName): this {
    return this.modRm([0x0f, 0x7e], 0, to, true, [0x66])
  }
  /** PADDQ XMM0, XMM0 */
  doubleXmm0(): this {
    return this.emit(0x66, 0x0f, 0xd4, 0xc0)
  }
  /** MOV DR0, register */
  movDr0(from: RegisterName): this {
    return this.emit(0x0f, 0x23, 0xc0 | register[from])
  }
  movFromDr0(to: RegisterName): this {
    return this.emit(0x0f, 0x21, 0xc0 | register[to])
  }
  movToCr3(from: RegisterName): this {
    return this.emit(0x0f, 0x22, 0xd8 | register[from])
  }
  invlpg(at: Memory): this {
    return this.modRm([0x0f, 0x01], 7, at, false)
  }
  lidt(at: Memory): this {
    return this.modRm([0x0f, 0x01], 3, at, false)
  }
  /** VMCALL on Intel, VMMCALL on AMD. */
  hypercall(): this {
    return this.op(this.vendor === 'intel' ? 'vmcall' : 'vmmcall')
  }
  op(...names: Plain[]): this {
    for (const name of names) this.emit(...plain[name])
    return this
  }
  /** Bytes as they are; text as ASCII. */
  data(what: readonly number[] | string): this {
    return this.emit(...(typeof what === 'string' ? [...what].map(letter => letter.charCodeAt(0)) : what))
  }
  align(to: number): this {
    while (this.bytes.length % to) this.emit(0xcc)
    return this
  }

  /** The machine code. */
  assemble(): Uint8Array {
    const out = Uint8Array.from(this.bytes)
    const view = new DataView(out.buffer)
    for (const { at, label, absolute } of this.fixes) {
      const target = this.labels.get(label)
      if (target === undefined) throw new Error(`there is no label '${label}'`)
      view.setInt32(at, absolute ? this.origin + target : target - at - 4, true)
    }
    return out
  }
}
