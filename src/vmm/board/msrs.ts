/** MSRs of guests that are not the processor's: the hypervisor keeps them. Intel SDM vol. 4, "Architectural MSRs". */
import type { Vcpu } from '../vcpu.ts'

const efer = { index: 0xc0000080, lma: 0x400n } as const
/** MTRRs: eight variable ones, fixed ones, write combining. */
const mtrrCapability = { index: 0xfe, value: 0x508n } as const
const mtrrDefault = 0x2ff
const isMtrr = (index: number): boolean =>
  (index >= 0x200 && index < 0x210) || index === 0x250 || index === 0x258 || index === 0x259 || (index >= 0x268 && index < 0x270)
/** Read as these, and writes are dropped: platform ID, microcode, MISC_ENABLE, HWCR, NB_CFG, SYSCFG and what kernels read besides. */
const constants = new Map<number, bigint>([
  [0x17, 0n], [0x8b, 0x100000000n], [0x1a0, 1n], [0x34, 0n], [0xce, 0n], [0x140, 0n], [0xc0010010, 0n], [0xc0010015, 0x1000000n],
  [0xc001001f, 0n], [0xc0010055, 0n], [0xc0011022, 0n], [0xc0011029, 0n], [0xc001102c, 0n], [0xc0011020, 0n], [0x1d9, 0n], [0x3a, 1n],
])

export class GuestMsrs {
  private readonly stored = new Map<number, bigint>([[mtrrDefault, 0xc06n]])

  read(vcpu: Vcpu, index: number): bigint | undefined {
    if (index === efer.index) return vcpu.get('efer')
    if (index === mtrrCapability.index) return mtrrCapability.value
    return this.stored.get(index) ?? (isMtrr(index) ? 0n : constants.get(index))
  }
  /** False: there is no such MSR. */
  write(vcpu: Vcpu, index: number, value: bigint): boolean {
    if (index === efer.index) vcpu.set('efer', (value & ~efer.lma) | (vcpu.get('efer') & efer.lma))
    else if (isMtrr(index) || index === mtrrDefault) this.stored.set(index, value)
    else return constants.has(index)
    return true
  }
}
