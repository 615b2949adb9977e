/** Exits that nobody of the hypervisor's own has answered: as accesses to devices, and in words. */
import { accessOf, writtenValue } from './device-access.ts'
import { stringSource } from './device-operation.ts'
import type { Exit } from './exits.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

/** Beyond the guest's memory there are devices: what its instruction does with one. */
export function asDeviceAccess(vcpu: Vcpu, exit: Extract<Exit, { kind: 'memory' }>, virtualizer: Virtualizer): Exit | 'ready' {
  if (vcpu.guest.memory.contains(exit.address) || exit.access === 'execute') return exit
  const instruction = accessOf(vcpu, virtualizer.instructionBytes(vcpu))
  if (!instruction) return exit
  const { address, raw } = exit
  vcpu.event = undefined
  const { size, string } = instruction
  const writes = string ? exit.access === 'write' : instruction.write
  if (!writes) return { kind: 'mmioRead', address, size, instruction, raw }
  const value = string ? stringSource(vcpu, instruction, virtualizer) : writtenValue(vcpu, instruction)
  return value === undefined ? 'ready' : { kind: 'mmioWrite', address, size, value, instruction, raw }
}

/** For people: an exit that nobody answered. */
export function explainExit(vcpu: Vcpu, exit: Exit, virtualizer: Virtualizer): string {
  const { kind, raw, ...says } = exit
  const facts = Object.entries(says).filter(([, value]) => typeof value !== 'object').map(([name, value]) =>
    `${name} ${show(value)}`).join(', ')
  const vendor = virtualizer.vendor === 'intel' ? `exit reason ${raw.code}, ${raw.name}` : `VMEXIT_${raw.name}`
  const at = vcpu.processor ? ` at RIP 0x${vcpu.get('rip').toString(16)}` : ''
  return `${vcpu.name} stopped${at}: nobody answers its exit '${kind}'${facts ? ` (${facts})` : ''}; the processor calls it ${vendor}`
}

const show = (value: unknown): string => (typeof value === 'number' || typeof value === 'bigint' ? `0x${value.toString(16)}`
  : String(value))
