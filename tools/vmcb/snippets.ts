/** Small guests: each does one thing that a hypervisor wants to hear of. AMD APM vol. 2, "Instruction Intercepts" to "Nested Paging". */
import { place, selector } from './arena.ts'
import type { Poke } from './guest.ts'
import type { Fields, ModeName } from './modes.ts'

export interface Snippet {
  readonly name: string
  /** GNU as, AT&T syntax, for the modes' size of code. */
  readonly code: string
  readonly modes: readonly ModeName[]
  /** Over the mode's. */
  readonly fields?: Fields
  readonly pokes?: readonly Poke[]
  /** What is done before the guest is run again; absent: it is run once. */
  readonly then?: readonly (readonly Poke[])[]
  /** Nested paging: both ways when absent. */
  readonly nested?: boolean
}

const base3 = 0x81000001n
const base4 = 3n
const all: readonly ModeName[] = ['long64', 'user64', 'compatibility', 'pae', 'legacy', 'flat', 'user32', 'real']
const kernel: readonly ModeName[] = ['long64', 'compatibility', 'pae', 'legacy', 'flat', 'real']
const protected32: readonly ModeName[] = ['compatibility', 'pae', 'legacy', 'flat', 'user32']
const some: readonly ModeName[] = ['long64', 'pae', 'real']
const D = place.data
const word = (address: number, value: number | bigint): Poke => ({ address, bytes: 4, value: BigInt(value) })
const quad = (address: number, value: bigint): Poke => ({ address, bytes: 8, value })

const list: Snippet[] = []
const add = (name: string, modes: readonly ModeName[], code: string, fields: Fields = {}, more: Partial<Snippet> = {}): void =>
  void list.push({ name, modes, code, fields, ...more })

/** Every exception is intercepted; none is. */
const everyException = 0xffffffffn

// ---- instructions with a bit of their own ----

const vector3: readonly (readonly [string, number, string, string?])[] = [
  ['sidt', 6, 'sidt @'], ['sgdt', 7, 'sgdt @'], ['sldt', 8, 'sldt %ax'], ['str', 9, 'str %ax'], ['lidt', 10, 'lidt @'],
  ['lgdt', 11, 'lgdt @'], ['lldt', 12, 'xor %eax, %eax; lldt %ax'], ['ltr', 13, 'mov $0x58, %eax; ltr %ax'],
  ['rdtsc', 14, 'rdtsc'], ['rdpmc', 15, 'xor %ecx, %ecx; rdpmc'], ['pushf', 16, 'pushf'], ['popf', 17, 'push $2; popf'],
  ['cpuid', 18, 'cpuid'], ['rsm', 19, 'rsm'], ['iret', 20, '.byte 0xcf'], ['int', 21, 'int $0x21'], ['invd', 22, 'invd'],
  ['pause', 23, 'pause'], ['hlt', 24, 'hlt'], ['invlpg', 25, `invlpg ${0x123}(%bx)`], ['invlpga', 26, 'invlpga %ax, %ecx'],
]
const vector4: readonly (readonly [string, number, string])[] = [
  ['vmrun', 0, 'vmrun'], ['vmmcall', 1, 'vmmcall'], ['vmload', 2, 'vmload'], ['vmsave', 3, 'vmsave'], ['stgi', 4, 'stgi'],
  ['clgi', 5, 'clgi'], ['rdtscp', 7, 'rdtscp'], ['icebp', 8, '.byte 0xf1'], ['wbinvd', 9, 'wbinvd'],
  ['monitor', 10, 'mov $@, %eax; xor %ecx, %ecx; xor %edx, %edx; monitor'], ['mwait', 11, 'xor %eax, %eax; xor %ecx, %ecx; mwait'],
  ['xsetbv', 13, 'xor %ecx, %ecx; xor %edx, %edx; mov $1, %eax; xsetbv'],
]
/** Operands in the form that the size of code has; @ is a place in the page of data. */
function sized(text: string, bits: 16 | 32 | 64): string {
  const code = text.replaceAll('@', String(bits === 16 ? 0x40 : D + 0x40))
  const wide = bits === 64 ? code.replaceAll('%ax, %ecx', '%rax, %ecx').replaceAll('(%bx)', '(%rbx)') : code.replaceAll('invlpga %ax',
    'invlpga %eax')
  return bits === 32 ? wide.replaceAll('(%bx)', '(%ebx)') : wide
}
export const codeFor = (snippet: Snippet, bits: 16 | 32 | 64): string => sized(snippet.code, bits)

for (const [name, bit, code] of vector3) add(name, all, code,
  { intercepts3: base3 | (1n << BigInt(bit)), exceptionIntercepts: everyException })
