/** Forms of moves, exchanges, conditional moves and sets, stack, flags, segments and addresses (SDM vol. 2). */
import { ADDRESSING_64, anyFlags, gpr, memory, register, setGpr, SUFFIX, writeMemory } from '../form.ts'
import type { FormSpec, Group, Input } from '../form.ts'
import { integer, wide } from '../random.ts'
import { WINDOW } from '../../../test/vectors/state.ts'
import { addressingTurns, R10, R15, RAX, RBX, RCX, RDX, WIDE, WIDTHS } from './integer.ts'

const nextAddressing = addressingTurns()

export const CONDITIONS = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g']

function moves(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const width of WIDTHS) {
    const s = SUFFIX[width]
    const r = (number: number): string => register(number, width)
    forms.push({ text: `mov${s} ${r(RBX)}, ${r(RAX)}`, inputs: [anyFlags, gpr(RBX, width)], count: 4 })
    forms.push({ text: `{load} mov${s} ${r(R10)}, ${r(RDX)}`, inputs: [anyFlags, gpr(R10, width)], count: 4 })
    // Every addressing form is loaded from and stored to here.
    for (const m of ADDRESSING_64) {
      forms.push({ text: `mov${s} ${m.text}, ${r(RCX)}`, inputs: [memory(m, width / 8)], count: 6 })
      forms.push({ text: `mov${s} ${r(R15)}, ${m.text}`, inputs: [gpr(R15, width), memory(m, width / 8)], count: 6 })
    }
    const m = nextAddressing()
    forms.push({ text: `mov${s} $0x5a, ${m.text}`, inputs: [memory(m, width / 8)], count: 8 })
    forms.push({ text: `mov${s} $-2, ${r(R10)}`, inputs: [], count: 1 })
    forms.push({ text: `movabs${s} 0x10000123, ${r(RAX)}`, inputs: [], count: 2 })
    forms.push({ text: `movabs${s} ${r(RAX)}, 0x10000ffd`, inputs: [gpr(RAX, width)], count: 3 })
    forms.push({ text: `movabs${s} 0x123456789abcdef0, ${r(RAX)}`, inputs: [], count: 1 })
    forms.push({ text: `movabs${s} ${r(RAX)}, %gs:0x20`, inputs: [], count: 1 })
    forms.push({ text: `addr32 movabs${s} 0x10000456, ${r(RAX)}`, inputs: [], count: 1 })
  }
  forms.push({ text: 'movabsq $0x123456789abcdef0, %rbx', count: 1 }, { text: 'movq $-0x12345678, %r9', count: 1 },
    { text: 'movl $0x9abcdef0, %r9d', count: 1 })
  for (const text of ['movb %ah, %bl', 'movb %bl, %ch', 'movb %dh, %bh', 'movb $0x77, %dh', 'movb %sil, %bpl']) {
    forms.push({ text, count: 2 })
  }
  forms.push({ text: 'movb %bh, 0x11(%rdi)', inputs: [memory(ADDRESSING_64[2], 1)] },
    { text: 'movb (%rsi), %ah', inputs: [memory(ADDRESSING_64[0], 1)] })
  // The address register is the data register.
  forms.push({ text: 'movq (%rsi), %rsi', inputs: [memory(ADDRESSING_64[0], 8)] },
    { text: 'addq %rdi, (%rdi)', inputs: [memory(ADDRESSING_64[1], 8)] })
  forms.push({ text: 'movl (%rdi), %edi', inputs: [memory(ADDRESSING_64[1], 4)] },
    { text: 'xchgq %rsi, (%rsi)', inputs: [memory(ADDRESSING_64[0], 8, integer, { lock: true })] })
  return forms
}

