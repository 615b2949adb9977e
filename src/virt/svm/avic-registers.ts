/**
 * What becomes of a guest's accesses to the registers of its APIC: the table of AVIC and x2AVIC. AMD APM vol. 2, "Virtual APIC Register
 * Accesses", "x2AVIC", "x2APIC Register Address Space".
 */

/** Before the access there is an exit (fault), after it (trap), or none; `accelerated`: the processor does what the write means. */
export type AvicAccess = 'allowed' | 'accelerated' | 'trap' | 'fault'

export interface AvicRegister {
  readonly read: AvicAccess
  readonly write: AvicAccess
  /** As an MSR in x2APIC mode: what can be done with it, and bits that WRMSR may set; the rest is #GP. Absent: there is no such MSR. */
  readonly msr?: { readonly access: 'r' | 'w' | 'rw'; readonly writable: number }
}

const lvt = 0x117ff
const rows: readonly (readonly [offset: number, count: number, row: AvicRegister])[] = [
  [0x020, 1, { read: 'allowed', write: 'trap', msr: { access: 'r', writable: 0 } }],
  [0x030, 1, { read: 'allowed', write: 'fault', msr: { access: 'r', writable: 0 } }],
  [0x080, 1, { read: 'allowed', write: 'accelerated', msr: { access: 'rw', writable: 0xff } }],
  [0x090, 1, { read: 'fault', write: 'fault', msr: { access: 'r', writable: 0 } }],
  [0x0a0, 1, { read: 'allowed', write: 'fault', msr: { access: 'r', writable: 0 } }],
  [0x0b0, 1, { read: 'allowed', write: 'accelerated', msr: { access: 'w', writable: 0 } }],
  [0x0c0, 1, { read: 'allowed', write: 'trap' }],
  [0x0d0, 1, { read: 'allowed', write: 'trap', msr: { access: 'r', writable: 0 } }],
  [0x0e0, 1, { read: 'allowed', write: 'trap' }],
  [0x0f0, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: 0x3ff } }],
  // ISR, TMR, IRR
  [0x100, 24, { read: 'allowed', write: 'fault', msr: { access: 'r', writable: 0 } }],
  [0x280, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: 0 } }],
  [0x300, 1, { read: 'allowed', write: 'accelerated', msr: { access: 'rw', writable: 0xccfff } }],
  [0x310, 1, { read: 'allowed', write: 'allowed' }],
  // local vectors: timer, thermal, performance counters, LINT0, LINT1, error
  [0x320, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: 0x310ff } }],
  [0x330, 2, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: lvt } }],
  [0x350, 2, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: lvt | 0xc000 } }],
  [0x370, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: lvt } }],
  [0x380, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: -1 } }],
  [0x390, 1, { read: 'fault', write: 'fault', msr: { access: 'r', writable: 0 } }],
  [0x3e0, 1, { read: 'allowed', write: 'trap', msr: { access: 'rw', writable: 0xb } }],
  // self IPI: there is none but the MSR
  [0x3f0, 1, { read: 'allowed', write: 'allowed', msr: { access: 'w', writable: 0xff } }],
  // the extended register space
  [0x400, 3, { read: 'fault', write: 'fault', msr: { access: 'rw', writable: -1 } }],
  [0x480, 8, { read: 'fault', write: 'fault', msr: { access: 'rw', writable: -1 } }],
  [0x500, 8, { read: 'fault', write: 'fault', msr: { access: 'rw', writable: -1 } }],
  [0x580, 168, { read: 'fault', write: 'fault' }],
]

/** What the table does not name is memory of the backing page. */
const elsewhere: AvicRegister = { read: 'allowed', write: 'allowed' }
const byNumber: readonly AvicRegister[] = Array.from({ length: 256 }, (_, number) =>
  rows.find(([offset, count]) => number >= offset >> 4 && number < (offset >> 4) + count)?.[2] ?? elsewhere)

/** `offset`: anywhere in the register's 16 bytes. */
export const avicRegister = (offset: number): AvicRegister => byNumber[(offset >> 4) & 0xff]
