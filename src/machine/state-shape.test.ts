/** A saved machine that was edited by hand: a field of the wrong kind is refused in one line, whichever device has it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineOptions, MachineState } from '../api.ts'
import { MemoryStore } from '../devices/testing/memory-store.ts'
import { MemoryFolder } from '../devices/virtio/p9/testing.ts'
import { InputError } from '../errors.ts'
import { helloGuest } from '../guests/hello.ts'
import { createMachine } from '../machine.ts'
import { deviceCatalogue } from '../platform/device-catalogue.ts'
import { expectKept, expectKind } from './state-shape.ts'

const device = (name: string, properties: Record<string, string> = {}): { name: string; properties: Record<string, string> } =>
  ({ name, properties })
const drives = ['a', 'b', 'c', 'd', 'e', 'f'].map(id =>
  ({ id, format: 'raw' as const, snapshot: true, readOnly: id === 'd' || id === 'f', store: new MemoryStore(new Uint8Array(1 << 16)) }))
const options: MachineOptions = {
  memory: 4 << 20, raw: { image: Uint8Array.of(0xf4), at: 0x1000, mode: 'real16' }, cpus: 2, chipset: 'q35',
  iommus: [{ model: 'vtd', properties: {} }],
  networks: [{ id: 'n', kind: 'user' }, { id: 'm', kind: 'link' }], drives, shares: [{ id: 's', folder: new MemoryFolder() }],
  devices: [
    device('pci-testdev'), device('edu'), device('virtio-rng-pci'), device('virtio-console-pci'), device('VGA'),
    device('virtio-blk-pci', { drive: 'a' }), device('nvme', { drive: 'b', serial: 'x' }), device('ide-hd', { drive: 'c' }),
    device('ide-cd', { drive: 'd' }), device('virtio-net-pci', { netdev: 'n' }), device('e1000', { netdev: 'm' }),
    device('virtio-scsi-pci'), device('scsi-hd', { drive: 'e' }), device('scsi-cd', { drive: 'f' }),
    device('pc-testdev'), device('virtio-9p-pci', { fsdev: 's', mount_tag: 'tag' }),
    device('pcie-root-port', { id: 'port' }), device('pci-bridge', { id: 'bridge' }),
  ],
}

/** Everything in a state that has one kind, with what could stand there instead: after a power-on only what is empty has none. */
interface Place {
  where: string
  holder: Record<string, unknown>
  key: string
  instead: readonly unknown[]
}
const insteadOf = (value: unknown): readonly unknown[] => {
  if (typeof value === 'number') return ['7', null, undefined, NaN, true, []]
  if (typeof value === 'boolean') return ['true', null, undefined, 1]
  if (typeof value === 'string') return [7, null, undefined, ...(/^\d+$/.test(value) ? ['seven'] : [])]
  if (Array.isArray(value)) return [null, undefined, {}, 'none', ...(value.length > 0 && !Array.isArray(value[0]) ? [value.slice(1)] : [])]
  return [null, undefined, [], 'none']
}
function* places(value: object, where: string): Generator<Place> {
  for (const [key, each] of Object.entries(value) as [string, unknown][]) {
    if (each === null || each === undefined) continue
    yield { where: `${where}.${key}`, holder: value as Record<string, unknown>, key, instead: insteadOf(each) }
    const isOpen = each instanceof Uint8Array || (Array.isArray(each) && Array.isArray(each[0])) || key === 'alarms'
    if (typeof each === 'object' && !isOpen) yield* places(each, `${where}.${key}`)
  }
}

test('every device is among them', () => {
  const absent = deviceCatalogue.map(({ name }) => name).filter(name => !options.devices!.some(each => each.name === name))
  assert.deepEqual(absent, ['isa-debug-exit', 'isa-debugcon'], 'these two have no state')
})

test('every field of every device, of another kind or not there', () => {
  const machine = createMachine(options)
  const { devices, clock, cpus, turns, ...rest } = machine.saveState()
  const edited = structuredClone({ devices, clock, cpus, turns })
  const restore = (): void => machine.restoreState({ ...rest, ...edited } as MachineState)
  restore()
  const hash = machine.stateHash()
  const all = [...places(edited, 'state')]
  const names = new Set(all.map(({ where }) => where.split('.').slice(0, 5).join('.')))
  assert.ok(all.length > 2000 && names.size > 40, `${all.length} fields, ${names.size} parts`)
  let seed = 9
  const seen = new Map<string, number>()
  let tried = 0
  for (const { where, holder, key, instead } of all) {
    // of a list of registers one is enough
    const like = where.replace(/\.\d+$/, '.n')
    seen.set(like, (seen.get(like) ?? 0) + 1)
    if (seen.get(like)! > 1) continue
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    const value = instead[(seed >>> 16) % instead.length]
    const old = holder[key]
    holder[key] = value
    assert.throws(restore, (error: Error) => error instanceof InputError && /^the saved machine is damaged: [^\n]+$/.test(error.message),
      `${where}: ${String(value)}`)
    holder[key] = old
    tried++
  }
  assert.ok(tried > 500, `${tried}`)
  restore()
  assert.equal(machine.stateHash(), hash)
})

test('what has no kind after a reset has to be of one kind in itself', () => {
  expectKind({ at: 5, queue: [[1, 2], [3, 4]] }, { at: null, queue: [] }, 'x')
  assert.throws(() => expectKind([[1, 2], [3, '4']], [], 'x'), /x\[1\]\[1\]: expected a number, found a string, "4"/)
  assert.throws(() => expectKind([1, 2], [1, 2, 3], 'x'), /x: expected a list of 3, found one of 2$/)
  expectKept({ level: 1, list: [1, 2] }, { level: 2, list: [1] }, 'x')
  assert.throws(() => expectKept({ level: '1' }, { level: 1 }, 'x'), /x\.level: expected a number, found a string, "1"/)
})

test('a state of another machine says which option differs, and how', () => {
  const state = createMachine({ memory: 2 << 20, raw: helloGuest }).saveState()
  const refusedBy = (options: MachineOptions, message: RegExp, saved = state): void =>
    assert.throws(() => createMachine(options).restoreState(saved), { name: 'InputError', message })
  refusedBy({ memory: 3 << 20, raw: helloGuest }, /^the saved state is of another machine: memory: expected 2097152, found 3145728$/)
  refusedBy({ memory: 2 << 20, raw: helloGuest, cpu: { model: 'amd' } }, /machine: cpu: expected none, found {"model":"amd"}$/)
  refusedBy({ memory: 2 << 20 }, /machine: .*expected the options/, { ...state, configuration: 'x' })
})
