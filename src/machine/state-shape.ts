/**
 * Whether plain data can be the state of this machine, as `saveState` gives it: people edit saved machines by hand. Compared with the
 * state of the same devices after a reset, and with what the devices say when they have taken it, kinds must agree.
 */
import { InputError } from '../errors.ts'

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null
const isEmpty = (value: unknown): boolean => value === undefined || value === null
const kindOf = (value: unknown): string => (value === null ? 'nothing' : Array.isArray(value) ? 'a list' : value instanceof Uint8Array
  ? 'bytes' : value === undefined ? 'nothing' : isObject(value) ? 'an object' : `a ${typeof value}`)
const shown = (value: unknown): string => {
  const kind = kindOf(value)
  return /^a (string|number|boolean)$/.test(kind) ? `${kind}, ${String(JSON.stringify(value)).slice(0, 40)}` : kind
}

const damaged = (where: string, expected: string, found: string): InputError =>
  new InputError(`the saved machine is damaged: ${where}: expected ${expected}, found ${found}`)
const wrong = (where: string, expected: string, found: unknown): InputError => damaged(where, expected, shown(found))

const whole = /^-?\d+$/

/** Throws an InputError where `found` is of another kind than `own`. Where `own` has nothing, or an empty list, anything may be. */
export function expectKind(found: unknown, own: unknown, where: string): void {
  if (own === undefined || own === null) return
  if (kindOf(found) !== kindOf(own)) throw wrong(where, kindOf(own), found)
  if (typeof own === 'string' && whole.test(own) && !whole.test(found as string)) throw wrong(where, 'digits', found)
  if (Array.isArray(own)) return expectList(found as unknown[], own, where)
  if (!isObject(own) || own instanceof Uint8Array) return
  for (const [key, each] of Object.entries(own)) {
    if (each !== undefined) expectKind((found as Record<string, unknown>)[key], each, `${where}.${key}`)
  }
}

/** Lists of registers have their length; queues are empty after a reset, and lists of lists are what is not zero. */
function expectList(found: readonly unknown[], own: readonly unknown[], where: string): void {
  if (own.length === 0 || Array.isArray(own[0])) return expectAlike(found, where)
  if (found.length !== own.length) throw damaged(where, `a list of ${own.length}`, `one of ${found.length}`)
  own.forEach((each, i) => {
    if (isObject(each) || typeof each !== typeof found[i]) expectKind(found[i], each, `${where}[${i}]`)
  })
}
/** Of a list nothing is known but that its elements are of one kind. */
function expectAlike(found: readonly unknown[], where: string): void {
  const [first] = found
  found.forEach((each, i) => {
    if (kindOf(each) !== kindOf(first)) throw wrong(`${where}[${i}]`, kindOf(first), each)
    if (!Array.isArray(each) || !Array.isArray(first)) return
    for (let at = 0; at < Math.min(each.length, first.length); at++)
      if (kindOf(each[at]) !== kindOf(first[at])) throw wrong(`${where}[${i}][${at}]`, kindOf(first[at]), each[at])
  })
}

/** Throws an InputError where a number of plain data is none. */
export function expectFinite(value: unknown, where: string): void {
  const place = wayToNoNumber(value)
  if (place !== undefined) throw damaged(where + place, 'a number', 'NaN or infinity')
}
function wayToNoNumber(value: unknown): string | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : ''
  if (!isObject(value) || value instanceof Uint8Array) return undefined
  for (const key in value) {
    const way = wayToNoNumber(value[key])
    if (way !== undefined) return Array.isArray(value) ? `[${key}]${way}` : `.${key}${way}`
  }
  return undefined
}

/** Throws an InputError where `kept`, what a device has made of `found`, is of another kind. Values may have been brought up to date. */
export function expectKept(found: unknown, kept: unknown, where: string): void {
  if (kindOf(found) !== kindOf(kept)) {
    if (isEmpty(found) || isEmpty(kept)) return
    throw wrong(where, kindOf(kept), found)
  }
  if (!isObject(found) || !isObject(kept) || found instanceof Uint8Array) return
  const isList = Array.isArray(found)
  for (const key of Object.keys(found)) {
    if (!isList || key in kept) expectKept(found[key], kept[key], isList ? `${where}[${key}]` : `${where}.${key}`)
  }
}
