/**
 * What generated code knows of a VMCS region, so that VMREAD and VMWRITE need nobody: where fields lie, which were written, and by whom.
 * Intel SDM vol. 3, "Format of the VMCS Region" (implementation-specific from byte 8 on), "Field Encoding in VMCS".
 */

/** Offsets in a region, in bytes. Fields have 8 bytes each. */
export const vmcsRegion = {
  /** A bit a field, in the order of the fields: it was written since the last VM entry that passed its checks. */
  changed: 16,
  firstField: 64,
  /** Behind each field, at this distance: RIP of the VMWRITE that last wrote it. */
  writer: 2048,
} as const

/** Bits that encodings of fields have: index, type, width. Not the access type: halves of fields are rare. */
export const encodingBits = 0x6c3e
/** Number of rows in the table from encodings to fields. */
const encodingRows = 512

/** Row of an encoding: width, type and index without the gaps between them. */
export const encodingRow = (encoding: number): number =>
  ((encoding >>> 1) & 0x1f) | ((encoding >>> 5) & 0x60) | ((encoding >>> 6) & 0x180)
/** Bits of a field that VMWRITE writes, by bits 14:13 of the encoding. */
export const widthMask: readonly bigint[] = [0xffffn, 0xffff_ffff_ffff_ffffn, 0xffffffffn, 0xffff_ffff_ffff_ffffn]
/** The table: a u16 a row, the field's offset in the region or 0; then `widthMask`. */
export const encodingTableMasks = encodingRows * 2
