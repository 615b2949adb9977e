/** Class and width of an operand, from its letters. Intel SDM vol. 2, appendix "Opcode Map", "Key to Abbreviations". */
import type { Operand, OperandSpec } from '../isa/operands.ts'

/** Width in bits for an operand size of 0, 1, 2 (16, 32, 64 bits). */
export function operandBits(spec: OperandSpec, size: number): number {
  switch (spec.size) {
    case 'b': return 8
    case 'w': return 16
    case 'd': return 32
    case 'q': return 64
    case 'x': return 128
    case 'v': return 16 << size
    case 'y': return size === 2 ? 64 : 32
    case 'z': return size === 0 ? 16 : size === 1 ? 32 : 64
    case 'p': return (16 << size) + 16
    default: return spec.size
  }
}

/** `memory`: the ModR/M byte names memory. */
export function operandClass(spec: OperandSpec, memory: boolean): Operand['class'] {
  switch (spec.letter) {
    case 'E': case 'R': return memory ? 'memory' : 'gpr'
    case 'G': case 'Z': case 'F': case 'B': return 'gpr'
    case 'M': case 'O': return 'memory'
    case 'I': return 'immediate'
    case 'J': return 'relative'
    case 'S': return 'segment'
    case 'C': return 'control'
    case 'D': return 'debug'
    case 'V': case 'U': case 'H': case 'X': return 'vector'
    case 'W': return memory ? 'memory' : 'vector'
    case 'P': case 'N': return 'mmx'
    case 'Q': return memory ? 'memory' : 'mmx'
    case 'A': return 'far'
  }
}
