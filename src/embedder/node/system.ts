/** The command line's system on Node: files, standard streams, and runs of the machine. */
import { readFileSync } from 'node:fs'
import type { Machine, MachineOptions, OutsideEvent } from '../../api.ts'
import type { Catalogue, RunRequest, RunResult, System } from '../../cli/system.ts'
import { statuses, statusOf } from '../../cli/status.ts'
import { type Command, escapeHelp } from '../escape.ts'
import { type CpuProfile, namedProfile, profileTable, summarizeProfile } from '../../insight/profile.ts'
import { PanicWatch } from '../panic.ts'
import { type Ending, Session, type Surroundings } from '../session.ts'
import { openFatFolder } from './fat-folder.ts'
import { openStore, pathBeside } from './file-store.ts'
import { expectWritable, readFile, readFileMeanwhile, writeFile } from './files.ts'
import type { serveGdb } from './gdb.ts'
import type { NodeLink } from './link.ts'
import type { NodeNetwork } from './network.ts'
import { openDebugConsole } from './debug-console.ts'
import { observeGuests } from './guest-events.ts'
import { openMonitors } from './monitors.ts'
import { openOtherPorts, openSerialPort, type SerialPort } from './serial-port.ts'
import { openFolder } from './shared-folder.ts'
import { attachInput, endsOf, onTerminal, outputTo } from './stdio.ts'
import { onSignals, watchStarter } from './process.ts'

const starterCheckMilliseconds = 500

function printError(text: string): void {
  process.stderr.write(process.stdin.isRaw ? text.replaceAll('\n', '\r\n') : text)
}

/** Endings after which the machine could run on. */
const canGoOn: readonly Ending['kind'][] = ['budget', 'timeout', 'left', 'signal', 'idle']

/** `codeCache`: RunRequest's. `read`: all of the files in the options is there. */
export type MachineFactory = (options: MachineOptions, codeCache?: string, read?: Promise<unknown>) => Machine | Promise<Machine>

async function run(
  createMachine: MachineFactory, starterGone: () => boolean, request: RunRequest, read: Promise<unknown>,
): Promise<RunResult> {
  const started = performance.now()
  for (const path of [request.save, request.profile?.file]) if (path !== undefined) expectWritable(path)
  const machine = await createMachine(request.machine, request.codeCache, read)
  if (request.restore !== undefined) machine.restoreState((await import('./state-file.ts')).readState(request.restore))
  const collected: Uint8Array[] = []
  const { serial, port: consolePort = 0 } = request.console
  const port: SerialPort | undefined = typeof serial === 'object' ? await openSerialPort(serial) : undefined
  const give = (bytes: Uint8Array, number: number): void => {
    machine.serialInput(bytes, number)
    session.wake()
  }
  const otherPorts = await openOtherPorts(request.serials ?? [], give)
  const output = outputTo(request.console, collected, port)
  const panics = new PanicWatch()
  const consoleInput = { open: port?.open ?? serial === 'stdio' }
  machine.onLog = message => { if (!request.console.quiet) output.remark(() => printError(`vitrine: ${message}\n`)) }
  const stopTrace = observeGuests(request, machine, lines => output.remark(() => printError(lines)))
  machine.onSerialOutput = (bytes, number) => {
    if (number !== consolePort) return otherPorts.take(number, bytes)
    output.take(bytes)
    panics.see(bytes)
    if (panics.stuck) session.end({ kind: 'panic' })
  }
  const debugConsole = await openDebugConsole(request.debugConsole, machine, line => {
    if (!request.console.quiet) output.remark(() => printError(`vitrine: debug console: ${line}\n`))
  })
  const session = new Session(machine, {
    ...surroundings(
      async () => {
        await output.flush()
        await otherPorts.flush()
        await debugConsole.flush()
      },
      () => consoleInput.open || otherPorts.open || monitors.open ||
        [...networks.values()].some(each => each.isListening || each.isAwaited),
    ),
    awaited: () => [...networks.values()].some(each => each.isAwaited),
  }, request.session)
  const networks = await connectNetworks(request, machine, () => session.wake())
  const monitors = await openMonitors(request, machine, session)
  const ended = new Promise<void>(resolve => { session.onEnd = resolve })
  if (port) port.onInput = bytes => give(bytes, consolePort)
  const stopSignals = onSignals(ending => session.end(ending))
  const detach = attachInput(request.console, {
    input: bytes => give(bytes, consolePort),
    command: command => obey(command, session),
    ...endsOf(session, output, consoleInput),
  })
  const watch = setInterval(() => { if (starterGone()) session.end({ kind: 'left' }) }, starterCheckMilliseconds)
  const terminal = onTerminal(request.console)
  if (terminal && !request.console.quiet && request.console.escape) {
    printError('vitrine: keys go to the guest; Ctrl-A X leaves, Ctrl-A H helps\n')
  }
  const stopGdb = request.gdb === undefined ? () => {} : await listenForGdb(request.gdb, machine, request.machine.cpus ?? 1, session)
  const stopProfiler = request.profile === undefined ? undefined : await (await import('./profiler.ts')).startProfiler()
  try {
    for (const network of networks.values()) await network.open()
    await Promise.race([Promise.all([port?.ready, otherPorts.ready, debugConsole.ready, monitors.ready]), ended])
    const ending = await session.run()
    const samples = await stopProfiler?.()
    if (request.save !== undefined) {
      if (canGoOn.includes(ending.kind)) (await import('./state-file.ts')).writeState(request.save, machine.saveState())
      else output.remark(() => printError(`vitrine: nothing was saved: the machine has come to its end (${ending.kind})\n`))
    }
    return {
      ...resultOf(machine, ending, panics.panic),
      wallSeconds: (performance.now() - started) / 1000,
      console: Buffer.concat(collected).toString(),
      ...(samples === undefined ? {} : { profile: tellProfile(samples, machine, request.profile!) }),
    }
  } finally {
    clearInterval(watch)
    stopTrace()
    stopGdb()
    await output.flush()
    await otherPorts.flush()
    await debugConsole.flush()
    debugConsole.close()
    await monitors.close()
    output.sayAll()
    detach()
    stopSignals()
    port?.close()
    otherPorts.close()
    for (const network of networks.values()) network.close()
    if (terminal) process.stdout.write((output.escapes ? '\x1b[0m\x1b[?25h' : '') + (output.atLineStart ? '' : '\n'))
  }
}

