/** Assembles functions, imports, a table and exports into one WebAssembly module. Follows the WebAssembly Core Specification, "Modules". */
import { ByteWriter, section, valueTypeCode, type ValueType } from './encode.ts'
import type { FunctionBuilder } from './function.ts'

export interface FunctionType {
  parameters: readonly ValueType[]
  result: ValueType | undefined
}

/** An import of a function; its index is its place in `imports`. */
export interface FunctionImport extends FunctionType {
  module: string
  name: string
}

export interface ModuleParts {
  imports: FunctionImport[]
  /** Immutable globals of type i32, imported from `env`: global i is the i-th name. */
  importGlobals?: readonly string[]
  /** Imported as `env.memory`; size in pages of 64 KiB. */
  memory?: { minimum: number; maximum: number }
  functions: FunctionBuilder[]
  exports: { name: string; functionIndex: number }[]
  /** A table of functions for call_indirect: function indices, from element 0. */
  table?: number[]
  /** A table of functions imported as `env.table`, instead of an own one. */
  importTable?: { minimum: number }
  /** Types to be numbered first, so that call_indirect can name them: type i is `types[i]`. */
  types?: FunctionType[]
}

/** Which branches are taken nearly always or never. WebAssembly Core Specification, "Code Metadata", "Branch Hints". */
function branchHints(w: ByteWriter, { imports, functions }: ModuleParts): void {
  w.text('metadata.code.branch_hint')
  const hinted = functions.map(({ hints }, i) => ({ hints, index: imports.length + i })).filter(({ hints }) => hints.length > 0)
  w.unsigned(hinted.length)
  for (const { hints, index } of hinted) {
    w.unsigned(index)
    w.unsigned(hints.length / 2)
    for (let i = 0; i < hints.length; i += 2) {
      w.unsigned(hints[i])
      w.unsigned(1)
      w.unsigned(hints[i + 1])
    }
  }
}

/** Encodes the module. Function indices count the imports first, then `functions` in order. */
export function encodeModule(parts: ModuleParts): Uint8Array {
  const { imports, functions, exports, table } = parts
  const types = new TypeList()
  for (const type of parts.types ?? []) types.indexOf(type)
  const importTypes = imports.map(type => types.indexOf(type))
  const functionTypes = functions.map(type => types.indexOf(type))
  const out = new ByteWriter(1 << 16)
  out.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0))
  section(out, 1, w => types.write(w))
  section(out, 2, w => importSection(w, parts, importTypes))
  section(out, 3, w => vector(w, functionTypes, index => w.unsigned(index)))
  if (table) {
    section(out, 4, w => {
      w.append(Uint8Array.of(1, 0x70, 0))
      w.unsigned(table.length)
    })
  }
  section(out, 7, w => vector(w, exports, ({ name, functionIndex }) => {
    w.text(name)
    w.byte(0)
    w.unsigned(functionIndex)
  }))
  if (table) {
    section(out, 9, w => {
      w.append(Uint8Array.of(1, 0, 0x41, 0, 0x0b))
      vector(w, table, index => w.unsigned(index))
    })
  }
  // the hints are known when the bodies are
  const bodies = functions.map(f => f.finish())
  section(out, 0, w => branchHints(w, parts))
  section(out, 10, w => vector(w, bodies, body => {
    w.unsigned(body.length)
    w.append(body)
  }))
  section(out, 0, w => functionNames(w, parts))
  return out.finish().slice()
}

/** A length, and so many elements. */
function vector<T>(w: ByteWriter, elements: readonly T[], write: (element: T, index: number) => void): void {
  w.unsigned(elements.length)
  elements.forEach(write)
}

/** The types of functions, each once. */
class TypeList {
  readonly #types: FunctionType[] = []

  indexOf(type: FunctionType): number {
    const found = this.#types.findIndex(({ result, parameters }) =>
      result === type.result && parameters.length === type.parameters.length && parameters.every((p, i) => p === type.parameters[i]))
    return found >= 0 ? found : this.#types.push(type) - 1
  }

  write(w: ByteWriter): void {
    vector(w, this.#types, ({ parameters, result }) => {
      w.byte(0x60)
      vector(w, parameters, p => w.byte(valueTypeCode[p]))
      vector(w, result ? [result] : [], each => w.byte(valueTypeCode[each]))
    })
  }
}

function importSection(w: ByteWriter, { imports, memory, importTable, importGlobals = [] }: ModuleParts, types: readonly number[]): void {
  w.unsigned(imports.length + (memory ? 1 : 0) + (importTable ? 1 : 0) + importGlobals.length)
  imports.forEach(({ module, name }, i) => {
    w.text(module)
    w.text(name)
    w.byte(0)
    w.unsigned(types[i])
  })
  const fromEnvironment = (name: string, kind: readonly number[]): void => {
    w.text('env')
    w.text(name)
    w.append(Uint8Array.from(kind))
  }
  if (memory) {
    fromEnvironment('memory', [2, 1])
    w.unsigned(memory.minimum)
    w.unsigned(memory.maximum)
  }
  if (importTable) {
    fromEnvironment('table', [1, 0x70, 0])
    w.unsigned(importTable.minimum)
  }
  for (const name of importGlobals) fromEnvironment(name, [3, valueTypeCode.i32, 0])
}

/** "Appendix", "Custom Sections", "Name Section": profilers and stack traces show them. */
function functionNames(w: ByteWriter, { imports, functions }: ModuleParts): void {
  const names = new ByteWriter(4096)
  vector(names, functions, ({ name }, i) => {
    names.unsigned(imports.length + i)
    names.text(name)
  })
  w.text('name')
  w.byte(1)
  w.unsigned(names.length)
  w.append(names.finish())
}
