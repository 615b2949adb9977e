/**
 * Pushes, pops, LEAVE and PUSHF. What has several memory accesses or privilege checks is a helper. Intel SDM vol. 2, instruction
 * reference.
 */
import { default64, form, instruction, legacyOnly, type Node } from '../define.ts'
import { Ev, Ibs, Iw, Ib, Iz, Zv } from '../operands.ts'
import { flagsImage } from './logic.ts'
import { readAs } from './move.ts'
import { flag } from '../../cpu/rflags.ts'

instruction('PUSH', {
  forms: [form('50+r', Zv, default64), form('FF /6', Ev, default64), form('6A ib', Ibs, default64), form('68 iz', Iz, default64)],
  modal: true,
  semantics: (b, source) => b.push(readAs(b, source, b.operandSize), b.operandSize),
})
instruction('POP', {
  forms: [form('58+r', Zv, default64), form('8F /0', Ev, default64)],
  modal: true,
  addressAfterPop: true,
  semantics: (b, destination) => {
    if (destination.class !== 'memory') return b.write(destination, b.pop(b.operandSize))
    // a legacy stack's address takes the place where that of the operand was
    const address = b.address(destination)
    const value = b.pop(b.operandSize)
    b.writeMemory(address, b.operandSize === 16 ? 'i32_16' : b.operandSize === 32 ? 'i32' : 'i64', value, b.operandSize / 8)
  },
})
instruction('PUSHA', { forms: [form('60', legacyOnly)], semantics: b => b.helper('pusha') })
instruction('POPA', { forms: [form('61', legacyOnly)], semantics: b => b.helper('popa') })
instruction('ENTER', { forms: [form('C8 i16 ib', Iw, Ib, default64)], semantics: b => b.helper('enter') })
instruction('LEAVE', {
  forms: [form('C9', default64)],
  modal: true,
  semantics: b => {
    const old = b.gpr(5)
    const value = b.popFrom(old, b.operandSize)
    const narrow = (): Node => b.or(b.and(old, ~0xffffn), b.extendU(value))
    b.writeRegister(5, b.operandSize === 64 ? value : b.operandSize === 32 ? b.extendU(value) : narrow())
  },
})
instruction('PUSHF', {
  forms: [form('9C', default64)],
  modal: true,
  intercept: 'pushf',
  semantics: b => {
    const push = (): void => {
      const image = b.and(flagsImage(b), ~(flag.VM | flag.RF))
      b.push(b.operandSize === 64 ? b.extendU(image) : image, b.operandSize)
    }
    if (b.wide) return push()
    // virtual-8086 mode has rules of its own
    b.quickOr(() => b.eqz(b.and(b.state('eflags'), flag.VM)), push, 'pushf')
  },
})
