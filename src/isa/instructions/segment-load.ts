/**
 * Loads of DS, ES, FS and GS by a kernel of flat 32-bit code: generated code, when the descriptor is one of the GDT, needs no change, and
 * leaves DS and ES flat; the rest is the helpers'. Intel SDM vol. 2, "MOV-Move", "POP-Pop a Value from the Stack".
 */
import { attribute } from '../../cpu/bits.ts'
import { flatLevels } from '../../cpu/derive.ts'
import { at, segment } from '../../cpu/layout.ts'
import type { HelperName } from '../../helpers/index.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'

/** In the upper half of a descriptor: present data, accessed. */
const data = { mask: 0x9900, value: 0x9100 } as const
/** The same, writable, expanding up, base 0, a limit of 4 GiB; and the lower half. */
const flat = { mask: 0xff8f9fff | 0, value: 0x008f9300, low: 0xffff } as const

/** The selector is one of the GDT and within its limit. */
export const isGlobal = (b: Semantics, selector: Node): Node =>
  b.and(b.eqz(b.and(selector, 4)), b.leU(b.add(b.and(selector, 0xfff8), 7), b.state('gdtrLimit')))
/** A descriptor of the GDT, i64. */
export function descriptorOf(b: Semantics, selector: Node): Node {
  const address = b.add(b.state('gdtrBase'), b.extendU(b.and(selector, 0xfff8)))
  return b.readMemory(b.wide ? address : b.and(address, 0xffffffffn), 'i64', 8)
}
/** Base (i64), limit and attributes (i32) that a descriptor gives. */
export function fieldsOf(b: Semantics, descriptor: Node): { base: Node; limit: Node; attributes: Node } {
  const low = b.wrap(descriptor)
  const high = b.wrap(b.shrU(descriptor, 32n))
  const pages = b.or(b.and(low, 0xffff), b.and(high, 0xf0000))
  return {
    base: b.extendU(b.or(b.or(b.shrU(low, 16), b.shl(b.and(high, 0xff), 16)), b.and(high, 0xff000000))),
    limit: b.select(b.and(high, 0x800000), b.or(b.shl(pages, 12), 0xfff), pages),
    attributes: b.and(b.shrU(high, 8), 0xf0ff),
  }
}

/** Segment register `number` gets `selector`, both i32; `finish` does what else the instruction does. */
export function loadSegment(
  b: Semantics, number: Node, selector: Node, finish: () => void, helper: HelperName, ...args: Node[]
): void {
  const otherwise = (): void => b.helperInside(helper, ...args)
  const low = b.and(selector, 0xffff)
  const isNull = b.ltU(low, 4)
  const isBased = b.geU(number, segment.fs)
  const isFlat = b.ne(b.and(b.state('systemCalls'), flatLevels), 0)
  const isKnown = b.and(b.or(b.or(b.eq(number, segment.ds), b.eqz(number)), b.and(isBased, b.leU(number, segment.gs))), isFlat)
  const names = b.and(isGlobal(b, low), b.or(isBased, b.eqz(isNull)))
  b.when(b.and(b.and(isKnown, names), b.eqz(b.state('cpl'))), () => {
    const descriptor = descriptorOf(b, low)
    const high = b.wrap(b.shrU(descriptor, 32n))
    const permits = b.geU(b.and(b.shrU(high, 13), 3), b.and(low, 3))
    const isData = b.and(b.eq(b.and(high, data.mask), data.value), permits)
    const staysFlat = b.and(b.eq(b.wrap(descriptor), flat.low), b.eq(b.and(high, flat.mask), flat.value))
    b.when(b.or(isNull, b.and(isData, b.or(isBased, staysFlat))), () => {
      const { base, limit, attributes } = fieldsOf(b, descriptor)
      put(b, number, 'i32', at.segSelector, low)
      put(b, number, 'i32', at.segAttributes, b.select(isNull, b.i32(attribute.unusable), attributes))
      put(b, number, 'i32', at.segLimit, b.select(isNull, b.i32(0), limit))
      put(b, number, 'i64', at.segBase, b.select(isNull, b.i64(0), base))
      finish()
    }, otherwise)
  }, otherwise)
}

function put(b: Semantics, number: Node, kind: 'i32' | 'i64', field: number, value: Node): void {
  const known = b.constantOf(number)
  if (kind === 'i64' && known !== undefined) return b.setState('segBase', value, Number(known))
  b.store(kind, b.shl(number, kind === 'i64' ? 3 : 2), value, field)
}
