/** What a PC is made of, and what the machine around it gives it. */
import type { IommuOptions, NetworkOptions, ShareOptions } from '../api.ts'
import type { Clock, DmaPort, LogUnhandled, MmioHandler } from '../devices/ports.ts'
import type { DriveOptions } from '../devices/storage/drive.ts'
import type { PriorityRegisters } from '../interrupts/lapic-priority.ts'
import type { LapicSignals } from '../interrupts/lapic.ts'
import type { OutsideRequest } from '../net/outside.ts'
import type { BootRequest } from './boot/boot.ts'
import type { BootRegisters } from './boot/image.ts'
import type { DeviceRequest } from './device-catalogue.ts'
import type { BootSettings } from './firmware.ts'
import type { MemoryMap } from './memory-map.ts'
import type { ProcessorDescription } from './smbios.ts'

export interface PcOptions extends BootRequest {
  /** From createMemoryMap: the embedding makes RAM of its `ram`. */
  map: MemoryMap
  cpus: number
  /** What the RTC shows at virtual time 0: seconds since 1970 UTC. */
  rtcEpoch: number
  /** Firmware that starts at the reset vector, instead of a kernel. */
  bios?: Uint8Array
  /** Flash memories that end at 4 GiB, the first one on top, where processors start: it is the firmware when there is no `bios`. */
  flash?: readonly DriveOptions[]
  secureFlash?: boolean
  bootSettings?: BootSettings
  /** The video BIOS for a VGA, given to firmware. */
  vgaBios?: Uint8Array
  /** More files of fw_cfg, by name. */
  fwCfgFiles?: ReadonlyMap<string, Uint8Array> | undefined
  devices?: readonly DeviceRequest[]
  /** What disks are made of: a device takes one by its ID. */
  drives?: readonly DriveOptions[]
  /** What network devices are plugged into: a device takes one by its ID. */
  networks?: readonly NetworkOptions[]
  iommus?: readonly IommuOptions[]
  /** Folders of the embedder: a device takes one by its ID. */
  shares?: readonly ShareOptions[]
  /** Seed of what is random in devices. */
  seed?: number
  /** What SMBIOS says of the processor. Default: nothing is said. */
  processor?: ProcessorDescription
  /** The processors have VT-x, which firmware turns on. */
  vmx?: boolean
  /** How many serial ports there are, COM1 to COM4. Default: 1. */
  serialPorts?: number
  /** A serial port's interrupt passes only while OUT2 is set, as on a PC (default). False: always, as in QEMU, which xv6 counts on. */
  serialGate?: boolean
  lapic: {
    /** Hz of the timer's input clock: what CPUID leaf 15H says where it is offered. */
    timerFrequency: number
    x2apic?: boolean
    tscDeadline?: boolean
    physicalAddressBits?: number
  }
  /** Where the local APIC of a CPU keeps its vectors. Default: in itself. */
  apicPriority?: (cpu: number) => PriorityRegisters | undefined
}

/** What the machine gives the PC. */
export interface PcEmbedding {
  clock: Clock
  addMmio: (base: number, size: number, name: string, handler: MmioHandler) => void
  /** Bus masters' way to physical memory. */
  dma: DmaPort
  /** Puts bytes into RAM: an image of the boot loader or of firmware. */
  load: (address: number, bytes: Uint8Array) => void
  /** ROM, of whole pages. */
  addRom: (address: number, bytes: Uint8Array) => void
  /** ROM that takes commands; the result shows or hides its contents. */
  addFlash: (address: number, bytes: Uint8Array, device: MmioHandler) => (shown: boolean) => void
  /** Whether the access that is being made comes from a processor in system management mode. */
  inSmm?: () => boolean
  setReadOnly: (address: number, length: number, readOnly: boolean) => void
  /** How a local APIC reaches its CPU. */
  cpuSignals: (cpu: number) => LapicSignals
  /** The time-stamp counter of a CPU, for TSC-deadline timers. Default: virtual nanoseconds. */
  tsc?: (cpu: number) => bigint
  /** Called when software asks for it; the embedding decides when it happens. `reset` ends in Pc.reset(). */
  powerOff: () => void
  reset: () => void
  debugExit: (status: number) => void
  /** SMI# of the CPU whose access the chipset sees: as on QEMU, no other one gets it. */
  smi?: () => void
  /** The chipset drives A20M#: false when address bit 20 is to be masked. Default: it never is. */
  a20Moved?: (enabled: boolean) => void
  /** `smram` has changed. */
  smramChanged?: () => void
  /**
   * S3: all CPUs stop until `wake`, which starts the first one at FACS' waking vector; RAM is kept. Without it the machine does not offer
   * S3.
   */
  sleep?: () => void
  wake?: (registers: BootRegisters) => void
  /** A byte sent by serial port 0 (COM1), 1 (COM2) and so on. */
  serialOutput: (port: number, byte: number) => void
  /** A byte written to a debug console. Default: it is dropped. */
  debugOutput?: (byte: number) => void
  /** What a network asks of the world. Default: nobody answers. */
  outside?: (network: string, request: OutsideRequest) => void
  log: LogUnhandled
}
