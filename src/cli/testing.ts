/** A system in memory for tests of the command lines: files, what was printed, and the request that a run was given. */
import type { SharedFolder } from '../api.ts'
import { createModel, describeModel, modelNames } from '../cpu/models.ts'
import { InputError } from '../errors.ts'
import { commandLine } from './main.ts'
import type { BenchRequest, Catalogue, RunRequest, RunResult, System } from './system.ts'

export const catalogue: Catalogue = {
  cpuModels: modelNames.map(name => ({ name, description: `model ${name}` })),
  cpuFeatures: ['pku', 'avx512f'],
  cpuFeaturesNotImplemented: ['avx512f'],
  devices: [
    { name: 'isa-debug-exit', description: 'ends the run', bus: 'ISA', properties: { iobase: '0x501', iosize: '0x2' } },
    { name: 'isa-debugcon', description: 'a port', bus: 'ISA', properties: { iobase: '0xe9' } },
    { name: 'pc-testdev', description: 'test device', bus: 'ISA' },
    { name: 'pci-testdev', description: 'test device', bus: 'PCI' },
    { name: 'VGA', description: 'a screen', bus: 'PCI' },
    { name: 'virtio-9p-pci', description: 'a folder', bus: 'PCI' },
    ...['virtio-blk-pci', 'virtio-net-pci', 'virtio-rng-pci', 'virtio-console-pci', 'ide-hd', 'ide-cd', 'virtio-scsi-pci', 'scsi-hd',
      'e1000', 'edu', 'pcie-root-port'].map(name => ({ name, description: `device ${name}`, bus: 'PCI' })),
  ],
  checkCpu: createModel,
  describeCpu: describeModel,
}

export const ended = (ending: RunResult['ending'], more: Partial<RunResult> = {}): RunResult => ({
  ending, instructions: 1000, virtualNanoseconds: 2000, wallSeconds: 0.5,
  resources: { touchedMemory: 1, residentMemory: 2, cpuSeconds: 3 }, console: '', panic: undefined, picture: undefined, ...more,
})

export interface Outcome {
  status: number
  output: string
  errors: string
  request: RunRequest | undefined
  bench?: BenchRequest
  /** Files written, by path. */
  written: Record<string, string>
  /** Images opened, by path. */
  opened: string[]
}

/** Besides `kernel` and `initrd` the one file that exists: firmware, where it is looked for. */
const firmware = '/usr/share/qemu/bios-256k.bin'

function readFile(path: string): Uint8Array {
  if (!['kernel', 'initrd', firmware].includes(path)) throw new InputError(`cannot read '${path}': no such file`)
  return new TextEncoder().encode(path)
}

export async function command(args: string[], result: RunResult | Error = ended({ kind: 'power-off' })): Promise<Outcome> {
  const outcome: Outcome = { status: 0, output: '', errors: '', request: undefined, written: {}, opened: [] }
  const system: System = {
    version: '1.2.3',
    print(text) { outcome.output += text },
    printError(text) { outcome.errors += text },
    catalogue: async () => catalogue,
    readFile,
    readForRun: readFile,
    openStore(path, readOnly) {
      outcome.opened.push(path)
      if (!path.startsWith('disk')) throw new InputError(`cannot open '${path}': no such file`)
      return { byteLength: 1024, readOnly, read: () => 'ok', write: () => 'ok', flush: () => 'ok' }
    },
    openFatFolder(path) {
      if (!path.startsWith('folder')) throw new InputError(`cannot make a disk of the folder '${path}': no such file`)
      return { byteLength: 2048, readOnly: true, read: () => 'ok', write: () => 'error', flush: () => 'ok' }
    },
    openFolder(path, readOnly) {
      if (!path.startsWith('folder')) throw new InputError(`cannot share '${path}': no such folder`)
      return { readOnly } as SharedFolder
    },
    writeFile(path, text) { outcome.written[path] = text },
    now: () => 1_800_000_000,
    processId: 4242,
    pathBeside: (_path, name) => name,
    async runGuests() { throw new Error('this test has no guests') },
    async hypervisor() { throw new Error('this test has no hypervisor') },
    async bench(request) { outcome.bench = request },
    async run(request) {
      outcome.request = request
      if (result instanceof Error) throw result
      return result
    },
  }
  outcome.status = await commandLine(args, system)
  return outcome
}
