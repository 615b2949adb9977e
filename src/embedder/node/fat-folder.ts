/** A folder of Node's as a disk with a FAT file system. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { BlockStore } from '../../api.ts'
import { InputError } from '../../errors.ts'
import { fatDisk, type FatEntry } from '../fat-disk.ts'
import { reasonOf } from './files.ts'

/** What is in the folder now. Throws an InputError that says why it cannot be. */
export function openFatFolder(path: string): BlockStore {
  try {
    return fatDisk(entriesOf(path))
  } catch (error) {
    throw new InputError(`cannot make a disk of the folder '${path}': ${error instanceof InputError ? error.message : reasonOf(error)}`)
  }
}

/** In the order of their names, whatever the folder's own order is. Links are followed; pipes and the like are left out. */
function entriesOf(folder: string): FatEntry[] {
  return readdirSync(folder).toSorted().flatMap((name): FatEntry[] => {
    const path = join(folder, name)
    const stat = statSync(path)
    if (stat.isDirectory()) return [{ name, content: entriesOf(path) }]
    return stat.isFile() ? [{ name, content: new Uint8Array(readFileSync(path)) }] : []
  })
}
