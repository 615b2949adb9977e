/**
 * The registers of a guest's local APIC as they lie in memory, in a page that hypervisor and processor share: the virtual-APIC page of
 * VT-x, the vAPIC backing page of AMD's AVIC. Intel SDM vol. 3, "Virtual APIC State"; AMD APM vol. 2, "AVIC Backing Page".
 */

/** Offsets of registers on the page. */
export const apicOffset = {
  id: 0x20, tpr: 0x80, ppr: 0xa0, eoi: 0xb0, ldr: 0xd0, dfr: 0xe0, isr: 0x100, tmr: 0x180, irr: 0x200, icr: 0x300, icrHigh: 0x310,
  selfIpi: 0x3f0,
} as const

/** Bits of the interrupt command register. */
export const icrBit = { modeShift: 8, modeMask: 7, logical: 1 << 11, pending: 1 << 12, level: 1 << 15, shorthandShift: 18 } as const

export abstract class ApicPage {
  /** The 32-bit register at an offset, signed. */
  protected abstract read(register: number): number
  protected abstract write(register: number, value: number): void

  /** The highest vector whose bit is set in ISR, TMR or IRR; 0: none is. */
  protected highest(register: number): number {
    for (let i = 7; i >= 0; i--) {
      const word = this.read(register + i * 16)
      if (word !== 0) return i * 32 + 31 - Math.clz32(word)
    }
    return 0
  }
  protected hasBit(register: number, vector: number): boolean {
    return (this.read(register + (vector >> 5) * 16) & (1 << (vector & 31))) !== 0
  }
  protected setBit(register: number, vector: number, on: boolean): void {
    const at = register + (vector >> 5) * 16
    const bit = 1 << (vector & 31)
    this.write(at, on ? this.read(at) | bit : this.read(at) & ~bit)
  }

  /** `size` bytes, within one register, as a load of the page gives them. */
  readBytes(at: number, size: number): number {
    const value = this.read(at & 0xff0) >>> ((at & 3) * 8)
    return size === 4 ? value >>> 0 : value & ((1 << (size * 8)) - 1)
  }
  /** The same of a store: the register's other bytes stay. */
  protected putBytes(at: number, size: number, value: number): void {
    const shift = (at & 3) * 8
    const mask = size === 4 ? -1 : ((1 << (size * 8)) - 1) << shift
    this.write(at & 0xff0, (this.read(at & 0xff0) & ~mask) | ((value << shift) & mask))
  }
}
