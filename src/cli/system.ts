/** What the command line needs of the place where it runs. The embedder provides it; tests provide a fake. */
import type { BlockStore, MachineOptions, SharedFolder } from '../api.ts'
import type { Ending, SessionOptions } from '../embedder/session.ts'
import type { Symbols } from '../insight/symbols.ts'
import type { AssistStatistics } from '../vmm/apic/assist.ts'
import type { BoardOptions } from '../vmm/board/board.ts'
import type { HypervisorOptions } from '../vmm/machine-options.ts'
import type { Vmm } from '../vmm/vmm.ts'

/** A Unix-domain socket, or a TCP port. */
export type SocketAddress = { path: string } | { host: string; port: number }

/**
 * Where a serial port is: the terminal or pipe we were started in, nowhere, a file that it is written to, a pair of named pipes
 * (PATH.in and PATH.out), a new pseudo-terminal, which is announced by that label, or a socket. A listening one that waits holds the
 * machine back until somebody is there. `telnet`: with that protocol's commands between the bytes.
 */
export type SerialTarget =
  | 'stdio' | 'none' | { file: string } | { pipe: string } | { pty: string }
  | { socket: SocketAddress; listen: boolean; wait: boolean; telnet?: boolean }

/** A TCP port of ours that leads into the machine; without a host of ours on all addresses, without one of the machine's to its lease. */
export interface PortForward {
  host?: string
  port: number
  toHost?: string
  toPort: number
}

/** A link to other machines: we wait for them, as a switch, or go where one waits. Without a host, on our own. */
export type LinkPlace = { listen: { host: string; port: number } } | { connect: { host: string; port: number } }

export interface ConsoleOptions {
  serial: SerialTarget
  /** Which serial port that is: 0, the default, is COM1. */
  port?: number
  /** On a terminal, Ctrl-A begins a command. */
  escape: boolean
  /** On a terminal, Ctrl-C leaves instead of going to the guest. */
  interrupt: boolean
  /** Do not print what the machine itself has to say. */
  quiet: boolean
  /** Keep the console's output for the result instead of printing it. */
  collect: boolean
}

/** VM entries and exits; decisions of remapping units; exceptions and interrupts. */
export const traceKinds = ['exits', 'iommu', 'events'] as const
export type TraceKind = (typeof traceKinds)[number]

export interface RunRequest {
  machine: MachineOptions
  /** Folder for compiled code of this run and later ones; `off`: none. By default the embedder knows one. */
  codeCache?: string
  /** A file with the state in which the machine begins. */
  restore?: string
  /** The file that the machine's state is written to, when the run ends while the machine could go on. */
  save?: string
  /** Ports that lead into user networks, by the network's ID. */
  forwards?: Record<string, PortForward[]>
  /** Where plain links lead, by the network's ID. */
  links?: Record<string, LinkPlace>
  console: ConsoleOptions
  /** Where other serial ports than the console's are. */
  serials?: { port: number; target: SerialTarget }[]
  /** Where a debug console (isa-debugcon) writes. Default: our own messages, by lines. */
  debugConsole?: SerialTarget
  /** Where somebody may ask about the run and steer it: in QEMU's commands for people, or in JSON. */
  monitors?: { kind: 'human' | 'qmp'; target: SerialTarget }[]
  /** Nothing runs until a monitor says so. */
  paused?: boolean
  session: SessionOptions
  /** Where a GDB may connect; with `wait`, nothing runs until it says so. */
  gdb?: { address: SocketAddress; wait: boolean }
  /** Print a line for each event of these kinds, or write it to the file; `log`: what the machine itself says goes there, too. */
  trace?: { kinds: readonly TraceKind[]; file?: string; log?: boolean }
  /** Say why VM entries fail. */
  explain?: boolean
  /** Names of addresses, for `trace` and `explain`. */
  symbols?: Symbols | undefined
  /** Sample where the time goes; with a file, write the samples there. */
  profile?: { file?: string; symbols: Symbols | undefined }
}

export interface RunResult {
  ending: Ending
  instructions: number
  virtualNanoseconds: number
  wallSeconds: number
  /** What the run cost, in bytes and seconds: the machine's own memory, all memory of the process at the end, processor time. */
  resources: { touchedMemory: number; residentMemory: number; cpuSeconds: number }
  /** The console's output when it was collected. */
  console: string
  /** The last kernel panic that the console showed and that was not followed by an orderly restart. */
  panic: string | undefined
  /** The machine's picture of CPU 0, when it ended without a report. */
  picture: string | undefined
  /** The lines of a text screen, when the machine has one that shows anything. */
  screen?: string[] | undefined
  /** The table of the profile that was asked for. */
  profile?: string
}