for (const [name, bit, code] of vector4) add(name, all, code,
  { intercepts4: base4 | (1n << BigInt(bit)), exceptionIntercepts: everyException })
for (const [name, , code] of vector3) if (!['rdtsc', 'rdpmc', 'cpuid', 'rsm', 'iret', 'hlt', 'popf'].includes(name))
  add(`${name} let`, all, code, { exceptionIntercepts: everyException })
add('popf let', all, 'push $2; popf', { exceptionIntercepts: everyException })

// ---- control and debug registers ----

const allControl: Fields = { crIntercepts: 0xffffffffn, exceptionIntercepts: everyException }
for (const cr of [0, 2, 3, 4]) {
  for (const gpr of ['ax', 'bx', 'sp']) {
    add(`read cr${cr} ${gpr}`, ['long64', 'user64'], `mov %cr${cr}, %r${gpr}`, allControl)
    add(`write cr${cr} ${gpr}`, ['long64', 'user64'], `mov %r${gpr}, %cr${cr}`, allControl)
    add(`read cr${cr} e${gpr}`, ['pae', 'flat', 'real', 'user32'], `mov %cr${cr}, %e${gpr}`, allControl)
    add(`write cr${cr} e${gpr}`, ['pae', 'flat', 'real', 'user32'], `mov %cr${cr}, %eax; mov %e${gpr}, %cr${cr}`,
      { ...allControl, crIntercepts: 0xffff0000n })
  }
  add(`read and write cr${cr}`, kernel.filter(mode => mode !== 'long64'), `mov %cr${cr}, %eax; mov %eax, %cr${cr}`,
    { exceptionIntercepts: everyException })
  add(`read and write cr${cr} 64`, ['long64'], `mov %cr${cr}, %rax; mov %rax, %cr${cr}`, { exceptionIntercepts: everyException })
}
for (const gpr of ['ax', 'dx']) add(`cr8 ${gpr}`, ['long64'], `mov %cr8, %r${gpr}`, allControl)
add('write cr8', ['long64', 'user64'], 'mov $5, %eax; mov %rax, %cr8', allControl)
add('write cr8 let', ['long64'], 'mov $5, %eax; mov %rax, %cr8; mov %cr8, %rbx', { exceptionIntercepts: everyException })
add('write cr8 reserved', ['long64'], 'mov $0x15, %eax; mov %rax, %cr8', allControl)
for (const [name, code] of [
  ['no PE', 'mov $0x80000030, %eax; mov %rax, %cr0'], ['NW without CD', 'mov $0xa0000031, %eax; mov %rax, %cr0'],
  ['above 32', 'mov $0x180000031, %rax; mov %rax, %cr0'], ['reserved cr4', 'mov $0x80000620, %eax; mov %rax, %cr4'],
  ['no PAE', 'mov $0x600, %eax; mov %rax, %cr4'], ['reserved cr3', 'mov $-1, %rax; mov %rax, %cr3'],
  ['no PG', 'mov $0x31, %eax; mov %rax, %cr0'], ['efer no LME', 'mov $0xc0000080, %ecx; rdmsr; and $~0x100, %eax; wrmsr'],
  ['efer reserved', 'mov $0xc0000080, %ecx; rdmsr; or $2, %eax; wrmsr'],
    ['efer no SVME', 'mov $0xc0000080, %ecx; rdmsr; and $~0x1000, %eax; wrmsr'],
] as const) {
  add(`${name}, intercepted`, ['long64'], code, allControl)
  add(`${name}, let`, ['long64'], code, { exceptionIntercepts: everyException })
}
const selective: Fields = { intercepts3: base3 | 0x20n, exceptionIntercepts: everyException }
for (const [name, bit] of [['TS', 8], ['MP', 2], ['EM', 4], ['WP', 0x10000], ['CD', 0x40000000], ['nothing', 0]] as const) {
  add(`selective ${name}`, ['long64'], `mov %cr0, %rax; xor $${bit}, %rax; mov %rax, %cr0`, selective)
  add(`selective ${name} 32`, ['pae', 'real'], `mov %cr0, %eax; xor $${bit}, %eax; mov %eax, %cr0`, selective)
  if (bit < 16) add(`selective lmsw ${name}`, some, `smsw %ax; xor $${bit}, %ax; lmsw %ax`, selective)
  if (bit < 16) add(`lmsw ${name}`, some, `smsw %ax; xor $${bit}, %ax; lmsw %ax`, { crIntercepts: 0x10000n })
}
add('clts', all, 'clts', { crIntercepts: 0x10000n, exceptionIntercepts: everyException })
add('clts selective', ['long64', 'pae', 'user64'], 'clts', { ...selective, cr0: 0x80000039n })
add('clts let', ['long64'], 'clts', { cr0: 0x80000039n })
add('smsw', all, 'smsw %ax', { crIntercepts: 1n, exceptionIntercepts: everyException })
add('smsw memory', all, 'smsw @', { crIntercepts: 1n, exceptionIntercepts: everyException })
add('lmsw memory', all, 'lmsw @', { crIntercepts: 0x10000n, exceptionIntercepts: everyException })

