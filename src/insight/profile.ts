/**
 * Where time goes, out of samples of the engine's stack: generated code by the guest's functions, interpreted instructions, helpers,
 * translation, devices, compilation. The samples are those of V8's CPU profiler (Chrome DevTools Protocol, "Profiler.Profile").
 */
import type { Symbols } from './symbols.ts'

export interface CallFrame {
  functionName: string
  url: string
}

export interface ProfileNode {
  id: number
  callFrame: CallFrame
  hitCount?: number
  children?: number[]
}

export interface CpuProfile {
  nodes: ProfileNode[]
  startTime: number
  endTime: number
  samples?: number[]
  timeDeltas?: number[]
}

export type Kind =
  | 'generated code' | 'interpreter' | 'helpers' | 'translation' | 'devices' | 'compilation' | 'run loop' | 'garbage collection'
  | 'outside' | 'idle'

/** Where a file of ours belongs. The first match counts. */
const folders: readonly (readonly [RegExp, Kind])[] = [
  [/\/(engine\/jit|wasm|isa|decode)\/|engine\/code-cache/, 'compilation'],
  [/\/(helpers|float)\//, 'helpers'],
  [/\/(mmu|memory)\//, 'translation'],
  [/\/(devices|interrupts|platform|net)\//, 'devices'],
  [/\/(engine|cpu|virt|machine)\/|\/machine\.[jt]s/, 'run loop'],
]

const region = /^region ([0-9a-f]+)$/

export interface Place {
  kind: Kind
  name: string
}

/** What a function of the engine is, in the guest's terms. */
export function placeOf({ functionName, url }: CallFrame, symbols: Symbols | undefined): Place {
  if (functionName === '(idle)') return { kind: 'idle', name: '' }
  if (functionName === '(garbage collector)') return { kind: 'garbage collection', name: '' }
  if (functionName === '(program)' || functionName === '(root)') return { kind: 'outside', name: 'V8 and the operating system' }
  const name = functionName === '' ? '(anonymous)' : functionName
  if (url.startsWith('wasm:')) {
    const [, address] = region.exec(name) ?? []
    if (address !== undefined) return { kind: 'generated code', name: nameOf(BigInt(`0x${address}`), symbols) }
    // V8 counts what it inlined into the entry from JavaScript as the entry.
    return { kind: 'interpreter', name: /^interpreter$|^js-to-wasm/.test(name) ? 'hot instructions' : name }
  }
  const kind = folders.find(([pattern]) => pattern.test(url))?.[1] ?? 'outside'
  return { kind, name }
}

/** A function of the guest; without symbols the 4 KiB page that its code is in. */
function nameOf(address: bigint, symbols: Symbols | undefined): string {
  const found = symbols?.at(address)
  // Far from any symbol is no function of its: user code below a kernel's symbols, for example.
  if (found && found.offset < 0x10000n) return found.name
  return `page ${(address >> 12n).toString(16).padStart(13, '0')}000`
}

export interface ProfileSummary {
  samples: number
  milliseconds: number
  kinds: { kind: Kind; share: number; places: { name: string; share: number }[] }[]
}

/** Shares of the time in which the machine did anything. */
export function summarizeProfile(profile: CpuProfile, symbols: Symbols | undefined): ProfileSummary {
  const kinds = new Map<Kind, Map<string, number>>()
  let samples = 0
  for (const { callFrame, hitCount = 0 } of profile.nodes) {
    const { kind, name } = placeOf(callFrame, symbols)
    if (hitCount === 0 || kind === 'idle') continue
    samples += hitCount
    const places = kinds.get(kind) ?? new Map<string, number>()
    kinds.set(kind, places.set(name, (places.get(name) ?? 0) + hitCount))
  }
  const byShare = (a: { share: number }, b: { share: number }): number => b.share - a.share
  const shares = [...kinds].map(([kind, places]) => {
    const list = [...places].map(([name, hits]) => ({ name, share: hits / samples })).sort(byShare)
    return { kind, share: list.reduce((sum, { share }) => sum + share, 0), places: list }
  })
  return { samples, milliseconds: (profile.endTime - profile.startTime) / 1000, kinds: shares.sort(byShare) }
}

/** For a terminal. */
export function profileTable({ samples, milliseconds, kinds }: ProfileSummary, mostPlaces = 12): string {
  const percent = (share: number): string => `${(share * 100).toFixed(1).padStart(5)} %`
  const lines = kinds.flatMap(({ kind, share, places }) => {
    const named = places.filter(({ name, share: own }) => name !== '' && own >= 0.002)
    const shown = named.slice(0, mostPlaces).map(place => `         ${percent(place.share)}  ${place.name}`)
    return [`${percent(share)}  ${kind}`, ...(named.length > 1 || kind === 'generated code' ? shown : [])]
  })
  return `Where the time went (${samples} samples in ${(milliseconds / 1000).toFixed(1)} s):\n${lines.join('\n')}\n`
}

/** The profile with the guest's names in it, for Speedscope and Chrome's developer tools. */
export function namedProfile(profile: CpuProfile, symbols: Symbols | undefined): CpuProfile {
  const nodes = profile.nodes.map(node => {
    const { kind, name } = placeOf(node.callFrame, symbols)
    const functionName = kind === 'generated code' ? `${name} (generated)` : node.callFrame.functionName
    return { ...node, callFrame: { ...node.callFrame, functionName } }
  })
  return { ...profile, nodes }
}
