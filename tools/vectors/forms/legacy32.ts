/** Forms that exist only outside of 64-bit mode, and 32-bit forms of what differs there (SDM vol. 2), in compatibility mode. */
import { ADDRESSING_32, anyFlags, gpr, memory, packed, register, SUFFIX, writeMemory, xmm, ymmHigh } from '../form.ts'
import type { FormSpec, Group, Input } from '../form.ts'
import { CODE_PAGE, WINDOW } from '../../../test/vectors/state.ts'
import { anyStack } from './move.ts'

const AX = gpr(0, 16)

function decimal(): FormSpec[] {
  const forms: FormSpec[] = []
  const nibbles: Input = gpr(0, 8, (random) => random.pick([0x99n, 0x9an, 0x0fn, 0xf0n, 0xffn, 0n, 0x60n, 0x5fn,
    BigInt(random.below(256))]))
  for (const text of ['daa', 'das']) forms.push({ text, inputs: [anyFlags, AX, nibbles], count: 64, undefinedFlags: 'o' })
  for (const text of ['aaa', 'aas']) forms.push({ text, inputs: [anyFlags, AX, nibbles], count: 48, undefinedFlags: 'oszp' })
  for (const base of [10, 1, 16, 255, 7]) {
    forms.push({ text: `aam $${base}`, inputs: [anyFlags, AX], count: 16, undefinedFlags: 'oac' })
    forms.push({ text: `aad $${base}`, inputs: [anyFlags, AX], count: 16, undefinedFlags: 'oac' })
  }
  forms.push({ text: 'aam $0', inputs: [anyFlags, AX], count: 6, undefinedFlags: 'oszapc' },
    { text: 'aad $0', inputs: [anyFlags, AX], count: 6, undefinedFlags: 'oac' })
  forms.push({ text: '.byte 0xd6 # salc', inputs: [anyFlags, AX], count: 6 })
  return forms
}

function oneByte(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const op of ['inc', 'dec']) {
    for (const width of [16, 32] as const) {
      for (const number of [0, 3, 4, 7]) {
        forms.push({ text: `${op}${SUFFIX[width]} ${register(number, width)}`, inputs: [anyFlags, gpr(number, width)], count: 8 })
      }
    }
  }
  forms.push({ text: '.byte 0x82, 0xc3, 0x85 # addb $0x85, %bl as 82 /0', inputs: [anyFlags, gpr(3, 8)] })
  forms.push({ text: '.byte 0x82, 0xfb, 0x85 # cmpb $0x85, %bl as 82 /7', inputs: [anyFlags, gpr(3, 8)] })
  for (const text of ['addl %ebx, %eax', 'subb %ch, %dl', 'imull %ebx, %eax', 'shll %cl, %ebx']) {
    const undefinedFlags = text[0] === 'i' ? 'szap' : text.startsWith('sh') ? 'oac' : ''
    forms.push({ text, inputs: [anyFlags, gpr(0, 32), gpr(3, 32), gpr(1, 32), gpr(2, 32)], undefinedFlags })
  }
  for (const m of ADDRESSING_32) {
    forms.push({ text: `addl %eax, ${m.text}`, inputs: [anyFlags, gpr(0, 32), memory(m, 4)], count: 12 })
    forms.push({ text: `movl ${m.text}, %ebx`, inputs: [anyFlags, memory(m, 4)], count: 12 })
  }
  forms.push({ text: 'movl %eax, 0x10000500', inputs: [gpr(0, 32)], count: 2 }, { text: 'movb 0x10000501, %al', count: 1 },
    { text: 'movl (%esi,%ebx,4), %eax', inputs: [wrapAround], count: 8 })
  return forms
}

/** Base and index add up beyond 4 GiB: addresses wrap. */
const wrapAround: Input = (state, random) => {
  const index = 0x3000_0000n + BigInt(random.below(0x1000_0000))
  state.gpr[3] = index
  state.gpr[6] = BigInt.asUintN(32, BigInt(WINDOW + 4 * random.below(0x700)) - 4n * index)
}

/** ModRM of 16 bits: only LEA can use it without memory below 64 KiB; loads fault at the computed address. */
function addressSize16(): FormSpec[] {
  const texts = ['(%bx,%si)', '(%bx,%di)', '(%bp,%si)', '(%bp,%di)', '(%si)', '(%di)', '0x1234', '(%bx)', '0x7f(%bx,%si)', '-3(%bp)',
    '0x1234(%bp,%di)', '-0x8000(%bx)']
  const inputs = [anyFlags, gpr(3, 32), gpr(5, 32), gpr(6, 32), gpr(7, 32)]
  return texts.flatMap((text) => [
    { text: `addr16 leal ${text}, %eax`.replace('addr16 ', ''), inputs, count: 4 },
    { text: `leaw ${text}, %cx`, inputs, count: 4 },
    { text: `movb ${text}, %dl`, inputs: [...inputs, ...[3, 5, 6,
      7].map((number) => gpr(number, 16, (random) => BigInt(random.below(0x400))))], count: 2 },
  ])
}

