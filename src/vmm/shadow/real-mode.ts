/**
 * Real mode where processors cannot enter a guest in it: VT-x without "unrestricted guest". The guest is in virtual-8086 mode; what that
 * forbids raises #GP and is done here: system registers, I/O, HLT. From MOV to CR0 that sets PE to the far jump into a 32-bit segment every
 * instruction is done here. Intel SDM vol. 3, "Virtual-8086 Mode", "Switching to Protected Mode"; vol. 2 for the instructions.
 */
import type { AnyExit, RawExit } from '../exits.ts'
import { readLinear } from '../guest-walk.ts'
import { linearAddress, modRm, parse, type ModRm, type Parsed } from '../memory-operand.ts'
import { register } from '../port.ts'
import type { Vcpu } from '../vcpu.ts'
import { segmentNames, type SegmentName, type Virtualizer } from '../virtualizer.ts'
import { raise, vector } from './raise.ts'

const low32 = 0xffffffffn
const conforming = 0x04n

/** Something that is not done: the vCPU cannot go on, and why. */
const unknown = (vcpu: Vcpu, bytes: Uint8Array, raw: RawExit): AnyExit => ({
  kind: 'other', raw, name: `${[...bytes.subarray(0, 6)].map(each => each.toString(16).padStart(2, '0')).join(' ')} in real mode at `
    + `${vcpu.get('csSelector').toString(16)}:${vcpu.get('rip').toString(16)}`,
})

interface Instruction {
  readonly bytes: Uint8Array
  readonly parsed: Parsed
  /** Index behind the opcode. */
  readonly at: number
}

const virtual86 = 1n << 17n
const ioPrivilege = 3n << 12n
const real86 = 0xf3n
const writableData = 0xc093n
const unusable = 0x10000n

/** An interrupt or exception of real mode. SDM vol. 3, "Interrupt and Exception Handling" of real-address mode. */
export function deliverReal(vcpu: Vcpu, which: number): void {
  const entry = readLinear(vcpu, vcpu.get('idtrBase') + BigInt(which * 4), 4)
  if (entry.length < 4) throw new Error(`${vcpu.name}: no vector ${which} in real mode`)
  const view = new DataView(entry.slice().buffer)
  const flags = vcpu.get('rflags')
  const frame = Uint16Array.of(Number(vcpu.get('rip') & 0xffffn), Number(vcpu.get('csSelector')), Number(flags & 0x8fffn))
  const sp = BigInt.asUintN(16, vcpu.get('rsp') - 6n)
  vcpu.set('rsp', (vcpu.get('rsp') & ~0xffffn) | sp)
  vcpu.guest.memory.write(Number(vcpu.get('ssSelector') * 16n + sp), new Uint8Array(frame.buffer))
  vcpu.set('rflags', flags & ~0x40300n) // IF, TF, AC
  vcpu.set('csSelector', BigInt(view.getUint16(2, true)))
  vcpu.set('csBase', BigInt(view.getUint16(2, true) * 16))
  vcpu.set('rip', BigInt(view.getUint16(0, true)))
}

export class RealMode {
  private readonly vcpu: Vcpu
  private readonly virtualizer: Virtualizer
  private readonly raw: RawExit

  constructor(vcpu: Vcpu, virtualizer: Virtualizer, raw: RawExit) {
    this.vcpu = vcpu
    this.virtualizer = virtualizer
    this.raw = raw
  }