const allDebug: Fields = { drIntercepts: 0xffffffffn, exceptionIntercepts: everyException }
for (const dr of [0, 3, 4, 5, 6, 7]) {
  add(`read dr${dr}`, ['long64', 'user64'], `mov %dr${dr}, %r9`, allDebug)
  add(`write dr${dr}`, ['long64', 'user64'], `mov %r9, %dr${dr}`, allDebug)
  add(`read dr${dr} 32`, ['pae', 'real', 'user32'], `mov %dr${dr}, %esi`, allDebug)
  add(`write dr${dr} 32`, ['pae', 'real', 'user32'], `mov %esi, %dr${dr}`, allDebug)
  add(`dr${dr} with GD`, ['long64'], `mov %dr${dr}, %r9`, { dr7: 0x2400n, exceptionIntercepts: everyException })
  add(`dr${dr} with GD, both`, ['long64'], `mov %dr${dr}, %r9`, { ...allDebug, dr7: 0x2400n })
  add(`dr${dr} with DE`, ['long64'], `mov %dr${dr}, %r9`, { ...allDebug, cr4: 0x628n })
  add(`dr${dr} let`, ['long64'], `mov %r9, %dr${dr}; mov %dr${dr}, %rsi`, { exceptionIntercepts: everyException })
  add(`dr${dr} above 32`, ['long64'], `mov $-1, %r9; mov %r9, %dr${dr}`, { exceptionIntercepts: everyException })
}

// ---- exceptions, intercepted and delivered ----

