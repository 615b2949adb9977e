/** `--initrd`: one file, or the modules of a multiboot kernel as QEMU writes them: `FILE arguments,FILE arguments`. */
import type { BootOptions } from '../api.ts'
import { isInputError } from '../errors.ts'
import type { System } from './system.ts'
import { splitList } from './values.ts'

/** A file of just this name goes before the meaning of commas and spaces. Doubled commas are part of a name or argument. */
export function parseModules(text: string | undefined, system: System): Pick<BootOptions, 'initrd' | 'initrdName' | 'modules'> {
  if (text === undefined) return {}
  if (!/[, ]/.test(text)) return { initrd: system.readForRun(text), initrdName: text }
  try {
    return { initrd: system.readFile(text), initrdName: text }
  } catch (error) {
    if (!isInputError(error)) throw error
  }
  const parts = splitList(text).map(part => part.trim())
  return {
    modules: parts.map(part => {
      const [name] = part.split(' ', 1)
      return { name, bytes: system.readFile(name), arguments: part.slice(name.length).trim() }
    }),
  }
}
