/**
 * Copying of state between the processor and VMCBs: what VMRUN loads, #VMEXIT saves, VMLOAD and VMSAVE move. As generated code, for this
 * is what a world switch costs. AMD APM vol. 2, "VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions".
 */
import { attribute } from '../../cpu/bits.ts'
import { at, segment, type FieldName } from '../../cpu/layout.ts'
import type { FunctionBuilder, Node } from '../../wasm/function.ts'
import { both, emitMoves, generate, moves, type Emit, type Move } from '../moves.ts'
import { svmWord, type SvmStateName } from './state.ts'
import { offsetOf, segmentOffset, type VmcbFieldName } from './vmcb.ts'

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

/** On processors with shadow stacks. */
const shadowRegisters: readonly Pair[] = [pair('sCet', word('msrSCet')), pair('ssp', word('ssp')), pair('isstAddress', word('msrSspTable'))]

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

const segments = (names: readonly (keyof typeof segment & keyof typeof segmentOffset)[]): readonly Pair[] =>
  names.map(name => ({ vmcb: segmentOffset[name] >> 2, state: segment[name] }))
const runSegments = segments(['es', 'cs', 'ss', 'ds'])
const loadSegments = segments(['fs', 'gs', 'tr', 'ldtr'])

const selectors = at.segSelector >> 2
const attributes = at.segAttributes >> 2
const segmentLimits = at.segLimit >> 2
const bases = at.segBase >> 2

const pairWords = (pairs: readonly Pair[], words: number, load: boolean): Move[] =>
  pairs.flatMap(({ vmcb, state }) => (load ? moves(vmcb, state, words) : moves(state, vmcb, words)))
const load = (pairs: readonly Pair[], words = 2): Emit => emitMoves(pairWords(pairs, words, true), 'from')
const save = (pairs: readonly Pair[], words = 2): Emit => emitMoves(pairWords(pairs, words, false), 'to')

/** The upper bits of an address as bit `bits` - 1 is. */
const canonical = (f: FunctionBuilder, address: Node, bits: number): Node => f.shrS(f.shl(address, BigInt(64 - bits)), BigInt(64 - bits))

/** Attributes are the 12 bits of a descriptor in the VMCB, and lie apart in the state. Bases are made canonical. */
const loadSegmentsFrom = (pairs: readonly Pair[], linearBits: number): Emit => (f, vmcb) => {
  for (const { vmcb: from, state: index } of pairs) {
    const packed = f.load('i32', vmcb, from * 4)
    const bits = f.shrU(packed, 16)
    const attribute12 = f.or(f.and(bits, 0xff), f.shl(f.and(bits, 0xf00), 4))
    const unusable = f.select(f.and(bits, 0x80), f.i32(0), f.i32(attribute.unusable))
    f.store('i32', 0, f.and(packed, 0xffff), (selectors + index) * 4)
    f.store('i32', 0, f.or(attribute12, unusable), (attributes + index) * 4)
    f.store('i32', 0, f.load('i32', vmcb, (from + 1) * 4), (segmentLimits + index) * 4)
    f.store('i64', 0, canonical(f, f.load('i64', vmcb, (from + 2) * 4), linearBits), (bases + index * 2) * 4)
  }
}
const saveSegmentsTo = (pairs: readonly Pair[]): Emit => (f, vmcb) => {
  for (const { vmcb: to, state: index } of pairs) {
    const bits = f.load('i32', 0, (attributes + index) * 4)
    const low = f.and(bits, f.select(f.and(bits, attribute.unusable), f.i32(0x7f), f.i32(0xff)))
    const packed = f.or(low, f.and(f.shrU(bits, 4), 0xf00))
    const selector = f.and(f.load('i32', 0, (selectors + index) * 4), 0xffff)
    f.store('i32', vmcb, f.or(selector, f.shl(packed, 16)), to * 4)
    f.store('i32', vmcb, f.load('i32', 0, (segmentLimits + index) * 4), (to + 1) * 4)
    f.store('i64', vmcb, f.load('i64', 0, (bases + index * 2) * 4), (to + 2) * 4)
  }
}

