/** Messages by chance through interrupt remapping tables by chance, on Vitrine and on QEMU: which of them arrive, and as what. */
import { Random } from '../../test/properties/random.ts'
import { device, type Mode, place } from './cases.ts'
import { differencesOf, type Comparison, type Explanation, register, base, bits, edu, configure } from './compare.ts'
import { List } from './list.ts'
import { onQemu, onVitrine } from './run.ts'

const entries = 256
const msi = { control: 0x42, address: 0x44, upper: 0x48, data: 0x4c } as const

interface Message {
  readonly low: bigint
  readonly high: bigint
  readonly index: number
  readonly address: number
  readonly data: number
  readonly summary: string
}

function randomMessage(random: Random): Message {
  const notes: string[] = []
  const may = (oneIn: number, note: string): boolean => {
    const happens = random.chance(oneIn)
    if (happens) notes.push(note)
    return happens
  }
  const index = random.below(entries)
  const vector = 0x30 + random.below(0xc0)
  const hasSubhandle = random.chance(3)
  const subhandle = hasSubhandle ? random.below(Math.min(8, index + 1)) : 0
  const handle = may(12, 'index beyond the table') ? entries + random.below(0x4000) : index - subhandle
  const isOld = may(12, 'compatibility format')
  const address = isOld ? 0xfee0_0000
    : (0xfee0_0010 | ((handle & 0x7fff) << 5) | (handle >> 15 << 2) | (hasSubhandle ? 8 : 0)) >>> 0
  const low = (may(10, 'not present') ? 0n : 1n) | (random.chance(6) ? 2n : 0n) | (random.chance(4) ? 8n : 0n)
    | (random.chance(3) ? 0x20n : 0n) | (BigInt(vector) << 16n) | (BigInt(random.below(16)) << 8n)
    | (may(12, 'reserved bits') ? random.pick([0x1000n, 0x2000n, 1n << 24n, 1n << 31n]) : 0n)
  const source = BigInt(may(4, 'of another source') ? random.pick([device ^ 1, device ^ 4, device ^ 6, device ^ 8, 0x118]) : device)
  const check = random.pick([0, 1, 1, 1])
  const qualifier = random.below(4)
  const high = source | (BigInt(qualifier) << 16n) | (BigInt(check) << 18n)
    | (may(14, 'reserved bits, high') ? random.pick([1n << 20n, 1n << 63n]) : 0n)
  const summary = `vector ${vector.toString(16)} at index ${index}, check ${check}, qualifier ${qualifier}`
  return { low, high, index, address, data: isOld ? vector : subhandle, summary: [summary, ...notes].join('; ') }
}

class Script {
  readonly list = new List()
  #tail = 0

  constructor() {
    const { list } = this
    configure(list, 0x10, edu.base)
    configure(list, 4, 6)
    list.store(0xfee0_00f0, 0x1ff).clear(place.interrupts, entries * 16)
    list.wide(base + register.queueAddress, BigInt(place.queue)).store(base + register.command, bits.queue)
    list.await(base + register.status, bits.queue, bits.queue)
    list.wide(base + register.interruptTable, BigInt(place.interrupts) | 7n)
    list.store(base + register.command, bits.queue | bits.setInterruptTable)
    list.await(base + register.status, bits.setInterruptTable, bits.setInterruptTable)
    list.store(base + register.command, bits.queue | bits.interrupts).await(base + register.status, bits.interrupts, bits.interrupts)
  }

  add({ low, high, index, address, data }: Message): void {
    const { list } = this
    const at = place.interrupts + index * 16
    list.wide(at, low).wide(at + 8, high)
    // interrupt entries go, all of them
    list.wide(place.queue + this.#tail * 16, 4n).wide(place.queue + this.#tail * 16 + 8, 0n)
    this.#tail = (this.#tail + 1) % 256
    list.store(base + register.queueTail, this.#tail * 16).await(base + register.queueHead, this.#tail * 16, 0x7fff0)
    configure(list, msi.address, address)
    configure(list, msi.upper, 0)
    configure(list, msi.data, data)
    configure(list, 0x40, 0x0081_0005)
    list.store(edu.base + edu.raise, 1).await(edu.base + edu.interrupts, 1, 1).store(edu.base + edu.acknowledge, 1)
    list.await(edu.base + edu.interrupts, 0, 1).taken().line()
    list.clear(at, 16)
  }
}

/** Where QEMU is not what the specification says. */
const explanations: readonly Explanation[] = [
  { why: 'the compatibility format is blocked while GSTS.CFIS is 0 ("Interrupt Requests in Compatibility Format"); QEMU 7.2 lets it pass',
    applies: ({ summary, ours, theirs }) =>
      /compatibility format/.test(summary) && ours === 'no interrupt' && theirs.startsWith('vector') },
]

export function compareInterrupts({ seed, cases: count }: { seed: number; cases: number; mode?: Mode }): Comparison {
  const random = new Random(seed)
  const cases = Array.from({ length: count }, () => randomMessage(random))
  const script = new Script()
  cases.forEach(each => script.add(each))
  const said = (line: string): string => (line === '' ? 'no interrupt' : `vector ${line.replaceAll(/\b0+(?=.)/g, '')}`)
  const [ours, theirs] = [onVitrine(script.list.bytes), onQemu(script.list.bytes)].map(lines => lines.map(said))
  return differencesOf(cases.map(({ summary }, index) => ({ summary, ours: ours[index], theirs: theirs[index] })), explanations,
    ({ ours: word }) => word.replace(/vector .*/, 'delivered'))
}
