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
  const types: FunctionType[] = []
  const typeIndex = (type: FunctionType): number => {
    const found = types.findIndex(
      t =>
        t.result === type.result &&
        t.parameters.length === type.parameters.length &&
        t.parameters.every((p, i) => p === type.parameters[i]),
    )
    return found >= 0 ? found : types.push(type) - 1
  }
  for (const type of parts.types ?? []) typeIndex(type)
  const importTypes = parts.imports.map(typeIndex)
  const functionTypes = parts.functions.map(typeIndex)
  const out = new ByteWriter(1 << 16)
  out.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0))
  section(out, 1, w => {
    w.unsigned(types.length)
    for (const type of types) {
      w.byte(0x60)
      w.unsigned(type.parameters.length)
      for (const p of type.parameters) w.byte(valueTypeCode[p])
      w.unsigned(type.result ? 1 : 0)
      if (type.result) w.byte(valueTypeCode[type.result])
    }
  })
  section(out, 2, w => {
    const { importGlobals = [] } = parts
    w.unsigned(parts.imports.length + (parts.memory ? 1 : 0) + (parts.importTable ? 1 : 0) + importGlobals.length)
    parts.imports.forEach((imported, i) => {
      w.text(imported.module)
      w.text(imported.name)
      w.byte(0)
      w.unsigned(importTypes[i])
    })
    if (parts.memory) {
      w.text('env')
      w.text('memory')
      w.append(Uint8Array.of(2, 1))
      w.unsigned(parts.memory.minimum)
      w.unsigned(parts.memory.maximum)
    }
    if (parts.importTable) {
      w.text('env')
      w.text('table')
      w.append(Uint8Array.of(1, 0x70, 0))
      w.unsigned(parts.importTable.minimum)
    }
    for (const name of importGlobals) {
      w.text('env')
      w.text(name)
      w.append(Uint8Array.of(3, valueTypeCode.i32, 0))
    }
  })
  section(out, 3, w => {
    w.unsigned(parts.functions.length)
    for (const index of functionTypes) w.unsigned(index)
  })
  const table = parts.table
  if (table)
    section(out, 4, w => {
      w.append(Uint8Array.of(1, 0x70, 0))
      w.unsigned(table.length)
    })
  section(out, 7, w => {
    w.unsigned(parts.exports.length)
    for (const exported of parts.exports) {
      w.text(exported.name)
      w.byte(0)
      w.unsigned(exported.functionIndex)
    }
  })
  if (table)
    section(out, 9, w => {
      w.append(Uint8Array.of(1, 0, 0x41, 0, 0x0b))
      w.unsigned(table.length)
      for (const index of table) w.unsigned(index)
    })
  const bodies = parts.functions.map(f => f.finish())
  section(out, 0, w => branchHints(w, parts))
  section(out, 10, w => {
    w.unsigned(parts.functions.length)
    for (const body of bodies) {
      w.unsigned(body.length)
      w.append(body)
    }
  })
  section(out, 0, w => {
    w.text('name')
    const names = new ByteWriter(4096)
    names.unsigned(parts.functions.length)
    parts.functions.forEach((f, i) => {
      names.unsigned(parts.imports.length + i)
      names.text(f.name)
    })
    w.byte(1)
    w.unsigned(names.length)
    w.append(names.finish())
  })
  return out.finish().slice()
}
