/**
 * A parallel NOR flash memory with Intel's command set, in which UEFI firmware and its variables lie: read like ROM, programmed and
 * erased by commands. JEDEC JESD68.01, "Common Flash Interface"; Intel, "Common Flash
 * Memory Interface and Command Sets", "Basic command set".
 */
import { InputError } from '../../errors.ts'
import type { AccessSize, DeviceState, LogUnhandled, MmioHandler, Stateful } from '../ports.ts'
import type { Disk } from '../storage/disk.ts'

/** Bytes that are erased at once: the size that UEFI's driver for virtual machines expects. */
export const flashBlock = 4096
/** Bytes of the write buffer. */
const bufferSize = 2048

const command = {
  program: 0x10, erase: 0x20, programAlternate: 0x40, clearStatus: 0x50, lock: 0x60, readStatus: 0x70, readIdentifier: 0x90, query: 0x98,
  confirm: 0xd0, bufferedProgram: 0xe8, readArray: 0xff, readArrayAmd: 0xf0, readArrayZero: 0x00,
} as const

/** Of the status register. */
export const flashStatus = { ready: 0x80, eraseError: 0x20, programError: 0x10, locked: 0x02 } as const

type FlashMode = 'array' | 'status' | 'identifier' | 'query' | 'program' | 'erase' | 'lock' | 'count' | 'buffer' | 'confirm'

interface FlashState {
  mode: FlashMode
  status: number
  /** Of a buffered program: bytes still to come, and what came, by place. */
  left: number
  buffer: [number, number][]
}

const initial: FlashState = { mode: 'array', status: 0, left: 0, buffer: [] }

/** The memory that the machine shows while the device is in read-array mode. */
export interface FlashArray {
  /** Puts bytes there; it is shown. */
  load(offset: number, bytes: Uint8Array): void
  /** Whether the array is seen, or the device answers reads itself. */
  show(array: boolean): void
}

export interface FlashOptions {
  /** What it keeps; written as soon as software programs or erases. */
  disk: Disk
  array: FlashArray
  /** Whether the access that is being made is one of system management mode's: others find ROM. Without it none is refused. */
  isTrusted?: () => boolean
  log: LogUnhandled
}

/** The contents of a store for a flash memory. Throws InputError when they do not fit one. */
export function flashContents(disk: Disk): Uint8Array {
  const { byteLength, id } = disk
  const most = 16 << 20
  if (byteLength === 0 || byteLength % flashBlock !== 0 || byteLength > most) {
    throw new InputError(`flash '${id}': expected whole blocks of 4 KiB, at most 16 MiB, found ${byteLength} bytes`)
  }
  const bytes = new Uint8Array(byteLength)
  if (disk.read(0, bytes) === 'error') throw new InputError(`flash '${id}': its file cannot be read`)
  return bytes
}

export class Flash implements MmioHandler, Stateful {
  readonly #disk: Disk
  readonly #array: FlashArray
  /** Blocks that were changed while the array was hidden. */
  readonly #hidden = new Set<number>()
  readonly #isTrusted: () => boolean
  readonly #log: LogUnhandled
  readonly #query: Uint8Array
  #state: FlashState = structuredClone(initial)

  constructor({ disk, array, isTrusted = () => true, log }: FlashOptions) {
    this.#isTrusted = isTrusted
    this.#disk = disk
    this.#array = array
    this.#log = log
    this.#query = queryTable(disk.byteLength)
  }

  readMmio(offset: number, size: AccessSize): number {
    let value = 0
    for (let byte = size - 1; byte >= 0; byte--) value = (value << 8) | this.#readByte(offset + byte)
    return value >>> 0
  }

  #readByte(offset: number): number {
    const { mode, status } = this.#state
    if (!this.#isTrusted()) return this.#arrayByte(offset)
    if (mode === 'query') return this.#query[offset & 0xff] ?? 0
    if (mode === 'identifier') return [0x89, 0x18][offset & 0xff] ?? 0
    return status
  }

