/** Which MSRs a guest reads and writes by itself. Intel SDM vol. 3, "MSR-Bitmap Address"; AMD APM vol. 2, "MSR Intercepts". */

/** MSRs that belong to the guest while it runs: the control structure or the switch between vCPUs keeps them apart. */
const guestMsrs: readonly number[] = [
  0x174, 0x175, 0x176, // SYSENTER
  0x277, // PAT
  0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, // STAR, LSTAR, CSTAR, FMASK
  0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, // FS.base, GS.base, kernel GS.base, TSC_AUX
]
/** The time-stamp counter may be read: the offset is added. */
const readableMsrs: readonly number[] = [0x10]

/** Registers of an x2APIC that the processor reads for the guest, and those that it writes. Not there: the timer's current count. */
const x2apicReads: readonly number[] = [0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x28, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e,
  ...Array.from({ length: 24 }, (_, i) => 0x10 + i)]
const x2apicWrites: readonly number[] = [0x08, 0x0b, 0x3f]
const commandRegister = 0x30

/** One page: reads of low and high MSRs, then writes; a 1 exits. `x2apic`: with one that is virtualized; `ipis`: its IPIs, too. */
export function msrBitmap(x2apic = false, ipis = false): Uint8Array {
  const page = new Uint8Array(4096).fill(0xff)
  const allow = (index: number, half: number): void => {
    const bit = half * 2048 + (index >= 0xc0000000 ? 1024 : 0) + ((index & 0x1fff) >> 3)
    page[bit] &= ~(1 << (index & 7))
  }
  for (const index of [...guestMsrs, ...readableMsrs]) allow(index, 0)
  for (const index of guestMsrs) allow(index, 1)
  if (!x2apic) return page
  for (const number of x2apicReads) allow(0x800 + number, 0)
  for (const number of ipis ? [...x2apicWrites, commandRegister] : x2apicWrites) allow(0x800 + number, 1)
  return page
}

/** Two pages: two bits an MSR, for the ranges from 0, C0000000h and C0010000h. */
export function msrPermissionMap(): Uint8Array {
  const pages = new Uint8Array(8192).fill(0xff)
  const allow = (index: number, bit: number): void => {
    const range = index >= 0xc0010000 ? 0x1000 : index >= 0xc0000000 ? 0x800 : 0
    const position = (index & 0x1fff) * 2 + bit
    pages[range + (position >> 3)] &= ~(1 << (position & 7))
  }
  for (const index of [...guestMsrs, ...readableMsrs]) allow(index, 0)
  for (const index of guestMsrs) allow(index, 1)
  return pages
}
