/** The DMAR table: which remapping units there are, and what lies in their scopes (Intel VT-d specification, "BIOS Considerations"). */
import { littleEndian } from './aml.ts'

/** A function on bus 0, an I/O APIC or an HPET, by the requester ID that it uses. */
export interface DmarScope {
  kind: 'endpoint' | 'bridge' | 'ioapic' | 'hpet'
  /** I/O APICs and HPETs: their number in their own tables. */
  enumeration: number
  source: number
}

export interface DmarUnit {
  base: number
  /** All that no other unit names; the last one in the table. */
  includesAll: boolean
  scopes: readonly DmarScope[]
}

/** Memory that firmware has a device use: software must map it for the device as it is. */
export interface ReservedMemory {
  base: number
  /** The last byte. */
  limit: number
  scopes: readonly DmarScope[]
}

export interface DmarOptions {
  hostAddressBits: number
  interruptRemapping: boolean
  units: readonly DmarUnit[]
  reserved: readonly ReservedMemory[]
}

const scopeTypes = { endpoint: 1, bridge: 2, ioapic: 3, hpet: 4 } as const
const structure = { unit: 0, reservedMemory: 1 } as const
const includeAll = 1

/** What follows the table's header. */
export function dmarBody({ hostAddressBits, interruptRemapping, units, reserved }: DmarOptions): number[] {
  return [
    hostAddressBits - 1, interruptRemapping ? 1 : 0, ...new Array<number>(10).fill(0),
    ...units.flatMap(({ base, includesAll, scopes }) =>
      sized(structure.unit, [includesAll ? includeAll : 0, 0, 0, 0, ...littleEndian(base, 8), ...scopes.flatMap(scope)])),
    ...reserved.flatMap(({ base, limit, scopes }) =>
      sized(structure.reservedMemory, [0, 0, 0, 0, ...littleEndian(base, 8), ...littleEndian(limit, 8), ...scopes.flatMap(scope)])),
  ]
}

const sized = (type: number, body: number[]): number[] => [...littleEndian(type, 2), ...littleEndian(body.length + 4, 2), ...body]

/** One step of path: everything named here lies directly on its bus. */
function scope({ kind, enumeration, source }: DmarScope): number[] {
  return [scopeTypes[kind], 8, 0, 0, enumeration, source >> 8, (source >> 3) & 0x1f, source & 7]
}