function extensions(): FormSpec[] {
  const cases: [string, 8 | 16 | 32, 16 | 32 | 64][] = [
    ['movzbw', 8, 16], ['movzbl', 8, 32], ['movzbq', 8, 64], ['movzwl', 16, 32], ['movzwq', 16, 64],
    ['movsbw', 8, 16], ['movsbl', 8, 32], ['movsbq', 8, 64], ['movswl', 16, 32], ['movswq', 16, 64], ['movslq', 32, 64],
  ]
  const forms: FormSpec[] = cases.flatMap(([op, from, to]) => {
    const m = nextAddressing()
    return [
      { text: `${op} ${register(RBX, from)}, ${register(RAX, to)}`, inputs: [anyFlags, gpr(RBX, from)] },
      { text: `${op} ${register(R10, from)}, ${register(R15, to)}`, inputs: [anyFlags, gpr(R10, from)], count: 4 },
      { text: `${op} ${m.text}, ${register(RDX, to)}`, inputs: [anyFlags, memory(m, from / 8)], count: 8 },
    ]
  })
  forms.push({ text: 'movzbl %ch, %eax', inputs: [gpr(RCX, 16)] }, { text: 'movsbw %dh, %bx', inputs: [gpr(RDX, 16)] })
  forms.push({ text: '.byte 0x63, 0xc3 # movsxd without REX.W: movl', inputs: [gpr(RBX, 64)] },
    { text: '.byte 0x66, 0x63, 0xc3 # movsxd, 16 bits', inputs: [gpr(RBX, 64)] })
  return forms
}

function conditional(): FormSpec[] {
  return CONDITIONS.flatMap((condition, i) => {
    const width = WIDE[i % 3]
    const other = WIDE[(i + 1) % 3]
    const [a, b] = [nextAddressing(), nextAddressing()]
    return [
      { text: `set${condition} %bl`, inputs: [anyFlags], count: 16 },
      { text: `set${condition} ${a.text}`, inputs: [anyFlags, memory(a, 1)] },
      { text: `cmov${condition}${SUFFIX[width]} ${register(RBX, width)}, ${register(RAX, width)}`, inputs: [anyFlags, gpr(RBX, width)],
        count: 16 },
      { text: `cmov${condition}l ${register(R10, 32)}, ${register(RDX, 32)}`, inputs: [anyFlags, gpr(R10, 32)], count: 16 },
      { text: `cmov${condition}${SUFFIX[other]} ${b.text}, ${register(R15, other)}`, inputs: [anyFlags, memory(b, other / 8)], count: 16 },
    ]
  })
}

function exchanges(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const width of WIDTHS) {
    const s = SUFFIX[width]
    const r = (number: number): string => register(number, width)
    const locked = { lock: true }
    const [a, b, c, d, e] = [nextAddressing(), nextAddressing(), nextAddressing(), nextAddressing(), nextAddressing()]
    forms.push({ text: `xchg${s} ${r(RBX)}, ${r(RCX)}`, inputs: [anyFlags, gpr(RBX, width)], count: 3 })
    forms.push({ text: `xchg${s} ${r(R10)}, ${r(RAX)}`, inputs: [anyFlags, gpr(R10, width)], count: 3 })
    forms.push({ text: `xchg${s} ${r(RDX)}, ${a.text}`, inputs: [anyFlags, gpr(RDX, width), memory(a, width / 8, integer, locked)],
      count: 8 })
    forms.push({ text: `xadd${s} ${r(RBX)}, ${r(RAX)}`, inputs: [anyFlags, gpr(RBX, width), gpr(RAX, width)], count: 12 })
    forms.push({ text: `xadd${s} ${r(RBX)}, ${r(RBX)}`, inputs: [anyFlags, gpr(RBX, width)], count: 6 })
    forms.push({ text: `xadd${s} ${r(RDX)}, ${b.text}`, inputs: [anyFlags, gpr(RDX, width), memory(b, width / 8)], count: 12 })
    forms.push({ text: `lock xadd${s} ${r(R15)}, ${c.text}`, inputs: [anyFlags, gpr(R15, width), memory(c, width / 8, integer, locked)],
      count: 8 })
    // Few values, so that the comparison is often equal.
    const few = (random: { below(n: number): number }): bigint => BigInt(random.below(3)) - 1n
    const accumulator: Input = (state, random) => setGpr(state, RAX, width, few(random))
    forms.push({ text: `cmpxchg${s} ${r(RBX)}, ${r(RCX)}`, inputs: [anyFlags, accumulator, gpr(RBX, width), gpr(RCX, width, few)],
      count: 20 })
    forms.push({ text: `cmpxchg${s} ${r(RDX)}, ${d.text}`, inputs: [anyFlags, accumulator, gpr(RDX, width), memory(d, width / 8, few)],
      count: 20 })
    forms.push({ text: `lock cmpxchg${s} ${r(R10)}, ${e.text}`,
      inputs: [anyFlags, accumulator, gpr(R10, width), memory(e, width / 8, few, locked)], count: 20 })
  }
  forms.push({ text: 'xchgb %ah, %bl', count: 2 }, { text: 'xaddb %ah, %al', inputs: [anyFlags, gpr(RAX, 16)] },
    { text: 'cmpxchgb %bh, %ch', inputs: [anyFlags, gpr(RAX, 8)] })
  forms.push({ text: 'nop', count: 1 }, { text: 'pause', count: 1 }, { text: '.byte 0x41, 0x90 # xchg %r8d, %eax', count: 1 },
    { text: 'nopw 0x1234(%rax,%rax,1)', count: 1 })
  for (const [op, bytes] of [['cmpxchg8b', 8], ['cmpxchg16b', 16]] as const) {
    const equal: Input = (state, random) => {
      const pairs = bytes === 8 ? 32 : 64
      const address = BigInt(WINDOW + 16 * random.below(500) + (bytes === 8 ? 8 * random.below(2) : 0))
      const value = wide(random)
      const mask = (1n << BigInt(pairs)) - 1n
      state.gpr[6] = address
      setGpr(state, RAX, pairs, (value & mask) + (random.chance(0.2) ? 1n : 0n))
      setGpr(state, RDX, pairs, ((value >> BigInt(pairs)) & mask) ^ (random.chance(0.2) ? 1n << BigInt(pairs - 1) : 0n))
      writeMemory(state, address, value, bytes)
    }
    forms.push({ text: `${op} (%rsi)`, inputs: [anyFlags, equal], count: 24, features: bytes === 16 ? ['cx16'] : [] })
    forms.push({ text: `lock ${op} (%rsi)`, inputs: [anyFlags, equal], count: 16, features: bytes === 16 ? ['cx16'] : [] })
    forms.push({ text: `${op} 0x11(%rdi)`, inputs: [anyFlags, memory(ADDRESSING_64[2], bytes, integer, { alignment: bytes })], count: 30,
      features: bytes === 16 ? ['cx16'] : [] })
  }
  return forms
}

