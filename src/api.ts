/**
 * The public face of the machine: the types that an embedder, the command line and the tools use.
 * Everything else is internal.
 */
import type { WatchedRange } from './engine/data-watch.ts'
import type { GuestListener } from './cpu/guest-event.ts'
import type { Nanoseconds } from './devices/ports.ts'
import type { BlockStore } from './devices/storage/block-store.ts'
import type { DriveOptions } from './devices/storage/drive.ts'
import type { SharedFolder } from './devices/virtio/p9/folder.ts'
import type { TextScreen } from './devices/vga/vga.ts'
import type { OutsideAddress, OutsideEvent, OutsideRequest } from './net/outside.ts'

export type { BlockStore, DriveOptions, OutsideAddress, OutsideEvent, OutsideRequest, SharedFolder, TextScreen, WatchedRange }
export type {
  FileStatus, FolderEntry, FolderFile, FolderPath, FolderSpace, Instant, OpenMode, StatusChange,
} from './devices/virtio/p9/folder.ts'

/** A CPU model by name with features switched on or off, such as `{ model: 'intel', add: ['pku'], remove: ['la57'] }`. */
export interface CpuSelection {
  /** `intel` and `amd` are the newest complete models; `help` lists all names. */
  model: string
  add?: string[]
  remove?: string[]
  /** Vendor string, when it is to differ from the model's: `GenuineIntel` or `AuthenticAMD`. */
  vendor?: string
}

/** What is put into memory before the first instruction. */
export interface BootOptions {
  /** Linux bzImage, an ELF or flat multiboot 1 or 2 kernel, or a PVH ELF; the kind is told from its bytes unless `protocol` says it. */
  kernel?: Uint8Array
  protocol?: 'linux' | 'multiboot' | 'multiboot2' | 'pvh'
  /** The kernel's file name as software sees it (first word of a multiboot command line). */
  kernelName?: string
  /** Linux: the initial RAM disk. Multiboot: the first module. */
  initrd?: Uint8Array
  initrdName?: string
  /** Instead of `initrd`: several files, each with what the kernel is told about it. */
  modules?: readonly { bytes: Uint8Array; name: string; arguments: string }[]
  commandLine?: string
  /**
   * Firmware such as SeaBIOS or UEFI's OVMF, mapped below 4 GiB and started at the reset vector; it boots from the drives. UEFI starts a
   * `kernel` too, by its EFI stub; other firmware and a kernel exclude each other.
   */
  bios?: Uint8Array
  /** Instead of `bios`: flash memories that end at 4 GiB, the first on top. UEFI's variables live in one that may be written. */
  flash?: DriveOptions[]
  /** Only processors in system management mode write flash memory: what firmware with Secure Boot keeps its variables by. */
  secureFlash?: boolean
  /** The video BIOS of the device VGA, such as vgabios-stdvga.bin, for firmware to run. */
  vgaBios?: Uint8Array
  /** What firmware is told: see the boot options of the command line. */
  bootSettings?: { order?: string; menu?: boolean; serialConsole?: boolean }
  /** A raw image executed from physical address `at`, in real mode: for tests. */
  raw?: { image: Uint8Array; at: number; mode: 'real16' | 'protected32' | 'long64' }
}

/** A network that a device such as virtio-net-pci is plugged into, by its ID. */
export interface NetworkOptions {
  id: string
  /**
   * `user`: a router with DHCP and DNS, whose connections and datagrams the embedder makes (`onOutside`, `outsideInput`). `link`: frames of
   * Ethernet go that way as they are.
   */
  kind: 'user' | 'link'
  /** `user`: nothing leads out. */
  restrict?: boolean
}

/** A unit that remaps DMA and interrupts: `vtd`, Intel's. Properties are those of `--iommu help`. */
export interface IommuOptions {
  model: string
  properties: Record<string, string>
}

/** A folder that the device virtio-9p-pci shows, by its ID. */
export interface ShareOptions {
  id: string
  folder: SharedFolder
}

/** What a remapping unit did: translated an access, delivered an interrupt, refused either, forgot what software told it to. */
export interface RemappingEvent {
  time: Nanoseconds
  /** `vtd.0` is the first unit. */
  unit: string
  kind: 'dma' | 'interrupt' | 'fault' | 'invalidation'
  /** The requester ID: bus << 8 | device << 3 | function; undefined for software. */
  source: number | undefined
  /** Who asked what, which entry decided, and where that lies. */
  words: string
}

/** An exception or interrupt on its way through the IDT, and where the processor was. */
export interface DeliveredEvent {
  time: Nanoseconds
  cpu: number
  /** `external`: by the interrupt controller; the last three: INT n, INT1, INT3 and INTO. */
  kind: 'external' | 'nmi' | 'exception' | 'softwareInterrupt' | 'privilegedSoftware' | 'softwareException'
  vector: number
  /** undefined: pushes none. */
  error: number | undefined
  /** CR2 of a page fault. */
  address: bigint | undefined
  /** A guest of VT-x or AMD-V runs. */
  guest: boolean
  cpl: number
  cs: number
  rip: bigint
  ss: number
  rsp: bigint
  rax: bigint
}

