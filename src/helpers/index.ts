/** Every instruction whose meaning is a TypeScript function, by the name that rows call it with. */
import type { Helper } from '../cpu/processor.ts'
import * as bitString from './bit-string.ts'
import * as cipher from './cipher.ts'
import * as control from './control.ts'
import * as flags from './flags.ts'
import * as fpu from './fpu-state.ts'
import { fusedHelpers } from './fused.ts'
import * as guest from './guest.ts'
import * as identify from './identify.ts'
import * as integer from './integer.ts'
import * as masked from './masked.ts'
import * as ports from './ports.ts'
import { sseFloat } from './sse-float.ts'
import * as shadowStack from './shadow-stack.ts'
import * as stack from './stack.ts'
import * as string from './string.ts'
import * as tables from './tables.ts'
import * as text from './text.ts'
import * as transfer from './transfer.ts'
import * as vector from './vector.ts'
import * as wait from './wait.ts'
import { x87Arithmetic } from './x87-arithmetic.ts'
import { x87Control } from './x87-control.ts'
import { x87Transfer } from './x87-transfer.ts'

export const helpers = {
  ...bitString,
  ...cipher,
  ...control,
  ...flags,
  ...fpu,
  ...fusedHelpers,
  ...identify,
  ...guest,
  ...integer,
  ...masked,
  in: ports.in,
  out: ports.out,
  ...sseFloat,
  ...shadowStack,
  ...stack,
  ...string,
  ...tables,
  ...text,
  ...transfer,
  ...vector,
  ...wait,
  ...x87Arithmetic,
  ...x87Control,
  ...x87Transfer,
} satisfies Record<string, Helper>

export type HelperName = keyof typeof helpers
