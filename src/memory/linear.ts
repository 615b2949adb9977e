/** The machine's one linear memory: everything that generated code touches lies in it. WebAssembly JavaScript Interface, "Memories". */
import { backingBase, chunkSize } from './map.ts'

const wasmPage = 65536

/** 4 GiB: what 32-bit WebAssembly addresses reach. */
const linearMemorySize = 65536 * wasmPage

/**
 * Created at its full size, so that it never grows and views of it stay valid; the operating system commits what is touched.
 * `size` is smaller in tests: bytes, a multiple of 64 KiB.
 */
export function createLinearMemory(size = linearMemorySize): WebAssembly.Memory {
  if (size < backingBase + chunkSize || size > linearMemorySize || size % wasmPage !== 0)
    throw new Error(`linear memory of ${size} bytes: expected a multiple of 64 KiB from ${backingBase + chunkSize} to ${linearMemorySize}`)
  return new WebAssembly.Memory({ initial: size / wasmPage, maximum: size / wasmPage })
}

/** The embedder's limit is reached: the machine touched more RAM than 4 GiB of linear memory can back. */
export class OutOfBackingMemory extends Error {
  constructor(limit: number) {
    super(`the machine has touched more RAM than can be backed: all of ${Math.floor(limit / 2 ** 20)} MiB are in use; give it less memory`)
    this.name = 'OutOfBackingMemory'
  }
}
