/**
 * What is copied word by word between the CPU's state and a VMCS at VM entry and VM exit, as tables made from the names of both sides.
 * Intel SDM vol. 3, "Loading Guest State", "Saving Guest State", "Loading Host State".
 */
import { at as state, segment, type FieldName as StateName } from '../../cpu/layout.ts'
import { at as field, type FieldName } from './fields.ts'

/** Pairs of word indexes: in the CPU's state, and in the region. */
export interface CopyTable {
  readonly state: Int32Array
  readonly field: Int32Array
}

type Pair = readonly [stateAddress: number, field: FieldName, words: 1 | 2]

function table(pairs: readonly Pair[]): CopyTable {
  const stateWords: number[] = []
  const fieldWords: number[] = []
  for (const [address, name, words] of pairs)
    for (let i = 0; i < words; i++) {
      stateWords.push((address >> 2) + i)
      fieldWords.push(field[name] + i)
    }
  return { state: Int32Array.from(stateWords), field: Int32Array.from(fieldWords) }
}

const wide = (name: StateName, to: FieldName, index = 0): Pair => [state[name] + index * 8, to, 2]
const narrow = (name: StateName, to: FieldName, index = 0): Pair => [state[name] + index * 4, to, 1]

const segments = (['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const).flatMap((name, i): Pair[] => [
  narrow('segSelector', `guest${name}Selector`, i), wide('segBase', `guest${name}Base`, i), narrow('segLimit', `guest${name}Limit`, i),
  narrow('segAttributes', `guest${name}AccessRights`, i),
])

/** Both loaded and saved as they are. Access rights have one format on both sides. */
export const guestState = table([
  ...segments,
  wide('gdtrBase', 'guestGdtrBase'), narrow('gdtrLimit', 'guestGdtrLimit'), wide('idtrBase', 'guestIdtrBase'),
    narrow('idtrLimit', 'guestIdtrLimit'),
  wide('cr3', 'guestCr3'), wide('cr4', 'guestCr4'), wide('gpr', 'guestRsp', 4), wide('rip', 'guestRip'),
  narrow('msrSysenterCs', 'guestSysenterCs'), wide('msrSysenterEsp', 'guestSysenterEsp'), wide('msrSysenterEip', 'guestSysenterEip'),
])
export const guestPdptes = table([wide('pdpte', 'guestPdpte0', 0), wide('pdpte', 'guestPdpte1', 1), wide('pdpte', 'guestPdpte2', 2),
  wide('pdpte', 'guestPdpte3', 3)])

export const hostState = table([
  wide('cr3', 'hostCr3'), wide('gpr', 'hostRsp', 4), wide('rip', 'hostRip'), narrow('msrSysenterCs', 'hostSysenterCs'),
  wide('msrSysenterEsp', 'hostSysenterEsp'), wide('msrSysenterEip', 'hostSysenterEip'), wide('gdtrBase', 'hostGdtrBase'),
    wide('idtrBase', 'hostIdtrBase'),
  wide('segBase', 'hostFsBase', segment.fs), wide('segBase', 'hostGsBase', segment.gs), wide('segBase', 'hostTrBase', segment.tr),
  narrow('segSelector', 'hostEsSelector', segment.es), narrow('segSelector', 'hostCsSelector', segment.cs),
    narrow('segSelector', 'hostSsSelector', segment.ss),
  narrow('segSelector', 'hostDsSelector', segment.ds), narrow('segSelector', 'hostFsSelector', segment.fs),
    narrow('segSelector', 'hostGsSelector', segment.gs),
  narrow('segSelector', 'hostTrSelector', segment.tr),
])

export function load(words: Int32Array | Uint32Array, region: number, { state: to, field: from }: CopyTable): void {
  for (let i = 0; i < to.length; i++) words[to[i]] = words[region + from[i]]
}
export function save(words: Int32Array | Uint32Array, region: number, { state: from, field: to }: CopyTable): void {
  for (let i = 0; i < to.length; i++) words[region + to[i]] = words[from[i]]
}