const exceptions: readonly (readonly [string, readonly ModeName[], string, Fields?, (readonly Poke[])?])[] = [
  ['#DE', all, 'xor %ecx, %ecx; div %ecx'], ['#DB by ICEBP', all, '.byte 0xf1'], ['#BP', all, 'int3'],
    ['#OF', protected32, 'mov $0x7f, %al; add $1, %al; into'],
  ['INT 3', all, '.byte 0xcd, 3'], ['INT 1', all, '.byte 0xcd, 1'], ['INT 4', all, '.byte 0xcd, 4'], ['INT 14', all, '.byte 0xcd, 14'],
  ['#BR', protected32, `movl $0, ${D}; movl $1, ${D + 4}; mov $5, %eax; bound %eax, ${D}`],
  ['#UD', all, 'ud2'], ['#NM', ['long64', 'user64', 'pae', 'legacy'], 'fnop', { cr0: 0x80000039n }],
  ['#TS', ['pae', 'legacy', 'flat'], 'lcall $0x58, $0', {}, [word(place.otherTss + 0x4c, 0x10)]],
  ['#NP', ['long64', 'pae', 'user64'], 'mov $0x70, %eax; mov %ax, %ds'], ['#SS', ['long64', 'pae'], 'mov $0x70, %eax; mov %ax, %ss'],
  ['#GP by selector', ['long64', 'pae', 'user64'], 'mov $0x1234, %eax; mov %ax, %ds'],
  ['#GP by address', ['long64', 'user64'], 'movabs $0x8000000000000000, %rax; mov (%rax), %rax'],
  ['#SS by address', ['long64', 'user64'], 'movabs $0x8000000000000000, %rbp; mov (%rbp), %rax'],
  ['#PF read', ['long64', 'user64'], 'mov $0x40000040, %eax; mov (%rax), %ebx'],
    ['#PF write', ['long64', 'user64'], 'mov $0x40000040, %eax; mov %ebx, (%rax)'],
  ['#PF fetch', ['long64', 'user64'], 'mov $0x40000040, %eax; jmp *%rax'],
    ['#PF read 32', ['pae', 'user32', 'compatibility'], 'mov 0x40000040, %ebx'],
  ['#PF write 32', ['pae', 'user32', 'compatibility'], 'mov %ebx, 0x40000040'], ['#PF update 32', ['legacy'], 'incl 0x40000040'],
  ['#PF reserved', ['long64'], `mov ${D}, %eax`, {}, [quad(place.table + (D >> 12) * 8, (1n << 51n) | BigInt(D) | 7n)]],
  ['#PF protection', ['user64', 'user32'], `mov ${D}, %eax`, {}, [word(place.table + (D >> 12) * 8, D | 3)]],
  ['#PF read only', ['user64', 'user32'], `mov %eax, ${D}`, {}, [word(place.table + (D >> 12) * 8, D | 5)]],
  ['no WP', ['long64', 'pae'], `mov %eax, ${D}`, {}, [word(place.table + (D >> 12) * 8, D | 5)]],
  ['WP', ['long64', 'pae'], `mov %eax, ${D}`, { cr0: 0x80010031n }, [word(place.table + (D >> 12) * 8, D | 5)]],
  ['#PF across', ['long64', 'pae'], `mov ${D + 0xffe}, %eax`, {}, [word(place.table + ((D >> 12) + 1) * 8, 0)]],
  ['#MF', ['long64', 'pae'],
    `fninit; movw $0x340, 0x${(D + 0x10).toString(16)}; fldcw 0x${(D + 0x10).toString(16)}; fldz; fld1; fdiv %st(1); fnop`],
  ['#AC', ['user64', 'user32'], `mov ${D + 1}, %eax`, { cr0: 0x80040031n, rflags: 0x40002n }],
  ['#XM', ['long64'], `movl $0x1d80, ${D + 0x10}; ldmxcsr ${D + 0x10}; xorps %xmm0, %xmm0; divps %xmm0, %xmm0`],
  ['TF', all, 'nop; nop', { rflags: 0x102n }], ['TF and PUSHF', ['long64', 'pae', 'real'], 'pushf; nop', { rflags: 0x102n }],
  ['TF and MOV SS', ['long64', 'pae', 'real'], 'mov %ss, %ax; mov %ax, %ss; nop; nop', { rflags: 0x102n }],
  ['TF and INT', ['long64', 'pae', 'real'], 'int $0x21', { rflags: 0x102n }],
    ['TF and SYSCALL', ['long64'], 'syscall', { rflags: 0x102n, efer: 0x1501n }],
  ['code breakpoint', ['long64', 'pae'],
    `mov $${place.code + 16}, %eax; mov %eax, 0x40000; nop; .balign 16; nop; nop`.replace('mov %eax, 0x40000;', ''), { dr7: 0x401n }],
  ['breakpoint at once', ['long64'],
    `mov $${place.code + 0x20}, %eax; mov %rax, %dr0; mov $0x402, %eax; mov %rax, %dr7; .balign 32; nop; nop`],
  ['breakpoint at once 32', ['pae'],
    `mov $${place.code + 0x20}, %eax; mov %eax, %dr0; mov $0x402, %eax; mov %eax, %dr7; .balign 32; nop; nop`],
  ['data breakpoint', ['long64'], `mov $${D}, %eax; mov %rax, %dr0; mov $0xf0402, %eax; mov %rax, %dr7; mov %ebx, ${D}; nop`],
  ['data breakpoint 32', ['pae'], `mov $${D}, %eax; mov %eax, %dr0; mov $0xf0402, %eax; mov %eax, %dr7; mov %ebx, ${D}; nop`],
  ['syscall', ['long64', 'user64'], 'syscall', { efer: 0x1501n }], ['syscall off', ['long64'], 'syscall'],
  ['sysenter', ['pae', 'user32', 'long64'], 'sysenter', { sysenterCs: 8n, sysenterEip: BigInt(place.handlers),
    sysenterEsp: BigInt(place.stackTop) }],
  ['CPL 3 hlt', ['user64', 'user32'], 'hlt'], ['CPL 3 cli', ['user64', 'user32', 'virtual8086'], 'cli'],
    ['sti shadow', kernel, 'sti; nop; nop'],
  ['iret to user', ['long64'],
    `push $${selector.userData}; push $${place.stackTop}; push $2; push $${selector.userCode64}; push $${place.code + 0x40}; iretq`],
  ['far jump', ['pae', 'flat'], `ljmp $0x18, $${place.code + 0x40}`], ['call gate', ['pae', 'flat', 'user32'], 'lcall $0x68, $0'],
]
for (const [name, modes, code, fields, pokes] of exceptions) {
  add(name, modes, code, { exceptionIntercepts: everyException, ...fields }, pokes ? { pokes } : {})
  add(`${name}, delivered`, modes === all ? [...all, 'virtual8086'] : modes, code, fields, pokes ? { pokes } : {})
}

// ---- faults while an event is delivered ----

const absentGate = (vector: number, address = place.idt): Poke => word(address + vector * 16 + 4, 0x00010e00)
const badGate = (vector: number): Poke => word(place.idt + vector * 16, (selector.data << 16) | 0x800)
const nonCanonicalGate = (vector: number): Poke => word(place.idt + vector * 16 + 8, 0x00800000)
const delivering: readonly (readonly [string, string, number])[] = [['#UD', 'ud2', 6], ['INT', 'int $0x21', 0x21], ['INT3', 'int3', 3],
  ['#DE', 'xor %ecx, %ecx; div %ecx', 0], ['#GP', 'mov $0x1234, %eax; mov %ax, %ds', 13],
    ['#PF', 'mov $0x40000040, %eax; mov (%rax), %ebx', 14],
  ['ICEBP', '.byte 0xf1', 1], ['TF', 'push $0x102; popf; nop', 1]]
