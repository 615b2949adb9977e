/**
 * The registers that an i386:x86-64 target has towards GDB: their numbers, widths and names, the target description that announces them,
 * and the packing of the `g` packet. Follows "Debugging with GDB", appendix "Target Descriptions", section "i386 Features", and QEMU's stub
 * for the system registers, so that scripts written for QEMU's stub work here.
 */
import { fromHexLittleEndian, toHexLittleEndian } from './protocol.ts'

export interface TargetRegister {
  name: string
  /** Width in bits: a multiple of 8. */
  bits: number
  /** GDB's type name in the target description. */
  type: string
  /** GDB's register group, where it is not `general`. */
  group?: string
}

/** One feature of a target description: GDB knows the `org.gnu.gdb` ones by name and wants each of their registers. */
interface Feature {
  name: string
  registers: TargetRegister[]
}

const integers = (names: string, bits: number, type: string, group?: string): TargetRegister[] =>
  names.split(' ').map((name) => ({ name, bits, type, ...(group ? { group } : {}) }))

const numbered = (prefix: string, count: number, bits: number, type: string): TargetRegister[] =>
  Array.from({ length: count }, (_, i) => ({ name: prefix + i, bits, type }))

const FEATURES: Feature[] = [
  {
    name: 'org.gnu.gdb.i386.core',
    registers: [
      ...integers('rax rbx rcx rdx rsi rdi', 64, 'int64'),
      ...integers('rbp rsp', 64, 'data_ptr'),
      ...integers('r8 r9 r10 r11 r12 r13 r14 r15', 64, 'int64'),
      { name: 'rip', bits: 64, type: 'code_ptr' },
      { name: 'eflags', bits: 32, type: 'vitrine_eflags' },
      ...integers('cs ss ds es fs gs', 32, 'int32'),
      ...numbered('st', 8, 80, 'i387_ext'),
      ...integers('fctrl fstat ftag fiseg fioff foseg fooff fop', 32, 'int', 'float'),
    ],
  },
  {
    name: 'org.gnu.gdb.i386.sse',
    registers: [...numbered('xmm', 16, 128, 'vec128'), { name: 'mxcsr', bits: 32, type: 'int', group: 'vector' }],
  },
  { name: 'org.gnu.gdb.i386.avx', registers: Array.from({ length: 16 }, (_, i) => ({ name: `ymm${i}h`, bits: 128, type: 'uint128' })) },
  { name: 'org.gnu.gdb.i386.segments', registers: integers('fs_base gs_base', 64, 'int') },
  {
    name: 'vitrine.system',
    registers: [...integers('k_gs_base cr0 cr2 cr3 cr4 cr8 efer', 64, 'int64', 'system')],
  },
]

/** All registers in the order of their numbers, which is also their order in the `g` packet. */
export const targetRegisters: readonly TargetRegister[] = FEATURES.flatMap((feature) => feature.registers)

const FLAG_FIELDS = 'CF:0 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 IOPL:12-13 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21'

const TYPES: Record<string, string> = {
  'org.gnu.gdb.i386.core':
    '<flags id="vitrine_eflags" size="4">' +
    FLAG_FIELDS.split(' ')
      .map((field) => {
        const [name, bits] = field.split(':')
        const [start, end = start] = bits.split('-')
        return `<field name="${name}" start="${start}" end="${end}"/>`
      })
      .join('') +
    '</flags>',
  'org.gnu.gdb.i386.sse':
    '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>' +
    '<vector id="v16i8" type="int8" count="16"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>' +
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>' +
    '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>',
}

/** The text that `qXfer:features:read:target.xml` answers. */
export function targetDescription(): string {
  let number = 0
  const feature = (each: Feature): string => {
    const registers = each.registers.map((register) => {
      const group = register.group ? ` group="${register.group}"` : ''
      return `<reg name="${register.name}" bitsize="${register.bits}" type="${register.type}" regnum="${number++}"${group}/>`
    })
    return `<feature name="${each.name}">${TYPES[each.name] ?? ''}\n${registers.join('\n')}\n</feature>`
  }
  const head = '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'
  return `${head}<target version="1.0">\n<architecture>i386:x86-64</architecture>\n${FEATURES.map(feature).join('\n')}\n</target>\n`
}

/** The files that a target description includes, by name. */
export function includedFiles(xml: string): string[] {
  return [...xml.matchAll(/<xi:include\s+href="([^"]+)"/g)].map((match) => match[1])
}

/** Reads the registers of a target description, in the order of the `g` packet. QEMU's has some in comments: they do not count. */
export function parseTargetDescription(xml: string): TargetRegister[] {
  const registers: TargetRegister[] = []
  let number = 0
  for (const [tag] of xml.replace(/<!--[^]*?-->/g, '').matchAll(/<reg\s[^>]*>/g)) {
    const attribute = (name: string): string | undefined => new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1]
    const name = attribute('name')
    const bits = Number(attribute('bitsize'))
    if (!name || !(bits > 0)) throw new Error(`target description: a register without name or bitsize: ${tag}`)
    number = Number(attribute('regnum') ?? number)
    registers[number++] = { name, bits, type: attribute('type') ?? 'int' }
  }
  return registers
}

/** Register values by name. */
export type RegisterValues = Record<string, bigint>

/** Unpacks a `g` answer. Registers that the answer is too short for are left out. */
export function unpackRegisters(registers: readonly TargetRegister[], hex: string): RegisterValues {
  const values: RegisterValues = {}
  let at = 0
  for (const register of registers) {
    const digits = register.bits / 4
    if (at + digits > hex.length) break
    values[register.name] = fromHexLittleEndian(hex.substring(at, at + digits))
    at += digits
  }
  return values
}

/** The answer to `g`: all registers in the target description's order; those without a value are 0. */
export function packRegisters(registers: readonly TargetRegister[], values: RegisterValues): string {
  return registers.map((register) => toHexLittleEndian(values[register.name] ?? 0n, register.bits / 8)).join('')
}
