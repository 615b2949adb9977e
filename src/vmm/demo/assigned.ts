/**
 * A guest that owns a device: the edu device copies for it and calls it, by posted interrupts; then it is told to write where it may not.
 * The report is the journey of each of these, in the words of those who took part.
 */
import type { RemappingEvent } from '../../api.ts'
import type { ApicKind } from '../apic/assist.ts'
import { Assigner } from '../assign/assigner.ts'
import type { DeviceFaultEvent } from '../assign/events.ts'
import { capabilityId, configPorts, sourceText } from '../assign/pci.ts'
import { mem, type Assembler } from '../assembler.ts'
import { createGuest64 } from '../guest64.ts'
import type { HypervisorOptions } from '../machine-options.ts'
import type { Vcpu } from '../vcpu.ts'
import type { Vmm } from '../vmm.ts'

const edu = { vendor: 0x1234, device: 0x11e8 } as const
/** Guest-physical: where the guest finds the device, the bytes that are copied and their copy, and counters. */
const place = { device: 0xc0000000, apic: 0xfee00000, bytes: 0x90000, copy: 0x91000, count: 0x80000 } as const
/** Where the device is to write what it must not: beyond the guest's memory. */
const forbidden = 0x3000000
const at = { source: 0x80, destination: 0x88, count: 0x90, command: 0x98, acknowledge: 0x64, status: 0x24 } as const
const command = { start: 1, toMemory: 2, interrupt: 4 } as const
const buffer = 0x40000
const vector = 0x51
const bytes = 64
const pattern = 0x0123456789abcdefn
/** Hypercalls: a new chapter of the journey, and the end. */
const [chapter, end] = [1, 2]

const chapters = [
  'The guest tells the device to read 64 bytes of its memory, and goes on computing until the interrupt comes',
  'It tells the device to write them back, to another page, and halts until the interrupt comes',
  'It tells the device to write where it has no memory',
] as const

export interface AssignedReport {
  device: string
  /** Whether the last bytes of the copy are those of the original, and the interrupts that the guest has counted. */
  copied: boolean
  interrupts: number
  chapters: { title: string; lines: string[]; exits: Record<string, number> }[]
  faults: DeviceFaultEvent[]
}

function configWrite(a: Assembler, source: number, offset: number, value: number): Assembler {
  return a.mov('rdx', configPorts.address).mov('rax', 0x80000000 + (source << 8) + offset).out32Dx()
    .mov('rdx', configPorts.data).mov('rax', value).out32Dx()
}
function transfer(a: Assembler, from: number, to: number, bits: number): Assembler {
  for (const [register, value] of [[at.source, from], [at.destination, to], [at.count, bytes], [at.command, command.start | bits]])
    a.mov('rax', value).store32(mem('r12', register), 'rax')
  return a
}

/** Programs the device's message, then does what the chapters say. */
function program(a: Assembler, source: number, msi: number): void {
  a.mov('r12', place.device).mov('r13', place.apic).mov('r14', place.count).mov('rax', 0x1ff).store32(mem('r13', 0xf0), 'rax')
  configWrite(a, source, msi + 4, place.apic)
  configWrite(a, source, msi + 12, vector)
  configWrite(a, source, msi, 0x10000)
  a.mov('rbx', pattern).mov('r15', place.bytes).store(mem('r15', bytes - 8), 'rbx').mov('r15', place.copy)
    .store(mem('r15', bytes - 8), 'r12')
  // registers are touched once before anybody counts
  a.load32('rax', mem('r12', at.status)).mov('rax', 0).push('rax').pop('rax')
  a.mov('rax', chapter).hypercall().op('sti')
  transfer(a, place.bytes, buffer, command.interrupt).label('spin').load('rax', mem('r14')).cmp('rax', 1).if('b', 'spin').op('cli')
  a.mov('rax', chapter).hypercall()
  transfer(a, buffer, place.copy, command.toMemory | command.interrupt)
    .label('sleep').op('sti', 'hlt', 'cli').load('rax', mem('r14')).cmp('rax', 2).if('b', 'sleep')
  a.mov('rax', chapter).hypercall()
  transfer(a, buffer, forbidden, command.toMemory).label('busy').load32('rax', mem('r12', at.command)).and('rax', 1).if('ne', 'busy')
  a.load('rbx', mem('r15', bytes - 8)).load('rcx', mem('r14')).mov('rax', end).hypercall()
  a.label('called').push('rax').load32('rax', mem('r12', at.status)).store32(mem('r12', at.acknowledge), 'rax')
    .load('rax', mem('r14')).add('rax', 1).store(mem('r14'), 'rax').mov('rax', 0).store32(mem('r13', 0xb0), 'rax').pop('rax').op('iretq')
}