const frameAt: Input = (state, random) => {
  state.gpr[5] = BigInt(WINDOW + random.pick([0x1800, 0xc03, 0x1ffc, 0x1fff, 0x2000]))
}

function stack(): FormSpec[] {
  const forms: FormSpec[] = []
  const push = (text: string, inputs: Input[] = [], count = 10): number =>
    forms.push({ text, mode: 32, inputs: [anyFlags, anyStack, ...inputs], count })
  // After a fault half-way, which registers are loaded already is the model's choice.
  for (const text of ['popa', 'popaw']) forms.push({ text, inputs: [anyFlags, anyStack], count: 10, undefinedRegistersOnFault: 0xef })
  for (const text of ['pusha', 'pushaw', 'pushl %eax', 'popl %ebx', 'pushl %esp', 'popl %esp', 'pushw %dx', 'popw %si', 'pushl $-2',
    'pushw $0x1234', 'pushf', 'pushfw', 'call .+0x40', 'pushl 4(%esp)', 'popl 4(%esp)']) push(text)
  // Some processors write all four bytes, some only the selector's two.
  for (const text of ['pushl %es', 'pushl %cs', 'pushl %ss', 'pushl %ds', 'pushl %fs']) {
    forms.push({ text, inputs: [anyFlags, anyStack], count: 3, vendor: 'AuthenticAMD' })
  }
  push('pushw %es', [], 3)
  const flagsOnStack: Input = (state, random) => writeMemory(state, state.gpr[4], random.u64() & ~0x100n, 4)
  push('popf', [flagsOnStack], 12)
  push('popfw', [flagsOnStack], 8)
  const selector: Input = (state, random) => writeMemory(state, state.gpr[4],
    random.pick([0x2bn, 0n, 0x33n, 0x23n, 0xfff0n]) | 0xabcd0000n, 4)
  for (const text of ['popl %es', 'popl %ds', 'popl %ss', 'popw %es']) push(text, [selector], 10)
  const target: Input = (state, random) => writeMemory(state, state.gpr[4], BigInt(CODE_PAGE + random.below(0x700)), 4)
  push('ret', [target])
  push('ret $8', [target], 4)
  push('leave', [frameAt])
  push('leavew', [frameAt])
  for (const [size, level] of [[0, 0], [0x20, 1], [0x100, 3]]) {
    push(`enter $${size}, $${level}`, [frameAt], 6)
    push(`enterw $${size}, $${level}`, [frameAt], 4)
  }
  return forms
}

/** Null selectors have RPL 0 here: returning to user mode through the kernel would lose another one. */
const farPointerIn: Input = (state, random) => {
  state.gpr[6] = BigInt(WINDOW + 0x300 + random.below(256))
  writeMemory(state, state.gpr[6], random.u64() & 0xffff_ffffn, 4)
  const selector = random.pick([0x2bn, 0x2bn, 0n, 0x33n, 0x23n, 0xfff8n])
  writeMemory(state, state.gpr[6] + 2n, selector, 2)
  writeMemory(state, state.gpr[6] + 4n, selector, 2)
}

const bounds = (width: 16 | 32): Input => (state, random) => {
  const size = width / 8
  state.gpr[6] = BigInt(WINDOW + 0x400 + random.below(0x100))
  const lower = BigInt(random.below(20)) - 10n
  writeMemory(state, state.gpr[6], lower, size)
  writeMemory(state, state.gpr[6] + BigInt(size), lower + BigInt(random.below(12)), size)
  state.gpr[0] = (state.gpr[0] & ~((1n << BigInt(width)) - 1n)) | BigInt.asUintN(width, lower + BigInt(random.below(24)) - 6n)
}

