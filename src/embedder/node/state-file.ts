/** Saved machines in files of Node's, compressed with gzip. */
import { gunzipSync, gzipSync } from 'node:zlib'
import type { MachineState } from '../../api.ts'
import { InputError } from '../../errors.ts'
import { decodeState, encodeState } from '../state-file.ts'
import { readFile, replaceFile } from './files.ts'

/** Most of memory is alike: more effort than this buys little. */
const level = 1

export function writeState(path: string, state: MachineState): void {
  replaceFile(path, gzipSync(Buffer.concat(encodeState(state)), { level }))
}

export function readState(path: string): MachineState {
  const file = readFile(path)
  let contents: Uint8Array
  try {
    contents = gunzipSync(file)
  } catch (error) {
    // zlib's own check of what was packed; it also finds the file's early end
    throw new InputError(`'${path}': expected a saved machine, found what gzip cannot read: ${(error as Error).message}`)
  }
  try {
    return decodeState(contents)
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`'${path}': ${error.message}`, { cause: error })
    throw error
  }
}
