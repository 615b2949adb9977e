/** A namespace over a store: the commands of the NVM command set (NVM Express Base Specification 1.4, "NVM Command Set"). */
import type { DmaPort } from '../ports.ts'
import type { BlockStore, StoreResult } from '../storage/block-store.ts'
import type { Command, Outcome } from './command.ts'
import { hostBuffer, type HostBuffer } from './data-pointer.ts'
import { opcode, type Status, status } from './spec.ts'

/** What is moved at once. */
const pieceBytes = 131072
const forceUnitAccess = 0x40000000
const deallocate = 4
const rangeBytes = 16
/** Deallocation is a hint: of one command we take so many bytes. */
const mostDeallocated = 2 ** 36

/** What a command needs of the controller. */
export interface TransferPorts {
  dma: DmaPort
  pageSize: number
  /** A write is on the medium when it completes. */
  writeThrough: boolean
  /** The longest transfer of data, in bytes. */
  largestTransfer: number
}

/** Figures of the SMART log. */
export interface Statistics {
  /** In units of 512 bytes. */
  unitsRead: number
  unitsWritten: number
  readCommands: number
  writeCommands: number
  mediaErrors: number
}

export class Namespace {
  readonly id: number
  readonly store: BlockStore
  readonly blockSize: number
  readonly blocks: number
  readonly #statistics: Statistics
  readonly #piece = new Uint8Array(pieceBytes)
  readonly #other = new Uint8Array(pieceBytes)

  constructor({ id, store, blockSize, statistics }: { id: number; store: BlockStore; blockSize: number; statistics: Statistics }) {
    this.id = id
    this.store = store
    this.blockSize = blockSize
    this.blocks = Math.floor(store.byteLength / blockSize)
    this.#statistics = statistics
  }

  execute(command: Command, ports: TransferPorts): Outcome {
    switch (command.opcode) {
      case opcode.flush: return { status: this.#done(this.store.flush(), status.writeFault) }
      case opcode.read: return this.#read(command, ports)
      case opcode.write: return this.#write(command, ports)
      case opcode.compare: return this.#compare(command, ports)
      case opcode.writeZeroes: return this.#writeZeroes(command, ports)
      case opcode.datasetManagement: return this.#manage(command, ports)
      case opcode.verify: return this.#verify(command)
      default: return { status: status.invalidOpcode }
    }
  }

  /** SLBA and NLB, as bytes; or the status of a range that is not on the namespace. */
  #rangeOf(command: Command): { offset: number; length: number } | Status {
    const [first, count] = [command.wide(10), (command.dwords[12] & 0xffff) + 1]
    if (first + count > this.blocks) return status.lbaOutOfRange
    return { offset: first * this.blockSize, length: count * this.blockSize }
  }

