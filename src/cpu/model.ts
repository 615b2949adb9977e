/** A CPU model: what CPUID reports and what the implementation therefore does. */
export interface CpuModel {
  readonly name: string
  readonly vendor: 'GenuineIntel' | 'AuthenticAMD'
  /** Physical and linear address bits. */
  readonly physicalBits: number
  readonly linearBits: number
  /** True when the feature is offered; names are CPUID flag names in lower case as Linux spells them in /proc/cpuinfo (`sse4_2`, `pcid`, `la57`). */
  has(feature: string): boolean
}
