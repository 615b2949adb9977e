/**
 * Fields that stay as they were: a processor may keep what a VMCB held when it was last left, and use that at the next VMRUN for every
 * group of fields whose clean bit is set. Ours reads all fields each time, which is allowed too; with the CPU feature
 * `strict_clean_bits` it keeps them, and software that forgot to clear a bit finds out. AMD APM vol. 2, "VMCB Clean Bits".
 */
import { at } from '../../cpu/layout.ts'
import { cleanBit, offsetOf, vmcbFields } from './vmcb.ts'

/** Words of the VMCB that a group covers, and their place in the CPU's state. */
const kept: readonly { readonly word: number; readonly bit: number }[] = [...new Map(Object.values(vmcbFields)
  .filter(each => each.clean !== undefined)
  .flatMap(({ offset, size, clean }) => (size === 8 ? [offset >> 2, (offset >> 2) + 1] : [offset >> 2])
    .map(word => [word, { word, bit: cleanBit[clean!] }] as const))).values()]

/** First the address, then the words. */
const cache = at.vmcbCache >> 2
const reserved = 3
const capacity = 96
if (kept.length + reserved > capacity) throw new Error('the field `vmcbCache` is too small')

const clean = offsetOf.clean >> 2

/** #VMEXIT: what the processor has now. */
export function keep(words: Uint32Array, start: number, lo: number, hi: number): void {
  words[cache] = lo
  words[cache + 1] = hi
  words[cache + 2] = 1
  for (let i = 0; i < kept.length; i++) words[cache + reserved + i] = words[start + kept[i].word]
}

/**
 * VMRUN: puts what is kept into the VMCB for as long as it is loaded. What stood there is returned for `takeOut`; undefined: nothing is
 * kept for this VMCB, or nothing is clean.
 */
export function putIn(words: Uint32Array, start: number, lo: number, hi: number): Uint32Array | undefined {
  if (words[cache + 2] !== 1 || words[cache] !== lo || words[cache + 1] !== hi || words[start + clean] === 0) return undefined
  const before = new Uint32Array(kept.length)
  for (let i = 0; i < kept.length; i++) {
    const { word, bit } = kept[i]
    before[i] = words[start + word]
    if (words[start + clean] & (1 << bit)) words[start + word] = words[cache + reserved + i]
  }
  return before
}
export function takeOut(words: Uint32Array, start: number, before: Uint32Array): void {
  for (let i = 0; i < kept.length; i++) words[start + kept[i].word] = before[i]
}
