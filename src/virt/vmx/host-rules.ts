/** Checks on the host-state area. Intel SDM vol. 3, "Checks on Host Control Registers, MSRs, and SSP" and those after it. Error 8. */
import { exitBit as exit, cr0Fixed0, cr4Fixed0 } from './controls.ts'
import { globalControlBits } from '../../cpu/pmu-intel.ts'
import type { EntryView } from './entry-view.ts'
import type { FieldName } from './fields.ts'
import { cetRules, isPat, reservedEfer, efer } from './register-rules.ts'
import { section, type Rule } from './rule.ts'

const registers = section('Checks on Host Control Registers, MSRs, and SSP')
const segments = section('Checks on Host Segment and Descriptor-Table Registers')
const size = section('Checks Related to Address-Space Size')

const pcide = 1n << 17n
const pae = 1n << 5n
const nonCanonical = 0x8000_0000_0000_0000n
const canonical = (make: typeof registers, field: FieldName): Rule =>
  make('the address is canonical', field, v => v.canonical(v.b(field)), { wants: () => 0n, breaks: [[field, nonCanonical]] })

/** RPL and TI must be 0: the exit loads selectors without looking at descriptors. */
const selector = (name: string, field: FieldName): Rule =>
  segments(`in the host ${name} selector RPL (bits 1:0) and TI (bit 2) are 0`, field, v => (v.n(field) & 7) === 0,
    { wants: v => BigInt(v.n(field) & ~7), breaks: [[field, old => old | 3n]] })
const loadsEfer = (v: EntryView): boolean => (v.exit & exit.loadEfer) !== 0

