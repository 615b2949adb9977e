/** MOV to and from control and debug registers. Intel SDM vol. 2, "MOV-Move to/from Control Registers": the mod field is ignored. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gprAddress } from '../cpu/layout.ts'
import { mode } from '../cpu/mode.ts'
import { registry } from '../isa/rows.ts'
import { Decoder } from './decoder.ts'
import { OpcodeTables } from './tables.ts'

test('the r/m operand of MOV CR/DR is a register whatever mod says', () => {
  const decoder = new Decoder(new OpcodeTables(registry), () => true)
  for (const opcode of [0x20, 0x21])
    for (const modrm of [0x04, 0x45, 0x86, 0xc7]) {
      const decoded = decoder.decode(Uint8Array.of(0x0f, opcode, modrm, 0x90, 0x90, 0x90, 0x90), 0, 7, mode.code64)
      assert.deepEqual([decoded.result, decoded.length, decoded.memory, decoded.slots[0]], ['ok', 3, false, gprAddress(modrm & 7)])
    }
})
