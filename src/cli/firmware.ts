/** `--bios` and `--boot`: which firmware starts the machine when there is no kernel, and what it is told. */
import type { BootOptions } from '../api.ts'
import { InputError, isInputError } from '../errors.ts'
import { bootOrderCmos, isUefi } from '../platform/firmware.ts'
import type { System } from './system.ts'

/** Where distributions put firmware for emulators: packages seabios, ovmf, and those of QEMU. */
const folders = ['/usr/share/seabios', '/usr/share/ovmf', '/usr/share/OVMF', '/usr/share/qemu', '/usr/share/qemu-kvm']
const defaultName = 'bios-256k.bin'
const videoName = 'vgabios-stdvga.bin'

export interface FirmwareChoice {
  /** A file, or a name in the usual folders. Default: SeaBIOS. */
  bios: string | undefined
  order: string | undefined
  menu?: boolean
  /** Firmware lies in flash memory: no file is read. */
  flash?: boolean
}

type FirmwareOptions = Pick<BootOptions, 'bios' | 'vgaBios' | 'bootSettings'>

/** `devices`: those of the machine; a VGA comes with its video BIOS. */
export function firmwareOptions(
  { bios, order, menu = false, flash = false }: FirmwareChoice, devices: readonly { name: string }[], system: System,
): FirmwareOptions {
  if (order !== undefined) bootOrderCmos({ order }) // says what is wrong with it
  const hasVga = devices.some(({ name }) => name === 'VGA')
  return {
    ...(flash && bios === undefined ? {} : { bios: readFirmware(bios, system) }),
    ...(hasVga ? { vgaBios: readFirmware(videoName, system) } : {}),
    bootSettings: { serialConsole: true, menu, ...(order === undefined ? {} : { order }) },
  }
}

/** Whether a machine starts UEFI: what lies in flash memory is. */
export const hasUefi = ({ bios }: BootOptions, flash: readonly unknown[] = []): boolean =>
  flash.length > 0 || (bios !== undefined && isUefi(bios))

function readFirmware(file: string | undefined, system: System): Uint8Array {
  const name = file ?? defaultName
  const places = [...(file === undefined ? [] : [file]), ...(name.includes('/') ? [] : folders.map(folder => `${folder}/${name}`))]
  for (const place of places) {
    try {
      return system.readFile(place)
    } catch (error) {
      if (!isInputError(error) || places.length === 1) throw error
    }
  }
  const instead = file === undefined ? 'expected SeaBIOS (Debian: apt install seabios), or --bios FILE' : `expected firmware '${file}'`
  throw new InputError(`nothing to boot with: ${instead}, found none in ${folders.join(', ')}`)
}
