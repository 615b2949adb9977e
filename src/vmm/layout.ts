/** Where the hypervisor keeps what processors need of it in physical memory, which it maps one to one. */

const page = 0x1000
const KiB = 1024

export const place = {
  /** Real-mode code that started processors run: SIPI's vector is its page. */
  trampoline: 0x20000,
  gdt: 0x100000,
  idt: 0x101000,
  /** One handler of 16 bytes a vector. */
  handlers: 0x102000,
  /** The instructions that the hypervisor has executed, one in each slot of 16 bytes. */
  code: 0x103000,
  /** PML4, one page of pointers, four page directories: 4 GiB in pages of 2 MiB. */
  pageTables: 0x104000,
  processors: 0x110000,
  /** Pages for everything else. */
  pool: 0x400000,
} as const

const perProcessor = { tss: 0, stack: page, stackTop: 2 * page, root: 2 * page, scratch: 3 * page } as const
const processorSize = 16 * KiB

/** Of one processor: its TSS and stack, its VMXON region or host save area, and a page for operands. */
export function processorPlaces(index: number): Readonly<Record<keyof typeof perProcessor, number>> {
  const base = place.processors + index * processorSize
  return Object.fromEntries(Object.entries(perProcessor).map(([name, offset]) => [name, base + offset])) as never
}

export const selector = { code32: 0x08, code: 0x10, data: 0x18, firstTss: 0x20 } as const
export const slotSize = 16
export const pageSize = page
