/**
 * What WRMSR would accept, for checks of VM entry. Intel SDM vol. 3, "Memory Type Range Registers: Page Attribute Table"; vol.
 * 4, IA32_EFER.
 */
import { isCetControl } from '../../cpu/control-flow.ts'
import type { CpuModel } from '../../cpu/model.ts'
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'
import type { Rule, section } from './rule.ts'

export const efer = { SCE: 1n, LME: 1n << 8n, LMA: 1n << 10n, NXE: 1n << 11n, longBits: (1n << 8n) | (1n << 10n) } as const

export function isPat(value: bigint): boolean {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = (value >> i) & 0xffn
    if (type > 7n || type === 2n || type === 3n) return false
  }
  return true
}

export function reservedEfer(model: CpuModel): bigint {
  let known = 0n
  if (model.has('syscall')) known |= efer.SCE
  if (model.has('lm')) known |= efer.longBits
  if (model.has('nx')) known |= efer.NXE
  return 0xffff_ffff_ffff_ffffn & ~known
}

/** Bits of IA32_DEBUGCTL that are reserved. */
export const reservedDebugctl = 0xffff_ffff_ffff_ffffn & ~0xffc3n

/** Fields with CET state of one side, and when they are loaded. `long`: 64-bit addresses are possible there. */
export interface CetFields {
  readonly loads: (v: EntryView) => boolean
  /** A write that turns loading on. */
  readonly load: NonNullable<Rule['breaks']>[number]
  readonly long: (v: EntryView) => boolean
  readonly control: FieldName
  readonly pointer: FieldName
  readonly table: FieldName
  readonly cr0: FieldName
  readonly cr4: FieldName
}
const wp = 1n << 16n
const cet = 1n << 23n

/** The same for guest and host. */
export function cetRules(make: ReturnType<typeof section>, names: CetFields): readonly Rule[] {
  const { loads, long, control, pointer, table, cr0, cr4 } = names
  const fits = (v: EntryView, name: FieldName): boolean => (long(v) ? v.canonical(v.b(name)) : v.b(name) >> 32n === 0n)
  const options = (field: FieldName, wrong: bigint): Pick<Rule, 'when' | 'wants' | 'breaks'> =>
    ({ when: loads, wants: () => 0n, breaks: [names.load, [field, wrong]] })
  return [
    make('CR4.CET = 1 needs CR0.WP = 1', [cr0, cr4], v => (v.b(cr0) & wp) !== 0n,
      { when: v => (v.b(cr4) & cet) !== 0n, wants: v => v.b(cr0) | wp, breaks: [[cr4, old => old | cet], [cr0, old => old & ~wp]] }),
    make('IA32_S_CET is canonical (bits 63:32 are 0 outside of IA-32e mode)', control, v => fits(v, control), options(control, 1n << 63n)),
    make('bits 9:6 of IA32_S_CET are 0, and TRACKER (11) and SUPPRESS (10) are not both 1', control,
      v => isCetControl(v.b(control), true), options(control, 0x40n)),
    make('bits 1:0 of SSP are 0', pointer, v => (v.b(pointer) & 3n) === 0n, options(pointer, 2n)),
    make('SSP is canonical (bits 63:32 are 0 outside of IA-32e mode)', pointer, v => fits(v, pointer), options(pointer, 1n << 63n)),
    make('IA32_INTERRUPT_SSP_TABLE_ADDR is canonical', table, v => v.canonical(v.b(table)), options(table, 1n << 63n)),
  ]
}
