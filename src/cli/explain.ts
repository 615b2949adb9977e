/** `vitrine explain`: why a VM entry with a VMCS or VMCB from a file would fail. */
import { Command } from 'commander'
import { createModel } from '../cpu/models.ts'
import { InputError } from '../errors.ts'
import { explainFile } from '../insight/explain.ts'
import { nameFinder } from '../insight/guest-events.ts'
import { readSymbols } from '../insight/symbols.ts'
import type { System } from './system.ts'

interface ExplainFlags {
  cpu?: string
  symbols?: string
}

const formats = `FILE is one of
  4096 bytes of a VMCS region of Vitrine's (GDB: dump binary memory FILE ADDRESS ADDRESS+4096), or of a VMCB
  lines of FIELD = VALUE, hexadecimal; FIELD as --explain names it ("guest CS access rights"), or an encoding (0x4816)
  what KVM logs when an entry fails (dump_vmcs), or Xen's debug key v shows

Where a region of Vitrine's has what: dword 0 the revision identifier 16495452h, dword 1 the VMX-abort indicator, dword 2 the launch
state, then from byte 64 on 8 bytes a field, in the order of src/virt/vmx/fields.ts.
`

export function explainCommand(system: System): Command {
  return new Command('explain')
    .description('say which rules of VM entry or VMRUN a VMCS or VMCB in a file breaks, and what would do')
    .argument('<file>', 'a dump: see below')
    .option('--cpu <model>', 'the processor whose capabilities count (default: intel or amd)')
    .option('--symbols <file>', 'names of the addresses of code: System.map, /proc/kallsyms, or an ELF file')
    .addHelpText('after', `\n${formats}`)
    .action((file: string, { cpu, symbols }: ExplainFlags) => {
      const nameOf = nameFinder(symbols === undefined ? undefined : readSymbols(system.readFile(symbols), symbols))
      const model = (vendor: 'intel' | 'amd'): ReturnType<typeof createModel> => {
        try {
          return createModel(cpu ?? vendor)
        } catch (error) {
          throw new InputError((error as Error).message)
        }
      }
      system.print(explainFile(system.readFile(file), file, model, nameOf).text)
    })
}