/** A name that one can choose, as a list shows it. */
export interface Choice {
  name: string
  description: string
  /** Property names with their defaults, for devices. */
  properties?: Record<string, string>
  /** The bus it sits on, for devices: `ISA` or `PCI`. */
  bus?: string
}

/** The names that the machine knows. */
export interface Catalogue {
  cpuModels: Choice[]
  cpuFeatures: readonly string[]
  /** Of those, what nothing behind CPUID implements. */
  cpuFeaturesNotImplemented: readonly string[]
  devices: Choice[]
  /** Features that are not implemented: asked for, and had by that processor. Throws an Error for a name that nobody knows. */
  checkCpu(specification: string): { notOffered: readonly string[]; lacking: readonly string[] }
  /** What a model is, in some lines. Throws as well. */
  describeCpu(specification: string): string
}

/** What `vitrine bench` is asked for; lists are in commas. */
export interface BenchRequest {
  files?: string
  only?: string
  peers?: string
  rounds?: number
  timeoutSeconds: number
  cpu: 'intel' | 'amd'
  quick: boolean
  checks: boolean
  report: boolean
  json?: string
  svg?: string
}

/** Guests that our hypervisor runs. */
export interface GuestsRequest {
  machine: HypervisorOptions
  guests: BoardOptions[]
  timeoutSeconds?: number
  /** A vCPU is sent to another processor every so many virtual nanoseconds. */
  migrateEvery?: number
  /** IDs of the device of the machine that is the first guest's. */
  assign?: { vendor: number; device: number } | undefined
  /** The network that connects the guests' cards. */
  network?: string
  quiet: boolean
  /** A guest that resets itself starts again from its kernel. */
  reboot: boolean
  /** Keep the consoles for the result instead of printing them. */
  collect: boolean
}
export interface GuestsResult {
  ending: Ending
  /** Why the hypervisor stopped, when it was not its guests' end. */
  explanation: string | undefined
  instructions: number
  virtualNanoseconds: number
  guests: {
    name: string
    /** Power-off, reset, a triple fault; undefined: it was still there. */
    ending: string | undefined
    /** How often it has started again. */
    restarts: number
    memoryPresent: number
    /** With `collect`: SHA-256 of its memory at the end (number, as 64 bits, and bytes of each page that is not zeros), what it wrote. */
    memoryHash?: string
    console?: string
    vcpus: {
      name: string; entries: number; guestTime: number; migrations: number; exits: { kind: string; count: number }[]
      /** What the processors did of its APIC, if they did. */
      apic: AssistStatistics | undefined
    }[]
  }[]
}

export interface System {
  /** The whole of a file. Throws an InputError that says why not. */
  readFile(path: string): Uint8Array
  /** The same for what only the machine looks at: the bytes may come later than this returns, but before `run` makes the machine. */
  readForRun(path: string): Uint8Array
  /** A disk image, read and written in place. Throws an InputError that says why not. */
  openStore(path: string, readOnly: boolean): BlockStore
  /** What is in a folder, as a disk with a FAT file system that cannot be written. Throws an InputError that says why not. */
  openFatFolder(path: string): BlockStore
  /** A folder that the machine shares. Throws an InputError that says why not. */
  openFolder(path: string, readOnly: boolean): SharedFolder
  /** The path of a file that is named within another one, as a backing file is. */
  pathBeside(path: string, name: string): string
  writeFile(path: string, text: string): void
  /** The wall clock, in seconds since 1970: only for who asks for the date of today. */
  now(): number
  readonly processId: number
  print(text: string): void
  printError(text: string): void
  catalogue(): Promise<Catalogue>
  run(request: RunRequest): Promise<RunResult>
  /** Guests with kernels of their own on our hypervisor; their consoles are standard input and output. */
  runGuests(request: GuestsRequest): Promise<GuestsResult>
  /** A machine with our hypervisor on it. Throws an InputError for options that make none. */
  hypervisor(options: HypervisorOptions): Promise<Vmm>
  /** Measures us beside others, and prints what came of it. */
  bench(request: BenchRequest): Promise<void>
  readonly version: string
}