function addresses(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const text of ['(%rsi)', '0x7f(%rbx,%rcx,4)', '-0x80000000(,%r9,8)', '(%rbp,%r12)', 'rel(0x10000480)', '0x12345678',
    '(%esi,%ebx,2)', '-1(%r13)', '%gs:8(%rdx)', '(%r12,%r12,2)']) {
    for (const width of WIDE) {
      forms.push({ text: `lea${SUFFIX[width]} ${text}, ${register(RAX, width)}`,
        inputs: [anyFlags, gpr(RCX, 64), gpr(RBX, 64), gpr(9, 64), gpr(12, 64)], count: 3 })
    }
  }
  forms.push({ text: '.byte 0x48, 0x8d, 0xc3 # lea of a register: ud', count: 1 })
  const table: Input = (state, random) => {
    state.gpr[RBX] = BigInt(WINDOW + random.below(0x1f00))
  }
  forms.push({ text: 'xlatb', inputs: [anyFlags, gpr(RAX, 8), table], count: 16 },
    { text: 'xlatb %gs:(%rbx)', inputs: [gpr(RAX, 8), (state, random) => (state.gpr[RBX] = BigInt(random.below(256)))], count: 8 })
  return forms
}

/** Of later features. */
function direct(): FormSpec[] {
  return [
    ...ADDRESSING_64.slice(0, 3).flatMap((m): FormSpec[] => [
      { text: `movdiri %ebx, ${m.text}`, inputs: [anyFlags, gpr(RBX, 32), memory(m, 4)], features: ['movdiri'], count: 4 },
      { text: `movdiri %r10, ${m.text}`, inputs: [anyFlags, gpr(R10, 64), memory(m, 8)], features: ['movdiri'], count: 4 },
    ]),
    { text: '.byte 0x66, 0x0f, 0x38, 0xf9, 0x1e # movdiri with 66: ud', inputs: [anyFlags], features: ['movdiri'], count: 1 },
    { text: '.byte 0x0f, 0x38, 0xf9, 0xd8 # movdiri of a register: ud', inputs: [anyFlags], features: ['movdiri'], count: 1 },
    { text: 'serialize', inputs: [anyFlags], features: ['serialize'], count: 2 },
    { text: 'cldemote (%rsi)', inputs: [anyFlags, memory(ADDRESSING_64[0], 1)], features: ['cldemote'], count: 2 },
  ]
}

