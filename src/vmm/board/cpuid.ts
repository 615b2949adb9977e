/** What CPUID says in a guest: the processor's own words, without what the hypervisor does not offer. Intel SDM vol. 2, "CPUID". */
import type { CpuidResult } from '../processor.ts'

const bits = (...numbers: number[]): number => numbers.reduce((mask, bit) => mask | (1 << bit), 0)

const hypervisorBase = 0x40000000
/** KVM's interface for guests, with none of its features: Linux uses an x2APIC without interrupt remapping only where it sees one. */
const kvmBase = 0x40000100
const hypervisorBit = 1 << 31
/** DTES64 to PDCM: MONITOR, VMX, SMX; TSC deadline, OSXSAVE. */
const leaf1Ecx = bits(2, 3, 4, 5, 6, 7, 8, 15, 24, 27)
const xsave = 1 << 26
const osxsave = 1 << 27
/** Of leaf 0DH: XSAVEOPT and XGETBV with ECX = 1; no compact format. */
const xsaveKept = bits(0, 2)
/** Bytes of the legacy region and the header of an XSAVE area. */
const legacyArea = 576
/** The hypervisor has one, if the processor has or not. */
const x2apic = 1 << 21
/** Machine checks, ACPI thermal control. */
const leaf1Edx = bits(7, 14, 21, 22, 29)
const htt = 1 << 28
/** TSC_ADJUST, SGX. */
const leaf7Ebx = bits(1, 2, 25)
/** PKU, OSPKE, WAITPKG, CET, LA57, ... : only UMIP and RDPID stay. */
const leaf7EcxKept = bits(2, 22)
/** SVM, extended APIC, SKINIT, WDT, LWP, topology extensions, counters, MWAITX. */
const extended1Ecx = bits(2, 3, 10, 12, 13, 15, 22, 23, 24, 26, 27, 28, 29)
const nothing: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
const letters = (text: string): number[] =>
  [0, 4, 8].map(at => [0, 1, 2, 3].reduce((word, i) => word | (text.charCodeAt(at + i) << (i * 8)), 0) >>> 0)

/** What of a vCPU's state CPUID shows. */
export interface CpuidState {
  readonly xcr0: bigint
  /** CR4.OSXSAVE. */
  readonly xsaveEnabled: boolean
}

/** `processor` says what the processor itself does. `index` and `count` are of the guest's vCPUs. */
export function guestCpuid(processor: (leaf: number, subleaf: number) => CpuidResult, leaf: number, subleaf: number, index: number,
  count: number, { xcr0, xsaveEnabled }: CpuidState): CpuidResult {
  const real = processor(leaf, subleaf)
  switch (leaf) {
    case 1: return {
      eax: real.eax, ebx: ((real.ebx & 0xff00) | (count << 16) | (index << 24)) >>> 0,
      ecx: ((real.ecx & ~leaf1Ecx) | hypervisorBit | x2apic | (real.ecx & xsave && xsaveEnabled ? osxsave : 0)) >>> 0,
      edx: ((real.edx & ~(leaf1Edx | htt)) | (count > 1 ? htt : 0)) >>> 0,
    }
    case 5: case 6: case 0xa: case 0x12: case 0x14: case 0x1f: case 0x8000000a: case 0x8000001e: return nothing
    case 7: return subleaf > 0 ? nothing : { eax: 0, ebx: (real.ebx & ~leaf7Ebx) >>> 0, ecx: real.ecx & leaf7EcxKept, edx: 0 }
    case 0xb: return { ...nothing, ecx: subleaf, edx: index }
    case 0xd:
      if (subleaf === 0) return { ...real, ebx: xsaveArea(processor, xcr0) }
      return subleaf === 1 ? { ...nothing, eax: real.eax & xsaveKept } : real
    case 0x80000001: return { ...real, ecx: (real.ecx & ~extended1Ecx) >>> 0 }
    case 0x80000008: return { eax: real.eax & 0xffff, ebx: 0, ecx: count - 1, edx: 0 }
    case hypervisorBase: {
      const [ebx, ecx, edx] = letters('VitrineVMM\0\0')
      return { eax: hypervisorBase, ebx, ecx, edx }
    }
    case kvmBase: {
      const [ebx, ecx, edx] = letters('KVMKVMKVM\0\0\0')
      return { eax: kvmBase + 1, ebx, ecx, edx }
    }
    default: return leaf > hypervisorBase && leaf < hypervisorBase + 0x10000 ? nothing : real
  }
}

/** Bytes of an XSAVE area with these components. SDM vol. 1, "Standard Format". */
function xsaveArea(processor: (leaf: number, subleaf: number) => CpuidResult, xcr0: bigint): number {
  let end = legacyArea
  for (let i = 2; xcr0 >> BigInt(i); i++) {
    const { eax, ebx } = (xcr0 >> BigInt(i)) & 1n ? processor(0xd, i) : nothing
    end = Math.max(end, eax + ebx)
  }
  return end
}
