/** The MSR-load and MSR-store lists of VM entries and exits. Intel SDM vol. 3, "Loading MSRs", "Saving MSRs". */
import { readMsr, writeMsr } from '../../cpu/msr.ts'
import { msrListLimit } from './controls.ts'
import { fields } from './fields.ts'
import type { BrokenRule } from './rule.ts'
import type { VmxUnit } from './unit.ts'

const fsBase = 0xc0000100
const gsBase = 0xc0000101
const smbase = 0x9e
const smmMonitor = 0x9b
const biosUpdate = 0x79
const debugctl = 0x1d9
const isX2apic = (index: number): boolean => index >>> 8 === 8

const p5MachineCheck = [0, 1]

const neverLoaded = new Set([...p5MachineCheck, fsBase, gsBase, smmMonitor, biosUpdate])
const neverStored = new Set([smbase])

/** The lists are the processor's business, not the guest's: no offset of the TSC, no virtual APIC. */
function outsideGuest<Result>(unit: VmxUnit, body: () => Result): Result {
  const { guestMode } = unit.state
  unit.state.guestMode = 0
  const result = body()
  unit.state.guestMode = guestMode
  return result
}

/** Entry by entry; the number of the first that cannot be loaded, counting from 1, or 0. */
export function loadMsrs(unit: VmxUnit, listField: number, count: number): number {
  if (count === 0) return 0
  const list = unit.current.get64(listField)
  for (let i = 0; i < count; i++) {
    const entry = list + BigInt(i * 16)
    const index = unit.readPhysical32(entry) >>> 0
    const reserved = unit.readPhysical32(entry + 4n)
    const value = unit.readPhysical64(entry + 8n)
    if (i >= msrListLimit || reserved !== 0 || neverLoaded.has(index) || isX2apic(index) || !load(unit, index, value)) return i + 1
  }
  return 0
}

/** What an entry of the VM-entry MSR-load list that cannot be loaded (counted from 1) says, for people. */
export function brokenMsr(unit: VmxUnit, number: number): BrokenRule {
  const { current } = unit
  const entry = current.get('entryMsrLoadAddress') + BigInt((number - 1) * 16)
  const what = `MSR 0x${(unit.readPhysical32(entry) >>> 0).toString(16)} := 0x${unit.readPhysical64(entry + 8n).toString(16)}`
  return {
    rule: {
      text: `entry ${number} of the list, ${what}: each must be an MSR that the list may load, with a value that WRMSR takes`,
      section: 'Loading MSRs', fields: ['entryMsrLoadAddress'], holds: () => false,
    },
    values: (['entryMsrLoadAddress', 'entryMsrLoadCount'] as const).map(name =>
      ({ name, value: current.get(name), writer: current.writerOf(fields[name]) })),
    wants: undefined,
  }
}

/** IA32_EFER.LMA and LME follow the VMCS's controls, so they must already be as the list wants them. */
function load(unit: VmxUnit, index: number, value: bigint): boolean {
  if (index === debugctl && value & ~0xffc3n) return false
  return outsideGuest(unit, () => writeMsr(unit.cpu, index, value))
}

/** False: one of them cannot be stored, and the processor aborts. */
export function storeMsrs(unit: VmxUnit, listField: number, count: number): boolean {
  if (count === 0) return true
  const list = unit.current.get64(listField)
  for (let i = 0; i < count; i++) {
    const entry = list + BigInt(i * 16)
    const index = unit.readPhysical32(entry) >>> 0
    if (i >= msrListLimit || unit.readPhysical32(entry + 4n) !== 0 || neverStored.has(index) || isX2apic(index)) return false
    const value = outsideGuest(unit, () => readMsr(unit.cpu, index))
    if (value === undefined) return false
    unit.writePhysical64(entry + 8n, value)
  }
  return true
}