export const MOVE: Group = {
  name: 'move', forms: [...moves(), ...extensions(), ...conditional(), ...exchanges(), ...addresses(), ...direct()],
}

// ---- stack and flags ----

/** RSP in the middle, on an odd address, and at the ends of what exists. */
export const anyStack: Input = (state, random) => {
  const offset = random.pick([0x1000, 0x1000, 0x0ff4, 0x1003, 0x1ff8, 0x1ffd, 8, 3, 0, 0x2000, 8 * random.below(0x400)])
  state.gpr[4] = BigInt(WINDOW + offset)
}

/** What POPF and IRET may set in user mode: not TF, which would trap afterwards. */
const flagsOnStack: Input = (state, random) => writeMemory(state, state.gpr[4], random.u64() & ~0x100n, 8)

function stack(): FormSpec[] {
  const forms: FormSpec[] = []
  const push = (text: string, inputs: Input[] = [], count = 8): number =>
    forms.push({ text, inputs: [anyFlags, anyStack, ...inputs], count })
  for (const r of ['%rax', '%rbx', '%rsp', '%r13', '%cx', '%sp', '%r12w']) {
    push(`push ${r}`)
    push(`pop ${r}`)
  }
  push('pushq $0x7f')
  push('pushq $-0x12345678')
  push('pushw $0x1234')
  push('pushw $-3')
  for (const width of [16, 64] as const) {
    const s = SUFFIX[width]
    for (const m of [ADDRESSING_64[0], ADDRESSING_64[2], ADDRESSING_64[9]]) {
      push(`push${s} ${m.text}`, [memory(m, width / 8)], 12)
      push(`pop${s} ${m.text}`, [memory(m, width / 8)], 12)
    }
    // POP with an RSP base: the address uses RSP after the increment.
    push(`pop${s} 8(%rsp)`)
    push(`push${s} 8(%rsp)`)
    push(`pop${s} (%rsp)`)
    // Some processors write all eight bytes, some only the selector's two.
    const vendor = width === 64 ? 'AuthenticAMD' : undefined
    for (const segment of ['fs', 'gs']) forms.push({ text: `push${s} %${segment}`, inputs: [anyFlags, anyStack], count: 3, vendor })
    push(`pushf${s}`, [], 8)
    push(`popf${s}`, [flagsOnStack], 16)
    const frame: Input = (state, random) => {
      state.gpr[5] = BigInt(WINDOW + random.pick([0x1800, 0xc03, 0x1ff8, 0x1fff, 0x2000, 0]))
    }
    push(`leave${s}`, [frame], 12)
    for (const [size, level] of [[0, 0], [0x20, 0], [0x7, 1], [0x100, 2], [0x8001, 0], [0x10, 31], [0x10, 33]]) {
      push(`enter${s} $${size}, $${level}`, [frame], 6)
    }
  }
  forms.push({ text: 'lahf', inputs: [anyFlags], count: 12 }, { text: 'sahf', inputs: [anyFlags, gpr(RAX, 16)], count: 16 })
  for (const text of ['clc', 'stc', 'cmc', 'cld', 'std']) forms.push({ text, inputs: [anyFlags], count: 6 })
  return forms
}

export const STACK: Group = { name: 'stack', forms: stack() }

// ---- what user mode may not do, and what needs no privilege ----

