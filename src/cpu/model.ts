/** A CPU model: what CPUID reports and what the implementation therefore does. */
export interface CpuModel {
  readonly name: string
  readonly vendor: 'GenuineIntel' | 'AuthenticAMD'
  /** Physical and linear address bits. */
  readonly physicalBits: number
  readonly linearBits: number
  /**
   * True when the feature is offered; names are CPUID flag names in lower case as Linux spells them in /proc/cpuinfo (`sse4_2`, `pcid`,
   * `la57`).
   */
  has(feature: string): boolean
  readonly identity: CpuIdentity
  readonly counters: CounterSet
}

/** The performance counters of a model. */
export interface CounterSet {
  /** Of Intel's architectural performance monitoring, or of AMD's, whose second one is the first with a number; 0: there is none. */
  readonly version: number
  /** How many of each kind, and the bits of each. */
  readonly general: number
  readonly fixed: number
  readonly width: number
  /** Intel: IA32_A_PMCx take all bits. */
  readonly fullWidth?: true
}

/** What CPUID says besides features. */
export interface CpuIdentity {
  /** EAX of leaf 1, and EDX after reset. */
  readonly signature: number
  /** At most 47 characters. */
  readonly brand: string
  /** Highest basic and extended leaf. */
  readonly basicLeaves: number
  readonly extendedLeaves: number
  /** Logical processors of the machine: one package, one thread a core. */
  readonly processors: number
  /** Starts the generator behind RDRAND and RDSEED. */
  readonly seed: bigint
  readonly caches: readonly Cache[]
}

/** One cache as leaves 4 and 8000001DH describe it. `sharedBy` is a number of logical processors, or 'all' of the package. */
export interface Cache {
  readonly level: 1 | 2 | 3
  readonly type: 'data' | 'instruction' | 'unified'
  readonly bytes: number
  readonly ways: number
  readonly sharedBy: number | 'all'
}
