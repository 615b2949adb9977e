/**
 * System instructions that kernels execute at every system call, fault and copy from a program: generated code does the usual case, the
 * helper named in the row all others. Both take the same virtual time. Intel SDM vol. 2, the instructions' pages.
 */
import { cr4 } from '../../cpu/bits.ts'
import { at, segment } from '../../cpu/layout.ts'
import { flag } from '../../cpu/rflags.ts'
import type { HelperName } from '../../helpers/index.ts'
import { helperTime } from '../../helpers/time.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { force64, form, instruction, only64 } from '../define.ts'
import { Cy, Ry } from '../operands.ts'

const and = (b: Semantics, ...conditions: Node[]): Node => conditions.reduce((all, each) => b.and(all, each))
/** Virtual nanoseconds besides an instruction's own. */
const timeOf = (helper: HelperName): number => helperTime[helper] ?? 0
const isHost = (b: Semantics): Node => b.eqz(b.state('guestMode'))
const controlBit = (b: Semantics, mask: number): Node => b.ne(b.and(b.wrap(b.state('cr4')), mask), 0)

// ---- time stamps ----

function timeStamp(b: Semantics): void {
  const stamp = b.add(b.time(), b.state('tscOffset'))
  b.writeRegister(0, b.and(stamp, 0xffffffffn))
  b.writeRegister(2, b.shrU(stamp, 32n))
}
/** Guests' time stamps are moved and scaled. */
const readsTime = (b: Semantics, time: number): Node => and(b, isHost(b), b.affords(time))

instruction('RDTSC', { forms: [form('0F 31')], sized: true, intercept: 'rdtsc', checks: ['tsc'],
  semantics: b => {
    const time = timeOf('rdtsc')
    b.quickOr(() => readsTime(b, time), () => {
      timeStamp(b)
      b.spend(time)
    }, 'rdtsc')
  } })
instruction('RDTSCP', { forms: [form('0F 01 F9')], sized: true, feature: 'rdtscp', intercept: 'rdtscp', checks: ['tsc'],
  semantics: b => {
    const time = timeOf('rdtscp')
    b.quickOr(() => readsTime(b, time), () => {
      timeStamp(b)
      b.writeRegister(1, b.and(b.state('msrTscAux'), 0xffffffffn))
      b.spend(time)
    }, 'rdtscp')
  } })

// ---- waiting ----

instruction('PAUSE', { forms: [form('F3 90')], sized: true, intercept: 'pause',
  semantics: b => {
    const time = timeOf('pause')
    b.quickOr(() => b.affords(time), () => b.spend(time), 'pause')
  } })

// ---- control registers, protection keys ----

/** Of CR0, CR2, CR3 and CR4, which lie one after another in the state; CR8 is the local APIC's. */
const stored = 0b11101

instruction('MOV CR/DR', { forms: [form('0F 20 /r', Ry, Cy, force64)], sized: true, intercept: 'readCr',
  semantics: (b, destination, source) => {
    if (destination.bits !== 64) return b.helper('mov_from_cr')
    const time = timeOf('mov_from_cr')
    const number = b.registerNumber(source)
    const isStored = b.and(b.shrU(b.i32(stored), number), 1)
    b.quickOr(() => and(b, isStored, b.eqz(b.state('cpl')), isHost(b), b.affords(time)), () => {
      const place = b.sub(number, b.ne(number, 0))
      b.write(destination, b.load('i64', b.shl(place, 3), at.cr0))
      b.spend(time)
    }, 'mov_from_cr')
  } })

instruction('RDPKRU', { forms: [form('NP 0F 01 EE')], sized: true, feature: 'pku',
  semantics: b => {
    const time = timeOf('rdpkru')
    b.quickOr(() => and(b, controlBit(b, cr4.PKE), b.eqz(b.wrap(b.gpr(1))), b.affords(time)), () => {
      b.writeRegister(0, b.extendU(b.state('pkru')))
      b.writeRegister(2, b.i64(0))
      b.spend(time)
    }, 'rdpkru')
  } })

// ---- bases of FS and GS ----

const bases: readonly (readonly [string, number, number])[] = [['FS', segment.fs, 0], ['GS', segment.gs, 1]]
for (const [letters, index, digit] of bases) {
  instruction(`RD${letters}BASE`, { forms: [form(`F3 0F AE /${digit}`, Ry, only64)], feature: 'fsgsbase', sized: true,
    semantics: (b, destination) => {
      const base = (): Node => b.state('segBase', index)
      b.quickOr(() => controlBit(b, cr4.FSGSBASE), () => b.write(destination, b.operandSize === 64 ? base() : b.wrap(base())),
        'rdsegbase', b.i32(index))
    } })
  instruction(`WR${letters}BASE`, { forms: [form(`F3 0F AE /${digit + 2}`, Ry, only64)], feature: 'fsgsbase', sized: true,
    semantics: (b, source) => {
      const value = b.widenUnsigned(b.read(source), b.operandSize)
      const canonical = (): Node => b.eqz(b.shrU(b.add(value, 1n << 47n), 48n))
      b.quickOr(() => and(b, controlBit(b, cr4.FSGSBASE), canonical()), () => b.setState('segBase', value, index),
        'wrsegbase', b.i32(index), b.read(source))
    } })
}

// ---- flags with privilege ----

/** CPL <= IOPL: real mode has CPL 0, virtual-8086 mode 3, so one comparison decides the usual case in every mode. */
const mayChangeInterrupts = (b: Semantics): Node => b.leU(b.state('cpl'), b.and(b.shrU(b.state('eflags'), 12), 3))

instruction('CLI', { forms: [form('FA')], semantics: b => b.when(mayChangeInterrupts(b),
  () => b.setState('eflags', b.and(b.state('eflags'), ~flag.IF)), () => b.helperInside('cli')) })

const blockedBySti = 1

/** An interrupt that waits is for the run loop, after the next instruction. */
instruction('STI', { forms: [form('FB')], sized: true,
  semantics: b => b.when(and(b, mayChangeInterrupts(b), b.eqz(b.state('interruptPending'))), () => {
    b.if(b.eqz(b.and(b.state('eflags'), flag.IF)), () => {
      b.setState('interruptShadow', b.or(b.state('interruptShadow'), blockedBySti))
      b.markShadow()
    })
    b.setState('eflags', b.or(b.state('eflags'), flag.IF))
  }, () => b.helperInside('sti')) })

/** Where it changes something, the first-level tables of the other privilege must be known. */
function setAlignmentCheck(name: 'CLAC' | 'STAC', encoding: string, tables: 'kernelTables' | 'accessTables'): void {
  const sets = name === 'STAC'
  instruction(name, { forms: [form(encoding)], sized: true, feature: 'smap',
    semantics: b => {
      const differs = (): Node => {
        const bit = b.and(b.state('eflags'), flag.AC)
        return sets ? b.eqz(bit) : b.ne(bit, 0)
      }
      b.quickOr(() => b.and(b.eqz(b.state('cpl')), b.or(b.eqz(differs()), b.ne(b.state(tables), 0))), () => {
        b.if(differs(), () => {
          b.setState('eflags', sets ? b.or(b.state('eflags'), flag.AC) : b.and(b.state('eflags'), ~flag.AC))
          b.takeTables(tables)
        })
      }, sets ? 'stac' : 'clac')
    } })
}
setAlignmentCheck('CLAC', 'NP 0F 01 CA', 'kernelTables')
setAlignmentCheck('STAC', 'NP 0F 01 CB', 'accessTables')
