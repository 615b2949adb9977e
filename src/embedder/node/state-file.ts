/** Saved machines in files of Node's, compressed with gzip. */
import { readFileSync, writeFileSync } from 'node:fs'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { MachineState } from '../../api.ts'
import { InputError } from '../../errors.ts'
import { decodeState, encodeState } from '../state-file.ts'

/** Most of memory is alike: more effort than this buys little. */
const level = 1

export function writeState(path: string, state: MachineState): void {
  const bytes = gzipSync(Buffer.concat(encodeState(state)), { level })
  try {
    writeFileSync(path, bytes)
  } catch (error) {
    throw new InputError(`cannot write the machine's state to '${path}': ${(error as Error).message}`)
  }
}

export function readState(path: string): MachineState {
  let file: Uint8Array
  try {
    file = gunzipSync(readFileSync(path))
  } catch (error) {
    throw new InputError(`cannot read a saved machine from '${path}': ${(error as Error).message}`)
  }
  try {
    return decodeState(file)
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`'${path}': ${error.message}`, { cause: error })
    throw error
  }
}
