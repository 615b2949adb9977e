/**
 * Remapping units in the machine: what is asked for by `--iommu`, where their registers lie, which requesters are whose, and how software
 * learns of them (Intel VT-d specification, "DMA Remapping Hardware Unit Definition Structure").
 */
import type { IommuOptions } from '../api.ts'
import { bdf, type Bdf } from '../devices/pci/function.ts'
import type { DmaPort, LogUnhandled, MmioHandler, MsiPort } from '../devices/ports.ts'
import { InputError } from '../errors.ts'
import { nearest } from '../cpu/features.ts'
import { defaultUnit, type UnitOptions } from '../iommu/capabilities.ts'
import type { RemappedInterrupt } from '../iommu/ports.ts'
import { registerSpan } from '../iommu/registers.ts'
import { RemappedDma, RemappedMsi, type RequesterOptions } from '../iommu/requester.ts'
import { RemappingUnit } from '../iommu/unit.ts'
import type { DmarOptions, DmarScope, ReservedMemory } from './acpi/dmar.ts'
import type { Range } from './memory-map.ts'
import { platformRequester } from './platform-requester.ts'

/** Where QEMU's q35 has its unit; more of them follow. */
const firstUnitBase = 0xfed9_0000
const mostUnits = 8

interface UnitSetup {
  options: UnitOptions
  /** Functions on bus 0 that are this unit's, bridges with all behind them; undefined: all that no other has. */
  scope: readonly Bdf[] | undefined
  reserved: readonly { base: number; limit: number; source: Bdf }[]
}

type Property = (setup: { options: UnitOptions; scope?: Bdf[]; reserved: UnitSetup['reserved'][number][] }, text: string) => void

function flag(name: string, field: { [K in keyof UnitOptions]: UnitOptions[K] extends boolean ? K : never }[keyof UnitOptions]): Property {
  return ({ options }, text) => {
    if (!['on', 'off', 'auto'].includes(text)) throw new InputError(`--iommu: property '${name}': expected on or off, found '${text}'`)
    if (text !== 'auto') options[field] = text === 'on'
  }
}

/** Names as in QEMU's intel-iommu, where it has them. */
const properties: Readonly<Record<string, Property>> = {
  'aw-bits': ({ options }, text) => {
    const bits = ([39, 48, 57] as const).find(each => String(each) === text)
    if (bits === undefined) throw new InputError(`--iommu: property 'aw-bits': expected 39, 48 or 57, found '${text}'`)
    options.addressBits = bits
  },
  intremap: flag('intremap', 'interruptRemapping'),
  eim: flag('eim', 'extendedInterruptMode'),
  posting: flag('posting', 'posting'),
  'scalable-mode': flag('scalable-mode', 'scalableMode'),
  pt: flag('pt', 'passThrough'),
  'caching-mode': flag('caching-mode', 'cachingMode'),
  rwbf: flag('rwbf', 'writeBuffers'),
  'snoop-control': flag('snoop-control', 'snoopControl'),
  'advanced-fault-log': flag('advanced-fault-log', 'advancedFaultLog'),
  esrtps: flag('esrtps', 'dropsAtTablePointer'),
  'ioapic-source-check': flag('ioapic-source-check', 'checksIoApicSource'),
  scope: (setup, text) => {
    setup.scope = text.split('+').map(place => placeOf(place, 'scope'))
  },
  rmrr: ({ reserved }, text) => {
    const [, base, limit, place] = /^(?:0x)?([0-9a-f]+)-(?:0x)?([0-9a-f]+)@(.+)$/i.exec(text) ?? []
    if (place === undefined || parseInt(base, 16) % 4096 !== 0 || parseInt(limit, 16) % 4096 !== 4095)
      throw new InputError(`--iommu: property 'rmrr': expected FIRST-LAST@DEVICE.FUNCTION of whole pages, found '${text}'`)
    reserved.push({ base: parseInt(base, 16), limit: parseInt(limit, 16), source: placeOf(place, 'rmrr') })
  },
}

function placeOf(text: string, property: string): Bdf {
  const [, device, fn] = /^(?:00:)?([01]?[0-9a-f])\.([0-7])$/i.exec(text) ?? []
  if (device === undefined) throw new InputError(`--iommu: property '${property}': expected DEVICE.FUNCTION on bus 0, found '${text}'`)
  return bdf(0, parseInt(device, 16), Number(fn))
}

/** A list for `--iommu help`. */
export const iommuHelp = `Remapping units: vtd[,property=value]...
  aw-bits=39|48|57         widest device address; tables of up to 3, 4 or 5 levels (default 48)
  intremap=on|off          interrupt remapping (on)
  eim=on|off               32-bit destinations of interrupts, for x2APIC (on)
  posting=on|off           interrupt posting (on)
  scalable-mode=on|off     PASID tables, first stage, nesting (${defaultUnit.scalableMode ? 'on' : 'off'})
  pt=on|off                pass-through (on)
  caching-mode=on|off      caches keep what is not present (off)
  snoop-control=on|off     (on)
  advanced-fault-log=on|off  faults may be recorded in memory (off)
  esrtps=on|off            setting a table's pointer drops what was cached of the old one (off)
  rwbf=on|off              software has to flush write buffers (off)
  ioapic-source-check=on|off  whether entries' source IDs are compared for the I/O APIC too (on)
  scope=DEV.FN[+DEV.FN]    a unit for these functions of bus 0, and what is behind them if they are bridges with addr=;
                           the last unit has no scope, and all the rest
  rmrr=FIRST-LAST@DEV.FN   memory that firmware has a device use; reserved in the memory map
`