for (const [name, code, vector] of delivering) {
  for (const [how, pokes] of [['absent gate', [absentGate(vector)]], ['bad selector', [badGate(vector)]],
    ['far handler', [nonCanonicalGate(vector)]]] as const)
    for (const mask of [0n, 1n << 13n, 1n << 11n, 1n << 8n, (1n << 13n) | (1n << 11n) | (1n << 8n)])
      add(`${name}, ${how}, ${mask.toString(16)}`, ['long64'], code, { exceptionIntercepts: mask }, { pokes: [...pokes] })
  for (const mask of [0n, 1n << 14n, 1n << 8n, 1n << 12n])
    add(`${name}, no stack, ${mask.toString(16)}`, ['long64'], code, { exceptionIntercepts: mask, rsp: 0x40000100n })
  add(`${name}, short IDT`, ['long64'], code, { idtrLimit: BigInt(vector * 16 + 14), exceptionIntercepts: 1n << 13n })
  add(`${name}, no IDT`, ['long64'], code, { idtrLimit: 0n })
}

// ---- EVENTINJ ----

const valid = 0x80000000n
const typed = (type: number, vector: number, error = false): bigint => valid | BigInt((type << 8) | vector | (error ? 0x800 : 0))
for (const [type, vector, error] of [[0, 0x21], [0, 6], [0, 0x80], [2, 2], [2, 0x21], [3, 0], [3, 1], [3, 3], [3, 4], [3, 6],
  [3, 8, true], [3, 13, true],
  [3, 13], [3, 14, true], [3, 2], [3, 31], [3, 32], [4, 0x21], [4, 3], [4, 0x80], [1, 6], [5, 6], [6, 6], [7, 6]] as const) {
  const name = `inject ${type} ${vector}${error ? ' with error' : ''}`
  const event: Fields = { eventInjection: typed(type, vector, error), eventInjectionError: 0x5678n, nextRip: BigInt(place.code + 1) }
  for (const mask of [0n, everyException]) {
    add(`${name}, ${mask & 1n}`, ['long64', 'compatibility', 'pae', 'flat'], 'nop', { ...event, exceptionIntercepts: mask })
    add(`${name}, real, ${mask & 1n}`, ['real'], 'nop', { ...event, exceptionIntercepts: mask, nextRip: 1n })
    add(`${name}, user, ${mask & 1n}`, ['user64', 'user32'], 'nop', { ...event, exceptionIntercepts: mask })
    if (vector < 64) add(`${name}, absent gate, ${mask & 1n}`, ['long64'], 'nop', { ...event, exceptionIntercepts: mask },
      { pokes: [absentGate(vector)] })
    add(`${name}, no stack, ${mask & 1n}`, ['long64'], 'nop', { ...event, exceptionIntercepts: mask, rsp: 0x40000100n })
  }
  add(`${name}, reserved bits`, ['long64'], 'nop', { ...event, eventInjection: typed(type, vector, error) | 0x7ffff000n })
  add(`${name}, with TF`, ['long64'], 'nop', { ...event, rflags: 0x102n, exceptionIntercepts: 2n })
  add(`${name}, in a shadow`, ['long64'], 'nop', { ...event, interruptState: 1n })
}

// ---- ports and MSRs ----

const ioio: Fields = { intercepts3: base3 | (1n << 27n), exceptionIntercepts: everyException }
const portBit = (port: number): Poke => ({ address: place.iopm + (port >> 3), bytes: 1, value: BigInt(1 << (port & 7)) })
for (const [name, code] of [['in al', 'in $0x80, %al'], ['in ax', 'in $0x80, %ax'], ['in eax', 'in $0x80, %eax'],
  ['out al', 'out %al, $0x80'],
  ['out ax', 'out %ax, $0x80'], ['out eax', 'out %eax, $0x80'], ['in dx', 'mov $0x80, %edx; in %dx, %al'],
    ['out dx', 'mov $0x80, %edx; out %eax, %dx'],
  ['insb', 'mov $0x80, %edx; insb'], ['insl', 'mov $0x80, %edx; insl'], ['outsw', 'mov $0x80, %edx; outsw'],
    ['rep outsb', 'mov $0x80, %edx; mov $3, %ecx; rep outsb'],
  ['rep insl', 'mov $0x80, %edx; mov $3, %ecx; rep insl'], ['outs fs', 'mov $0x80, %edx; fs outsb'],
    ['outs addr32', 'mov $0x80, %edx; .byte 0x67; outsb'],
  ['rep outs none', 'mov $0x80, %edx; xor %ecx, %ecx; rep outsb']] as const) {
  const data: readonly Poke[] = [portBit(0x80)]
  const code64 = `mov $${D + 0x100}, %esi; mov $${D + 0x100}, %edi; ${code}`
  add(name, ['long64', 'user64', 'pae', 'user32', 'flat'], code64, ioio, { pokes: data })
  add(`${name}, real`, ['real'], `mov $0x100, %esi; mov $0x100, %edi; ${code}`, ioio, { pokes: data })
  add(`${name}, the next port`, ['long64', 'pae'], code64, ioio, { pokes: [portBit(0x81)] })
}
for (const [port, bit] of [[0xffff, 0xffff], [0xffff, 0x10000], [0xfffe, 0x10001], [0x87, 0x88]] as const)
  add(`in ${port.toString(16)}, bit ${bit.toString(16)}`, ['long64', 'real'], `mov $${port}, %edx; in %dx, %eax`, ioio,
    { pokes: [portBit(bit)] })