export const hostRules: readonly Rule[] = [
  registers('CR0 has the bits that VMX operation fixes to 1 and none that it fixes to 0', 'hostCr0', v =>
    (v.b('hostCr0') & cr0Fixed0) === cr0Fixed0
    && v.b('hostCr0') >> 32n === 0n, { wants: v => (v.b('hostCr0') | cr0Fixed0) & 0xffffffffn, breaks: [['hostCr0', old => old & ~1n]] }),
  registers('CR4 has the bits that VMX operation fixes to 1 and none that it fixes to 0', 'hostCr4', v =>
    (v.b('hostCr4') & cr4Fixed0) === cr4Fixed0
    && (v.b('hostCr4') & ~v.cr4Writable) === 0n, { wants: v => (v.b('hostCr4') | cr4Fixed0) & v.cr4Writable,
      breaks: [['hostCr4', old => old & ~0x2000n]] }),
  registers('CR3 has no bit beyond the physical-address width', 'hostCr3', v => v.physical(v.b('hostCr3')),
    { wants: v => v.b('hostCr3') & ((1n << BigInt(v.model.physicalBits)) - 1n), breaks: [['hostCr3', old => old | (1n << 62n)]] }),
  canonical(registers, 'hostSysenterEsp'),
  canonical(registers, 'hostSysenterEip'),
  registers('each byte of IA32_PAT is a memory type', 'hostPat', v => isPat(v.b('hostPat')),
    { when: v => (v.exit & exit.loadPat) !== 0, wants: () => 0x0007040600070406n,
      breaks: [['exitControls', old => old | 0x80000n], ['hostPat', 2n]] }),
  registers('reserved bits of IA32_PERF_GLOBAL_CTRL are 0', 'hostPerfGlobalCtrl', v =>
    (v.b('hostPerfGlobalCtrl') & ~globalControlBits(v.model.counters)) === 0n,
    { when: v => (v.exit & exit.loadPerfGlobalCtrl) !== 0, wants: v => v.b('hostPerfGlobalCtrl') & globalControlBits(v.model.counters),
      breaks: [['exitControls', old => old | 0x1000n], ['hostPerfGlobalCtrl', 1n << 63n]] }),
  registers('reserved bits of IA32_EFER are 0', 'hostEfer', v => (v.b('hostEfer') & reservedEfer(v.model)) === 0n,
    { when: loadsEfer, wants: v => v.b('hostEfer') & ~reservedEfer(v.model),
      breaks: [['exitControls', old => old | 0x200000n], ['hostEfer', 0x502n]] }),
  registers('LMA and LME of IA32_EFER are each as "host address-space size"', ['hostEfer', 'exitControls'],
    v => (v.b('hostEfer') & efer.longBits) === (v.host64 ? efer.longBits : 0n),
    { when: loadsEfer, wants: v => (v.b('hostEfer') & ~efer.longBits) | (v.host64 ? efer.longBits : 0n),
      breaks: [['exitControls', old => old | 0x200000n], ['hostEfer', 0n]] }),
  registers('bits 63:32 of IA32_PKRS are 0', 'hostPkrs', v => v.b('hostPkrs') >> 32n === 0n,
    { when: v => (v.exit & exit.loadPkrs) !== 0, wants: v => v.b('hostPkrs') & 0xffffffffn }),
  ...cetRules(registers, { loads: v => (v.exit & exit.loadCet) !== 0, load: ['exitControls', old => old | 0x10000000n],
    long: v => v.host64, control: 'hostSCet', pointer: 'hostSsp',
    table: 'hostSspTable', cr0: 'hostCr0', cr4: 'hostCr4' }),

  selector('ES', 'hostEsSelector'), selector('CS', 'hostCsSelector'), selector('SS', 'hostSsSelector'), selector('DS', 'hostDsSelector'),
  selector('FS', 'hostFsSelector'), selector('GS', 'hostGsSelector'), selector('TR', 'hostTrSelector'),
  segments('the host CS selector is not 0', 'hostCsSelector', v => v.n('hostCsSelector') !== 0,
    { wants: () => 8n, breaks: [['hostCsSelector', 0n]] }),
  segments('the host TR selector is not 0', 'hostTrSelector', v => v.n('hostTrSelector') !== 0,
    { wants: () => 0x40n, breaks: [['hostTrSelector', 0n]] }),
  segments('the host SS selector is not 0 for a 32-bit host', ['hostSsSelector', 'exitControls'], v => v.n('hostSsSelector') !== 0,
    { when: v => !v.host64, wants: () => 0x10n }),
  canonical(segments, 'hostFsBase'), canonical(segments, 'hostGsBase'), canonical(segments, 'hostGdtrBase'),
  canonical(segments, 'hostIdtrBase'), canonical(segments, 'hostTrBase'),

  size('outside IA-32e mode "IA-32e mode guest" is 0', 'entryControls', v => !v.guest64,
    { when: v => !v.hostIsLong, wants: v => v.b('entryControls') & ~0x200n }),
  size('outside IA-32e mode "host address-space size" is 0', 'exitControls', v => !v.host64,
    { when: v => !v.hostIsLong, wants: v => v.b('exitControls') & ~0x200n }),
  size('in IA-32e mode "host address-space size" is 1', 'exitControls', v => v.host64,
    { when: v => v.hostIsLong, wants: v => v.b('exitControls') | 0x200n, breaks: [['exitControls', old => old & ~0x200n]] }),
  size('for a 32-bit host "IA-32e mode guest" is 0', ['entryControls', 'exitControls'], v => !v.guest64,
    { when: v => !v.host64, wants: v => v.b('entryControls') & ~0x200n }),
  size('for a 32-bit host CR4.PCIDE is 0', 'hostCr4', v => (v.b('hostCr4') & pcide) === 0n,
    { when: v => !v.host64, wants: v => v.b('hostCr4') & ~pcide }),
  size('for a 32-bit host bits 63:32 of RIP are 0', 'hostRip', v => v.b('hostRip') >> 32n === 0n, { when: v => !v.host64 }),
  size('for a 64-bit host CR4.PAE is 1', 'hostCr4', v => (v.b('hostCr4') & pae) !== 0n,
    { when: v => v.host64, wants: v => v.b('hostCr4') | pae, breaks: [['hostCr4', old => old & ~0x20n]] }),
  size('for a 64-bit host RIP is canonical', 'hostRip', v => v.canonical(v.b('hostRip')),
    { when: v => v.host64, breaks: [['hostRip', nonCanonical]] }),
]
