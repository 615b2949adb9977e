/** The examples with one mistake each: what `--explain` says of them, on the whole machine and in both engines. */
import { wrongVmcb } from '../../examples/wrong-vmcb.ts'
import { type Expected, testMistakes } from '../mistakes.ts'

/** The store of the loop that fills the VMCB. */
const writer = /last written by the instruction at RIP 0x100073/

const expected: Expected = [
  ['none', 'G', [/^$/]],
  ['asid', 'F', [/VMEXIT_INVALID/, /Guest ASID \(058h\) = 0x0/, /the ASID must not be 0/, writer, /0x1 would do/]],
  ['svme', 'F', [/EFER \(4D0h\) = 0x0/, /EFER.SVME must be 1/, /"Canonicalization and Consistency Checks"/, writer, /0x1000 would do/]],
  ['vmrun-intercept', 'F', [/Intercept vector 4 \(010h\) = 0x2/, /the VMRUN intercept must be set/, writer, /0x3 would do/]],
]
testMistakes(wrongVmcb, 'amd', expected)
