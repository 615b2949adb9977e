/** The modes in which guests are entered, as fields of a VMCB. AMD APM vol. 2, "VMRUN Instruction". */
import type { VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { place, selector } from './arena.ts'

export type Fields = Readonly<Partial<Record<VmcbFieldName, bigint>>>

const data = ['es', 'ss', 'ds', 'fs', 'gs'] as const
function segments(names: readonly (typeof data)[number][], select: number, attributes: bigint, limit = 0xffffffffn, base = 0n): Fields {
  const fields: Partial<Record<VmcbFieldName, bigint>> = {}
  for (const name of names) Object.assign(fields, { [`${name}Selector`]: BigInt(select), [`${name}Attributes`]: attributes,
    [`${name}Limit`]: limit, [`${name}Base`]: base })
  return fields
}
const code = (select: number, attributes: bigint): Fields => ({ csSelector: BigInt(select), csAttributes: attributes })

const code32: Fields = { ...code(selector.code32, 0xc9bn), idtrBase: BigInt(place.idt32), idtrLimit: 48n * 8n - 1n, star: 0n,
  trSelector: BigInt(selector.tss32), trBase: BigInt(place.tss32) }
const realSegments: Fields = { ...segments(data, place.data >> 4, 0x93n, 0xffffn, BigInt(place.data)), ...code(place.code >> 4, 0x9bn),
  csBase: BigInt(place.code), csLimit: 0xffffn, ssSelector: BigInt(place.stack >> 4), ssBase: BigInt(place.stack), rip: 0n, rsp: 0xf00n }

/** `bits`: how its code is assembled. */
export interface Mode {
  readonly bits: 16 | 32 | 64
  readonly fields: Fields
}

export const modes = {
  long64: { bits: 64, fields: {} },
  user64: { bits: 64, fields: { cpl: 3n, ...code(selector.userCode64, 0xafbn), ...segments(data, selector.userData, 0xcf3n) } },
  compatibility: { bits: 32, fields: code(selector.code32, 0xc9bn) },
  pae: { bits: 32, fields: { ...code32, efer: 0x1000n, cr3: BigInt(place.paePdpt) } },
  legacy: { bits: 32, fields: { ...code32, efer: 0x1000n, cr4: 0x610n, cr3: BigInt(place.legacyDirectory) } },
  flat: { bits: 32, fields: { ...code32, efer: 0x1000n, cr4: 0x600n, cr3: 0n, cr0: 0x31n } },
  user32: { bits: 32, fields: { ...code32, efer: 0x1000n, cr3: BigInt(place.paePdpt), cpl: 3n, ...code(selector.userCode32, 0xcfbn),
    ...segments(data, selector.userData, 0xcf3n) } },
  real: { bits: 16, fields: { ...realSegments, efer: 0x1000n, cr4: 0n, cr3: 0n, cr0: 0x30n, idtrBase: BigInt(place.ivt),
    idtrLimit: 191n } },
  virtual8086: { bits: 16, fields: { ...code32, efer: 0x1000n, cr3: BigInt(place.paePdpt), ...realSegments,
    ...segments(['es', 'ds', 'fs', 'gs'], place.data >> 4, 0xf3n, 0xffffn, BigInt(place.data)), csAttributes: 0xfbn,
    ssAttributes: 0xf3n, cpl: 3n, rflags: 0x23002n } },
} as const satisfies Readonly<Record<string, Mode>>
export type ModeName = keyof typeof modes
