/** Imports point one way, as the order of folders in the design says. */
import assert from 'node:assert/strict'
import { builtinModules } from 'node:module'
import { test } from 'node:test'
import { files, folderOf, importsOf, isTest, read, sources } from './repository.ts'

/**
 * What each folder of src may import besides itself; the files of `vocabulary` are open to all.
 * A new row or word here is a decision about the design: say why in ARCHITECTURE.md.
 */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  wasm: [],
  float: [],
  cpu: [],
  memory: [],
  // Rows name their helpers.
  isa: ['wasm', 'cpu', 'memory', 'helpers'],
  decode: ['isa', 'cpu'],
  helpers: ['cpu', 'float'],
  mmu: ['memory', 'cpu'],
  // What a world switch copies is generated code.
  virt: ['mmu', 'memory', 'cpu', 'wasm'],
  engine: ['wasm', 'isa', 'decode', 'cpu', 'memory', 'mmu', 'helpers', 'virt'],
  devices: [],
  interrupts: [],
  // Networks on the other side of a cable: they see ports, as devices do.
  net: [],
  iommu: [],
  platform: ['cpu', 'devices', 'interrupts', 'iommu', 'memory', 'net'],
  // Software on the machine: see the test below.
  vmm: ['cpu', 'virt', 'devices', 'interrupts', 'iommu', 'platform'],
  insight: ['cpu', 'virt', 'memory', 'mmu'],
  guests: [],
  bench: ['cpu'],
  // The thread that compiles is made of the engine's own code.
  embedder: ['bench', 'cli', 'cpu', 'net', 'platform', 'machine', 'insight', 'vmm', 'engine', 'memory'],
  cli: ['bench', 'embedder', 'cpu', 'platform', 'insight', 'vmm', 'guests'],
  web: ['embedder', 'platform', 'insight', 'vmm', 'guests'],
  // bare-machine.ts puts the parts together.
  machine: ['cpu', 'devices', 'engine', 'insight', 'interrupts', 'memory', 'mmu', 'platform', 'virt'],
  // Files of src itself.
  '': ['cpu', 'devices', 'engine', 'guests', 'insight', 'machine', 'net', 'platform', 'vmm'],
}

const vocabulary = ['src/api.ts', 'src/errors.ts', 'src/devices/ports.ts', 'src/devices/ticks.ts']
/** Packages by the folder that may use them. */
const packages: Readonly<Record<string, readonly string[]>> = {
  commander: ['cli'],
  '#iced-x86': ['insight'],
  // Its types; it is loaded by the embedder.
  'iced-x86': ['insight', 'embedder'],
  '@noble/hashes': ['machine'],
  fflate: ['devices'],
}

const ours = sources.filter(file => file.startsWith('src/') && !isTest(file))

test('imports between folders go in the direction of the table', () => {
  const wrong: string[] = []
  for (const file of ours) {
    const from = folderOf(file)
    for (const target of importsOf(file).filter(name => name.startsWith('src/') && !vocabulary.includes(name))) {
      const to = ['src/machine.ts', 'src/hypervisor.ts'].includes(target) ? 'machine' : folderOf(target)
      if (to !== from && !mayImport[from]?.includes(to)) wrong.push(`${file} imports ${target}`)
    }
  }
  assert.deepEqual(wrong, [])
})

/** Boards of guests are made of the devices that machines are made of: they see ports, whoever is behind them. */
const isBoard = (file: string, name: string): boolean =>
  /^src\/vmm\/(board|apic)\//.test(file) && /^src\/(platform|devices|interrupts)\//.test(name)
/** Processors that help with an APIC share its vectors with it. */
const isApic = (file: string, name: string): boolean => /^src\/vmm\/(intel|amd)\/virtual-/.test(file) && name.startsWith('src/interrupts/')

test('the hypervisor sees the machine only through its port, and tables of names', () => {
  const tables = ['src/virt/vmx/fields.ts', 'src/virt/vmx/controls.ts', 'src/virt/vmx/exit-reasons.ts', 'src/virt/svm/vmcb.ts',
    'src/virt/svm/exit-codes.ts', 'src/cpu/intercepts.ts', 'src/iommu/registers.ts', 'src/iommu/fault-reasons.ts']
  const wrong = ours.filter(file => file.startsWith('src/vmm/')).flatMap(file =>
    importsOf(file).filter(name => !name.startsWith('src/vmm/') && !isBoard(file, name) && !isApic(file, name)
      && ![...vocabulary, ...tables].includes(name)).map(name =>
      `${file}: ${name}`))
  assert.deepEqual(wrong, [])
})

test('every folder of src is in the table', () => {
  const folders = new Set(ours.map(folderOf))
  assert.deepEqual([...folders].filter(folder => !(folder in mayImport)), [])
})

test('only the embedder touches Node', () => {
  const isNode = (name: string): boolean => name.startsWith('node:') || builtinModules.includes(name)
  const wrong = ours.filter(file => !file.startsWith('src/embedder/node/') && importsOf(file).some(isNode))
  assert.deepEqual(wrong, [])
})

test('nothing else reads a clock, a random source or the process', () => {
  const ambient = /\b(Date\.now|new Date\(\)|Math\.random|performance\.now|getRandomValues|process\.(env|stdin|stdout|argv|hrtime))\b/
  const code = (file: string): string => read(file).replace(/\/\*[^]*?\*\/|\/\/.*$/gm, '')
  const wrong = ours.filter(file => !file.startsWith('src/embedder/')).flatMap(file => {
    const found = ambient.exec(code(file))
    return found ? [`${file}: ${found[0]}`] : []
  })
  assert.deepEqual(wrong, [])
})

test('packages are used where the table says', () => {
  const wrong: string[] = []
  for (const file of ours) {
    for (const name of importsOf(file).filter(each => !each.startsWith('src/') && !each.startsWith('node:'))) {
      const base = name.startsWith('@') ? name.split('/').slice(0, 2).join('/') : name.split('/')[0]
      if (!packages[base]?.includes(folderOf(file))) wrong.push(`${file} imports ${name}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('every import of ours exists, with its extension', () => {
  const missing = (name: string): boolean => /^(src|test|tools)\//.test(name) && !files.includes(name)
  const wrong = sources.flatMap(file => importsOf(file).filter(missing).map(name => `${file}: ${name}`))
  assert.deepEqual(wrong, [])
})

/** What runs when a file is loaded: all that it imports but types and what it loads later. */
function loadedWith(file: string): Set<string> {
  const found = new Set([file])
  for (const each of found) {
    if (!each.startsWith('src/')) continue
    const code = read(each).replace(/^(import|export) type [^'`;]*? from '[^']+'$/gm, '').replace(/\bimport\('[^']+'\)/g, '')
    for (const name of importsOf(each, code)) found.add(name)
  }
  return found
}

test('a plain machine starts without what only few have', () => {
  const few = /^src\/(iommu|net|virt\/svm\/(?!instructions)|devices\/(ahci|e1000|edu|nvme|vga|virtio|storage\/(drive|qcow2)))|^fflate$/
  const starts = ['src/embedder/node/main.ts', 'src/cli/main.ts', 'src/cli/run.ts', 'src/platform/device-catalogue.ts',
    'src/machine/bare-machine.ts']
  const wrong = starts.flatMap(file => [...loadedWith(file)].filter(name => few.test(name)).map(name => `${file} loads ${name}`))
  assert.deepEqual(wrong, [])
  assert.ok([...loadedWith('src/machine.ts')].filter(name => few.test(name)).length > 80)
})