/** What is asked for by keys behind Ctrl-A. */
function obey(command: Command, session: Session): void {
  if (command === 'leave') session.end({ kind: 'left' })
  else if (command === 'help') printError(`\n${escapeHelp}`)
  else if (command === 'inspect') printError('\nvitrine: there is no monitor on this terminal; `vitrine qemu` has -monitor and -qmp\n')
}

/** What the machine itself tells of its run. */
function resultOf(machine: Machine, ending: Ending, panic: string | undefined): Omit<RunResult, 'wallSeconds' | 'console' | 'profile'> {
  const status = statusOf({ ending, panic })
  return {
    ending,
    instructions: machine.retired,
    virtualNanoseconds: machine.now,
    resources: {
      touchedMemory: machine.touchedMemory,
      residentMemory: process.memoryUsage.rss(),
      cpuSeconds: (process.cpuUsage().user + process.cpuUsage().system) / 1e6,
    },
    panic,
    screen: screenOf(machine),
    picture: [statuses.halted.status, statuses.panic.status].some(each => each === status) ? machine.describe(0) : undefined,
  }
}

const listenForGdb: typeof serveGdb = async (...how) => (await import('./gdb.ts')).serveGdb(...how)

/** The table, with exact counts below it; the samples go to the file. */
function tellProfile(samples: CpuProfile, machine: Machine, { file, symbols }: NonNullable<RunRequest['profile']>): string {
  if (file !== undefined) writeFile(file, JSON.stringify(namedProfile(samples, symbols)))
  const counts = Object.entries(machine.statistics()).map(([name, count]) => `${count} ${name}`)
  return `${profileTable(summarizeProfile(samples, symbols))}Counted: ${counts.join(', ')}.\n`
}

function screenOf(machine: Machine): string[] | undefined {
  const lines = machine.screen()?.lines
  return lines?.some(line => line !== '') ? lines : undefined
}

/** What networks ask is asked of ours; answers come in between two slices. */
async function connectNetworks(request: RunRequest, machine: Machine, wake: () => void): Promise<Map<string, NodeNetwork | NodeLink>> {
  const { machine: { networks = [] }, forwards = {}, links = {} } = request
  if (networks.length === 0) return new Map()
  const { NodeNetwork } = await import('./network.ts')
  const { NodeLink } = await import('./link.ts')
  const connected = new Map(networks.map(({ id, kind }) => {
    const tell = (event: OutsideEvent): void => {
      machine.outsideInput(id, event)
      wake()
    }
    return [id, kind === 'user' ? new NodeNetwork(tell, forwards[id]) : new NodeLink(links[id], tell)] as const
  }))
  machine.onOutside = (id, outside) => connected.get(id)?.request(outside)
  return connected
}

function surroundings(flush: () => Promise<void>, inputOpen: () => boolean): Surroundings {
  return {
    wall: () => performance.now(),
    inputOpen,
    flush,
    pause(milliseconds, setWake) {
      return new Promise(resolve => {
        // Also an immediate return passes through the event loop, so that keys and signals arrive.
        if (milliseconds < 1) return void setImmediate(resolve)
        const timer = setTimeout(resolve, Math.min(milliseconds, 2 ** 30))
        setWake(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    },
  }
}

async function catalogue(): Promise<Catalogue> {
  const { createModel, describeModel, modelNames, notImplemented } = await import('../../cpu/models.ts')
  const { featureNames } = await import('../../cpu/features.ts')
  const { deviceCatalogue } = await import('../../platform/device-catalogue.ts')
  return {
    cpuModels: modelNames.map(name => ({ name, description: createModel(name).identity.brand })),
    cpuFeatures: featureNames,
    cpuFeaturesNotImplemented: [...notImplemented],
    devices: [...deviceCatalogue],
    checkCpu: createModel,
    describeCpu: describeModel,
  }
}

export function nodeSystem(createMachine: MachineFactory): System {
  // From the very start: whoever started us may be gone before a machine is made.
  const starterGone = watchStarter()
  const reading: Promise<void>[] = []
  return {
    readFile,
    readForRun(path) {
      const { bytes, done } = readFileMeanwhile(path)
      reading.push(done)
      // a command that fails for another reason before it runs says that
      done.catch(() => {})
      return bytes
    },
    openStore,
    openFatFolder,
    openFolder,
    pathBeside,
    writeFile,
    now: () => Math.floor(Date.now() / 1000),
    processId: process.pid,
    print: text => { process.stdout.write(text) },
    printError,
    catalogue,
    async runGuests(request) {
      const { runGuests } = await import('./guests.ts')
      return runGuests(request, surroundings, onSignals, printError)
    },
    async hypervisor(options) {
      const { createVmm } = await import('../../hypervisor.ts')
      return createVmm(options)
    },
    async bench(request) {
      const { bench } = await import('./bench/bench.ts')
      await bench(request)
    },
    run: request => run(createMachine, starterGone, request, Promise.all(reading)),
    version: (JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string }).version,
  }
}
