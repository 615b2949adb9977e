/** Puts together what executes: linear memory, physical memory, MMU, code cache, interpreter, CPUs. Knows no device. */
import { createCpuState, type CpuState } from '../cpu/state.ts'
import type { CpuModel } from '../cpu/model.ts'
import type { PortPort } from '../cpu/processor.ts'
import type { SaveMapName } from '../cpu/smm-map.ts'
import type { LogUnhandled } from '../devices/ports.ts'
import { OpcodeTables } from '../decode/tables.ts'
import { registry } from '../isa/rows.ts'
import { createLinearMemory } from '../memory/linear.ts'
import { PhysicalMemory, type RamRange } from '../memory/physical.ts'
import { MmuControl } from '../mmu/control.ts'
import { MmuLinearMemory } from '../mmu/linear-memory.ts'
import { pagingModelOf } from '../mmu/paging.ts'
import { Mmu } from '../mmu/mmu.ts'
import { CodeCache } from './code-cache.ts'
import { Cpu } from './cpu.ts'
import type { CpuParts } from './cpu-parts.ts'
import { HelperTable } from './helper-table.ts'
import { firstKeys } from './first.ts'
import { hotKeys } from './hot.ts'
import type { BackgroundBuilder } from './jit/build.ts'
import { Jit } from './jit/jit.ts'
import { Interpreter, type InterpreterKeeper } from './interpreter.ts'
import { createVirtualization } from '../virt/create.ts'
import type { createSvm } from '../virt/svm/create.ts'
import { SegmentAddressing } from './segment-address.ts'
import { SharedFunctions } from './shared-functions.ts'
import { hotSpecs } from './hot-specs.ts'

/** Arrivals at a record after which its region is compiled: measured, see ARCHITECTURE.md. */
const usualThreshold = 4096

export interface CoreOptions {
  readonly ram: readonly RamRange[]
  readonly model: CpuModel
  readonly cpus: number
  readonly log: LogUnhandled
  /** Count executions of handlers: Interpreter.executions. */
  readonly profile?: boolean
  /** Compile hot regions. The run is the same with and without. */
  readonly jit?: boolean
  /** Arrivals that make code hot, a power of two; tests compile early. */
  readonly hotThreshold?: number
  /** Another thread that compiles; without, the machine's own does. */
  readonly background?: BackgroundBuilder
  readonly linearMemory?: WebAssembly.Memory
  readonly interpreterKeeper?: InterpreterKeeper
  /** For models that have AMD-V. */
  readonly createSvm?: typeof createSvm
}

export interface SmmWiring {
  readonly saveMap: SaveMapName
  modeChanged(): void
}

export interface Core {
  readonly memory: WebAssembly.Memory
  readonly physical: PhysicalMemory
  readonly mmu: Mmu
  readonly state: CpuState
  readonly code: CodeCache
  readonly interpreter: Interpreter
  readonly jit: Jit | undefined
  /** Makes CPU `index`, wired to its interrupt controller, the port bus and, if there is any, what hides SMRAM. */
  createCpu(index: number, apic: CpuParts['apic'], ports: PortPort, nextDeadline: () => number, smm?: SmmWiring): Cpu
  /** The CPU whose state lies in the state area. */
  running: Cpu | undefined
}

export function createCore(options: CoreOptions): Core {
  const paging = pagingModelOf(options.model)
  const hotThreshold = options.hotThreshold ?? usualThreshold
  const memory = options.linearMemory ?? createLinearMemory()
  const state = createCpuState(memory)
  const physical = new PhysicalMemory({ memory, ram: options.ram, log: options.log })
  const mmu = new Mmu({ physical, model: paging, cpus: options.cpus })
  const segments = new SegmentAddressing(memory)
  const helpers = new HelperTable()
  const call = (number: number, record: number): number => {
    mmu.follow()
    return core.running!.callHelper(number, record)
  }
  const shared = new SharedFunctions(memory)
  const helperPort = { call, number: helpers.number, shared }
  const core = { memory, state, physical, mmu, running: undefined as Cpu | undefined }
  const offers = (feature: string): boolean => options.model.has(feature)
  const tables = new OpcodeTables(registry, offers)
  const interpreter = new Interpreter(
    {
      memory,
      slowRead: (low, high, sizeAndFlags) => {
        mmu.follow()
        return mmu.slowRead(low, high, sizeAndFlags)
      },
      slowWrite: (low, high, sizeAndFlags) => {
        mmu.follow()
        return mmu.slowWrite(low, high, sizeAndFlags)
      },
      helper: helperPort.call,
      stackAddress: segments.forStack,
      segmentAddress: segments.forRecord,
      shared,
    },
    helpers.number,
    hotKeys,
    keys => hotSpecs(tables, keys),
    { profile: options.profile, hotThreshold: options.jit ? hotThreshold : 0, keeper: options.interpreterKeeper, firstKeys },
  )
  const code = new CodeCache(
    memory,
    tables,
    offers,
    interpreter,
    place => physical.pageHoldsCode(place),
  )
  physical.code = {
    tableFor: place => code.tableFor(place >>> 0, state.mode),
    written: (place, length) => {
      if (code.written(place >>> 0, length)) physical.pageIsClean(place)
    },
    isBeside: (place, length) => code.isBeside(place >>> 0, length),
    forget: place => {
      if (code.forget(place >>> 0)) physical.pageIsClean(place)
    },
  }
  code.installed.releaseHandler = number => interpreter.release(number)
  const jitLog = (message: string): void => options.log('jit', message)
  const jit = options.jit
    ? new Jit(memory, tables, offers, code, interpreter, helperPort, hotThreshold, jitLog, options.background)
    : undefined
  const linear = new MmuLinearMemory(mmu)
  const translation = new MmuControl(mmu, paging)
  const virtualization = createVirtualization(options.model, mmu, paging, () => core.running!, options.createSvm)
  const createCpu: Core['createCpu'] = (index, apic, ports, nextDeadline, smm = { saveMap: 'amd64', modeChanged: () => {} }) => {
    const cpu = new Cpu({
      index,
      memory,
      state,
      model: options.model,
      mmu,
      linear,
      translation,
      apic,
      ports,
      smm: {
        ...smm,
        read: (address, into) => void physical.read(address, into),
        write: (address, from) => void physical.write(address, from),
      },
      code,
      interpreter,
      jit,
      helpers: helpers.functions,
      helperTimes: helpers.times,
      nextDeadline,
      log: message => options.log(`cpu${index}`, message),
    })
    cpu.virt = virtualization(cpu)
    return cpu
  }
  return Object.assign(core, { interpreter, code, jit, createCpu })
}