/**
 * What a machine is made of. `createMachine` throws an `InputError` for what makes no machine: it says what was expected, what was found
 * and where.
 */
export interface MachineOptions extends BootOptions {
  /** Default: `intel`. */
  cpu?: CpuSelection
  /** How many, 1 to 64. Default: 1. */
  cpus?: number
  /** RAM in bytes: a multiple of 1 MiB, at least 2 MiB. Default: 512 MiB. */
  memory?: number
  /** `pc`, the default, puts up to 3 GiB of RAM below 4 GiB, `q35` up to 2 GiB (as QEMU does). */
  chipset?: 'pc' | 'q35'
  /** Devices besides the platform's own: name and properties, as after `--device`. */
  devices?: { name: string; properties: Record<string, string> }[]
  /** What disks are made of; a device such as virtio-blk-pci names one by its ID. */
  drives?: DriveOptions[]
  /** How many serial ports there are, COM1 to COM4. Default: 1. */
  serialPorts?: number
  /** A serial port's interrupt passes only while OUT2 is set, as on a PC (default). False: always, as in QEMU, which xv6 counts on. */
  serialGate?: boolean
  /** Files that software finds in QEMU's fw_cfg device, by names of 1 to 55 ASCII characters; those that it has anyhow are taken. */
  fwCfgFiles?: ReadonlyMap<string, Uint8Array>
  networks?: NetworkOptions[]
  /** Remapping units; the last one has what no other names. Needs the chipset q35. */
  iommus?: IommuOptions[]
  /** Folders shared with software: what it reads of them is input, as that of a disk image is. */
  shares?: ShareOptions[]
  /** What runs instructions; the result is the same. `jit`, for long runs, compiles what is hot. Default: `interpreter`. */
  engine?: 'interpreter' | 'jit' | 'step'
  /** Seed of everything that is random in the machine. */
  seed?: number
  /** Wall-clock time at power-on as the RTC shows it, in seconds since 1970 UTC. Default: a fixed date. */
  rtcEpoch?: number
  /** A reset requested by software ends the run instead of restarting the machine. */
  noReboot?: boolean
  /** Says through onLog why VM entries fail: every rule that is broken, the field, its value, and a value that would do. */
  explain?: boolean
}

/** Why a run stopped. */
export type StopReason =
  | { kind: 'budget' } // the instruction budget given to run() is used up
  | { kind: 'time' } // the deadline in virtual time given to run() is reached
  // every CPU is halted, and no alarm is set or interrupts are off for 10 s of virtual time: only outside input can go on with it. It is
  // `untilTime` now, if that was given
  | { kind: 'idle' }
  | { kind: 'power-off' }
  | { kind: 'reset' } // software asked for a reset and noReboot is set
  | { kind: 'debug-exit'; status: number } // isa-debug-exit: status is (value << 1) | 1
  | { kind: 'triple-fault'; report: string }
  | { kind: 'breakpoint'; cpu: number }
  | { kind: 'watchpoint'; cpu: number; range: WatchedRange } // the instruction before made an access that setWatchpoints asks for
  | { kind: 'root'; cpu: number } // a CPU whose root mode is driven from TypeScript (root-door.ts) has come back to it

/** Where a run ends at the latest; without limits when the machine stops. */
export interface RunLimits {
  /** At most this many instructions (of all CPUs together), exactly. */
  maxInstructions?: number
  /** Stop when the virtual clock reaches this time. With all CPUs halted it jumps to the next alarm, and never further than here. */
  untilTime?: Nanoseconds
}

/** Architectural registers of one CPU as plain data; 64-bit values are BigInt. */
export interface CpuRegisters {
  /** rax rcx rdx rbx rsp rbp rsi rdi r8..r15, in this order. */
  gpr: bigint[]
  rip: bigint
  rflags: bigint
  segments: Record<
    'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr',
    { selector: number; base: bigint; limit: number; attributes: number }
  >
  gdtr: { base: bigint; limit: number }
  idtr: { base: bigint; limit: number }
  cr0: bigint
  cr2: bigint
  cr3: bigint
  cr4: bigint
  cr8: bigint
  efer: bigint
  dr: bigint[]
  /** 16 (xmm), low and high half each. */
  xmm: { low: bigint; high: bigint }[]
  /** 16: bits 255:128 of the YMM registers. */
  ymmHigh: { low: bigint; high: bigint }[]
  mxcsr: number
  /** x87: control, status, tag (16-bit, two bits a register), and st(0)..st(7) as 80-bit integers. */
  x87: { control: number; status: number; tag: number; st: bigint[] }
}

