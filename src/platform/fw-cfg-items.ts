/** What QEMU's firmware configuration device tells of a machine (QEMU docs/specs, "QEMU Firmware Configuration Device"). */
import { fwCfgKey, fwCfgNumber } from '../devices/fw-cfg/fw-cfg.ts'
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
    ...(options.kernel && boot ? kernelItems(options, boot) : []),
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