function setupOf({ model, properties: given }: IommuOptions, hostAddressBits: number): UnitSetup {
  if (model !== 'vtd') throw new InputError(`--iommu: expected vtd, found '${model}'`)
  const setup: Parameters<Property>[0] = { options: { ...defaultUnit, hostAddressBits }, reserved: [] }
  for (const [name, text] of Object.entries(given)) {
    const property = properties[name]
    if (!property) {
      throw new InputError(`--iommu: there is no property '${name}'; the nearest is '${nearest(name, Object.keys(properties))}'`)
    }
    property(setup, text)
  }
  const { options, scope, reserved } = setup
  if (!options.interruptRemapping) options.posting = options.extendedInterruptMode = false
  return { options, scope, reserved }
}

/** What `rmrr` keeps from software. */
export function reservedMemory(requests: readonly IommuOptions[]): Range[] {
  const setups = requests.map(request => setupOf(request, defaultUnit.hostAddressBits))
  return setups.flatMap(({ reserved }) => reserved.map(({ base, limit }) => ({ base, size: limit + 1 - base })))
}

function checkScopes(setups: readonly UnitSetup[]): void {
  if (setups.length > mostUnits) throw new InputError(`--iommu: expected at most ${mostUnits} units, found ${setups.length}`)
  const whole = setups.findIndex(({ scope }) => scope === undefined)
  if (whole !== setups.length - 1) throw new InputError('--iommu: expected the last unit, and no other, to be without scope')
  const places = setups.flatMap(({ scope }) => scope ?? [])
  if (new Set(places).size !== places.length) throw new InputError('--iommu: a function is in the scope of two units')
}

export interface IommuPorts {
  memory: DmaPort
  deliver: (message: RemappedInterrupt) => void
  message: (address: number, data: number) => void
  addMmio: (base: number, size: number, name: string, handler: MmioHandler) => void
  /** The function on bus 0 that leads to a bus, as software has numbered them. */
  rootFunction: (bus: number) => Bdf | undefined
  /** Where there are bridges on bus 0. */
  bridges: readonly Bdf[]
  log: LogUnhandled
}

/** All units of a machine. */
export class Iommu {
  readonly units: readonly RemappingUnit[]
  readonly dmar: DmarOptions
  readonly #memory: DmaPort
  readonly #rest: RemappingUnit
  readonly #rootFunction: IommuPorts['rootFunction']
  readonly #scoped = new Map<Bdf, RemappingUnit>()

  constructor(requests: readonly IommuOptions[], hostAddressBits: number, ports: IommuPorts) {
    const setups = requests.map(request => setupOf(request, hostAddressBits))
    checkScopes(setups)
    const { memory, deliver, message, log } = ports
    this.#memory = memory
    this.#rootFunction = ports.rootFunction
    this.units = setups.map(({ options, scope }, index) => {
      const name = `vtd.${index}`
      const unit = new RemappingUnit({ name, options, ports: { memory, deliver, message }, log })
      ports.addMmio(firstUnitBase + index * registerSpan, registerSpan, name, unit)
      scope?.forEach(place => this.#scoped.set(place, unit))
      return unit
    })
    this.#rest = this.units[setups.length - 1]
    this.dmar = dmarOf(setups, hostAddressBits, new Set(ports.bridges))
  }

  dmaFor(requester: () => Bdf): DmaPort {
    return new RemappedDma(this.#requester(requester))
  }

  msiFor(requester: () => Bdf): MsiPort {
    const checksSource = requester() !== platformRequester.ioapic || this.#rest.options.checksIoApicSource
    return new RemappedMsi({ ...this.#requester(requester), checksSource })
  }

  #requester(requester: () => Bdf): RequesterOptions {
    const unitFor = this.#scoped.size === 0 ? () => this.#rest : (source: number) => this.#unitOf(source as Bdf)
    return { requester, unitFor, memory: this.#memory }
  }

  #unitOf(source: Bdf): RemappingUnit {
    const place = source < 0x100 ? source : this.#rootFunction(source >> 8)
    return (place === undefined ? undefined : this.#scoped.get(place)) ?? this.#rest
  }
}

function dmarOf(setups: readonly UnitSetup[], hostAddressBits: number, bridges: ReadonlySet<Bdf>): DmarOptions {
  const endpoint = (source: Bdf): DmarScope => ({ kind: bridges.has(source) ? 'bridge' : 'endpoint', enumeration: 0, source })
  const platform: DmarScope[] = [
    { kind: 'ioapic', enumeration: 0, source: platformRequester.ioapic }, { kind: 'hpet', enumeration: 0, source: platformRequester.hpet },
  ]
  return {
    hostAddressBits, interruptRemapping: setups.every(({ options }) => options.interruptRemapping),
    units: setups.map(({ scope }, index) => ({
      base: firstUnitBase + index * registerSpan, includesAll: scope === undefined, scopes: scope ? scope.map(endpoint) : platform,
    })),
    reserved: setups.flatMap(({ reserved }) => reserved.map(({ base, limit, source }): ReservedMemory => ({
      base, limit, scopes: [endpoint(source)],
    }))),
  }
}
