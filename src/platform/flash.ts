/** Flash memories below 4 GiB, and which firmware a machine starts. Intel's chipsets decode the top of the first 4 GiB to the flash. */
import { Flash, flashBlock, flashContents } from '../devices/flash/flash.ts'
import type { Disk } from '../devices/storage/disk.ts'
import type { DriveOptions } from '../devices/storage/drive.ts'
import { InputError } from '../errors.ts'
import { checkFirmware, isUefi } from './firmware.ts'
import type { PcEmbedding, PcOptions } from './pc-options.ts'

export interface FlashUnit {
  disk: Disk
  contents: Uint8Array
}

const KiB = 1024
const mostFlash = 16 * KiB * KiB

/** `open` is `openDrive`. Throws InputError when an image does not fit a flash memory. */
export function openFlash(flash: readonly DriveOptions[], open: (drive: DriveOptions) => Disk): FlashUnit[] {
  const units = flash.map(options => {
    const disk = open(options)
    return { disk, contents: flashContents(disk) }
  })
  const size = units.reduce((sum, { contents }) => sum + contents.length, 0)
  if (size > mostFlash) throw new InputError(`flash: expected at most 16 MiB in all, found ${size} bytes`)
  return units
}

/** What starts at the reset vector; undefined where the machine loads a kernel itself. Throws InputError when both are asked for. */
export function chooseFirmware({ bios, kernel, raw }: PcOptions, flash: readonly FlashUnit[]): Uint8Array | undefined {
  if (bios && flash.length > 0) throw new InputError('expected firmware in a file of its own or in flash memory, found both')
  const firmware = bios ?? flash[0]?.contents
  if (!firmware) return undefined
  checkFirmware(firmware, bios ? 64 * KiB : flashBlock)
  if (raw || (kernel && !isUefi(firmware))) throw new InputError('expected a kernel or firmware to start with, found both')
  return firmware
}

/** `secure`: only system management mode writes. The first one's last byte lies below 4 GiB, the others below one another. */
export function placeFlash(flash: readonly FlashUnit[], embedding: PcEmbedding, secure: boolean): Flash[] {
  let base = 2 ** 32
  return flash.map(({ disk, contents }) => {
    base -= contents.length
    const address = base
    const device: Flash = new Flash({
      disk, log: embedding.log, ...(secure && embedding.inSmm ? { isTrusted: embedding.inSmm } : {}),
      array: { load: (offset, bytes) => embedding.load(address + offset, bytes), show: shown => show(shown) },
    })
    const show = embedding.addFlash(address, contents, device)
    return device
  })
}
