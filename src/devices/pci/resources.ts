/**
 * What firmware does on PCI before it starts software: numbers the buses, places BARs and bridges' windows, notes interrupt lines (PCI
 * Firmware Specification; PCI-to-PCI Bridge Architecture Specification 1.2, "Initialization Requirements").
 */
import { PciBridge, windowGranularity, type WindowKind } from './bridge.ts'
import type { Bar, PciFunction } from './function.ts'

interface Window {
  base: number
  size: number
}
export type Windows = Record<WindowKind, Window>

/** Functions of a bus in ascending order; `behind`: what lies behind those that are bridges. */
export interface BusTree {
  readonly functions: readonly { fn: PciFunction; behind: BusTree | undefined }[]
}

const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment

/** Depth first; returns the highest number used. */
export function numberBuses(tree: BusTree, number = 0): number {
  let highest = number
  for (const { fn, behind } of tree.functions) {
    if (!behind || !(fn instanceof PciBridge)) continue
    const secondary = highest + 1
    fn.setBuses(number, secondary, 0xff)
    highest = numberBuses(behind, secondary)
    fn.setBuses(number, secondary, highest)
  }
  return highest
}

/** Something to place: a BAR, or all that lies behind a bridge. */
interface Item {
  readonly size: number
  readonly alignment: number
  readonly what: string
  place(base: number): void
}

/** Behind a bridge only prefetchable registers can lie above 4 GiB. */
function kindOf(bar: Bar, behindBridge: boolean): WindowKind {
  return bar.kind === 'memory64' && behindBridge && !bar.prefetchable ? 'memory32' : bar.kind
}

type PlaceBar = (fn: PciFunction, bar: Bar, base: number) => void

function itemsOf(tree: BusTree, kind: WindowKind, behindBridge: boolean, placeBar: PlaceBar): Item[] {
  const items: Item[] = []
  for (const { fn, behind } of tree.functions) {
    for (const bar of fn.bars) {
      if (kindOf(bar, behindBridge) !== kind) continue
      const what = `BAR ${bar.index} of ${fn.name} (${bar.size} bytes of ${bar.kind})`
      items.push({ size: bar.size, alignment: bar.size, what, place: base => placeBar(fn, bar, base) })
    }
    if (behind && fn instanceof PciBridge) {
      const window = windowOf(fn, itemsOf(behind, kind, true, placeBar), kind)
      if (window) items.push(window)
      else fn.setWindow(kind, undefined)
    }
  }
  // the largest first: then hardly any room is lost between them
  return items.sort((a, b) => b.alignment - a.alignment || b.size - a.size)
}

function windowOf(bridge: PciBridge, items: readonly Item[], kind: WindowKind): Item | undefined {
  if (items.length === 0) return undefined
  const granularity = windowGranularity[kind]
  const size = alignUp(layOut(items, 0), granularity)
  return {
    size, alignment: Math.max(granularity, ...items.map(item => item.alignment)), what: `the ${kind} window of ${bridge.name}`,
    place: base => {
      bridge.setWindow(kind, { base, size })
      layOut(items, base, (item, at) => item.place(at))
    },
  }
}

/** One after another, each aligned; returns the end. */
function layOut(items: readonly Item[], base: number, place: (item: Item, at: number) => void = () => {}): number {
  let next = base
  for (const item of items) {
    const at = alignUp(next, item.alignment)
    place(item, at)
    next = at + item.size
  }
  return next
}

/**
 * As firmware does it: bridges' windows and BARs, the largest first. Registers that may lie above 4 GiB do only when not all fit below, as
 * with SeaBIOS: kernels of 32 bits without PAE reach nothing above. Throws an Error when a window is too small for its devices.
 */
export function placeResources(tree: BusTree, windows: Windows, placeBar: PlaceBar): void {
  const items = (kind: WindowKind): Item[] => itemsOf(tree, kind, false, placeBar)
  place(items('io'), windows.io)
  const below = endOf(windows.memory32)
  const next = place(items('memory32'), windows.memory32)
  const wide = items('memory64')
  place(wide, layOut(wide, next) <= below ? { base: next, size: below - next } : windows.memory64)
}

const endOf = ({ base, size }: Window): number => base + size

function place(items: readonly Item[], window: Window): number {
  return layOut(items, window.base, (item, at) => {
    if (at + item.size > endOf(window)) throw new Error(`no room for ${item.what}`)
    item.place(at)
  })
}
