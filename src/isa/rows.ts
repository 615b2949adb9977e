/** All instruction rows, in the order in which their files are read. */
import './instructions/arith.ts'
import './instructions/logic.ts'
import './instructions/move.ts'
import './instructions/shift.ts'
import './instructions/stack.ts'
import './instructions/branch.ts'
import './instructions/bit.ts'
import './instructions/misc.ts'
import './instructions/system.ts'
import './instructions/sse-move.ts'
import './instructions/sse-integer.ts'

export { registry } from './define.ts'