function privileged(): FormSpec[] {
  const faults = [
    'hlt', 'cli', 'sti', 'clts', 'invd', 'wbinvd', 'swapgs', 'sysretl', 'sysretq', 'rdmsr', 'wrmsr', 'invlpg (%rsi)', 'lgdt (%rsi)',
      'lidt (%rsi)', 'lldt %ax', 'ltr %ax',
    'lmsw %ax', 'mov %rax, %cr0', 'mov %cr0, %rax', 'mov %cr2, %rax', 'mov %rax, %cr3', 'mov %cr4, %rbx', 'mov %cr8, %rbx',
      'mov %rax, %dr7', 'mov %dr0, %rax',
    'inb $0x80, %al', 'inw %dx, %ax', 'inl %dx, %eax', 'outb %al, $0x80', 'outl %eax, %dx', 'insb', 'outsl', 'rep insw', 'int $0x10',
      'int $0x0', 'int $0xd',
    'xsetbv', 'invpcid (%rsi), %rax',
  ]
  const invalid = ['ud2', 'ud1 %eax, %ebx', 'ud0 %eax, %ebx', '.byte 0x06 # push es: ud', '.byte 0x27 # daa: ud', '.byte 0x62, 0x00 # ud',
    '.byte 0xd6 # ud', '.byte 0xea # ud', '.byte 0x0f, 0x04 # ud',
    '.byte 0x0f, 0xc7, 0xc8 # cmpxchg8b %eax: ud', '.byte 0xfe, 0xd0 # FE /2: ud', '.byte 0xff, 0xf8 # FF /7: ud',
      '.byte 0x8f, 0xc8 # 8F /1, an XOP escape on AMD: ud', '.byte 0x0f, 0x20, 0xc8 # mov %cr1: ud', '.byte 0xc6, 0xc8, 0 # C6 /1: ud']
  return [
    ...faults.map((text) => ({ text, count: 1 })),
    ...invalid.map((text) => ({ text, count: 1 })),
    ...['%rax', '%ebx'].map((r) => ({ text: `rdgsbase ${r}`, count: 1, features: ['fsgsbase'] })),
    { text: 'int3', count: 1, trapVector: 3 },
    { text: '.byte 0xcd, 3 # int $3', count: 1, trapVector: 3 },
  ]
}

/** Descriptors that every user sees; see ENVIRONMENT in state.ts. */
const selectors: Input = gpr(RAX, 16, (random) => random.pick([0n, 1n, 3n, 0x23n, 0x20n, 0x2bn, 0x28n, 0x33n, 0x30n]))

/** No null selector with an RPL: returning to user mode through the kernel would make it 0. */
const loadable: Input = gpr(RAX, 16, (random) => random.pick([0n, 0x23n, 0x20n, 0x2bn, 0x28n, 0x33n, 0xfff8n]))

function descriptors(): FormSpec[] {
  return ['lar', 'lsl'].flatMap((op) => WIDE.map((width) =>
    ({ text: `${op} ${register(RAX, width)}, ${register(RBX, width)}`, inputs: [anyFlags, selectors], count: 12 })))
    .concat(['verr %ax', 'verw %ax'].map((text) => ({ text, inputs: [anyFlags, selectors], count: 12 })))
    .concat({ text: 'mov %ax, %ss', inputs: [anyFlags, selectors], count: 12 })
    .concat(['mov %ax, %ds', 'mov %ax, %es'].map((text) => ({ text, inputs: [anyFlags, loadable], count: 12 })))
    .concat(['mov %ds, %ebx', 'mov %ss, %bx', 'mov %cs, %rbx', 'mov %es, (%rsi)',
      'mov %gs, 2(%rsi)'].map((text) => ({ text, inputs: [anyFlags], count: 1 })))
    .concat([{ text: '.byte 0x8e, 0xc8 # mov %eax, %cs: ud', inputs: [anyFlags], count: 1 }])
}

export const SYSTEM: Group = { name: 'system', forms: [...privileged(), ...descriptors()] }

// ---- alignment checks ----

/** RFLAGS.AC in user mode: data accesses that are not aligned are #AC(0). */
const alignmentCheck: Input = (state) => {
  state.rflags |= 0x40000n
}

export const ALIGNMENT: Group = {
  name: 'alignment',
  // Whether an unaligned load that is meant to be unaligned is checked, each vendor decides.
  forms: ['movb (%rsi), %al', 'movw (%rsi), %ax', 'movl (%rsi), %eax', 'movq (%rsi), %rax', 'addq %rax, (%rsi)', 'movups (%rsi), %xmm0',
    'movaps (%rsi), %xmm0', 'movsq', 'lodsw', 'fldt (%rsi)', 'fldl (%rsi)', 'btl %eax, (%rsi)'].map((text) => ({
    text, count: 16, vendor: text.startsWith('movups') ? 'AuthenticAMD' : undefined,
    inputs: [alignmentCheck, ((state, random) => {
      state.gpr[6] = BigInt(WINDOW + 0x800 + random.below(32))
      state.gpr[7] = BigInt(WINDOW + 0x1000 + random.pick([0, 8, 4, 1]))
      state.gpr[0] = BigInt(random.below(64))
    }) satisfies Input],
  })),
}