const cplByte = offsetOf.cpl
const loadCpl: Emit = (f, vmcb) => f.store('i32', 0, f.and(f.load('i32_8u', vmcb, cplByte), 3), at.cpl)
const saveCpl: Emit = (f, vmcb) => f.store('i32_8', vmcb, f.load('i32', 0, at.cpl), cplByte)

/** Addresses that VMLOAD makes canonical. */
const canonicalRegisters = (['kernelGsBase', 'sysenterEsp', 'sysenterEip', 'lstar', 'cstar'] as const)
  .map(name => systemRegisters.find(each => each.vmcb === offsetOf[name] >> 2)!)
const loadAddresses = (linearBits: number): Emit => (f, vmcb) => {
  for (const { vmcb: from, state } of canonicalRegisters)
    f.store('i64', 0, canonical(f, f.load('i64', vmcb, from * 4), linearBits), state * 4)
}

/** VMRUN makes the bases of the tables canonical, too, and DR7 has a bit that is always 1. */
const loadTables = (linearBits: number): Emit => (f, vmcb) => {
  for (const { vmcb: from, state } of [pair('gdtrBase', word('gdtrBase')), pair('idtrBase', word('idtrBase'))])
    f.store('i64', 0, canonical(f, f.load('i64', vmcb, from * 4), linearBits), state * 4)
  f.store('i32', 0, f.or(f.load('i32', vmcb, offsetOf.dr7), 0x400), word('dr', 7) * 4)
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
const hostShadow: readonly (readonly [SvmStateName, number])[] = [
  ['hostSCet', word('msrSCet')], ['hostSsp', word('ssp')], ['hostIsstAddress', word('msrSspTable')],
]
const shadowMoves: readonly Move[] = hostShadow.flatMap(([name, state]) => moves(state, svmWord[name], 2))
const hostMoves: readonly Move[] = [...hostPairs.flatMap(([name, state]) => moves(state, svmWord[name], 2)),
  ...hostPairs32.flatMap(([name, state]) => moves(state, svmWord[name]))]

/** They take the linear address of the VMCB; those of the host's state need none. */
export interface VmcbCopies {
  /** The guest's registers but RFLAGS, whose flags the CPU keeps in pieces. */
  readonly loadGuest: (vmcb: number) => void
  readonly saveGuest: (vmcb: number) => void
  readonly loadControls: (vmcb: number) => void
  readonly vmload: (vmcb: number) => void
  readonly vmsave: (vmcb: number) => void
  /** All but RIP and RFLAGS. */
  readonly saveHost: (none: number) => void
  readonly loadHost: (none: number) => void
}
export function vmcbCopies(memory: WebAssembly.Memory, linearBits: number, shadowStacks: boolean): VmcbCopies {
  const shadow = shadowStacks ? shadowRegisters : []
  const host = shadowStacks ? [...hostMoves, ...shadowMoves] : hostMoves
  return generate(memory, {
    loadGuest: both(load(registers), load(shadow), load(limits, 1), loadTables(linearBits), loadSegmentsFrom(runSegments, linearBits),
      loadCpl),
    saveGuest: both(save(registers), save(shadow), save(limits, 1), saveSegmentsTo(runSegments), saveCpl),
    loadControls: both(load(controls), load(controls32, 1)),
    vmload: both(loadSegmentsFrom(loadSegments, linearBits), load(systemRegisters), loadAddresses(linearBits)),
    vmsave: both(saveSegmentsTo(loadSegments), save(systemRegisters)),
    saveHost: emitMoves(host, 'neither'),
    loadHost: emitMoves(host.map(([from, to]) => [to, from] as const), 'neither'),
  })
}
