/** What QEMU's firmware configuration device tells of a machine (QEMU docs/specs, "QEMU Firmware Configuration Device"). */
import { fwCfgKey, fwCfgNumber } from '../devices/fw-cfg/fw-cfg.ts'
import { InputError } from '../errors.ts'
import { type BootImage, viewOf } from './boot/image.ts'
import type { E820Entry } from './memory-map.ts'
import type { PcOptions } from './pc-options.ts'

/** The items that have keys of their own. `memory`: bytes of RAM. */
export function fwCfgItems(options: PcOptions, memory: number, boot: BootImage | undefined): Map<number, Uint8Array> {
  const { cpus } = options
  return new Map([
    [fwCfgKey.ramSize, fwCfgNumber(memory, 8)],
    [fwCfgKey.noGraphic, fwCfgNumber(1, 2)],
    [fwCfgKey.cpus, fwCfgNumber(cpus, 2)],
    [fwCfgKey.maxCpus, fwCfgNumber(cpus, 2)],
    ...(options.kernel ? (boot ? kernelItems(options, boot) : stubItems(options.kernel, options)) : []),
  ])
}

function kernelItems({ initrd, commandLine = '' }: PcOptions, boot: BootImage): [number, Uint8Array][] {
  const text = new TextEncoder().encode(`${commandLine}\0`)
  // As QEMU does: the image as loaded. kvm-unit-tests reads its first eight bytes as the upper limit of RAM.
  const image = boot.writes.find(({ what }) => what.startsWith('kernel'))
  return [
    [fwCfgKey.kernelAddress, fwCfgNumber(image?.address ?? 0, 4)],
    [fwCfgKey.kernelEntry, fwCfgNumber(boot.registers.rip, 4)],
    [fwCfgKey.kernelSize, fwCfgNumber(image?.bytes.length ?? 0, 4)],
    [fwCfgKey.kernelData, image?.bytes ?? new Uint8Array(0)],
    [fwCfgKey.commandLineSize, fwCfgNumber(text.length, 4)],
    [fwCfgKey.commandLineData, text],
    [fwCfgKey.initrdSize, fwCfgNumber(initrd?.length ?? 0, 4)],
    ...(initrd ? [[fwCfgKey.initrdData, initrd] as [number, Uint8Array]] : []),
  ]
}

const setupSector = 512
const usualSetupSectors = 4
const setupSectorsAt = 0x1f1
/** HdrS. */
const linuxSignature = 0x53726448

/**
 * Items from which UEFI starts a kernel by its EFI stub: what precedes the protected-mode part of a bzImage (Linux documentation,
 * "The Linux/x86 Boot Protocol"), the rest, the initial RAM disk and the command line.
 */
function stubItems(kernel: Uint8Array, { initrd, commandLine = '' }: PcOptions): [number, Uint8Array][] {
  const isLinux = kernel.length > 0x206 && viewOf(kernel).getUint32(0x202, true) === linuxSignature
  const setup = isLinux ? Math.min(kernel.length, ((kernel[setupSectorsAt] || usualSetupSectors) + 1) * setupSector) : 0
  const text = new TextEncoder().encode(`${commandLine}\0`)
  return [
    [fwCfgKey.setupSize, fwCfgNumber(setup, 4)], [fwCfgKey.setupData, kernel.subarray(0, setup)],
    [fwCfgKey.kernelSize, fwCfgNumber(kernel.length - setup, 4)], [fwCfgKey.kernelData, kernel.subarray(setup)],
    [fwCfgKey.initrdSize, fwCfgNumber(initrd?.length ?? 0, 4)], [fwCfgKey.initrdData, initrd ?? new Uint8Array(0)],
    [fwCfgKey.commandLineSize, fwCfgNumber(text.length, 4)], [fwCfgKey.commandLineData, text],
  ]
}

/** QEMU's file of the memory map: 20 bytes an entry. */
export function e820File(e820: readonly E820Entry[]): Uint8Array {
  const bytes = new Uint8Array(e820.length * 20)
  const view = viewOf(bytes)
  e820.forEach(({ base, size, type }, index) => {
    view.setBigUint64(index * 20, BigInt(base), true)
    view.setBigUint64(index * 20 + 8, BigInt(size), true)
    view.setUint32(index * 20 + 16, type, true)
  })
  return bytes
}

/** Throws an InputError for a name that is taken, or is none. */
export function withFiles(own: Map<string, Uint8Array>, given: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  for (const name of given.keys()) {
    if (own.has(name)) throw new InputError(`fw_cfg file '${name}': expected another name, for the machine has one of that name`)
    if (!/^[!-~]{1,55}$/.test(name)) throw new InputError(`fw_cfg file '${name}': expected a name of 1 to 55 ASCII characters`)
  }
  return new Map([...own, ...given])
}
