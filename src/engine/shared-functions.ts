/**
 * Functions that handlers and regions of one machine share: modules import those that they call. They come with the handlers that are made
 * ahead (warm.ts), or are made when a module asks for one before. What they do: src/isa/x87-functions.ts.
 */
import { sharedFunctions, sharedNames, sharedSignature, type SharedName } from '../isa/x87-functions.ts'
import type { FunctionBuilder, Node } from '../wasm/function.ts'
import { encodeModule, type FunctionImport } from '../wasm/module.ts'

/** The shared functions that the code of a module calls: imported after its others. */
export class SharedImports {
  private readonly first: number
  private readonly names: SharedName[]

  /** `first`: how many functions the module imports besides. `names`: of those that it has in any case. */
  constructor(first: number, names: readonly SharedName[] = []) {
    this.first = first
    this.names = [...names]
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

/** Those of one machine. */
export class SharedFunctions {
  private readonly memory: WebAssembly.Memory
  private exports: WebAssembly.Instance['exports'] | undefined
  /** Prototype of the imports of modules: its properties are the functions, by name. */
  readonly environment: object

  constructor(memory: WebAssembly.Memory) {
    this.memory = memory
    const get = (name: SharedName) => (): unknown => (this.exports ??= this.make())[name]
    this.environment = Object.defineProperties({}, Object.fromEntries(sharedNames.map(name => [name, { get: get(name) }])))
  }

  /** `exports`: of a module that has them among its functions. Those that are here already stay. */
  adopt(exports: WebAssembly.Instance['exports']): void {
    this.exports ??= exports
  }

  private make(): WebAssembly.Instance['exports'] {
    const { memory } = this
    const pages = memory.buffer.byteLength / 65536
    const bytes = encodeModule({
      imports: [],
      memory: { minimum: pages, maximum: pages },
      functions: sharedFunctions(0),
      exports: sharedNames.map((name, functionIndex) => ({ name, functionIndex })),
    })
    return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports
  }
}
