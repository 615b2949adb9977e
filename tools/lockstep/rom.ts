/**
 * A boot ROM that brings any PC from reset into a given state: it copies what it carries into RAM, loads the system registers, then the
 * general ones, and jumps. So QEMU and Bochs start a guest exactly where our machine starts it. Assembled by GNU as.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CpuRegisters } from '../../src/api.ts'
import type { StartState } from '../../src/insight/lockstep/start.ts'

const LOADER_SIZE = 0x10000
const LOADER_AT = 0xf0000
const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')

/** The assembler says what is wrong with its input on stderr: that becomes the error's message. */
export function assemble(source: string, origin: number): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), 'vitrine-as-'))
  const file = (name: string): string => join(directory, name)
  try {
    writeFileSync(file('in.s'), source)
    const run = (program: string, ...args: string[]): void => {
      execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    }
    run('as', '--64', '-o', file('out.o'), file('in.s'))
    const at = `0x${origin.toString(16)}`
    run('ld', '-m', 'elf_x86_64', '-Ttext', at, '-e', at, '-o', file('out.elf'), file('out.o'))
    run('objcopy', '-O', 'binary', '-j', '.text', file('out.elf'), file('out.bin'))
    return new Uint8Array(readFileSync(file('out.bin')))
  } catch (error) {
    const { code, stderr, path } = error as { code?: string; stderr?: Buffer; path?: string }
    if (code === 'ENOENT') throw new Error(`${path ?? 'as'} is not installed (package binutils)`, { cause: error })
    throw new Error(`assembling failed: ${stderr?.toString() ?? error}`, { cause: error })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const hex = (value: bigint | number): string => `0x${BigInt.asUintN(64, BigInt(value)).toString(16)}`

/** What the loader cannot establish is refused: a silent difference at the start would be found a million instructions later. */
function check(registers: CpuRegisters): void {
  if (registers.rflags !== 2n) throw new Error(`the boot ROM starts with RFLAGS = 2 only, not ${registers.rflags.toString(16)}`)
  if (registers.rip > 0xffffffffn) throw new Error(`the boot ROM starts below 4 GiB only, not at ${registers.rip.toString(16)}`)
}

function loader(registers: CpuRegisters, copies: { from: number; to: number; length: number }[]): string {
  const { segments, cr0, cr3, cr4, efer, gdtr, idtr, gpr } = registers
  const long = (efer & 0x100n) !== 0n
  const real = (cr0 & 1n) === 0n
  const width = long ? 16 : 8
  const data = ['es', 'ss', 'ds', 'fs', 'gs'] as const
  const general = NAMES.slice(0, width).map((name, i) =>
    long ? `movabs $${hex(gpr[i])}, %${name}` : `movl $${hex(gpr[i] & 0xffffffffn)}, %${name.replace('r', 'e')}`,
  )
  const selectors = data.map((name) => `mov $${segments[name].selector}, %ax\nmov %ax, %${name}`)
  const wrmsr = (msr: number, value: bigint): string =>
    `mov $${hex(msr)}, %ecx\nmov $${hex(value & 0xffffffffn)}, %eax\nmov $${hex(value >> 32n)}, %edx\nwrmsr`
  // XOR clears OF, SAHF with AH = 0 the others; MOV leaves them alone.
  const clearFlags = 'cld\nxor %eax, %eax\nsahf'
  const end = real
    ? `
      ljmp $0x18, $(in16 - start)
      .code16
in16: mov $0x20, %ax
      mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %fs; mov %ax, %gs
      movl $${hex(cr0)}, %eax
      mov %eax, %cr0
      ljmp $0xf000, $(real - start)
real: ${selectors.join('\n')}
      lidtl %cs:(idtr - start)
      lgdtl %cs:(gdtr - start)
      ${clearFlags}
      ${general.join('\n')}
      ljmp $${segments.cs.selector}, $${hex(registers.rip)}`
    : `
      mov $${hex(cr4)}, %eax
      mov %eax, %cr4
      mov $${hex(cr3)}, %eax
      mov %eax, %cr3
      ${efer === 0n ? '' : wrmsr(0xc0000080, efer & ~0x400n)}
      mov $${hex(cr0)}, %eax
      mov %eax, %cr0
      lgdt ${LOADER_AT} + gdtr - start
      lidt ${LOADER_AT} + idtr - start
      ${
        long
          ? `ljmp $${segments.cs.selector}, $(in64 - start + ${LOADER_AT})
      .code64
in64: ${selectors.join('\n')}
      ${wrmsr(0xc0000100, segments.fs.base)}
      ${wrmsr(0xc0000101, segments.gs.base)}
      ${clearFlags}
      ${general.join('\n')}
      jmp *target(%rip)`
          : `${selectors.join('\n')}
      ${clearFlags}
      ${general.join('\n')}
      ljmp $${segments.cs.selector}, $${hex(registers.rip)}`
      }`
  return `
      .code16
      .globl _start
start:
_start:
      cli
      lgdtl %cs:(bootgdtr - start)
      mov %cr0, %eax
      or $1, %al
      mov %eax, %cr0
      ljmpl $8, $(in32 - start + ${LOADER_AT})
      .code32
in32: mov $0x10, %ax
      mov %ax, %ds; mov %ax, %es; mov %ax, %ss
      cld
      ${copies.map((copy) => `mov $${hex(copy.from)}, %esi\nmov $${hex(copy.to)}, %edi\nmov $${copy.length}, %ecx\nrep movsb`).join('\n')}
      ${end}
      .balign 8
bootgdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00009b0f0000ffff, 0x000093000000ffff
bootgdtr: .word 39; .long ${LOADER_AT} + bootgdt - start
      .balign 8
gdtr: .word ${gdtr.limit}; .quad ${hex(gdtr.base)}
      .balign 8
idtr: .word ${idtr.limit}; .quad ${hex(idtr.base)}
      .balign 8
target: .quad ${hex(registers.rip)}
      .org 0xfff0
      .code16
      ljmp $0xf000, $0
      .org 0xffff
      .byte 0
`
}

/**
 * The ROM image, a multiple of 64 KiB that ends at 4 GiB. With `carry`, it brings the memory blocks with it; without, they are
 * expected in RAM already.
 */
export function bootRom(start: StartState, carry: boolean): Uint8Array {
  check(start.registers)
  const blocks = carry ? start.memory : []
  const payload = blocks.reduce((sum, block) => sum + block.bytes.length, 0)
  const size = LOADER_SIZE + Math.ceil(payload / 0x10000) * 0x10000
  const rom = new Uint8Array(size)
  let at = 0
  const copies = blocks.map(({ address, bytes }) => {
    rom.set(bytes, at)
    const copy = { from: 2 ** 32 - size + at, to: address, length: bytes.length }
    at += bytes.length
    return copy
  })
  rom.set(assemble(loader(start.registers, copies), 0), size - LOADER_SIZE)
  return rom
}
