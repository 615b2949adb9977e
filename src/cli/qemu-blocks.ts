/**
 * `-blockdev`: images as QEMU's graph of block nodes, of which a device's `drive` names the top one (QEMU documentation, "Block device
 * options"; QMP reference, BlockdevOptions). A format node (raw, qcow2) lies on a node of a file, named or written inside it.
 */
import type { BlockStore, DriveOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import { keysOfValue, membersOf, type Keys } from './qemu-json.ts'
import type { System } from './system.ts'

export type BlockNodes = ReadonlyMap<string, Keys>

/** About how QEMU uses its files, or what it may leave out: accepted, and without effect. */
const ofAll = [
  'driver', 'node-name', 'read-only', 'auto-read-only', 'discard', 'detect-zeroes', 'force-share', 'cache.direct', 'cache.no-flush',
]
const ofQcow2 = [
  'lazy-refcounts', 'pass-discard-request', 'pass-discard-snapshot', 'pass-discard-other', 'discard-no-unref', 'overlap-check',
  'cache-size', 'l2-cache-size', 'l2-cache-entry-size', 'refcount-cache-size', 'cache-clean-interval',
]
const ofFiles = ['filename', 'aio', 'aio-max-batch', 'locking', 'drop-cache', 'x-check-cache-dropped', 'pr-manager']
/** The first key is the one that each needs. */
const drivers: Readonly<Record<string, readonly string[]>> = {
  raw: ['file'], qcow2: ['file', 'backing', ...ofQcow2], file: ofFiles, vvfat: ['dir', 'rw', 'fat-type', 'floppy', 'label'],
}

/** A node and those that are written inside it, checked. Throws an InputError in QEMU's words. */
export function addBlockNode(nodes: Map<string, Keys>, text: string): void {
  const keys = keysOfValue(text, 'driver')
  const name = keys['node-name']
  if (!name) throw new InputError("'node-name' must be specified for the root node")
  if (nodes.has(name)) throw new InputError(`Duplicate nodes with node-name='${name}'`)
  check(keys)
  nodes.set(name, keys)
}

function check(keys: Keys): void {
  const { driver = '' } = keys
  if (!Object.hasOwn(drivers, driver)) {
    throw new InputError(`the driver '${driver}' is not offered, expected ${Object.keys(drivers).join(', ')}`)
  }
  const known = [...ofAll, ...drivers[driver]]
  const inner = ['file', 'backing'].filter(name => known.includes(name))
  for (const key of Object.keys(keys)) {
    if (inner.some(name => key.startsWith(`${name}.`)) || known.includes(key)) continue
    throw new InputError(`Parameter '${key}' is unexpected for the driver '${driver}'; the nearest is '${nearest(key, known)}'`)
  }
  for (const name of inner) {
    const members = membersOf(keys, name)
    if (Object.keys(members).length > 0) check(members)
  }
  const [needed] = drivers[driver]
  if (!Object.keys(keys).some(key => key.split('.')[0] === needed)) throw new InputError(`Parameter '${needed}' is missing`)
}

/** The drive whose top node has this name. */
export function blockDrive(name: string, nodes: BlockNodes, snapshot: boolean, system: System): DriveOptions {
  const top = nodes.get(name)!
  const bottom = bottomOf(top, nodes)
  const readOnly = [top, bottom].some(keys => keys['read-only'] === 'on')
  if (bottom.driver === 'vvfat') {
    if (top.driver === 'qcow2') throw new InputError(`-blockdev ${name}: expected raw on vvfat, found qcow2`)
    const store = system.openFatFolder(bottom.dir)
    return { id: name, store, snapshot: bottom.rw === 'on', readOnly: bottom.rw !== 'on' }
  }
  return {
    id: name, name: bottom.filename, snapshot, readOnly,
    store: system.openStore(bottom.filename, readOnly || snapshot),
    format: top.driver === 'qcow2' ? 'qcow2' : 'raw',
    openBacking: backingOf(top, bottom, nodes, system),
  }
}

/** The node of a file: the node itself, or the one it lies on. */
function bottomOf(keys: Keys, nodes: BlockNodes): Keys {
  if (!drivers[keys.driver].includes('file')) return keys
  const below = childOf(keys, 'file', nodes)!
  if (drivers[below.driver].includes('file') && keys.driver !== 'raw') {
    throw new InputError(`-blockdev ${keys['node-name']}: expected a file below ${keys.driver}, found ${below.driver}`)
  }
  if (drivers[below.driver].includes('file')) throw new InputError(`-blockdev ${keys['node-name']}: images within images are not offered`)
  return below
}

function childOf(keys: Keys, role: 'file' | 'backing', nodes: BlockNodes): Keys | undefined {
  const name = keys[role] === '' ? undefined : keys[role]
  if (name === undefined) {
    const members = membersOf(keys, role)
    return Object.keys(members).length === 0 ? undefined : members
  }
  const found = nodes.get(name)
  if (!found) throw new InputError(`-blockdev ${keys['node-name'] ?? role}: Cannot find device='' nor node-name='${name}'`)
  return found
}

/** Nodes may say themselves what an image is based on; otherwise its header does, by a path beside the file. */
function backingOf(top: Keys, bottom: Keys, nodes: BlockNodes, system: System): (name: string) => BlockStore {
  const files: string[] = []
  for (let each = childOf(top, 'backing', nodes); each; each = childOf(each, 'backing', nodes)) {
    if (files.length > nodes.size) throw new InputError(`-blockdev ${top['node-name']}: its backing nodes form a circle`)
    files.push(bottomOf(each, nodes).filename)
  }
  if (files.length === 0) return name => system.openStore(system.pathBeside(bottom.filename, name), true)
  return name => system.openStore(files.shift() ?? system.pathBeside(bottom.filename, name), true)
}
