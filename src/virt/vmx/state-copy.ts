/**
 * What is copied word by word between the CPU's state and a VMCS at VM entry and VM exit: lists made from the names of both sides.
 * Intel SDM vol. 3, "Loading Guest State", "Saving Guest State", "Loading Host State".
 */
import { at as state, segment, type FieldName as StateName } from '../../cpu/layout.ts'
import { emitMoves, generate, moves, type Move } from '../moves.ts'
import { at as field, type FieldName } from './fields.ts'

type Pair = readonly [stateAddress: number, field: FieldName, words: 1 | 2]

const fromState = (pairs: readonly Pair[]): Move[] => pairs.flatMap(([address, name, words]) => moves(address >> 2, field[name], words))
const toState = (pairs: readonly Pair[]): Move[] => pairs.flatMap(([address, name, words]) => moves(field[name], address >> 2, words))

const wide = (name: StateName, to: FieldName, index = 0): Pair => [state[name] + index * 8, to, 2]
const narrow = (name: StateName, to: FieldName, index = 0): Pair => [state[name] + index * 4, to, 1]

const segments = (['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const).flatMap((name, i): Pair[] => [
  narrow('segSelector', `guest${name}Selector`, i), wide('segBase', `guest${name}Base`, i), narrow('segLimit', `guest${name}Limit`, i),
  narrow('segAttributes', `guest${name}AccessRights`, i),
])

/** Both loaded and saved as they are. Access rights have one format on both sides. */
const guestState: readonly Pair[] = [
  ...segments,
  wide('gdtrBase', 'guestGdtrBase'), narrow('gdtrLimit', 'guestGdtrLimit'), wide('idtrBase', 'guestIdtrBase'),
    narrow('idtrLimit', 'guestIdtrLimit'),
  wide('cr3', 'guestCr3'), wide('cr4', 'guestCr4'), wide('gpr', 'guestRsp', 4), wide('rip', 'guestRip'),
  narrow('msrSysenterCs', 'guestSysenterCs'), wide('msrSysenterEsp', 'guestSysenterEsp'), wide('msrSysenterEip', 'guestSysenterEip'),
]
const guestCet: readonly Pair[] = [wide('msrSCet', 'guestSCet'), wide('ssp', 'guestSsp'), wide('msrSspTable', 'guestSspTable')]
const hostCet: readonly Pair[] = [wide('msrSCet', 'hostSCet'), wide('ssp', 'hostSsp'), wide('msrSspTable', 'hostSspTable')]
const guestPdptes: readonly Pair[] = [wide('pdpte', 'guestPdpte0', 0), wide('pdpte', 'guestPdpte1', 1), wide('pdpte', 'guestPdpte2', 2),
  wide('pdpte', 'guestPdpte3', 3)]

const hostState: readonly Pair[] = [
  wide('cr3', 'hostCr3'), wide('gpr', 'hostRsp', 4), wide('rip', 'hostRip'), narrow('msrSysenterCs', 'hostSysenterCs'),
  wide('msrSysenterEsp', 'hostSysenterEsp'), wide('msrSysenterEip', 'hostSysenterEip'), wide('gdtrBase', 'hostGdtrBase'),
    wide('idtrBase', 'hostIdtrBase'),
  wide('segBase', 'hostFsBase', segment.fs), wide('segBase', 'hostGsBase', segment.gs), wide('segBase', 'hostTrBase', segment.tr),
  narrow('segSelector', 'hostEsSelector', segment.es), narrow('segSelector', 'hostCsSelector', segment.cs),
    narrow('segSelector', 'hostSsSelector', segment.ss),
  narrow('segSelector', 'hostDsSelector', segment.ds), narrow('segSelector', 'hostFsSelector', segment.fs),
    narrow('segSelector', 'hostGsSelector', segment.gs),
  narrow('segSelector', 'hostTrSelector', segment.tr),
]

/** They take the linear address of the VMCS. */
export interface VmcsCopies {
  readonly loadGuest: (region: number) => void
  readonly saveGuest: (region: number) => void
  readonly loadPdptes: (region: number) => void
  readonly savePdptes: (region: number) => void
  readonly loadHost: (region: number) => void
  readonly loadGuestCet: (region: number) => void
  readonly saveGuestCet: (region: number) => void
  readonly loadHostCet: (region: number) => void
}
export const vmcsCopies = (memory: WebAssembly.Memory): VmcsCopies => generate(memory, {
  loadGuest: emitMoves(toState(guestState), 'from'),
  saveGuest: emitMoves(fromState(guestState), 'to'),
  loadPdptes: emitMoves(toState(guestPdptes), 'from'),
  savePdptes: emitMoves(fromState(guestPdptes), 'to'),
  loadHost: emitMoves(toState(hostState), 'from'),
  loadGuestCet: emitMoves(toState(guestCet), 'from'),
  saveGuestCet: emitMoves(fromState(guestCet), 'to'),
  loadHostCet: emitMoves(toState(hostCet), 'from'),
})