  /** The instruction at CS:IP; an exit where somebody else has to say what it does. */
  step(): AnyExit | 'ready' {
    const { vcpu } = this
    const bytes = new Uint8Array(24)
    const code = readLinear(vcpu, BigInt.asUintN(32, vcpu.get('csBase') + vcpu.get('rip')), 15)
    bytes.set(code)
    const parsed = parse(bytes, 16)
    const opcode = bytes[parsed.opcode]
    const instruction = { bytes, parsed, at: parsed.opcode + 1 }
    const size = parsed.operandSize as 2 | 4
    switch (opcode) {
      case 0x0f: return this.twoBytes(instruction)
      case 0xea: {
        const view = new DataView(bytes.buffer)
        const offset = size === 4 ? view.getUint32(instruction.at, true) : view.getUint16(instruction.at, true)
        return this.jump(view.getUint16(instruction.at + size, true), offset, bytes)
      }
      case 0xff: {
        const operand = this.operand(instruction)
        if (operand.register !== 5 || operand.other.kind !== 'memory') break
        const pointer = this.readMemory(operand, size + 2)
        if (!pointer) break
        const offset = size === 4 ? pointer.getUint32(0, true) : pointer.getUint16(0, true)
        return this.jump(pointer.getUint16(size, true), offset, bytes)
      }
      case 0xcd:
        this.next(instruction.at + 1)
        deliverReal(vcpu, bytes[instruction.at])
        return 'ready'
      case 0xf4: return this.leave({ kind: 'halt', raw: this.raw }, instruction.at)
      case 0xe4: case 0xe5: case 0xec: case 0xed: case 0xe6: case 0xe7: case 0xee: case 0xef: return this.io(opcode, instruction)
      case 0x6c: case 0x6d: case 0x6e: case 0x6f: {
        const port = Number(vcpu.registers[register.rdx] & 0xffffn)
        const exit = { kind: 'stringIo', port, size: opcode & 1 ? size : 1, read: opcode < 0x6e, raw: this.raw } as const
        return this.leave(exit, instruction.at)
      }
      // MOV to a segment register, between MOV CR0 and the jump
      case 0x8e: {
        const { register: which, other, length } = this.operand(instruction)
        if (vcpu.shadow!.isReal || other.kind !== 'register') break
        if (!this.loadSegment(segmentNames[which & 7], Number(vcpu.general(other.register) & 0xffffn))) break
        return this.next(instruction.at + length)
      }
      case 0xeb: return this.next(instruction.at + 1 + ((bytes[instruction.at] << 24) >> 24))
      case 0x90: return this.next(instruction.at)
      default:
    }
    return this.give(bytes)
  }
  /** Virtual-8086 mode has raised #GP for itself: the guest's own would be one of real mode. */
  private give(bytes: Uint8Array): AnyExit {
    return unknown(this.vcpu, bytes, this.raw)
  }

  private twoBytes({ bytes, parsed, at }: Instruction): AnyExit | 'ready' {
    const { vcpu, raw } = this
    const second = bytes[at]
    const modRmAt = { bytes, parsed, at: at + 1 }
    const general = bytes[at + 1] & 7
    const number = (bytes[at + 1] >> 3) & 7
    const edxEax = ((vcpu.registers[register.rdx] & low32) << 32n) | (vcpu.registers[register.rax] & low32)
    switch (second) {
      case 0x08: case 0x09: return this.next(at + 1) // INVD, WBINVD
      case 0x06: return this.writeControl(0, vcpu.get('cr0') & ~8n, at + 1)
      case 0x20: {
        if (number !== 0 && number !== 2 && number !== 3 && number !== 4) break
        if (number !== 2) vcpu.setGeneral(general, vcpu.get(`cr${number as 0 | 3 | 4}`))
        return this.next(at + 2)
      }
      case 0x22:
        if (number !== 0 && number !== 3 && number !== 4) break
        return this.writeControl(number, vcpu.general(general) & low32, at + 2)
      case 0x30: return this.leave({ kind: 'msrWrite', index: Number(vcpu.registers[register.rcx] & low32), value: edxEax, raw }, at + 1)
      case 0x32: return this.leave({ kind: 'msrRead', index: Number(vcpu.registers[register.rcx] & low32), raw }, at + 1)
      case 0x01: {
        const operand = this.operand(modRmAt)
        const { register: which, other, length } = operand
        const end = at + 1 + length
        if (which === 4 && other.kind === 'register') {
          vcpu.setGeneral(other.register, vcpu.get('cr0') & 0xffffn)
          return this.next(end)
        }
        if (which === 6) {
          const inMemory = this.readMemory(operand, 2)?.getUint16(0, true)
          const word = other.kind === 'register' ? Number(vcpu.general(other.register) & 0xffffn) : inMemory
          return word === undefined ? this.give(bytes) : this.writeControl(0, (vcpu.get('cr0') & ~0xen) | BigInt(word & 15), end)
        }
        if ((which !== 2 && which !== 3) || other.kind !== 'memory') break
        const pointer = this.readMemory(operand, 6)
        if (!pointer) break
        const table = which === 2 ? 'gdtr' : 'idtr'
        const limit = pointer.getUint16(0, true)
        if (table === 'idtr' && vcpu.shadow!.realIdtLimit !== undefined) vcpu.shadow!.realIdtLimit = limit
        else vcpu.set(`${table}Limit`, BigInt(limit))
        vcpu.set(`${table}Base`, BigInt(pointer.getUint32(2, true) & (parsed.operandSize === 4 ? 0xffffffff : 0xffffff)) & low32)
        return this.next(end)
      }
      default:
    }
    return this.give(bytes)
  }
  private operand({ bytes, parsed, at }: Instruction): ModRm {
    return modRm(this.vcpu, bytes, parsed, at)
  }
  private readMemory({ other }: ModRm, length: number): DataView | undefined {
    if (other.kind !== 'memory') return undefined
    const bytes = readLinear(this.vcpu, linearAddress(this.vcpu, other.segment, other.offset), length)
    return bytes.length === length ? new DataView(bytes.slice().buffer) : undefined
  }

