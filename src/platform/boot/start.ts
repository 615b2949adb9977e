/**
 * Puts a boot protocol's starting registers into a CPU that has just been reset. Intel SDM vol. 3, "Processor Management and
 * Initialization".
 */
import { segment } from '../../cpu/layout.ts'
import { writeRflags } from '../../cpu/rflags.ts'
import type { CpuState } from '../../cpu/state.ts'
import type { BootRegisters } from './image.ts'

const protectionEnable = 1n
const extensionType = 0x10n
const paging = 1n << 31n
const physicalAddressExtension = 0x20n
const longModeEnabled = 0x500n

const attributes = {
  real: { code: 0x93, data: 0x93, limit: 0xffff },
  protected32: { code: 0xc09b, data: 0xc093, limit: 0xffffffff },
  long64: { code: 0xa09b, data: 0xc093, limit: 0xffffffff },
}

export function applyBootRegisters(state: CpuState, registers: BootRegisters): void {
  registers.gpr.forEach((value, i) => (state.gpr[i] = value))
  state.rip = BigInt(registers.rip)
  writeRflags(state, registers.rflags)
  state.cr3 = BigInt(registers.cr3)
  state.gdtrBase = BigInt(registers.gdt.base)
  state.gdtrLimit = registers.gdt.limit
  const kind = registers.mode === 'real16' ? attributes.real : attributes[registers.mode]
  for (const name of ['cs', 'ds', 'es', 'ss', 'fs', 'gs'] as const) {
    const number = segment[name]
    const selector = registers.selectors[name]
    state.segSelector[number] = selector
    state.segBase[number] = registers.mode === 'real16' ? BigInt(selector << 4) : 0n
    state.segLimit[number] = kind.limit
    state.segAttributes[number] = name === 'cs' ? kind.code : kind.data
  }
  if (registers.mode === 'real16') return
  // firmware has executed FNINIT: a reset leaves eight registers in use and every exception unmasked
  state.fpControl = 0x37f
  state.fpTags = 0
  state.cr0 = protectionEnable | extensionType | (registers.mode === 'long64' ? paging : 0n)
  if (registers.mode !== 'long64') return
  state.cr4 = physicalAddressExtension
  state.efer = longModeEnabled
}
