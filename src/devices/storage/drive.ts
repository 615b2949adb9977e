/** A drive as the user asks for it: a store, the format of the image in it, and whether writes reach it. */
import { InputError } from '../../errors.ts'
import type { LogUnhandled } from '../ports.ts'
import { type BlockStore, sectorSize } from './block-store.ts'
import { Disk } from './disk.ts'
import { isQcow2 } from './qcow2-header.ts'
import { Qcow2Store } from './qcow2.ts'
import { SnapshotStore } from './snapshot-store.ts'

export type DriveFormat = 'raw' | 'qcow2'

/** A disk: whose bytes it has, and how they may be used. */
export interface DriveOptions {
  /** What a device's `drive` property names. */
  id: string
  /** What errors call it, such as the file's name. Default: its ID. */
  name?: string
  store: BlockStore
  /** Default: raw. It is never guessed: software could write another format's header into a raw image. */
  format?: DriveFormat
  /** Writes stay in memory and are gone after the run. */
  snapshot?: boolean
  readOnly?: boolean
  /** Opens the file that an image is based on. */
  openBacking?: (name: string) => BlockStore
}

/** The disk that a device sees. Its length is whole sectors: what a raw image has beyond the last one is not there. */
export function openDrive(options: DriveOptions, log: LogUnhandled): Disk {
  return new Disk(options.id, openStore(options, log))
}

function openStore({ id, name = id, store, format, snapshot, readOnly, openBacking }: DriveOptions, log: LogUnhandled): BlockStore {
  try {
    const disk = openImage(store, format, openBacking, log)
    if (disk.byteLength < sectorSize) throw new InputError(`expected at least one sector, found ${disk.byteLength} bytes`)
    if (snapshot) return new SnapshotStore(disk)
    return readOnly && !disk.readOnly ? lockedStore(disk) : disk
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`drive '${name}': ${error.message}`, { cause: error })
    throw error
  }
}

function openImage(
  store: BlockStore, format: string | undefined, openBacking: DriveOptions['openBacking'], log: LogUnhandled, depth = 0,
): BlockStore {
  if (format !== undefined && format !== 'raw' && format !== 'qcow2') throw new InputError(`format '${format}': expected raw or qcow2`)
  if (format === undefined && isQcow2(store)) throw new InputError('it looks like a qcow2 image: expected its format, raw or qcow2')
  const foreign = format === undefined ? foreignFormat(store) : undefined
  if (foreign !== undefined) throw new InputError(`it looks like a ${foreign} image: expected qcow2 (\`qemu-img convert\`), or format=raw`)
  if (format !== 'qcow2') return store
  if (!isQcow2(store)) throw new InputError('expected a qcow2 image, found something else')
  if (depth === 16) throw new InputError('more than 16 images are based on one another')
  return new Qcow2Store(store, {
    log,
    openBacking: openBacking && ((name, backingFormat) => openBased(name, openBacking(name), backingFormat, openBacking, log, depth + 1)),
  })
}

function openBased(name: string, ...image: Parameters<typeof openImage>): BlockStore {
  try {
    return openImage(...image)
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`its backing file '${name}': ${error.message}`, { cause: error })
    throw error
  }
}

/** What other emulators' images begin with: at a byte, in Latin-1. Taken for a raw disk, one would be an empty disk of a strange size. */
const foreignFormats: readonly (readonly [name: string, at: number, magic: string])[] = [
  ['VMDK', 0, 'KDMV'], ['VMDK', 0, '# Disk DescriptorFile'], ['VHDX', 0, 'vhdxfile'], ['VHD', 0, 'conectix'], ['QED', 0, 'QED\0'],
  ['VDI', 64, '\x7f\x10\xda\xbe'],
]
function foreignFormat(store: BlockStore): string | undefined {
  const start = new Uint8Array(sectorSize)
  if (store.byteLength < sectorSize || store.read(0, start) === 'error') return undefined
  const text = String.fromCharCode(...start)
  return foreignFormats.find(([, at, magic]) => text.startsWith(magic, at))?.[0]
}

function lockedStore(base: BlockStore): BlockStore {
  return {
    byteLength: base.byteLength, readOnly: true,
    read: (offset, into) => base.read(offset, into),
    write: () => 'error',
    flush: () => 'ok',
  }
}