const msrs: Fields = { intercepts3: base3 | (1n << 28n), exceptionIntercepts: everyException }
const msrBit = (msr: number, write: 0 | 1): Poke => {
  const bit = (msr < 0x2000 ? 0 : msr < 0xc0010000 ? 0x4000 : 0x8000) + (msr & 0x1fff) * 2 + write
  return { address: place.msrpm + (bit >> 3), bytes: 1, value: BigInt(1 << (bit & 7)) }
}
for (const msr of [0x174, 0x1b, 0xc0000080, 0xc0000082, 0xc0010015, 0xc0010117, 0x40000000, 0x2000, 0xc0002000, 0xc0012000, 0x1fff,
  0xc0001fff]) {
  const hex = msr.toString(16)
  const pokes = msr === 0x174 || msr >= 0xc0000000 && msr < 0xc0002000 || msr >= 0xc0010000 && msr < 0xc0012000 || msr < 0x2000
  add(`rdmsr ${hex}`, ['long64', 'user64', 'pae', 'real'], `mov $0x${hex}, %ecx; rdmsr`, msrs, pokes ? { pokes: [msrBit(msr, 0)] } : {})
  add(`wrmsr ${hex}`, ['long64', 'user64', 'pae', 'real'], `mov $0x${hex}, %ecx; wrmsr`, msrs, pokes ? { pokes: [msrBit(msr, 1)] } : {})
}
add('rdmsr of the other bit', ['long64'], 'mov $0x174, %ecx; rdmsr', msrs, { pokes: [msrBit(0x174, 1)] })
add('wrmsr of the other bit', ['long64'], 'mov $0x174, %ecx; xor %edx, %edx; mov $0x77, %eax; wrmsr', msrs, { pokes: [msrBit(0x174, 0)] })

// ---- nested paging ----

const nestedEntry = (address: number, value: number | bigint): Poke => quad(place.nestedTable + (address >> 12) * 8, BigInt(value))
const accesses: readonly (readonly [string, string])[] = [['read', `mov ${D + 8}, %eax`], ['write', `mov %eax, ${D + 8}`],
  ['update', `incl ${D + 8}`],
  ['fetch', `mov $${D + 8}, %eax; jmp *%rax`], ['push', `mov $${D + 8}, %esp; push %rbx`]]
for (const [name, code] of accesses) {
  for (const mode of ['long64', 'user64'] as const)
    for (const [how, entry] of [['absent', 0n], ['read only', BigInt(D) | 5n], ['supervisor', BigInt(D) | 3n],
      ['no execute', BigInt(D) | 7n | (1n << 63n)],
      ['reserved', BigInt(D) | 7n | (1n << 51n)], ['clean', BigInt(D) | 7n], ['elsewhere', BigInt(place.stack) | 0x67n]] as const)
      add(`nested ${name}, ${how}, ${mode}`, [mode], code, { exceptionIntercepts: everyException },
        { nested: true, pokes: [nestedEntry(D, entry)] })
  for (const [which, table] of [['pml4', place.pml4], ['pdpt', place.pdpt], ['directory', place.directory],
    ['table', place.table]] as const)
    for (const [how, entry] of [['absent', 0n], ['read only', BigInt(table) | 5n], ['supervisor', BigInt(table) | 3n],
      ['no execute', BigInt(table) | 7n | (1n << 63n)],
      ['clean', BigInt(table) | 7n]] as const)
      add(`nested ${name}, ${which} ${how}`, ['long64'], code, { exceptionIntercepts: everyException },
        { nested: true, pokes: [nestedEntry(table, entry)] })
}
add('nested read, 32', ['pae', 'legacy', 'flat', 'compatibility'], `mov ${D + 8}, %eax`, {}, { nested: true, pokes: [nestedEntry(D, 0)] })
add('nested write, 32', ['pae', 'legacy', 'flat', 'compatibility'], `mov %eax, ${D + 8}`, {},
  { nested: true, pokes: [nestedEntry(D, D | 5)] })