function segmentsAndControl(): FormSpec[] {
  const forms: FormSpec[] = []
  for (const [width, s] of [[16, 'w'], [32, 'l']] as const) {
    forms.push({ text: `bound${s} ${width === 16 ? '%ax' : '%eax'}, (%esi)`, inputs: [anyFlags, bounds(width)], count: 24 })
    for (const op of ['les', 'lds', 'lss']) {
      forms.push({ text: `${op}${s} (%esi), ${register(3, width)}`, inputs: [farPointerIn], count: 14 })
    }
  }
  forms.push({ text: 'into', inputs: [anyFlags], count: 12, trapVector: 4 })
  forms.push({ text: 'arpl %bx, %ax', inputs: [anyFlags, gpr(0, 16), gpr(3, 16)], count: 16 },
    { text: 'arpl %bx, (%esi)', inputs: [anyFlags, gpr(3, 16), memory(ADDRESSING_32[0], 2)], count: 12 })
  forms.push({ text: 'loop .+0x20', inputs: [anyFlags, gpr(1, 32)], count: 8 }, { text: 'jcxz .+0x20', inputs: [gpr(1, 32)], count: 10 },
    { text: 'jecxz .+0x20', inputs: [gpr(1, 32)], count: 10 })
  forms.push({ text: 'loopw .+0x20', inputs: [anyFlags, gpr(1, 32)], count: 8 }, { text: 'jmp .+0x100', count: 1 },
    { text: 'jne .-0x200', inputs: [anyFlags], count: 6 })
  forms.push({ text: 'xlatb', inputs: [gpr(0, 8), (state) => (state.gpr[3] = BigInt(WINDOW + 0x40))], count: 4 })
  forms.push({ text: 'ljmp $0x23, $0x20000100', count: 1 }, { text: 'ljmp $0x33, $0x20000100', count: 1 },
    { text: 'ljmp $0x2b, $0x20000100', count: 1 }, { text: 'ljmp $0, $0x20000100', count: 1 })
  forms.push({ text: 'lcall $0x23, $0x20000100', count: 1 }, { text: 'lcall $0x33, $0x20000100', count: 1 })
  forms.push({ text: '.byte 0xc5, 0xf8, 0x77 # vzeroupper, not LDS', count: 2, features: ['avx'] },
    { text: '.byte 0x62, 0x06 # bound (%esi), %eax', inputs: [bounds(32)], count: 4 })
  forms.push({ text: '.byte 0xc4, 0x06 # les (%esi), %eax', inputs: [farPointerIn], count: 6 })
  for (const text of ['rep movsb', 'rep stosl', 'repe cmpsb', 'repne scasw', 'lodsl']) {
    forms.push({ text, undefinedFlagsOnFault: 'oszapc', inputs: [anyFlags, gpr(1, 32, (random) => BigInt(random.below(12)))], count: 8 })
  }
  for (const text of ['hlt', 'cli', 'inb $0x20, %al', 'int $0x20', 'mov %cr0, %eax', 'ud2']) forms.push({ text, count: 1 })
  forms.push({ text: 'int3', count: 1, trapVector: 3 })
  return forms
}

/** VEX prefixes where eight registers are: what of them is ignored. */
function vex(): FormSpec[] {
  const vectors: Input[] = [0, 1, 2, 5, 7].flatMap((number) => [xmm(number, packed(32)), ymmHigh(number, packed(32))])
  const form = (text: string, features: string[], ...inputs: Input[]): FormSpec =>
    ({ text, features, inputs: [anyFlags, ...inputs], count: 4 })
  const avx = (text: string): FormSpec => form(text, ['avx'], ...vectors)
  const indexes: Input = (state) => {
    state.gpr[6] = BigInt(WINDOW + 0x800)
    state.xmm[1] = { low: 0xffff_fff0_0000_0010n, high: 0x0000_0004_ffff_fffcn }
  }
  return [
    avx('vpxor %ymm1, %ymm2, %ymm0'), avx('vpermilps $0x1b, %ymm1, %ymm0'), avx('vzeroall'), avx('vextractf128 $1, %ymm1, %xmm0'),
    avx('.byte 0xc4, 0xc1, 0x68, 0x57, 0xc1 # vxorps with B: ignored'),
    avx('.byte 0xc4, 0xe1, 0x10, 0x57, 0xc1 # vxorps with vvvv above 7'),
    avx('.byte 0xc4, 0xe3, 0x69, 0x4c, 0xc1, 0xf0 # vpblendvb with bit 7 of the immediate: ignored'),
    avx('.byte 0xc4, 0xe1, 0xf9, 0x6e, 0xc0 # vmovd with W: ignored'),
    form('vpgatherdd %xmm2, (%esi,%xmm1,4), %xmm0', ['avx2'], ...vectors, indexes),
    form('.byte 0xc4, 0xe2, 0xf0, 0xf2, 0xc2 # andn with W: ignored', ['bmi1'], gpr(1, 32), gpr(2, 32)),
    form('.byte 0xc4, 0xe2, 0x30, 0xf2, 0xc2 # andn with vvvv above 7', ['bmi1'], gpr(1, 32), gpr(2, 32)),
  ].map((each) => (each.text.includes('andn') ? { ...each, undefinedFlags: 'ap' } : each))
}

export const LEGACY32: Group = {
  name: 'legacy32',
  forms: [...decimal(), ...oneByte(), ...addressSize16(), ...stack(), ...segmentsAndControl(), ...vex()]
    .map((form) => ({ ...form, mode: 32 })),
}
