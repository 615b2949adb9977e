/**
 * Values that QEMU takes as JSON besides its `key=value` words (QEMU documentation, "Invocation"; QAPI's keyval.c): both become the same
 * flat keys, so `{"file":{"driver":"file"},"read-only":true}` is `file.driver=file,read-only=on`.
 */
import { InputError } from '../errors.ts'
import { splitList } from './values.ts'

export type Keys = Record<string, string>

export const isJson = (text: string): boolean => text.startsWith('{')

/** `first`: the key of a word alone at the start; elsewhere one means `on`. Throws an InputError for what is neither. */
export function keysOfValue(text: string, first: string): Keys {
  if (isJson(text)) return flat(parsed(text), '')
  return Object.fromEntries(splitList(text).filter(part => part !== '').map((part, index) => {
    const equals = part.indexOf('=')
    if (equals >= 0) return [part.slice(0, equals), part.slice(equals + 1)]
    return index === 0 ? [first, part] : [part, 'on']
  }))
}

function parsed(text: string): object {
  try {
    return JSON.parse(text) as object
  } catch (error) {
    throw new InputError(`JSON parse error: ${(error as Error).message}`, { cause: error })
  }
}

/** Lists have their indices as keys; null is an empty text. */
function flat(value: object, prefix: string): Keys {
  return Object.assign({}, ...Object.entries(value).map(([name, member]: [string, unknown]): Keys => {
    const key = prefix + name
    if (typeof member === 'object' && member !== null) return flat(member, `${key}.`)
    return { [key]: typeof member === 'boolean' ? (member ? 'on' : 'off') : String(member ?? '') }
  })) as Keys
}

/** The members of an object in the keys, without its name. */
export function membersOf(keys: Keys, name: string): Keys {
  const prefix = `${name}.`
  const members = Object.entries(keys).filter(([key]) => key.startsWith(prefix))
  return Object.fromEntries(members.map(([key, text]) => [key.slice(prefix.length), text]))
}
