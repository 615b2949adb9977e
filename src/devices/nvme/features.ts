/** What Set Features and Get Features know (NVM Express Base Specification 1.4, "Set Features command", "Feature Specific Information"). */
import type { Command, Outcome } from './command.ts'
import { temperature } from './identify.ts'
import { feature, type Status, status } from './spec.ts'

interface Row {
  id: number
  /** Values, by an index that the command chooses: most features have one. */
  initial: readonly number[]
  writable: number
  /** Which value a command means; undefined when there is none. */
  indexOf?: (dword11: number) => number | undefined
  perNamespace?: boolean
}

/** Of the temperature threshold: sensor 0 (the composite one), over and under. */
const thresholdIndex = (dword11: number): number | undefined => {
  const [sensor, type] = [(dword11 >>> 16) & 0xf, (dword11 >>> 20) & 3]
  return sensor === 0 && type < 2 ? type : undefined
}

const rows = (vectors: number): readonly Row[] => [
  { id: feature.arbitration, initial: [6], writable: 0xffffff07 },
  { id: feature.powerManagement, initial: [0], writable: 0xe0 },
  { id: feature.temperatureThreshold, initial: [temperature.warning, 0], writable: 0xffff, indexOf: thresholdIndex },
  { id: feature.errorRecovery, initial: [0], writable: 0xffff, perNamespace: true },
  { id: feature.volatileWriteCache, initial: [1], writable: 1 },
  { id: feature.interruptCoalescing, initial: [0], writable: 0xffff },
  {
    id: feature.interruptVector, initial: Array.from({ length: vectors }, (_, vector) => vector), writable: 0x1ffff,
    indexOf: dword11 => ((dword11 & 0xffff) < vectors ? dword11 & 0xffff : undefined),
  },
  { id: feature.writeAtomicity, initial: [0], writable: 1 },
  { id: feature.asyncEvents, initial: [0], writable: 0x7fff },
]

const select = { current: 0, initial: 1, saved: 2, capabilities: 3 } as const
/** What the capabilities say: each namespace has its own value, it can be changed. */
const capability = { perNamespace: 2, changeable: 4 } as const

export class Features {
  readonly #rows: readonly Row[]
  #values: Map<number, number[]>

  constructor(vectors: number) {
    this.#rows = rows(vectors)
    this.#values = this.#initialValues()
  }

  value(id: number, index = 0): number {
    return this.#values.get(id)![index]
  }

  get(command: Command): Outcome {
    const row = this.#rowOf(command)
    if (!row) return { status: status.invalidField }
    const selected = (command.dwords[10] >>> 8) & 7
    if (selected === select.capabilities) {
      return { status: status.success, result: capability.changeable | (row.perNamespace ? capability.perNamespace : 0) }
    }
    const index = row.indexOf ? row.indexOf(command.dwords[11]) : 0
    if (index === undefined || selected > select.capabilities) return { status: status.invalidField }
    return { status: status.success, result: selected === select.current ? this.value(row.id, index) : row.initial[index] }
  }

  set(command: Command): Status {
    const row = this.#rowOf(command)
    if (!row) return status.invalidField
    const dword11 = command.dwords[11]
    const index = row.indexOf ? row.indexOf(dword11) : 0
    if (index === undefined) return row.id === feature.interruptVector ? status.invalidInterruptVector : status.invalidField
    // There is one power state.
    if (row.id === feature.powerManagement && dword11 & 0x1f) return status.invalidField
    this.#values.get(row.id)![index] = (dword11 & row.writable) >>> 0
    return status.success
  }

  reset(): void {
    this.#values = this.#initialValues()
  }

  saveState(): [number, number[]][] {
    return [...this.#values].map(([id, values]) => [id, [...values]])
  }

  restoreState(saved: [number, number[]][]): void {
    this.#values = new Map(saved.map(([id, values]) => [id, [...values]]))
  }

  #rowOf(command: Command): Row | undefined {
    return this.#rows.find(({ id }) => id === (command.dwords[10] & 0xff))
  }

  #initialValues(): Map<number, number[]> {
    return new Map(this.#rows.map(({ id, initial }) => [id, [...initial]]))
  }
}
