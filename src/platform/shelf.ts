/** What the embedder supplies for devices to take by its ID: each once, for two devices on one would not know of each other. */
import { InputError } from '../errors.ts'

/** `what`: the kind of thing, for errors. */
export function shelf<T extends { id: string }>(what: string, things: readonly T[]): (id: string) => T {
  const left = new Map(things.map(each => [each.id, each]))
  const twice = things.find((each, index) => things.findIndex(({ id }) => id === each.id) < index)
  if (twice) throw new InputError(`expected an id of its own for each ${what}, found '${twice.id}' twice`)
  return id => {
    const found = left.get(id)
    if (!found) throw new InputError(`expected the id of a ${what} that no other device has, found '${id}'`)
    left.delete(id)
    return found
  }
}
