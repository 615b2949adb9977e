/** One entry of a submission queue (NVM Express Base Specification 1.4, "Submission Queue Entry - Command Format"). */
import { type Status, submissionEntry } from './spec.ts'

export class Command {
  /** Command dwords 0 to 15. */
  readonly dwords: Uint32Array

  /** `bytes`: 64 of them, in the order of memory. */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, submissionEntry)
    this.dwords = Uint32Array.from({ length: submissionEntry / 4 }, (_, index) => view.getUint32(index * 4, true))
  }

  get opcode(): number {
    return this.dwords[0] & 0xff
  }

  get fused(): number {
    return (this.dwords[0] >>> 8) & 3
  }

  /** PSDT: 0 for PRPs, 1 and 2 for SGLs. */
  get dataPointerKind(): number {
    return (this.dwords[0] >>> 14) & 3
  }

  get id(): number {
    return this.dwords[0] >>> 16
  }

  get namespace(): number {
    return this.dwords[1]
  }

  /** A 64-bit field: beyond 2^53 it is not exact, and far beyond every address and block. */
  wide(dword: number): number {
    return this.dwords[dword + 1] * 2 ** 32 + this.dwords[dword]
  }
}

/** What became of a command; `bytes`: how many crossed the link, which takes time. */
export interface Outcome {
  status: Status
  result?: number
  bytes?: number
}
