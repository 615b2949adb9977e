/** A disk image in a file of Node's: synchronous, because a disk answers while the machine stands still. */
import { closeSync, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { BlockStore } from '../../api.ts'
import { InputError } from '../../errors.ts'
import { reasonOf } from './files.ts'

class FileStore implements BlockStore {
  readonly readOnly: boolean
  readonly extensible: boolean
  readonly #file: number
  #length: number

  constructor(file: number, length: number, readOnly: boolean) {
    this.#file = file
    this.#length = length
    this.readOnly = readOnly
    this.extensible = !readOnly
  }

  get byteLength(): number {
    return this.#length
  }

  read(offset: number, into: Uint8Array): 'ok' | 'error' {
    return this.#all(into.length, done => readSync(this.#file, into, done, into.length - done, offset + done))
  }

  write(offset: number, from: Uint8Array): 'ok' | 'error' {
    if (this.readOnly) return 'error'
    const result = this.#all(from.length, done => writeSync(this.#file, from, done, from.length - done, offset + done))
    if (result === 'ok') this.#length = Math.max(this.#length, offset + from.length)
    return result
  }

  flush(): 'ok' | 'error' {
    return this.readOnly ? 'ok' : this.#try(() => fdatasyncSync(this.#file))
  }

  /** A call may move less than it was asked to; one that moves nothing has met the end. */
  #all(length: number, move: (done: number) => number): 'ok' | 'error' {
    return this.#try(() => {
      for (let done = 0; done < length;) {
        const count = move(done)
        if (count === 0) throw new Error('the file ends early')
        done += count
      }
    })
  }

  #try(act: () => void): 'ok' | 'error' {
    try {
      act()
      return 'ok'
    } catch {
      return 'error'
    }
  }
}

/** Node closes the file when the process ends: a machine keeps its disks to its end. */
export function openStore(path: string, readOnly: boolean): BlockStore {
  let file: number
  try {
    file = openSync(path, readOnly ? 'r' : 'r+')
  } catch (error) {
    throw new InputError(`cannot open '${path}': ${reasonOf(error)}`)
  }
  const stat = fstatSync(file)
  if (stat.isFile()) return new FileStore(file, stat.size, readOnly)
  closeSync(file)
  throw new InputError(`cannot open '${path}': expected a file, found ${stat.isDirectory() ? 'a folder' : 'a device'}`)
}

export function pathBeside(path: string, name: string): string {
  return resolve(dirname(path), name)
}
