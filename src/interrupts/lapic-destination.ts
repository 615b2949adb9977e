/** Whom a logical destination means. Intel SDM vol. 3, "Logical Destination Mode", "Logical Destination Mode in x2APIC Mode". */

/** The top four bits of the destination format register that mean the flat model; all others mean clusters. */
const flatModel = 0xf
const allClusters = 0xf

/** LDR in x2APIC mode, which follows from the ID: cluster in the high half, one of 16 bits in the low half. */
export const x2apicLogicalId = (id: number): number => (((id >>> 4) << 16) | (1 << (id & 0xf))) >>> 0

/** `logicalId`: LDR. Cluster and bits of both sides are compared. */
export const matchesX2apic = (destination: number, logicalId: number): boolean =>
  destination >>> 16 === logicalId >>> 16 && (destination & logicalId & 0xffff) !== 0

/** `ldr` and `dfr`: the registers, whose top bits count. */
export function matchesXapic(destination: number, ldr: number, dfr: number): boolean {
  if (destination > 0xff) return false
  const mine = ldr >>> 24
  if (dfr >>> 28 === flatModel) return (destination & mine) !== 0
  const cluster = destination >>> 4
  return (cluster === allClusters || cluster === mine >>> 4) && (destination & mine & 0xf) !== 0
}
