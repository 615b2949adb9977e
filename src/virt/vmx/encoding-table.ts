/** The table by which generated code finds fields of a VMCS: from encodings to places. Intel SDM vol. 3, "Field Encoding in VMCS". */
import { encodingBits, encodingRow, encodingTableMasks, vmcsRegion, widthMask } from '../../cpu/vmcs-region.ts'
import { vmcsFieldTable } from '../../memory/map.ts'
import { fieldList } from './fields.ts'

/** Puts it into linear memory, without the fields that the model has not. */
export function writeEncodingTable(memory: ArrayBufferLike, absent: ReadonlySet<string>): void {
  const view = new DataView(memory)
  for (const { name, encoding, word } of fieldList) {
    // generated code leaves the few encodings with other bits to the helper
    if (encoding & ~encodingBits || absent.has(name)) continue
    view.setUint16(vmcsFieldTable + encodingRow(encoding) * 2, word * 4, true)
  }
  widthMask.forEach((mask, i) => view.setBigUint64(vmcsFieldTable + encodingTableMasks + i * 8, mask, true))
}

const end = Math.max(...fieldList.map(({ word }) => word * 4 + 8))
if (fieldList[0].word * 4 !== vmcsRegion.firstField || end > vmcsRegion.writer || end + vmcsRegion.writer > 4096
  || vmcsRegion.changed + fieldList.length / 8 > vmcsRegion.firstField)
  throw new Error('the parts of a VMCS region overlap')
