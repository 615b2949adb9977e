/**
 * Copying of state between the processor and VMCBs: what VMRUN loads, #VMEXIT saves, VMLOAD and VMSAVE move. In 32-bit words, for this is
 * what a world switch costs. AMD APM vol. 2, "VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions".
 */
import { attribute } from '../../cpu/bits.ts'
import { at, segment, type FieldName } from '../../cpu/layout.ts'
import { svmWord, type SvmStateName } from './state.ts'
import { offsetOf, segmentOffset, type VmcbFieldName } from './vmcb.ts'

type Words = Int32Array | Uint32Array

const word = (name: FieldName, index = 0): number => (at[name] >> 2) + index * 2

/** A pair of words in the VMCB and in the state. */
interface Pair {
  readonly vmcb: number
  readonly state: number
}
const pair = (name: VmcbFieldName, state: number): Pair => ({ vmcb: offsetOf[name] >> 2, state })

/** 64-bit fields that VMRUN loads and #VMEXIT saves as they are. RFLAGS, EFER and segments are more than copies. */
const registers: readonly Pair[] = [
  pair('cr4', word('cr4')), pair('cr3', word('cr3')), pair('cr0', word('cr0')), pair('dr7', word('dr', 7)), pair('dr6', word('dr', 6)),
  pair('rip', word('rip')), pair('rsp', word('gpr', 4)), pair('rax', word('gpr', 0)), pair('cr2', word('cr2')), pair('efer', word('efer')),
  pair('gdtrBase', word('gdtrBase')), pair('idtrBase', word('idtrBase')),
]
/** 32-bit fields. */
const limits: readonly Pair[] = [pair('gdtrLimit', at.gdtrLimit >> 2), pair('idtrLimit', at.idtrLimit >> 2)]

/** What VMLOAD and VMSAVE move besides FS, GS, TR and LDTR. */
const systemRegisters: readonly Pair[] = [
  pair('kernelGsBase', word('msrKernelGsBase')), pair('star', word('msrStar')), pair('lstar', word('msrLstar')),
  pair('cstar', word('msrCstar')), pair('sfmask', word('msrFmask')), pair('sysenterCs', word('msrSysenterCs')),
  pair('sysenterEsp', word('msrSysenterEsp')), pair('sysenterEip', word('msrSysenterEip')),
]

/** The controls that the processor keeps while the guest runs. */
const controls: readonly Pair[] = (['iopmBase', 'msrpmBase', 'tscOffset', 'nestedControl', 'nestedCr3', 'virtualExtensions'] as const)
  .map(name => pair(name, svmWord[name]))
const controls32: readonly Pair[] = (['crIntercepts', 'drIntercepts', 'exceptionIntercepts', 'intercepts3', 'intercepts4', 'intercepts5',
  'asid', 'virtualInterrupt', 'virtualVector'] as const).map(name => pair(name, svmWord[name]))

function load(words: Words, start: number, pairs: readonly Pair[]): void {
  for (let i = 0; i < pairs.length; i++) {
    const { vmcb, state } = pairs[i]
    words[state] = words[start + vmcb]
    words[state + 1] = words[start + vmcb + 1]
  }
}
function load32(words: Words, start: number, pairs: readonly Pair[]): void {
  for (let i = 0; i < pairs.length; i++) words[pairs[i].state] = words[start + pairs[i].vmcb]
}
function save(words: Words, start: number, pairs: readonly Pair[]): void {
  for (let i = 0; i < pairs.length; i++) {
    const { vmcb, state } = pairs[i]
    words[start + vmcb] = words[state]
    words[start + vmcb + 1] = words[state + 1]
  }
}
function save32(words: Words, start: number, pairs: readonly Pair[]): void {
  for (let i = 0; i < pairs.length; i++) words[start + pairs[i].vmcb] = words[pairs[i].state]
}

const segments = (names: readonly (keyof typeof segment & keyof typeof segmentOffset)[]): readonly Pair[] =>
  names.map(name => ({ vmcb: segmentOffset[name] >> 2, state: segment[name] }))
const runSegments = segments(['es', 'cs', 'ss', 'ds'])
const loadSegments = segments(['fs', 'gs', 'tr', 'ldtr'])

const selectors = at.segSelector >> 2
const attributes = at.segAttributes >> 2
const segmentLimits = at.segLimit >> 2
const bases = at.segBase >> 2

