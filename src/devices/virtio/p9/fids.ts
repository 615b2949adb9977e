/** The numbers by which a 9P client names files: where each leads, and what is open through it (9P2000.L, "Directories and fids"). */
import type { DeviceState } from '../../ports.ts'
import {
  errorNumber, type FileStatus, type FolderEntry, FolderError, type FolderFile, type FolderPath, type SharedFolder,
} from './folder.ts'

/** What a fid was opened as. */
export type Opened = 'no' | 'folder' | 'read' | 'write'

/** Software cannot make us hold more. */
const mostFids = 1 << 18
const mostOpenFiles = 4096

export class Fid {
  path: FolderPath
  opened: Opened = 'no'
  /** Of an open folder: what it held when it was read from its beginning. */
  listing: readonly FolderEntry[] | undefined
  file: FolderFile | undefined

  constructor(path: FolderPath) {
    this.path = path
  }
}

interface SavedFid {
  number: number
  path: string[]
  opened: Opened
}

export class Fids {
  readonly #folder: SharedFolder
  readonly #fids = new Map<number, Fid>()
  #openFiles = 0

  constructor(folder: SharedFolder) {
    this.#folder = folder
  }

  has(number: number): boolean {
    return this.#fids.has(number)
  }

  get(number: number): Fid {
    const fid = this.#fids.get(number)
    if (!fid) throw new FolderError('EBADF')
    return fid
  }

  /** Gives a number its meaning, in the place of an older one. */
  set(number: number, path: FolderPath): Fid {
    if (this.#fids.size >= mostFids) throw new FolderError('ENFILE')
    const old = this.#fids.get(number)
    if (old) this.close(old)
    const fid = new Fid(path)
    this.#fids.set(number, fid)
    return fid
  }

  drop(number: number): void {
    this.close(this.get(number))
    this.#fids.delete(number)
  }

  clear(): void {
    for (const fid of this.#fids.values()) this.close(fid)
    this.#fids.clear()
  }

  /** Takes over a file that `open` opens. */
  keep(fid: Fid, write: boolean, open: () => FolderFile): void {
    if (this.#openFiles >= mostOpenFiles) throw new FolderError('EMFILE')
    fid.file = open()
    this.#openFiles++
    fid.opened = write ? 'write' : 'read'
  }

  /** The file that is open through a fid. In a restored machine it is opened again by its name: ESTALE when that leads nowhere now. */
  fileOf(fid: Fid): FolderFile {
    if (fid.opened !== 'read' && fid.opened !== 'write') throw new FolderError('EBADF')
    if (!fid.file) {
      const { opened } = fid
      try {
        this.keep(fid, opened === 'write', () => this.#folder.open(fid.path, { write: opened === 'write' }))
      } catch (error) {
        throw errorNumber(error) === undefined ? error : new FolderError('ESTALE')
      }
    }
    return fid.file!
  }

  statusOf(fid: Fid): FileStatus {
    return fid.file ? fid.file.status() : this.#folder.status(fid.path)
  }

  /** What was renamed keeps its fids, and so does all that lies in it. */
  renamed(from: FolderPath, to: FolderPath): void {
    for (const fid of this.#fids.values()) {
      if (from.every((name, at) => fid.path[at] === name)) fid.path = [...to, ...fid.path.slice(from.length)]
    }
  }

  saveState(): DeviceState {
    return [...this.#fids].map(([number, { path, opened }]): SavedFid => ({ number, path: [...path], opened }))
  }

  restoreState(state: DeviceState): void {
    this.clear()
    for (const { number, path, opened } of state as SavedFid[]) {
      const fid = new Fid([...path])
      fid.opened = opened
      this.#fids.set(number, fid)
    }
  }

  close(fid: Fid): void {
    if (fid.file) this.#openFiles--
    fid.file?.close()
    fid.file = fid.listing = undefined
  }
}
