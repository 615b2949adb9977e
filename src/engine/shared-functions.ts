/**
 * Functions that handlers and regions of one machine share: modules import those that they call, and they are made when a module first asks
 * for one. What they do: src/isa/x87-functions.ts.
 */
import { sharedFunctions, sharedNames, sharedSignature, type SharedName } from '../isa/x87-functions.ts'
import type { FunctionBuilder, Node } from '../wasm/function.ts'
import { encodeModule, type FunctionImport } from '../wasm/module.ts'

/** The shared functions that the code of a module calls: imported after its others. */
export class SharedImports {
  private readonly first: number
  private readonly names: SharedName[] = []

  /** `first`: how many functions the module imports besides. */
  constructor(first: number) {
    this.first = first
  }
  get count(): number {
    return this.names.length
  }
  list(): FunctionImport[] {
    return this.names.map(name => ({ module: 'env', name, ...sharedSignature }))
  }
  /** Calls one from the body of a function of the module. */
  call(f: FunctionBuilder, name: SharedName, args: readonly (Node | number)[]): Node {
    const { parameters, result } = sharedSignature
    const known = this.names.indexOf(name)
    const index = known >= 0 ? known : this.names.push(name) - 1
    return f.call(this.first + index, parameters.map((_, i) => args[i] ?? 0), parameters, result)
  }
}

/** Prototype of the imports of modules: its properties are the functions, by name. */
export function sharedEnvironment(memory: WebAssembly.Memory): object {
  let exports: WebAssembly.Instance['exports'] | undefined
  const make = (): WebAssembly.Instance['exports'] => {
    const pages = memory.buffer.byteLength / 65536
    const bytes = encodeModule({
      imports: [],
      memory: { minimum: pages, maximum: pages },
      functions: sharedFunctions(),
      exports: sharedNames.map((name, functionIndex) => ({ name, functionIndex })),
    })
    return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports
  }
  const get = (name: SharedName) => (): unknown => (exports ??= make())[name]
  return Object.defineProperties({}, Object.fromEntries(sharedNames.map(name => [name, { get: get(name) }])))
}