/** Options of the machine that it needs. */
export const assignedMachine: HypervisorOptions = { cpu: 'intel', iommu: 'vtd', devices: [{ name: 'edu', properties: {} }] }

/** What the remapping unit tells goes to `told`: it is part of the report. Where the hypervisor keeps the APIC nothing is posted. */
export function assignedDemo(apic: ApicKind = 'virtual'): { told: (event: RemappingEvent) => void; run: (vmm: Vmm) => AssignedReport } {
  let lines: string[] = []
  let counted = 0n
  let now = (): number => 0
  const note = (line: string): void => void lines.push(`${(now() / 1000).toFixed(1).padStart(8)} µs  ${line}`)
  return {
    told: event => { if (event.kind !== 'invalidation') note(`unit        ${event.words}`) },
    run(vmm) {
      now = () => vmm.hardware.now
      const assigner = new Assigner(vmm)
      const source = assigner.pci.find(edu.vendor, edu.device)
      if (source === undefined) throw new Error('the machine has no edu device')
      const msi = assigner.pci.capability(source, capabilityId.msi)!
      const report: AssignedReport = { device: sourceText(source), copied: false, interrupts: 0, chapters: [], faults: [] }
      let before: Record<string, number> = {}
      const turn = (vcpu: Vcpu): void => {
        const count = vcpu.guest.memory.read64(place.count)
        if (count > counted) note(`guest       its handler for vector 0x${vector.toString(16)} has run; it has counted ${count}`)
        counted = count
        const now = exitsOf(vcpu)
        const last = report.chapters.at(-1)
        if (last) last.exits = difference(now, before)
        before = now
        lines = []
        const title = chapters[report.chapters.length]
        if (title) report.chapters.push({ title, lines, exits: {} })
      }
      const { guest, vcpu } = createGuest64(vmm, {
        name: 'owner', apic, interrupts: { [vector]: 'called' }, code: a => program(a, source, msi),
        handlers: {
          halt: () => 'wait',
          hypercall: ({ number, arguments: [value, count] }, caller) => {
            turn(caller)
            if (Number(number) === chapter) return { result: 0n }
            report.copied = value === pattern
            report.interrupts = Number(count)
            return 'stop'
          },
        },
      })
      const assignment = assigner.assign(guest, source, { bars: { 0: place.device } })
      assigner.onFault = fault => {
        report.faults.push(fault)
        note(`hypervisor  ${fault.explanation}`)
        for (const line of fault.way) note(`table       ${line}`)
      }
      const descriptor = vcpu.apic?.descriptor
      const request = descriptor === undefined ? '' : `: its descriptor at 0x${descriptor.toString(16)} has a request`
      vmm.onEvent = event => {
        if (event.kind === 'exit') note(`processor   the guest exits: ${event.exit.kind}`)
        else if (event.kind === 'waits') note('hypervisor  the guest waits; notifications go to the hypervisor now')
        else if (event.kind === 'wakes')
          note(`hypervisor  the guest wakes${request}`)
      }
      const result = vmm.run()
      if (result.kind === 'exit') throw new Error(result.explanation)
      if (result.kind !== 'done') throw new Error(`the demonstration ended with '${result.kind}'`)
      explainWays(report, assigner, source, assignment.messages[0].index)
      return report
    },
  }
}

/** What the tables say of the two addresses, and of the message. */
function explainWays({ chapters: [first, second] }: AssignedReport, { driver, vmm }: Assigner, source: number, index: number): void {
  const tableLine = (line: string): string => `             table       ${line}`
  first.lines.unshift(...driver.way(source, place.bytes).map(tableLine))
  second.lines.unshift(...driver.way(source, place.copy).map(tableLine))
  const entry = driver.interruptTable + index * 16
  const [low, high] = [0, 8].map(offset => vmm.hardware.memory.read64(entry + offset).toString(16).padStart(16, '0'))
  for (const { lines } of [first, second])
    lines.unshift(tableLine(`interrupt entry ${index} at 0x${entry.toString(16)} is 0x${high} 0x${low}`))
}

const exitsOf = (vcpu: Vcpu): Record<string, number> =>
  Object.fromEntries([...vcpu.statistics.exits].map(([kind, { count }]) => [kind, count]))
const difference = (now: Record<string, number>, before: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(now).map(([kind, count]) => [kind, count - (before[kind] ?? 0)]).filter(([, count]) => count !== 0))
