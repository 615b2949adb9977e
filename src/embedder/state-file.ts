/** A saved machine as bytes: a line that names the format, a JSON document, and the byte arrays that it refers to (our own format). */
import type { MachineState } from '../api.ts'
import { InputError } from '../errors.ts'

const magic = 'vitrine machine state 1\n'
const headerBytes = magic.length + 4

/** What every state has. `secondStage` is there when a guest has run. */
const parts = [
  'configuration', 'cpus', 'tlbs', 'memory', 'clock', 'devices', 'disks', 'turns',
] as const satisfies readonly (keyof MachineState)[]

/** In the document, an array of bytes is its place among those that follow it. */
interface Reference {
  $bytes: [offset: number, length: number]
}

/** In parts, to be put one behind another. */
export function encodeState(state: MachineState): Uint8Array[] {
  const arrays: Uint8Array[] = []
  let offset = 0
  const document = new TextEncoder().encode(JSON.stringify(state, (_key, value: unknown) => {
    if (!(value instanceof Uint8Array)) return value
    arrays.push(value)
    offset += value.length
    return { $bytes: [offset - value.length, value.length] } satisfies Reference
  }))
  const header = new Uint8Array(headerBytes)
  header.set(new TextEncoder().encode(magic))
  new DataView(header.buffer).setUint32(magic.length, document.length, true)
  return [header, document, ...arrays]
}

/** The arrays of the result lie in `file`. Throws an InputError when it is no saved machine. */
export function decodeState(file: Uint8Array): MachineState {
  const found = new TextDecoder('latin1').decode(file.subarray(0, magic.length))
  if (found !== magic) {
    const [line] = found.split('\n')
    throw new InputError(`expected a saved machine ('${magic.trim()}'), found ${JSON.stringify(line)}`)
  }
  if (file.length < headerBytes) throw new InputError('the saved machine is damaged: it ends early')
  const start = headerBytes + new DataView(file.buffer, file.byteOffset).getUint32(magic.length, true)
  try {
    const state = JSON.parse(new TextDecoder().decode(file.subarray(headerBytes, start)), (_key, value: unknown) => {
      if (!isReference(value)) return value
      const [offset, length] = value.$bytes
      if (![offset, length].every(each => Number.isSafeInteger(each) && each >= 0)) {
        throw new TypeError(`expected the place of bytes, found ${JSON.stringify(value.$bytes)}`)
      }
      if (start + offset + length > file.length) throw new RangeError('it ends early')
      return file.subarray(start + offset, start + offset + length)
    }) as Partial<MachineState> | null
    const isThere = (part: (typeof parts)[number]): boolean =>
      typeof state?.[part] === (part === 'configuration' ? 'string' : 'object') && state?.[part] !== null
    const absent = parts.find(part => !isThere(part))
    if (absent !== undefined) throw new TypeError(`expected its '${absent}', found none`)
    return state as MachineState
  } catch (error) {
    throw new InputError(`the saved machine is damaged: ${(error as Error).message}`, { cause: error })
  }
}

function isReference(value: unknown): value is Reference {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 1) return false
  const { $bytes } = value as Partial<Reference>
  return Array.isArray($bytes) && $bytes.length === 2
}