add('nested tables, 32', ['pae'], `mov %eax, ${D + 8}`, {}, { nested: true, pokes: [nestedEntry(place.directory, place.directory | 5)] })
add('nested pdpt, 32', ['pae'], `mov %eax, ${D + 8}`, {}, { nested: true, pokes: [nestedEntry(place.paePdpt, 0)] })
add('nested directory, 32', ['legacy'], `mov %eax, ${D + 8}`, {},
  { nested: true, pokes: [nestedEntry(place.legacyDirectory, place.legacyDirectory | 5)] })
add('nested root absent', ['long64', 'real'], 'nop', {}, { nested: true, pokes: [quad(place.nestedPml4, 0n)] })
add('nested large page', ['long64'], `mov ${0x200008}, %eax; mov %eax, ${0x200010}`, {},
  { nested: true, pokes: [quad(place.nestedDirectory + 8, 0x200087n)] })
add('nested large reserved', ['long64'], `mov ${0x200008}, %eax`, {}, { nested: true, pokes: [quad(place.nestedDirectory + 8, 0x202087n)] })
add('nested huge page', ['long64'], `mov ${D}, %eax; nop`, {}, { nested: true, pokes: [quad(place.nestedPdpt, 0x87n)] })
for (const [name, at] of [['stack', place.stack], ['idt', place.idt], ['gdt', place.gdt], ['tss', place.gdt]] as const) {
  add(`nested ${name} absent in delivery`, ['long64', 'user64'], 'ud2', {}, { nested: true, pokes: [nestedEntry(at, 0)] })
  add(`nested ${name} absent in INT`, ['long64', 'user64'], 'int $0x21', {}, { nested: true, pokes: [nestedEntry(at, 0)] })
  add(`nested ${name} absent in injection`, ['long64', 'user64'], 'nop', { eventInjection: typed(3, 13, true), eventInjectionError: 0x18n },
    { nested: true, pokes: [nestedEntry(at, 0)] })
  add(`nested ${name} read only in injection`, ['long64', 'user64'], 'nop', { eventInjection: typed(0, 0x21) },
    { nested: true, pokes: [nestedEntry(at, at | 5)] })
}

// ---- interrupts ----

const icr = (low: number): Poke => word(0xfee00300, low)
const nmi = icr(0x4400)
const external = icr(0x44051)
const virq = (more: bigint): Fields => ({ virtualInterrupt: (1n << 24n) | (1n << 8n) | more, virtualVector: 0x21n })
const vintr: Fields = { intercepts3: base3 | 0x10n }
for (const rflags of [2n, 0x202n]) {
  const name = rflags === 2n ? 'IF = 0' : 'IF = 1'
  add(`NMI intercepted, ${name}`, some, 'nop; nop', { rflags, intercepts3: base3 | 2n }, { pokes: [nmi] })
  add(`NMI intercepted in a shadow, ${name}`, some, 'nop; nop', { rflags, intercepts3: base3 | 2n, interruptState: 1n }, { pokes: [nmi] })
  add(`NMI, ${name}`, some, 'nop; nop', { rflags }, { pokes: [nmi] })
  add(`INTR, ${name}`, some, 'nop; nop', { rflags }, { pokes: [external] })
  add(`INTR, no masking, ${name}`, some, 'nop; nop', { rflags, virtualInterrupt: 0n }, { pokes: [external] })
  add(`INTR, no masking, STI, ${name}`, some, 'nop; sti; nop; nop', { rflags, virtualInterrupt: 0n }, { pokes: [external] })
  add(`INTR and NMI, ${name}`, some, 'nop; nop', { rflags, intercepts3: base3 | 2n }, { pokes: [external, nmi] })
  add(`INTR and injection, ${name}`, some, 'nop; nop', { rflags, eventInjection: typed(0, 0x22) }, { pokes: [external] })
  for (const [how, more] of [['priority 2', 2n << 16n], ['priority 0', 0n], ['TPR above', (2n << 16n) | 3n],
    ['TPR ignored', (2n << 16n) | 3n | (1n << 20n)]] as const) {
    add(`V_IRQ ${how}, ${name}`, [...some, 'user64', 'pae'], 'nop; nop', { rflags, ...virq(more) })
    add(`V_IRQ ${how}, intercepted, ${name}`, some, 'nop; nop', { rflags, ...virq(more), ...vintr })
    add(`V_IRQ ${how}, in a shadow, ${name}`, some, 'nop; nop', { rflags, ...virq(more), ...vintr, interruptState: 1n })
    add(`V_IRQ ${how}, by STI, ${name}`, some, 'cli; nop; sti; nop; nop', { rflags, ...virq(more), ...vintr })
    add(`V_IRQ ${how}, by STI, taken, ${name}`, some, 'cli; nop; sti; nop; nop', { rflags, ...virq(more) })
  }
  add(`V_IRQ by CR8, ${name}`, ['long64'], 'xor %eax, %eax; mov %rax, %cr8; nop', { rflags, ...virq((2n << 16n) | 3n), ...vintr })
  add(`V_IRQ and NMI, ${name}`, some, 'nop', { rflags, ...virq(2n << 16n), ...vintr, intercepts3: base3 | 0x12n }, { pokes: [nmi] })
  add(`V_IRQ and injection, ${name}`, some, 'nop', { rflags, ...virq(2n << 16n), ...vintr, eventInjection: typed(3, 6) })
  add(`V_IRQ no gate, ${name}`, ['long64'], 'nop', { rflags, ...virq(2n << 16n), exceptionIntercepts: everyException },
    { pokes: [absentGate(0x21)] })
}
for (const filter of [0n, 1n, 3n])
  add(`pause filter ${filter}`, some, 'pause; pause; pause; nop', { intercepts3: base3 | (1n << 23n), pauseCount: filter })