  #arrayByte(offset: number): number {
    const byte = new Uint8Array(1)
    this.#disk.read(offset, byte)
    return byte[0]
  }

  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (!this.#isTrusted()) return this.#log('flash', 'a write outside of system management mode, which has no effect')
    const state = this.#state
    switch (state.mode) {
      case 'program':
        this.#program(offset, Uint8Array.from({ length: size }, (_, byte) => value >>> (8 * byte)))
        return this.#done()
      case 'erase':
        if ((value & 0xff) !== command.confirm) return this.#done(flashStatus.eraseError | flashStatus.programError)
        this.#erase(offset - (offset % flashBlock))
        return this.#done()
      case 'lock':
        return this.#done()
      case 'count':
        state.left = (value & 0xffff) + 1
        return state.left <= bufferSize ? this.#enter('buffer') : this.#done(flashStatus.programError)
      case 'buffer':
        for (let byte = 0; byte < size; byte++) state.buffer.push([offset + byte, (value >>> (8 * byte)) & 0xff])
        state.left -= size
        if (state.left <= 0) this.#enter('confirm')
        return
      case 'confirm': {
        const isConfirmed = (value & 0xff) === command.confirm
        if (isConfirmed) for (const [at, byte] of state.buffer) this.#program(at, Uint8Array.of(byte))
        state.buffer = []
        return this.#done(isConfirmed ? 0 : flashStatus.programError)
      }
      default:
        return this.#command(value & 0xff)
    }
  }

  #command(value: number): void {
    switch (value) {
      case command.program:
      case command.programAlternate:
        return this.#enter('program')
      case command.erase:
        return this.#enter('erase')
      case command.lock:
        return this.#enter('lock')
      case command.bufferedProgram:
        return this.#enter('count')
      case command.clearStatus:
        // a part of silicon would show itself ready: the driver knows the memories of virtual machines by this 0, as QEMU's are
        this.#state.status = 0
        return this.#enter('array')
      case command.readStatus:
        return this.#enter('status')
      case command.readIdentifier:
        return this.#enter('identifier')
      case command.query:
        return this.#enter('query')
      case command.readArray:
      case command.readArrayAmd:
      case command.readArrayZero:
      case command.confirm:
        return this.#enter('array')
      default:
        this.#log('flash', `command 0x${value.toString(16)}, which there is not: it shows the array`)
        this.#enter('array')
    }
  }

  /** A program or erase operation is over. */
  #done(error = 0): void {
    this.#state.status |= flashStatus.ready | error
    this.#enter('status')
  }

  #enter(mode: FlashMode): void {
    if ((mode === 'array') !== (this.#state.mode === 'array')) this.#array.show(mode === 'array')
    this.#state.mode = mode
    if (mode !== 'array') return
    for (const block of this.#hidden) this.#load(block)
    this.#hidden.clear()
  }
  #load(block: number): void {
    const bytes = new Uint8Array(flashBlock)
    this.#disk.read(block * flashBlock, bytes)
    this.#array.load(block * flashBlock, bytes)
  }

  /** Programming clears bits; only erasing sets them. */
  #program(offset: number, bytes: Uint8Array): void {
    const now = new Uint8Array(bytes.length)
    this.#disk.read(offset, now)
    this.#change(offset, now.map((byte, i) => byte & bytes[i]), flashStatus.programError)
  }

  #erase(offset: number): void {
    this.#change(offset, new Uint8Array(flashBlock).fill(0xff), flashStatus.eraseError)
  }

  /** The array is hidden while commands run. */
  #change(offset: number, bytes: Uint8Array, error: number): void {
    const end = offset + bytes.length
    if (end > this.#disk.byteLength || this.#disk.readOnly || this.#disk.write(offset, bytes) === 'error') {
      this.#state.status |= error | flashStatus.locked
      return
    }
    for (let block = Math.floor(offset / flashBlock); block * flashBlock < end; block++) this.#hidden.add(block)
  }

  /** Contents survive; the array is seen again. */
  reset(): void {
    this.#enter('array')
    this.#state = structuredClone(initial)
  }
  saveState(): DeviceState {
    return structuredClone(this.#state) as unknown as DeviceState
  }
  restoreState(state: DeviceState): void {
    this.#enter('array')
    for (let block = 0; block * flashBlock < this.#disk.byteLength; block++) this.#load(block)
    const saved = structuredClone(state as unknown as FlashState)
    this.#enter(saved.mode)
    this.#state = saved
  }
}

/** What the query command shows: byte n of the CFI table at offset n. */
function queryTable(size: number): Uint8Array {
  const table = new Uint8Array(0x40)
  const blocks = size / flashBlock - 1
  table.set([0x51, 0x52, 0x59, 0x01, 0x00, 0x31, 0x00], 0x10) // QRY, Intel's extended command set, its table at 31h
  table.set([0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0], 0x1b) // voltages; times: program, buffer, block erase
  table.set([Math.ceil(Math.log2(size)), 0, 0, Math.log2(bufferSize), 0, 1], 0x27)
  table.set([blocks & 0xff, blocks >>> 8, flashBlock >>> 8, 0], 0x2d)
  table.set([0x50, 0x52, 0x49, 0x31, 0x30], 0x31) // PRI, version 1.0
  return table
}