  private next(length: number): 'ready' {
    const { vcpu } = this
    vcpu.set('rip', BigInt.asUintN(16, vcpu.get('rip') + BigInt(length)))
    return 'ready'
  }
  /** For somebody else to answer, who goes on behind the instruction. */
  private leave(exit: AnyExit, length: number): AnyExit {
    this.vcpu.instructionLength = length
    return exit
  }
  private writeControl(number: 0 | 3 | 4, value: bigint, length: number): 'ready' {
    const { vcpu, virtualizer } = this
    const wasReal = vcpu.shadow!.isReal
    if (!vcpu.shadow!.write(`cr${number}`, value)) return raise(vcpu, vector.generalProtection, 0)
    // no processor can be told that PE is 1 and CS still one of real mode: nothing is executed but here
    if (wasReal && !vcpu.shadow!.isReal) vcpu.shadow!.betweenModes = true
    virtualizer.setPaging(vcpu)
    return this.next(length)
  }

  /** A far jump: into another place of real mode, or into protected mode. */
  private jump(selector: number, offset: number, bytes: Uint8Array): AnyExit | 'ready' {
    const { vcpu } = this
    if (vcpu.shadow!.isReal) {
      vcpu.set('csSelector', BigInt(selector))
      vcpu.set('csBase', BigInt(selector * 16))
      vcpu.set('rip', BigInt(offset & 0xffff))
      return 'ready'
    }
    const entered = this.enterProtected(selector, offset)
    return entered ? 'ready' : this.give(bytes)
  }
  private enterProtected(selector: number, offset: number): boolean {
    const { vcpu } = this
    if (!this.loadSegment('cs', selector)) return false
    const { shadow } = vcpu
    shadow!.betweenModes = false
    if (shadow!.realIdtLimit !== undefined) vcpu.set('idtrLimit', BigInt(shadow!.realIdtLimit))
    shadow!.realIdtLimit = undefined
    vcpu.set('rflags', vcpu.get('rflags') & ~(virtual86 | ioPrivilege))
    // what is left of real mode in the other segments is unusable until it is loaded anew
    for (const name of ['ds', 'es', 'ss', 'fs', 'gs'] as const) {
      if (vcpu.get(`${name}Attributes`) !== real86) continue
      vcpu.set(`${name}Selector`, 0n)
      vcpu.set(`${name}Attributes`, name === 'ss' ? writableData : unusable)
      vcpu.set(`${name}Limit`, 0xffffffffn)
      vcpu.set(`${name}Base`, 0n)
    }
    vcpu.set('rip', BigInt(offset >>> 0))
    this.virtualizer.setPaging(vcpu)
    return true
  }
  /** A descriptor of the guest's GDT. SDM vol. 3, "Segment Descriptors". */
  private loadSegment(name: SegmentName, selector: number): boolean {
    const { vcpu } = this
    const at = vcpu.get('gdtrBase') + BigInt(selector & 0xfff8)
    if (selector & 4 || BigInt((selector & 0xfff8) + 7) > vcpu.get('gdtrLimit')) return false
    const quad = new DataView(readLinear(vcpu, at, 8).slice().buffer).getBigUint64(0, true)
    const rights = ((quad >> 40n) & 0xffn) | ((quad >> 40n) & 0xf000n)
    if (!(rights & 0x80n) || !(rights & 0x10n) || (name === 'cs' && (!(rights & 8n) || (rights & conforming) !== 0n))) return false
    const limit = (quad & 0xffffn) | ((quad >> 32n) & 0xf0000n)
    const set = (what: 'Selector' | 'Base' | 'Limit' | 'Attributes', value: bigint): void => vcpu.set(`${name}${what}`, value)
    set('Selector', BigInt(selector))
    set('Base', ((quad >> 16n) & 0xffffffn) | ((quad >> 32n) & 0xff000000n))
    set('Limit', rights & 0x8000n ? (limit << 12n) | 0xfffn : limit)
    set('Attributes', rights | 1n)
    return true
  }

  private io(opcode: number, { bytes, parsed, at }: Instruction): AnyExit {
    const size = opcode & 1 ? parsed.operandSize : 1
    const { registers } = this.vcpu
    const isImmediate = opcode < 0xe8
    const port = isImmediate ? bytes[at] : Number(registers[register.rdx] & 0xffffn)
    const length = isImmediate ? at + 1 : at
    if (!(opcode & 2)) return this.leave({ kind: 'portRead', port, size, raw: this.raw }, length)
    const value = Number(BigInt.asUintN(size * 8, registers[register.rax]))
    return this.leave({ kind: 'portWrite', port, size, value, raw: this.raw }, length)
  }
}