// ---- task switches ----

for (const [name, intercepts3] of [['', base3 | (1n << 29n)], [' let', base3]] as const) {
  const fields: Fields = { intercepts3, exceptionIntercepts: everyException }
  add(`task jump${name}`, ['pae', 'legacy', 'flat'], 'ljmp $0x58, $0', fields)
  add(`task call${name}`, ['pae', 'legacy', 'flat'], 'lcall $0x58, $0', fields)
  add(`task gate${name}`, ['pae', 'flat'], 'lcall $0x60, $0', fields)
  add(`task by iret${name}`, ['pae', 'flat'], '.byte 0xcf', { ...fields, rflags: 0x4002n },
    { pokes: [word(place.tss32, selector.otherTss), word(place.gdt + selector.otherTss + 4, 0x8b01)] })
  add(`task by int${name}`, ['pae', 'flat'], 'int $0x21', fields, { pokes: [quad(place.idt32 + 0x21 * 8, 0x0000850000580000n)] })
  add(`task by #UD${name}`, ['pae', 'flat'], 'ud2', { intercepts3 }, { pokes: [quad(place.idt32 + 6 * 8, 0x0000850000580000n)] })
  add(`task by #GP${name}`, ['pae', 'flat'], 'mov $0x1234, %eax; mov %ax, %ds', { intercepts3 },
    { pokes: [quad(place.idt32 + 13 * 8, 0x0000850000580000n)] })
  add(`task by injection${name}`, ['pae', 'flat'], 'nop', { intercepts3, eventInjection: typed(3, 13, true), eventInjectionError: 0x44n },
    { pokes: [quad(place.idt32 + 13 * 8, 0x0000850000580000n)] })
  add(`task not there${name}`, ['pae'], 'ljmp $0x58, $0', fields, { pokes: [word(place.gdt + selector.otherTss + 4, 0x0901)] })
}

// ---- what is run again after its exit ----

const field = (offset: number): number => place.vmcb + offset
const copy = (from: number, to: number): Poke => ({ address: field(to), bytes: 16, value: BigInt(field(from)) })
const onward: readonly Poke[] = [copy(0xc8, 0x578)]
add('resume after cpuid', some, 'cpuid; nop; pushf; hlt', { intercepts3: base3 | (1n << 18n) | (1n << 16n) }, { then: [onward, onward] })
add('inject what was interrupted', ['long64'], 'int $0x21', { exceptionIntercepts: 1n << 14n, rsp: 0x40000100n },
  { then: [[copy(0x88, 0xa8), quad(field(0x5d8), BigInt(place.stackTop))]] })
add('STI, MOV SS, intercepts', some, 'sti; cpuid; mov %ss, %ax; mov %ax, %ss; cpuid', { intercepts3: base3 | (1n << 18n) },
  { then: [onward, onward] })
add('interrupted shadow goes on', some, 'sti; cpuid; nop; nop', { intercepts3: base3 | (1n << 18n), ...virq(2n << 16n) },
  { then: [onward] })
add('clean bits', ['long64'], 'cpuid; cpuid; hlt', { intercepts3: base3 | (1n << 18n) },
  { then: [[...onward, word(field(0xc0), 0xfff)], [...onward, word(field(0xc0), 0)]] })

export const snippets: readonly Snippet[] = list
