/** Tells a kernel's boot protocol from its bytes, and loads it. */
import type { MemoryMap } from '../memory-map.ts'
import { BootError, type BootImage, checkPlacement, describeFile, gdtBytes, makeRegisters, type StartMode } from './image.ts'
import { identityTables, isLinux, loadLinux } from './linux.ts'
import { findMultibootHeader, loadMultiboot } from './multiboot.ts'

export interface BootRequest {
  kernel?: Uint8Array
  kernelName?: string
  initrd?: Uint8Array
  initrdName?: string
  commandLine?: string
  raw?: { image: Uint8Array; at: number; mode: StartMode }
}

/** Undefined when there is nothing to boot. */
export function loadBootImage(request: BootRequest, map: MemoryMap): BootImage | undefined {
  const { kernel, initrd, commandLine = '' } = request
  if (request.raw) return loadRaw(request.raw, map)
  if (!kernel) {
    if (initrd || commandLine) throw new BootError(`${initrd ? 'initrd' : 'command line'}: expected a kernel to go with it, found none`)
    return undefined
  }
  if (isLinux(kernel)) return loadLinux({ kernel, initrd, commandLine, e820: map.e820, rsdp: map.rsdp })
  if (findMultibootHeader(kernel)) {
    const modules = initrd ? [{ bytes: initrd, commandLine: request.initrdName ?? 'initrd' }] : []
    return loadMultiboot({ kernel, kernelName: request.kernelName ?? 'kernel', commandLine, modules, e820: map.e820 })
  }
  throw new BootError(`kernel: expected a Linux bzImage or a multiboot 1 kernel, found ${describeFile(kernel)}`)
}

/** Low memory of a raw image's GDT and page tables: the image may not lie over them unless it starts in real mode. */
const rawPlace = { gdt: 0x6000, pageTables: 0x9000 } as const
const rawGdt = [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00af9b000000ffffn]

function loadRaw(raw: { image: Uint8Array; at: number; mode: StartMode }, map: MemoryMap): BootImage {
  const registers = makeRegisters(raw.mode, raw.at, {})
  const writes = [{ address: raw.at, bytes: raw.image, what: 'raw image' }]
  if (raw.mode === 'real16') {
    if (raw.at > 0xffff0) throw new BootError(`raw image: expected an address below 0xffff0 for real mode, found 0x${raw.at.toString(16)}`)
    const segment = raw.at > 0xffff ? raw.at >> 4 : 0
    registers.rip = raw.at - segment * 16
    registers.selectors.cs = segment
    registers.gpr[4] = 0x7000n
  } else {
    const code = raw.mode === 'long64' ? 0x18 : 8
    registers.selectors = { cs: code, ds: 0x10, es: 0x10, ss: 0x10, fs: 0x10, gs: 0x10 }
    registers.gdt = { base: rawPlace.gdt, limit: rawGdt.length * 8 - 1 }
    registers.gpr[4] = BigInt(rawPlace.gdt)
    writes.push({ address: rawPlace.gdt, bytes: gdtBytes(rawGdt), what: 'GDT' })
    if (raw.mode === 'long64') {
      registers.cr3 = rawPlace.pageTables
      writes.push({ address: rawPlace.pageTables, bytes: identityTables(rawPlace.pageTables), what: 'page tables' })
    }
  }
  const image = { writes, zeros: [], registers }
  checkPlacement(image, map.e820)
  return image
}