/** Attributes are the 12 bits of a descriptor in the VMCB, and lie apart in the state. Bases are made canonical. */
function loadSegmentsFrom(words: Words, start: number, pairs: readonly Pair[], linearBits: number): void {
  for (let i = 0; i < pairs.length; i++) {
    const index = pairs[i].state
    const from = start + pairs[i].vmcb
    const packed = words[from]
    const bits = packed >>> 16
    words[selectors + index] = packed & 0xffff
    words[attributes + index] = (bits & 0xff) | ((bits & 0xf00) << 4) | (bits & 0x80 ? 0 : attribute.unusable)
    words[segmentLimits + index] = words[from + 1]
    words[bases + index * 2] = words[from + 2]
    words[bases + index * 2 + 1] = canonicalHigh(words[from + 3], linearBits)
  }
}
function saveSegmentsTo(words: Words, start: number, pairs: readonly Pair[]): void {
  for (let i = 0; i < pairs.length; i++) {
    const index = pairs[i].state
    const to = start + pairs[i].vmcb
    const bits = words[attributes + index]
    const packed = (bits & (bits & attribute.unusable ? 0x7f : 0xff)) | ((bits >>> 4) & 0xf00)
    words[to] = (words[selectors + index] & 0xffff) | (packed << 16)
    words[to + 1] = words[segmentLimits + index]
    words[to + 2] = words[bases + index * 2]
    words[to + 3] = words[bases + index * 2 + 1]
  }
}

/** The high word of an address, its upper bits as bit `bits` - 1 is. */
const canonicalHigh = (hi: number, bits: number): number => (hi << (64 - bits)) >> (64 - bits)

/** The guest's registers but RFLAGS, whose flags the CPU keeps in pieces. */
export function loadGuest(words: Words, start: number, linearBits: number): void {
  load(words, start, registers)
  load32(words, start, limits)
  loadSegmentsFrom(words, start, runSegments, linearBits)
  words[at.cpl >> 2] = (words[start + (offsetOf.cpl >> 2)] >>> 24) & 3
}

export function loadControls(words: Words, start: number): void {
  load(words, start, controls)
  load32(words, start, controls32)
}

export function saveGuest(words: Words, start: number): void {
  save(words, start, registers)
  save32(words, start, limits)
  saveSegmentsTo(words, start, runSegments)
  const cpl = start + (offsetOf.cpl >> 2)
  words[cpl] = (words[cpl] & 0xffffff) | (words[at.cpl >> 2] << 24)
}

export function vmload(words: Words, start: number, linearBits: number): void {
  loadSegmentsFrom(words, start, loadSegments, linearBits)
  load(words, start, systemRegisters)
  for (const name of ['kernelGsBase', 'sysenterEsp', 'sysenterEip', 'lstar', 'cstar'] as const) {
    const state = systemRegisters.find(each => each.vmcb === offsetOf[name] >> 2)!.state
    words[state + 1] = canonicalHigh(words[state + 1], linearBits)
  }
}

export function vmsave(words: Words, start: number): void {
  saveSegmentsTo(words, start, loadSegments)
  save(words, start, systemRegisters)
}

// ---- the host ----

const hostPairs: readonly (readonly [SvmStateName, number])[] = [
  ['hostRsp', word('gpr', 4)], ['hostRax', word('gpr', 0)], ['hostCr0', word('cr0')], ['hostCr3', word('cr3')], ['hostCr4', word('cr4')],
  ['hostEfer', word('efer')], ['hostGdtrBase', word('gdtrBase')], ['hostIdtrBase', word('idtrBase')],
  ['hostBase0', bases], ['hostBase1', bases + 2], ['hostBase2', bases + 4], ['hostBase3', bases + 6],
]
const hostPairs32: readonly (readonly [SvmStateName, number])[] = [
  ['hostGdtrLimit', at.gdtrLimit >> 2], ['hostIdtrLimit', at.idtrLimit >> 2],
  ...[0, 1, 2, 3].flatMap((i): (readonly [SvmStateName, number])[] => [
    [`hostSelector${i}` as SvmStateName, selectors + i], [`hostAttributes${i}` as SvmStateName, attributes + i],
    [`hostLimit${i}` as SvmStateName, segmentLimits + i],
  ]),
]
const hostWords = hostPairs.flatMap(([name, state]) => [svmWord[name], state, svmWord[name] + 1, state + 1])
  .concat(hostPairs32.flatMap(([name, state]) => [svmWord[name], state]))

/** All but RIP and RFLAGS. */
export function saveHost(words: Words): void {
  for (let i = 0; i < hostWords.length; i += 2) words[hostWords[i]] = words[hostWords[i + 1]]
}
export function loadHost(words: Words): void {
  for (let i = 0; i < hostWords.length; i += 2) words[hostWords[i + 1]] = words[hostWords[i]]
}
