/**
 * Interrupt messages as they travel between interrupt controllers, and their form as a memory write.
 * Intel SDM vol. 3, "Issuing Interprocessor Interrupts" and "Message Signalled Interrupts".
 */

/** Values of the three-bit delivery mode in ICR, LVT, redirection entries and MSI data. 3 is reserved. */
export const deliveryMode = { fixed: 0, lowestPriority: 1, smi: 2, nmi: 4, init: 5, startup: 6, extInt: 7 } as const

/** A destination that means every local APIC, in physical and in logical mode, whatever width the sender's field has. */
export const broadcastDestination = 0xffff_ffff

export interface InterruptMessage {
  /** APIC ID or logical destination, 32 bits; `broadcastDestination` for all. */
  destination: number
  logical: boolean
  /** A value of `deliveryMode`, or the reserved 3, which nobody accepts. */
  mode: number
  vector: number
  /** Level-triggered: its EOI will be broadcast to the I/O APICs. */
  level: boolean
}

/** Whether a write to this physical address is an interrupt message (upstream, from a device or an I/O APIC). */
export const isMsiAddress = (address: number): boolean => address >= 0xfee0_0000 && address <= 0xfeef_ffff

/** An 8-bit destination of all ones is the broadcast address. */
export const widenDestination = (destination: number): number => (destination === 0xff ? broadcastDestination : destination)

/**
 * The message in a compatibility-format MSI: address 0xFEExxxxx. The redirection hint with a logical destination asks for one
 * of the set; with a physical one it changes nothing, since there is only one candidate.
 */
export const decodeMsi = (address: number, data: number): InterruptMessage => {
  const logical = (address & 0x4) !== 0
  const redirected = (address & 0x8) !== 0
  const mode = (data >>> 8) & 7
  return {
    destination: widenDestination((address >>> 12) & 0xff),
    logical,
    mode: redirected && logical && mode === deliveryMode.fixed ? deliveryMode.lowestPriority : mode,
    vector: data & 0xff,
    level: (data & 0x8000) !== 0,
  }
}