/** One CPU of a saved machine. */
export interface SavedCpu {
  /** Its architectural fields, in the layout of the version that saved them. */
  state: Uint8Array
  retired: number
  shadowAt: number
  nmi: boolean
  smi: boolean
  init: boolean
  startup: number
}

/** A machine between two runs, as plain data: numbers, strings, arrays, objects and bytes. */
export interface MachineState {
  /** Says which machines can take it: those made with the same options. */
  configuration: string
  cpus: SavedCpu[]
  tlbs: unknown[]
  /** What a second stage of translation (EPT) keeps; absent when there is none. */
  secondStage?: unknown
  /** RAM and ROM that is not zero. */
  memory: { address: number; bytes: Uint8Array }[]
  clock: { now: Nanoseconds; alarms: Record<string, Nanoseconds> }
  devices: unknown
  /** What the machine has written to its disks. */
  disks: { id: string; units: { index: number; bytes: Uint8Array }[] }[]
  turns: { asleep: boolean; resetRequested: boolean; last: number; turnEnd: number }
}

/** An x86-64 PC. All methods are synchronous; between two runs the embedder may look at and feed everything. */
export interface Machine {
  /** Runs until a limit or an event; resumable. */
  run(limits?: RunLimits): StopReason
  /** Executes exactly one instruction (or delivers one interrupt) on a CPU. */
  step(cpu?: number): StopReason | undefined
  /** Makes `run` stop with `breakpoint` before an instruction at one of these linear addresses. Code of their pages runs step by step. */
  setBreakpoints(linear: ReadonlySet<bigint>): void
  /**
   * Makes `run` stop with `watchpoint` after an instruction that accesses one of these, at any privilege, in guests too. While there are
   * any, every instruction is a step: about a million a second.
   */
  setWatchpoints(ranges: readonly WatchedRange[]): void
  /** Instructions retired by all CPUs since power-on. */
  readonly retired: number
  /** The virtual clock. */
  readonly now: Nanoseconds
  /** When the last run ended with all CPUs halted: the time of the next alarm, Infinity without one. Else no later than now. */
  readonly idleUntil: Nanoseconds
  /** Bytes of RAM and ROM that have been touched, in whole chunks: what the embedder's memory holds of the machine's. */
  readonly touchedMemory: number
  /** Bytes typed into a serial port: 0, the default, is COM1. */
  serialInput(bytes: Uint8Array, port?: number): void
  /** Called with the bytes that a serial port sends (0 is COM1), in order, in batches. */
  onSerialOutput: (bytes: Uint8Array, port: number) => void
  /** Called with each byte that software writes to a debug console (isa-debugcon). */
  onDebugOutput: (byte: number) => void
  /** What networks ask of the world, in order, in batches at the end of each run. */
  onOutside: (network: string, request: OutsideRequest) => void
  /** What the world answers: input as keys are, taken between two runs. */
  outsideInput(network: string, event: OutsideEvent): void
  /** Messages of the machine itself: what software touched that is not there or not implemented. */
  onLog: (message: string) => void
  /** Called at each VM entry, VM exit and failed entry while it is set; costs time, and changes nothing. */
  onGuestEvent: GuestListener | undefined
  /** Called at each exception and interrupt that goes through the IDT while it is set; costs time, and changes nothing. */
  onDelivery: ((event: DeliveredEvent) => void) | undefined
  /** Called at each decision of a remapping unit while it is set; costs time, and changes nothing. */
  onRemappingEvent: ((event: RemappingEvent) => void) | undefined
  /** The power button, as ACPI knows it, and the reset button: input as keys are, taken between two runs. */
  pressPowerButton(): void
  pressReset(): void
  /** What the device VGA shows in a text mode; undefined without it, and in a graphics mode. */
  screen(): TextScreen | undefined
  registers(cpu?: number): CpuRegisters
  setRegisters(registers: Partial<CpuRegisters>, cpu?: number): void
  /** Physical memory, without side effects on devices; unbacked RAM reads as zero, anything else as 0xFF. */
  readPhysical(address: number, length: number): Uint8Array
  writePhysical(address: number, bytes: Uint8Array): void
  /** Translates as the CPU would now, without faults or side effects; undefined when not mapped. */
  translate(linear: bigint, cpu?: number): number | undefined
  /** Counts for people who look at speed, by name; they say nothing about the machine's state and may change between versions. */
  statistics(): Record<string, number>
  /**
   * The whole machine, between two runs. What is on its way in the world outside (connections of a network) is not part of it. InputError:
   * a processor has virtualization switched on.
   */
  saveState(): MachineState
  /**
   * Makes this machine what another one was that was made with the same options. InputError: it was made with others, or wrote to an image
   * that cannot be turned back.
   */
  restoreState(state: MachineState): void
  /** SHA-256 (hexadecimal) over all architectural state: equal hashes mean equal machines. */
  stateHash(): string
  /** A human's picture of a CPU now: registers, disassembly around RIP where it can be read, last branches. */
  describe(cpu?: number): string
}
