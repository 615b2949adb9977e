/** Files that people name. What is wrong with one is a line in words, where Node has the system's codes (errno(3)). */
import {
  accessSync, closeSync, constants, fstatSync, openSync, read, readFileSync, renameSync, rmSync, statSync, writeFileSync, writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { InputError } from '../../errors.ts'

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EADDRINUSE: 'it is taken',
  ECONNREFUSED: 'nobody listens there',
  EISDIR: 'it is a folder',
  ENOENT: 'no such file',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'a part of the path is not a folder',
  EROFS: 'the file system is read-only',
  ERR_INVALID_ARG_VALUE: 'the name has a byte of zero in it',
}

/** Why a call of the file system, or of a socket, failed. */
export function reasonOf(error: unknown): string {
  const { code = '', message } = error as NodeJS.ErrnoException
  return reasons[code] ?? message
}

/** The whole of a file. Throws an InputError that says why not. */
export function readFile(path: string): Uint8Array {
  try {
    expectEnd(path)
    return readFileSync(path)
  } catch (error) {
    throw new InputError(`cannot read '${path}': ${reasonOf(error)}`)
  }
}

/** A device such as /dev/zero has no end. */
function expectEnd(path: string): void {
  if (path !== '/dev/null' && statSync(path).isCharacterDevice()) throw new Error('expected a file, found a device')
}

/** Smaller files are read at once. */
const worthWhile = 1 << 20

/**
 * The whole of a file, read while we go on: its bytes are there when `done` is. Throws an InputError that says why not, and `done` fails
 * with one.
 */
export function readFileMeanwhile(path: string): { bytes: Uint8Array; done: Promise<void> } {
  const info = statSync(path, { throwIfNoEntry: false })
  if (!info?.isFile() || info.size < worthWhile) return { bytes: readFile(path), done: Promise.resolve() }
  const fail = (why: string): InputError => new InputError(`cannot read '${path}': ${why}`)
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    throw fail(reasonOf(error))
  }
  const bytes = Buffer.allocUnsafeSlow(fstatSync(file).size)
  const reading = new Promise<void>((resolve, reject) => {
    const more = (at: number): void => read(file, bytes, at, bytes.length - at, at, (error, count) => {
      if (error) reject(fail(reasonOf(error)))
      else if (count === 0 && at < bytes.length) reject(fail(`expected ${bytes.length} bytes, found ${at}: it has changed meanwhile`))
      else if (at + count < bytes.length) more(at + count)
      else resolve()
    })
    more(0)
  })
  return { bytes, done: reading.finally(() => closeSync(file)) }
}

/** Throws an InputError that says why not. */
export function writeFile(path: string, data: string | Uint8Array): void {
  try {
    writeFileSync(path, data)
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** The same, and when it fails a file that was there is as before. For what is no file (a pipe, /dev/null) it is `writeFile`. */
export function replaceFile(path: string, data: Uint8Array): void {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === false) return writeFile(path, data)
  const part = `${path}.part`
  try {
    writeFileSync(part, data)
    renameSync(part, path)
  } catch (error) {
    if (statSync(part, { throwIfNoEntry: false })?.isFile()) rmSync(part)
    throw cannotWrite(path, error)
  }
}

/** Throws an InputError when a file that is to be written at the end of a long run could not even be made now. */
export function expectWritable(path: string): void {
  try {
    const found = statSync(path, { throwIfNoEntry: false })
    if (found?.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' })
    accessSync(found ? path : dirname(path), constants.W_OK)
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** A file that is written to while the machine runs. All throw an InputError that says why not. */
export class OutputFile {
  private readonly path: string
  private readonly file: number

  constructor(path: string) {
    this.path = path
    this.file = this.attempt(() => openSync(path, 'w'))
  }
  write(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    this.attempt(() => { for (let done = 0; done < bytes.length;) done += writeSync(this.file, bytes, done) })
  }
  close(): void {
    closeSync(this.file)
  }
  private attempt<T>(act: () => T): T {
    try {
      return act()
    } catch (error) {
      throw cannotWrite(this.path, error)
    }
  }
}

function cannotWrite(path: string, error: unknown): InputError {
  const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
  return new InputError(`cannot write '${path}': ${missing ? `no such folder: '${dirname(path)}'` : reasonOf(error)}`)
}