  /** A command with data: its range, and the memory that the data goes to or comes from. */
  #transfer(
    command: Command, ports: TransferPorts, move: (buffer: HostBuffer, offset: number, piece: Uint8Array) => Status,
  ): Outcome {
    const range = this.#rangeOf(command)
    if (typeof range === 'number') return { status: range }
    if (range.length > ports.largestTransfer) return { status: status.invalidField }
    const buffer = hostBuffer(command, range.length, ports.pageSize, ports.dma)
    if (typeof buffer === 'number') return { status: buffer }
    return { status: this.#inPieces(range, (offset, piece) => move(buffer, offset, piece)), bytes: range.length }
  }

  #inPieces(range: { offset: number; length: number }, act: (offset: number, piece: Uint8Array) => Status): Status {
    for (let done = 0; done < range.length;) {
      const piece = this.#piece.subarray(0, Math.min(pieceBytes, range.length - done))
      const result = act(range.offset + done, piece)
      if (result !== status.success) return result
      done += piece.length
    }
    return status.success
  }

  #read(command: Command, ports: TransferPorts): Outcome {
    const outcome = this.#transfer(command, ports, (buffer, offset, piece) => {
      const result = this.#done(this.store.read(offset, piece), status.unrecoveredRead)
      return result !== status.success || buffer.write(piece) ? result : status.dataTransferError
    })
    this.#statistics.readCommands++
    this.#statistics.unitsRead += (outcome.bytes ?? 0) / 512
    return outcome
  }

  #write(command: Command, ports: TransferPorts): Outcome {
    if (this.store.readOnly) return { status: status.namespaceIsWriteProtected }
    const outcome = this.#transfer(command, ports, (buffer, offset, piece) => {
      // Nothing reaches the medium of what could not be fetched.
      return buffer.read(piece) ? this.#done(this.store.write(offset, piece), status.writeFault) : status.dataTransferError
    })
    this.#statistics.writeCommands++
    this.#statistics.unitsWritten += (outcome.bytes ?? 0) / 512
    return this.#through(command, ports, outcome)
  }

  #compare(command: Command, ports: TransferPorts): Outcome {
    return this.#transfer(command, ports, (buffer, offset, piece) => {
      const other = this.#other.subarray(0, piece.length)
      if (!buffer.read(other)) return status.dataTransferError
      const result = this.#done(this.store.read(offset, piece), status.unrecoveredRead)
      return result === status.success && piece.some((byte, index) => byte !== other[index]) ? status.compareFailure : result
    })
  }

  #verify(command: Command): Outcome {
    const range = this.#rangeOf(command)
    if (typeof range === 'number') return { status: range }
    return { status: this.#inPieces(range, (offset, piece) => this.#done(this.store.read(offset, piece), status.unrecoveredRead)) }
  }

  #writeZeroes(command: Command, ports: TransferPorts): Outcome {
    if (this.store.readOnly) return { status: status.namespaceIsWriteProtected }
    const range = this.#rangeOf(command)
    if (typeof range === 'number') return { status: range }
    const zeroed = this.store.zero
      ? this.#done(this.store.zero(range.offset, range.length), status.writeFault)
      : this.#inPieces(range, (offset, piece) => this.#done(this.store.write(offset, piece.fill(0)), status.writeFault))
    return this.#through(command, ports, { status: zeroed })
  }

  /** "Dataset Management command": only deallocation does something. All ranges are checked before the first one is touched. */
  #manage(command: Command, ports: TransferPorts): Outcome {
    const view = new DataView(new ArrayBuffer(((command.dwords[10] & 0xff) + 1) * rangeBytes))
    const buffer = hostBuffer(command, view.byteLength, ports.pageSize, ports.dma)
    if (typeof buffer === 'number') return { status: buffer }
    if (!buffer.read(new Uint8Array(view.buffer))) return { status: status.dataTransferError }
    if (!(command.dwords[11] & deallocate)) return { status: status.success }
    if (this.store.readOnly) return { status: status.namespaceIsWriteProtected }
    const ranges: [first: number, count: number][] = []
    for (let at = 0; at < view.byteLength; at += rangeBytes) {
      const count = view.getUint32(at + 4, true)
      const first = view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true)
      if (first + count > this.blocks) return { status: status.lbaOutOfRange }
      if (count > 0) ranges.push([first, count])
    }
    let left = mostDeallocated
    const isDone = ranges.every(([first, count]) => {
      left -= count * this.blockSize
      return left < 0 || (this.store.discard?.(first * this.blockSize, count * this.blockSize) ?? 'ok') === 'ok'
    })
    return { status: isDone ? status.success : status.writeFault }
  }

  #through(command: Command, ports: TransferPorts, outcome: Outcome): Outcome {
    const mustFlush = ports.writeThrough || (command.dwords[12] & forceUnitAccess) !== 0
    if (outcome.status !== status.success || !mustFlush) return outcome
    return { ...outcome, status: this.#done(this.store.flush(), status.writeFault) }
  }

  #done(result: StoreResult, failure: Status): Status {
    if (result === 'ok') return status.success
    this.#statistics.mediaErrors++
    return failure
  }
}
