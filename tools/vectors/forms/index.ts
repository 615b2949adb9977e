/** All groups of instruction vectors; each becomes one file. */
import type { Group } from '../form.ts'
import { AVX_FLOAT, AVX_INTEGER, FMA } from './avx.ts'
import { BIT, BMI } from './bit.ts'
import { BRANCH } from './branch.ts'
import { ARITHMETIC, MULTIPLY_DIVIDE } from './integer.ts'
import { LEGACY32 } from './legacy32.ts'
import { ALIGNMENT, MOVE, STACK, SYSTEM } from './move.ts'
import { SHIFT } from './shift.ts'
import { CIPHER, SSE_FLOAT, SSE_INTEGER, SSE_TEXT } from './sse.ts'
import { STRING } from './string.ts'
import { MMX, X87, X87_FUNCTIONS } from './x87.ts'

export const GROUPS: Group[] = [
  ARITHMETIC, MULTIPLY_DIVIDE, SHIFT, BIT, BMI, MOVE, STACK, SYSTEM, ALIGNMENT, BRANCH, STRING, LEGACY32, SSE_FLOAT, SSE_INTEGER, SSE_TEXT,
    CIPHER, MMX, X87, X87_FUNCTIONS,
  AVX_FLOAT, AVX_INTEGER, FMA,
]
