/** The part of the WebAssembly JavaScript Interface that we use, without the rest of the DOM's types. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number; maximum?: number })
    readonly buffer: ArrayBuffer
  }
  class Module {
    constructor(bytes: Uint8Array)
  }
  class Instance {
    constructor(module: Module, imports: Record<string, Record<string, unknown>>)
    readonly exports: Record<string, unknown>
  }
  class Global {
    constructor(descriptor: { value: 'i32'; mutable: false }, value: number)
  }
  class Table {
    constructor(descriptor: { element: 'anyfunc'; initial: number; maximum?: number })
    set(index: number, value: unknown): void
    get(index: number): unknown
    grow(delta: number): number
    readonly length: number
  }
}
